"""The definition of every operation's result: NumPy, float64, as plain as it can be.

Engines are compared with this. It pads the image; the operation says what becomes of it.
"""

from __future__ import annotations

import numpy as np

from cudafilter.operations.borders import OUTSIDE, Border, border_index
from cudafilter.operations.operation import Fork, Operation, Plan
from cudafilter.operations.pixels import Exact, Pixels, full_scale, quantise


def apply(
    pixels: Pixels, operation: Operation, border: Border = Border(), alpha: bool = False
) -> Pixels:
    """The filtered image, rounded and clamped to the type of *pixels*, (H, W, C)."""
    with np.errstate(over="ignore"):  # past float32's range lies infinity
        return quantise(exact(pixels, operation, border, alpha), pixels.dtype)


def exact(
    pixels: Pixels,
    operation: Operation,
    border: Border = Border(),
    alpha: bool = False,
    rows: tuple[int, int] | None = None,
) -> Exact:
    """The operation's result in native units before rounding and clamping, (H, W, C) float64.

    *alpha* says that the last channel is alpha. *rows* asks for rows ``rows[0]..rows[1]-1`` only.
    """
    first, last = rows if rows is not None else (0, pixels.shape[0])
    with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, unsaid
        return _rows(pixels, operation.unrolled(border), alpha, first, last)


def _rows(pixels: Pixels, plan: Plan, alpha: bool, first: int, last: int) -> Exact:
    """Rows *first* to *last* - 1 of the image after *plan*.

    A border repeats the rows of the image that its stage gets, so any of these may be needed.
    """
    if not plan:
        return pixels[first:last].astype(np.float64)
    *before, final = plan
    if isinstance(final, Fork):
        return _difference(pixels, tuple(before), final, alpha, first, last)
    operation, border = final
    above, below, left, right = operation.reach
    height, width = pixels.shape[:2]
    index = border_index(first - above, last + below, height, border.mode)
    columns = border_index(-left, width + right, width, border.mode)
    needed = np.unique(index[index != OUTSIDE])
    runs = np.split(needed, np.flatnonzero(np.diff(needed) > 1) + 1)
    there = [_rows(pixels, tuple(before), alpha, run[0], run[-1] + 1) for run in runs]
    block = np.take(np.concatenate(there), np.searchsorted(needed, index), axis=0)
    padded = np.take(block, columns, axis=1)
    padded[index == OUTSIDE] = border.sample(pixels.dtype)
    padded[:, columns == OUTSIDE] = border.sample(pixels.dtype)
    source = block[above : above + last - first]
    return operation.exact(padded, source, full_scale(pixels.dtype), alpha)


def _difference(
    pixels: Pixels, before: Plan, fork: Fork, alpha: bool, first: int, last: int
) -> Exact:
    """Rows *first* to *last* - 1 of what *fork* makes of the image after *before*."""
    more, less = (_rows(pixels, before + branch, alpha, first, last) for branch in fork)
    out: Exact = more - less
    if alpha:
        out[..., -1] = _rows(pixels, before, alpha, first, last)[..., -1]
    return out
