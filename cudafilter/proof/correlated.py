"""A correlation's values from the sums of its kernels, and the bound that follows from theirs."""

from __future__ import annotations

import math

import numpy as np

from cudafilter.operations.borders import OUTSIDE, Border, border_index
from cudafilter.operations.correlation import Correlation, combine, finish
from cudafilter.operations.pixels import Pixels, full_scale, largest_finite
from cudafilter.proof.planes import Image, Planes
from cudafilter.proof.sums import UNIT, Route, route
from cudafilter.proof.values import Mask, Values

SMALLEST = 1e-60
"""Weights smaller than that may underflow in products, where relative errors have no bound."""


class Correlated:
    """A correlation by the fastest route of each of its kernels."""

    def __init__(self, source: Pixels, filter: Correlation, border: Border, alpha: bool) -> None:
        self._filter, self._alpha = filter, alpha
        self._full = full_scale(source.dtype)
        self._finite = Finite(source, filter.reach, border)
        self._image = Image(source, border, self._finite.wild, premultiplied=alpha)
        self._plain = Image(source, border, self._finite.wild)
        integers = source.dtype.kind == "u"
        constant = border.sample(source.dtype)
        opaque = alpha and bool((source[..., -1] == self._full).all())
        if border.mode == "constant":
            opaque = opaque and constant == self._full
        whole = integers and (opaque or not alpha)
        self._routes: list[Route] = [
            route(kernel, self._full if integers else math.inf, whole) for kernel in filter.kernels
        ]
        self.step = min(route.step for route in self._routes)
        self._exact = not any(route.error for route in self._routes)
        self._largest = self._full if integers else self._finite.largest(constant)

        # Squares of these neither overflow nor lose what counts; else it is the definition's hypot.
        size = max((kernel.magnitude for kernel in filter.kernels), default=0.0) * self._largest
        self._squares = filter.combine == "magnitude" and 1e-100 < size < 1e100

    @property
    def proven(self) -> bool:
        """Whether there is a bound for what is made of the sums.

        A quotient has one where both sums are of terms that are not negative, and no product of
        them underflows: each then has a relative error.
        """
        filter = self._filter
        if not self._alpha or filter.alpha == "keep" or self._exact:
            return True
        positive = all(
            (given >= 0).all() and (given[given > 0] > SMALLEST).all()
            for kernel in filter.kernels
            for given in (kernel.factors or (kernel.weights,))
        )
        return (
            positive
            and filter.combine == "single"
            and filter.gain > SMALLEST
            and filter.source_gain == 0
            and all(route.relative for route in self._routes)
            and self._finite.least_alpha >= 0
        )

    def rows(self, first: int, last: int) -> Values:
        """See proof.Proof.rows."""
        with np.errstate(all="ignore"):
            sums = [route.sums(self._image, first, last) for route in self._routes]
            if self._alpha:
                sums = [each.astype(np.float64, copy=False) for each in sums]
                values, bound = self._with_alpha(sums, self._source(first, last))
            else:
                bound = self._bound([route.error * self._largest for route in self._routes])
                values = self._finished(sums, first, last)
        return Values(values, bound, self._finite.unproven(first, last))

    def _source(self, first: int, last: int) -> Planes:
        """Rows *first* to *last* - 1 of the image in float64."""
        rows = self._plain.rows(np.arange(first, last), 0, self._plain.width)
        return rows.astype(np.float64)

    def _finished(self, sums: list[Planes], first: int, last: int) -> Planes:
        """What becomes of the *sums* of rows *first* to *last* - 1 without alpha."""
        filter = self._filter
        if self._squares:
            wide = [each.astype(np.float64, copy=False) for each in sums]
            combined = np.square(wide[0])
            combined += np.square(wide[1])
            np.sqrt(combined, out=combined)
        else:
            combined = combine(filter, [each.astype(np.float64, copy=False) for each in sums])
        if not (filter.source_gain or filter.threshold):
            # finish() without the source; adding nothing changes no value.
            combined = combined if filter.gain == 1 else filter.gain * combined
            return combined + filter.bias * self._full if filter.bias else combined
        return finish(filter, combined, self._source(first, last), self._full)

    def _bound(self, errors: list[float], size: float = 1.0) -> float:
        """The largest difference of results, of such *errors* of the sums.

        *size*: how much larger than the largest sample the terms are.
        """
        if self._exact and not self._squares:
            return 0.0
        filter, most = self._filter, self._largest * size
        terms = abs(filter.gain) * float(np.linalg.norm([k.magnitude for k in filter.kernels]))
        terms += abs(filter.source_gain)
        offset = (abs(filter.bias) + abs(filter.threshold)) * self._full
        # A dozen roundings there and a dozen here, of terms no larger than that.
        rounding = 32 * UNIT * (terms * most + offset)
        return abs(filter.gain) * float(np.linalg.norm(errors)) + rounding

    def _with_alpha(self, sums: list[Planes], source: Planes) -> tuple[Planes, float]:
        """What the definition makes of premultiplied sums, and its bound."""
        filter, full = self._filter, self._full
        colour, alpha = source[:, :-1], source[:, -1:] / full
        parts = [(each[:, :-1], each[:, -1:]) for each in sums]
        opaque = max(1.0, self._largest / full)  # the largest alpha
        errors = [route.error for route in self._routes]
        if filter.alpha == "keep":
            shares = [
                s + colour * (kernel.sum - a) + (colour - colour)
                for kernel, (s, a) in zip(filter.kernels, parts, strict=True)
            ]
            out = finish(filter, combine(filter, shares), colour, full)
            # Of the colours' sums and of the coverages', each times a colour.
            errors = [2 * error * opaque * self._largest for error in errors]
            return np.concatenate([out, source[:, -1:]], axis=1), self._bound(errors, 4 * opaque)
        (above, below), *others = parts
        if others or filter.source_gain:
            above = combine(filter, [s for s, _ in parts])
            below = combine(filter, [a for _, a in parts])
        share = (filter.source_gain * (colour * alpha), filter.source_gain * alpha)
        above = filter.gain * above + (share[0] if filter.source_gain else 0.0)
        below = filter.gain * below + (share[1] if filter.source_gain else 0.0)
        visible = below > 0
        out = np.where(visible, above / np.where(visible, below, 1.0) + filter.bias * full, 0.0)
        values = np.concatenate([out, below * full], axis=1)
        if self._exact:
            return values, 0.0
        # Both sums' relative errors add; a quotient is a mean of colours, so no larger than one.
        relative = errors[0] / filter.kernels[0].magnitude + 16 * UNIT
        offset = 8 * UNIT * abs(filter.bias) * full
        colours = 3 * relative * self._largest + offset
        coverage = 2 * relative * abs(filter.gain) * filter.kernels[0].magnitude * opaque * full
        return values, max(colours, coverage)


class Finite:
    """Where NaN and infinity reach in float images: there is no bound."""

    def __init__(self, source: Pixels, reach: tuple[int, int, int, int], border: Border) -> None:
        self._reach, self._border = reach, border
        self._shape = source.shape
        self._wild: Mask | None = None
        self._most = self.least_alpha = 0.0
        """The least sample of the last channel."""
        if source.dtype.kind != "f":
            return
        self._most = largest_finite(source)
        if not (math.isfinite(source.min()) and math.isfinite(source.max())):
            self._wild = ~np.isfinite(source)
        last = source[..., -1]
        self.least_alpha = float(np.min(last, where=np.isfinite(last), initial=np.inf))
        if border.mode == "constant":
            self.least_alpha = min(self.least_alpha, border.sample(source.dtype))

    @property
    def wild(self) -> bool:
        """Whether there are any."""
        return self._wild is not None

    def largest(self, constant: float) -> float:
        """The largest finite absolute value of the image or of a border's *constant*."""
        return max(self._most, abs(constant))

    def unproven(self, first: int, last: int) -> Mask | None:
        """Of which values of the rows the window has NaN or infinity in any channel."""
        if self._wild is None:
            return None
        above, below, left, right = self._reach
        height, width, channels = self._shape
        down = border_index(first - above, last + below, height, self._border.mode)
        wild = self._wild[down].any(axis=2) & (down != OUTSIDE)[:, None]
        if not wild.any():
            return None
        across = border_index(-left, width + right, width, self._border.mode)
        wild = wild[:, across] & (across != OUTSIDE)[None, :]
        for axis, side in ((0, above + 1 + below), (1, left + 1 + right)):
            counts = np.cumsum(wild, axis=axis, dtype=np.int32)
            counts = np.concatenate([np.zeros_like(counts.take([0], axis)), counts], axis=axis)
            n = counts.shape[axis] - side
            upper = counts.take(np.arange(side, side + n), axis)
            wild = upper > counts.take(np.arange(n), axis)
        return np.broadcast_to(wild[:, None, :], (last - first, channels, width))
