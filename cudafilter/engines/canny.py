"""Canny's edges on the CPU: NumPy's whole numbers tile by tile, OpenCV's connected components."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from cudafilter.host.cores import each
from cudafilter.operations.borders import Border, extract
from cudafilter.operations.canny import TANGENT, UNIT, Canny
from cudafilter.operations.pixels import Pixels, full_scale
from cudafilter.operations.point import LEVELS

ROWS, COLUMNS = 64, 1024
"""Pixels of a tile: what is made of a channel stays in the cache."""

Mask = npt.NDArray[np.bool_]
Marks = npt.NDArray[np.uint8]
Whole = npt.NDArray[np.uint32]
Signed = npt.NDArray[np.int32]
Squares = npt.NDArray[np.float64]

Area = tuple[tuple[int, int], tuple[int, int]]
"""Rows and columns: the first one, and the one past the last."""


def edges(pixels: Pixels, canny: Canny, border: Border, alpha: bool, threads: int | None) -> Pixels:
    """*pixels*, (H, W, C), after *canny*."""
    height, width, channels = pixels.shape
    weak, found = np.empty((2, channels - alpha, height, width), np.uint8)
    rows = max(ROWS, len(canny.weights) // 2)  # or more would be read around it than in it
    columns = max(COLUMNS, len(canny.weights) // 2)
    tiles = [(y, x) for y in range(0, height, rows) for x in range(0, width, columns)]

    def mark(tile: tuple[int, int]) -> None:
        y, x = tile
        area = (y, min(y + rows, height)), (x, min(x + columns, width))
        _mark(pixels, area, canny, border, weak, found)

    each(mark, tiles, threads)
    each(lambda c: _follow(weak[c], found[c]), range(len(weak)), threads)
    out = np.empty_like(pixels)

    def show(y: int) -> None:
        own = out[y : y + rows]
        planes = [*found[:, y : y + rows]]
        if pixels.dtype != np.uint8:
            full = out.dtype.type(full_scale(out.dtype))
            planes = [(plane != 0) * full for plane in planes]
        if alpha:
            planes.append(np.ascontiguousarray(pixels[y : y + rows, :, -1]))
        cv2.merge(planes, own)

    each(show, range(0, height, rows), threads)
    return out


def _mark(
    pixels: Pixels, area: Area, canny: Canny, border: Border, weak: Marks, found: Marks
) -> None:
    """Put 255 where there is an edge in the *area*: *found*, or *weak* and to be followed.

    Neighbours are looked up by how far apart they lie in memory. So there is nonsense where a row
    ends, too far from the area to be looked at.
    """
    (colours, height, width), ((top, end), (left, right)) = weak.shape, area
    around = canny.reach[0] + 1  # and the gradients beside
    block = extract(pixels, (top - around, end + around), (left - around, right + around), border)
    low, high = canny.limits
    rows, row = end - top, block.shape[1]
    for c, plane in enumerate(cv2.split(block)[:colours]):
        levels = _blurred(_blurred_down(plane, canny.weights), canny.weights, 1)
        across, down = _gradients(levels.view(np.int32), row)
        # From the pixel before the first one, in the row above it.
        squares = np.empty((rows + 2, row))
        inside = squares.ravel()[: len(across)]
        np.copyto(inside, across)
        inside *= inside
        more = down.astype(np.float64)
        more *= more
        inside += more
        if left == 0:
            squares[:, 0] = 0
        if right == width:
            squares[:, right - left + 1] = 0
        if top == 0:
            squares[0] = 0
        if end == height:
            squares[-1] = 0
        own = slice(row + 1, len(across) - row - 1)
        largest, strong = np.empty((2, rows, row), np.bool_)
        edge = largest.ravel()[: own.stop - own.start]
        _largest(across[own], down[own], inside, row, edge)
        size = inside[own]
        edge &= size >= low
        kept = strong.ravel()[: len(edge)]
        np.greater_equal(size, high, out=kept)
        kept &= edge
        edge ^= kept
        for marks, mask in ((weak, largest), (found, strong)):
            np.negative(mask[:, : right - left].view(np.uint8), out=marks[c, top:end, left:right])


def _blurred_down(samples: Pixels, weights: tuple[int, ...]) -> Whole:
    """Levels of *samples*, blurred down where all weights fit, 1-D."""
    row = samples.shape[1]
    if samples.dtype != np.uint8:
        return _blurred(_levels(samples), weights, row)
    # Their sums are below 2^24, and exact in float32.
    sums = cv2.sepFilter2D(samples, cv2.CV_32F, np.ones(1), np.array(weights, np.float64))
    radius = len(weights) // 2
    levels = sums[radius : len(sums) - radius].astype(np.int32).view(np.uint32).ravel()
    levels *= np.uint32(257)
    return _to_levels(levels)


def _levels(samples: Pixels) -> Whole:
    """*samples* as levels of the definition, 1-D."""
    if samples.dtype.kind == "u":
        return samples.astype(np.uint32).ravel()
    numbers = np.nan_to_num(samples.astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(np.clip(numbers, 0, 1) * LEVELS).astype(np.uint32).ravel()


def _blurred(levels: Whole, weights: tuple[int, ...], apart: int) -> Whole:
    """*levels* blurred with those so far *apart*, where these are there."""
    radius = len(weights) // 2
    if radius == 0:
        return levels
    n = len(levels) - 2 * radius * apart
    at = [levels[i * apart : i * apart + n] for i in range(len(weights))]
    sums = at[radius] * np.uint32(weights[radius])
    two = np.empty_like(sums)
    for i in range(radius):
        np.add(at[i], at[-1 - i], out=two)
        two *= np.uint32(weights[i])
        sums += two
    return _to_levels(sums)


def _to_levels(sums: Whole) -> Whole:
    """*sums* by weights of UNIT, in their place; halves go up."""
    sums += np.uint32(UNIT // 2)  # still below 2^32
    sums >>= np.uint32(16)
    return sums


def _gradients(levels: Signed, row: int) -> tuple[Signed, Signed]:
    """Sobel's, across and down, but for a row and a sample on each side: of sums of 2 x 2."""
    two = levels[:-1] + levels[1:]
    four = two[:-row] + two[row:]
    n = len(four) - row - 1
    one = four[row + 1 :] - four[:n]
    other = four[1 : n + 1] - four[row : row + n]
    across = one + other
    one -= other
    return across, one


def _largest(across: Signed, down: Signed, squares: Squares, row: int, out: Mask) -> None:
    """Which *squares* are the largest along their gradient, into *out*.

    They begin a row and a sample before the gradients, and end as much behind.
    """
    flat, steep = np.abs(across).view(np.uint32), np.abs(down).view(np.uint32)
    falls: Mask = (across ^ down) < 0

    def peak(apart: int) -> Mask:
        """Which are larger than the one so far before them, and no smaller than that behind."""
        rises = squares[row + 1 :] > squares[row + 1 - apart : -apart]
        largest: Mask = rises[: len(out)] > rises[apart : apart + len(out)]
        return largest

    np.bitwise_and(peak(row - 1), falls, out=out)
    out |= peak(row + 1) > falls
    level: Mask = _part(flat) > steep
    upright: Mask = _part(steep) > flat
    out &= ~(level | upright)
    level &= peak(1)
    out |= level
    upright &= peak(row)
    out |= upright


def _part(size: Whole) -> Whole:
    """The least whole numbers that are no less than *size* times the tangent of 22.5 degrees."""
    part = size * np.uint32(TANGENT)
    part += np.uint32((1 << 15) - 1)
    part >>= np.uint32(15)
    return part


def _follow(weak: Marks, found: Marks) -> None:
    """Find all *weak* ones that touch a found one."""
    touch = cv2.bitwise_and(cv2.dilate(found, np.ones((3, 3), np.uint8)), weak)
    if not cv2.countNonZero(touch):
        return
    count, joined = cv2.connectedComponents(weak, connectivity=8, ltype=cv2.CV_32S)
    at = np.flatnonzero(weak.view(np.bool_))
    labels = cast(Signed, joined).ravel()[at]
    kept = np.zeros(count, np.bool_)
    kept[labels[touch.ravel()[at] != 0]] = True
    found.ravel()[at[kept[labels]]] = 255
