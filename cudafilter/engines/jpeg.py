"""What an engine promises that decodes and encodes JPEG files itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cudafilter.errors import CudafilterError
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Buffer

if TYPE_CHECKING:
    from cudafilter.proof.screened import Screened


class NotTaken(CudafilterError):
    """A file that the GPU codec leaves to the CPU codec; ``str()`` is the reason, in a few words.

    Nothing was written and nothing is wrong: run the same file through the CPU codec.
    """


@dataclass(frozen=True)
class JpegResult:
    """A filtered JPEG file and what the report says of it."""

    data: Buffer
    width: int
    height: int
    channels: int
    """Of the output: 1 or 3."""
    colour: str
    """``gray`` or ``RGB``, as Image.colour."""
    notes: tuple[str, ...] = ()
    """What the user should know."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of ``decode``, ``kernel`` and ``encode``."""
    kept: tuple[Pixels, Pixels] | None = None
    """If they were asked for: the pixels that were filtered, as they were decoded, and those that
    were encoded, each (height, width, channels) of uint8."""
    screened: Screened | None = None
    """What the device proved of them. It is partial: ``kept`` has only some rows then, and what
    lies between them is anything."""


class JpegPath(Protocol):
    """Engine.jpeg: filters JPEG files without their pixels visiting the host."""

    parallel: int
    """How many calls at a time pay off."""

    def filter(
        self,
        data: bytes,
        filter: Operation,
        border: Border,
        *,
        gray: bool,
        quality: int | None,
        keep: bool = False,
        screen: bool = False,
    ) -> JpegResult:
        """*data*, a JPEG file, filtered; metadata kept as images.load and images.encode keep it.

        *gray* and *quality* are those of worker.Settings. *keep* brings the pixels of both sides
        of the filter to the host, for a check; *screen* says that the device may prove most of the
        result instead. May be called from any thread. Raises
        NotTaken for a file that the CPU codec must do, ImageError for a damaged one and for a
        quality that is none, EngineError where the GPU fails.

        nvJPEG does not tell of damage. So a file that looks damaged is decoded on the CPU too.
        """
        ...
