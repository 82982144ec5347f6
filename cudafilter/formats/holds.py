"""Whether a format holds samples and colours, and what to choose where it does not."""

from __future__ import annotations

from collections.abc import Sequence

from cudafilter.errors import FramesError, ImageError
from cudafilter.formats.table import ANIMATION, FORMATS


def require_held(
    format: str, dtype: str, channels: int, alpha: bool, cmyk: bool, bits: int | None = None
) -> None:
    """Raise ImageError unless a file of *format* holds pixels of *dtype* and *channels*.

    *alpha* says that the last channel is alpha, *cmyk* that the four are inks. *bits* is how many
    bits the samples had that were scaled to 16; None where they have all of their type's.
    """
    known, title = FORMATS[format], format.upper()
    if cmyk and (channels != 4 or alpha):
        raise ImageError(f"CMYK needs 4 channels without alpha, not {channels}")
    if channels in (2, 4) and not (alpha or cmyk):
        raise ImageError(f"{channels} channels without alpha have no meaning in a file")
    colour = "CMYK" if cmyk else "RGB" if channels - alpha > 1 else "gray"
    if cmyk and colour not in known.colours:
        choice = _choice("uint8", colour)
        raise ImageError(
            f"{title} holds no CMYK", hint=f"choose {choice}, or convert the picture to RGB"
        )
    if cmyk and dtype != "uint8":
        raise ImageError("CMYK is written with 8 bits only")
    if dtype == "float32" and dtype not in known.samples:
        raise ImageError(f"{title} holds no float samples", hint=f"choose {_choice(dtype, colour)}")
    if colour not in known.colours:
        wider = [known.in_colour] if known.in_colour else _holding(dtype, colour)
        raise ImageError(
            f"{title} holds no colour", hint=f"choose {_listed(wider)}, or make the picture gray"
        )
    whole = {"gray": "gray+alpha", "RGB": "RGBA"}[colour] if alpha else colour
    if dtype not in known.samples:
        raise ImageError(
            f"{title} holds 8 bits a sample, and the picture has 16",
            hint=f"choose {_choice(dtype, whole)}",
        )
    if dtype == "uint16" and (bits or 16) > known.most_bits:
        raise ImageError(
            f"{title} holds {known.most_bits} bits a sample, and the picture has {bits or 16}",
            hint=f"choose {_choice(dtype, whole)}",
        )
    if whole not in known.colours:
        raise ImageError(
            f"{title} holds no transparency",
            hint=f"choose {_choice(dtype, whole)}, or lay it over a colour: --background white",
        )


def require_frames(format: str, frames: int, timed: bool) -> None:
    """Raise FramesError unless a file of *format* holds so many *frames*.

    *timed* says that they are those of an animation, and no pages.
    """
    holds = FORMATS[format].frames
    if holds and (timed or holds != ANIMATION):
        return
    fitting = [n for n, f in FORMATS.items() if f.frames and (timed or f.frames != ANIMATION)]
    why = "holds frames only with their times, and pages have none" if holds else "holds only one"
    raise FramesError(
        f"it holds {frames} frames, and {format.upper()} {why}",
        hint=f"choose {_listed(fitting)}, or --first-frame for the first one only",
    )


def _holding(dtype: str, colour: str) -> list[str]:
    """The formats for pixels of *dtype* that are *colour*, those for gray only left out."""
    return [name for name, f in FORMATS.items() if f.holds(dtype, colour) and not f.in_colour]


def _choice(dtype: str, colour: str) -> str:
    return _listed(_holding(dtype, colour))


def _listed(formats: Sequence[str]) -> str:
    """The extensions of the first three of *formats*, as words: ``.png, .webp or .tif``."""
    *most, last = (FORMATS[name].extensions[0] for name in formats[:3])
    return f"{', '.join(most)} or {last}" if most else last
