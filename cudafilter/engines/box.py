"""When box.cu can run a filter, and how it is launched."""

from __future__ import annotations

import numpy as np

from cudafilter.filter import Filter
from cudafilter.pixels import DTYPES, full_scale

THREADS = 256
PIXELS = {1: 8, 2: 4, 3: 4, 4: 4}
"""Pixels a thread, by channels. Both numbers stand in box.cu too."""

LEAD = 4
"""Pixels that a block's sums may start before its first tap, to be aligned."""

WORTHWHILE = 21
"""Taps a side from which on ``auto`` takes this and not stream.cu: on an H100 the two are even at
about 15 for uint8 RGB and 27 for uint8 gray."""


def weight(filter: Filter, sample: int, mode: int) -> float | None:
    """The weight that all taps of *filter* share, or None where box.cu cannot run it.

    It takes one kernel of equal weights, integers without alpha (*sample* and *mode* are the
    macros SAMPLE and ALPHA), windows whose sum is below 2^32, and half a block's width at most.
    """
    kernel = filter.kernels[0]
    if len(filter.kernels) > 1 or mode or kernel.factors is None:
        return None
    if filter.source_gain or filter.threshold or np.dtype(DTYPES[sample]).kind != "u":
        return None
    column, row = kernel.factors
    if np.ptp(column) or np.ptp(row):
        return None
    rows, columns = filter.size
    if rows * columns * full_scale(DTYPES[sample]) >= 2**32 or columns > THREADS * PIXELS[4] // 2:
        return None
    return float(column[0] * row[0])


def columns_a_block(columns: int, channels: int) -> int:
    """Output pixels across a block, for a kernel of so many *columns*."""
    return (THREADS * PIXELS[channels] - LEAD - columns) // 32 * 32
