"""Ranks on the CPU: OpenCV where it has them, else NumPy."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from cudafilter.host.cores import each
from cudafilter.operations.borders import Border, extract
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.rank import Rank, ranked

BAND_BYTES = 4 << 20
"""Size of a band: it stays in the cache, and little of it is halo."""

SMALL = (3, 5)
"""Sides of the windows whose median OpenCV has for all types."""

LARGEST = 255
"""Longest side for bytes: OpenCV counts the samples of a window in 16 bits."""


def rank_of(pixels: Pixels, rank: Rank, border: Border, threads: int | None) -> Pixels:
    """*rank* of each window of *pixels*, (H, W, C), by bands on so many *threads*."""
    height, width, _ = pixels.shape
    radius = rank.radius
    step = max(16, BAND_BYTES // pixels[0].nbytes, 2 * radius)
    out = np.empty_like(pixels)

    def run_band(y: int) -> None:
        end = min(y + step, height)
        block = extract(pixels, (y - radius, end + radius), (-radius, width + radius), border)
        done = _by_opencv(block, rank)
        out[y:end] = ranked(block, rank) if done is None else done

    each(run_band, range(0, height, step), threads)
    return out


def _by_opencv(block: Pixels, rank: Rank) -> Pixels | None:
    """*rank* of the windows within *block*; None where OpenCV has no such rank."""
    side, radius = 2 * rank.radius + 1, rank.radius
    if block.dtype.kind == "f" and np.isnan(block).any():  # OpenCV gives NaN no place
        return None
    if rank.rank in (0, rank.count - 1):
        pick = cv2.dilate if rank.rank else cv2.erode
        done = pick(block, np.ones((side, side), np.uint8))
    elif rank.rank != rank.count // 2:
        return None
    elif side in SMALL or (block.dtype == np.uint8 and side <= LARGEST):
        if block.shape[2] == 2:  # which OpenCV does not take
            planes = (np.ascontiguousarray(block[..., c]) for c in range(2))
            done = np.stack([cv2.medianBlur(plane, side) for plane in planes], axis=2)
        else:
            done = cv2.medianBlur(block, side)
    else:
        return None
    inner = cast(Pixels, done).reshape(block.shape)
    return inner[radius : len(block) - radius, radius : block.shape[1] - radius]
