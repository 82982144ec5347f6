"""What is too large or too many to be read."""

from __future__ import annotations

from typing import NamedTuple

from cudafilter.errors import ImageError

MAX_PIXELS = 1 << 29
"""Most pixels of an image unless the user says otherwise. A file past it is taken for a bomb."""
SPARSE_PIXELS = 1 << 25
"""Most pixels of an image whose file has less than a byte for SPARSE of them."""
SPARSE = 256


class Limits(NamedTuple):
    """What one file may ask for."""

    file_bytes: int | None = None
    """Length of the file; None where only its head is looked at."""
    max_pixels: int | None = None
    """Most pixels, as the user said; None for MAX_PIXELS, or SPARSE_PIXELS of a sparse file."""

    def require_size(self, width: int, height: int) -> None:
        """Raise ImageError for an image of more pixels than are read."""
        pixels = width * height
        most = self.max_pixels
        if most is None:
            sparse = self.file_bytes is not None and pixels > self.file_bytes * SPARSE
            most = SPARSE_PIXELS if sparse else MAX_PIXELS
        if pixels > most:
            raise ImageError(
                f"{width} x {height} are {pixels:,} pixels, more than the {most:,} that are read"
                + (f" of a file of {self.file_bytes:,} bytes" if most == SPARSE_PIXELS else ""),
                hint=f"if it is meant to be so large: --max-pixels {pixels}",
            )


def refuse_frames(frames: int) -> None:
    """Raise ImageError: writing would keep one frame of many."""
    raise ImageError(
        f"it holds {frames} frames, of which only one could be written",
        hint="extract the frames into files of their own first",
    )
