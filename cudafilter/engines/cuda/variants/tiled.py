"""Launches of tiled.cu: the tile and its halo in shared memory."""

from __future__ import annotations

from functools import partial

from cudafilter.engines.cuda.variants.task import Launch, Layout, flat, no_room, takes
from cudafilter.engines.cuda.variants.tiles import every_kind, tiles
from cudafilter.errors import LimitError
from cudafilter.operations.correlation import Correlation

COST = 15
"""Cost of a tap, in taps of ``stream``: 7x7 on float32 takes 1.80 ms on an H100."""

hardest = every_kind


@takes(Correlation)
def plan(filter: Correlation, layout: Layout) -> Launch | LimitError:
    """The launch of *filter*, or why there is none."""
    count = len(filter.kernels) * filter.size[0] * filter.size[1]
    return no_room(filter, count) or tiles(
        "tiled", filter, layout, partial(flat, filter, factored=False), COST * count,
        threads=(32, 16, 1), tile=(32, 16),
    )  # fmt: skip
