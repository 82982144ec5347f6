"""How each image of a run is treated, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cudafilter.engines import Engine
from cudafilter.errors import ImageError
from cudafilter.jobs.record import Record
from cudafilter.jobs.waiting import Future, Gate
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation

if TYPE_CHECKING:
    from cudafilter.operations.area import Area


class Settings(NamedTuple):
    """How each image is treated."""

    gray: bool = False
    area: Area | None = None
    """Where the images are filtered; None for everywhere."""
    linear: bool = False
    """They are filtered in linear light."""
    background: tuple[int, int, int] | None = None
    """The colour, of 8 bits, that transparent pixels are laid over; None where alpha stays."""
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
    """Offer JPEGs that become JPEGs, and PNGs that become PNGs, to the engine's own codec first.
    JPEGs wait until the engine is open, for their bits depend on the codec."""
    usual: frozenset[str] = frozenset()
    """Settings that the user made for all runs: where a format has no use for one, that is no
    news."""

    def asked(self, **ways: Any) -> dict[str, Any]:
        """Those of *ways* that were asked for in this run."""
        return {name: value for name, value in ways.items() if name not in self.usual}

    @property
    def effort(self) -> dict[str, Any]:
        """What images.Output is given for the formats that have a use for it."""
        return {
            "quality": self.quality,
            "compress_level": self.compress_level,
            "dither": self.dither,
        }

    @property
    def within(self) -> bool:
        """Whether something is done around the filter; see jobs/within.py."""
        return self.linear or self.area is not None

    @property
    def offers_codec(self) -> bool:
        """Whether an engine's own codec may do a file of one it has."""
        return self.engine_codec and not self.within

    def require_gray(self, channels: int) -> None:
        """Raise ImageError where gray would change an image of so many *channels* everywhere."""
        if self.area is not None and channels > 2:
            raise ImageError(
                "--gray would change the picture outside the mask or region, too",
                hint="make it gray first, or leave out --gray",
            )

    @property
    def extra(self) -> int:
        """Bytes of memory that each sample takes beside its own: light, and what is blended."""
        return 8 * self.linear + 4 * (self.area is not None)


class Shared(Protocol):
    """What the images of a run have in common: a Worker."""

    filter: Operation
    border: Border
    settings: Settings
    engine: Future[Engine]
    writing: Gate
    checks: Lock

    def stage(self, name: str, record: Record) -> AbstractContextManager[None]:
        """Do a stage inside, unless all work has ended, and have *record* tell its time."""
        ...

    @property
    def on_rows(self) -> Callable[[int, int, int], None]:
        """Told how many rows are written, of how many, and the bytes of all pixels."""
        ...
