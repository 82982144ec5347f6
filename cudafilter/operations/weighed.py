"""A mean of pixels around, weighed by how much they are alike: what all such filters share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.operation import Reach, Windowed
from cudafilter.operations.pixels import Exact
from cudafilter.operations.rank import Rank
from cudafilter.operations.window import square

EXPONENTIAL = 4.0
"""Largest error of an engine's exponential, in ROUNDING: two units in the last place, as CUDA tells
of exp2f, which is the instruction that the kernels have. OpenCV's float32 has half of that."""

FLUSHED = 2.0**23
"""The least normal float32, in steps between its least numbers: smaller weights may count as 0."""


class Seen(NamedTuple):
    """A block of pixels with what is around, channel by channel: (channels, ...)."""

    samples: Exact
    finite: Exact | None = None
    """(...) 1 where a pixel is finite, or 0, and then its samples are 0; None: all are."""


class Weighed(ABC):
    """``out = c + sum(w d) / sum(w)`` over the window: c is the own colour, d the changes from it.

    The own pixel weighs 1 and others no more. So it is the mean of the colours by their weights.
    Alpha is kept, as its edges are edges. A pixel whose alpha is a (a fraction of full scale)
    covers the own colour by a: ``d = a (c' - c)``. So what transparent pixels hide does not count,
    and nothing is divided by an alpha that may be 0.

    A pixel with a sample that is NaN or infinite does not count for others, and stays as it is.
    """

    name: ClassVar[str]
    alpha: ClassVar[Literal["filter", "keep"]] = "keep"
    picks: ClassVar[bool] = False

    @property
    @abstractmethod
    def halo(self) -> int:
        """How many pixels around a pixel count, to each side."""

    @property
    @abstractmethod
    def others(self) -> int:
        """How many pixels count beside the own."""

    @property
    @abstractmethod
    def terms(self) -> Windowed:
        """What gives the size of the terms of a result, of which errors are a share.

        ``|c| + sum(p |d| (1 + x / e)) + 2 |sum(p d)|``: p are the weights over their sum, x the
        exponents of the weights, which their errors grow with, and e the largest mean of these.
        """

    @abstractmethod
    def roundings(self, dtype: str, alpha: bool) -> float:
        """See Windowed.roundings; of the terms."""

    @abstractmethod
    def denormals(self) -> float:
        """See Windowed.denormals."""

    @abstractmethod
    def amplification(self) -> float:
        """See Windowed.amplification."""

    @abstractmethod
    def weighed(
        self, around: Seen, size: tuple[int, int], full: float, alpha: bool
    ) -> Iterator[tuple[Exact, Exact, Exact]]:
        """Weight, change and exponent of each other pixel: (h, w), (colours, h, w), (h, w).

        *around* has the block of *size* (h, w), and ``halo`` pixels to each side of it.
        """

    @property
    def reach(self) -> Reach:
        """See Operation.reach."""
        return (self.halo,) * 4

    def exact(self, padded: Exact, source: Exact, full: float, alpha: bool) -> Exact:
        """See Windowed.exact. Both may have one more axis, of windows beside each other."""
        (height, width), halo = source.shape[:2], self.halo
        finite = np.asarray(np.isfinite(padded).all(axis=2))
        planes = np.moveaxis(padded, 2, 0).copy()
        counted: Exact | None = None if finite.all() else finite.astype(np.float64)
        if counted is not None:
            planes[:, ~finite] = 0
        own = planes[:, halo : halo + height, halo : halo + width]
        colours = own[:-1] if alpha else own
        found = self.mean(
            colours, self.weighed(Seen(planes, counted), (height, width), full, alpha)
        )
        out = np.moveaxis(np.concatenate([found, own[-1:]]) if alpha else found, 0, 2)
        if counted is None:
            return out
        stays = ~np.isfinite(source).all(axis=2, keepdims=True)
        return np.where(stays, source, out)

    def mean(self, colours: Exact, others: Iterator[tuple[Exact, Exact, Exact]]) -> Exact:
        """The result for the pixels *colours*, finite ones: (colours, h, w)."""
        sums, weights = np.zeros_like(colours), np.ones(colours.shape[1:])
        for weight, change, _ in others:
            weights += weight
            change *= weight
            sums += change
        out: Exact = colours + sums / weights
        return out

    def majorant(self, alpha: bool, opaque: float, signed: bool) -> tuple[Windowed, ...]:
        """See Windowed.majorant.

        The terms themselves, where samples are their own bounds. Else a change is no larger than
        two of the largest samples in the window, and counts four times in the terms.
        """
        if not (alpha or signed):
            return (self.terms,)
        changes = 8 * max(1.0, opaque) if alpha else 8.0
        window = square(self.halo)
        return (
            Rank(self.name, window, window.count - 1),
            Correlation(self.name, (Kernel([[0.0]]),), gain=0.0, source_gain=1 + changes),
        )

    def carries(self, alpha: bool) -> float:
        """See Windowed.carries: with alpha, changes and distances are of two samples each."""
        return 2 * self.amplification() if alpha else self.amplification()


class Terms(Weighed):
    """What gives the size of the terms of a result, see Weighed.terms."""

    def mean(self, colours: Exact, others: Iterator[tuple[Exact, Exact, Exact]]) -> Exact:
        """See Weighed.mean."""
        sums, sizes = np.zeros_like(colours), np.zeros_like(colours)
        weights, most = np.ones(colours.shape[1:]), mean_exponent(self.others)
        for weight, change, exponent in others:
            weights += weight
            change *= weight
            sums += change
            sizes += np.abs(change) * (1 - exponent / most)
        out: Exact = np.abs(colours) + (sizes + 2 * np.abs(sums)) / weights
        return out


def mean_exponent(taps: int) -> float:
    """The largest mean, by the weights, of the exponents x of weights ``exp(-x)``, one of them 1.

    It is largest where all *taps* others are alike: the maximum of ``n x e^-x / (1 + n e^-x)``.
    """
    return bend(taps) - 1


def bend(taps: int) -> float:
    """Where that maximum lies: ``(x - 1) e^x = taps``, by Newton's steps."""
    x = 1 + math.log1p(taps)
    for _ in range(60):
        x -= ((x - 1) * math.exp(x) - taps) / (x * math.exp(x))
    return x
