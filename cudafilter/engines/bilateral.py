"""The bilateral filter on the CPU: tap by tap over blocks that stay in the cache, in float32.

OpenCV's own takes the sum of absolute differences for the distance of colours, and for floats it
takes weights between those of a table. It has no 16 bits.
"""

from __future__ import annotations

from itertools import groupby, product
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from cudafilter.host.cores import each
from cudafilter.operations.bilateral import Bilateral, Tap
from cudafilter.operations.borders import Border, extract
from cudafilter.operations.correlation import ONE_BY_ONE
from cudafilter.operations.pixels import Pixels, full_scale

BLOCK = (64, 1024)
"""Rows and columns of a block."""

HUGE = 1e18
"""From here on changes, or their products with alpha, may not fit into float32."""

LARGEST = float(np.finfo(np.float32).max)

DEPTHS = {"uint8": cv2.CV_8U, "uint16": cv2.CV_16U, "float32": cv2.CV_32F}

Plane = npt.NDArray[np.float32]


def block_rows(radius: int) -> int:
    """Rows of a block for a window of *radius*."""
    return max(BLOCK[0], 2 * radius)


def bilateral_of(
    pixels: Pixels,
    filter: Bilateral,
    border: Border,
    alpha: bool,
    threads: int | None,
    rows: tuple[int, int] | None = None,
) -> Pixels:
    """*filter* of *pixels*, (H, W, C), or of *rows* of them, by blocks on so many *threads*."""
    height, width, _ = pixels.shape
    radius = filter.radius
    first, last = rows or (0, height)
    down, columns = block_rows(radius), max(BLOCK[1], 2 * radius)
    out = np.empty_like(pixels[first:last])

    def run_block(at: tuple[int, int]) -> None:
        y, x = at
        bottom, right = min(y + down, last), min(x + columns, width)
        block = extract(pixels, (y - radius, bottom + radius), (x - radius, right + radius), border)
        with np.errstate(all="ignore"):  # NaN and infinity are results like others
            out[y - first : bottom - first, x:right] = _of_block(block, filter, alpha)

    places = product(range(first, last, down), range(0, width, columns))
    each(run_block, [*places], threads)
    return out


def _of_block(block: Pixels, filter: Bilateral, alpha: bool) -> Pixels:
    """The result of *block*, (h, w, C), but for its halo."""
    radius = filter.radius
    inner = block[radius : len(block) - radius, radius : block.shape[1] - radius]
    colours = block.shape[2] - alpha
    planes = [np.array(plane, np.float32) for plane in cv2.split(block)]
    finite: Plane | None = None
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        odd = ~np.isfinite(block).all(axis=2)
        finite = np.asarray(~odd, np.float32)
        for plane in planes:
            plane[odd] = 0
    full = full_scale(block.dtype)
    huge = block.dtype.kind == "f" and max(float(np.abs(plane).max()) for plane in planes) > HUGE
    opacity = planes.pop() * np.float32(1 / full) if alpha else None
    unit = np.float32(0.5 if huge else 1)  # the halves' differences fit
    for plane in planes:
        plane *= unit
    sums = _Sums(planes, opacity, finite, filter, full * float(unit), huge)
    sums.add_all()
    done = []
    for c in range(colours):
        change = cv2.divide(sums.changes[c], sums.weights, scale=1 / float(unit))
        own = inner[..., c]
        if block.dtype.kind == "u":
            own = planes[c][radius : radius + len(inner), radius : radius + inner.shape[1]]
        # Integers are rounded half to even, and clamped.
        done.append(cv2.add(change, own, dtype=DEPTHS[block.dtype.name]))
    if alpha:
        done.append(inner[..., -1])
    out = cv2.merge(done).reshape(inner.shape)
    if finite is not None:
        lost = ~np.isfinite(inner).all(axis=2)
        out[lost] = inner[lost]
    return cast(Pixels, out)


class _Sums:
    """The sums over the window of each pixel of a block but for its halo.

    Without alpha two pixels count for each other alike, so the weight of each pair is found once.
    """

    def __init__(
        self,
        planes: list[Plane],
        opacity: Plane | None,
        finite: Plane | None,
        filter: Bilateral,
        full: float,
        huge: bool,
    ) -> None:
        self._planes, self._opacity, self._finite = planes, opacity, finite
        self._filter, self._huge = filter, huge
        self._factor = -0.5 / (filter.range * full) ** 2
        self._shape = tuple(side - 2 * filter.radius for side in planes[0].shape)
        self._room = [np.empty(planes[0].size, np.float32) for _ in range(len(planes) + 2)]
        self.changes = [np.zeros(self._shape, np.float32) for _ in planes]
        self.weights: Plane = np.ones(self._shape, np.float32)

    def add_all(self) -> None:
        """Add all taps: of large windows row by row, so that rounding errors stay small."""
        pairs = self._opacity is None
        taps = [tap for tap in self._filter.taps if not pairs or (tap.y, tap.x) > (0, 0)]
        # What pixels get from those before them, the other way round.
        before = [np.zeros(self._shape, np.float32) for _ in self.changes] if pairs else []
        totals = [*self.changes, *before, self.weights]
        by_rows = len(self._filter.taps) > ONE_BY_ONE
        sums = [np.empty_like(total) for total in totals] if by_rows else totals
        for _, row in groupby(taps, lambda tap: tap.y):
            if by_rows:
                for part in sums:
                    part.fill(0)
            for tap in row:
                self._add(tap, sums, pairs)
            if by_rows:
                for total, part in zip(totals, sums, strict=True):
                    cv2.accumulate(part, total)
        for change, other in zip(self.changes, before, strict=pairs):
            change -= other

    def _add(self, tap: Tap, sums: list[Plane], pair: bool) -> None:
        """Add *tap* to *sums*: those of changes, of a *pair* from the other side, of weights."""
        (y, x, exponent), (height, width), radius = tap, self._shape, self._filter.radius
        # With a pair all pixels that are of the block, or whose tap is.
        top, left = (radius - y, radius - max(x, 0)) if pair else (radius, radius)
        right = radius + width - (min(x, 0) if pair else 0)
        own = slice(top, radius + height), slice(left, right)
        there = slice(top + y, radius + height + y), slice(left + x, right + x)
        shape = radius + height - top, right - left
        *changes, squares, product = (
            room[: shape[0] * shape[1]].reshape(shape) for room in self._room
        )
        for c, (plane, change) in enumerate(zip(self._planes, changes, strict=True)):
            cv2.subtract(plane[there], plane[own], change)
            if self._opacity is not None:
                change *= self._opacity[there]
                if self._huge:
                    np.clip(change, -LARGEST, LARGEST, out=change)
            cv2.multiply(change, change, product if c else squares, self._factor)
            if c:
                squares += product
        weight: Plane = np.add(squares, np.float32(exponent), out=squares)
        cv2.exp(weight, weight)
        if self._finite is not None:
            weight *= self._finite[own]
            weight *= self._finite[there]
        ahead = slice(radius - top, None), slice(radius - left, radius - left + width)
        self._sum(changes, weight, ahead, sums[: len(changes)], sums[-1])
        if pair:
            behind = slice(0, height), slice(radius - left - x, radius - left - x + width)
            self._sum(changes, weight, behind, sums[len(changes) : -1], sums[-1])

    @staticmethod
    def _sum(
        changes: list[Plane],
        weight: Plane,
        part: tuple[slice, slice],
        sums: list[Plane],
        weights: Plane,
    ) -> None:
        """Add *part* of *changes*, each times its weight, to *sums*, and of weights."""
        cv2.accumulate(weight[part], weights)
        for change, total in zip(changes, sums, strict=True):
            cv2.accumulateProduct(change[part], weight[part], total)
