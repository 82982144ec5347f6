"""How far engines may be off after a chain with point operations, pixel by pixel.

Curves are steep at places, and a threshold is a step. So what an error becomes there depends on the
sample. The definition's values go along with a bound of the error of each.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cudafilter.operations.correlation import Correlation
from cudafilter.operations.operation import ROUNDING, Fork, Plan, Stage
from cudafilter.operations.pixels import Exact, Pixels, full_scale
from cudafilter.operations.point import Curve, Levels, Points, Threshold
from cudafilter.operations.rank import Rank
from cudafilter.operations.reference import Span, surrounded
from cudafilter.operations.weighed import Weighed
from cudafilter.operations.window import square
from cudafilter.proof.planes import Index, Planes

DENORMAL = 2.0**-149
"""From one of float32's least numbers to the next."""

BLACK = 2.0**-48
"""Relative error of a black point that is the sum of two floats."""


class Errors:
    """The bounds for *plan*, whose stages are no differences of the whole image, on *source*."""

    def __init__(self, source: Pixels, plan: Plan, alpha: bool, unit: float = ROUNDING) -> None:
        self._unit = unit
        self._source, self._plan, self._alpha = source, plan, alpha
        self._full = full_scale(source.dtype)
        self._whole = source.dtype.kind == "u"

    def rows(self, first: int, last: int) -> Planes:
        """Of rows *first* to *last* - 1, (rows, channels, columns), in native units."""
        found: Planes = self._ended((first, last), (0, self._source.shape[1])).transpose(0, 2, 1)
        return found

    def at(self, y: Index, x: Index, c: Index) -> Exact:
        """At rows *y*, columns *x* and channels *c*, 1-D arrays, in native units."""
        if not len(y):
            return np.empty(0)
        first, last = int(y.min()), int(y.max()) + 1
        if len(y) * 64 > (last - first) * self._source[0].size:
            return self.rows(first, last)[y - first, c, x]
        pixels, inverse = np.unique(np.stack([y, x]), axis=1, return_inverse=True)
        found = [self._ended((i, i + 1), (j, j + 1))[0, 0] for i, j in pixels.T.tolist()]
        errors: Exact = np.array(found)[inverse.ravel(), c]
        return errors

    def _ended(self, rows: Span, columns: Span) -> Exact:
        """The errors of a block, those of scaling integers back included."""
        with np.errstate(all="ignore"):  # NaN and infinity are found, not warned of
            values, errors = _halves(self._block(self._plan, rows, columns))
        return errors + (self._unit * (np.abs(values) + errors) if self._whole else 0.0)

    def _block(self, plan: Plan, rows: Span, columns: Span) -> Exact:
        """Values and errors of a block after *plan*, (h, w, 2 C)."""
        if self._whole and len(plan) == 1 and _is_points(plan[0]):
            # Looked up in a table of exact values, and rounded to float32.
            samples = self._samples(rows, columns)
            return self._scaled(_exact(plan[0], samples, self._full, self._alpha))
        if not plan:
            samples = self._samples(rows, columns)
            return self._scaled(samples) if self._whole else _both(samples, np.zeros_like(samples))
        *before, final = plan
        if isinstance(final, Fork):
            return self._difference(tuple(before), final, rows, columns)
        height, width, channels = self._source.shape
        constant = np.zeros(2 * channels)
        constant[:channels] = final.border.sample(self._source.dtype)
        if self._whole:
            constant[channels:] = self._unit * constant[:channels]
        padded = surrounded(
            lambda y, x: self._block(tuple(before), y, x),
            (height, width), final, (rows, columns), constant,
        )  # fmt: skip
        above, _, left, _ = final.operation.reach
        source = padded[above:, left:][: rows[1] - rows[0], : columns[1] - columns[0]]
        return self._after(final, padded, source)

    def _samples(self, rows: Span, columns: Span) -> Exact:
        return self._source[slice(*rows), slice(*columns)].astype(np.float64)

    def _scaled(self, values: Exact) -> Exact:
        """*values* of integers, which were divided by full scale or looked up."""
        return _both(values, self._unit * np.abs(values))

    def _difference(self, before: Plan, fork: Fork, rows: Span, columns: Span) -> Exact:
        (more, error), (less, other) = (
            _halves(self._block((*before, *branch), rows, columns)) for branch in fork
        )
        values, errors = more - less, error + other
        errors = errors + self._unit * (np.abs(values) + errors)
        if self._alpha:
            kept, own = _halves(self._block(before, rows, columns))
            values[..., -1], errors[..., -1] = kept[..., -1], own[..., -1]
        return _both(values, errors)

    def _after(self, stage: Stage, padded: Exact, source: Exact) -> Exact:
        """Values and errors after *stage*, of *source* with what it reaches around."""
        operation = stage.operation
        (around, errors), (values, own) = _halves(padded), _halves(source)
        if isinstance(operation, Points):
            for curve in operation.curves:
                values, own = self._curved(curve, values, own)
            return _both(values, own)
        result = operation.exact(around, values, self._full, self._alpha)
        if isinstance(operation, Rank):
            window = operation.window
            found = Rank("most", window, window.count - 1).exact(errors, own, self._full, False)
        elif isinstance(operation, Weighed):
            found = self._alike(operation, around, errors, values, own)
        else:
            assert isinstance(operation, Correlation)
            found = self._correlated(operation, around, errors, values, own)
        return _both(result, np.where(np.isfinite(result), found, 0.0))

    def _curved(self, curve: Curve, values: Exact, errors: Exact) -> tuple[Exact, Exact]:
        """Values and errors after *curve*; alpha is kept."""
        full, colours = self._full, slice(0, values.shape[2] - self._alpha)
        given, error = values[..., colours], errors[..., colours]
        if isinstance(curve, Levels):
            error = error + full * (
                BLACK * abs(curve.black) + 2 * DENORMAL * max(1.0, abs(curve.white - curve.black))
            )
        result = curve(given, full)
        ends = curve(given - error, full), curve(given + error, full)  # curves are monotone
        most = np.maximum(*(np.abs(end - result) for end in ends))
        if isinstance(curve, Levels):
            most += _rounded(curve, result / full, self._unit) * full
        else:
            assert isinstance(curve, Threshold)
        values, errors = values.copy(), errors.copy()
        values[..., colours] = result
        errors[..., colours] = np.where(np.isfinite(result), most, 0.0)
        return values, errors

    def _alike(
        self, filter: Weighed, around: Exact, errors: Exact, values: Exact, own: Exact
    ) -> Exact:
        """Errors after *filter*, whose change is that of its own pixel and of distances to it.

        A distance is off by twice the largest error of the window's colours, times alpha, and by
        that of alpha times two of the largest samples. See Weighed.amplification for what it does.
        """
        full, name, colours = self._full, self._source.dtype.name, slice(0, -1)
        if not self._alpha:
            colours = slice(None)
        sizes, size = np.abs(around) + errors, np.abs(values) + own
        # Pixels that are not finite do not count.
        counts = np.isfinite(around).all(axis=2, keepdims=True)
        errors, sizes = np.where(counts, errors, 0.0), np.where(counts, sizes, 0.0)
        most = Rank("most", square(filter.halo), (2 * filter.halo + 1) ** 2 - 1)
        largest = most.exact(errors, own, full, False)
        error = largest[..., colours].max(axis=2, keepdims=True)
        opaque = 1.0
        if self._alpha:
            opaque = float(sizes[..., -1:].max()) / full
            reach = most.exact(sizes, size, full, False)[..., colours].max(axis=2, keepdims=True)
            off = 2 * opaque * error + 2 * reach * largest[..., -1:] / full
            carried = error + filter.amplification() * off
        else:
            carried = filter.amplification() * error
        terms = sizes
        for operation in filter.majorant(self._alpha, opaque, signed=True):
            terms = size = operation.exact(terms, size, full, False)
        share = self._unit * filter.roundings(name, self._alpha)
        found: Exact = carried + share * terms + filter.denormals() * DENORMAL
        if self._alpha:
            found[..., -1] = own[..., -1]
        return found

    def _correlated(
        self, filter: Correlation, around: Exact, errors: Exact, values: Exact, own: Exact
    ) -> Exact:
        """Errors after *filter*: what it makes of those of its samples, and its own roundings."""
        full, name = self._full, self._source.dtype.name
        share = self._unit * filter.roundings(name, self._alpha)
        least = filter.denormals() * DENORMAL
        sizes, size = np.abs(around) + errors, np.abs(values) + own
        if not self._alpha:
            most = filter.absolute
            return (
                replace(most, bias=0.0).exact(errors, own, full, False)
                + share * most.exact(sizes, size, full, False)
                + least
            )
        opaque = float(np.nanmax(sizes[..., -1:])) / full
        if filter.alpha == "keep":
            majorant = filter.majorant(True, opaque, True)
            assert majorant is not None
            (most,) = (each for each in majorant if isinstance(each, Correlation))
            share += float(np.nanmax(errors[..., -1:])) / full
            found = replace(most, bias=0.0).exact(errors, own, full, False)
            found += share * most.exact(sizes, size, full, False) + least
            found[..., -1] = own[..., -1]
            return found
        alpha, off = around[..., -1:], errors[..., -1:]
        if not filter.smoothing or (alpha < 0).any() or off[alpha == 0].any():
            return np.full(values.shape, np.inf)
        relative = float(np.nanmax(off / np.where(alpha > 0, alpha, 1.0)))
        # Colours are means: of errors those of the errors, weighed by alpha as they are.
        plain = replace(filter, bias=0.0)
        weighed = np.concatenate([errors[..., :-1], alpha], axis=2)
        weighed_own = np.concatenate([own[..., :-1], values[..., -1:]], axis=2)
        found = plain.exact(weighed, weighed_own, full, True)
        terms = filter.absolute.exact(sizes, size, full, True)
        below = np.maximum(terms[..., -1:], 1e-300)
        found[..., :-1] *= 1 + 4 * relative
        found[..., :-1] += (share + 4 * relative) * (terms[..., :-1] + abs(filter.bias) * full)
        found[..., :-1] += least * (1 + terms[..., :-1]) / np.minimum(below / full, 1.0)
        found[..., :-1][np.broadcast_to(terms[..., -1:] == 0, found[..., :-1].shape)] = 0.0
        found[..., -1:] = (share + relative) * terms[..., -1:] + least
        return found


def _rounded(curve: Levels, shares: Exact, unit: float) -> Exact:
    """Largest error of float32 in a result of *curve*, both as a fraction of full scale.

    Three roundings up to the power's argument, and of the power its exponent's, which counts as
    the logarithm of the argument, four units in the last place, and its factor's.
    """
    power, scale = 1 / curve.gamma, abs(curve.white - curve.black)
    size = np.abs(shares)
    if power == 1:
        return 6 * unit * size + DENORMAL
    logs = np.abs(np.log(np.where(size > 0, size, 1.0)))  # of the result: power times the other
    least = 4 * DENORMAL * max(1.0, min(scale**-power, 1e300))
    most: Exact = unit * (4 * power + 12 + logs) * size + least
    return most


def _exact(step: Stage | Fork, samples: Exact, full: float, alpha: bool) -> Exact:
    assert isinstance(step, Stage)
    result: Exact = step.operation.exact(samples, samples, full, alpha)
    return result


def _is_points(step: Stage | Fork) -> bool:
    return isinstance(step, Stage) and isinstance(step.operation, Points)


def _both(values: Exact, errors: Exact) -> Exact:
    return np.concatenate([values, errors], axis=2)


def _halves(stacked: Exact) -> tuple[Exact, Exact]:
    middle = stacked.shape[2] // 2
    return stacked[..., :middle], stacked[..., middle:]
