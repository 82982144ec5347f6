"""Launches of separable.cu: a row pass and a column pass in one launch."""

from __future__ import annotations

from functools import partial

from cudafilter.engines.cuda.variants.task import Launch, Layout, flat, no_room, not_rank1, takes
from cudafilter.engines.cuda.variants.tiles import every_kind, tiles
from cudafilter.errors import LimitError
from cudafilter.operations.correlation import Correlation

COST = 4
"""Cost of a tap of a factor, in taps of ``stream``: 7x7 on float32 takes 0.50 ms on an H100."""

hardest = every_kind


@takes(Correlation)
def plan(filter: Correlation, layout: Layout) -> Launch | LimitError:
    """The launch of *filter*, or why there is none."""
    if not filter.rank1:
        return not_rank1("separable", filter)
    count = len(filter.kernels) * sum(filter.size)
    return no_room(filter, count) or tiles(
        "separable", filter, layout, partial(flat, filter, factored=True), COST * count,
        threads=(32, 8, 1), tile=(32, 32),
    )  # fmt: skip
