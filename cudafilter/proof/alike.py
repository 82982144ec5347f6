"""The bilateral filter's values for some rows at a time, tap by tap, and their bound.

Of bytes in float32, which holds their differences and the squares of these; of 16 bits in float64.
"""

from __future__ import annotations

import math
from itertools import groupby

import numpy as np

from cudafilter.operations.bilateral import Bilateral
from cudafilter.operations.borders import Border
from cudafilter.operations.pixels import Pixels, full_scale
from cudafilter.proof.planes import Image, Planes
from cudafilter.proof.sums import UNIT
from cudafilter.proof.values import Values

BLOCK = 1 << 15
"""Pixels at a time: what is worked on stays in the cache."""

ROWS = 64
"""Rows at a time: the windows of fewer would reach into as many others again."""

LEAST_RANGE = 1e-12

EXPONENTIAL = 8.0
"""Largest error of NumPy's exponential, in roundings: four units in the last place, where it tells
of 2.52 at most."""


class Alike:
    """The values of *filter* on *source*, (H, W, C) of integers."""

    step = ROWS

    def __init__(self, source: Pixels, filter: Bilateral, border: Border, alpha: bool) -> None:
        self._image, self._filter, self._alpha = Image(source, border), filter, alpha
        self._full = full_scale(source.dtype)
        # A range of nearly nothing makes exponents that float32 has not.
        single = source.dtype == np.uint8 and filter.range > LEAST_RANGE
        self._work = np.dtype(np.float32 if single else np.float64)
        # The definition's own errors are those of double.
        self.bound = self._bound(2.0**-24 if single else UNIT) + self._bound(UNIT)

    def _bound(self, unit: float) -> float:
        """How far a value may be off that is found with roundings of *unit*.

        Of the result ``c + sum(w d) / sum(w)``: a change d has 3 roundings where there is alpha, a
        weight those of the exponential and of its exponent x, and each sum one for each tap of a
        row and for each row. Since ``|d| <= range * sqrt(2 x)``, means of these by the weights are
        no larger than most() has it.
        """
        filter, taps = self._filter, len(self._filter.taps)
        exponent = 8.0 if self._alpha else 4.0
        sums = 2 * (2 * (2 * filter.radius + 1) + 2) + 2 * EXPONENTIAL + 8
        size = filter.range * self._full * math.sqrt(2)
        change = size * most(0.5, taps)
        exponents = exponent * (size * most(1.5, taps) + change * most(1.0, taps))
        # A little more: products of errors, and weights below float32's least.
        return 1.01 * unit * (sums * change + exponents + 2 * self._full)

    def rows(self, first: int, last: int) -> Values:
        """The values of rows *first* to *last* - 1."""
        radius, width = self._filter.radius, self._image.width
        rows, columns = (first - radius, last + radius), (-radius, width + radius)
        block = self._image.padded(rows, columns).transpose(1, 0, 2).astype(self._work)
        opaque = block[-1] / self._work.type(self._full) if self._alpha else None
        colours = block[: len(block) - self._alpha]
        out = np.empty((last - first, len(block), width))
        if self._alpha:
            out[:, -1] = block[-1, radius : len(block[-1]) - radius, radius : radius + width]
        each = max(1, min(BLOCK, width))
        step = max(1, BLOCK // each)
        for y in range(0, last - first, step):
            end = min(y + step, last - first)
            for x in range(0, width, each):
                stop = min(x + each, width)
                part = self._means(colours, opaque, (y, end), (x, stop))
                out[y:end, : len(colours), x:stop] = part.transpose(1, 0, 2)
        return Values(out, self.bound)

    def _means(
        self,
        colours: Planes,
        opaque: Planes | None,
        rows: tuple[int, int],
        columns: tuple[int, int],
    ) -> Planes:
        """The colours of a block, (channels, rows, columns); *colours* have the halo."""
        number, radius, filter = self._work.type, self._filter.radius, self._filter
        (top, bottom), (left, right) = rows, columns

        def at(planes: Planes, y: int, x: int) -> Planes:
            down = slice(radius + y + top, radius + y + bottom)
            return planes[..., down, radius + x + left : radius + x + right]

        own = np.ascontiguousarray(at(colours, 0, 0))
        sums, change, square = np.zeros_like(own), np.empty_like(own), np.empty_like(own)
        weights, weight = np.ones(own.shape[1:], self._work), np.empty(own.shape[1:], self._work)
        factor = number(-0.5 / (filter.range * self._full) ** 2)
        line, lines = np.empty_like(own), np.empty_like(weights)
        for y, taps in groupby(filter.taps, lambda tap: tap.y):
            line[:], lines[:] = 0, 0
            for _, x, near in taps:
                np.subtract(at(colours, y, x), own, out=change)
                if opaque is not None:
                    change *= at(opaque, y, x)
                np.multiply(change, change, out=square)
                np.add.reduce(square, axis=0, out=weight)
                weight *= factor
                weight += number(near)
                np.exp(weight, out=weight)
                lines += weight
                change *= weight
                line += change
            weights += lines
            sums += line
        sums /= weights
        means: Planes = own.astype(np.float64) + sums
        return means


def most(power: float, taps: int) -> float:
    """The largest mean of ``x**power`` by weights ``exp(-x)`` of so many *taps* and the own of 1.

    It is largest where all are alike, as their derivative is the same at one x only. Found to a
    part in a thousand.
    """
    x = np.linspace(0, 64, 1 << 16)
    weights = taps * np.exp(-x)
    return 1.001 * float((weights * x**power / (1 + weights)).max())
