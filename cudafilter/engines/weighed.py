"""Means of what is alike on the CPU: tap by tap over blocks that stay in the cache, in float32."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import groupby, product
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from cudafilter.host.cores import each
from cudafilter.operations.borders import Border, extract
from cudafilter.operations.correlation import ONE_BY_ONE
from cudafilter.operations.pixels import Pixels, full_scale
from cudafilter.operations.weighed import Weighed

BLOCK = (64, 1024)
"""Rows and columns of a block."""

HUGE = 1e18
"""From here on changes, or their products with alpha, may not fit into float32."""

LARGEST = float(np.finfo(np.float32).max)

LEAST_EXPONENT = -87.0
"""Of weights that count: exp(-87.3) is the least normal float32."""

DEPTHS = {"uint8": cv2.CV_8U, "uint16": cv2.CV_16U, "float32": cv2.CV_32F}

Plane = npt.NDArray[np.float32]


class Block(NamedTuple):
    """A block of pixels with its halo, plane by plane."""

    planes: list[Plane]
    """Its colours."""
    alpha: Plane | None
    """In native units; None where there is none."""
    finite: Plane | None
    """1 where a pixel is finite, or 0, and then its samples are 0; None: all are."""
    full: float
    """White, in native units."""
    unit: float
    """What colours are multiplied by, so that their changes fit into float32."""
    floats: bool
    huge: bool
    """Whether products of changes may not fit all the same."""


Part = tuple[slice, slice]

Tap = Any
"""Where a pixel lies below and right of the middle, and what else its weight depends on."""


def exponential(of: Plane, floats: bool) -> None:
    """``exp`` of *of*, in place, none above 0; 0 where that is less than the least normal float.

    OpenCV takes twenty times as long for what is less. Such a weight changes no integer, so only
    *floats* want 0 there.
    """
    np.clip(of, LEAST_EXPONENT, 0, out=of)
    cv2.exp(of, of)
    if floats:
        cv2.threshold(of, 1.01 * math.exp(LEAST_EXPONENT), 0, cv2.THRESH_TOZERO, of)


def block_rows(halo: int) -> int:
    """Rows of a block with *halo* pixels around."""
    return max(BLOCK[0], 2 * halo)


def weighed_of(
    kind: type[Sums],
    pixels: Pixels,
    filter: Weighed,
    border: Border,
    alpha: bool,
    threads: int | None,
    rows: tuple[int, int] | None = None,
) -> Pixels:
    """*filter* of *pixels*, (H, W, C), or of *rows* of them, by blocks on so many *threads*.

    *kind* finds its sums.
    """
    height, width, _ = pixels.shape
    halo = filter.halo
    first, last = rows or (0, height)
    down, columns = block_rows(halo), max(BLOCK[1], 2 * halo)
    out = np.empty_like(pixels[first:last])

    def run_block(at: tuple[int, int]) -> None:
        y, x = at
        bottom, right = min(y + down, last), min(x + columns, width)
        block = extract(pixels, (y - halo, bottom + halo), (x - halo, right + halo), border)
        with np.errstate(all="ignore"):  # NaN and infinity are results like others
            out[y - first : bottom - first, x:right] = _of_block(kind, block, filter, alpha)

    places = product(range(first, last, down), range(0, width, columns))
    each(run_block, [*places], threads)
    return out


def _of_block(kind: type[Sums], block: Pixels, filter: Weighed, alpha: bool) -> Pixels:
    """The result of *block*, (h, w, C), but for its halo."""
    halo = filter.halo
    inner = block[halo : len(block) - halo, halo : block.shape[1] - halo]
    colours = block.shape[2] - alpha
    planes = [np.array(plane, np.float32) for plane in cv2.split(block)]
    finite: Plane | None = None
    floats = block.dtype.kind == "f"
    if floats and not np.isfinite(block).all():
        odd = ~np.isfinite(block).all(axis=2)
        finite = np.asarray(~odd, np.float32)
        for plane in planes:
            plane[odd] = 0
    full = full_scale(block.dtype)
    huge = floats and max(float(np.abs(plane).max()) for plane in planes) > HUGE
    opacity = planes.pop() if alpha else None
    unit = np.float32(0.5 if huge else 1)  # the halves' differences fit
    for plane in planes:
        plane *= unit
    sums = kind(Block(planes, opacity, finite, full, float(unit), floats, huge), filter)
    sums.add_all()
    done = []
    for c in range(colours):
        change = cv2.divide(sums.changes[c], sums.weights, scale=1 / float(unit))
        own = inner[..., c]
        if not floats:
            own = planes[c][halo : halo + len(inner), halo : halo + inner.shape[1]]
        # Integers are rounded half to even, and clamped.
        done.append(cv2.add(change, own, dtype=DEPTHS[block.dtype.name]))
    if alpha:
        done.append(inner[..., -1])
    out = cv2.merge(done).reshape(inner.shape)
    if finite is not None:
        lost = ~np.isfinite(inner).all(axis=2)
        out[lost] = inner[lost]
    return cast(Pixels, out)


class Sums(ABC):
    """The sums over the window of each pixel of a block but for its halo.

    Two pixels weigh each other alike where ``pairs`` says so. Then the weight of each pair is found
    once.
    """

    margin = 0
    """Pixels around a pair that its weight depends on."""

    def __init__(self, block: Block, filter: Weighed) -> None:
        self.block, self._halo = block, filter.halo
        self._opacity = None if block.alpha is None else block.alpha * np.float32(1 / block.full)
        self._shape = tuple(side - 2 * filter.halo for side in block.planes[0].shape)
        self._by_rows = filter.others > ONE_BY_ONE
        size = block.planes[0].size
        self._room = [np.empty(size, np.float32) for _ in range(len(block.planes) + 2)]
        self.changes = [np.zeros(self._shape, np.float32) for _ in block.planes]
        self.weights: Plane = np.ones(self._shape, np.float32)

    @property
    @abstractmethod
    def pairs(self) -> bool:
        """Whether each pair of pixels is looked at once."""

    @property
    @abstractmethod
    def taps(self) -> Sequence[Tap]:
        """The window without its middle, row by row, each symmetric to another."""

    @abstractmethod
    def weigh(
        self, tap: Tap, own: Part, there: Part, changes: list[Plane], rooms: list[Plane]
    ) -> tuple[Plane, list[Plane]]:
        """Weights of pixels *own* with those *there*, and changes from the other side, negated.

        *changes* are what colours differ by, and become what they count by. All have a ``margin``
        around, where weights may be anything. *rooms* are two to work in.
        """

    def add_all(self) -> None:
        """Add all taps: of large windows row by row, so that rounding errors stay small."""
        taps = [tap for tap in self.taps if not self.pairs or tap[:2] > (0, 0)]
        # What pixels get from those before them, the other way round.
        before = [np.zeros(self._shape, np.float32) for _ in self.changes] if self.pairs else []
        totals = [*self.changes, *before, self.weights]
        sums = [np.empty_like(total) for total in totals] if self._by_rows else totals
        for _, row in groupby(taps, lambda tap: tap[0]):
            if self._by_rows:
                for part in sums:
                    part.fill(0)
            for tap in row:
                self._add(tap, sums)
            if self._by_rows:
                for total, part in zip(totals, sums, strict=True):
                    cv2.accumulate(part, total)
        for change, other in zip(self.changes, before, strict=self.pairs):
            change -= other

    def _add(self, tap: Tap, sums: list[Plane]) -> None:
        """Add *tap* to *sums*: those of changes, of a pair from the other side, of weights."""
        (y, x), (height, width), halo, margin = tap[:2], self._shape, self._halo, self.margin
        # With a pair all pixels that are of the block, or whose tap is.
        top, left = (halo - y, halo - max(x, 0)) if self.pairs else (halo, halo)
        right = halo + width - (min(x, 0) if self.pairs else 0)
        rows = slice(top - margin, halo + height + margin)
        columns = slice(left - margin, right + margin)
        own = rows, columns
        there = slice(rows.start + y, rows.stop + y), slice(columns.start + x, columns.stop + x)
        shape = rows.stop - rows.start, columns.stop - columns.start
        *changes, first, second = (
            room[: shape[0] * shape[1]].reshape(shape) for room in self._room
        )
        for plane, change in zip(self.block.planes, changes, strict=True):
            cv2.subtract(plane[there], plane[own], change)
        weight, back = self.weigh(tap, own, there, changes, [first, second])
        count, down, across = len(changes), margin + halo - top, margin + halo - left
        ahead = slice(down, down + height), slice(across, across + width)
        self._sum(changes, weight, ahead, sums[:count], sums[-1])
        if self.pairs:
            behind = (
                slice(down - y, down - y + height), slice(across - x, across - x + width)
            )  # fmt: skip
            self._sum(back, weight, behind, sums[count:-1], sums[-1])

    @staticmethod
    def _sum(
        changes: list[Plane], weight: Plane, part: Part, sums: list[Plane], weights: Plane
    ) -> None:
        """Add *part* of *changes*, each times its weight, to *sums*, and of weights."""
        cv2.accumulate(weight[part], weights)
        for change, total in zip(changes, sums, strict=True):
            cv2.accumulateProduct(change[part], weight[part], total)
