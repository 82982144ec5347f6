"""Ranks on the CPU: OpenCV where it has them, else NumPy."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from cudafilter.host.cores import each
from cudafilter.operations.borders import Border, extract
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.rank import Rank, ranked
from cudafilter.operations.window import square

BAND_BYTES = 4 << 20
"""Size of a band: it stays in the cache, and little of it is halo."""

SMALL = (3, 5)
"""Sides of the windows whose median OpenCV has for all types."""

LARGEST = 255
"""Longest side for bytes: OpenCV counts the samples of a window in 16 bits."""


def rank_of(pixels: Pixels, rank: Rank, border: Border, threads: int | None) -> Pixels:
    """*rank* of each window of *pixels*, (H, W, C), by bands on so many *threads*."""
    height, width, _ = pixels.shape
    above, below, left, right = rank.reach
    step = max(16, BAND_BYTES // pixels[0].nbytes, above + below)
    out = np.empty_like(pixels)

    def run_band(y: int) -> None:
        end = min(y + step, height)
        block = extract(pixels, (y - above, end + below), (-left, width + right), border)
        done = _by_opencv(block, rank)
        if done is None:
            out[y:end] = ranked(block, rank)
        else:
            out[y:end] = done[above : len(block) - below, left : block.shape[1] - right]

    each(run_band, range(0, height, step), threads)
    return out


def _by_opencv(block: Pixels, rank: Rank) -> Pixels | None:
    """*rank* of the windows around each pixel of *block*; None where OpenCV has no such rank.

    What reaches past *block* is not right.
    """
    if block.dtype.kind == "f" and np.isnan(block).any():  # OpenCV gives NaN no place
        return None
    if rank.is_least or rank.is_largest:
        pick = cv2.erode if rank.is_least else cv2.dilate
        (y, x), mask = rank.window.anchor, rank.window.mask.astype(np.uint8)
        return cast(Pixels, pick(block, mask, anchor=(x, y))).reshape(block.shape)
    (side, _), window = rank.window.shape, rank.window
    if rank.rank != window.count // 2 or window != square(side // 2):
        return None
    if not (side in SMALL or (block.dtype == np.uint8 and side <= LARGEST)):
        return None
    if block.shape[2] == 2:  # which OpenCV does not take
        planes = (np.ascontiguousarray(block[..., c]) for c in range(2))
        return np.stack([cv2.medianBlur(plane, side) for plane in planes], axis=2)
    return cast(Pixels, cv2.medianBlur(block, side)).reshape(block.shape)
