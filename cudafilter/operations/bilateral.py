"""The bilateral filter: a mean of the pixels around that are alike; and its reference in float64.

Tomasi and Manduchi, "Bilateral filtering for gray and color images" (1998).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from cudafilter.errors import ParameterError
from cudafilter.operations.alike import MAX_BILATERAL_RADIUS
from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import (
    LONGEST,
    LONGEST_OF_INTEGERS,
    ONE_BY_ONE,
    Correlation,
)
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.operation import ROUNDING, Plan, Reach, Stage, Windowed
from cudafilter.operations.pixels import Exact, full_scale
from cudafilter.operations.rank import Rank
from cudafilter.operations.window import square

EXPONENTIAL = 4.0
"""Largest error of an engine's exponential, in ROUNDING: two units in the last place, as CUDA tells
of exp2f, which is the instruction that the kernel has. OpenCV's float32 has half of that."""

FLUSHED = 2.0**23
"""The least normal float32, in steps between its least numbers: smaller weights may count as 0."""


class Tap(NamedTuple):
    """A pixel of the window beside the middle, and the exponent of its weight."""

    y: int
    x: int
    exponent: float
    """``-(x^2 + y^2) / (2 sigma^2)``."""


class Seen(NamedTuple):
    """Some pixels, channel by channel: (channels, ...) each of the same shape."""

    samples: Exact
    finite: Exact | None = None
    """(...) 1 where a pixel is finite, or 0, and then its samples are 0; None: all are."""


@dataclass(frozen=True)
class Bilateral:
    """``out = c + sum(w d) / sum(w)`` over the window, with ``d = c' - c`` and c the own colour.

    ``w = exp(-(x^2 + y^2) / (2 sigma^2) - |d|^2 / (2 range^2))``, where x and y tell how far a
    pixel lies from the middle. ``|d|`` is the Euclidean length over all colours together, and
    *range* is a fraction of full scale. So it is the mean of the colours c' by their weights w.

    The window is round, ``x^2 + y^2 <= radius^2``: it leaves out what weighs less than all that it
    keeps. The corners of a square are three pixels in ten, and weigh least.

    Alpha is kept, as its edges are edges. A pixel whose alpha is a (a fraction of full scale)
    covers the own colour by a: ``d = a (c' - c)``. So what transparent pixels hide does not count,
    and nothing is divided by an alpha that may be 0.

    A pixel with a sample that is NaN or infinite is like no other: it does not count for others,
    and stays as it is.

    Raises ParameterError for numbers out of range.
    """

    sigma: float
    range: float
    radius: int

    name: ClassVar[str] = "bilateral"
    alpha: ClassVar[Literal["filter", "keep"]] = "keep"
    picks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.radius <= MAX_BILATERAL_RADIUS:
            raise ParameterError(
                "radius", f"must be 0 to {MAX_BILATERAL_RADIUS}, not {self.radius}"
            )
        for name, value in (("sigma", self.sigma), ("range", self.range)):
            if not (value > 0 and math.isfinite(value)):
                raise ParameterError(name, f"must be a number above 0, not {value}")

    @property
    def reach(self) -> Reach:
        """See Operation.reach."""
        return (self.radius,) * 4

    def unrolled(self, border: Border) -> Plan:
        """See Operation.unrolled."""
        return (Stage(self, border),) if self.radius else ()

    @property
    def widths(self) -> list[int]:
        """How far the window reaches to each side, in each of its 2 radius + 1 rows."""
        return [math.isqrt(self.radius**2 - y * y) for y in range(-self.radius, self.radius + 1)]

    @cached_property
    def taps(self) -> tuple[Tap, ...]:
        """The window without its middle, row by row."""
        return tuple(
            Tap(y, x, -(x * x + y * y) / (2 * self.sigma**2))
            for y, width in enumerate(self.widths, -self.radius)
            for x in range(-width, width + 1)
            if x or y
        )

    def exact(self, padded: Exact, source: Exact, full: float, alpha: bool) -> Exact:
        """See Windowed.exact."""
        (height, width, _), radius = source.shape, self.radius
        finite = np.asarray(np.isfinite(padded).all(axis=2))
        planes = np.moveaxis(padded, 2, 0).copy()
        counted: Exact | None = None if finite.all() else finite.astype(np.float64)
        if counted is not None:
            planes[:, ~finite] = 0

        def tap_at(y: int, x: int) -> Seen:
            rows = slice(radius + y, radius + y + height)
            columns = slice(radius + x, radius + x + width)
            mask = None if counted is None else counted[rows, columns]
            return Seen(planes[:, rows, columns], mask)

        out = np.moveaxis(self.mean(tap_at(0, 0), tap_at, full, alpha), 0, 2)
        if counted is None:
            return out
        stays = ~np.isfinite(source).all(axis=2, keepdims=True)
        return np.where(stays, source, out)

    def mean(
        self, own: Seen, tap_at: Callable[[int, int], Seen], full: float, alpha: bool
    ) -> Exact:
        """The result for the pixels *own*, finite ones; (channels, ...).

        *tap_at(y, x)* are the pixels so many rows below and columns right of these.
        """
        colours = own.samples[:-1] if alpha else own.samples
        sums, weights = np.zeros_like(colours), np.ones(colours.shape[1:])
        for weight, change, _ in self._each(colours, tap_at, full, alpha):
            weights += weight
            change *= weight
            sums += change
        out: Exact = colours + sums / weights
        return np.concatenate([out, own.samples[-1:]]) if alpha else out

    def _each(
        self, colours: Exact, tap_at: Callable[[int, int], Seen], full: float, alpha: bool
    ) -> Iterator[tuple[Exact, Exact, Exact]]:
        """Weight, change and exponent of each tap: (...), (channels, ...), (...)."""
        for y, x, near in self.taps:
            tap, finite = tap_at(y, x)
            change = tap[: len(colours)] - colours
            if alpha:
                change *= tap[-1] / full
            exponent = np.square(change).sum(axis=0)
            exponent *= -0.5 / (self.range * full) ** 2
            exponent += near
            weight = np.exp(exponent)
            if finite is not None:
                weight *= finite
            yield weight, change, exponent

    def slack(self, dtype: str, alpha: bool) -> float | None:
        """See Windowed.slack.

        The result is the own colour and a mean change, of two sums, both no larger than the mean
        size of changes. That is no larger than the root of their mean square, by Jensen's
        inequality, and so of twice the mean exponent, times the range.
        """
        if dtype == "float32":
            return None
        change = min(1.0, self.range * math.sqrt(2 * (_bend(len(self.taps)) + 1)))
        return ROUNDING * full_scale(dtype) * (1 + 2 * self.roundings(dtype, alpha) * change)

    @property
    def terms(self) -> Bilateral:
        """What gives the size of the terms of a result, of which errors are a share."""
        return BilateralTerms(self.sigma, self.range, self.radius)

    def majorant(self, alpha: bool, opaque: float, signed: bool) -> tuple[Windowed, ...]:
        """See Windowed.majorant.

        The terms themselves, where samples are their own bounds. Else a change is no larger than
        two of the largest samples in the window, and counts four times in the terms.
        """
        if not (alpha or signed):
            return (self.terms,)
        changes = 8 * max(1.0, opaque) if alpha else 8.0
        window = square(self.radius)
        return (
            Rank(self.name, window, window.count - 1),
            Correlation(self.name, (Kernel([[0.0]]),), gain=0.0, source_gain=1 + changes),
        )

    def roundings(self, dtype: str, alpha: bool) -> float:
        """See Windowed.roundings; of BilateralTerms.

        - Sums of few taps are found one by one, others by rows, of two halves of the window at
          most; each addition rounds. In integers errors go to both sides, and grow as the root.
        - A change is rounded, and so are its product and quotient.
        - So are exponentials, and what they are of: by some roundings of the exponent, which change
          a weight by as much times the exponent. In integers one of these is the same for all taps,
          and others go to both sides.
        """
        additions = len(self.taps)
        if additions > ONE_BY_ONE:
            additions = 3 * (2 * self.radius + 1)
        times = {"uint8": 3, "uint16": 6, "float32": 8}[dtype] + (6 if alpha else 0)
        once = EXPONENTIAL + 4 + (3 if alpha else 0)
        if dtype == "float32":
            sums = 3.0 + min(additions, LONGEST)
            of_exponent = float(times)
        else:
            sums = 3 + 2 * math.sqrt(min(additions, LONGEST_OF_INTEGERS))
            of_exponent = 1 + math.sqrt(times - 1)
        return sums + once + of_exponent * mean_exponent(len(self.taps))

    def carries(self, alpha: bool) -> float:
        """See Windowed.carries.

        The gradient of a result: samples count by their weights, which sum to 1, and change these
        by their distances over the squared range. The mean of such a product is no larger than the
        mean square of distances, twice the mean exponent. All colours together count as one.
        """
        return 2 * self.amplification() if alpha else self.amplification()

    def amplification(self) -> float:
        """See Windowed.amplification."""
        return 1 + 2 * math.sqrt(4) * 2 * mean_exponent(len(self.taps))

    def denormals(self) -> float:
        """See Windowed.denormals: of all taps a weight may be flushed, and the change with it.

        Where that counts, the change is some ranges at most.
        """
        return (1 + len(self.taps)) * max(1.0, 16 * self.range * FLUSHED)


class BilateralTerms(Bilateral):
    """The terms of a Bilateral's result, by size: ``|c| + sum(p |d| (1 + x / e)) + 2 |sum(p d)|``.

    p are the weights over their sum, x the exponents of the weights, which their errors grow with,
    and e the largest mean of these.
    """

    def mean(
        self, own: Seen, tap_at: Callable[[int, int], Seen], full: float, alpha: bool
    ) -> Exact:
        """See Bilateral.mean."""
        colours = own.samples[:-1] if alpha else own.samples
        sums, sizes = np.zeros_like(colours), np.zeros_like(colours)
        weights, most = np.ones(colours.shape[1:]), mean_exponent(len(self.taps))
        for weight, change, exponent in self._each(colours, tap_at, full, alpha):
            weights += weight
            change *= weight
            sums += change
            sizes += np.abs(change) * (1 - exponent / most)
        out: Exact = np.abs(colours) + (sizes + 2 * np.abs(sums)) / weights
        return np.concatenate([out, own.samples[-1:]]) if alpha else out


def mean_exponent(taps: int) -> float:
    """The largest mean, by the weights, of the exponents x of weights ``exp(-x)``, one of them 1.

    It is largest where all *taps* others are alike: the maximum of ``n x e^-x / (1 + n e^-x)``.
    """
    return _bend(taps) - 1


def _bend(taps: int) -> float:
    """Where that maximum lies: ``(x - 1) e^x = taps``, by Newton's steps."""
    x = 1 + math.log1p(taps)
    for _ in range(60):
        x -= ((x - 1) * math.exp(x) - taps) / (x * math.exp(x))
    return x
