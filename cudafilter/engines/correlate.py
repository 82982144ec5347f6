"""Correlations by OpenCV, and what keeps a sample from reaching further than its taps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from cudafilter.operations.kernel import Weights
from cudafilter.operations.pixels import Pixels

Work = npt.NDArray[np.floating]
Correlate = Callable[[Work, Weights, tuple[int, int], int], Work]

DIRECT = {"float32": 130, "float64": 50}
"""Taps of a dense kernel from which on OpenCV takes a Fourier transform, by working type."""

PIECE = 64
"""Taps that float32 may sum one after the other, or a row of a kernel: what the contract allows."""

LEVEL, LEVEL_OF_TAPS = 2.0**-17, 2.0**-7
"""Least share of the largest sample, and of the largest tap, of what goes through a Fourier
transform with it: noise of 1e-15 of the largest product is then below float32's last digit of the
least."""


def local(block: Work, weights: Weights, anchor: tuple[int, int], border: int) -> Work:
    """As filter2d, but a sample reaches only pixels with a tap on it, even as rounding noise.

    By a Fourier transform in float64. Where it could drown what a pixel taps, it takes samples and
    taps level by level of size, and each result counts only where such a tap is on such a sample.
    What taps NaN or infinity is NaN.
    """
    if weights.size < DIRECT[block.dtype.name]:
        # OpenCV adds tap by tap, and errors grow with their number; taps of 0 take no time.
        step = max(1, PIECE // weights.shape[1])
        rows = np.arange(len(weights))[:, None] // step
        first, *rest = (np.where(rows == n, weights, 0) for n in range(rows.max() + 1))
        done = filter2d(block, first, anchor, border)
        for piece in rest:
            done += filter2d(block, piece, anchor, border)
        return done
    odd = None
    if not np.isfinite(block).all():
        odd = ~np.isfinite(block)
        block = np.where(odd, 0, block)
    samples, taps = _levels(block, LEVEL), _levels(weights, LEVEL_OF_TAPS)
    large = next(samples, np.broadcast_to(True, block.shape))
    largest = next(taps, weights != 0)
    if _drowns_nothing(large, np.where(largest, weights, 0), anchor, border):
        out = filter2d(block.astype(np.float64), weights, anchor, border)
    else:
        out = np.zeros(block.shape)
        parts = [np.where(level, weights, 0) for level in (largest, *taps)]
        for level in (large, *samples):
            part = np.where(level, block, 0).astype(np.float64)
            for some in parts:
                done = filter2d(part, some, anchor, border)
                done[~_reached(level, some, anchor, border)] = 0
                out += done
    if odd is not None:
        out[_reached(odd, weights, anchor, border)] = np.nan
    return out.astype(block.dtype, copy=False)


def _levels(numbers: Work, least: float) -> Iterator[npt.NDArray[np.bool_]]:
    """Which of *numbers* are of one size, the largest first: at least so much of the largest."""
    size = np.abs(numbers)
    while (most := size.max()) > 0:
        # Their product may be 0: what is done already has that size.
        level = (size > 0) & (size >= most * size.dtype.type(least))
        yield level
        size[level] = 0


def _drowns_nothing(
    large: npt.NDArray[np.bool_], largest: Weights, anchor: tuple[int, int], border: int
) -> bool:
    """Whether each pixel has one of the *largest* taps on a *large* sample."""
    if large.all():
        return True
    # A window with more large samples than other taps has one of these taps on one of them.
    others = np.count_nonzero(largest == 0)
    if _count(large, largest.shape, anchor, border).min() > others:
        return True
    return bool(_reached(large, largest, anchor, border).all())


def _reached(
    samples: npt.NDArray[np.bool_], weights: Weights, anchor: tuple[int, int], border: int
) -> npt.NDArray[np.bool_]:
    """Where *weights* have a tap on one of *samples*."""
    if np.count_nonzero(weights) < weights.size:
        taps = (weights != 0).astype(np.float32)
        return filter2d(samples.astype(np.float32), taps, anchor, border) > 0.5
    return _count(samples, weights.shape, anchor, border) > 0


def _count(
    samples: npt.NDArray[np.bool_], size: tuple[int, ...], anchor: tuple[int, int], border: int
) -> npt.NDArray[np.int32]:
    """How many of *samples* windows of *size*, rows and columns, have."""
    counts = cv2.boxFilter(
        samples.view(np.uint8), cv2.CV_32S, (size[1], size[0]), None, anchor, False, border
    )
    return cast("npt.NDArray[np.int32]", counts).reshape(samples.shape)


def filter2d(block: Work, weights: Weights, anchor: tuple[int, int], border: int) -> Work:
    """*weights* over *block*, by OpenCV's Fourier transform if they are many.

    *anchor* is (x, y). The result has the shape of *block*.
    """
    done = cv2.filter2D(block, -1, weights, anchor=anchor, borderType=border)
    return cast(Work, done).reshape(block.shape)  # OpenCV drops a last axis of 1


def separable(
    block: Pixels,
    column: Weights,
    row: Weights,
    anchor: tuple[int, int],
    border: int,
    work: np.dtype[np.floating],
) -> Work:
    """As filter2d with ``outer(column, row)``, but summed tap by tap, in the type *work*."""
    depth = cv2.CV_64F if work == np.float64 else cv2.CV_32F
    done = cv2.sepFilter2D(block, depth, row, column, anchor=anchor, borderType=border)
    return cast(Work, done).reshape(block.shape)


def tap_by_tap(block: Work, weights: Weights, anchor: tuple[int, int], border: int) -> Work:
    """As filter2d, but never by a Fourier transform: a sum of zeros is 0, however many taps.

    In float64: over thousands of taps, float32 loses more than the contract allows. It holds only
    where no tap leaves *block*.
    """
    x, y = anchor
    if weights.shape[1] == 1 < len(weights):  # rows are several times as fast as columns
        turned = np.ascontiguousarray(block.swapaxes(0, 1))
        return tap_by_tap(turned, weights.T, (y, x), border).swapaxes(0, 1)
    block = block.astype(np.float64, copy=False)
    out = np.zeros_like(block)
    height = len(block) - len(weights) + 1
    for i, taps in enumerate(weights):
        band = block[i : i + height]
        out[y : y + height] += separable(band, np.ones(1), taps, (x, 0), border, block.dtype)
    return out
