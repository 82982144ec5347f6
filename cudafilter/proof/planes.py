"""An image's rows channel by channel, its border included: what the fast routes read.

Rows lie as (row, channel, column), so that neighbours in memory are neighbours in the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cudafilter.operations.borders import OUTSIDE, Border, border_index
from cudafilter.operations.pixels import Pixels, full_scale

Planes = npt.NDArray[Any]
"""(rows, channels, columns) of any type."""

Index = npt.NDArray[np.intp]


class Image:
    """Rows of *pixels*, (H, W, C), by their numbers.

    *wild*: there are NaN and infinity, which read as 0. *premultiplied*: in float64, colours times
    alpha and alpha itself as fractions of full scale, as the definition has them.

    Under ``constant`` the image has one column more, of the border's value, and OUTSIDE is a row of
    it. So a position outside is one like any other.
    """

    def __init__(
        self, pixels: Pixels, border: Border, wild: bool = False, premultiplied: bool = False
    ) -> None:
        self.pixels, self.border = pixels, border
        self.wild, self.premultiplied = wild, premultiplied
        self.height, self.width, self.channels = pixels.shape
        self.columns = self.width + (border.mode == "constant")
        """Columns there are to read."""

    def down(self, first: int, last: int) -> Index:
        """The rows to read for positions *first* to *last* - 1."""
        return border_index(first, last, self.height, self.border.mode)

    def across(self, first: int, last: int) -> Index:
        """The columns to read for positions *first* to *last* - 1."""
        index = border_index(first, last, self.width, self.border.mode)
        return np.where(index == OUTSIDE, self.width, index)

    def rows(self, index: Index, start: int = 0, stop: int | None = None) -> Planes:
        """Columns *start* to *stop* - 1 of the rows *index*."""
        stop = self.columns if stop is None else stop
        inside = min(stop, self.width)
        part = _taken(self.pixels[:, start:inside], index)
        out = np.empty((len(index), self.channels, stop - start), self.pixels.dtype)
        for c in range(self.channels):  # far faster than one transposed copy
            out[:, c, : inside - start] = part[..., c]
        constant = self.border.sample(self.pixels.dtype)
        out[:, :, inside - start :] = constant
        out[index == OUTSIDE] = constant
        if self.wild:
            out[~np.isfinite(out)] = 0
        if not self.premultiplied:
            return out
        alpha = out[:, -1:] / np.float64(full_scale(out.dtype))
        return np.concatenate([out[:, :-1] * alpha, alpha], axis=1)

    def padded(self, rows: tuple[int, int], columns: tuple[int, int]) -> Planes:
        """The block of the bordered image of positions *rows* by *columns*."""
        (first, last), (start, stop) = rows, columns
        block = self.rows(self.down(first, last))
        left, right = max(0, start), min(stop, self.width)
        if left >= right:
            return np.take(block, self.across(start, stop), axis=2)
        before, after = self.across(start, left), self.across(right, stop)
        parts = [np.take(block, index, axis=2) for index in (before, after)]
        return np.concatenate([parts[0], block[:, :, left:right], parts[1]], axis=2)


def _taken(pixels: Pixels, index: Index) -> Pixels:
    """The rows *index* of *pixels*, without a copy where they are neighbours."""
    first, last = int(index[0]), int(index[-1])
    if first >= 0 and last - first == len(index) - 1 and (np.diff(index) == 1).all():
        return pixels[first : last + 1]
    return pixels[index]
