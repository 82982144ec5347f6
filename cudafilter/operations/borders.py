"""Borders: what a tap reads outside the image, under numpy.pad's names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ParameterError
from cudafilter.operations.choices import BORDERS
from cudafilter.operations.pixels import Pixels, full_scale

OUTSIDE = -1
"""Index of a position that the ``constant`` border fills."""


@dataclass(frozen=True)
class Border:
    """A border mode, and for ``constant`` its value as a fraction of full scale.

    The value fills every channel, alpha included: 0 is transparent black, 1 opaque white.
    Raises ParameterError for an unknown mode or a value that is not finite.
    """

    mode: str = "edge"
    value: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in BORDERS:
            raise ParameterError(
                "border", f"border must be one of {', '.join(BORDERS)}, not {self.mode!r}"
            )
        if not isinstance(self.value, Real) or not math.isfinite(self.value):
            raise ParameterError("border_value", f"must be a finite number, not {self.value!r}")
        if self.value and self.mode != "constant":
            raise ParameterError(
                "border_value", f"has no meaning for border {self.mode!r}, only for 'constant'"
            )

    @classmethod
    def named(cls, border: str | Border) -> Border:
        """The border that *border* is, or names. Raises ParameterError ("border")."""
        return border if isinstance(border, Border) else cls(border)

    def sample(self, dtype: npt.DTypeLike) -> float:
        """The constant value in native units, rounded and clamped for integer samples."""
        native = self.value * full_scale(dtype)
        if np.dtype(dtype).kind == "u":
            return float(np.clip(np.rint(native), 0, full_scale(dtype)))
        return native if np.dtype(dtype) == np.float64 else float(np.float32(native))


def border_index(start: int, stop: int, n: int, mode: str) -> npt.NDArray[np.intp]:
    """Where positions ``start..stop-1`` of an axis of *n* samples are read from.

    Any distance outside is allowed. Returns indices in 0..n-1, or OUTSIDE under ``constant``.
    """
    i = np.arange(start, stop, dtype=np.intp)
    if mode == "edge":
        return np.clip(i, 0, n - 1)
    if mode == "wrap":
        return np.mod(i, n)
    if mode == "symmetric":
        i = np.mod(i, 2 * n)
        return np.minimum(i, 2 * n - 1 - i)
    if mode == "reflect":
        if n == 1:
            return np.zeros_like(i)
        i = np.mod(i, 2 * n - 2)
        return np.minimum(i, 2 * n - 2 - i)
    return np.where((i < 0) | (i >= n), OUTSIDE, i)


def extract(
    pixels: Pixels, rows: tuple[int, int], columns: tuple[int, int], border: Border
) -> Pixels:
    """The block ``rows[0]..rows[1]-1`` by ``columns[0]..columns[1]-1`` of the bordered image.

    Positions may lie outside the image by any distance. A block inside it is a view.
    """
    return _extract_axis(_extract_axis(pixels, 0, rows, border), 1, columns, border)


def _extract_axis(pixels: Pixels, axis: int, span: tuple[int, int], border: Border) -> Pixels:
    start, stop = span
    n = pixels.shape[axis]
    inner = min(max(start, 0), n), max(min(stop, n), 0)
    if inner == span:
        return pixels[_along(axis, *inner)]
    shape = list(pixels.shape)
    shape[axis] = stop - start
    block = np.empty(shape, pixels.dtype)
    parts = [span] if inner[0] >= inner[1] else [(start, inner[0]), (inner[1], stop)]
    if inner[0] < inner[1]:  # one plain copy: far faster than gathering what lies inside
        block[_along(axis, inner[0] - start, inner[1] - start)] = pixels[_along(axis, *inner)]
    for first, last in parts:
        index = border_index(first, last, n, border.mode)
        part = np.take(pixels, index, axis=axis)
        part[(slice(None),) * axis + (index == OUTSIDE,)] = border.sample(pixels.dtype)
        block[_along(axis, first - start, last - start)] = part
    return block


def _along(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    return (slice(None),) * axis + (slice(start, stop),)
