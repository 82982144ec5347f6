"""The filters of the catalogue, by their names and parameters."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ParameterError
from cudafilter.operations.catalogue import CATALOGUE, MAX_DENSE_RADIUS
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel, Weights
from cudafilter.operations.operation import Operation, require_operation
from cudafilter.operations.weights import parse_weights

NEGLIGIBLE = 1e-18
"""Gaussian weights below this share of the peak are 0, so that a product of two is normal in
float32; a full-scale 16-bit sample times such a weight is 1e-13 of a step."""

MIDDLE = 128 / 255
"""The gray on which both signs stand. It is a whole number in 8 and in 16 bits, which no rounding
error of a flat area's 0 moves; half of full scale lies between two."""

CorrelationName = Literal[
    "blur", "box", "sharpen", "unsharp", "sobel", "scharr", "prewitt", "laplacian", "emboss",
    "kernel", "motion", "disk", "highpass", "dog", "log", "gabor",
]  # fmt: skip


@overload
def make(name: CorrelationName, **parameters: Any) -> Correlation: ...
@overload
def make(name: str, **parameters: Any) -> Operation: ...
def make(name: str, **parameters: Any) -> Operation:
    """The filter *name* of the catalogue. Raises ParameterError for what makes no sense."""
    if name not in CATALOGUE:
        raise ParameterError("filter", f"no filter {name!r}; there are {', '.join(CATALOGUE)}")
    return _maker(name)(**CATALOGUE[name].validate(parameters))


def made(filter: str | Operation, parameters: Mapping[str, Any]) -> Operation:
    """The operation that *filter* is, or that it names, with its *parameters*.

    Raises ParameterError for what makes no sense.
    """
    if isinstance(filter, str):
        return make(filter, **parameters)
    if parameters:
        raise ParameterError(next(iter(parameters)), "a Filter has its parameters already")
    return require_operation(filter)


def _maker(name: str) -> Callable[..., Operation]:
    if name in _MAKERS:
        return _MAKERS[name]
    from cudafilter.operations import make_alike, make_points, make_ranks

    return (make_ranks.MAKERS | make_alike.MAKERS | make_points.MAKERS)[name]


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
        kernels = Kernel.outer(smooth, across), Kernel.outer(across, smooth)
        # A step edge has Sobel's value in all of them; their weights stay whole numbers.
        return Correlation(name, kernels, combine="magnitude", gain=scale * 4 / sum(smooth))

    return make_gradient


def _laplacian(scale: float) -> Correlation:
    return Correlation("laplacian", (Kernel([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),), gain=scale)


def _emboss(scale: float) -> Correlation:
    return Correlation(
        "emboss", (Kernel([[-1, -1, 0], [-1, 0, 1], [0, 1, 1]]),), gain=scale, bias=0.5
    )


def _kernel(
    weights: str | os.PathLike[str] | npt.ArrayLike, normalize: bool, bias: float, flip: bool
) -> Correlation:
    if isinstance(weights, (str, os.PathLike)):
        weights = parse_weights(os.fspath(weights))
    kernel = Kernel(weights)
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


def _motion(length: float, angle: float) -> Correlation:
    """Weights ``max(0, 1 - d)`` over their sum, d the distance from the segment of the line.

    The segment has length - 1 pixels, since each of its ends stands for a pixel: a level line of 3
    is 1/3 1/3 1/3. So MATLAB's ``fspecial("motion")`` has it.
    """
    half = (length - 1) / 2
    cosine, sine = _direction(angle)
    rows, columns = (math.ceil(half * abs(part) + 1) - 1 for part in (sine, cosine))
    along, across = _turned(angle, rows, columns)
    distance = np.hypot(np.maximum(np.abs(along) - half, 0), across)
    weights = np.maximum(1 - distance, 0).round(9)  # a rounding error is no tap
    return Correlation("motion", (Kernel(weights / weights.sum()),), alpha="filter")


def _direction(angle: float) -> tuple[float, float]:
    """Cosine and sine of *angle* in degrees, rounded, so that level and upright are just that."""
    return round(math.cos(math.radians(angle)), 12), round(math.sin(math.radians(angle)), 12)


def _turned(angle: float, rows: int, columns: int) -> tuple[Weights, Weights]:
    """How far each pixel around the middle lies along and across *angle*, in pixels.

    (2 rows + 1, 2 columns + 1) each. *angle* is in degrees, anticlockwise from the horizontal as
    the picture is seen, whose rows run down.
    """
    y, x = np.mgrid[-rows : rows + 1, -columns : columns + 1].astype(np.float64)
    cosine, sine = _direction(angle)
    return x * cosine - y * sine, x * sine + y * cosine


def _disk(radius: float) -> Correlation:
    """Weights are the areas that pixels, as squares, share with the disk, over their sum.

    Each is the difference of the disk's areas in the rectangles from its middle to the corners of
    the pixel. So MATLAB's ``fspecial("disk")`` has it.
    """
    edges = np.append(0, np.arange(math.ceil(max(radius - 0.5, 0)) + 1) + 0.5)
    areas = _area(edges[:, None], edges[None, :], radius)
    quarter = np.diff(np.diff(areas, axis=0), axis=1)
    quarter[0] *= 2  # of the middle row and column, the quarter has a half
    quarter[:, 0] *= 2
    quarter = quarter.round(9).clip(0)  # inside 1 and outside 0, not nearly so
    half = np.concatenate([quarter[:0:-1], quarter])
    weights = np.concatenate([half[:, :0:-1], half], axis=1)
    return Correlation("disk", (Kernel(weights / weights.sum()),), alpha="filter")


def _area(x: Weights, y: Weights, radius: float) -> Weights:
    """The area of 0..x times 0..y within the circle of *radius* around 0, for x and y >= 0.

    Its height over u is y up to where the circle is that high, and ``sqrt(radius^2 - u^2)`` then.
    """
    x, y = np.minimum(x, radius), np.minimum(y, radius)

    def height(u: Weights) -> Weights:
        return np.sqrt((radius - u) * (radius + u))  # never of less than 0, as a difference may be

    def under(u: Weights) -> Weights:
        return (u * height(u) + radius**2 * np.arcsin(u / radius)) / 2

    flat = np.minimum(x, height(y))
    return np.where(x > flat, flat * y + under(x) - under(flat), x * y)


def _highpass(sigma: float, scale: float, bias: float | None) -> Correlation:
    weights = gaussian(sigma)
    return _both_signs("highpass", Kernel.outer(weights, weights), -scale, bias, source_gain=scale)


def _dog(sigma: float, ratio: float, scale: float, bias: float | None) -> Correlation:
    """``G(sigma) - G(ratio * sigma)``, both as blur has them.

    Marr and Hildreth, "Theory of edge detection" (1980); at a ratio of 1.6 it is nearest to a
    Laplacian of a Gaussian.
    """
    _require_reach("ratio", ratio * sigma)
    narrow, wide = gaussian(sigma), gaussian(ratio * sigma)
    narrow = np.pad(narrow, (wide.size - narrow.size) // 2)
    return _both_signs("dog", Kernel(np.outer(narrow, narrow) - np.outer(wide, wide)), scale, bias)


def _log(sigma: float, scale: float, bias: float | None) -> Correlation:
    """sigma^2 times the Laplacian of a Gaussian.

    Marr and Hildreth (1980); the factor is that of Lindeberg, "Feature detection with automatic
    scale selection" (1998).

    ``g''(y) g(x) + g(y) g''(x)`` with ``g'' = g * (x^2 - m) * c``, where m is the variance of the
    sampled g in place of sigma^2, so that a constant gives 0, and c makes x^2 give 2, as sigma^-4
    does but for sampling. Towards sigma 0 it becomes 0 1 0; 1 -4 1; 0 1 0.
    """
    reach = math.ceil(4 * sigma)
    weights, squares = gaussian(sigma, reach), np.arange(-reach, reach + 1.0) ** 2
    second = weights * (squares - weights @ squares)
    second *= 2 / (second @ squares)
    kernel = Kernel(np.outer(second, weights) + np.outer(weights, second))
    return _both_signs("log", kernel, scale * sigma**2, bias)


def _gabor(
    sigma: float,
    wavelength: float,
    angle: float,
    phase: float,
    aspect: float,
    scale: float,
    bias: float | None,
) -> Correlation:
    """``exp(-(u^2 + aspect^2 v^2) / (2 sigma^2)) * (cos(2 pi u / wavelength + phase) - c)``.

    Daugman (1985) as Petkov and Kruizinga (1997) write it; u is along *angle* and v across it. c
    makes the weights sum to 0, and a divisor their absolute values to 1.
    """
    _require_reach("aspect", sigma / aspect)
    cosine, sine = _direction(angle)
    reach = np.hypot([sine, cosine], [cosine / aspect, sine / aspect]) * 3 * sigma
    along, across = _turned(angle, *np.ceil(reach).astype(int).tolist())
    envelope = np.exp(-0.5 * (along**2 + (aspect * across) ** 2) / sigma**2)
    envelope[envelope < NEGLIGIBLE] = 0
    wave = np.cos(2 * math.pi * along / wavelength + math.radians(phase))
    weights = envelope * (wave - (envelope * wave).sum() / envelope.sum())
    size = np.abs(weights).sum()
    if size < 1e-6 * envelope.sum():
        raise ParameterError("wavelength", "of this wave, pixels under this Gaussian show nothing")
    return _both_signs("gabor", Kernel(weights / size), scale, bias)


def _both_signs(
    name: str, kernel: Kernel, gain: float, bias: float | None, source_gain: float = 0.0
) -> Correlation:
    """A correlation that gives both signs, on *bias* or on MIDDLE."""
    return Correlation(
        name, (kernel,), gain=gain, source_gain=source_gain, bias=MIDDLE if bias is None else bias
    )


def _require_reach(name: str, sigma: float) -> None:
    """Raise ParameterError for *name* where a Gaussian reaches further than a dense kernel may."""
    reach = math.ceil(3 * sigma)
    if reach > MAX_DENSE_RADIUS:
        raise ParameterError(
            name,
            f"makes a Gaussian of sigma {sigma:g}, which reaches {reach} pixels;"
            f" {MAX_DENSE_RADIUS} are the most",
        )


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
    "kernel": _kernel,
    "motion": _motion,
    "disk": _disk,
    "highpass": _highpass,
    "dog": _dog,
    "log": _log,
    "gabor": _gabor,
}
