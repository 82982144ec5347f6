"""Ranks: of the samples in a window the median, the least, the largest or any other in order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Errorless, Plan, Reach, Stage, Windowed
from cudafilter.operations.pixels import Exact
from cudafilter.operations.window import Window, square

WINDOW_BYTES = 16 << 20
"""Memory that the windows sorted at a time may take, but for those of one pixel."""


@dataclass(frozen=True)
class Rank(Errorless):
    """Of the samples in the window around a pixel, the one of *rank*: 0 is the least.

    NaN sorts last, as NumPy has it: it comes out where no more than *rank* samples are numbers.

    Each channel is ranked by itself, alpha like the others, and colour is not premultiplied. So
    what comes out is a sample of the image, never one that was made up: a rank of premultiplied
    colour, divided by a rank of alpha, is a colour that no pixel has. What a transparent pixel
    hides counts.

    Raises ParameterError for a rank outside the window.
    """

    name: str
    window: Window
    rank: int

    alpha: Literal["filter", "keep"] = "filter"
    picks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.window.count:
            raise ParameterError("rank", f"must be 0 to {self.window.count - 1}, not {self.rank}")

    @property
    def reach(self) -> Reach:
        """See Operation.reach."""
        return self.window.reach

    @property
    def is_least(self) -> bool:
        """Whether it is the least of the samples."""
        return self.rank == 0

    @property
    def is_largest(self) -> bool:
        """Whether it is the largest of the samples."""
        return self.rank == self.window.count - 1

    def unrolled(self, border: Border) -> Plan:
        """See Operation.unrolled."""
        return () if self.window.is_pixel else (Stage(self, border),)

    def exact(self, padded: Exact, source: Exact, full: float, alpha: bool) -> Exact:
        """See Windowed.exact."""
        return ranked(padded, self)

    def majorant(self, alpha: bool, opaque: float, signed: bool) -> tuple[Windowed, ...]:
        """See Windowed.majorant.

        Bounds that are the samples themselves keep their order, so the n-th of samples has the
        n-th as its bound. Others only say that it is no larger than their largest.
        """
        return (Rank(self.name, self.window, self.window.count - 1) if signed else self,)


def median(radius: int = 1) -> Rank:
    """The middle one of the samples in each square of 2 radius + 1 pixels a side."""
    window = square(radius)
    return Rank("median", window, window.count // 2)


def percentile(radius: int, rank: float) -> Rank:
    """The sample above *rank* percent of the others: 0 is the least, 50 the median, 100 the
    largest. Between two ranks it is the nearer one, and the lower one where both are as near."""
    window = square(radius)
    return Rank("percentile", window, math.ceil(rank / 100 * (window.count - 1) - 0.5))


def erosion(window: Window, name: str = "erode") -> Rank:
    """The least sample in each window."""
    return Rank(name, window, 0)


def dilation(window: Window, name: str = "dilate") -> Rank:
    """The largest sample in each window, or NaN where there is one.

    The window is mirrored, as mathematical morphology has it: what one pixel grows to is the
    window's own shape.
    """
    return Rank(name, window.mirrored, window.count - 1)


def ranked(padded: npt.NDArray[Any], rank: Rank) -> npt.NDArray[Any]:
    """*rank* of every window that fits into *padded*, (H', W', C) of any type.

    Returns (H' - rows + 1, W' - columns + 1, C), of a window of so many rows and columns. Its
    memory is bounded: see WINDOW_BYTES.
    """
    shape, count = rank.window.shape, rank.window.count
    mask = None if rank.window.inside is None else rank.window.mask
    height, width = padded.shape[0] - shape[0] + 1, padded.shape[1] - shape[1] + 1
    channels = padded.shape[2]
    if rank.is_least or rank.is_largest:
        return _extreme(padded, rank, height, width)
    out = np.empty((height, width, channels), padded.dtype)
    pixels = max(1, WINDOW_BYTES // (count * channels * padded.itemsize))
    columns = min(width, pixels)
    rows = max(1, pixels // columns)
    views = np.lib.stride_tricks.sliding_window_view(padded, shape, axis=(0, 1))
    for y in range(0, height, rows):
        for x in range(0, width, columns):
            part = views[y : y + rows, x : x + columns]
            windows = part.reshape(*part.shape[:3], count) if mask is None else part[..., mask]
            out[y : y + rows, x : x + columns] = np.partition(windows, rank.rank)[..., rank.rank]
    return out


def _extreme(padded: npt.NDArray[Any], rank: Rank, height: int, width: int) -> npt.NDArray[Any]:
    """As ranked(), for the least or the largest: pixel by pixel of the window."""
    # The least passes over NaN, the largest is NaN: so NaN sorts last.
    pick = np.fmin if rank.is_least else np.maximum
    out: npt.NDArray[Any] | None = None
    for i, j in np.argwhere(rank.window.mask):
        part = padded[i : i + height, j : j + width]
        out = part.copy() if out is None else pick(out, part, out=out)
    assert out is not None  # a window has a pixel that counts
    return out
