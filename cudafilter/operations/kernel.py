"""Correlation kernels: weights and an anchor."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ParameterError
from cudafilter.operations.catalogue import MAX_RADIUS

Weights = npt.NDArray[np.float64]

RANK1_TOLERANCE = 1e-12
"""Largest error of a rank-1 product, relative to the largest weight, that counts as none."""

MOST_WHOLE = 2.0**24
"""Largest of whole numbers that float32 holds all of."""


def grain(values: npt.ArrayLike) -> float:
    """The largest power of two that all *values* are multiples of; 1 where all are 0."""
    mantissas, exponents = np.frexp(np.asarray(values, np.float64))
    whole = np.ldexp(np.abs(mantissas), 53).astype(np.int64)
    lowest = (exponents - 53 + np.frexp(whole & -whole)[1] - 1)[whole != 0]
    return math.ldexp(1.0, int(lowest.min())) if lowest.size else 1.0


class Kernel:
    """A 2-D correlation kernel.

    ``out(y, x) = sum over i, j of weights[i, j] * in(y + i - anchor[0], x + j - anchor[1])``.

    A weight of 0 is no tap: what lies under it has no influence, NaN and infinity included.
    ``anchor`` is (row, column), ``(rows // 2, columns // 2)`` unless given. ``factors`` is
    ``(column, row)`` with ``weights == outer(column, row)`` where the kernel has rank 1, found
    numerically, else None. Raises ParameterError for weights that are not a finite 2-D array of
    at most 2 MAX_RADIUS + 1 a side, or for an anchor outside it.

    Kernels are equal where they were given the same numbers, bit for bit: weights or factors. One
    of weights never equals one of factors, since their results may differ in the last bits.
    """

    shape: tuple[int, int]
    anchor: tuple[int, int]
    _given: tuple[Weights, ...]
    """The weights, or column and row."""

    def __init__(self, weights: npt.ArrayLike, anchor: tuple[int, int] | None = None) -> None:
        try:
            array = np.asarray(weights)
            is_real = array.dtype.kind != "c"  # of which NumPy would drop the imaginary part
            array = np.array(array, dtype=np.float64 if is_real else None, order="C")
        except (TypeError, ValueError):
            raise ParameterError("weights", "must be a rectangle of numbers") from None
        if not is_real:
            raise ParameterError("weights", "must be real numbers, not complex ones")
        if array.ndim != 2 or array.size == 0:
            raise ParameterError("weights", f"must be a 2-D array, not one of shape {array.shape}")
        self._setup(array.shape[0], array.shape[1], anchor)
        if not np.isfinite(array).all():
            raise ParameterError("weights", "must be finite numbers")
        array.flags.writeable = False
        self.__dict__["weights"] = array
        self._given = (array,)

    @classmethod
    def outer(
        cls, column: npt.ArrayLike, row: npt.ArrayLike, anchor: tuple[int, int] | None = None
    ) -> Kernel:
        """The rank-1 kernel ``outer(column, row)``; its 2-D weights are made when asked for."""
        self = cls.__new__(cls)
        factors = np.array(column, dtype=np.float64), np.array(row, dtype=np.float64)
        self._setup(factors[0].size, factors[1].size, anchor)
        for factor in factors:
            factor.flags.writeable = False
        self.__dict__["factors"] = factors
        self._given = factors
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Kernel):
            return NotImplemented
        return hash(self) == hash(other) and self._value() == other._value()

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return (Kernel.outer if len(self._given) == 2 else Kernel), (*self._given, self.anchor)

    def _value(self) -> tuple[Any, ...]:
        """What tells it from others."""
        return self.shape, self.anchor, *(array.tobytes() for array in self._given)

    @cached_property
    def _hash(self) -> int:
        return hash(self._value())

    def _setup(self, rows: int, columns: int, anchor: tuple[int, int] | None) -> None:
        most = 2 * MAX_RADIUS + 1
        if rows > most or columns > most:
            raise ParameterError("weights", f"at most {most} a side, not {rows}x{columns}")
        self.shape = (rows, columns)
        self.anchor = anchor if anchor is not None else (rows // 2, columns // 2)
        if not (0 <= self.anchor[0] < rows and 0 <= self.anchor[1] < columns):
            raise ParameterError("anchor", f"{self.anchor} lies outside a {rows}x{columns} kernel")

    @cached_property
    def weights(self) -> Weights:
        """The weights, (rows, columns) float64, read-only."""
        assert self.factors is not None
        array = np.outer(*self.factors)
        array.flags.writeable = False
        return array

    @cached_property
    def factors(self) -> tuple[Weights, Weights] | None:
        """(column, row) of a rank-1 kernel, float64, else None.

        Whole where the weights are, or multiples of one power of two.
        """
        i, j = np.unravel_index(np.argmax(np.abs(self.weights)), self.shape)
        pivot = self.weights[i, j]
        if pivot == 0:
            return np.zeros(self.shape[0]), np.zeros(self.shape[1])
        column, row = self.weights[:, j], self.weights[i, :]
        with np.errstate(over="ignore"):  # past every float is past MOST_WHOLE
            whole = column / grain(column)
        if np.abs(whole).max() <= MOST_WHOLE:
            column = whole / math.gcd(*(int(n) for n in whole))
            row = row / column[i]
        else:
            row = row / pivot
        error = np.abs(self.weights - np.outer(column, row)).max()
        return (column, row) if error <= RANK1_TOLERANCE * abs(pivot) else None

    @cached_property
    def grain(self) -> float:
        """The largest power of two that all terms of a sum over the weights are multiples of."""
        return math.prod(map(grain, self.factors or (self.weights,)))

    @cached_property
    def absolute(self) -> Kernel:
        """The kernel of all weights' absolute values: itself where none is negative."""
        if all((given >= 0).all() for given in self._given):
            return self
        given = [np.abs(each) for each in self._given]
        if len(given) == 2:
            return Kernel.outer(given[0], given[1], self.anchor)
        return Kernel(given[0], self.anchor)

    def times(self, exponent: int, of_row: int | None = None) -> Kernel:
        """The kernel times ``2**exponent``, which changes no digit.

        Where there are factors it is one of factors, whose row takes *of_row* of that, or half.
        """
        if self.factors is None:
            return Kernel(np.ldexp(self.weights, exponent), self.anchor)
        of_row = exponent // 2 if of_row is None else of_row
        column, row = self.factors
        return Kernel.outer(np.ldexp(column, exponent - of_row), np.ldexp(row, of_row), self.anchor)

    @cached_property
    def sum(self) -> float:
        """Sum of the weights."""
        if self.factors is not None:
            return math.fsum(self.factors[0]) * math.fsum(self.factors[1])
        return float(self.weights.sum())  # pairwise, so exact to a few last bits

    @cached_property
    def magnitude(self) -> float:
        """Sum of the weights' absolute values: the largest |out| for |in| <= 1."""
        if self.factors is not None:
            return float(np.abs(self.factors[0]).sum() * np.abs(self.factors[1]).sum())
        return float(np.abs(self.weights).sum())

    @property
    def reach(self) -> tuple[int, int, int, int]:
        """Halo in pixels: above, below, left of and right of the output pixel."""
        (rows, columns), (y, x) = self.shape, self.anchor
        return y, rows - 1 - y, x, columns - 1 - x
