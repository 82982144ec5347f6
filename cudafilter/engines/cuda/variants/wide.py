"""Launches of wide.cu: for each band of rows a pass down, a scratch image and a pass across."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.variants.task import (
    Launch,
    Layout,
    Pass,
    Size,
    Task,
    defines_of,
    no_room,
    not_rank1,
    several,
    takes,
    taps,
    task_of,
)
from cudafilter.errors import LimitError
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel, Weights

WARPS, RUN = 8, 16
"""Warps of a block and outputs of a thread."""

THREADS = 32 * WARPS

BAND = {1: 1024, 2: 512, 3: 384, 4: 256}
"""Rows that go through at a time, by channels: the scratch image then fits the L2 cache."""

EVEN = {1: 64.5, 2: 64.5, 3: 48.5, 4: 48.5}
"""Taps of the longer side at which this takes as long as stream.cu, by channels. On an H100, 81
taps take stream.cu 1.5 times as long on uint8 gray, and 61 on uint8 RGB 1.2 times."""

ALIGNMENT = 4
"""Zeros fill columns and rows up to a multiple of so many weights."""

MOST_TERMS = 8
"""Most products of a column and a row whose sum a kernel may be."""

TERM = 170
"""Cost of a term beside its taps, in taps of a dense kernel: on an H100, 8192x8192 uint8 gray, a
pass down and one across take 0.49 ms and 2.8 us a tap, and a dense kernel takes 2.9 us a tap."""

PAYS = 0.9
"""The terms must take less than this share of a dense kernel's time."""

RESIDUE = 1e-9
"""Largest error of a sum of terms, relative to the largest weight, that counts as none."""

CANCELLING = {0: 4.0, 1: 2.0}
"""By SAMPLE: how many times the kernel's weights the terms' weights may sum to, since rounding
errors grow with it. Float32 has none: where terms cancel, an infinity would become NaN."""

Factors = tuple[Weights, Weights]


@dataclass(frozen=True, eq=False)
class Wide(Launch):
    """Two launches a band."""

    functions: ClassVar[tuple[str, ...]] = ("columns", "rows")
    """The two passes, in their order."""
    alignment: ClassVar[int] = RUN
    """Outputs of a run share partial sums, so the bits of each depend on its place in the run."""

    def scratch_bytes(self, source_size: Size, out_size: Size, origin: Size, resident: int) -> int:
        """See Launch.scratch_bytes."""
        width = self.task.kernel_width
        return scratch_bytes(width, self.channels, out_size[1], self.defines["TERMS"])

    def _passes(self, task: Task, resident: int) -> list[Pass]:
        queued = []
        for first in range(0, task.height, self.defines["BAND"]):
            band = Task.from_buffer_copy(task)
            band.height = min(self.defines["BAND"], task.height - first)
            band.y0 = task.y0 + first
            band.out = task.out + first * task.out_pitch * self.itemsize
            size = band.height, band.width
            band.blocks_x, *passes = blocks(band.kernel_width, self.channels, size)
            queued += [
                self._pass(band, count, function)
                for function, count in zip(self.functions, passes, strict=True)
            ]
        return queued


@takes(Correlation)
def plan(filter: Correlation, layout: Layout) -> Launch | LimitError:
    """The launch of *filter*, or why there is none."""
    found = terms(filter.kernels[0], layout.sample)
    # The terms of a dense kernel of whole numbers are none.
    if not found or (len(found) > 1 and filter.has_exact_sums(layout.dtype)):
        return not_rank1("wide", filter, ", or on integers the sum of a few")
    lack = several("wide", filter)
    lack = lack or no_room(filter, len(found) * sum(map(padded, filter.size)))
    if lack is not None:
        return lack
    own = {"TERMS": len(found), "BAND": band(layout.channels, len(found))}
    own |= {"WARPS": WARPS, "RUN": RUN, "ALIGNMENT": ALIGNMENT}
    if filter.rank1:
        cost = taps(filter) * EVEN[layout.channels] / max(filter.size)
    else:
        cost = len(found) * (sum(filter.size) + TERM) / PAYS

    def make_weights() -> npt.NDArray[np.float64]:
        factors = (factor for term in found for factor in term)
        return np.concatenate([np.pad(f, (0, padded(len(f)) - len(f))) for f in factors])

    task = task_of(filter, layout)
    task.gaps = any(not factor.all() for term in found for factor in term)
    return Wide("wide", defines_of(filter, layout) | own, make_weights, task, cost)


def hardest() -> list[Correlation]:
    """None: its registers depend on no kernel's size."""
    return []


def padded(count: int) -> int:
    """Length of a column or row of *count* weights after it was filled up."""
    return -(-count // ALIGNMENT) * ALIGNMENT


def band(channels: int, terms: int) -> int:
    """BAND of wide.cu: the rows, in whole tiles, for which the scratch images of all terms fit."""
    tile = RUN * WARPS
    return max(tile, BAND[channels] // terms // tile * tile)


@functools.lru_cache(16)  # finding out takes milliseconds, and is asked for more than once
def terms(kernel: Kernel, sample: int) -> tuple[Factors, ...]:
    """The terms of *kernel*: (column, row) whose products sum to it; none where none do.

    At most MOST_TERMS that cancel each other no more than CANCELLING allows on *sample*: those of
    the singular value decomposition, which has the fewest.
    """
    if kernel.factors is not None:
        return (kernel.factors,)
    found = _cross(kernel.weights) if sample in CANCELLING else None
    if found is None:
        return ()
    (left, upper), (right, lower) = (np.linalg.qr(factor) for factor in found)
    turn, strength, turned = np.linalg.svd(upper @ lower.T)
    columns, rows = left @ turn * np.sqrt(strength), right @ turned.T * np.sqrt(strength)
    magnitude = float(np.abs(columns).sum(0) @ np.abs(rows).sum(0))
    if magnitude > CANCELLING[sample] * kernel.magnitude:
        return ()
    return tuple(zip(columns.T, rows.T, strict=True))


def _cross(weights: Weights) -> tuple[Weights, Weights] | None:
    """(rows, n) and (columns, n) arrays whose n products add up to *weights*, n <= MOST_TERMS.

    None where that leaves more than RESIDUE. Cross approximation: each time the product of the row
    and the column that meet in the largest weight that is left. A decomposition of all of a large
    kernel would take minutes.
    """
    rest = weights.copy()
    least = RESIDUE * np.abs(rest).max()
    columns: list[Weights] = []
    rows: list[Weights] = []
    while True:
        i, j = np.unravel_index(np.argmax(np.abs(rest)), rest.shape)
        pivot = rest[i, j]
        if abs(pivot) <= least:
            return np.array(columns).T, np.array(rows).T
        if len(columns) == MOST_TERMS:
            return None
        columns.append(rest[:, j].copy())
        rows.append(rest[i] / pivot)
        rest -= np.outer(columns[-1], rows[-1])


def scratch_bytes(kernel_width: int, channels: int, width: int, terms: int) -> int:
    """The scratch images: a line of float32 for each sample of a row and its halo."""
    # Threads read up to two runs past the halo, and use none of it.
    lines = (width + kernel_width - 1 + 3 * RUN) * channels
    return 4 * terms * lines * (band(channels, terms) + 32)


def blocks(kernel_width: int, channels: int, out_size: tuple[int, int]) -> tuple[int, int, int]:
    """Blocks side by side of the first pass, and all of each pass, for a band."""
    height, width = out_size
    across = -(-(width + kernel_width - 1) * channels // 32)
    tile = RUN * WARPS
    return across, across * -(-height // tile), -(-width // tile) * -(-height // 32)
