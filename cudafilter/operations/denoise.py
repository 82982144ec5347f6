"""Non-local means: a mean of the pixels around whose patches are alike; its reference in float64.

Buades, Coll and Morel, "A non-local algorithm for image denoising" (2005).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from cudafilter.errors import ParameterError
from cudafilter.operations.alike import MAX_PATCH, MAX_SEARCH
from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import LONGEST, LONGEST_OF_INTEGERS, ONE_BY_ONE
from cudafilter.operations.operation import ROUNDING, Plan, Stage
from cudafilter.operations.pixels import Exact, full_scale
from cudafilter.operations.weighed import EXPONENTIAL, FLUSHED, Seen, Terms, Weighed, mean_exponent

MOST_COLOURS = 4


@dataclass(frozen=True)
class Denoise(Weighed):
    """A mean by weights, see Weighed, with ``w = exp(-D / strength^2)``.

    D is the mean square of differences between the patch around the pixel and the patch around the
    other, over all their samples, in fractions of full scale. Both patches are squares with sides
    of *patch* pixels, and the others lie in a square with sides of *search* pixels.

    Where there is alpha, a difference of colours counts as far as both pixels are seen, so its
    square times both alphas, and the square of the alphas' difference is added to those of the
    colours. A pixel that is not finite differs by nothing from its counterpart in a patch.

    Raises ParameterError for numbers out of range.
    """

    strength: float
    patch: int
    search: int

    name: ClassVar[str] = "denoise"

    def __post_init__(self) -> None:
        for name, side, most in (
            ("patch", self.patch, MAX_PATCH),
            ("search", self.search, MAX_SEARCH),
        ):
            if not (1 <= side <= most and side % 2):
                raise ParameterError(
                    name, f"must be an odd number of pixels, 1 to {most}, not {side}"
                )
        if not (self.strength > 0 and math.isfinite(self.strength)):
            raise ParameterError("strength", f"must be a number above 0, not {self.strength}")

    @property
    def halo(self) -> int:
        """See Weighed.halo."""
        return self.search // 2 + self.patch // 2

    @property
    def others(self) -> int:
        """See Weighed.others."""
        return self.search**2 - 1

    def unrolled(self, border: Border) -> Plan:
        """See Operation.unrolled."""
        return (Stage(self, border),) if self.search > 1 else ()

    @cached_property
    def shifts(self) -> tuple[tuple[int, int], ...]:
        """How far the others lie below and right of the pixel, row by row."""
        around = range(-(self.search // 2), self.search // 2 + 1)
        return tuple((y, x) for y in around for x in around if y or x)

    def factor(self, colours: int, full: float) -> float:
        """What the exponent is of the sum of squares over a patch, in native units."""
        return -1 / (self.patch**2 * colours * (self.strength * full) ** 2)

    def weighed(
        self, around: Seen, size: tuple[int, int], full: float, alpha: bool
    ) -> Iterator[tuple[Exact, Exact, Exact]]:
        """See Weighed.weighed."""
        (height, width), reach, margin = size, self.search // 2, self.patch // 2
        colours = len(around.samples) - alpha

        def patches(y: int, x: int) -> tuple[slice, slice]:
            top, left = reach + y, reach + x
            return slice(top, top + height + 2 * margin), slice(left, left + width + 2 * margin)

        middle = slice(margin, margin + height), slice(margin, margin + width)
        own = around.samples[:, *patches(0, 0)]
        for y, x in self.shifts:
            other = around.samples[:, *patches(y, x)]
            change = other[:colours] - own[:colours]
            squares = np.square(change).sum(axis=0)
            if alpha:
                squares *= np.abs(other[-1] / full * (own[-1] / full))
                squares += np.square(other[-1] - own[-1])
            if around.finite is not None:
                squares *= around.finite[patches(0, 0)] * around.finite[patches(y, x)]
            rows = sum_of(squares[n : n + height] for n in range(self.patch))
            exponent = sum_of(rows[:, n : n + width] for n in range(self.patch))
            exponent *= self.factor(colours, full)
            weight = np.exp(exponent)
            change = change[:, *middle]
            if alpha:
                change *= other[-1, *middle] / full
            if around.finite is not None:
                weight *= around.finite[patches(y, x)][middle]
            yield weight, change, exponent

    def slack(self, dtype: str, alpha: bool) -> float | None:
        """See Windowed.slack; as Bilateral's.

        The square of a change is no larger than the sum over the patch, with alpha than four times
        that. So the root of its mean is that of the mean exponent, times the root of the number of
        samples in a patch and the strength.
        """
        if dtype == "float32":
            return None
        mean = mean_exponent(self.others) + 2
        change = min(1.0, self._largest_change(alpha) * math.sqrt(mean))
        return ROUNDING * full_scale(dtype) * (1 + 2 * self.roundings(dtype, alpha) * change)

    def _largest_change(self, alpha: bool) -> float:
        """Of a weight of exponent 1, as a fraction of full scale."""
        return self.patch * math.sqrt(MOST_COLOURS) * self.strength * (2 if alpha else 1)

    @property
    def terms(self) -> DenoiseTerms:
        """See Weighed.terms."""
        return DenoiseTerms(self.strength, self.patch, self.search)

    def roundings(self, dtype: str, alpha: bool) -> float:
        """See Windowed.roundings; of the terms.

        - Sums of few taps are found one by one, others by rows; each addition rounds. In integers
          errors go to both sides, and grow as the root.
        - A change is rounded, and so are its product and quotient.
        - So are exponentials. The exponent is a sum of squares, down and across the patch, whose
          errors change a weight by as much times the exponent. In integers they go to both sides,
          but for that of the factor, which is the same for all weights. Errors of one weight and
          another have nothing in common, so their mean has fewer the more weights there are.
        """
        additions = self.others
        if additions > ONE_BY_ONE:
            additions = 3 * self.search
        squares = MOST_COLOURS * self.patch + self.patch + 4 + (6 if alpha else 0)
        once = EXPONENTIAL + 4 + (3 if alpha else 0)
        most = mean_exponent(self.others)
        if dtype == "float32":
            return 3 + min(additions, LONGEST) + once + (squares + 1) * most
        sums = 3 + 2 * math.sqrt(min(additions, LONGEST_OF_INTEGERS))
        return sums + once + most + 2 * math.sqrt(squares) * SPREAD_EXPONENT

    def amplification(self) -> float:
        """See Windowed.amplification.

        The gradient of a result: samples count by their weights, which sum to 1, and change these.
        Where no sample changes by more than 1, a difference does by 2, and an exponent x by
        ``4 sqrt(x) / strength`` at most, as the mean size of differences is no more than the root
        of their mean square. A change is ``sqrt(samples of a patch) sqrt(x) strength`` at most.
        The mean of their product has the mean exponent in it, and once more for the mean change.
        """
        return 1 + 8 * self.patch * math.sqrt(MOST_COLOURS) * mean_exponent(self.others)

    def carries(self, alpha: bool) -> float:
        """See Windowed.carries: with alpha a change may be twice as large, and so may an error."""
        return 4 * self.amplification() if alpha else self.amplification()

    def denormals(self) -> float:
        """See Windowed.denormals: of all taps a weight may be flushed, and the change with it.

        Where that counts, the change is ten of those of exponent 1 at most.
        """
        change = 10 * self._largest_change(alpha=True)
        return (1 + self.others) * max(1.0, change * FLUSHED)


class DenoiseTerms(Terms, Denoise):
    """See Weighed.terms."""


SPREAD_EXPONENT = 0.37
"""The largest root of the sum of squares of exponents, each times its weight's share: what
independent errors of exponents become in the mean. See tests/test_denoise.py."""


def sum_of(parts: Iterator[Exact]) -> Exact:
    """The sum of *parts*, from the first one on."""
    total = next(parts).copy()
    for part in parts:
        total += part
    return total
