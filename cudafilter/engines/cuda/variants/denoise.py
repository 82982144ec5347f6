"""Launches of denoise.cu: non-local means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np

from cudafilter.engines.cuda.variants.stream import blocks_a_multiprocessor
from cudafilter.engines.cuda.variants.task import ALPHAS, SHARED_BYTES, Launch, Layout, Task, takes
from cudafilter.engines.cuda.variants.tiles import Tiles
from cudafilter.operations.alike import MAX_PATCH, MAX_SEARCH
from cudafilter.operations.choices import BORDERS
from cudafilter.operations.denoise import Denoise

RUN = 4
"""Pixels of a lane side by side, and shifts that it looks at together."""

DOWN = {1: 4, 2: 4, 3: 3, 4: 2}
"""Most rows of pixels of a lane, by channels: as many as registers hold; of four colours one. Fewer
where shared memory does not."""

WARPS = (4, 2, 1)
"""Warps of a block, likewise."""

COLUMNS = (24, 16)
"""Columns of the others in shared memory at a time, likewise: 24 are all of the usual ones."""

MOST_BLOCKS, MARGIN = 12, 72
"""Resident warps that suffice, and registers of a thread beside its sums. Where these are too few,
nvcc.py compiles for fewer warps."""

COST = 12
"""An other pixel, in multiply-adds of ``stream``: an estimate, and no other variant runs the
filter."""


@dataclass(frozen=True, eq=False)
class Denoised(Tiles):
    """Pixels of a lane share sums, so the bits of each depend on its place in the lane."""

    alignment: ClassVar[int] = math.lcm(RUN, *range(1, max(DOWN.values()) + 1))


@takes(Denoise)
def plan(filter: Denoise, layout: Layout) -> Launch:
    """The launch of *filter*; there is none that denoise.cu does not take."""
    colours = layout.channels - layout.alpha
    down, warps, columns, chunk = _shape(filter, layout.channels, colours)
    own = {
        "SAMPLE": layout.sample, "CHANNELS": layout.channels,
        "ALPHA": ALPHAS[filter.alpha if layout.alpha else None], "KERNELS": 1,
        "PATCH": filter.patch, "DOWN": down, "WARPS": warps, "CHUNK": chunk, "COLUMNS": columns,
    }  # fmt: skip
    registers = down * RUN * (RUN + 2 * (colours + 1)) + MARGIN
    blocks = min(blocks_a_multiprocessor(registers), MOST_BLOCKS)
    own["BLOCKS"] = max(warps, blocks // warps * warps)
    reach = filter.search // 2
    task = Task(
        kernel_width=filter.search, kernel_height=filter.search, anchor_x=reach, anchor_y=reach,
        border=BORDERS.index(layout.border.mode), border_value=layout.border.sample(layout.dtype),
        gain=filter.factor(colours, layout.full) / math.log(2),
    )  # fmt: skip
    return Denoised(
        "denoise", own, lambda: np.zeros(0), task, COST * filter.others,
        (32 * warps, 1, 1), (RUN * (32 - 2 * edge(filter.patch)), down * warps),
    )  # fmt: skip


def edge(patch: int) -> int:
    """EDGE of denoise.cu: lanes to each side that only serve others."""
    return -(-(patch // 2) // RUN)


def hardest() -> list[Denoise]:
    """The largest patches, and others where fewer rows fit."""
    return [Denoise(0.1, patch, MAX_SEARCH) for patch in (1, 3, 5, 9, MAX_PATCH)]


def _shape(filter: Denoise, channels: int, colours: int) -> tuple[int, int, int, int]:
    """DOWN, WARPS, COLUMNS and CHUNK of denoise.cu: the first that fit into shared memory."""
    samples = SHARED_BYTES // (4 * channels)
    most = min(DOWN[channels] if colours < 4 else 1, max(1, filter.patch - 1))
    for down, columns, warps in product(range(most, 0, -1), COLUMNS, WARPS):
        rows = down * warps + filter.patch - 1
        chunk = (samples - rows * 32 * RUN) // (32 * RUN + columns) - rows + 1
        if chunk >= 1:
            return down, warps, columns, min(chunk, filter.search)
    raise AssertionError(f"patches of {filter.patch} pixels do not fit")
