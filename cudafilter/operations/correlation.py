"""Filters of one or two correlation kernels: what they are, and their reference in float64.

The reference is as plain as it can be. The one liberty is that a rank-1 kernel runs as its two
factors: that changes float64's last bits only (tests hold the two forms together) and keeps
``--check`` usable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from cudafilter.errors import ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.kernel import MOST_WHOLE, Kernel, grain
from cudafilter.operations.operation import ROUNDING, Plan, Stage, Windowed
from cudafilter.operations.pixels import Exact, full_scale

FINISH = {"single": 4.0, "magnitude": 8.0}
"""Largest error of float32, in ROUNDING, of what becomes of exact sums: gain, product, source and
bias; and of squares, their sum and its root."""

LONGEST, LONGEST_OF_INTEGERS = 100, 64
"""Additions, rows and columns together, from which on errors grow no more."""

ONE_BY_ONE = 64
"""Most taps that are summed in a row, whatever the rows of a kernel."""

IN_BYTES = 64.0
"""Least error, in ROUNDING, that sums over bytes may have: tensor cores take a byte as 1024 more,
and cut what they add where float32 rounds it. It is 0.001 of a step."""

IN_DOUBLE = 2.0**-26
"""A rounding's error in double, in ROUNDING, with a margin of eight for the reference's own."""

MOST_SLACK = 0.45
"""Steps by which float32 may be off. Where it could be by more, engines work in double."""

LEAST_GRAIN = 2.0**-64
"""Of sums that count as exact: far from float32's least numbers, whatever they are scaled by."""

_NO_TAP = Kernel([[0.0]])


@dataclass(frozen=True)
class Correlation:
    """``out = gain * combined + source_gain * source + bias``, then rounded (see pixels.quantise).

    ``combined`` is the one kernel's result (``single``) or ``sqrt(a^2 + b^2)`` of two
    (``magnitude``). ``bias`` and ``threshold`` are fractions of full scale. A threshold t shrinks
    the change: with ``d = out - source``, ``out = source + sign(d) * max(|d| - t, 0)``, which is
    continuous, so that no rounding error can turn into a visible step.

    A gain or source_gain of 0 is no term, NaN and infinity or not: kernels whose gain is 0 are
    replaced by one of weight 0.

    ``alpha`` says what becomes of an alpha channel a (as a fraction of full scale):

    - ``filter``: colour c is filtered premultiplied and divided by the filtered alpha,
      ``(gain*K(c*a) + source_gain*c*a) / (gain*K(a) + source_gain*a) + bias``; colour is 0 where
      the filtered alpha is 0 or less.
    - ``keep``: alpha stays and transparent taps count as the pixel's own colour,
      ``K(c*a) + c * (sum(K) - K(a))`` in place of ``K(c)``. That needs no division, so it is
      stable where alpha is small, and a flat colour shows no edge at its matte. The result is NaN
      where c is not finite.
    """

    name: str
    kernels: tuple[Kernel, ...]
    combine: Literal["single", "magnitude"] = "single"
    gain: float = 1.0
    source_gain: float = 0.0
    bias: float = 0.0
    threshold: float = 0.0
    alpha: Literal["filter", "keep"] = "keep"
    picks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if len(self.kernels) != {"single": 1, "magnitude": 2}[self.combine]:
            raise ParameterError(
                "kernels", f"{self.combine!r} does not go with {len(self.kernels)}"
            )
        if self.gain == 0:
            object.__setattr__(self, "kernels", (_NO_TAP,) * len(self.kernels))

    @property
    def is_identity(self) -> bool:
        """Whether the result is the image, bit for bit."""
        return self.gain == 0 and self.source_gain == 1 and self.bias == 0 and self.alpha == "keep"

    @property
    def reach(self) -> tuple[int, int, int, int]:
        """Halo in pixels of all kernels: above, below, left, right."""
        above, below, left, right = zip(*(kernel.reach for kernel in self.kernels), strict=True)
        return max(above), max(below), max(left), max(right)

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns) that hold all kernels, anchor on anchor."""
        above, below, left, right = self.reach
        return above + 1 + below, left + 1 + right

    @property
    def rank1(self) -> bool:
        """Whether every kernel has column and row factors."""
        return all(kernel.factors is not None for kernel in self.kernels)

    def unrolled(self, border: Border) -> Plan:
        """See Operation.unrolled."""
        return () if self.is_identity else (Stage(self, border),)

    def exact(self, padded: Exact, source: Exact, full: float, alpha: bool) -> Exact:
        """See Windowed.exact. NaN and infinity count as IEEE 754 has it, in sums as in hypot."""
        if alpha:
            return _with_alpha(padded, source, self, full)
        sums = [_correlate_within(padded, self, kernel) for kernel in self.kernels]
        return finish(self, combine(self, sums), source, full)

    def slack(self, dtype: str, alpha: bool) -> float | None:
        """See Windowed.slack."""
        slack = self._float_slack(dtype, alpha)
        return slack if slack is None or slack <= MOST_SLACK else slack * IN_DOUBLE

    def in_double(self, dtype: str, alpha: bool) -> bool:
        """Whether engines are to work in double on *dtype*, for float32 would be too far off."""
        return dtype != "float32" and (self._float_slack(dtype, alpha) or 0.0) > MOST_SLACK

    def _float_slack(self, dtype: str, alpha: bool) -> float | None:
        """How far float32 may be off on integers, in steps.

        - Not at all where all is whole numbers, or multiples of a power of two, that it holds.
        - Where sums are: by what gain, root and bias round, relative to what these give. Results
          in range are full scale at most, and so is what they are summed from, but for the source
          and the bias, which may cancel. Colour times alpha that is kept sums so too, if it fits.
        - Else by what sums round, relative to the size of their terms. Alpha that is filtered
          along makes a mean of two of them.
        """
        full = full_scale(dtype)
        sums = max(IN_BYTES if dtype == "uint8" else 0.0, self.roundings(dtype, alpha))
        extra = abs(self.source_gain) + abs(self.bias) + (1.0 if self.threshold else 0.0)
        if alpha and self.alpha == "filter":
            if not self.smoothing:
                return None
            roundings = sums * (1 + abs(self.bias))
        elif alpha and self._sums_exactly(dtype, 2 * full * full):
            roundings = (FINISH[self.combine] + 2) * (1 + 2 * extra)
        elif alpha:
            roundings = sums * (2 * self.size_of_terms + extra)
        elif self.has_exact_sums(dtype):
            if self._is_whole(full):
                return 0.0
            least = IN_BYTES if dtype == "uint8" else 0.0  # the CPU's weights have the gain in them
            roundings = max(least, FINISH[self.combine]) * (1 + 2 * extra)
        else:
            # Terms that do not cancel are no larger than what they add up to.
            most = 1 + abs(self.bias) if self.smoothing else math.inf
            roundings = sums * (min(self.size_of_terms, most) + extra)
        return ROUNDING * full * roundings

    def has_exact_sums(self, dtype: str) -> bool:
        """Whether float32 rounds no sum over samples of *dtype*, none of them alpha."""
        return self._sums_exactly(dtype, full_scale(dtype))

    def _sums_exactly(self, dtype: str, largest: float) -> bool:
        """Whether float32 rounds no sum over whole numbers up to *largest*."""
        return dtype != "float32" and all(
            kernel.magnitude * largest <= MOST_WHOLE * kernel.grain and kernel.grain >= LEAST_GRAIN
            for kernel in self.kernels
        )

    def is_whole(self, dtype: str) -> bool:
        """Whether float32 rounds nothing at all on *dtype*, without alpha: ties are ties then."""
        return self.slack(dtype, False) == 0.0

    def _is_whole(self, full: float) -> bool:
        """Whether what becomes of exact sums is exact too."""
        if self.combine == "magnitude" or self.threshold:
            return False
        (kernel,) = self.kernels
        bias = self.bias * full
        unit = min(kernel.grain * grain(self.gain), grain(self.source_gain), grain(bias))
        size = (self.size_of_terms + abs(self.source_gain)) * full + abs(bias)
        return size <= MOST_WHOLE * unit and unit >= LEAST_GRAIN

    @property
    def smoothing(self) -> bool:
        """Whether no weight or gain is negative: then terms of one sign do not cancel."""
        return min(self.gain, self.source_gain) >= 0 and all(
            kernel.absolute is kernel for kernel in self.kernels
        )

    @property
    def absolute(self) -> Correlation:
        """The same with all terms positive, and without threshold."""
        return replace(
            self,
            kernels=tuple(kernel.absolute for kernel in self.kernels),
            gain=abs(self.gain),
            # A threshold may leave the source.
            source_gain=abs(self.source_gain) + (1.0 if self.threshold else 0.0),
            bias=abs(self.bias),
            threshold=0.0,
        )

    def majorant(self, alpha: bool, opaque: float, signed: bool) -> tuple[Windowed, ...] | None:
        """See Windowed.majorant.

        Alpha kept sums ``K(c*a)`` and ``c * (sum(K) - K(a))``. Alpha filtered along makes a mean,
        no larger than the largest of its samples, if nothing cancels.
        """
        most = self.absolute
        if not alpha:
            return (most,)
        size = self.size_of_terms
        if self.alpha == "keep":
            share = most.source_gain + size * (1 + opaque)
            return (replace(most, gain=most.gain * max(1.0, opaque), source_gain=share),)
        if not self.smoothing:
            return None
        # Only the check asks for it, and a filter's start does without ranks.
        from cudafilter.operations.rank import Rank
        from cudafilter.operations.window import Window

        above, below, left, right = self.reach
        window = Window((above + 1 + below, left + 1 + right), (above, left))
        return (
            Rank(self.name, window, window.count - 1),
            Correlation(
                self.name, (_NO_TAP,), gain=0.0, bias=most.bias,
                source_gain=max(1.0, size + most.source_gain),
            ),
        )  # fmt: skip

    def roundings(self, dtype: str, alpha: bool) -> float:
        """See Windowed.roundings.

        Three for gain and weights. Then one for each addition, if kernels of many taps are summed
        row by row, or down and across. That is the worst case, and flat areas come near it. There,
        integers err by less than what lies between two of them; elsewhere errors go to both sides,
        and grow as the root. Long sums are made of shorter ones, so neither grows beyond some
        length.

        Alpha filtered along divides two sums.
        """
        additions = sum(self.size)
        if not self.rank1:
            taps = max(int(np.count_nonzero(kernel.weights)) for kernel in self.kernels)
            additions = max(additions, min(taps, ONE_BY_ONE))
        if dtype == "float32":
            sums = 3.0 + min(additions, LONGEST)
        else:
            sums = 3.0 + 2 * math.sqrt(min(additions, LONGEST_OF_INTEGERS))
        return sums * (2 if alpha and self.alpha == "filter" else 1)

    def carries(self, alpha: bool) -> float:
        """See Windowed.carries.

        Colour times alpha has the errors of both. Filtered along, alpha divides too.
        """
        if not alpha:
            return 1.0
        return 3.0 if self.alpha == "filter" else 2.0

    def amplification(self) -> float:
        """See Windowed.amplification."""
        return self.size_of_terms + abs(self.source_gain) + (1.0 if self.threshold else 0.0)

    def denormals(self) -> float:
        """See Windowed.denormals: a term may lose half a step; sums are scaled, to be in range, by
        up to eight times what they make of the samples."""
        return 4 * (sum(self.size) + 4) * max(1.0, self.amplification())

    @cached_property
    def size_of_terms(self) -> float:
        """How much larger than the image the terms are that a sum has."""
        return abs(self.gain) * math.hypot(*(kernel.magnitude for kernel in self.kernels))


IDENTITY = Correlation("identity", (_NO_TAP,), gain=0.0, source_gain=1.0)


def correlate(padded: Exact, kernel: Kernel) -> Exact:
    """Every sum of ``weights * window`` where the window fits into *padded*, (H', W', C).

    Returns (H' - rows + 1, W' - columns + 1, C).
    """
    if kernel.factors is not None:
        column, row = kernel.factors
        return _correlate(_correlate(padded, column[:, None]), row[None, :])
    return _correlate(padded, kernel.weights)


def _correlate(padded: Exact, weights: Exact) -> Exact:
    rows, columns = weights.shape
    height, width = padded.shape[0] - rows + 1, padded.shape[1] - columns + 1
    out = np.zeros((height, width, padded.shape[2]))
    for i, j in np.argwhere(weights):  # a weight of 0 is no tap: 0 * NaN would be one
        out += weights[i, j] * padded[i : i + height, j : j + width]
    return out


def _correlate_within(padded: Exact, filter: Correlation, kernel: Kernel) -> Exact:
    """correlate() with one kernel of *filter*, where *padded* has the halo of all of them."""
    above, below, left, right = np.subtract(filter.reach, kernel.reach)
    height, width = padded.shape[:2]
    return correlate(padded[above : height - below, left : width - right], kernel)


def combine(filter: Correlation, results: list[Exact]) -> Exact:
    """The kernels' results in one: itself, or the magnitude of two."""
    return np.hypot(*results) if filter.combine == "magnitude" else results[0]


def finish(filter: Correlation, combined: Exact, source: Exact, full: float) -> Exact:
    """``gain * combined + source_gain * source + bias``, its change from *source* shrunk."""
    out = filter.gain * combined + _share(filter, source) + filter.bias * full
    if filter.threshold:
        change = out - source
        out = source + np.sign(change) * np.maximum(np.abs(change) - filter.threshold * full, 0)
    return out


def _share(filter: Correlation, source: Exact) -> Exact | float:
    """The source's term, none where its gain is 0: 0 * NaN would be one."""
    return filter.source_gain * source if filter.source_gain else 0.0


def _with_alpha(padded: Exact, source: Exact, filter: Correlation, full: float) -> Exact:
    """Correlation.exact() where the last channel is alpha; see Correlation for the two ways."""
    alphas = padded[..., -1:] / full
    premultiplied = padded[..., :-1] * alphas
    colour, alpha = source[..., :-1], source[..., -1:] / full
    sums = [_correlate_within(premultiplied, filter, k) for k in filter.kernels]
    coverage = [_correlate_within(alphas, filter, k) for k in filter.kernels]
    if filter.alpha == "keep":
        # The last term makes an infinite colour NaN: times an absence of 0 or nearly so, it is
        # anything.
        sums = [
            s + colour * (k.sum - a) + (colour - colour)
            for k, s, a in zip(filter.kernels, sums, coverage, strict=True)
        ]
        out = finish(filter, combine(filter, sums), colour, full)
        return np.concatenate([out, source[..., -1:]], axis=2)
    above = filter.gain * combine(filter, sums) + _share(filter, colour * alpha)
    below = filter.gain * combine(filter, coverage) + _share(filter, alpha)
    visible = below > 0
    out = np.where(visible, above / np.where(visible, below, 1.0) + filter.bias * full, 0.0)
    return np.concatenate([out, below * full], axis=2)
