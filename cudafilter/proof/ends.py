"""What is done around a filter in an area or in light, proven: each step is exact.

The steps are held to what they must be rather than done again: a quotient is the nearest number, a
sample has bounds in light. So a bit that flips there is found, too.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cudafilter.operations.area import FULL, Weights
from cudafilter.operations.blend import parts
from cudafilter.operations.light import Light
from cudafilter.operations.pixels import Pixels, bands
from cudafilter.proof.values import Mask

BAND_SAMPLES = 1 << 18


def wrong_blend(
    result: Pixels, source: Pixels, filtered: Pixels, weights: Weights, alpha: bool
) -> tuple[int, int, int] | None:
    """x, y and channel of a sample of *result* that is no blend; None where all are. See blend().

    All are (N, W, C), but for *weights*, which are (N, W).
    """

    def look(band: slice) -> Mask:
        got, own, other = result[band], source[band], filtered[band]
        weight = weights[band][..., None]
        wrong: Mask = np.where(weight == FULL, _differ(got, other), _differ(got, own))
        y, x = np.nonzero((weight[..., 0] > 0) & (weight[..., 0] < FULL))
        if len(y):
            above, below = parts(own[y, x], other[y, x], weight[y, x, 0], alpha)
            if above.dtype.kind == "f":
                wrong[y, x] = _differ(got[y, x], (above / below).astype(got.dtype))
            else:
                whole = below.astype(np.int64)
                off = got[y, x] * whole - above.astype(np.int64)  # below 2^49
                tie = 2 * np.abs(off) == whole
                wrong[y, x] = (2 * np.abs(off) > whole) | (tie & (got[y, x] & 1 == 1))
        return wrong

    return _first(look, result)


def wrong_samples(result: Pixels, light: Pixels, way: Light) -> tuple[int, int, int] | None:
    """x, y and channel of a sample of *result* that *light* does not round to; None for none."""

    def look(band: slice) -> Mask:
        got, given = result[band], light[band]
        low, high = way.bounds(got)
        even = got & 1 == 0
        above = (low < given) | (even & (low == given)) | np.isneginf(low)
        right = above & ((given < high) | (even & (given == high)) | np.isposinf(high))
        wrong: Mask = ~(right | (np.isnan(given) & (got == 0)))
        return wrong

    return _first(look, result)


def _differ(one: Pixels, other: Pixels) -> Mask:
    differ: Mask = (one != other) & ~(np.isnan(one) & np.isnan(other))
    return differ


def _first(look: Callable[[slice], Mask], pixels: Pixels) -> tuple[int, int, int] | None:
    with np.errstate(all="ignore"):  # NaN and infinity are results like others
        for band in bands(pixels, BAND_SAMPLES):
            wrong = look(band)
            if wrong.any():
                y, x, channel = np.argwhere(wrong)[0].tolist()
                return x, band.start + y, channel
    return None
