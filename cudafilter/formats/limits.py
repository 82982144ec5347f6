"""What is too large or too many to be read."""

from __future__ import annotations

from cudafilter.errors import ImageError

MAX_SAMPLES = 1 << 31
"""Largest width * height * channels that is read: 2 GiB of 8-bit samples. A file past it is taken
for a bomb."""


def require_size(width: int, height: int, channels: int) -> None:
    """Raise ImageError for an image of more than MAX_SAMPLES."""
    if width * height * channels > MAX_SAMPLES:
        raise ImageError(
            f"{width} x {height} pixels of {channels} channels are more than the"
            f" {MAX_SAMPLES:,} samples that are read"
        )


def refuse_frames(frames: int) -> None:
    """Raise ImageError: writing would keep one frame of many."""
    raise ImageError(
        f"it holds {frames} frames, of which only one could be written",
        hint="extract the frames into files of their own first",
    )
