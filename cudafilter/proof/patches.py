"""Non-local means pair by pair: what two pixels weigh for each other is found once.

Distances have the definition's bits but for sums in another order, which are whole numbers where
the image has no alpha and is no float.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from cudafilter.operations.borders import Border
from cudafilter.operations.denoise import Denoise
from cudafilter.operations.pixels import Exact, Pixels, full_scale, largest_finite
from cudafilter.operations.weighed import Terms, mean_exponent
from cudafilter.proof.planes import Image, Planes
from cudafilter.proof.sums import UNIT
from cudafilter.proof.values import Values

BLOCK = (64, 256)
"""Rows and columns at a time: what a pair needs stays in the cache."""


class Patches:
    """Some rows of an image after *filter*, or the size of its terms."""

    step = BLOCK[0]

    def __init__(self, source: Pixels, filter: Denoise, border: Border, alpha: bool) -> None:
        self._source, self._filter, self._alpha = source, filter, alpha
        self._image = Image(source, border)
        self._full = full_scale(source.dtype)
        self._terms = isinstance(filter, Terms)
        self._most = mean_exponent(filter.others)
        outside = abs(border.sample(source.dtype))
        largest = max(largest_finite(source), outside)
        change = 2 * largest * (max(1.0, largest / self._full) if alpha else 1.0)
        # Both sides round each addition, and each sum of squares, which counts as the exponent.
        roundings = 2 * (filter.others + 8) + 8 * (filter.patch + 4) * self._most
        self._bound = UNIT * (largest + (8 if self._terms else 1) * roundings * change)

    def rows(self, first: int, last: int) -> Values:
        """The values of rows *first* to *last* - 1."""
        width = self._image.width
        out = np.empty((last - first, self._image.channels, width))
        for y, x in product(range(first, last, BLOCK[0]), range(0, width, BLOCK[1])):
            rows, columns = (y, min(y + BLOCK[0], last)), (x, min(x + BLOCK[1], width))
            out[rows[0] - first : rows[1] - first, :, slice(*columns)] = self._block(rows, columns)
        return Values(out, self._bound)

    def _block(self, rows: tuple[int, int], columns: tuple[int, int]) -> Planes:
        halo = self._filter.halo
        block = self._image.padded(
            (rows[0] - halo, rows[1] + halo), (columns[0] - halo, columns[1] + halo)
        )
        planes = np.ascontiguousarray(block.swapaxes(0, 1), np.float64)
        finite: Exact | None = None
        if block.dtype.kind == "f" and not np.isfinite(planes).all():
            finite = np.asarray(np.isfinite(planes).all(axis=0), np.float64)
            planes[:, finite == 0] = 0
        found = _Pairs(planes, finite, self._filter, self._full, self._alpha).result()
        if finite is not None:
            own = self._source[slice(*rows), slice(*columns)].transpose(2, 0, 1)
            lost = ~np.isfinite(own).all(axis=0)
            found[:, lost] = own[:, lost]
        return found.swapaxes(0, 1)


class _Pairs:
    """The sums of a block of *planes*, (channels, rows, columns), halo included."""

    def __init__(
        self,
        planes: Exact,
        finite: Exact | None,
        filter: Denoise,
        full: float,
        alpha: bool,
    ) -> None:
        self._filter, self._finite = filter, finite
        self._colours = planes[: len(planes) - alpha]
        self._alpha = planes[-1] if alpha else None
        self._opacity = planes[-1] / full if alpha else None
        self._factor = filter.factor(len(self._colours), full)
        self._most = mean_exponent(filter.others)
        halo = filter.halo
        height, width = (side - 2 * halo for side in planes.shape[1:])
        self._size = height, width
        self._own = planes[:, halo : halo + height, halo : halo + width]
        self._weights = np.ones(self._size)
        self._sums = np.zeros((len(self._colours), *self._size))
        self._sizes = np.zeros_like(self._sums) if isinstance(filter, Terms) else None
        self._room = [np.empty(planes[0].size) for _ in range(2 + 2 * len(self._colours))]

    def result(self) -> Exact:
        """(channels, h, w)."""
        for y, x in self._filter.shifts:
            if (y, x) > (0, 0):
                self._add(y, x)
        own = self._own[: len(self._colours)]
        if self._sizes is None:
            out = own + self._sums / self._weights
        else:
            out = np.abs(own) + (self._sizes + 2 * np.abs(self._sums)) / self._weights
        return out if self._alpha is None else np.concatenate([out, self._own[-1:]])

    def _add(self, y: int, x: int) -> None:
        """Add each pixel to the one *y* rows above and *x* columns left of it, and that to it."""
        (height, width), margin, halo = self._size, self._filter.patch // 2, self._filter.halo
        # All pixels that are of the block, or whose other one is.
        top, left = halo - y, halo - max(x, 0)
        tall, wide = height + y, width + abs(x)
        own = slice(top - margin, top + tall + margin), slice(left - margin, left + wide + margin)
        there = tuple(slice(s.start + by, s.stop + by) for s, by in zip(own, (y, x), strict=True))
        shape = tall + 2 * margin, wide + 2 * margin
        squares, product, *rooms = (
            room[: shape[0] * shape[1]].reshape(shape) for room in self._room
        )
        changes, backs = rooms[: len(self._colours)], rooms[len(self._colours) :]
        for c, (plane, change) in enumerate(zip(self._colours, changes, strict=True)):
            np.subtract(plane[there], plane[own], out=change)
            np.multiply(change, change, out=product if c else squares)
            if c:
                squares += product
        if self._alpha is not None and self._opacity is not None:
            np.multiply(self._opacity[there], self._opacity[own], out=product)
            squares *= np.abs(product, out=product)
            np.subtract(self._alpha[there], self._alpha[own], out=product)
            squares += np.multiply(product, product, out=product)
            for change, back in zip(changes, backs, strict=True):
                np.multiply(change, self._opacity[own], out=back)
                change *= self._opacity[there]
        else:
            backs = changes
        if self._finite is not None:
            np.multiply(self._finite[own], self._finite[there], out=product)
            squares *= product
        inner = slice(margin, margin + tall), slice(margin, margin + wide)
        sums = _windows(squares.ravel(), self._filter.patch, shape[1])
        sums = _windows(sums, self._filter.patch, 1).reshape(shape)
        weight = sums[:tall, :wide]
        weight *= self._factor
        grow = None if self._sizes is None else 1 - weight / self._most
        np.exp(weight, out=weight)
        if self._finite is not None:
            weight *= product[inner]
        scaled = self._room[0][: height * width].reshape(height, width)
        ahead = slice(y, y + height), slice(max(x, 0), max(x, 0) + width)
        behind = slice(0, height), slice(max(-x, 0), max(-x, 0) + width)
        for sign, part, moved in ((1, ahead, changes), (-1, behind, backs)):
            self._weights += weight[part]
            for c, change in enumerate(moved):
                np.multiply(change[inner][part], weight[part], out=scaled)
                if sign > 0:
                    self._sums[c] += scaled
                else:
                    self._sums[c] -= scaled
                if self._sizes is not None and grow is not None:
                    self._sizes[c] += np.abs(scaled) * grow[part]


def _windows(samples: Exact, side: int, step: int) -> Exact:
    """The sum of each of *samples* and the *side* - 1 that follow, so many *step* samples apart.

    In one dimension; the last ones lack some of these. Made of sums of 1, 2, 4, 8 samples.
    """
    total, start, power, part = np.zeros(len(samples)), 0, 1, samples
    while True:
        if side & power:
            rest = part[start * step :]
            total[: len(rest)] += rest
            start += power
        power *= 2
        if power > side:
            return total
        part = part[: -(power // 2) * step] + part[power // 2 * step :]
