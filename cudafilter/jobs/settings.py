"""How each image of a run is treated."""

from __future__ import annotations

from typing import NamedTuple


class Settings(NamedTuple):
    """How each image is treated."""

    gray: bool = False
    check: str | None = None
    """One of catalogue.CHECKS: every result is compared with the reference, and one that disagrees
    is not written."""
    quality: int | None = None
    compress_level: int | None = None
    dither: bool = False
    frames: tuple[range, ...] | None = None
    """Frames to be taken of each file, by number; None for all."""
    max_pixels: int | None = None
    """Most pixels of an image; None for what formats/limits.py says."""
    strict: bool = False
    """What was met in a folder and cannot be taken is a failure."""
    engine_codec: bool = False
    """Offer JPEGs that become JPEGs to the engine's own codec first. They wait until the engine is
    open, so that the way of an image never depends on time."""
