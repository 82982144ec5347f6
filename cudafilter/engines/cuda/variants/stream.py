"""Launches of stream.cu, which is compiled for each kernel size, type and layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.variants.task import (
    Launch,
    Layout,
    Pass,
    Task,
    defines_of,
    flat,
    takes,
    taps,
    task_of,
)
from cudafilter.errors import LimitError
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.make import make

MAX_SUMS = 128
"""Most unfinished sums of a lane, KERNELS * ROWS * OUTPUTS: a thread has at most 255 registers."""

MAX_SUMS_DENSE = 80
"""The same for a dense kernel, which keeps its taps in registers too."""

MAX_CODE = 1024
"""Most multiply-adds, for a row and lane, that are unrolled: the instruction cache holds no more,
and the compiler takes seconds for them."""

START = 8
"""Cost of the start of a walk, in rows: it waits for its first copies."""

IMBALANCE = 0.15
"""Share of its time that a single wave of walks waits for its slowest one."""

IMBALANCE_FLOAT32, FEW_ROWS = 1.0, 3
"""The same on float32, for kernels of at most FEW_ROWS rows, which only wait for memory."""

WARPS_FLOAT32 = 16
"""Warps of a multiprocessor that suffice on float32: more would only crowd the cache."""

REGISTERS = 16384
"""Registers of each of the four quarters of a multiprocessor, on every architecture since sm_75."""

MOST_REGISTERS = 255
"""Registers of a thread."""

MARGIN = 40
"""Registers of a rank-1 kernel beside its sums: row sums, addresses, counters. Too few for some:
nvcc.py then compiles for fewer warps, so nothing ever spills."""

MARGIN_DENSE = 30
"""Registers of a dense kernel beside its sums and its span."""

MANY = 22 * 22
"""Taps from which on the code of a dense kernel no longer fits the instruction cache, ..."""
MANY_COST = 2
"""... and the cost of each of these taps, in taps of a kernel that fits."""


@dataclass(frozen=True, eq=False)
class Stream(Launch):
    """A launch of one warp a walk."""

    def _passes(self, task: Task, resident: int) -> list[Pass]:
        rows, sample = self.defines["ROWS"], self.defines["SAMPLE"]
        task.blocks_x = -(-task.width * self.channels // (32 * self.defines["OUTPUTS"]))
        task.rows = rows_a_block(
            rows, task.height, task.blocks_x, resident, imbalance(rows, sample)
        )
        return [self._pass(task, task.blocks_x * -(-task.height // task.rows))]


@takes(Correlation)
def plan(filter: Correlation, layout: Layout) -> Launch | LimitError:
    """The launch of *filter*, or why there is none."""
    filter = folded(filter, layout.mode(filter))
    own = specialise(filter, layout)
    if own is None:
        rows, columns = filter.size
        return LimitError(
            f"the stream kernel keeps unfinished rows in registers; {filter.name}'s kernel of"
            f" {rows} rows and {columns} columns is too large for them",
            hint="use --variant auto",
        )
    make_weights = partial(flat, filter, factored=bool(own["RANK1"]))
    defines = defines_of(filter, layout) | own | shortcuts(filter, make_weights(), layout)
    cost = taps(filter) * (MANY_COST if not filter.rank1 and taps(filter) >= MANY else 1)
    return Stream("stream", defines, make_weights, task_of(filter, layout), cost)


def hardest() -> list[Correlation]:
    """Filters near the limits of registers."""
    rng = np.random.default_rng(0)
    shapes = (7, 7), (15, 15), (31, 31), (15, 3), (3, 15), (1, 61), (61, 1)
    return [
        make("blur", sigma=10),
        make("unsharp", sigma=5),
        make("unsharp", sigma=7),
        *(make("kernel", weights=rng.random(shape) - 0.5) for shape in shapes),
    ]


def folded(filter: Correlation, mode: int) -> Correlation:
    """*filter* with gain and source_gain in the weights of a dense kernel, where that is the same.

    The kernel then needs no second read of the source. A rank-1 kernel would lose its factors.
    """
    (kernel, *others) = filter.kernels
    if others or mode or filter.threshold or not filter.source_gain or kernel.factors is not None:
        return filter
    weights = filter.gain * kernel.weights
    if weights[kernel.anchor] * filter.source_gain < 0:  # an infinity less itself is NaN
        return filter
    weights[kernel.anchor] += filter.source_gain
    return replace(filter, kernels=(Kernel(weights, kernel.anchor),), gain=1.0, source_gain=0.0)


def specialise(filter: Correlation, layout: Layout) -> dict[str, int] | None:
    """The macros of stream.cu beyond pixel.cuh's, or None where the kernel is too large."""
    sample, channels, mode = layout.sample, layout.channels, layout.mode(filter)
    rows, columns = filter.size
    kernels = len(filter.kernels)
    factored = filter.rank1 and rows * columns > rows + columns
    wants_source = mode == 2 or filter.source_gain != 0 or filter.threshold != 0
    # As many as registers hold: neighbours share their taps. 16 pay only for bytes.
    wide = sample == 0 and channels == 1 and kernels * rows <= 7
    for outputs in (16, 8, 4, 2, 1) if wide else (8, 4, 2, 1):
        sums = kernels * rows * outputs
        code = kernels * outputs * (rows + columns if factored else rows * columns)
        span = outputs + (columns - 1) * channels
        registers = sums + (MARGIN if factored else span + MARGIN_DENSE)
        if mode and outputs % channels:
            continue  # only whole pixels
        fits = sums <= (MAX_SUMS if factored else MAX_SUMS_DENSE) and registers <= MOST_REGISTERS
        if fits and code <= MAX_CODE:
            break
    else:
        return None
    return {
        "RANK1": int(factored),
        "ROWS": rows,
        "COLUMNS": columns,
        "LEFT": filter.reach[2],
        "OUTPUTS": outputs,
        "SOURCE": int(wants_source),
        "BLOCKS": min(blocks_a_multiprocessor(registers), WARPS_FLOAT32 if sample == 2 else 32),
    }


def blocks_a_multiprocessor(registers: int) -> int:
    """Resident warps to compile for, where each thread wants so many registers.

    Four or a multiple of it: each warp has its registers in one quarter of the multiprocessor.
    """
    return 4 * min(8, REGISTERS // 32 // (-(-registers // 8) * 8))


def shortcuts(
    filter: Correlation, weights: npt.NDArray[np.float64], layout: Layout
) -> dict[str, int]:
    """The macros that leave out what does nothing: taps of weight 0, a gain of 1 without bias, a
    look at whether a mean passes the range of its samples by more than a rounding error.

    TAPS is -1 for many weights, and 0 if of many some are 0 on float32, whose NaN must not count.
    """
    weights = weights.astype(np.float32)  # as the kernel reads them
    if weights.size > 62:
        taps = -1 if layout.sample != 2 or weights.all() else 0
    else:
        taps = sum(1 << i for i in np.flatnonzero(weights).tolist())
    total = filter.kernels[0].magnitude * layout.unit
    own = filter.gain != 1 or filter.source_gain or filter.bias or filter.threshold
    mean = not own and len(filter.kernels) == 1 and total <= 1.000001 and (weights >= 0).all()
    return {"TAPS": taps, "SCALE": int(filter.gain != 1 or filter.bias != 0), "MEAN": int(mean)}


def imbalance(rows: int, sample: int) -> float:
    """The *imbalance* for rows_a_block(), for a kernel of so many rows."""
    return IMBALANCE_FLOAT32 if sample == 2 and rows <= FEW_ROWS else IMBALANCE


def rows_a_block(
    rows: int, height: int, blocks_x: int, resident: int, imbalance: float = IMBALANCE
) -> int:
    """Output rows that each warp walks down, for the shortest time in all.

    *rows* is the kernel's, *blocks_x* the strips side by side and *resident* the warps that run
    at a time. A walk of n rows costs n + rows - 1 and START; as many waves of walks as it takes
    follow each other, the last one seldom full. The fewer they are, the longer the others wait
    for the slowest: by *imbalance* of a single wave's time.
    """
    best, least = height, float("inf")
    for waves in range(1, 17):
        down = max(1, resident * waves // blocks_x)  # walks below each other
        walk = -(-height // down)
        taken = -(-blocks_x * -(-height // walk) // resident) * (walk + rows - 1 + START)
        if taken * (1 + imbalance / waves) < least:
            best, least = walk, taken * (1 + imbalance / waves)
    return best
