"""What an engine promises that decodes and encodes files itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cudafilter.errors import CudafilterError
from cudafilter.formats.png_path import PngPath
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Buffer

if TYPE_CHECKING:
    from cudafilter.proof.screened import Screened


_KERNELS = ("unfilter", "kernel", "prove", "deflate")


class NotTaken(CudafilterError):
    """A file that the GPU codec leaves to the CPU codec; ``str()`` is the reason, in a few words.

    Nothing was written and nothing is wrong: run the same file through the CPU codec.
    """


class FileJob(NamedTuple):
    """A file to be filtered, and how."""

    data: bytes
    """The whole file."""
    filter: Operation
    border: Border
    gray: bool = False
    """Whether colours become gray first."""
    quality: int | None = None
    """Of a JPEG, 1 to 100; None: as the file has it."""
    keep: bool = False
    """Whether the pixels of both sides of the filter come to the host, for a check."""
    screen: bool = False
    """Whether the device may prove most of the result instead."""


@dataclass(frozen=True)
class FileResult:
    """A filtered file and what the report says of it."""

    data: Buffer
    width: int
    height: int
    channels: int
    """Of the output."""
    colour: str
    """What they are, as Image.colour."""
    notes: tuple[str, ...] = ()
    """What the user should know."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of stages: ``decode``, ``kernel`` and ``encode`` of a JPEG, ``inflate``,
    ``unfilter``, ``kernel`` and ``deflate`` of a PNG, and ``prove`` where the device did."""
    kept: tuple[Pixels, Pixels] | None = None
    """If they were asked for: the pixels that were filtered, as they were decoded, and those that
    were encoded, each (height, width, channels)."""
    screened: Screened | None = None
    """What the device proved of them. It is partial: ``kept`` has only some rows then, and what
    lies between them is anything."""
    dtype: str = "uint8"
    """Of the pixels."""
    alpha: bool = False
    """The last channel is alpha."""

    @property
    def on_device(self) -> float:
        """Seconds of a GPU's kernels, but for a JPEG's coding."""
        return sum(self.seconds.get(each, 0.0) for each in _KERNELS)


class JpegPath(Protocol):
    """Engine.jpeg: filters JPEG files without their pixels visiting the host."""

    parallel: int
    """How many calls at a time pay off."""

    def filter(self, job: FileJob) -> FileResult:
        """A JPEG file filtered; metadata kept as images.load and images.encode keep it.

        May be called from any thread. Raises NotTaken for a file that the CPU codec must do,
        ImageError for a damaged one and for a quality that is none, EngineError where the GPU
        fails.

        nvJPEG does not tell of damage. So a file that looks damaged is decoded on the CPU too.
        """
        ...


class PngCodec(PngPath, Protocol):
    """Engine.png: codes parts of PNGs, and filters PNG files whose pixels need not visit the host.

    Both ways give the same bytes.
    """

    def filter(self, job: FileJob) -> FileResult:
        """A PNG file filtered.

        Raises NotTaken for a file that the host must do: a small one, one whose samples are not
        those of its pixels (a palette, an interlaced file, few bits), one that is damaged, or one
        that finds no memory. May be called from any thread. Raises EngineError where the GPU fails.
        """
        ...
