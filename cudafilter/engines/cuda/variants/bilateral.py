"""Launches of bilateral.cu: the bilateral filter."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.variants.stream import blocks_a_multiprocessor
from cudafilter.engines.cuda.variants.task import ALPHAS, SHARED_BYTES, Launch, Layout, Task, takes
from cudafilter.engines.cuda.variants.tiles import Tiles
from cudafilter.operations.bilateral import Bilateral
from cudafilter.operations.choices import BORDERS
from cudafilter.operations.correlation import ONE_BY_ONE

WARPS, RUN = 8, 4
"""Warps of a block, and pixels of a thread side by side."""

DOWN = {1: 2, 2: 1, 3: 1, 4: 1}
"""Rows of pixels of a thread, by channels: two share what a tap costs for all of them, where
registers hold both."""

MOST_RADIUS = 8
"""Of windows that kernels are compiled for, one each: a thread has a row of all its taps in
registers."""

ROWS = 16
"""Rows of larger windows that are in shared memory at a time."""

COLUMNS = 32
"""The same of columns."""

MOST_BLOCKS, MARGIN = 24, 16
"""Resident warps that suffice, and registers of a thread beside its samples and sums. Where these
are too few, nvcc.py compiles for fewer warps."""

COST = 8
"""A tap, in multiply-adds of ``stream``: an estimate, and no other variant runs the filter."""


@takes(Bilateral)
def plan(filter: Bilateral, layout: Layout) -> Launch:
    """The launch of *filter*; there is none that bilateral.cu does not take."""
    down, radius = DOWN[layout.channels], filter.radius
    fixed = radius <= MOST_RADIUS
    columns = 2 * fours(radius) + 4 if fixed else COLUMNS
    chunk = _chunk(2 * radius + 1 if fixed else ROWS, columns, layout.channels)
    depth = _depth(filter, chunk, columns)
    colours = layout.channels - layout.alpha
    own = {
        "SAMPLE": layout.sample, "CHANNELS": layout.channels,
        "ALPHA": ALPHAS[filter.alpha if layout.alpha else None], "KERNELS": 1,
        "RADIUS": radius if fixed else 0, "DOWN": down, "WARPS": WARPS, "CHUNK": chunk,
        "COLUMNS": columns, "DEPTH": depth,
    }  # fmt: skip
    samples = RUN + (columns if fixed else 2 * RUN)  # of a pixel's own and of its taps
    registers = down * (layout.channels * samples + RUN * (colours + 1) * depth) + MARGIN
    blocks = min(blocks_a_multiprocessor(registers), MOST_BLOCKS)
    own["BLOCKS"] = max(WARPS, blocks // WARPS * WARPS)
    task = Task(
        kernel_width=2 * radius + 1, kernel_height=2 * radius + 1, anchor_x=radius, anchor_y=radius,
        border=BORDERS.index(layout.border.mode), border_value=layout.border.sample(layout.dtype),
        gain=-0.5 / math.log(2) / (filter.range * layout.full) ** 2,
    )  # fmt: skip
    return Tiles(
        "bilateral", own, partial(exponents, filter), task, COST * len(filter.taps),
        (32 * WARPS, 1, 1), (32 * RUN, down * WARPS),
    )  # fmt: skip


def exponents(filter: Bilateral) -> npt.NDArray[np.float64]:
    """``weights`` of bilateral.cu, flat."""
    radius, factor = filter.radius, -0.5 / math.log(2) / filter.sigma**2
    y = np.arange(-radius, radius + 1)
    rows = np.stack([filter.widths, factor * y**2], axis=1).ravel()
    columns = factor * np.arange(-fours(radius), fours(radius) + 4) ** 2
    return np.concatenate([np.pad(rows, (0, -rows.size % 4)), columns])


def fours(radius: int) -> int:
    """*radius*, rounded up to whole fours."""
    return -(-radius // 4) * 4


def hardest() -> list[Bilateral]:
    """Windows of registers and of chunks, and of each DEPTH."""
    return [Bilateral(1.0, 0.1, radius) for radius in (2, 4, 7, MOST_RADIUS, 20)]


def _chunk(rows: int, columns: int, channels: int) -> int:
    """CHUNK of bilateral.cu: *rows*, or as many as shared memory holds."""
    row = 4 * channels * (32 * RUN + columns)
    return min(rows, SHARED_BYTES // row + 1 - DOWN[channels] * WARPS)


def _depth(filter: Bilateral, chunk: int, columns: int) -> int:
    """DEPTH of bilateral.cu."""
    if len(filter.taps) <= ONE_BY_ONE:
        return 1
    whole = 2 * filter.radius < chunk and columns > fours(filter.radius) + filter.radius
    return 2 if whole else 3
