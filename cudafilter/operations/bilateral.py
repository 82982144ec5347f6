"""The bilateral filter: a mean of the pixels around that are alike; and its reference in float64.

Tomasi and Manduchi, "Bilateral filtering for gray and color images" (1998).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from cudafilter.errors import ParameterError
from cudafilter.operations.alike import MAX_BILATERAL_RADIUS
from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import LONGEST, LONGEST_OF_INTEGERS, ONE_BY_ONE
from cudafilter.operations.operation import ROUNDING, Plan, Stage
from cudafilter.operations.pixels import Exact, full_scale
from cudafilter.operations.weighed import (
    EXPONENTIAL,
    FLUSHED,
    Seen,
    Terms,
    Weighed,
    bend,
    mean_exponent,
)


class Tap(NamedTuple):
    """A pixel of the window beside the middle, and the exponent of its weight."""

    y: int
    x: int
    exponent: float
    """``-(x^2 + y^2) / (2 sigma^2)``."""


@dataclass(frozen=True)
class Bilateral(Weighed):
    """A mean by weights, see Weighed; with ``d = c' - c`` where there is no alpha.

    ``w = exp(-(x^2 + y^2) / (2 sigma^2) - |d|^2 / (2 range^2))``, where x and y tell how far a
    pixel lies from the middle. ``|d|`` is the Euclidean length over all colours together, and
    *range* is a fraction of full scale. So it is the mean of the colours c' by their weights w.

    The window is round, ``x^2 + y^2 <= radius^2``: it leaves out what weighs less than all that it
    keeps. The corners of a square are three pixels in ten, and weigh least.

    Raises ParameterError for numbers out of range.
    """

    sigma: float
    range: float
    radius: int

    name: ClassVar[str] = "bilateral"

    def __post_init__(self) -> None:
        if not 0 <= self.radius <= MAX_BILATERAL_RADIUS:
            raise ParameterError(
                "radius", f"must be 0 to {MAX_BILATERAL_RADIUS}, not {self.radius}"
            )
        for name, value in (("sigma", self.sigma), ("range", self.range)):
            if not (value > 0 and math.isfinite(value)):
                raise ParameterError(name, f"must be a number above 0, not {value}")

    @property
    def halo(self) -> int:
        """See Weighed.halo."""
        return self.radius

    @property
    def others(self) -> int:
        """See Weighed.others."""
        return len(self.taps)

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

    def weighed(
        self, around: Seen, size: tuple[int, int], full: float, alpha: bool
    ) -> Iterator[tuple[Exact, Exact, Exact]]:
        """See Weighed.weighed."""
        (height, width), radius = size, self.radius
        own = slice(radius, radius + height), slice(radius, radius + width)
        colours = around.samples[: len(around.samples) - alpha, *own]
        for y, x, near in self.taps:
            there = (
                slice(radius + y, radius + y + height),
                slice(radius + x, radius + x + width),
            )
            tap = around.samples[:, *there]
            change = tap[: len(colours)] - colours
            if alpha:
                change *= tap[-1] / full
            exponent = np.square(change).sum(axis=0)
            exponent *= -0.5 / (self.range * full) ** 2
            exponent += near
            weight = np.exp(exponent)
            if around.finite is not None:
                weight *= around.finite[there]
            yield weight, change, exponent

    def slack(self, dtype: str, alpha: bool) -> float | None:
        """See Windowed.slack.

        The result is the own colour and a mean change, of two sums, both no larger than the mean
        size of changes. That is no larger than the root of their mean square, by Jensen's
        inequality, and so of twice the mean exponent, times the range.
        """
        if dtype == "float32":
            return None
        change = min(1.0, self.range * math.sqrt(2 * (bend(len(self.taps)) + 1)))
        return ROUNDING * full_scale(dtype) * (1 + 2 * self.roundings(dtype, alpha) * change)

    @property
    def terms(self) -> BilateralTerms:
        """See Weighed.terms."""
        return BilateralTerms(self.sigma, self.range, self.radius)

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

    def amplification(self) -> float:
        """See Windowed.amplification.

        The gradient of a result: samples count by their weights, which sum to 1, and change these
        by their distances over the squared range. The mean of such a product is no larger than the
        mean square of distances, twice the mean exponent. All colours together count as one.
        """
        return 1 + 2 * math.sqrt(4) * 2 * mean_exponent(len(self.taps))

    def denormals(self) -> float:
        """See Windowed.denormals: of all taps a weight may be flushed, and the change with it.

        Where that counts, the change is some ranges at most.
        """
        return (1 + len(self.taps)) * max(1.0, 16 * self.range * FLUSHED)


class BilateralTerms(Terms, Bilateral):
    """See Weighed.terms."""
