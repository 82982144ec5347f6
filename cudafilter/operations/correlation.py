"""Filters of one or two correlation kernels: what they are, and their reference in float64.

The reference is as plain as it can be. The one liberty is that a rank-1 kernel runs as its two
factors: that changes float64's last bits only (tests hold the two forms together) and keeps
``--check`` usable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from cudafilter.errors import ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.operation import Plan, Stage
from cudafilter.operations.pixels import Exact

SLACK = {"uint8": 0.01, "uint16": 0.05}
"""How near a rounding boundary, in steps, an exact value must lie for a result to differ by 1.
Times max(1, |gain| * sum|w|): an error in float32 grows with the terms that cancel."""

FLOAT_TOLERANCE = 4e-6
"""Largest error of float32 per kernel, relative to sum|w| * max|x|."""

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

    def tolerance(self, dtype: str, full: float, largest: float, alpha: bool) -> float:
        """See Operation.tolerance.

        Integers may be any to which a value within SLACK of the exact one rounds. That grows with
        the terms that cancel, and never passes 0.5, so results differ by 1 at most.

        Under ``filter`` alpha the gain cancels in ``K(c*a) / K(a)``, whose two relative errors add.
        """
        size = self._size(alpha)
        if dtype in SLACK:
            return min(0.5, SLACK[dtype] * max(1.0, size))
        if alpha and self.alpha == "filter":
            scale = 2 * max(1.0, size)
        else:
            scale = size * (max(1.0, largest / full) if alpha else 1.0)
        scale += abs(self.source_gain)
        return FLOAT_TOLERANCE * (scale * largest + abs(self.bias) * full)

    def amplification(self, alpha: bool, largest: float) -> float:
        """See Windowed.amplification.

        - Without alpha: |gain| * sum|w| + |source_gain|, and no less than 1 with a threshold, by
          which results may be the source.
        - Alpha filtered along, its weights positive: colour is a mean, whose own error counts once.
          Alpha's relative error counts twice, above and below the fraction line.
        - Alpha kept, c the colour and a the alpha of a tap: ``sum w * (c*a + own * (1 - a))``. A
          change of both colours counts ``a + |1 - a|`` times, one of alpha ``|c - own|`` times.
        """
        size = self._size(False)
        if alpha and self.alpha == "filter":
            return max(3.0, size + abs(self.source_gain))
        if alpha:
            size *= max(1.0, 2 * largest - 1) + 2 * largest
        least = 1.0 if alpha or self.threshold else 0.0
        return max(least, size + abs(self.source_gain))

    def bound(self, full: float, largest: float, alpha: bool) -> float:
        """See Windowed.bound."""
        size = self._size(False)
        if alpha and self.alpha == "keep":
            size *= max(1.0, 2 * largest / full - 1)
        least = 1.0 if alpha or self.threshold else 0.0
        return max(least, size + abs(self.source_gain)) * largest + abs(self.bias) * full

    def _size(self, alpha: bool) -> float:
        """How much larger than the image the terms are that a result is summed from.

        Kept alpha sums twice: ``K(c*a)`` and ``c * (sum(K) - K(a))``.
        """
        twice = 2 if alpha and self.alpha == "keep" else 1
        return twice * abs(self.gain) * float(np.linalg.norm([k.magnitude for k in self.kernels]))


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
