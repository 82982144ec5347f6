"""The bilateral filter on the CPU.

OpenCV's own takes the sum of absolute differences for the distance of colours, and for floats it
takes weights between those of a table. It has no 16 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np

from cudafilter.engines.weighed import LARGEST, Block, Part, Plane, Sums, exponential
from cudafilter.operations.bilateral import Bilateral, Tap
from cudafilter.operations.weighed import Weighed


class BilateralSums(Sums):
    """See Sums. Changes are what weights are found from, and alpha changes only one of a pair."""

    def __init__(self, block: Block, filter: Weighed) -> None:
        super().__init__(block, filter)
        self._filter = cast(Bilateral, filter)
        self._factor = -0.5 / (self._filter.range * block.full * block.unit) ** 2

    @property
    def pairs(self) -> bool:
        """See Sums.pairs."""
        return self.block.alpha is None

    @property
    def taps(self) -> Sequence[Tap]:
        """See Sums.taps."""
        return self._filter.taps

    def weigh(
        self, tap: Tap, own: Part, there: Part, changes: list[Plane], rooms: list[Plane]
    ) -> tuple[Plane, list[Plane]]:
        """See Sums.weigh."""
        squares, product = rooms
        for c, change in enumerate(changes):
            if self._opacity is not None:
                change *= self._opacity[there]
                if self.block.huge:
                    np.clip(change, -LARGEST, LARGEST, out=change)
            cv2.multiply(change, change, product if c else squares, self._factor)
            if c:
                squares += product
        weight: Plane = np.add(squares, np.float32(tap.exponent), out=squares)
        exponential(weight, self.block.floats)
        if self.block.finite is not None:
            weight *= self.block.finite[own]
            weight *= self.block.finite[there]
        return weight, changes
