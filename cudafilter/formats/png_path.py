"""What codes parts of PNGs beside the host's cores: a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from cudafilter.operations.pixels import Pixels
    from cudafilter.stores.buffers import Buffer


class Deflated(NamedTuple):
    """A picture's rows as a zlib stream."""

    pieces: Sequence[Buffer] | None = None
    """None where the host is to do it."""
    seconds: float = 0.0
    """Of a GPU's kernels."""
    notes: tuple[str, ...] = ()
    """What the user should know, such as that a GPU failed."""


class Unfiltered(NamedTuple):
    """Rows whose filters are undone."""

    pixels: Pixels | None = None
    """None where the host is to do it."""
    seconds: float = 0.0
    """Of a GPU's kernels."""
    notes: tuple[str, ...] = ()
    """What the user should know, such as that a GPU failed."""


class PngPath(Protocol):
    """What may do the work. Any thread may call it. Raises EngineError where it fails."""

    def deflate(self, pixels: Pixels) -> Deflated:
        """The rows of *pixels* (H, W, C), uint8 or uint16, filtered as PNG's are, as a zlib stream.

        A small picture and one with repeats that only the host finds are left to the host. Which
        it is depends on the pixels only.
        """
        ...

    def unfilter(self, raw: Buffer, shape: tuple[int, int, int], itemsize: int) -> Unfiltered:
        """The pixels of *shape* (H, W, C) whose rows are *raw*, each behind its filter's number.

        The filters are those of PNG. *itemsize* 1 or 2 gives uint8 or uint16.
        """
        ...
