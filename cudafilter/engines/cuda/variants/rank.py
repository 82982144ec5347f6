"""Launches of rank.cu: any rank of any window."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.variants.ranks import pick, rank_macros, rank_task
from cudafilter.engines.cuda.variants.task import Launch, Layout, in_pairs, takes
from cudafilter.engines.cuda.variants.tiles import Tiles, tile_macros
from cudafilter.operations.rank import Rank, dilation, erosion, median
from cudafilter.operations.window import Window, square

PASSES = {"uint8": 4, "uint16": 8, "float32": 16, "float64": 32}
"""Times that a thread goes through its window for a rank that is no extreme."""

COST, COST_EXTREME = 4, 2
"""A sample of the window in one pass, in instructions of network.cu that compare: estimates."""


@dataclass(frozen=True, eq=False)
class Plain(Tiles):
    """A thread a pixel."""

    weights_in_constant_memory: ClassVar[bool] = False


@takes(Rank)
def plan(rank: Rank, layout: Layout) -> Launch:
    """The launch of *rank*; there is none that rank.cu does not take."""
    threads, tile = (32, 8, 1), (32, 8)
    macros = rank_macros(layout) | tile_macros(threads, tile) | {"PICK": pick(rank)}
    cost = rank.window.count * (COST_EXTREME if pick(rank) else COST * PASSES[layout.dtype])
    numbers = partial(numbers_of, rank.window, layout)
    return Plain("rank", macros, numbers, rank_task(rank, layout), cost, threads, tile)


def numbers_of(window: Window, layout: Layout) -> npt.NDArray[np.floating]:
    """The runs of *window*; of doubles behind what lies outside, as two floats."""
    if layout.dtype != "float64":
        return runs(window)
    return np.concatenate([in_pairs(np.array([layout.border.sample(layout.dtype)])), runs(window)])


def runs(window: Window) -> npt.NDArray[np.float64]:
    """(row, first column, end) of all neighbours that count, and a row of -1; flat."""
    sides = np.pad(window.mask, ((0, 0), (1, 1))).astype(np.int8)
    changes = np.diff(sides, axis=1)
    rows, begins = np.nonzero(changes == 1)
    ends = np.nonzero(changes == -1)[1]
    return np.append(np.stack([rows, begins, ends], axis=1).ravel(), -1).astype(np.float64)


def hardest() -> list[Rank]:
    """One for each PICK; no window needs more registers than another."""
    return [median(), erosion(square(1)), dilation(square(1))]
