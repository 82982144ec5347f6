"""Canny's edges on the CPU, by OpenCV's sums and connected components."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cudafilter.host.cores import each
from cudafilter.operations.borders import Border, extract
from cudafilter.operations.canny import UNIT, Canny, maxima
from cudafilter.operations.pixels import Pixels, full_scale
from cudafilter.operations.point import LEVELS

BAND_SAMPLES = 1 << 19
"""Samples of a band; with those around it they stay in the cache."""


def edges(pixels: Pixels, canny: Canny, border: Border, alpha: bool, threads: int | None) -> Pixels:
    """*pixels*, (H, W, C), after *canny*."""
    height, width, channels = pixels.shape
    out = pixels.copy()
    step = max(16, BAND_SAMPLES // width)
    full = full_scale(pixels.dtype)
    for c in range(channels - alpha):
        channel = np.ascontiguousarray(pixels[..., c : c + 1])
        found = np.empty((2, height, width), np.uint8)

        def mark(y: int, channel: Pixels = channel, found: Pixels = found) -> None:
            end = min(y + step, height)
            found[:, y:end] = _marks(channel, canny, border, (y, end))

        each(mark, range(0, height, step), threads)
        candidates, strong = found
        count, labels = cv2.connectedComponents(candidates, connectivity=8, ltype=cv2.CV_32S)
        kept = np.zeros(count, np.bool_)
        kept[labels[strong != 0]] = True
        out[..., c] = np.where(kept[labels], full, 0)
    return out


def _marks(
    channel: Pixels, canny: Canny, border: Border, rows: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Candidates and strong ones of some *rows*, (2, rows, columns)."""
    (first, end), (height, width, _) = rows, channel.shape
    around = canny.reach[0] + 1  # and the gradients of the rows beside
    block = extract(channel, (first - around, end + around), (-around, width + around), border)
    levels = _levels(block[..., 0])
    weights = np.array(canny.weights, np.float64)
    for axis in (0, 1):  # sums below 2^32 are exact in float64, in any order
        kernels = (weights, np.ones(1)) if axis else (np.ones(1), weights)
        sums = np.asarray(cv2.sepFilter2D(levels, cv2.CV_64F, *kernels), np.float64)
        levels = np.floor((sums + UNIT // 2) / UNIT)
    cut = slice(around - 2, -(around - 2) or None)
    levels = np.ascontiguousarray(levels[cut, cut])  # two more than the rows on each side
    across, down = (cv2.Sobel(levels, cv2.CV_64F, x, 1 - x, ksize=3) for x in (1, 0))
    across, down = across[1:-1, 1:-1], down[1:-1, 1:-1]
    squares = across * across + down * down
    squares[:, 0] = squares[:, -1] = 0  # outside there is no edge
    if first == 0:
        squares[0] = 0
    if end == height:
        squares[-1] = 0
    return np.stack(maxima(across[1:-1, 1:-1], down[1:-1, 1:-1], squares, canny.limits))


def _levels(samples: Pixels) -> npt.NDArray[np.float64]:
    """*samples* as levels of the definition."""
    if samples.dtype.kind == "u":
        return samples * (LEVELS / full_scale(samples.dtype))
    numbers = np.nan_to_num(samples.astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0)
    levels: npt.NDArray[np.float64] = np.rint(np.clip(numbers, 0, 1) * LEVELS)
    return levels
