"""Sums of weights times samples by faster routes than the definition's, each with its error.

Rounding errors are bounded as usual: a sum of n products in float64, in any order and with fused
operations or without, lies within ``n u / (1 - n u)`` times the sum of their absolute values of the
exact one, u = 2^-53. The definition's own sums have such an error too. A route's error is the most
by which its sums and the definition's may differ, so it counts both.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from cudafilter.operations.kernel import Kernel, Weights
from cudafilter.proof.planes import Image, Planes

UNIT = 2.0**-53
"""Largest relative error of one operation in float64."""

SAFE = 1.01
"""Covers the terms of second order: n u is below 1e-5 for all kernels that there can be."""

NARROW, WIDE = 24, 48
"""Outputs of one banded product: few zeros beside the band, and enough for BLAS to be fast."""

MANY_TAPS = 40
"""From so many taps on, products are WIDE."""

PRODUCT = 1 << 18
"""Multiply-adds of one product of matrices. For a larger one OpenBLAS starts a thread a core, and
all of these spin beside the check's own: of 16 that check a picture each, that took 950 ms of the
cores a picture where the check itself takes 50."""

READ = 1 << 19
"""Samples that products down the columns read at a time: 4 MiB in float64. A kernel may reach all
rows of an image, and each thread has its own."""

TAPS = {"integers": 24, "floats": 12}
"""Up to so many taps, sums one after the other are as fast as other routes."""


class Route(Protocol):
    """How the sums of one kernel are found."""

    error: float
    """Largest difference from the definition's sums, relative to the largest |sample|; 0 where
    they have the same bits."""
    relative: bool
    """Whether ``error / magnitude`` also bounds each difference relative to the sum of the absolute
    terms of that sum, and not only of the largest one that there can be."""
    step: int
    """Rows at a time, for speed."""

    def sums(self, image: Image, first: int, last: int) -> Planes:
        """The sums for rows *first* to *last* - 1: (rows, channels, columns).

        In float64; exact ones may be of another type.
        """
        ...


def route(kernel: Kernel, largest: float, whole: bool) -> Route:
    """The fastest route for *kernel*.

    *whole* says that the samples are whole numbers, up to *largest*.
    """
    quantum = _quantum(kernel) if whole else None
    # In units of the quantum every partial sum is a whole number, exact up to 2^53 in float64.
    most = math.inf if quantum is None else kernel.magnitude * max(largest, 1.0) / quantum
    exact = most <= 2.0**53
    given = _given(kernel)
    integers = exact and most < 2.0**31 and all((w == np.rint(w)).all() for w in given)
    taps = sum(int(np.count_nonzero(weights)) for weights in given)
    if taps <= TAPS["integers" if integers else "floats"]:
        integer = np.int16 if most < 2.0**15 else np.int32
        return Taps(kernel, integer if integers else np.float64)
    if kernel.factors is not None:
        return Banded(kernel, exact, np.float32 if most <= 2.0**24 else np.float64)
    return Transformed(kernel, quantum if exact else None, largest)


def _given(kernel: Kernel) -> tuple[Weights, ...]:
    """What the definition sums with: both factors, or the weights."""
    return (kernel.weights,) if kernel.factors is None else kernel.factors


def _quantum(kernel: Kernel) -> float | None:
    """The largest power of two of which all weights are multiples, for factors their product's.

    None where there is none in float64's range, or not one that sums could be exact in.
    """
    exponents = []
    for weights in _given(kernel):
        mantissa, exponent = np.frexp(weights[weights != 0])
        if not mantissa.size:
            return 1.0
        whole = np.ldexp(mantissa, 53).astype(np.int64)
        lowest = np.frexp((whole & -whole).astype(np.float64))[1] - 1
        exponents.append(int((exponent - 53 + lowest).min()))
    if min(exponents) < -200 or max(exponents) > 200:
        return None
    return math.ldexp(1.0, sum(exponents))


def _rounding(kernel: Kernel, roundings: int) -> float:
    """What so many roundings of each term come to, relative to the largest |sample|."""
    underflow = roundings * 2.0**-1074
    return SAFE * roundings * UNIT * kernel.magnitude + underflow


class Taps:
    """Tap after tap in the definition's order, so with its bits; integers in a type of theirs."""

    error = 0.0
    relative = True

    def __init__(self, kernel: Kernel, dtype: type[np.int16 | np.int32 | np.float64]) -> None:
        self._kernel, self._dtype = kernel, dtype
        self.step = 16 + 2 * kernel.shape[0]

    def sums(self, image: Image, first: int, last: int) -> Planes:
        """See Route.sums."""
        above, below, left, right = self._kernel.reach
        block = image.padded((first - above, last + below), (-left, image.width + right))
        block = block.astype(self._dtype)
        if self._kernel.factors is None:
            block = self._tapped(block, self._kernel.weights)
        else:
            column, row = self._kernel.factors
            block = self._tapped(self._tapped(block, column[:, None]), row[None, :])
        return block

    def _tapped(self, block: Planes, weights: Weights) -> Planes:
        rows, columns = weights.shape
        height, width = block.shape[0] - rows + 1, block.shape[2] - columns + 1
        out = np.zeros((height, block.shape[1], width), self._dtype)
        product: Planes | None = None
        for n, (i, j) in enumerate(np.argwhere(weights)):
            part, weight = block[i : i + height, :, j : j + width], weights[i, j]
            if not n:
                np.multiply(part, self._dtype(weight), out=out)
            elif weight == 1:
                out += part
            elif weight == -1:
                out -= part
            else:
                product = np.multiply(part, self._dtype(weight), out=product)
                out += product
        return out


class Banded:
    """A kernel of two factors as products with band matrices, down the columns, then along rows.

    A matrix holds, for each output, the weight of each sample read: taps that a border leads to
    the same sample become one entry. So kernels wider than the image cost no more than it.
    """

    relative = True

    def __init__(self, kernel: Kernel, exact: bool, dtype: type[np.float32 | np.float64]) -> None:
        assert kernel.factors is not None
        self._column, self._row = kernel.factors
        self._anchor = kernel.anchor
        self._dtype = dtype
        self.step = self._block = WIDE if max(kernel.shape) >= MANY_TAPS else NARROW
        # Twice the taps here: their weights are summed first where a border folds them.
        self.error = 0.0 if exact else _rounding(kernel, 3 * sum(kernel.shape) + 8)
        self._inner: dict[tuple[int, int], Weights] = {}
        self._columns: dict[int, tuple[Planes, Planes]] = {}

    def sums(self, image: Image, first: int, last: int) -> Planes:
        """See Route.sums."""
        flat = self._down_columns(image, first, last)
        out = np.empty((len(flat), image.width), self._dtype)
        first_inner, last_inner = self._along_rows(flat, out)
        size = self._block
        for start in [*range(0, first_inner, size), *range(last_inner, image.width, size)]:
            stop = min(start + size, image.width)
            if start not in self._columns:  # the same for all rows
                index = image.across(
                    start - self._anchor[1], stop + len(self._row) - 1 - self._anchor[1]
                )
                self._columns[start] = self._matrix(index, self._row)
            needed, across = self._columns[start]
            out[:, start:stop] = _product(across, flat[:, needed].T).T
        return out.reshape(last - first, image.channels, image.width)

    def _down_columns(self, image: Image, first: int, last: int) -> Planes:
        """The sums of columns for rows *first* to *last* - 1: (rows times channels, columns)."""
        size, above, taps = self._block, self._anchor[0], len(self._column)
        out = np.empty((last - first, image.channels, image.columns), self._dtype)
        y = first
        while y < last:
            # As many whole blocks as the border does not reach, or one block.
            inner = min(last, image.height + above - taps + 1) - y if y >= above else 0
            stop = y + max(inner // size * size, min(size, last - y))
            index = image.down(y - above, stop + taps - 1 - above)
            written = out[y - first : stop - first]
            if inner >= size:
                _, down = self._matrix(index[: size + taps - 1], self._column)
            else:
                index, down = self._matrix(index, self._column)
            width = max(1, READ // (len(index) * image.channels))
            for start in range(0, image.columns, width):
                part = written[:, :, start : start + width]
                read = image.rows(index, start, start + part.shape[2]).astype(self._dtype)
                for c in range(image.channels):
                    _multiply(down, read[:, c], part[:, c])
            y = stop
        return out.reshape(-1, image.columns)

    def _along_rows(self, flat: Planes, out: Planes) -> tuple[int, int]:
        """Fill the blocks of *out* that no border reaches; returns their first and last column.

        Products of stacked matrices: NumPy lets other threads run while one lasts, and asks for the
        interpreter's lock once, not once a block.
        """
        size, left, width = self._block, self._anchor[1], out.shape[1]
        needed = size + len(self._row) - 1
        first = -(-left // size) * size
        count = (width - first + left - needed) // size + 1
        if count < 1:
            return 0, 0
        read = np.lib.stride_tricks.sliding_window_view(flat[:, first - left :], needed, axis=1)
        blocks = read[:, : count * size : size].transpose(1, 0, 2)
        last = first + count * size
        written = out[:, first:last].reshape(len(out), count, size).transpose(1, 0, 2)
        _, across = self._matrix(np.arange(needed), self._row)
        rows = max(1, PRODUCT // across.size)
        for y in range(0, len(out), rows):
            np.matmul(blocks[:, y : y + rows], across.T, out=written[:, y : y + rows])
        return first, last

    def _matrix(self, index: Planes, weights: Weights) -> tuple[Planes, Planes]:
        """The positions among *index* that are read, in order, and (outputs, positions) weights."""
        outputs, taps = len(index) - len(weights) + 1, len(weights)
        inner = index[-1] - index[0] == len(index) - 1 and bool((np.diff(index) == 1).all())
        key = (outputs, id(weights))
        if inner and key in self._inner:
            return index, self._inner[key]
        needed, place = np.unique(index, return_inverse=True)
        places = np.lib.stride_tricks.sliding_window_view(place, taps)
        places = places + len(needed) * np.arange(outputs)[:, None]
        spread = np.broadcast_to(weights, places.shape)
        flat = np.bincount(places.ravel(), spread.ravel(), outputs * len(needed))
        matrix: Planes = flat.reshape(outputs, len(needed)).astype(self._dtype)
        if inner:
            self._inner[key] = matrix
        return needed, matrix


def _product(weights: Planes, block: Planes) -> Planes:
    """``weights @ block``."""
    out = np.empty((len(weights), block.shape[1]), weights.dtype)
    _multiply(weights, block, out)
    return out


def _multiply(weights: Planes, read: Planes, out: Planes) -> None:
    """Fill *out*, whole blocks of as many rows as *weights* has, with products of *weights*.

    Each is of as many rows of *read* as *weights* has columns, and begins as many rows after the
    one before it as *weights* has rows. A call does all of them, for as many columns at a time as
    PRODUCT allows: see _along_rows().
    """
    columns = read.shape[1]
    width = min(columns, max(1, PRODUCT // weights.size))
    whole = columns // width * width
    for start, stop in ((0, whole), (whole, columns)):
        if start < stop:
            parts, into = read[:, start:stop], out[:, start:stop]
            side = min(width, stop - start)
            step = len(weights)
            np.matmul(
                weights,
                _stacked(parts, weights.shape[1], step, side),
                out=_stacked(into, step, step, side),
            )


def _stacked(plane: Planes, height: int, step: int, width: int) -> Planes:
    """*plane* in blocks of *height* x *width*, *step* rows apart: (down, across, *height*,
    *width*)."""
    rows, columns = plane.strides
    count = (len(plane) - height) // step + 1
    return np.lib.stride_tricks.as_strided(
        plane,
        (count, plane.shape[1] // width, height, width),
        (step * rows, width * columns, rows, columns),
    )


class Transformed:
    """A dense kernel by Fourier transforms of tiles, in pieces where it is large.

    A transform of N = 2^t samples errs by at most ``t (u_w + 4 u (sqrt(2) + u_w)) / (1 - ...)``
    relative to the result in the 2-norm, where u_w is the error of its twiddle factors (Higham,
    Accuracy and Stability of Numerical Algorithms, 24.1). With 10 u for the term in brackets there
    is room for twiddle factors off by 3 u.
    """

    relative = False

    def __init__(self, kernel: Kernel, quantum: float | None, largest: float) -> None:
        self._kernel, self._quantum = kernel, quantum
        side = PIECE
        self._pieces = [
            (i, j, kernel.weights[i : i + side, j : j + side])
            for i in range(0, kernel.shape[0], side)
            for j in range(0, kernel.shape[1], side)
            if kernel.weights[i : i + side, j : j + side].any()
        ]
        rows, columns = (min(side, n) for n in kernel.shape)
        self._shape = _tile(rows, TILE[0]), _tile(columns, TILE[1])
        self.step = self._shape[0] - rows + 1
        samples = self._shape[0] * self._shape[1]
        transform = 10 * UNIT * math.log2(samples)
        # Of the kernel, whose spectrum is as large as sum|w|, of the tile, whose 2-norm is
        # sqrt(N) largest, of their product, and back.
        error = 0.0
        for _, _, weights in self._pieces:
            spread = math.sqrt(samples) * float(np.linalg.norm(weights))
            error += transform * (2 * float(np.abs(weights).sum()) + spread)
            error += 8 * UNIT * float(np.abs(weights).sum())
        error *= SAFE * math.sqrt(samples)
        error += _rounding(kernel, len(self._pieces) + int(np.count_nonzero(kernel.weights)))
        self._exact = quantum is not None and error * largest < quantum / 4
        self.error = 0.0 if self._exact else error

    def sums(self, image: Image, first: int, last: int) -> Planes:
        """See Route.sums."""
        out = np.zeros((last - first, image.channels, image.width))
        for i, j, weights in self._pieces:
            self._add(out, image, first - self._kernel.anchor[0] + i, j, weights)
        if self._exact and self._quantum is not None:
            out /= self._quantum
            np.rint(out, out=out)
            out *= self._quantum
        return out

    def _add(self, out: Planes, image: Image, top: int, j: int, weights: Weights) -> None:
        """Add to *out* the sums of *weights*, whose first row reads *top* for the first output."""
        rows, columns = weights.shape
        spectrum = np.conj(np.fft.rfft2(weights, self._shape))
        down, across = self._shape[0] - rows + 1, self._shape[1] - columns + 1
        left = j - self._kernel.anchor[1]
        for y in range(0, len(out), down):
            height = min(down, len(out) - y)
            block = image.padded(
                (top + y, top + y + height + rows - 1), (left, left + image.width + columns - 1)
            )
            for c in range(image.channels):
                for x in range(0, image.width, across):
                    width = min(across, image.width - x)
                    # In float64: of float32, NumPy's transforms stay in float32.
                    tile = block[:, c, x : x + width + columns - 1].astype(np.float64)
                    product = np.fft.rfft2(tile, self._shape)
                    product *= spectrum
                    sums = np.fft.irfft2(product, self._shape)
                    out[y : y + height, c, x : x + width] += sums[:height, :width]


PIECE = 64
"""Longest side of a kernel that is transformed at once: bands stay low, and memory small."""

TILE = (128, 512)
"""Rows and columns that are transformed at a time."""


def _tile(side: int, most: int) -> int:
    """A power of two of at least twice *side*, and *most* at least."""
    return max(most, 1 << (2 * side - 1).bit_length())
