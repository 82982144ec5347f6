"""Windows: which pixels around one count for a rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ParameterError
from cudafilter.operations.catalogue import MAX_RADIUS
from cudafilter.operations.operation import Reach

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels around an anchor, all of it or those of a mask.

    The pixel at (row i, column j) of the window lies at ``(y + i - anchor[0], x + j - anchor[1])``.
    """

    shape: tuple[int, int]
    """Rows and columns."""
    anchor: tuple[int, int]
    """Row and column of the pixel itself."""
    inside: bytes | None = None
    """Of each pixel of the rectangle, row by row, 1 where it counts, or 0; None: all do."""

    @property
    def mask(self) -> Mask:
        """Which pixels of the rectangle count, (rows, columns)."""
        if self.inside is None:
            return np.ones(self.shape, np.bool_)
        return np.frombuffer(self.inside, np.bool_).reshape(self.shape)

    @property
    def count(self) -> int:
        """How many pixels count."""
        return self.shape[0] * self.shape[1] if self.inside is None else self.inside.count(1)

    @property
    def reach(self) -> Reach:
        """Halo in pixels: above, below, left of and right of the output pixel."""
        (rows, columns), (y, x) = self.shape, self.anchor
        return y, rows - 1 - y, x, columns - 1 - x

    @property
    def is_pixel(self) -> bool:
        """Whether only the pixel itself counts."""
        return self.shape == (1, 1)

    @property
    def mirrored(self) -> Window:
        """The window turned by half a circle around its anchor."""
        (rows, columns), (y, x) = self.shape, self.anchor
        inside = None if self.inside is None else self.inside[::-1]
        return Window(self.shape, (rows - 1 - y, columns - 1 - x), inside)


def square(radius: int) -> Window:
    """The square of 2 radius + 1 pixels a side."""
    _require(radius)
    side = 2 * radius + 1
    return Window((side, side), (radius, radius))


def disk(radius: int) -> Window:
    """The pixels no further than *radius* from the middle: x^2 + y^2 <= radius^2."""
    _require(radius)
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return masked(x * x + y * y <= radius * radius)


def cross(radius: int) -> Window:
    """The middle row and the middle column."""
    _require(radius)
    steps = np.arange(-radius, radius + 1)
    return masked((steps[:, None] == 0) | (steps[None, :] == 0))


def masked(mask: npt.ArrayLike) -> Window:
    """The pixels where *mask*, (rows, columns), is not 0; its middle is the anchor.

    An even side is anchored right of and below its middle, as kernels are. Rows and columns at the
    sides that have no pixel are left out. Raises ParameterError for a mask without a pixel.
    """
    array = np.asarray(mask) != 0
    if array.ndim != 2 or not array.any():
        raise ParameterError("shape", "a window needs a pixel that counts")
    if max(array.shape) > 2 * MAX_RADIUS + 1:
        rows, columns = array.shape
        raise ParameterError("shape", f"at most {2 * MAX_RADIUS + 1} a side, not {rows}x{columns}")
    y, x = (side // 2 for side in array.shape)
    (top, bottom), (left, right) = (
        np.flatnonzero(array.any(axis=axis))[[0, -1]].tolist() for axis in (1, 0)
    )
    # The anchor stays within, so that a window always reaches at least its own pixel.
    top, bottom, left, right = min(top, y), max(bottom, y), min(left, x), max(right, x)
    part = array[top : bottom + 1, left : right + 1]
    inside = None if part.all() else part.tobytes()
    return Window((part.shape[0], part.shape[1]), (y - top, x - left), inside)


def _require(radius: int) -> None:
    if not 0 <= radius <= MAX_RADIUS:
        raise ParameterError("radius", f"must be 0 to {MAX_RADIUS}, not {radius}")
