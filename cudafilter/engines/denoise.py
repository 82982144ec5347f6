"""Non-local means on the CPU.

OpenCV's own has weights from a table of 8 bits, and of 16 bits only distances by absolute
differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np

from cudafilter.engines.weighed import LARGEST, Block, Part, Plane, Sums, exponential
from cudafilter.operations.denoise import Denoise
from cudafilter.operations.weighed import Weighed


class DenoiseSums(Sums):
    """See Sums. Squares are added up anew for each patch: running sums would lose small ones."""

    def __init__(self, block: Block, filter: Weighed) -> None:
        super().__init__(block, filter)
        self._filter = cast(Denoise, filter)
        self.margin = self._filter.patch // 2
        self._ones = np.ones(self._filter.patch, np.float32)
        colours = len(block.planes)
        self._factor = self._filter.factor(colours, block.full * block.unit)
        self._of_alpha = self._filter.factor(colours, block.full)

    @property
    def pairs(self) -> bool:
        """See Sums.pairs."""
        return True

    @property
    def taps(self) -> Sequence[tuple[int, int]]:
        """See Sums.taps."""
        return self._filter.shifts

    def weigh(
        self, tap: tuple[int, int], own: Part, there: Part, changes: list[Plane], rooms: list[Plane]
    ) -> tuple[Plane, list[Plane]]:
        """See Sums.weigh."""
        block, opacity, back = self.block, self._opacity, changes
        squares, product = rooms
        if opacity is not None:
            back = [change * opacity[own] for change in changes]
            for change, other in zip(changes, back, strict=True):
                change *= opacity[there]
                if block.huge:
                    for side in (change, other):
                        np.clip(side, -LARGEST, LARGEST, out=side)
        for c, (change, other) in enumerate(zip(changes, back, strict=True)):
            part = product if c else squares
            cv2.multiply(change, other, part, self._factor)
            if opacity is not None:  # of alphas below 0
                np.negative(np.abs(part, out=part), out=part)
                if block.huge:
                    np.fmin(part, 0, out=part)  # 0 times infinity
            if c:
                squares += product
        if block.alpha is not None:
            cv2.subtract(block.alpha[own], block.alpha[there], product)
            cv2.multiply(product, product, product, self._of_alpha)
            squares += product
        if block.finite is not None:
            counted = block.finite[own] * block.finite[there]
            squares *= counted
            if block.huge:
                np.fmin(squares, 0, out=squares)
        # What lies outside reaches the margin only.
        weight = cast(Plane, cv2.sepFilter2D(squares, cv2.CV_32F, self._ones, self._ones))
        exponential(weight, block.floats)
        if block.finite is not None:
            weight *= counted
        return weight, back
