"""Canny's edges, in whole numbers and tile by tile; see operations/canny.py.

All channels have the same bits as the definition's. Neighbours are looked up by how far apart they
lie in memory: rows have a column more on each side, where there is no edge.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cudafilter.host.cores import cores, each
from cudafilter.operations.borders import Border
from cudafilter.operations.canny import TANGENT, UNIT, Canny
from cudafilter.operations.pixels import Pixels, full_scale
from cudafilter.operations.point import LEVELS, levels_of
from cudafilter.proof.planes import Image
from cudafilter.proof.values import Mask

ROWS, COLUMNS = 64, 1024
"""Pixels at a time: what is made of them stays in the cache."""

ROUNDS = 8
"""How often all samples of a tile are looked at for those that touch an edge."""

WEAK, FOUND = 1, 2
"""Marks of samples: may be an edge, is one."""

Whole = npt.NDArray[np.uint32]
Marks = npt.NDArray[np.uint8]

Span = tuple[int, int]
"""The first one, and the one past the last."""


def edges(pixels: Pixels, canny: Canny, border: Border, alpha: bool) -> Pixels:
    """*pixels*, (H, W, C), after *canny*."""
    height, width, channels = pixels.shape
    out = np.empty_like(pixels)
    full = out.dtype.type(full_scale(pixels.dtype))
    bands = range(0, height, ROWS)
    for c in range(channels - alpha):
        image = Image(pixels[..., c : c + 1], border)
        marks = np.zeros((height + 2, width + 2), np.uint8)

        def mark(y: int, image: Image = image, marks: Marks = marks) -> None:
            _mark(marks, image, canny, (y, min(y + ROWS, height)))

        def show(y: int, c: int = c, marks: Marks = marks) -> None:
            own = marks[y + 1 : min(y + ROWS, height) + 1, 1:-1]
            np.multiply(own == FOUND, full, out=out[y : y + ROWS, :, c])

        each(mark, bands, cores())
        _follow(marks, bands)
        each(show, bands, cores())
    if alpha:
        out[..., -1] = pixels[..., -1]
    return out


def _mark(marks: Marks, image: Image, canny: Canny, rows: Span) -> None:
    """Mark what *rows* of the *image* show, which has one channel."""
    around = len(canny.weights) // 2 + 2  # two gradients side by side need four levels
    padded = image.padded((rows[0] - around, rows[1] + around), (-around, image.width + around))
    for left in range(0, image.width, COLUMNS):
        columns = left, min(left + COLUMNS, image.width)
        samples = padded[:, 0, left : columns[1] + 2 * around]
        _mark_tile(marks[1:-1, 1:-1], samples, canny, rows, columns)


def _mark_tile(marks: Marks, samples: Pixels, canny: Canny, rows: Span, columns: Span) -> None:
    """_mark() of some *columns*, by their *samples* and those around."""
    ((first, end), (left, right)), (height, width) = (rows, columns), marks.shape
    levels = _blurred(_blurred(_levels(samples), canny.weights, 0), canny.weights, 1)
    across, down, squares = _gradients(levels.view(np.int32))
    if left == 0:
        squares[:, 0] = 0
    if right == width:
        squares[:, -1] = 0
    if first == 0:
        squares[0] = 0
    if end == height:
        squares[-1] = 0
    row = right - left + 2
    largest = _largest(across.ravel(), down.ravel(), squares.ravel(), row)
    size = squares.ravel()[row + 1 : -row - 1]
    low, high = canny.limits
    largest &= size >= low
    found = size >= high
    found &= largest
    seen = np.empty((end - first, row), np.uint8)
    np.add(largest, found, out=seen.ravel()[1:-1], dtype=np.uint8)
    own = marks[first:end, left:right]
    own[...] = seen[:, 1:-1]
    _grow(own)


def _levels(samples: Pixels) -> Whole:
    if samples.dtype.kind == "f":
        levels = levels_of(samples.astype(np.float64), 1.0)
        return np.nan_to_num(levels, copy=False, nan=0.0).astype(np.uint32)
    return np.multiply(samples, LEVELS // int(full_scale(samples.dtype)), dtype=np.uint32)


def _blurred(levels: Whole, weights: tuple[int, ...], axis: int) -> Whole:
    """*levels* blurred along *axis*, where all *weights* fit: these are the same from both ends."""
    *side, middle = weights[: len(weights) // 2 + 1]
    if not side:
        return levels
    turned = levels if axis == 0 else levels.T
    n = len(turned) - 2 * len(side)
    sums = turned[len(side) : len(side) + n] * np.uint32(middle)
    sums += np.uint32(UNIT // 2)
    both = np.empty_like(sums)
    for i, weight in enumerate(side):
        np.add(turned[i : i + n], turned[2 * len(side) - i :][:n], out=both)
        both *= np.uint32(weight)
        sums += both  # below 2^32
    sums //= np.uint32(UNIT)
    return sums if axis == 0 else sums.T


def _gradients(levels: npt.NDArray[np.int32]) -> tuple[Any, Any, npt.NDArray[np.float64]]:
    """Sobel's gradients across and down where they fit, and the squares of their sizes."""
    two = levels[1:] + levels[:-1]
    four = two[1:] + two[:-1]
    across = four[:, 2:] - four[:, :-2]
    two = levels[:, 1:] + levels[:, :-1]
    four = two[:, 1:] + two[:, :-1]
    down = four[2:] - four[:-2]
    squares, more = across.astype(np.float64), down.astype(np.float64)
    squares *= squares
    more *= more
    squares += more
    return across, down, squares


def _largest(across: Any, down: Any, squares: npt.NDArray[np.float64], row: int) -> Mask:
    """Which *squares* are the largest along their gradient, where both neighbours are there."""
    inner = slice(row + 1, len(squares) - row - 1)
    across, down = across[inner], down[inner]
    flat, steep = np.abs(across).view(np.uint32), np.abs(down).view(np.uint32)
    level, upright = steep < _part(flat), flat < _part(steep)
    across ^= down
    same = across >= 0
    aslant = _peaks(squares, row + 1, row)
    aslant &= same
    aslant |= _peaks(squares, row - 1, row) > same
    aslant &= ~(level | upright)
    level &= _peaks(squares, 1, row)
    upright &= _peaks(squares, row, row)
    aslant |= level
    aslant |= upright
    return aslant


def _part(size: Whole) -> Whole:
    """The least whole numbers that are no less than *size* times the tangent of 22.5 degrees."""
    part = size * np.uint32(TANGENT)
    part += np.uint32((1 << 15) - 1)
    part >>= np.uint32(15)
    return part


def _peaks(squares: npt.NDArray[np.float64], apart: int, row: int) -> Mask:
    """Which are larger than the one so far before them, and no smaller than that behind."""
    rises = squares[apart:] > squares[:-apart]
    first, last = row + 1, len(squares) - row - 1
    peaks: Mask = rises[first - apart : last - apart] > rises[first:last]
    return peaks


def _grow(rows: Marks) -> None:
    """Find the weak ones of a tile that touch one that is found; not all that are far away."""
    for _ in range(ROUNDS):
        touch = _touching(rows)
        if not touch.any():
            return
        rows += touch


def _touching(rows: Marks) -> Mask:
    """Which of *rows* are weak and touch one that is found there."""
    found = rows == FOUND
    near = found.copy()
    near[1:] |= found[:-1]
    near[:-1] |= found[1:]
    beside: Mask = near.copy()
    beside[:, 1:] |= near[:, :-1]
    beside[:, :-1] |= near[:, 1:]
    beside &= rows == WEAK
    return beside


def _follow(marks: Marks, bands: range) -> None:
    """Find all weak ones that touch one that is found."""
    row = marks.shape[1]
    steps = np.array([-row - 1, -row, -row + 1, -1, 1, row - 1, row, row + 1])
    flat = marks.ravel()

    def touching(y: int) -> npt.NDArray[np.intp]:
        touch = _touching(marks[y : y + ROWS + 2])[1:-1]
        there: npt.NDArray[np.intp] = np.flatnonzero(touch) + (y + 1) * row
        return there

    newest = np.concatenate(each(touching, bands, cores()))
    while newest.size:
        flat[newest] = FOUND
        touched = (newest[:, None] + steps).ravel()
        newest = np.unique(touched[flat[touched] == WEAK])
