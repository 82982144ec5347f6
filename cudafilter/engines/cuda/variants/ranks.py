"""What the launches of all ranks have in common."""

from __future__ import annotations

from cudafilter.engines.cuda.variants.task import Layout, Task
from cudafilter.operations.choices import BORDERS
from cudafilter.operations.rank import Rank


def rank_task(rank: Rank, layout: Layout) -> Task:
    """The task of *rank* on pixels of *layout*, but for addresses and sizes."""
    (rows, columns), (y, x) = rank.window.shape, rank.window.anchor
    return Task(
        kernel_width=columns, kernel_height=rows, anchor_x=x, anchor_y=y, rank=rank.rank,
        border=BORDERS.index(layout.border.mode), border_value=layout.border.sample(layout.dtype),
    )  # fmt: skip


def rank_macros(layout: Layout) -> dict[str, int]:
    """The macros of pixel.cuh. Alpha is ranked as the other channels are."""
    return {"SAMPLE": layout.sample, "CHANNELS": layout.channels, "ALPHA": 0, "KERNELS": 1}


def pick(rank: Rank) -> int:
    """The macro PICK: 1 for the least, 2 for the largest, 0 for any other."""
    return 1 if rank.is_least else 2 if rank.is_largest else 0
