"""Values of the reference for some rows at a time: found fast, and how far off they may be.

``reference.py`` is the definition. What is here is held to it by tests. No code of an engine is
used, nor OpenCV: of the definition's own, its borders' indices, its kernels, and what it makes of
the sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cudafilter.operations import reference
from cudafilter.operations.borders import OUTSIDE, Border, border_index
from cudafilter.operations.correlation import Correlation, combine, finish
from cudafilter.operations.operation import Operation, Stage, only_stage
from cudafilter.operations.pixels import Exact, Pixels, full_scale, largest_finite
from cudafilter.proof.planes import Image, Index, Planes
from cudafilter.proof.ranks import Ranked, networks
from cudafilter.proof.sums import UNIT, Route, route

BAND_SAMPLES = 1 << 20
"""Samples at a time, at most: 8 MiB in float64, so that memory stays small."""

WINDOW_BYTES = 8 << 20
"""Memory that the windows of single samples may take at a time."""

SMALLEST = 1e-60
"""Weights smaller than that may underflow in products, where relative errors have no bound."""


KEPT_BYTES = 31 << 20
"""Size up to which freed memory is kept for what comes next."""

LOOK_SAMPLES = 1 << 16
"""Samples compared at a time: they stay in the cache."""


Mask = npt.NDArray[np.bool_]


class Values(NamedTuple):
    """The values of some rows, and how far they may be from the definition's."""

    values: Planes
    """(rows, channels, columns), float64, or the pixels' type where samples were picked."""
    bound: float
    """Most that a value may differ from the definition's: 0 where all have the same bits."""
    unproven: Mask | None = None
    """Which values have no bound, (rows, channels, columns); None: all have it."""

    def parts(self) -> Iterator[tuple[int, Values]]:
        """A few rows at a time, and the first one's number, counted from 0."""
        rows = max(1, LOOK_SAMPLES // self.values[0].size)
        for y in range(0, len(self.values), rows):
            part = slice(y, y + rows)
            unproven = None if self.unproven is None else self.unproven[part]
            yield y, Values(self.values[part], self.bound, unproven)


def suspect(got: Planes, values: Values) -> Mask:
    """Which of *got*, (rows, channels, columns), may not be the value rounded.

    All others are what each value within the bound rounds to.
    """
    found: Mask = _suspect(got, values.values, values.bound)
    return found if values.unproven is None else found | values.unproven


def _suspect(got: Planes, values: Planes, bound: float) -> Mask:
    different: Mask
    if values.dtype == got.dtype:
        different = got != values
        return different
    if got.dtype.kind == "f":
        different = (values - bound).astype(got.dtype) != got
        if bound:
            different |= (values + bound).astype(got.dtype) != got
        return different
    # Clamped first: past full scale nothing depends on the bound.
    clamped = np.clip(values, 0, full_scale(got.dtype))
    nearest = np.rint(clamped)
    different = nearest.astype(got.dtype) != got
    if bound:
        np.abs(np.subtract(clamped, nearest, out=clamped), out=clamped)
        different |= clamped > 0.5 - 1.01 * bound
    return different


class Proof:
    """What the values of *operation* on *source*, (H, W, C), are."""

    def __init__(self, source: Pixels, operation: Operation, border: Border, alpha: bool) -> None:
        self._source, self._operation = source, operation
        self._border, self._alpha = border, alpha
        self._full = full_scale(source.dtype)
        self._plan = operation.unrolled(border)
        self._stage = only_stage(self._plan) if self._plan else None
        self._fast = self._fast_route()
        """The correlation's or the ranks' rows; None where only the definition has them."""
        # glibc gives freed blocks back to the system, and clears them when they come again, which
        # took a third of the time. It keeps those no larger than the largest it has seen freed, up
        # to 32 MiB. So one is shown to it, which is never touched and so takes no memory.
        np.empty(KEPT_BYTES, np.uint8)
        _, width, channels = source.shape
        self.step = max(
            1,
            min(
                self._fast.step if self._fast else max(1, sum(operation.reach[:2])),
                BAND_SAMPLES // (width * channels),
            ),
        )
        """Rows to ask for at a time."""

    @property
    def fast(self) -> bool:
        """Whether rows() are found by a faster route than the definition's."""
        return self._fast is not None

    def rows(self, first: int, last: int) -> Values:
        """The values of rows *first* to *last* - 1."""
        if isinstance(self._fast, Ranked):
            return Values(self._fast.rows(first, last), 0.0)
        if self._fast is not None:
            return self._fast.rows(first, last)
        return Values(self._in_rows(first, last).transpose(0, 2, 1), 0.0)

    def at(self, y: Index, x: Index, c: Index) -> Exact:
        """The definition's values at rows *y*, columns *x* and channels *c*, 1-D arrays."""
        if not len(y):
            return np.empty(0)
        above, below, left, right = self._operation.reach
        window = (above + 1 + below) * (left + 1 + right)
        first, last = int(y.min()), int(y.max()) + 1
        row = self._source[0].size * (last - first)
        joint = self._alpha and isinstance(self._operation, Correlation)
        if self._stage is None or joint:
            if len(y) > row // 64:
                return self._in_rows(first, last)[y - first, x, c]
            return self._one_by_one(y, x, c)
        if len(y) * window > row * (above + below + left + right + 2):
            return self._in_rows(first, last)[y - first, x, c]
        out = np.empty(len(y))
        count = max(1, WINDOW_BYTES // (8 * window))
        for n in range(0, len(y), count):
            part = slice(n, n + count)
            out[part] = self._windows(self._stage, y[part], x[part], c[part])
        return out

    def _in_rows(self, first: int, last: int) -> Exact:
        """The definition's values of rows *first* to *last* - 1, (rows, columns, channels)."""
        return reference.exact(
            self._source, self._operation, self._border, self._alpha, (first, last)
        )

    def _one_by_one(self, y: Index, x: Index, c: Index) -> Exact:
        """at() for what needs all channels of a pixel, or more than one window."""
        pixels, inverse = np.unique(np.stack([y, x]), axis=1, return_inverse=True)
        values = [
            reference.exact(
                self._source, self._operation, self._border, self._alpha, (i, i + 1), (j, j + 1)
            )[0, 0]
            for i, j in pixels.T.tolist()
        ]
        found: Exact = np.array(values)[inverse.ravel(), c]
        return found

    def _windows(self, stage: Stage, y: Index, x: Index, c: Index) -> Exact:
        """The definition of one pixel of as many channels as there are samples: it treats each
        channel by itself where none is alpha."""
        (above, below, left, right), (height, width, _) = stage.operation.reach, self._source.shape
        rows = _around(y, above, below, height, stage.border.mode)
        columns = _around(x, left, right, width, stage.border.mode)
        windows = self._source[rows[:, None, :], columns[None, :, :], c].astype(np.float64)
        outside = (rows == OUTSIDE)[:, None, :] | (columns == OUTSIDE)[None, :, :]
        windows[outside] = stage.border.sample(self._source.dtype)
        source = self._source[y, x, c].astype(np.float64)[None, None, :]
        with np.errstate(all="ignore"):
            found: Exact = stage.operation.exact(windows, source, self._full, False)[0, 0]
            return found

    def _fast_route(self) -> _Correlated | Ranked | None:
        if self._plan and networks(self._plan) and not math.isnan(self._source.max()):
            return Ranked(self._source, self._plan, self._alpha)
        if self._stage is None:
            return None
        operation, border = self._stage
        if not isinstance(operation, Correlation):
            return None
        correlated = _Correlated(self._source, operation, border, self._alpha)
        return correlated if correlated.proven else None


def _around(position: Index, before: int, after: int, n: int, mode: str) -> Index:
    """Where the window around each *position* is read from, (before + 1 + after, positions)."""
    index = border_index(-before, n + after, n, mode)
    around: Index = index[position[None, :] + np.arange(before + 1 + after)[:, None]]
    return around


class _Correlated:
    """A correlation by the fastest route of each of its kernels."""

    def __init__(self, source: Pixels, filter: Correlation, border: Border, alpha: bool) -> None:
        self._filter, self._alpha = filter, alpha
        self._full = full_scale(source.dtype)
        self._finite = _Finite(source, filter.reach, border)
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
        """See Proof.rows."""
        with np.errstate(all="ignore"):
            sums = [route.sums(self._image, first, last) for route in self._routes]
            if self._alpha:
                sums = [each.astype(np.float64, copy=False) for each in sums]
                values, bound = self._with_alpha(sums, self._source(first, last))
            else:
                bound = self._bound([route.error * self._largest for route in self._routes])
                values = sums[0] if sums[0].dtype == np.float64 else np.empty(sums[0].shape)
                rows = max(1, LOOK_SAMPLES // values[0].size)
                for y in range(0, last - first, rows):  # few at a time: they stay in the cache
                    few = slice(y, y + rows)
                    values[few] = self._finished(
                        [each[few] for each in sums], first + y, min(first + y + rows, last)
                    )
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


class _Finite:
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
