"""Medians of what OpenCV has none of: wide windows on 16 bits and floats, by its own of bytes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cudafilter.operations.pixels import Pixels

LEAST_TILE = 64
"""Pixels a side of a tile, at least. The fewer samples, the fewer bytes tell their places apart."""

Places = npt.NDArray[Any]


def medians(block: Pixels, side: int) -> Pixels:
    """The median of every window of *side* by *side* pixels that fits into *block*, (H', W', C).

    *side* is odd and at most 255. Returns (H' - side + 1, W' - side + 1, C). NaN sorts last.

    By tiles: what counts of a sample is its place among those of the tile and its halo.
    """
    height, width = (length - side + 1 for length in block.shape[:2])
    out = np.empty((height, width, block.shape[2]), block.dtype)
    tile = max(LEAST_TILE, side)
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            part = block[y : y + tile + side - 1, x : x + tile + side - 1]
            for c in range(block.shape[2]):
                values, places = _placed(part[..., c])
                out[y : y + tile, x : x + tile, c] = values[_of_places(places, len(values), side)]
    return out


def _placed(samples: Pixels) -> tuple[Pixels, Places]:
    """The values among *samples*, sorted, and of each sample the place of its own there.

    As numpy.unique does it, but that several NaN count each, and that 16 bits take a tenth as long.
    """
    order = np.argsort(samples, axis=None, kind="stable" if samples.dtype == np.uint16 else None)
    values = samples.ravel()[order]
    first = np.append(True, values[1:] != values[:-1])
    places = np.empty(order.shape, np.int32)
    places[order] = np.cumsum(first, dtype=np.int32) - 1
    return values[first], places.reshape(samples.shape)


def _of_places(places: Places, count: int, side: int) -> Places:
    """As medians(), of whole numbers from 0 to below *count*, (H', W')."""
    if count <= 256:
        return _of_bytes(places.astype(np.uint8), side).astype(np.int32)
    # The median of anything that keeps the order is that of the median: divided, or clipped.
    step = -(-count // 256)
    span = max(256, step)
    coarse = step * _of_bytes((places // step).astype(np.uint8), side).astype(np.int32)
    out = np.empty_like(coarse)
    left = np.ones(coarse.shape, np.bool_)
    while left.any():
        first = int(coarse[left].min())
        # Those that lie among *span* numbers from there on, and what the windows around them hold.
        now = left & (coarse <= first + span - step)
        (top, bottom), (start, end) = (
            np.flatnonzero(now.any(axis=axis))[[0, -1]] for axis in (1, 0)
        )
        box = np.s_[top : bottom + 1, start : end + 1]
        part = places[top : bottom + side, start : end + side]
        found = first + _of_places(np.clip(part - first, 0, span - 1), span, side)
        np.copyto(out[box], found, where=now[box])
        left &= ~now
    return out


def _of_bytes(block: npt.NDArray[np.uint8], side: int) -> Places:
    """As medians(), of bytes, (H', W')."""
    reach = side // 2
    height, width = block.shape
    return cv2.medianBlur(block, side)[reach : height - reach, reach : width - reach]
