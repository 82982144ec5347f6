"""Launches of rank.cu: ranks of 3x3 windows."""

from __future__ import annotations

import numpy as np

from cudafilter.engines.cuda.variants.task import Launch, Layout, Task, takes
from cudafilter.engines.cuda.variants.tiles import Tiles, tile_macros
from cudafilter.errors import LimitError
from cudafilter.operations.catalogue import BORDERS
from cudafilter.operations.rank import Rank, dilation, erosion, median
from cudafilter.operations.window import square

RADIUS = 1
"""Of the window; TAPS of rank.cu are its pixels."""

COST = 36
"""Exchanges a sample. It is compared with no other variant's: no other one runs ranks."""


@takes(Rank)
def plan(rank: Rank, layout: Layout) -> Launch | LimitError:
    """The launch of *rank*, or why there is none."""
    if rank.window != square(RADIUS):
        rows, columns = rank.window.shape
        masked = " with a mask" if rank.window.inside is not None else ""
        return LimitError(
            f"the rank kernel takes windows of 3x3; {rank.name}'s is {columns}x{rows}{masked}",
            hint="use --engine cpu",
        )
    threads, tile = (32, 8, 1), (32, 8)
    macros = {
        "SAMPLE": layout.sample, "CHANNELS": layout.channels, "ALPHA": 0, "KERNELS": 1,
        "RANK": rank.rank,
    }  # fmt: skip
    task = Task(
        kernel_width=2 * RADIUS + 1, kernel_height=2 * RADIUS + 1,
        anchor_x=RADIUS, anchor_y=RADIUS,
        border=BORDERS.index(layout.border.mode), border_value=layout.border.sample(layout.dtype),
    )  # fmt: skip
    macros |= tile_macros(threads, tile)
    return Tiles("rank", macros, lambda: np.empty(0), task, COST, threads, tile)


def hardest() -> list[Rank]:
    """The ranks that have names; the median needs most registers."""
    return [median(), erosion(square(RADIUS)), dilation(square(RADIUS))]
