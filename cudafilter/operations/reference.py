"""The definition of every operation's result: NumPy, float64, as plain as it can be.

Engines are compared with this. It pads the image; the operation says what becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cudafilter.operations.borders import OUTSIDE, Border, border_index
from cudafilter.operations.operation import Fork, Operation, Plan, Stage, needs_whole
from cudafilter.operations.pixels import Exact, Pixels, full_scale, quantise

Span = tuple[int, int]
"""The first one, and the one past the last."""

Index = npt.NDArray[np.intp]


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
    rows: Span | None = None,
    columns: Span | None = None,
) -> Exact:
    """The operation's result in native units before rounding and clamping, (H, W, C) float64.

    *alpha* says that the last channel is alpha. *rows* asks for rows ``rows[0]..rows[1]-1`` only,
    *columns* for such columns: each value has the same bits then.
    """
    height, width = pixels.shape[:2]
    with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, unsaid
        plan = operation.unrolled(border)
        return _block(pixels, plan, alpha, rows or (0, height), columns or (0, width))


def _block(pixels: Pixels, plan: Plan, alpha: bool, rows: Span, columns: Span) -> Exact:
    """The block *rows* by *columns* of the image after *plan*.

    A border repeats parts of the image that its stage gets, so any of these may be needed.
    """
    if not plan:
        return pixels[slice(*rows), slice(*columns)].astype(np.float64)
    *before, final = plan
    if isinstance(final, Fork):
        return _difference(pixels, tuple(before), final, alpha, rows, columns)
    operation, border = final
    above, _, left, _ = operation.reach
    height, width = pixels.shape[:2]
    if needs_whole(final) and (rows, columns) != ((0, height), (0, width)):
        whole = _block(pixels, plan, alpha, (0, height), (0, width))
        return whole[slice(*rows), slice(*columns)]
    padded = surrounded(
        lambda y, x: _block(pixels, tuple(before), alpha, y, x),
        (height, width),
        final,
        (rows, columns),
        border.sample(pixels.dtype),
    )
    (first, last), (start, stop) = rows, columns
    source = padded[above : above + last - first, left : left + stop - start]
    return operation.exact(padded, source, full_scale(pixels.dtype), alpha)


def surrounded(
    block: Callable[[Span, Span], Exact],
    size: Span,
    stage: Stage,
    within: tuple[Span, Span],
    constant: float | Exact,
) -> Exact:
    """Rows and columns *within* an image with as much around them as *stage* reaches.

    *block* gives rows by columns of the image, which has *size*; *constant* is what the border of
    that name repeats, for all channels or each.
    """
    (rows, columns), (above, below, left, right) = within, stage.operation.reach
    down = border_index(rows[0] - above, rows[1] + below, size[0], stage.border.mode)
    across = border_index(columns[0] - left, columns[1] + right, size[1], stage.border.mode)
    there = [np.concatenate([block(y, x) for x in _runs(across)], axis=1) for y in _runs(down)]
    gathered = np.take(np.concatenate(there), np.searchsorted(_needed(down), down), axis=0)
    padded = np.take(gathered, np.searchsorted(_needed(across), across), axis=1)
    padded[down == OUTSIDE] = constant
    padded[:, across == OUTSIDE] = constant
    return padded


def _needed(index: Index) -> Index:
    """The positions of the image in *index*, each once, in order."""
    return np.unique(index[index != OUTSIDE])


def _runs(index: Index) -> list[Span]:
    """The runs of neighbours among the positions of the image in *index*."""
    needed = _needed(index)
    runs = np.split(needed, np.flatnonzero(np.diff(needed) > 1) + 1)
    return [(int(run[0]), int(run[-1]) + 1) for run in runs]


def _difference(
    pixels: Pixels, before: Plan, fork: Fork, alpha: bool, rows: Span, columns: Span
) -> Exact:
    """The block *rows* by *columns* of what *fork* makes of the image after *before*."""
    more, less = (_block(pixels, before + branch, alpha, rows, columns) for branch in fork)
    out: Exact = more - less
    if alpha:
        out[..., -1] = _block(pixels, before, alpha, rows, columns)[..., -1]
    return out
