"""Canny's edges on the CPU, by OpenCV's sums and connected components."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from cudafilter.host.cores import each
from cudafilter.operations.borders import Border, extract
from cudafilter.operations.canny import TANGENT, UNIT, Canny, maxima
from cudafilter.operations.pixels import Pixels, full_scale
from cudafilter.operations.point import LEVELS

BAND_SAMPLES = 1 << 19
"""Samples of a band; with those around it they stay in the cache."""


MOST_LARGE = 0.15
"""Share of samples with a large gradient up to which these are looked at one by one."""

Mask = npt.NDArray[np.uint8]
Index = npt.NDArray[np.intp]
Labels = npt.NDArray[np.int32]
Levels = npt.NDArray[np.float64]


def edges(pixels: Pixels, canny: Canny, border: Border, alpha: bool, threads: int | None) -> Pixels:
    """*pixels*, (H, W, C), after *canny*."""
    height, width, channels = pixels.shape
    out = np.zeros_like(pixels)
    if alpha:
        out[..., -1] = pixels[..., -1]
    step = max(16, BAND_SAMPLES // width)
    full = full_scale(pixels.dtype)
    for c in range(channels - alpha):
        channel = cv2.extractChannel(pixels, c)[..., None]
        candidates = np.zeros((height, width), np.uint8)

        def mark(y: int, channel: Pixels = channel, candidates: Mask = candidates) -> Index:
            end = min(y + step, height)
            found, strong = _marks(channel, canny, border, (y, end))
            found += y * width
            candidates.ravel()[found] = 1
            return found[strong]

        strong = np.concatenate(each(mark, range(0, height, step), threads))
        if not strong.size:
            continue
        count, joined = cv2.connectedComponents(candidates, connectivity=8, ltype=cv2.CV_32S)
        labels = cast(Labels, joined)
        kept = np.zeros(count, np.uint8)
        kept[labels.ravel()[strong]] = 1

        def show(y: int, c: int = c, labels: Labels = labels, kept: Mask = kept) -> None:
            out[y : y + step, :, c] = kept.take(labels[y : y + step]) * full

        each(show, range(0, height, step), threads)
    return out


def _marks(
    channel: Pixels, canny: Canny, border: Border, rows: tuple[int, int]
) -> tuple[Index, npt.NDArray[np.bool_]]:
    """Candidates of some *rows*, counted from the first one's first sample, and which are strong.

    As maxima() of the definition has it, but only where a gradient is large enough.
    """
    (first, end), (height, width, _) = rows, channel.shape
    around = canny.reach[0] + 1  # and the gradients of the rows beside
    block = extract(channel, (first - around, end + around), (-around, width + around), border)
    levels = _levels(block[..., 0])
    if len(canny.weights) > 1:
        weights = np.array(canny.weights, np.float64)
        for kernels in ((np.ones(1), weights), (weights, np.ones(1))):
            # Sums below 2^32 are exact in float64, in any order.
            levels = cast(Levels, cv2.sepFilter2D(levels, cv2.CV_64F, *kernels))
            levels += UNIT // 2
            levels *= 1 / UNIT
            np.floor(levels, out=levels)
    # Two more than the rows and columns on each side.
    cut = slice(around - 2, -(around - 2) or None)
    levels = np.ascontiguousarray(levels[cut, cut])
    across, down = (cv2.Sobel(levels, cv2.CV_64F, x, 1 - x, ksize=3) for x in (1, 0))
    squares = across * across
    squares += cv2.multiply(down, down)
    # Outside there is no edge. What is outside the block is only looked at.
    squares[:, :2] = squares[:, -2:] = 0
    if first == 0:
        squares[:2] = 0
    if end == height:
        squares[-2:] = 0
    low, high = canny.limits
    large = squares >= low
    large[:2] = large[-2:] = False
    at, row = np.flatnonzero(large), squares.shape[1]
    if len(at) > MOST_LARGE * squares.size:
        inner = slice(2, -2), slice(2, -2)
        all_of_them = maxima(across[inner], down[inner], squares[1:-1, 1:-1], canny.limits)
        found = np.flatnonzero(all_of_them[0])
        return found, all_of_them[1].ravel().take(found)
    flat, steep = across.take(at), down.take(at)
    aslant = np.where((flat > 0) == (steep > 0), row + 1, row - 1)
    np.abs(flat, out=flat)
    np.abs(steep, out=steep)
    behind = np.where(flat * 32768 < steep * TANGENT, row, aslant)
    behind[steep * 32768 < flat * TANGENT] = 1
    size = squares.take(at)
    largest = size > squares.take(at - behind)
    largest &= size >= squares.take(at + behind)
    y, x = np.divmod(at[largest], row)
    return (y - 2) * width + (x - 2), size[largest] >= high


def _levels(samples: Pixels) -> npt.NDArray[np.float64]:
    """*samples* as levels of the definition."""
    if samples.dtype.kind == "u":
        levels = np.asarray(samples, np.float64)
        levels *= LEVELS / full_scale(samples.dtype)
        return levels
    numbers = np.nan_to_num(samples.astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0)
    return np.asarray(np.rint(np.clip(numbers, 0, 1) * LEVELS))
