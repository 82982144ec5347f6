"""Float32 on a GPU: weights and gains scaled by powers of two, so that no sum leaves its range.

A factor of two changes no digit, so results have the bits that they have without it; but sums of
samples near the type's limit, such as maps hold where there are no data, stay finite.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel

MOST_EXPONENT = 126
"""Largest exponent of a power of two that is normal in float32, as its inverse is."""


class Bounded(NamedTuple):
    """A scaled filter, whose sums are at most half of the largest sample, and what undoes it."""

    filter: Correlation
    unit: float
    """What a result is multiplied by, a power of two."""


def bounded(filter: Correlation, mode: int) -> Bounded:
    """*filter*, scaled; *mode* is the macro ALPHA."""
    twice = 2 if mode == 2 else 1  # kept alpha sums twice
    shift = max(_shift(kernel) for kernel in filter.kernels) + twice - 1
    kernels = tuple(_scaled(kernel, shift) for kernel in filter.kernels)
    magnitude = max(kernel.magnitude for kernel in kernels)
    total = twice * len(kernels) * abs(math.ldexp(filter.gain, shift)) * magnitude
    unit = _exponent(total + abs(filter.source_gain))
    if filter.gain == 1:  # it stays so, and kernels that know it do without
        unit = max(unit, shift)
    unit = max(-MOST_EXPONENT, min(MOST_EXPONENT, unit))
    scaled = replace(
        filter,
        kernels=kernels,
        gain=math.ldexp(filter.gain, shift - unit),
        source_gain=math.ldexp(filter.source_gain, -unit),
        # Filtered alpha divides before it adds the bias.
        bias=filter.bias if mode == 1 else math.ldexp(filter.bias, -unit),
        threshold=math.ldexp(filter.threshold, -unit),
    )
    return Bounded(scaled, math.ldexp(1.0, unit))


def _exponent(value: float) -> int:
    """The power of two that makes *value* at most a half, and more than an eighth."""
    return math.frexp(value)[1] + 1 if value else 0


def _shift(kernel: Kernel) -> int:
    """The exponent of the power of two by which all sums are divided."""
    if kernel.factors is None:
        return _exponent(kernel.magnitude)
    return sum(_exponent(float(np.abs(factor).sum())) for factor in kernel.factors)


def _scaled(kernel: Kernel, shift: int) -> Kernel:
    """*kernel* times ``2**-shift``, of which a row takes no more than its share."""
    if kernel.factors is None:
        return Kernel(np.ldexp(kernel.weights, -shift), kernel.anchor)
    column, row = kernel.factors
    share = _exponent(float(np.abs(row).sum()))
    return Kernel.outer(np.ldexp(column, share - shift), np.ldexp(row, -share), kernel.anchor)
