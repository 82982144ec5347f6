"""How each image of a run is treated, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import NamedTuple, Protocol

from cudafilter.engines import Engine
from cudafilter.jobs.waiting import Future, Gate
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation


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


class Shared(Protocol):
    """What the images of a run have in common: a Worker."""

    filter: Operation
    border: Border
    settings: Settings
    engine: Future[Engine]
    writing: Gate
    checks: Lock

    @property
    def on_rows(self) -> Callable[[int, int, int], None]:
        """Told how many rows are written, of how many, and the bytes of all pixels."""
        ...
