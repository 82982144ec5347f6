"""Launches of histogram.cu: ranks of rectangles on 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cudafilter.engines.cuda.variants.ranks import rank_macros, rank_task
from cudafilter.engines.cuda.variants.stream import rows_a_block
from cudafilter.engines.cuda.variants.task import SHARED_BYTES, Launch, Layout, Pass, Task, takes
from cudafilter.errors import LimitError
from cudafilter.operations.rank import Rank, median

MOST_WARPS = 4
"""Warps that share a strip."""

COLUMN_BYTES, WARP_BYTES = 256 + 8 + 2, 512 + 512 + 128
"""Shared memory of a column of a strip, and of a warp."""

MOST_ROWS = 255
"""Of a window: a column's counts have 8 bits. Those of a window have 16, enough for its columns."""

START = 1 / 8
"""What a row of the first window costs, in rows of output."""

COST = 900
"""A sample, in instructions of network.cu that compare: an estimate."""


@dataclass(frozen=True, eq=False)
class Histogram(Launch):
    """A launch of one block a strip and channel."""

    def _passes(self, task: Task, resident: int) -> list[Pass]:
        strips = -(-task.width // (32 * self.warps))
        across = strips * self.channels
        start = int(START * (task.kernel_height - 1))
        task.rows = rows_a_block(start, task.height, across, resident)
        task.blocks_x = strips
        return [self._pass(task, across * -(-task.height // task.rows))]


@takes(Rank)
def plan(rank: Rank, layout: Layout) -> Launch | LimitError:
    """The launch of *rank*, or why there is none."""
    rows, columns = rank.window.shape
    warps = most_warps(columns)
    masked = rank.window.inside is not None
    if layout.dtype != "uint8" or masked or rows > MOST_ROWS or not warps:
        masks = " with a mask" if masked else ""
        return LimitError(
            f"the histogram kernel takes 8 bits and rectangles of at most {MOST_ROWS} rows,"
            f" as many columns as shared memory holds; {rank.name}'s window is"
            f" {columns}x{rows}{masks} and the samples are {layout.dtype}",
            hint="use --variant auto",
        )
    own = {"WARPS": warps, "SPAN": span(columns, warps)}
    return Histogram(
        "histogram", rank_macros(layout) | own, lambda: np.empty(0), rank_task(rank, layout), COST
    )


def hardest() -> list[Rank]:
    """A window for each number of warps."""
    return [median(7), median(25), median(45), median(60)]


def most_warps(columns: int) -> int:
    """Warps of a strip for windows of so many columns; 0 where not even one has room."""
    for warps in range(MOST_WARPS, 0, -1):
        if span(columns, warps) * COLUMN_BYTES + warps * WARP_BYTES + 16 <= SHARED_BYTES:
            return warps
    return 0


def span(columns: int, warps: int) -> int:
    """SPAN of histogram.cu: a column behind the last is read, and not used. In steps of 8, so that
    windows share a kernel."""
    return -(-(32 * warps + columns) // 8) * 8
