"""Launches of network.cu: ranks of small squares."""

from __future__ import annotations

import numpy as np

from cudafilter.engines.cuda.variants.ranks import rank_macros, rank_task
from cudafilter.engines.cuda.variants.task import Launch, Layout, takes
from cudafilter.engines.cuda.variants.tiles import Tiles
from cudafilter.errors import LimitError
from cudafilter.operations.rank import Rank, median, percentile
from cudafilter.operations.window import square

RADII = (1, 2, 3, 4, 5)
"""Of the squares that registers hold; the compiler takes minutes for larger ones."""

WARPS, RUN = 4, 4
"""Warps of a block, and outputs of a thread in a row."""

DOWN = {1: 2, 2: 2, 3: 2, 4: 1, 5: 1}
"""Rows of outputs that a thread finds together, by radius: two share most of each column, but there
are not registers enough for both where columns are long."""

HEIGHT = {"uint8": 32, "uint16": 32, "float32": 16}
"""Rows of a tile: of integers two at a time are found, each in a half of it."""

MOST_TILE = 44 << 10
"""Bytes of shared memory from which on a tile has half as many rows."""

COST = {1: 16.5, 2: 70, 3: 172, 4: 370, 5: 617}
"""By radius: instructions that compare, a sample of float32 and two of integers; as ptxas leaves
them for a median."""

BLOCKS = {1: 24, 2: 16, 3: 12, 4: 12, 5: 12}
"""Resident warps to compile for, by radius; nvcc.py takes fewer where that is too many."""


@takes(Rank)
def plan(rank: Rank, layout: Layout) -> Launch | LimitError:
    """The launch of *rank*, or why there is none."""
    radius = rank.window.shape[0] // 2
    if radius not in RADII or rank.window != square(radius):
        rows, columns = rank.window.shape
        masked = " with a mask" if rank.window.inside is not None else ""
        return LimitError(
            f"the network kernel takes squares of 3x3 to 11x11; {rank.name}'s window is"
            f" {columns}x{rows}{masked}",
            hint="use --variant auto",
        )
    threads, tile = (32 * WARPS, 1, 1), (32 * RUN, _height(radius, layout))
    own = {
        "SIDE": 2 * radius + 1, "RANK": rank.rank, "RUN": RUN, "DOWN": DOWN[radius], "WARPS": WARPS,
        "TILE_WIDTH": tile[0], "TILE_HEIGHT": tile[1], "BLOCKS": BLOCKS[radius],
    }  # fmt: skip
    cost = COST[radius] * (1 if layout.dtype == "float32" else 0.5)
    return Tiles(
        "network", rank_macros(layout) | own, lambda: np.empty(0), rank_task(rank, layout),
        cost, threads, tile,
    )  # fmt: skip


def hardest() -> list[Rank]:
    """Medians, which leave out least, and another rank."""
    return [median(1), median(2), median(3), median(5), percentile(2, 25)]


def _height(radius: int, layout: Layout) -> int:
    """TILE_HEIGHT of network.cu."""
    rows = HEIGHT[layout.dtype]
    itemsize = np.dtype(layout.dtype).itemsize
    row = (32 * RUN + 2 * radius + 32 // itemsize) * itemsize * layout.channels
    return rows if (rows + 2 * radius) * row <= MOST_TILE else rows // 2
