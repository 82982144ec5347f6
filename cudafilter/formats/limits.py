"""What is too large or too many to be read."""

from __future__ import annotations

from typing import NamedTuple

from cudafilter.errors import FramesError, ImageError

MAX_PIXELS = 1 << 29
"""Most pixels of an image unless the user says otherwise."""
SPARSE_BYTES = 1 << 27
"""Bytes of pixels that every file may decode to, however short it is."""
SPARSE = 128
"""Bytes of pixels that each byte of a longer file may decode to. Most files have fewer than 100.

An image in work takes about five times its pixels, so a file under 1 MB stays under 1 GB.
"""
MAX_ENTRIES = 10_000
"""Most pieces of metadata in one file, such as chunks, blocks or segments."""
MAX_METADATA = 1 << 25
"""Most bytes that one compressed piece of metadata, such as a profile, may inflate to."""
MAX_STREAM = 1 << 30
"""Most bytes that are read of a pipe or device, which does not tell its size."""


class Extent(NamedTuple):
    """An image's size, as its header tells."""

    width: int
    height: int
    channels: int
    bytes_per_sample: int

    @property
    def samples(self) -> int:
        """Width times height times channels."""
        return self.width * self.height * self.channels


class Limits(NamedTuple):
    """What one file may ask for."""

    file_bytes: int | None = None
    """Length of the file; None where only its head is looked at."""
    max_pixels: int | None = None
    """Most pixels, as the user said; None for MAX_PIXELS, or fewer of a file of few bytes."""
    by_rows: bool = False
    """The image is never in memory whole, so that only the bytes of its file limit it."""

    def require_size(self, width: int, height: int, pixel_bytes: int = 4) -> None:
        """Raise ImageError for an image of more pixels than are read.

        *pixel_bytes* is what a decoded pixel takes: channels times bytes of a sample.
        """
        pixels = width * height
        most, why = MAX_PIXELS, ""
        if self.max_pixels is not None:
            most = self.max_pixels
        elif self.file_bytes is not None:
            likely = max(SPARSE_BYTES, self.file_bytes * SPARSE) // pixel_bytes
            if likely < most or self.by_rows:
                most, why = likely, f" of a file of {self.file_bytes:,} bytes"
        if pixels > most:
            raise ImageError(
                f"{width} x {height} are {pixels:,} pixels, more than the {most:,} that are read"
                + why,
                hint=f"if it is meant to be so large: --max-pixels {pixels}",
            )


def require_entries(count: int, what: str) -> None:
    """Raise ImageError if a file has more than MAX_ENTRIES of *what*, in the plural."""
    if count > MAX_ENTRIES:
        raise ImageError(
            f"it holds {count:,} {what} beside its pixels, more than the {MAX_ENTRIES:,} that are"
            " read",
            hint="remove its metadata first",
        )


def refuse_frames(frames: int) -> None:
    """Raise FramesError: of a format whose frames are not read, writing would keep one of many."""
    raise FramesError(
        f"it holds {frames} frames, of which only one could be written",
        hint="extract the frames into files of their own first",
    )
