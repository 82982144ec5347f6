"""What may be chosen beside a filter's own parameters, as plain data.

Imported by ``cudafilter --help``, so it imports nothing heavy.
"""

from __future__ import annotations

from cudafilter.errors import ParameterError, require_text

BORDERS: tuple[str, ...] = ("edge", "reflect", "symmetric", "wrap", "constant")
ENGINES: tuple[str, ...] = ("auto", "cuda", "cpu")
UNITS = "units"
CODECS: tuple[str, ...] = ("auto", UNITS, "cpu")
"""What decodes and encodes JPEG: the GPU where it can, or always the CPU."""
OLD_CODECS = {"pillow": "cpu"}
"""Former names, which are still taken."""
GPU_FAILURES: tuple[str, ...] = ("fail", "cpu")
"""What becomes of an image on which the GPU fails: an error, or the CPU does it."""
CHECKS: tuple[str, ...] = ("all", "quick")
"""What --check looks at; the first one by itself."""
ALL = "all"
"""Every GPU, as --gpu takes it."""
EXISTING: tuple[str, ...] = ("overwrite", "skip", "error")
"""What to do about outputs that are there already."""


LAST = (1 << 31) - 1
"""No file has a frame of a larger number."""


def frame_numbers(text: str) -> tuple[range, ...]:
    """The frames that *text* asks for: ``0,2-4``, or ``3-`` for all from there on.

    They count from 0, and rise. Whether they are there is not looked at. Raises ParameterError
    ("frames").
    """
    require_text("frames", text)
    asked: list[range] = []
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        known = first.isdecimal() and (last.isdecimal() or not last)
        start = min(int(first), LAST) if known else LAST
        stop = (min(int(last), LAST) if last else LAST if dash else start) + 1 if known else 0
        if stop <= start or (asked and start < asked[-1].stop):
            raise ParameterError(
                "frames", f"must be numbers from 0 on that rise, such as 0,2-4 or 3-, not {text!r}"
            )
        asked.append(range(start, stop))
    return tuple(asked)


def gpu_numbers(gpu: str | int) -> tuple[int, ...] | None:
    """The numbers of the GPUs that *gpu* asks for: ``0``, ``0,2``; None for ALL.

    Whether they are there is not looked at. Raises ParameterError ("gpu").
    """
    if gpu == ALL:
        return None
    parts = str(gpu).split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ParameterError(
            "gpu",
            f"must be {ALL}, or numbers of GPUs such as 0 or 0,2, not {str(gpu)!r}",
            hint="`cudafilter info` lists them",
        )
    numbers = tuple(int(part) for part in parts)
    for number in numbers:
        if numbers.count(number) > 1:
            raise ParameterError("gpu", f"names GPU {number} twice")
    return numbers
