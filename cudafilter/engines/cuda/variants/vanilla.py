"""Launches of vanilla.cu: any kernel, its weights in global memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from cudafilter.engines.cuda.variants.task import Launch, Layout, defines_of, flat, takes, task_of
from cudafilter.engines.cuda.variants.tiles import Tiles, every_kind, tile_macros
from cudafilter.operations.correlation import Correlation

COST = 40
"""Cost of a tap, in taps of ``stream``: 7x7 on float32 takes 4.91 ms on an H100."""

hardest = every_kind


@dataclass(frozen=True, eq=False)
class Vanilla(Tiles):
    """A thread a pixel."""

    weights_in_constant_memory: ClassVar[bool] = False


@takes(Correlation)
def plan(filter: Correlation, layout: Layout) -> Launch:
    """The launch of *filter*; vanilla.cu takes every correlation."""
    rows, columns = filter.size
    cost = COST * len(filter.kernels) * rows * columns
    threads, tile = (32, 8, 1), (32, 8)
    defines, task = defines_of(filter, layout), task_of(filter, layout)
    return Vanilla(
        "vanilla", defines | tile_macros(threads, tile), partial(flat, filter, factored=False),
        task, cost, threads, tile,
    )  # fmt: skip
