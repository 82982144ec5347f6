"""Launches of blocked.cu: large dense kernels, 16 outputs a thread."""

from __future__ import annotations

from functools import partial

from cudafilter.engines.cuda.variants.task import Launch, Layout, flat, no_room, several, takes
from cudafilter.engines.cuda.variants.tiles import every_kind, tiles
from cudafilter.errors import LimitError
from cudafilter.operations.correlation import Correlation

SPAN = 8
"""Columns of the kernel in each turn of the inner loop. Zeros fill each row of weights up to a
multiple of it."""

RANK1 = 8
"""Cost of a tap where the kernel is of rank 1, in taps of a dense kernel: other variants take its
factors then, and should win."""

hardest = partial(every_kind, 1)


@takes(Correlation)
def plan(filter: Correlation, layout: Layout) -> Launch | LimitError:
    """The launch of *filter*, or why there is none."""
    rows, columns = filter.size
    padded = -(-columns // SPAN) * SPAN
    cost = rows * columns * (RANK1 if filter.rank1 else 1)
    return (
        several("blocked", filter)
        or no_room(filter, rows * padded)
        or tiles(
            "blocked", filter, layout, partial(flat, filter, factored=False, alignment=SPAN), cost,
            threads=(256, 1, 1), tile=(128, 32), SPAN=SPAN,
        )
    )  # fmt: skip
