"""Ranks: of the samples in a window the median, the least, the largest or any other in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.catalogue import MAX_RADIUS
from cudafilter.operations.operation import Reach, Stage
from cudafilter.operations.pixels import Exact

WINDOW_BYTES = 16 << 20
"""Memory that the windows sorted at a time may take, but for those of one pixel."""


@dataclass(frozen=True)
class Rank:
    """Of the (2 radius + 1)^2 samples around a pixel, the one of *rank*: 0 is the least.

    NaN sorts last, as NumPy has it: it comes out where no more than *rank* samples are numbers.

    Each channel is ranked by itself, alpha like the others, and colour is not premultiplied. So
    what comes out is a sample of the image, never one that was made up: a rank of premultiplied
    colour, divided by a rank of alpha, is a colour that no pixel has. What a transparent pixel
    hides counts.

    Raises ParameterError for a radius outside 0..MAX_RADIUS or a rank outside the window.
    """

    name: str
    radius: int
    rank: int

    alpha: Literal["filter", "keep"] = "filter"

    def __post_init__(self) -> None:
        if not 0 <= self.radius <= MAX_RADIUS:
            raise ParameterError("radius", f"must be 0 to {MAX_RADIUS}, not {self.radius}")
        if not 0 <= self.rank < self.count:
            raise ParameterError("rank", f"must be 0 to {self.count - 1}, not {self.rank}")

    @property
    def count(self) -> int:
        """Samples of a window."""
        return (2 * self.radius + 1) ** 2

    @property
    def reach(self) -> Reach:
        """See Operation.reach."""
        return self.radius, self.radius, self.radius, self.radius

    def unrolled(self, border: Border) -> tuple[Stage, ...]:
        """See Operation.unrolled."""
        return (Stage(self, border),) if self.radius else ()

    def exact(self, padded: Exact, source: Exact, full: float, alpha: bool) -> Exact:
        """See Windowed.exact."""
        return ranked(padded, self)

    def tolerance(self, dtype: str, full: float, largest: float, alpha: bool) -> float:
        """See Operation.tolerance: 0, since a sample is picked and nothing computed."""
        return 0.0

    def amplification(self, alpha: bool, largest: float) -> float:
        """See Windowed.amplification: the n-th of samples moves no further than they do."""
        return 1.0

    def bound(self, full: float, largest: float, alpha: bool) -> float:
        """See Windowed.bound."""
        return largest


def median(radius: int = 1) -> Rank:
    """The middle one of the samples in each window."""
    return Rank("median", radius, ((2 * radius + 1) ** 2) // 2)


def minimum(radius: int = 1) -> Rank:
    """The least sample in each window."""
    return Rank("minimum", radius, 0)


def maximum(radius: int = 1) -> Rank:
    """The largest sample in each window, or NaN where there is one."""
    return Rank("maximum", radius, (2 * radius + 1) ** 2 - 1)


def ranked(padded: npt.NDArray[Any], rank: Rank) -> npt.NDArray[Any]:
    """*rank* of every window that fits into *padded*, (H', W', C) of any type.

    Returns (H' - 2 radius, W' - 2 radius, C). Its memory is bounded: see WINDOW_BYTES.
    """
    side = 2 * rank.radius + 1
    height, width, channels = (
        padded.shape[0] - side + 1,
        padded.shape[1] - side + 1,
        padded.shape[2],
    )
    out = np.empty((height, width, channels), padded.dtype)
    pixels = max(1, WINDOW_BYTES // (rank.count * channels * padded.itemsize))
    columns = min(width, pixels)
    rows = max(1, pixels // columns)
    views = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
    for y in range(0, height, rows):
        for x in range(0, width, columns):
            part = views[y : y + rows, x : x + columns]
            windows = part.reshape(*part.shape[:3], rank.count)
            out[y : y + rows, x : x + columns] = np.partition(windows, rank.rank)[..., rank.rank]
    return out
