"""SciPy's and scikit-image's filters of arrays, as operations of cudafilter.

To add a function: a maker in ``SCIPY`` or ``SKIMAGE``. It gives an operation, of the image and the
arguments by name, or raises Unmapped.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from peer_adapters import TALLY, Array, Function, Unmapped, apply, difference, terms

import cudafilter
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.difference import blackhat, closing, opening, outline, tophat
from cudafilter.operations.make import gaussian, make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import full_scale
from cudafilter.operations.rank import Rank
from cudafilter.operations.window import Window, masked

Maker = Callable[[Array, dict[str, Any]], Operation]

MODES = {
    "reflect": "symmetric", "grid-mirror": "symmetric", "nearest": "edge", "mirror": "reflect",
    "constant": "constant", "grid-constant": "constant", "wrap": "wrap", "grid-wrap": "wrap",
}  # fmt: skip
"""SciPy's borders under cudafilter's names."""


def _each(value: Any, count: int) -> list[Any]:
    """*value* for each axis, as SciPy takes one or a sequence."""
    if isinstance(value, str) or not np.iterable(value):
        return [value] * count
    if len(given := list(value)) != count:
        raise Unmapped("arguments that SciPy refuses")
    return given


def _planar(array: Array) -> Array:
    """Weights or a footprint, of as many axes as the image, as rows and columns."""
    if array.ndim == 1:
        return array[None, :]
    if array.ndim == 3 and array.shape[2] == 1:
        return array[..., 0]
    if array.ndim != 2 or not array.size:
        raise Unmapped("not two axes")
    return array


def _anchor(size: Sequence[int], origin: Any) -> tuple[int, int]:
    places = [side // 2 + int(o) for side, o in zip(size, _each(origin, len(size)), strict=True)]
    if any(not 0 <= place < side for place, side in zip(places, size, strict=True)):
        raise Unmapped("arguments that SciPy refuses")
    rows, columns = (0, places[0]) if len(places) == 1 else places[:2]
    return rows, columns


def _correlation(weights: Any, origin: Any, image: Array, gain: float = 1.0) -> Operation:
    weights = np.asarray(weights)
    if weights.dtype.kind not in "biuf" or weights.ndim != image.ndim:
        raise Unmapped("complex or misshapen weights")
    anchor = _anchor(weights.shape, origin)
    return Correlation("kernel", (cudafilter.Kernel(_planar(weights), anchor),), gain=gain)


def _flipped(array: Any, origin: Any) -> tuple[Array, list[int]]:
    """As SciPy turns a convolution to a correlation."""
    array = np.asarray(array)
    origins = [-int(o) - (side % 2 == 0)
               for side, o in zip(array.shape, _each(origin, array.ndim), strict=True)]  # fmt: skip
    return np.flip(array), origins


def _along(weights: Any, axis: int, image: Array) -> Array:
    """*weights* of one axis, with as many axes as the image."""
    weights = np.asarray(weights)
    if weights.ndim != 1 or not -image.ndim <= axis < image.ndim:
        raise Unmapped("arguments that SciPy refuses")
    shape = [1] * image.ndim
    shape[axis] = weights.size
    along: Array = weights.reshape(shape)
    return along


def _gaussian(image: Array, g: dict[str, Any], axes: Sequence[int]) -> Operation:
    factors = {axis: np.ones(1) for axis in range(image.ndim)}
    sigmas, radii = _each(g["sigma"], len(axes)), _each(g["radius"], len(axes))
    if any(_each(g["order"], len(axes))):
        raise Unmapped("derivatives of a Gaussian")
    if not all(sigma >= 0 for sigma in sigmas) or any(r is not None and r < 0 for r in radii):
        raise Unmapped("arguments that SciPy refuses")
    radii = [int(g["truncate"] * sigma + 0.5) if radius is None else radius
             for sigma, radius in zip(sigmas, radii, strict=True)]  # fmt: skip
    if image.ndim == len(axes) == 2 and len({*sigmas}) == len({*radii}) == 1 and sigmas[0] > 1e-9:
        return make("blur", sigma=float(sigmas[0]), radius=int(radii[0]))
    for axis, sigma, radius in zip(axes, sigmas, radii, strict=True):
        if sigma > 1e-15:
            factors[axis] = gaussian(sigma, radius)
    weights = functools.reduce(np.multiply.outer, [factors[axis] for axis in range(image.ndim)])
    return _correlation(weights, 0, image)


def _uniform(image: Array, size: Any, origin: Any) -> Operation:
    sizes = [int(side) for side in _each(size, image.ndim)]
    if min(sizes) < 1:
        raise Unmapped("arguments that SciPy refuses")
    if image.ndim == 2 and len({*sizes}) == 1 and sizes[0] % 2 and not np.any(origin):
        return make("box", radius=sizes[0] // 2)
    return _correlation(np.ones(sizes), origin, image, 1 / math.prod(sizes))


def _footprint(g: dict[str, Any], image: Array) -> Array:
    """The footprint that size, footprint and structure name."""
    size, footprint, flat = g.get("size"), g.get("footprint"), g.get("structure")
    if (size is None) == (footprint is None) and flat is None:
        raise Unmapped("size and footprint, or neither")
    if flat is not None:
        if np.any(flat):
            raise Unmapped("structures that are not flat")
        footprint = np.ones(np.shape(flat)) if footprint is None else footprint
    if footprint is None:
        footprint = np.ones([int(side) for side in _each(size, image.ndim)])
    footprint = np.asarray(footprint, bool)
    if footprint.ndim != image.ndim or not footprint.any():
        raise Unmapped("arguments that SciPy refuses")
    return footprint


def _rank(name: str, footprint: Array, origin: Any, rank: int) -> Operation:
    mask = _planar(footprint)
    if not 0 <= (rank := rank + mask.sum() * (rank < 0)) < mask.sum():
        raise Unmapped("arguments that SciPy refuses")
    side = mask.shape[0]
    is_square = mask.shape == (side, side) and mask.all() and side % 2 and not np.any(origin)
    if is_square and name in ("median", "erode", "dilate"):
        return make(name, radius=side // 2)
    inside = None if mask.all() else mask.tobytes()
    shape = (mask.shape[0], mask.shape[1])
    return Rank(name, Window(shape, _anchor(footprint.shape, origin), inside), int(rank))


def _percentile(footprint: Array, percent: float) -> int:
    percent = percent + 100 * (percent < 0)
    count = int(footprint.sum())
    return count - 1 if percent == 100 else int(count * percent / 100)


def _shaped(of: Callable[[Window], Operation]) -> Function:
    """A filter of *of* a window whose middle is a pixel."""

    def make_shaped(image: Array, g: dict[str, Any]) -> Operation:
        footprint = _footprint(g, image)
        if np.any(g["origin"]) or not all(side % 2 for side in footprint.shape):
            raise Unmapped("openings with an origin or an even side")
        return of(masked(_planar(footprint)))

    return make_shaped


def _grey_dilation(image: Array, g: dict[str, Any]) -> Operation:
    return _rank("dilate", *_flipped(_footprint(g, image), g["origin"]), -1)


def _derivative(smooth: Sequence[int]) -> Function:
    def make_derivative(image: Array, g: dict[str, Any]) -> Operation:
        if g["mode"] == "constant" and g["cval"]:
            raise Unmapped("a derivative across a border that is not 0")
        axis = range(image.ndim)[g["axis"]]
        factors = [np.array((-1, 0, 1) if i == axis else smooth) for i in range(image.ndim)]
        return _correlation(functools.reduce(np.multiply.outer, factors), 0, image)

    return make_derivative


def _magnitude(image: Array, g: dict[str, Any]) -> Operation:
    names = {"sobel": 1.0, "prewitt": 0.75}
    name = getattr(g["derivative"], "__name__", "")
    extra = g["extra_arguments"] or g["extra_keywords"]
    if name not in names or extra or image.ndim != 2 or (g["mode"] == "constant" and g["cval"]):
        raise Unmapped("magnitudes of other derivatives")
    return make(name, scale=names[name])


def _one(name: str, rank: int) -> Function:
    return lambda image, g: _rank(name, _along(np.ones(int(g["size"]), bool), g["axis"], image),
                                  _place(g, image), rank)  # fmt: skip


def _place(g: dict[str, Any], image: Array) -> list[int]:
    origins = [0] * image.ndim
    origins[g["axis"]] = g["origin"]
    return origins


def _laplace(image: Array, g: dict[str, Any]) -> Operation:
    return make("laplacian") if image.ndim == 2 else _correlation([1, -2, 1], 0, image)


SCIPY: dict[str, Maker] = {
    "correlate": lambda image, g: _correlation(g["weights"], g["origin"], image),
    "convolve": lambda image, g: _correlation(*_flipped(g["weights"], g["origin"]), image),
    "correlate1d": lambda image, g: _correlation(
        _along(g["weights"], g["axis"], image), _place(g, image), image
    ),
    "convolve1d": lambda image, g: _correlation(
        *_flipped(_along(g["weights"], g["axis"], image), _place(g, image)), image
    ),
    "gaussian_filter": lambda image, g: _gaussian(image, g, range(image.ndim)),
    "gaussian_filter1d": lambda image, g: _gaussian(image, g, [range(image.ndim)[g["axis"]]]),
    "uniform_filter": lambda image, g: _uniform(image, g["size"], g["origin"]),
    "uniform_filter1d": lambda image, g: _correlation(
        _along(np.ones(g["size"]), g["axis"], image), _place(g, image), image, 1 / g["size"]
    ),
    "sobel": _derivative((1, 2, 1)),
    "prewitt": _derivative((1, 1, 1)),
    "laplace": _laplace,
    "generic_gradient_magnitude": _magnitude,
    "minimum_filter": lambda image, g: _rank("erode", _footprint(g, image), g["origin"], 0),
    "maximum_filter": lambda image, g: _rank("dilate", _footprint(g, image), g["origin"], -1),
    "minimum_filter1d": _one("erode", 0),
    "maximum_filter1d": _one("dilate", -1),
    "median_filter": lambda image, g: _rank(
        "median", (f := _footprint(g, image)), g["origin"], int(f.sum()) // 2
    ),
    "rank_filter": lambda image, g: _rank(
        "percentile", _footprint(g, image), g["origin"], int(g["rank"])
    ),
    "percentile_filter": lambda image, g: _rank(
        "percentile", (f := _footprint(g, image)), g["origin"], _percentile(f, g["percentile"])
    ),
    "grey_erosion": lambda image, g: _rank("erode", _footprint(g, image), g["origin"], 0),
    "grey_dilation": _grey_dilation,
    "grey_opening": _shaped(opening),
    "grey_closing": _shaped(closing),
    "white_tophat": _shaped(tophat),
    "black_tophat": _shaped(blackhat),
    "morphological_gradient": _shaped(outline),
}
"""Of each function of scipy.ndimage: what makes the operation, of the image and the arguments."""


def _edges(name: str) -> Function:
    def make_edges(image: Array, g: dict[str, Any]) -> Operation:
        if g["axis"] is not None or image.ndim != 2 or image.dtype.kind != "f":
            raise Unmapped("one axis, or integers that are scaled first")
        if g["mode"] == "constant" and g["cval"]:
            raise Unmapped("a derivative across a border that is not 0")
        return make(name, scale=math.sqrt(0.5) / 4)

    return make_edges


SKIMAGE: dict[str, Maker] = {name: _edges(name) for name in ("sobel", "scharr", "prewitt")}
"""Of skimage.filters: its other functions call scipy.ndimage's."""


def _samples(image: Array, out: np.dtype[Any]) -> Array:
    """*image* as (rows, columns, channels) of a type that cudafilter has."""
    shape = {1: (1, -1, 1), 2: (*image.shape, 1), 3: image.shape}.get(image.ndim)
    if not image.size or shape is None or (image.ndim == 3 and image.shape[2] > 4):
        raise Unmapped("no pixels, or more axes than an image has")
    if image.dtype.kind not in "biuf" or out.kind not in "biuf":
        raise Unmapped("complex numbers")
    if image.dtype in (np.uint8, np.uint16) and image.dtype.isnative and out == image.dtype:
        return image.reshape(shape)
    sizes = np.abs(image.astype(np.float64))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if ((sizes > (2.0**24 if image.dtype.kind in "iu" else 1e37)) | (sizes < 1e-37)).any():
        raise Unmapped("numbers past float32's")
    return image.astype(np.float32).reshape(shape)


def _border(g: dict[str, Any], pixels: Array) -> tuple[str, float]:
    """The border of a call, and the value of a constant one."""
    modes = {*_each(g["mode"], 1 if isinstance(g["mode"], str) else len(g["mode"]))}
    if len(modes) != 1 or (mode := modes.pop()) not in MODES:
        raise Unmapped("another border along each axis")
    if (mode := MODES[mode]) != "constant":
        return mode, 0.0
    if isinstance(value := g["cval"], complex) or not math.isfinite(value):
        raise Unmapped("a border value that is no number")
    most = full_scale(pixels.dtype)
    if pixels.dtype.kind == "u" and (value != int(value) or not 0 <= value <= most):
        raise Unmapped("a border value that the samples cannot have")
    return mode, float(value)


def _require_order(rank: Rank, image: Array, mode: str, expected: Array) -> None:
    """Raise Unmapped where SciPy's order of samples is not NumPy's.

    Its medians of one axis, by windows wider than that, may not be those of the mirrored array.
    """
    if image.dtype.kind == "f" and np.isnan(image).any():
        raise Unmapped("ranks of NaN, whose order SciPy leaves open")
    if image.ndim != 1 or rank.window.count <= image.size or mode == "constant":
        return
    padded = np.pad(image, rank.reach[2:], mode=mode)  # type: ignore[call-overload]
    windows = np.lib.stride_tricks.sliding_window_view(padded, rank.window.shape[1])
    if not np.array_equal(np.sort(windows[:, rank.window.mask[0]])[:, rank.rank], expected):
        raise Unmapped("medians of windows wider than an array, not those of what NumPy pads")


def by_arrays(maker: Maker) -> Callable[..., tuple[Any, str]]:
    """A function of arrays by the operation that *maker* makes of its arguments."""

    def ours(peers: Function, *args: Any, **kwargs: Any) -> tuple[Any, str]:
        bound = inspect.signature(peers).bind(*args, **kwargs)
        bound.apply_defaults()
        g = bound.arguments
        first = next(iter(g))
        image = g[first] = np.array(g[first])
        target, axes = g.get("output"), g.get("axes")
        if axes is not None or any(g.get(name) is not None for name in ("mask", "channel_axis")):
            raise Unmapped("axes or a mask")
        if "output" in g and isinstance(target, np.ndarray):
            g["output"] = target.dtype
            if target.shape != image.shape:
                raise Unmapped("arguments that SciPy refuses")

        def again(**changed: Any) -> Array:
            with TALLY.comparing():
                return np.asarray(peers(**{**g, **changed}))

        expected = again()  # before all else, for it tells what is wrong with the arguments
        pixels = _samples(image, expected.dtype)
        mode, value = _border(g, pixels)
        operation = maker(image, g)
        if isinstance(operation, Rank):
            _require_order(operation, image, mode, expected)
        got = apply(pixels, operation, mode, value).reshape(image.shape)
        wide = {first: image.astype(np.float64)}
        exact = again(**wide, **({"output": np.float64} if "output" in g else {}))
        if got.dtype != expected.dtype:
            if expected.dtype.kind in "iu":
                limits = np.iinfo(expected.dtype)
                if (exact < limits.min).any() or (exact > limits.max).any():
                    raise Unmapped("integers that wrap")
                got = np.trunc(got)
            got = got.astype(expected.dtype)
        differs = difference(got, expected, exact, terms(operation, pixels, value))
        if isinstance(target, np.ndarray):
            target[...] = got
            return target, differs
        return got, differs

    return ours
