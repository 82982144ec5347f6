"""The filters of the catalogue, by their names and parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ParameterError
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.difference import blackhat, closing, opening, outline, tophat
from cudafilter.operations.kernel import Kernel, Weights
from cudafilter.operations.operation import Operation
from cudafilter.operations.rank import dilation, erosion, median, percentile
from cudafilter.operations.weights import parse_weights
from cudafilter.operations.window import Window, cross, disk, masked, square

NEGLIGIBLE = 1e-18
"""Gaussian weights below this share of the peak are 0, so that a product of two is normal in
float32; a full-scale 16-bit sample times such a weight is 1e-13 of a step."""


CorrelationName = Literal[
    "blur", "box", "sharpen", "unsharp", "sobel", "scharr", "prewitt", "laplacian", "emboss",
    "kernel",
]  # fmt: skip


@overload
def make(name: CorrelationName, **parameters: Any) -> Correlation: ...
@overload
def make(name: str, **parameters: Any) -> Operation: ...
def make(name: str, **parameters: Any) -> Operation:
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


def _blur(sigma: float, radius: int | None) -> Correlation:
    weights = gaussian(sigma, radius)
    return Correlation("blur", (Kernel.outer(weights, weights),), alpha="filter")


def _box(radius: int) -> Correlation:
    # Ones and a gain, not 1/n^2 weights: sums of integers stay exact in float32 up to 2^24.
    ones = np.ones(2 * radius + 1)
    return Correlation("box", (Kernel.outer(ones, ones),), gain=1 / ones.size**2, alpha="filter")


def _sharpen(amount: float) -> Correlation:
    # The same as 0 -1 0; -1 5 -1; 0 -1 0 at amount 1, but with integer weights at any amount.
    kernel = Kernel([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    return Correlation("sharpen", (kernel,), gain=amount, source_gain=1.0)


def _unsharp(sigma: float, amount: float, threshold: float) -> Correlation:
    weights = gaussian(sigma)
    return Correlation(
        "unsharp",
        (Kernel.outer(weights, weights),),
        gain=-amount,
        source_gain=1 + amount,
        threshold=amount * threshold,
    )


def _gradient(name: str, smooth: tuple[int, int, int]) -> Callable[[float], Correlation]:
    def make_gradient(scale: float) -> Correlation:
        across = (-1, 0, 1)
        kernels = Kernel(np.outer(smooth, across)), Kernel(np.outer(across, smooth))
        # A step edge has Sobel's value in all of them; their weights stay whole numbers.
        return Correlation(name, kernels, combine="magnitude", gain=scale * 4 / sum(smooth))

    return make_gradient


def _laplacian(scale: float) -> Correlation:
    return Correlation("laplacian", (Kernel([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),), gain=scale)


def _emboss(scale: float) -> Correlation:
    return Correlation(
        "emboss", (Kernel([[-1, -1, 0], [-1, 0, 1], [0, 1, 1]]),), gain=scale, bias=0.5
    )


def _kernel(weights: str | npt.ArrayLike, normalize: bool, bias: float, flip: bool) -> Correlation:
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
    return Correlation(
        "kernel", (kernel,), gain=gain, bias=bias, alpha="filter" if smoothing else "keep"
    )


def _shaped(make_operation: Callable[[Window], Operation]) -> Callable[..., Operation]:
    def make_shaped(radius: int | None, shape: str) -> Operation:
        return make_operation(_window(radius, shape))

    return make_shaped


def _window(radius: int | None, shape: str) -> Window:
    """The window that *shape* names. Raises ParameterError."""
    if shape in _SHAPES:
        return _SHAPES[shape](1 if radius is None else radius)
    if radius is not None:
        raise ParameterError("radius", f"the mask {shape} has a size of its own")
    try:
        return masked(parse_weights(shape, "shape"))
    except ParameterError as error:
        hint = "square, disk, cross, or a file with a mask: rows of 0 and 1"
        raise ParameterError("shape", str(error), hint=hint) from error


_SHAPES = {"square": square, "disk": disk, "cross": cross}

_MAKERS: dict[str, Callable[..., Operation]] = {
    "blur": _blur,
    "box": _box,
    "sharpen": _sharpen,
    "unsharp": _unsharp,
    "sobel": _gradient("sobel", (1, 2, 1)),
    "scharr": _gradient("scharr", (3, 10, 3)),
    "prewitt": _gradient("prewitt", (1, 1, 1)),
    "laplacian": _laplacian,
    "emboss": _emboss,
    "median": median,
    "percentile": percentile,
    "erode": _shaped(erosion),
    "dilate": _shaped(dilation),
    "open": _shaped(opening),
    "close": _shaped(closing),
    "tophat": _shaped(tophat),
    "blackhat": _shaped(blackhat),
    "outline": _shaped(outline),
    "kernel": _kernel,
}
