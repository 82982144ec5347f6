"""Filters as data: one or two correlation kernels and how they combine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cudafilter.catalogue import CATALOGUE, MAX_RADIUS
from cudafilter.errors import ParameterError
from cudafilter.weights import parse_weights

Weights = npt.NDArray[np.float64]

RANK1_TOLERANCE = 1e-12
"""Largest error of a rank-1 product, relative to the largest weight, that counts as none."""

NEGLIGIBLE = 1e-18
"""Gaussian weights below this share of the peak are 0, so that a product of two is normal in
float32; a full-scale 16-bit sample times such a weight is 1e-13 of a step."""


class Kernel:
    """A 2-D correlation kernel.

    ``out(y, x) = sum over i, j of weights[i, j] * in(y + i - anchor[0], x + j - anchor[1])``.

    A weight of 0 is no tap: what lies under it has no influence, NaN and infinity included.
    ``anchor`` is (row, column), ``(rows // 2, columns // 2)`` unless given. ``factors`` is
    ``(column, row)`` with ``weights == outer(column, row)`` where the kernel has rank 1, found
    numerically, else None. Raises ParameterError for weights that are not a finite 2-D array of
    at most 2 MAX_RADIUS + 1 a side, or for an anchor outside it.
    """

    def __init__(self, weights: npt.ArrayLike, anchor: tuple[int, int] | None = None) -> None:
        try:
            array = np.array(weights, dtype=np.float64, order="C")
        except (TypeError, ValueError):
            raise ParameterError("weights", "must be a rectangle of numbers") from None
        if array.ndim != 2 or array.size == 0:
            raise ParameterError("weights", f"must be a 2-D array, not one of shape {array.shape}")
        self._setup(array.shape[0], array.shape[1], anchor)
        if not np.isfinite(array).all():
            raise ParameterError("weights", "must be finite numbers")
        array.flags.writeable = False
        self.__dict__["weights"] = array

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
        return self

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
        """(column, row) of a rank-1 kernel, float64, else None."""
        i, j = np.unravel_index(np.argmax(np.abs(self.weights)), self.shape)
        pivot = self.weights[i, j]
        if pivot == 0:
            return np.zeros(self.shape[0]), np.zeros(self.shape[1])
        column, row = self.weights[:, j], self.weights[i, :] / pivot
        error = np.abs(self.weights - np.outer(column, row)).max()
        return (column, row) if error <= RANK1_TOLERANCE * abs(pivot) else None

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


_NO_TAP = Kernel([[0.0]])


@dataclass(frozen=True, eq=False)
class Filter:
    """``out = gain * combined + source_gain * source + bias``, then rounded (see pixels.quantise).

    ``combined`` is the one kernel's result (``single``) or ``sqrt(a^2 + b^2)`` of two
    (``magnitude``). ``bias`` and ``threshold`` are fractions of full scale. A threshold t shrinks
    the change: with ``d = out - source``, ``out = source + sign(d) * max(|d| - t, 0)``, which is
    continuous, so that no rounding error can turn into a visible step.

    A gain or source_gain of 0 is no term, NaN and infinity or not: kernels whose gain is 0 are
    replaced by one of weight 0.

    ``alpha`` says what becomes of an alpha channel a (as a fraction of full scale):

    - ``filter``: colour c is filtered premultiplied and divided by the filtered alpha,
      ``(gain*K(c*a) + source_gain*c*a) / (gain*K(a) + source_gain*a) + bias``; colour is 0 where
      the filtered alpha is 0 or less.
    - ``keep``: alpha stays and transparent taps count as the pixel's own colour,
      ``K(c*a) + c * (sum(K) - K(a))`` in place of ``K(c)``. That needs no division, so it is
      stable where alpha is small, and a flat colour shows no edge at its matte. The result is NaN
      where c is not finite.
    """

    name: str
    kernels: tuple[Kernel, ...]
    combine: Literal["single", "magnitude"] = "single"
    gain: float = 1.0
    source_gain: float = 0.0
    bias: float = 0.0
    threshold: float = 0.0
    alpha: Literal["filter", "keep"] = "keep"

    def __post_init__(self) -> None:
        if len(self.kernels) != {"single": 1, "magnitude": 2}[self.combine]:
            raise ParameterError(
                "kernels", f"{self.combine!r} does not go with {len(self.kernels)}"
            )
        if self.gain == 0:
            object.__setattr__(self, "kernels", (_NO_TAP,) * len(self.kernels))

    @property
    def is_identity(self) -> bool:
        """Whether the result is the image, bit for bit. No engine computes anything then."""
        return self.gain == 0 and self.source_gain == 1 and self.bias == 0 and self.alpha == "keep"

    @property
    def reach(self) -> tuple[int, int, int, int]:
        """Halo in pixels of all kernels: above, below, left, right."""
        above, below, left, right = zip(*(kernel.reach for kernel in self.kernels), strict=True)
        return max(above), max(below), max(left), max(right)

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns) that hold all kernels, anchor on anchor."""
        above, below, left, right = self.reach
        return above + 1 + below, left + 1 + right

    @property
    def rank1(self) -> bool:
        """Whether every kernel has column and row factors."""
        return all(kernel.factors is not None for kernel in self.kernels)


def make(name: str, **parameters: Any) -> Filter:
    """The filter *name* of the catalogue. Raises ParameterError for what makes no sense."""
    if name not in CATALOGUE:
        raise ParameterError("filter", f"no filter {name!r}; there are {', '.join(CATALOGUE)}")
    return _MAKERS[name](**CATALOGUE[name].validate(parameters))


def gaussian(sigma: float, radius: int | None = None) -> Weights:
    """Gaussian weights ``exp(-x^2 / (2 sigma^2))``, sampled at whole pixels, summing to 1.

    Radius is ceil(3 sigma) pixels unless given.
    """
    if radius is None:
        radius = math.ceil(3 * sigma)
    x = np.arange(-radius, radius + 1, dtype=np.float64)
    with np.errstate(over="ignore"):
        weights = np.exp(-0.5 * np.square(x / sigma))
    weights[weights < NEGLIGIBLE] = 0
    return weights / math.fsum(weights)


def _blur(sigma: float, radius: int | None) -> Filter:
    weights = gaussian(sigma, radius)
    return Filter("blur", (Kernel.outer(weights, weights),), alpha="filter")


def _box(radius: int) -> Filter:
    # Ones and a gain, not 1/n^2 weights: sums of integers stay exact in float32 up to 2^24.
    ones = np.ones(2 * radius + 1)
    return Filter("box", (Kernel.outer(ones, ones),), gain=1 / ones.size**2, alpha="filter")


def _sharpen(amount: float) -> Filter:
    # The same as 0 -1 0; -1 5 -1; 0 -1 0 at amount 1, but with integer weights at any amount.
    kernel = Kernel([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    return Filter("sharpen", (kernel,), gain=amount, source_gain=1.0)


def _unsharp(sigma: float, amount: float, threshold: float) -> Filter:
    weights = gaussian(sigma)
    return Filter(
        "unsharp",
        (Kernel.outer(weights, weights),),
        gain=-amount,
        source_gain=1 + amount,
        threshold=amount * threshold,
    )


def _gradient(name: str, smooth: tuple[int, int, int]) -> Callable[[float], Filter]:
    def make_gradient(scale: float) -> Filter:
        across = (-1, 0, 1)
        kernels = Kernel(np.outer(smooth, across)), Kernel(np.outer(across, smooth))
        # A step edge has Sobel's value in all of them; their weights stay whole numbers.
        return Filter(name, kernels, combine="magnitude", gain=scale * 4 / sum(smooth))

    return make_gradient


def _laplacian(scale: float) -> Filter:
    return Filter("laplacian", (Kernel([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),), gain=scale)


def _emboss(scale: float) -> Filter:
    return Filter("emboss", (Kernel([[-1, -1, 0], [-1, 0, 1], [0, 1, 1]]),), gain=scale, bias=0.5)


def _kernel(weights: str | npt.ArrayLike, normalize: bool, bias: float, flip: bool) -> Filter:
    kernel = Kernel(parse_weights(weights) if isinstance(weights, str) else weights)
    if normalize:
        # To about 1, by a power of two, which changes no digit: engines keep weights in float32.
        _, exponent = math.frexp(float(np.abs(kernel.weights).max()))
        kernel = Kernel(np.ldexp(kernel.weights, -exponent))
    if flip:
        rows, columns = kernel.shape
        anchor = rows - 1 - kernel.anchor[0], columns - 1 - kernel.anchor[1]
        kernel = Kernel(kernel.weights[::-1, ::-1], anchor)
    gain = 1.0
    if normalize:
        # Relative to the weights' size: 0.1 + 0.2 - 0.3 is not 0 in float64.
        if abs(kernel.sum) <= 1e-12 * kernel.magnitude:
            raise ParameterError("normalize", "the weights sum to 0: nothing to divide by")
        gain = 1 / kernel.sum
    smoothing = kernel.weights.min() >= 0 and kernel.sum > 0
    return Filter(
        "kernel", (kernel,), gain=gain, bias=bias, alpha="filter" if smoothing else "keep"
    )


_MAKERS: dict[str, Callable[..., Filter]] = {
    "blur": _blur,
    "box": _box,
    "sharpen": _sharpen,
    "unsharp": _unsharp,
    "sobel": _gradient("sobel", (1, 2, 1)),
    "scharr": _gradient("scharr", (3, 10, 3)),
    "prewitt": _gradient("prewitt", (1, 1, 1)),
    "laplacian": _laplacian,
    "emboss": _emboss,
    "kernel": _kernel,
}
