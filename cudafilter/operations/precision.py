"""How far off a chain may be in float32, and which chains engines work on in double instead.

That depends on the chain and on the type of the image only, never on its pixels. So all engines
decide it alike, and so does the check.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from cudafilter.operations.correlation import IN_DOUBLE, MOST_SLACK, Correlation
from cudafilter.operations.operation import (
    ROUNDING,
    Fork,
    Plan,
    needs_whole,
    stages_of,
)
from cudafilter.operations.pixels import full_scale
from cudafilter.operations.point import Curve, Points, Threshold

DOUBLE = ROUNDING * IN_DOUBLE
"""As ROUNDING, in double."""


class _Worst(NamedTuple):
    """What some stages make of the worst image, 1 being full scale."""

    roundings: float
    """The error, in units of a rounding, relative to *size*."""
    size: float = 1.0
    """The largest terms."""
    cancels: bool = False
    """Whether results may be small whose terms are not."""


@functools.lru_cache(64)
def between(plan: Plan, dtype: np.dtype[Any], alpha: bool) -> np.dtype[Any]:
    """The type of samples between the stages of *plan*, a chain on integers of *dtype*.

    It is double where float32 may be off by more than MOST_SLACK on some image. Not with means of
    what is alike, which no engine has in double, nor where double would bound nothing either:
    colours may be anything whose alpha is a difference.
    """
    from cudafilter.operations.weighed import Weighed  # most runs do without

    stages = list(stages_of(plan))
    if any(isinstance(each.operation, Weighed) or needs_whole(each) for each in stages):
        return np.dtype(np.float32)
    most = worst(plan, dtype, alpha)
    return np.dtype(np.float64 if MOST_SLACK < most < math.inf else np.float32)


def worst(plan: Plan, dtype: np.dtype[Any], alpha: bool, unit: float = ROUNDING) -> float:
    """How far results of *plan*, a chain on integers of *dtype*, may be off on any image, in steps.

    *unit* is a rounding's error. Infinite where there is no bound.
    """
    found = _worst(plan, _Worst(1.0), dtype.name, alpha, unit)
    return (
        math.inf if found is None else (found.roundings + 1) * unit * found.size * full_scale(dtype)
    )


def _worst(plan: Plan, at: _Worst, dtype: str, alpha: bool, unit: float) -> _Worst | None:
    """*at* after *plan*; None where there is no bound."""
    for each in plan:
        if isinstance(each, Fork):
            more, less = (_worst(branch, at, dtype, alpha, unit) for branch in each)
            if more is None or less is None:
                return None
            rounded = max(more.roundings, less.roundings) + 1
            at = _Worst(rounded, more.size + less.size, True)
            continue
        own, size, cancels = each.operation, at.size, at.cancels
        if isinstance(own, Points):
            for curve in own.curves:
                at = _curved(curve, at, dtype, unit)
            continue
        bounds = own.majorant(alpha, 1.0, True)
        if bounds is None:
            return None
        for bound in bounds:
            if isinstance(bound, Correlation):
                size = bound.amplification() * size + abs(bound.bias)
        if isinstance(own, Correlation):
            kept = alpha and own.alpha == "keep"  # a sum less another
            cancels |= kept or not own.smoothing or own.bias < 0 or own.threshold > 0
        at = _Worst(own.carries(alpha) * at.roundings + own.roundings(dtype, alpha), size, cancels)
    return at


def _curved(curve: Curve, at: _Worst, dtype: str, unit: float) -> _Worst:
    """*at* after *curve*."""
    if isinstance(curve, Threshold):  # only samples right beside it are off, and those by all
        return _Worst(0.0)
    scale, power = 1 / abs(curve.white - curve.black), 1 / curve.gamma
    size, roundings = (at.size + abs(curve.black)) * scale, at.roundings + 6
    cancels = at.cancels or curve.black != 0
    if power == 1:
        return _Worst(roundings, size, cancels)
    if power < 1 and cancels and dtype != "uint8":  # of 8 bits that are a few samples near black
        # It is steepest at black: no two powers are further apart than that of their distance.
        error = 2 * (roundings * unit * size) ** power
        return _Worst(error / unit / size**power + 16, size**power, True)
    return _Worst(max(1.0, power) * roundings + 16 + 4 * power, size**power, cancels)
