"""Ranks on the CPU: by OpenCV where it has what makes them, else by NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import cv2
import numpy as np

from cudafilter.engines.block import BORDERS
from cudafilter.engines.medians import medians
from cudafilter.host.cores import each, share
from cudafilter.operations.borders import Border, extract
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.rank import Rank, ranked
from cudafilter.operations.window import square

BAND_BYTES = 4 << 20
"""Size of a band: it stays in the cache, and little of it is halo."""

LEAST_BYTES = 1 << 16
"""Size of a band of what takes long, at least: a thread's start takes as long as a part of it."""

SMALL = (3, 5)
"""Sides of windows of which OpenCV has the median for all types."""

LARGEST = 255
"""Longest side for bytes: OpenCV counts the samples of a window in 16 bits."""

WIDE = 21
"""Side from which on medians that OpenCV lacks are faster by those of bytes than by sorting."""


def band(row_bytes: int, operation: Operation) -> int:
    """Rows of a band, each of so many bytes."""
    above, below, *_ = operation.reach
    return max(16, BAND_BYTES // row_bytes, above + below)


def _takes_long(rank: Rank) -> bool:
    """Whether it takes nanoseconds a sample, not fractions of one."""
    quick = rank.window.inside is None and (rank.is_least or rank.is_largest)
    return not quick and rank.window.count > SMALL[-1] ** 2


def _evenly(rows: int, step: int, row_bytes: int, rank: Rank, cores: int) -> int:
    """Rows of a band, such that *cores* have as many of the *rows*, and little of them is halo.

    About *step*, but where a halo is large, more.
    """
    above, below, *_ = rank.reach
    rounds = -(-rows // (max(step, 8 * (above + below)) * cores))
    return max(-(-rows // (rounds * cores)), 2 * (above + below), LEAST_BYTES // row_bytes, 16)


def rank_of(
    pixels: Pixels,
    rank: Rank,
    border: Border,
    threads: int | None,
    rows: tuple[int, int] | None = None,
) -> Pixels:
    """*rank* of each window of *pixels*, (H, W, C), or of the windows around *rows* of them.

    By bands on so many *threads*.
    """
    height, width, channels = pixels.shape
    top, bottom = rows or (0, height)
    above, below, left, right = rank.reach
    step = band(pixels[0].nbytes, rank)
    # Of floats, the sign of a 0 may be another in other bands.
    if pixels.dtype.kind == "u" and _takes_long(rank):
        step = _evenly(bottom - top, step, pixels[0].nbytes, rank, threads or share())
    run = _of_opencv(rank, pixels.dtype)
    wide = WIDE <= rank.window.shape[0] <= LARGEST and _is_median(rank)

    def found(y: int) -> Pixels:
        end = min(y + step, bottom)
        first, last = y - above, end + below
        # With the rows that a border repeats, were the band but a few rows at the end.
        start = max(0, min(first, height - 1 - below) if last > height else first)
        own = pixels[start : max(last, above + 1)]
        whole = run is not None and border.mode in run.borders

        def around() -> Pixels:
            return extract(pixels, (first, last), (-left, width + right), border)

        block = own if whole else around()
        # OpenCV gives NaN no place.
        if run is None or (block.dtype.kind == "f" and np.isnan(block.min())):
            block = around() if whole else block
            return medians(block, rank.window.shape[0]) if wide else ranked(block, rank)
        if whole:
            return run(block, run.borders[border.mode])[y - start : end - start]
        done = run(block, cv2.BORDER_REPLICATE)
        return done[above : len(block) - below, left : block.shape[1] - right]

    if step >= bottom - top:
        return np.ascontiguousarray(found(top))
    result = np.empty((bottom - top, width, channels), pixels.dtype)

    def run_band(y: int) -> None:
        result[y - top : y - top + step] = found(y)

    each(run_band, range(top, bottom, step), threads)
    return result


class _ByOpenCV(NamedTuple):
    """A rank that OpenCV has."""

    pick: Callable[[Pixels, int], Any]
    """Of a block, with OpenCV's name of what lies outside."""
    borders: Mapping[str, int]
    """The borders that it makes itself, with OpenCV's names."""

    def __call__(self, block: Pixels, outside: int) -> Pixels:
        """The rank of the window around each pixel of *block*."""
        return cast(Pixels, self.pick(block, outside)).reshape(block.shape)


def _of_opencv(rank: Rank, dtype: np.dtype[Any]) -> _ByOpenCV | None:
    """What runs *rank* on *dtype*; None where OpenCV has no such rank."""
    window = rank.window
    if rank.is_least or rank.is_largest:
        extreme = cv2.erode if rank.is_least else cv2.dilate
        (y, x), mask = window.anchor, window.mask.astype(np.uint8)
        return _ByOpenCV(
            lambda block, outside: extreme(block, mask, anchor=(x, y), borderType=outside), BORDERS
        )
    side, _ = window.shape
    if dtype == np.float64 or not _is_median(rank):
        return None
    if not (side in SMALL or (dtype == np.uint8 and side <= LARGEST)):
        return None
    return _ByOpenCV(lambda block, outside: _median(block, side), {"edge": cv2.BORDER_REPLICATE})


def _is_median(rank: Rank) -> bool:
    """Whether it is the median of a square around the pixel."""
    window = rank.window
    return window == square(window.shape[0] // 2) and rank.rank == window.count // 2


def _median(block: Pixels, side: int) -> Pixels:
    """The median around each pixel of *block*, whose border is repeated."""
    if block.shape[2] == 2:  # which OpenCV does not take
        planes = (np.ascontiguousarray(block[..., c]) for c in range(2))
        return np.stack([cv2.medianBlur(plane, side) for plane in planes], axis=2)
    return cast(Pixels, cv2.medianBlur(block, side))
