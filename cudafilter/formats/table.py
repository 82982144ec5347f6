"""The formats: what each is called, what a file of it holds, and which module reads and writes it.

Whoever asks what a format is or can asks here. Modules are named, not imported: a job loads only
those of its own formats. rows.py tells what a module must have.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import NamedTuple

from cudafilter.errors import ImageError
from cudafilter.formats.unread import kind_of_bytes

ANIMATION, PAGES = "animation", "pages"
WHOLE, ROWS = "whole", "rows"
"""How a format is read or written: the whole file in memory, or some rows at a time."""

HEAD = 64
"""Bytes that show a file's format."""

_GRAYS, _COLOURS = ("gray", "gray+alpha"), ("RGB", "RGBA")
_SEGMENT = 65533
"""Most bytes in one JPEG segment. EXIF and XMP have marks of 6 and 29 bytes in it."""


class Ways(NamedTuple):
    """How pixels are to be written; each format takes what it knows."""

    quality: int | None = None
    """1..100, of lossy coding."""
    compress_level: int | None = None
    """0..9, of lossless coding."""
    dither: bool = False
    """Mix the colours of a palette, of coding with few colours."""


class Format(NamedTuple):
    """A file format."""

    module: str
    """Of this package."""
    extensions: tuple[str, ...]
    """The first one is given to new files."""
    starts: tuple[bytes, ...]
    """First bytes of its files."""
    ends: bytes = b""
    """Last bytes of its whole files; empty where any may be."""
    reads: str | None = WHOLE
    """WHOLE or ROWS; None where it is not read."""
    writes: str | None = None
    """WHOLE or ROWS; None where it is not written, for it has fewer colours than a filter makes."""
    samples: tuple[str, ...] = ("uint8",)
    """Sample types that are written."""
    colours: tuple[str, ...] = ()
    """What a written pixel may be: gray, gray+alpha, RGB, RGBA or CMYK."""
    keeps: Mapping[str, int | None] = {}
    """Fields of Metadata that it holds, each with the most bytes of one piece; None for any."""
    gray_profile: str = ""
    """Why a colour profile for gray is not kept; empty where it is."""
    spaces: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    """CICP's numbers for primaries and transfer curves that it holds; empty for all."""
    profile_fits: bool = False
    """A colour profile is kept only where it is for just the colours that the pixels have."""
    exif_is_directory: bool = False
    """EXIF becomes the file's own directory: what that cannot hold is lost."""
    settings: tuple[str, ...] = ()
    """Fields of Ways that say something to it."""
    needs: str = ""
    """The module of an extra without which it is not read."""
    frames: str = ""
    """What a file of several pictures is: ANIMATION or PAGES; empty where it holds but one."""
    most_bits: int = 16
    """Most bits of a sample that is a whole number."""
    in_colour: str = ""
    """The format of the same kind of files that holds colour too."""
    can_read: str = ""
    """What is read, in words for the documents."""
    can_write: str = ""

    def begins(self, data: bytes) -> bool:
        """Whether *data* begins as its files do."""
        if data[4:8] == b"ftyp":  # ISO media: the kind of the file, then all that it is as well
            brands = data[8 : min(int.from_bytes(data[:4], "big"), HEAD)]
            return any(brands[at : at + 4] in self.starts for at in range(0, len(brands), 4))
        # RIFF, of which WebP is a kind, has the file's size in bytes 4 to 7.
        return data.startswith(self.starts) or (data[:4] == b"RIFF" and data[8:12] in self.starts)

    def holds(self, dtype: str, colour: str) -> bool:
        """Whether it is written with pixels of *dtype*, of all its bits, that are *colour*."""
        fits = dtype in self.samples and (dtype != "uint16" or self.most_bits == 16)
        return self.writes is not None and fits and colour in self.colours


FORMATS: dict[str, Format] = {
    "png": Format(
        "png", (".png", ".apng"), (b"\x89PNG\r\n\x1a\n",), b"IEND\xaeB`\x82",
        reads=ROWS, writes=ROWS, samples=("uint8", "uint16"), colours=(*_GRAYS, *_COLOURS),
        keeps=dict.fromkeys(
            ("icc", "exif", "xmp", "resolution", "png_chunks", "cicp", "animation")
        ),
        settings=("compress_level",), frames=ANIMATION,
        can_read="1 to 16 bits, gray to RGBA, palette, interlaced, animations",
        can_write="8 and 16 bits, gray to RGBA, animations",
    ),
    "jpeg": Format(
        "jpeg", (".jpg", ".jpeg", ".jpe", ".jfif"), (b"\xff\xd8\xff",), b"\xff\xd9",
        writes=ROWS, colours=("gray", "RGB", "CMYK"),
        keeps={
            "icc": None, "exif": _SEGMENT - 6, "xmp": _SEGMENT - 29, "resolution": None,
            "comments": _SEGMENT, "jpeg_segments": None, "jpeg_coding": None,
        },
        settings=("quality",),
        can_read="gray, RGB, CMYK", can_write="the same",
    ),
    "webp": Format(
        "webp", (".webp",), (b"WEBP",),
        reads=ROWS, writes=ROWS, colours=(*_GRAYS, *_COLOURS),
        keeps=dict.fromkeys(("icc", "exif", "xmp", "animation")),
        gray_profile="it is for gray, and WebP stores gray as RGB",
        settings=("quality",), frames=ANIMATION,
        can_read="RGB, RGBA, animations",
        can_write="the same; lossless unless `--quality` is given",
    ),
    "tiff": Format(
        "tiff", (".tif", ".tiff"), (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        reads=ROWS, writes=ROWS, samples=("uint8", "uint16", "float32"),
        colours=(*_GRAYS, *_COLOURS, "CMYK"),
        keeps=dict.fromkeys(("icc", "exif", "xmp", "resolution", "tiff_tags", "tiff_layout")),
        exif_is_directory=True, settings=("compress_level",), frames=PAGES,
        can_read="1 to 16 bits, floats, gray to RGBA, CMYK of 8 bits, palette, pages",
        can_write="8 and 16 bits, float32, gray to RGBA, CMYK of 8 bits, pages",
    ),
    "bmp": Format(
        "bmp", (".bmp", ".dib"), (b"BM",),
        writes=WHOLE, colours=("gray", "RGB"), keeps={"resolution": None},
        can_read="gray, RGB, RGBA, palette, bit fields, runs", can_write="gray, RGB",
    ),
    "ppm": Format(
        "pnm", (".ppm", ".pnm"), (b"P3", b"P6"),
        reads=ROWS, writes=ROWS, samples=("uint8", "uint16"), colours=("gray", "RGB"),
        can_read="8 and 16 bits", can_write="the same",
    ),
    "pgm": Format(
        "pnm", (".pgm",), (b"P2", b"P5"),
        reads=ROWS, writes=ROWS, samples=("uint8", "uint16"), colours=("gray",), in_colour="ppm",
        can_read="8 and 16 bits", can_write="the same, gray only",
    ),
    "pbm": Format("pnm", (".pbm",), (b"P1", b"P4"), reads=ROWS, can_read="1 bit"),
    "pfm": Format("pnm", (".pfm",), (b"PF", b"Pf"), reads=ROWS, can_read="float32, gray and RGB"),
    "gif": Format(
        "gif", (".gif",), (b"GIF87a", b"GIF89a"),
        reads=ROWS, writes=ROWS, colours=(*_GRAYS, *_COLOURS),
        keeps=dict.fromkeys(("icc", "xmp", "comments", "animation")),
        gray_profile="it is for gray, and GIF stores gray as RGB",
        settings=("dither",), frames=ANIMATION,
        can_read="palette, animations", can_write="256 colours a frame, animations",
    ),
    "jp2": Format(
        "jp2", (".jp2", ".jpf", ".jpx", ".jph"), (b"\0\0\0\x0cjP  \r\n\x87\n",),
        writes=WHOLE, samples=("uint8", "uint16"), colours=(*_GRAYS, *_COLOURS),
        keeps={
            **dict.fromkeys(("icc", "exif", "xmp", "resolution", "bits", "jp2_boxes")),
            "comments": _SEGMENT - 2,
        },
        profile_fits=True, settings=("quality",),
        can_read="1 to 16 bits, gray to RGBA, palette, HTJ2K",
        can_write="8 to 16 bits, gray to RGBA; lossless unless `--quality` is given",
    ),
    "j2k": Format(
        "j2k", (".j2k", ".j2c", ".jpc", ".jhc"), (b"\xff\x4f\xff\x51",), b"\xff\xd9",
        writes=WHOLE, samples=("uint8", "uint16"), colours=(*_GRAYS, *_COLOURS),
        keeps={"bits": None, "comments": _SEGMENT - 2}, settings=("quality",),
        can_read="as `jp2`, without what tells colours", can_write="the same",
    ),
    "avif": Format(
        "avif", (".avif", ".avifs"), (b"avif", b"avis"),
        writes=WHOLE, samples=("uint8", "uint16"), colours=(*_GRAYS, *_COLOURS), most_bits=12,
        keeps=dict.fromkeys(("icc", "exif", "xmp", "bits", "cicp")),
        profile_fits=True, settings=("quality", "compress_level"),
        can_read="8, 10 and 12 bits, gray to RGBA",
        can_write="the same; lossless unless `--quality` is given",
    ),
    "jxl": Format(
        "jxl", (".jxl",), (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"),
        writes=WHOLE, samples=("uint8", "uint16", "float32"), colours=(*_GRAYS, *_COLOURS),
        keeps=dict.fromkeys(("icc", "exif", "xmp", "bits", "cicp")),
        spaces=((1, 9, 11, 12), (1, 8, 13, 16, 17, 18)),
        profile_fits=True, settings=("quality", "compress_level"),
        can_read="1 to 16 bits, floats of 16 and 32 bits, gray to RGBA",
        can_write="8 to 16 bits, float32, gray to RGBA; lossless unless `--quality` is given",
    ),
    "heic": Format(
        "heic", (".heic", ".heif", ".hif"),
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
        needs="pillow_heif", can_read="8, 10 and 12 bits, gray to RGBA; with the extra `heic`",
    ),
    "qoi": Format(
        "qoi", (".qoi",), (b"qoif",), bytes(7) + b"\1",
        writes=WHOLE, colours=(*_GRAYS, *_COLOURS), can_read="RGB, RGBA", can_write="the same",
    ),
}  # fmt: skip

BY_EXTENSION = {end: name for name, format in FORMATS.items() for end in format.extensions}


def written() -> list[str]:
    """The names of the formats that are written."""
    return [name for name, format in FORMATS.items() if format.writes is not None]


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that *path*'s extension names; ImageError lists the known ones otherwise."""
    try:
        return BY_EXTENSION[os.path.splitext(path)[1].lower()]
    except KeyError:
        known = ", ".join(BY_EXTENSION)
        raise ImageError(
            f"{path}: the extension names no known image format", hint=f"known are {known}"
        ) from None


def format_of_bytes(data: bytes) -> str:
    """The format that the first bytes of a file show, whatever its name; ImageError if none."""
    if not data:
        raise ImageError("the file is empty")
    for name, format in FORMATS.items():
        if format.begins(data):
            return name
    if (kind := kind_of_bytes(data)) is not None:
        raise ImageError(f"it is {kind.what}, which is not read", hint=kind.advice)
    raise ImageError("it is no image of a known format", hint=f"known are {', '.join(FORMATS)}")


def is_image_name(path: str | os.PathLike[str]) -> bool:
    """Whether *path* has the extension of a format that is read here."""
    name = BY_EXTENSION.get(os.path.splitext(path)[1].lower())
    return name is not None and (not FORMATS[name].needs or _is_there(FORMATS[name].needs))


@functools.cache
def _is_there(module: str) -> bool:
    """Whether the extra that has *module* is installed."""
    from importlib.util import find_spec

    return find_spec(module) is not None


def unused_settings(
    format: str,
    *,
    quality: int | None = None,
    compress_level: int | None = None,
    dither: bool = False,
) -> tuple[str, ...]:
    """What a user who gave settings that say nothing to *format* should know."""
    told = []
    if quality is not None and "quality" not in FORMATS[format].settings:
        told.append(f"the quality is not used: {format.upper()} is lossless")
    if compress_level is not None and "compress_level" not in FORMATS[format].settings:
        told.append(f"the compress level is not used: {format.upper()} has none")
    if dither and "dither" not in FORMATS[format].settings:
        told.append(f"--dither is not used: {format.upper()} holds all colours")
    return tuple(told)
