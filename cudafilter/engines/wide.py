"""How wide.cu is launched: its bands of rows and the scratch image between its passes."""

from __future__ import annotations

import functools

import numpy as np

from cudafilter.filter import Kernel, Weights

FUNCTIONS = ("columns", "rows")
"""The two passes, in their order."""

WARPS, RUN = 8, 16
"""Warps of a block and outputs of a thread. Both numbers stand in wide.cu too."""

THREADS = 32 * WARPS

BAND = {1: 1024, 2: 512, 3: 384, 4: 256}
"""Rows that go through at a time, by channels: the scratch image then fits the L2 cache."""

WORTHWHILE = {1: 65, 2: 65, 3: 49, 4: 49}
"""Taps a side from which on ``auto`` takes this and not stream.cu, by channels. On an H100, 81 taps
take stream.cu 1.5 times as long on uint8 gray, and 61 on uint8 RGB 1.2 times."""

MOST_TERMS = 8
"""Products of a column and a row that a kernel may be the sum of."""

TERM = 170
"""What a term costs beside its taps, in taps of a dense kernel: on an H100, 8192x8192 uint8 gray, a
pass down and one across take 0.49 ms and 2.8 us a tap, and a dense kernel takes 2.9 us a tap."""

PAYS = 0.9
"""Share of a dense kernel's time that its terms may take."""

RESIDUE = 1e-9
"""Largest error of a sum of terms, relative to the largest weight, that counts as none."""

CANCELLING = {0: 4.0, 1: 2.0}
"""By SAMPLE: how much larger than the kernel's weights those of the terms may be in all, since
rounding errors grow with it. Not for float32: of an infinity, terms that cancel leave NaN."""

Factors = tuple[Weights, Weights]


def band(channels: int, terms: int) -> int:
    """BAND of wide.cu: so many rows that all terms' scratch images fit, in whole tiles."""
    tile = RUN * WARPS
    return max(tile, BAND[channels] // terms // tile * tile)


@functools.lru_cache(16)  # finding out takes milliseconds, and is asked for more than once
def terms(kernel: Kernel, sample: int) -> tuple[Factors, ...]:
    """(column, row) of the products that *kernel* is the sum of; none where there is no such sum.

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


def pays(count: int, size: tuple[int, int]) -> bool:
    """Whether *count* terms are faster than the dense kernel of *size* (rows, columns)."""
    rows, columns = size
    return count * (rows + columns + TERM) < PAYS * rows * columns


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
