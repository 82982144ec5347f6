"""Launches of double.cu: any correlation of integers, or inside a chain, in double."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.variants.task import (
    Launch,
    Layout,
    Weights,
    defines_of,
    flat,
    in_pairs,
    takes,
    task_of,
)
from cudafilter.engines.cuda.variants.tiles import Tiles, every_kind, tile_macros
from cudafilter.errors import LimitError
from cudafilter.operations.correlation import Correlation

COST = 80
"""A tap, in those of ``stream``: not measured, and more than any other variant's."""

hardest = every_kind


@dataclass(frozen=True, eq=False)
class Double(Tiles):
    """A thread a pixel."""

    weights_in_constant_memory: ClassVar[bool] = False

    @cached_property
    def weights(self) -> Weights:
        """The doubles that the kernel reads, each as two floats."""
        return in_pairs(self.make_weights())


@takes(Correlation)
def plan(filter: Correlation, layout: Layout) -> Launch | LimitError:
    """The launch of *filter*, or why there is none."""
    if layout.dtype == "float32":
        return LimitError(
            "the double kernel is for integers; a float32 image gains nothing by it",
            hint="use --variant auto",
        )

    def numbers() -> npt.NDArray[np.floating]:
        full = layout.full
        sums = [kernel.sum for kernel in filter.kernels] + [0.0]
        gains = filter.gain, filter.source_gain, filter.bias * full, filter.threshold * full
        outside = [layout.border.sample(layout.dtype)]
        return np.concatenate([gains, sums[:2], outside, flat(filter, factored=False)])

    rows, columns = filter.size
    threads, tile = (32, 8, 1), (32, 8)
    return Double(
        "double", defines_of(filter, layout) | tile_macros(threads, tile), numbers,
        task_of(filter, layout), COST * len(filter.kernels) * rows * columns, threads, tile,
    )  # fmt: skip
