"""How stream.cu is specialised: one kernel per filter size, type and layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from cudafilter.filter import Filter, Kernel

MAX_SUMS = 128
"""Unfinished sums a lane may keep, KERNELS * ROWS * OUTPUTS: registers are 255 at most."""

MAX_CODE = 2048
"""Multiply-adds a row and lane that are worth unrolling."""

START = 8
"""What the start of a walk costs, in rows: its first copies are waited for."""

REGISTERS = 65536
"""Registers of a multiprocessor, on every architecture since sm_75."""


def folded(filter: Filter, mode: int) -> Filter:
    """*filter* with gain and source_gain in the weights of a dense kernel, where that is the same.

    The kernel then needs no second read of the source. A rank-1 kernel would lose its factors.
    """
    (kernel, *others) = filter.kernels
    if others or mode or filter.threshold or not filter.source_gain or kernel.factors is not None:
        return filter
    weights = filter.gain * kernel.weights
    weights[kernel.anchor] += filter.source_gain
    return dataclasses.replace(
        filter, kernels=(Kernel(weights, kernel.anchor),), gain=1.0, source_gain=0.0
    )


def specialise(filter: Filter, sample: int, channels: int, mode: int) -> dict[str, int] | None:
    """The macros of stream.cu beyond pixel.cuh's, or None where the kernel is too large.

    *sample* and *mode* are the macros SAMPLE and ALPHA.
    """
    rows, columns = filter.size
    kernels = len(filter.kernels)
    factored = filter.rank1 and rows * columns > rows + columns
    outputs = _outputs(factored, rows, columns, kernels, channels, bool(mode))
    if outputs is None:
        return None
    wants_source = mode == 2 or filter.source_gain != 0 or filter.threshold != 0
    return {
        "RANK1": int(factored),
        "ROWS": rows,
        "COLUMNS": columns,
        "LEFT": filter.reach[2],
        "OUTPUTS": outputs,
        "SOURCE": int(wants_source),
        "BLOCKS": blocks_a_multiprocessor(factored, rows, columns, kernels, channels, outputs),
    }


def _outputs(
    factored: bool, rows: int, columns: int, kernels: int, channels: int, alpha: bool
) -> int | None:
    """Samples a lane: as many as registers hold, since neighbours share their taps."""
    for outputs in (8, 4, 2, 1):
        if alpha and outputs % channels:
            continue
        sums = kernels * rows * outputs
        code = kernels * outputs * (rows + columns if factored else rows * columns)
        if sums <= MAX_SUMS and code <= MAX_CODE:
            return outputs
    return None


def blocks_a_multiprocessor(
    factored: bool, rows: int, columns: int, kernels: int, channels: int, outputs: int
) -> int:
    """Resident warps to compile for: registers for the sums, the span and some forty more."""
    span = 0 if factored else outputs + (columns - 1) * channels
    registers = min(255, kernels * rows * outputs + span + 44)
    return min(32, REGISTERS // 32 // (-(-registers // 8) * 8))


def rows_a_block(rows: int, height: int, blocks_x: int, resident: int) -> int:
    """Output rows that each warp walks down, for the shortest time in all.

    *rows* is the kernel's, *blocks_x* the strips side by side and *resident* the warps that run
    at a time. A walk of n rows costs n + rows - 1 and START; as many waves of walks as it takes
    follow each other, the last one seldom full.
    """
    best, least = height, float("inf")
    for waves in range(1, 17):
        down = max(1, resident * waves // blocks_x)  # walks below each other
        walk = -(-height // down)
        taken = -(-blocks_x * -(-height // walk) // resident) * (walk + rows - 1 + START)
        if taken < least:
            best, least = walk, taken
    return best


def common() -> Iterator[dict[str, int]]:
    """The specialisations that built-in filters with their defaults need."""
    raise NotImplementedError
