"""Launches of tensor.cu: kernels of rank 1 on bytes, both passes on tensor cores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.variants.stream import rows_a_block
from cudafilter.engines.cuda.variants.task import (
    SHARED_BYTES,
    Launch,
    Layout,
    Pass,
    Task,
    defines_of,
    takes,
    taps,
    task_of,
)
from cudafilter.errors import LimitError
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import MOST_WHOLE, grain
from cudafilter.operations.make import make

EVEN = 17.5
"""Rows and columns of a kernel, together, at which this takes as long as stream.cu."""

WARPS = 4
"""Warps of a block."""

SIDE = 16
"""Rows and columns of a matrix."""


class Plan(NamedTuple):
    """How a kernel is laid out."""

    beside: int
    """Matrices side by side of a warp."""
    kept: int
    """Whether the bands are kept in registers, and not in shared memory."""
    warps: int
    """Resident warps of a multiprocessor to compile for. Where that spills, see nvcc.py."""


_FEW, _MANY = Plan(1, 0, 8), Plan(2, 0, 8)
PLANS = {
    1: {
        1: Plan(4, 1, 12),
        2: Plan(4, 1, 12),
        3: Plan(2, 1, 12),
        4: _MANY,
        5: _MANY,
        6: _FEW,
        7: _FEW,
    },
    2: {1: Plan(2, 0, 12), 2: Plan(2, 0, 12), 3: _MANY, 4: _FEW, 5: _FEW, 6: _FEW},
    3: {1: Plan(1, 0, 16), 2: Plan(1, 0, 16), 3: _MANY, 4: _FEW, 5: _FEW},
    4: {1: Plan(1, 0, 12), 2: Plan(1, 0, 12), 3: _FEW},
}
"""By channels, then by the matrices that the kernel's rows reach over: the fastest plan on an H100
that spills no registers. Columns may reach over as many matrices."""

SCALE = 128.0
"""Sum of magnitudes of the weights along an axis: the low parts of all that matter are normal
halves, and 255 times it is still one."""

FAR = 1e4
"""How far past white, in full scales, results may lie: they are rounded in 22 bits. As far below
it the bias, which comes before the gain, is still a float."""


@dataclass(frozen=True, eq=False)
class Tensor(Launch):
    """A launch of WARPS warps a walk."""

    alignment: ClassVar[int] = SIDE

    def _passes(self, task: Task, resident: int) -> list[Pass]:
        columns = SIDE * self.defines["BESIDE"] * self.defines["WARPS"]
        task.blocks_x = -(-task.width // columns)
        task.rows = rows(task.kernel_height, task.height, task.blocks_x, resident)
        return [self._pass(task, task.blocks_x * -(-task.height // task.rows))]


@takes(Correlation)
def plan(filter: Correlation, layout: Layout) -> Launch | LimitError:
    """The launch of *filter*, or why there is none."""
    own = specialise(filter, layout)
    if own is None:
        return LimitError(
            "the tensor kernel takes one kernel of rank 1 that is not too large, uint8 without"
            f" alpha, and no share of the source; this is not so for {filter.name} here",
            hint="use --variant auto",
        )
    task = task_of(filter, layout)
    weights, task.gain, task.bias, task.weight_sum[0] = scaled(filter, layout.full)
    cost = taps(filter) * EVEN / sum(filter.size)
    return Tensor("tensor", defines_of(filter, layout) | own, lambda: weights, task, cost)


def hardest() -> list[Correlation]:
    """Blurs of each plan."""
    radii = (8, 16, 24, 32, 40, 48)
    return [make("blur", sigma=radius / 3, radius=radius) for radius in radii]


class Scaled(NamedTuple):
    """What the kernel takes for the weights of a filter and its gain and bias."""

    weights: npt.NDArray[np.float32]
    """Column, then row."""
    gain: float
    bias: float
    start: float
    """What the 1024 in each byte's half adds to a sum over a row, negative."""


def specialise(filter: Correlation, layout: Layout) -> dict[str, int] | None:
    """The macros of tensor.cu beyond pixel.cuh's, or None where it cannot run *filter*."""
    channels = layout.channels
    if layout.dtype != "uint8" or layout.alpha or len(filter.kernels) > 1 or not filter.rank1:
        return None
    gain = abs(filter.gain) * filter.kernels[0].magnitude
    if filter.source_gain or filter.threshold or not 1 / FAR <= gain <= FAR - abs(filter.bias):
        return None
    if filter.has_exact_sums("uint8") and not _is_exact(filter, layout.full):
        return None
    rows, columns = filter.size
    steps, plans = -(-(rows + SIDE - 1) // SIDE), PLANS[channels]
    if steps not in plans:
        return None
    left = filter.reach[2]
    for plan in (plans[steps], _FEW):  # wide kernels may leave memory only for the latter
        across, shared = _across(channels, columns, left, steps, plan)
        if across <= max(plans) and shared <= SHARED_BYTES:
            break
    else:
        return None
    return {
        "ROWS": rows,
        "COLUMNS": columns,
        "LEFT": left,
        "WARPS": WARPS,
        "BESIDE": plan.beside,
        "KEPT": plan.kept,
        "BLOCKS": plan.warps,
    }


def _across(channels: int, columns: int, left: int, down: int, plan: Plan) -> tuple[int, int]:
    """ACROSS of tensor.cu, and the bytes of shared memory of a block."""
    first = -left * channels % 32
    early = -first % 4 if channels == 3 else first // channels % 4
    lead = first if first >= early * channels else first + 32
    across = (early + columns + 30) // SIDE
    beside = plan.beside * WARPS
    read = lead - early * channels + SIDE * (beside - 1 + across) * channels
    needed = lead + (SIDE * beside + columns - 1) * channels
    odd = SIDE * channels
    line = -(-(max(read, needed + 16) - odd) // 128) * 128 + odd
    bands = 0 if plan.kept else 1024 * across + 1024 * down
    return across, 64 * line + 16 + bands + 4 * (SIDE * (across + down) + 80)


def _is_exact(filter: Correlation, full: float) -> bool:
    """Whether sums of *filter* that float32 does not round stay exact here.

    Sums over a row begin with 1024 for each byte, and meet the column as two halves, which hold 22
    bits; of the column only what one half holds meets all of these. The bias is divided by the
    gain.
    """
    assert filter.kernels[0].factors is not None
    column, row = filter.kernels[0].factors
    row_size = float(np.abs(row).sum() / grain(row))
    bias = filter.bias * full / filter.gain
    return bool(
        (1024 + full) * row_size < MOST_WHOLE / 2
        and np.abs(column).max() / grain(column) < 2048
        and float(np.float32(bias)) * filter.gain == filter.bias * full
    )


def scaled(filter: Correlation, full: float) -> Scaled:
    """The numbers of a filter that specialise() accepted; *full* is full scale."""
    (kernel,) = filter.kernels
    assert kernel.factors is not None
    column, row = kernel.factors
    # By powers of two, which change no digit: whole numbers stay some.
    powers = [SCALE / 2.0 ** math.ceil(math.log2(np.abs(f).sum())) for f in (column, row)]
    parts = [power * factor for power, factor in zip(powers, (column, row), strict=True)]
    gain = filter.gain / math.prod(powers)
    weights = np.concatenate(parts).astype(np.float32)
    return Scaled(
        weights, gain, filter.bias * full / gain, -1024.0 * _halved(weights[len(column) :])
    )


def _halved(weights: npt.NDArray[np.float32]) -> float:
    """The sum of *weights*, each split into two float16."""
    high = weights.astype(np.float16).astype(np.float32)
    low = (weights - high).astype(np.float16)
    return float(high.sum(dtype=np.float64) + low.sum(dtype=np.float64))


def rows(kernel_rows: int, height: int, blocks_x: int, resident: int) -> int:
    """Output rows of a block, a multiple of SIDE."""
    walk = rows_a_block(kernel_rows + SIDE, height, blocks_x, resident)
    return -(-walk // SIDE) * SIDE
