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
    gain = math.ldexp(filter.gain, shift - unit)
    scaled = replace(
        filter,
        kernels=kernels,
        # Past this, a sum of 0 stays 0, and any other is infinite after all.
        gain=max(-(2.0**MOST_EXPONENT), min(2.0**MOST_EXPONENT, gain)),
        source_gain=math.ldexp(filter.source_gain, -unit),
        # Filtered alpha divides before it adds the bias.
        bias=filter.bias if mode == 1 else math.ldexp(filter.bias, -unit),
        threshold=math.ldexp(filter.threshold, -unit),
    )
    return Bounded(scaled, math.ldexp(1.0, unit))


MOST_GAIN = 2.0**100
"""Of integers: far past what makes any sum of weights near 1 white, or one black."""


def tamed(filter: Correlation) -> Correlation:
    """*filter* for integers, its weights in float32's range; past it a power of two moves to gain.

    A sum of such weights is 0, or it is as far past black or white as it was.
    """
    largest = max(kernel.magnitude for kernel in filter.kernels)
    exponent = math.frexp(largest)[1]
    if not largest or abs(exponent) <= MOST_EXPONENT // 2:
        return filter
    kernels = tuple(kernel.times(-exponent) for kernel in filter.kernels)
    gain = math.ldexp(filter.gain, max(-1000, min(1000 - math.frexp(filter.gain)[1], exponent)))
    return replace(filter, kernels=kernels, gain=max(-MOST_GAIN, min(MOST_GAIN, gain)))


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
        return kernel.times(-shift)
    share = _exponent(float(np.abs(kernel.factors[1]).sum()))
    return kernel.times(-shift, -share)
