"""kornia's filters of tensors, as operations of cudafilter.

A batch is done image by image, and images of more than 4 channels by fours. What kornia computes in
float64 is done in float32. Gradients, PyTorch's compiler and its transforms stay kornia's own.

To add a function: a way in ``FILTERS`` or ``MORPHOLOGY``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from peer_adapters import TALLY, Array, Function, Unmapped, apply, difference, terms

import cudafilter
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.difference import Difference
from cudafilter.operations.make import gaussian, make
from cudafilter.operations.operation import Operation
from cudafilter.operations.rank import Rank, dilation, erosion
from cudafilter.operations.window import Window

MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""kornia's borders under cudafilter's names."""

LARGEST = 1e37
"""Samples up to this size. Beyond them lies what is outside of images that windows pass over."""

OUTSIDE = 3e38


class Picture:
    """One image of a batch, and the arguments of its call by name."""

    def __init__(self, pixels: Array, place: int, g: dict[str, Any]) -> None:
        self.pixels = pixels
        """(rows, columns, channels), float32."""
        self.place = place
        """Which image of the batch it is."""
        self.g = g
        self.terms = 0.0
        """How large what was summed may be."""

    def of(self, name: str) -> Array:
        """The argument *name* of this image: numbers of all, or of each."""
        value = np.asarray(self.g[name], np.float64)
        if isinstance(self.g[name], torch.Tensor) and value.ndim:
            return np.asarray(value[self.place if len(value) > 1 else 0])
        return value

    def by(self, operation: Operation, mode: str | None = None, value: float = 0.0) -> Array:
        """The image by *operation*, with the call's border unless *mode* names another."""
        mode = mode or MODES[str(self.g["border_type"]).lower()]
        self.terms = max(self.terms, terms(operation, self.pixels))
        count = self.pixels.shape[2]
        parts = [self.pixels[..., first : first + 4] for first in range(0, count, 4)]
        return np.concatenate([apply(part, operation, mode, value) for part in parts], axis=2)


Way = Callable[[Picture], Array]
"""What makes of an image the result: (rows, columns, channels, ...)."""


def _pair(value: Any) -> tuple[int, int]:
    """A size for both axes, rows first."""
    rows, columns = (value, value) if isinstance(value, int) else value
    return int(rows), int(columns)


def _kernel(weights: Array, gain: float = 1.0, source_gain: float = 0.0) -> Operation:
    """A correlation; kernels of an even side are anchored left of and above their middle."""
    anchor = (weights.shape[0] - 1) // 2, (weights.shape[1] - 1) // 2
    kernel = cudafilter.Kernel(weights, anchor)
    return Correlation("kernel", (kernel,), gain=gain, source_gain=source_gain)


def _gaussian(picture: Picture) -> tuple[Array, bool]:
    """The weights of a Gaussian, and whether it is the same across and down."""
    sides, sigmas = _pair(picture.g["kernel_size"]), picture.of("sigma").ravel()
    if not all(side % 2 for side in sides) or len(sigmas) != 2 or not (sigmas > 1e-9).all():
        raise Unmapped("even sides, or a sigma of 0")
    column, row = (gaussian(float(s), n // 2) for s, n in zip(sigmas, sides, strict=True))
    return np.outer(column, row), sigmas[0] == sigmas[1] and sides[0] == sides[1]


def _gaussian_blur2d(picture: Picture) -> Array:
    weights, is_round = _gaussian(picture)
    if not is_round:
        return picture.by(_kernel(weights))
    sigma = float(picture.of("sigma").ravel()[0])
    return picture.by(make("blur", sigma=sigma, radius=len(weights) // 2))


def _unsharp_mask(picture: Picture) -> Array:
    weights, _ = _gaussian(picture)
    return picture.by(_kernel(weights, -1.0, 2.0))


def _box_blur(picture: Picture) -> Array:
    rows, columns = _pair(picture.g["kernel_size"])
    if rows == columns and rows % 2:
        return picture.by(make("box", radius=rows // 2))
    return picture.by(_kernel(np.ones((rows, columns)), 1 / (rows * columns)))


def _filter(picture: Picture, weights: Array) -> Array:
    """By *weights*, where the call may want the inner part only."""
    if picture.g["normalized"]:
        weights = weights / np.abs(weights).sum()
    if not np.isfinite(weights).all():
        raise Unmapped("weights that are no numbers")
    if str(picture.g["padding"]).lower() == "same":
        return picture.by(_kernel(weights))
    whole = picture.by(_kernel(weights), "edge")
    (above, left), (rows, columns) = ((side - 1) // 2 for side in weights.shape), weights.shape
    height, width = whole.shape[:2]
    return whole[above : above + height - rows + 1, left : left + width - columns + 1]


def _filter2d(picture: Picture) -> Array:
    weights = picture.of("kernel")
    convolved = str(picture.g["behaviour"]).lower() == "conv"
    return _filter(picture, np.flip(weights) if convolved else weights)


def _filter2d_separable(picture: Picture) -> Array:
    return _filter(picture, np.outer(picture.of("kernel_y"), picture.of("kernel_x")))


def _laplacian(picture: Picture) -> Array:
    rows, columns = _pair(picture.g["kernel_size"])
    weights = np.ones((rows, columns))
    weights[rows // 2, columns // 2] -= rows * columns
    if picture.g["normalized"]:
        weights /= np.abs(weights).sum()
    return picture.by(_kernel(weights))


_SMOOTH = {"sobel": (1, 2, 1), "diff": (0, 1, 0)}


def _spatial_gradient(picture: Picture) -> Array:
    if picture.g["order"] != 1:
        raise Unmapped("second derivatives")
    weights = np.outer(_SMOOTH[str(picture.g["mode"]).lower()], (-1, 0, 1))
    gain = 1 / np.abs(weights).sum() if picture.g["normalized"] else 1.0
    along = [picture.by(_kernel(each, gain), "edge") for each in (weights, weights.T)]
    return np.stack(along, axis=3)


def _sobel(picture: Picture) -> Array:
    """kornia adds *eps* under the root."""
    scale = 0.125 if picture.g["normalized"] else 1.0
    magnitude = picture.by(make("sobel", scale=scale), "edge").astype(np.float64)
    return np.asarray(np.sqrt(magnitude**2 + float(picture.g["eps"])))


def _median_blur(picture: Picture) -> Array:
    rows, columns = _pair(picture.g["kernel_size"])
    if rows == columns:
        return picture.by(make("median", radius=rows // 2))
    window = Window((rows, columns), (rows // 2, columns // 2))
    return picture.by(Rank("median", window, window.count // 2))


def _motion_blur(picture: Picture) -> Array:
    angle = float(picture.of("angle"))
    if picture.of("direction") != 0 or angle not in (0, 90, 180, 270):
        raise Unmapped("lines of other weights")
    return picture.by(make("motion", length=float(picture.g["kernel_size"]), angle=angle))


def _other_weights(picture: Picture) -> Array:
    raise Unmapped("a square window of a bilateral filter, where cudafilter's is round")


FILTERS: dict[str, Way] = {
    "gaussian_blur2d": _gaussian_blur2d,
    "unsharp_mask": _unsharp_mask,
    "box_blur": _box_blur,
    "filter2d": _filter2d,
    "filter2d_separable": _filter2d_separable,
    "laplacian": _laplacian,
    "spatial_gradient": _spatial_gradient,
    "sobel": _sobel,
    "median_blur": _median_blur,
    "motion_blur": _motion_blur,
    "bilateral_blur": _other_weights,
}
"""Of each function of kornia.filters: its way. What canny() calls is here too."""


def _shaped(of: Callable[[Link, Link], Operation]) -> Way:
    """A filter of *of* an erosion and a dilation."""

    def by_shape(picture: Picture) -> Array:
        g = picture.g
        mask = np.asarray(g["kernel"]) != 0
        flat = g["structuring_element"]
        if flat is not None and np.any(np.asarray(flat)[mask]):
            raise Unmapped("structures that are not flat")
        rows, columns = mask.shape
        y, x = g["origin"] or (rows // 2, columns // 2)
        if not (0 <= y < rows and 0 <= x < columns and mask[y, x]):
            raise Unmapped("windows without their own pixel")
        window = Window((rows, columns), (y, x), None if mask.all() else mask.tobytes())
        eroded, dilated = Link(erosion(window)), Link(dilation(window))
        if g["border_type"] == "geodesic":  # outside lies what no window takes
            eroded = Link(eroded.operation, Border("constant", OUTSIDE))
            dilated = Link(dilated.operation, Border("constant", -OUTSIDE))
            return picture.by(of(eroded, dilated), "edge")
        mode = MODES[g["border_type"]]
        value = float(g["border_value"]) if mode == "constant" else 0.0
        if not abs(value) <= LARGEST:
            raise Unmapped("a border value that is no number")
        return picture.by(of(eroded, dilated), mode, value)

    return by_shape


def _opening(eroded: Link, dilated: Link) -> Operation:
    return Chain((eroded, dilated), "open")


def _closing(eroded: Link, dilated: Link) -> Operation:
    return Chain((dilated, eroded), "close")


MORPHOLOGY: dict[str, Way] = {
    "erosion": _shaped(lambda eroded, _: Chain((eroded,))),
    "dilation": _shaped(lambda _, dilated: Chain((dilated,))),
    "opening": _shaped(_opening),
    "closing": _shaped(_closing),
    "gradient": _shaped(lambda e, d: Difference("outline", Chain((d,)), Chain((e,)))),
    "top_hat": _shaped(lambda e, d: Difference("tophat", None, _opening(e, d))),
    "bottom_hat": _shaped(lambda e, d: Difference("blackhat", _closing(e, d), None)),
}
"""Of each function of kornia.morphology: its way."""


def _images(tensor: torch.Tensor) -> Array:
    """*tensor*, (images, channels, rows, columns), as (images, rows, columns, channels)."""
    if tensor.ndim != 4 or not tensor.numel():
        raise Unmapped("no pixels, or other axes than an image has")
    if tensor.is_complex() or tensor.dtype in (torch.float16, torch.bfloat16):
        raise Unmapped("float16, bfloat16 or complex numbers")
    samples = tensor.detach().to("cpu", torch.float64).numpy()
    if not np.isfinite(samples).all():
        raise Unmapped("NaN or infinity, which kornia's weights of 0 multiply")
    sizes = np.abs(samples[samples != 0])
    if ((sizes > LARGEST) | (sizes < 1 / LARGEST)).any():
        raise Unmapped("numbers past float32's")
    return np.moveaxis(samples.astype(np.float32), 1, 3)


def _own(tensors: list[torch.Tensor]) -> str:
    """Why PyTorch itself must do a call of *tensors*, or nothing."""
    if torch._C._are_functorch_transforms_active():
        return "torch.func"
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        return "autocast"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "gradients"
    return "" if all(type(tensor) is torch.Tensor for tensor in tensors) else "other tensors"


def by_tensors(way: Way) -> Callable[..., tuple[Any, str]]:
    """A function of tensors by *way*."""

    def ours(peers: Function, *args: Any, **kwargs: Any) -> tuple[Any, str]:
        try:
            bound = inspect.signature(peers).bind(*args, **kwargs)
        except TypeError:
            raise Unmapped("arguments that kornia refuses") from None
        bound.apply_defaults()
        g = bound.arguments
        tensors = {name: value for name, value in g.items() if isinstance(value, torch.Tensor)}
        if (first := next(iter(g))) not in tensors:
            raise Unmapped("arguments that kornia refuses")
        image = tensors[first]
        if why := _own([*tensors.values()]):
            raise Unmapped(why)
        with TALLY.comparing():
            expected = peers(**g)  # before all else, for it tells what is wrong with the arguments
            pixels = _images(image)
            wide = {
                name: value.double()
                for name, value in tensors.items()
                if value.dtype.is_floating_point
            }
            exact = peers(**{**g, **wide, first: image.double()})
        plain = {**g, **{name: value.cpu() for name, value in tensors.items()}}
        pictures = [Picture(each, place, plain) for place, each in enumerate(pixels)]
        found = np.stack([np.moveaxis(way(picture), 2, 0) for picture in pictures])
        if found.ndim == 5:  # several results of each channel
            found = np.moveaxis(found, 4, 2)
        got = torch.from_numpy(np.ascontiguousarray(found)).to(expected.device, expected.dtype)
        most = max(picture.terms for picture in pictures)
        mine, theirs, sought = (each.cpu().numpy() for each in (got, expected, exact))
        return got, difference(mine, theirs, sought, most)

    return ours


def adapter(name: str, peers: Function, way: Way) -> Function:
    """*peers*, done by *way*; while PyTorch compiles or traces, its own."""
    adapted = TALLY.adapter(name, peers, by_tensors(way))

    @functools.wraps(peers)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return peers(*args, **kwargs)
        return adapted(*args, **kwargs)

    return guarded


def put_compilers(made: dict[Function, Function]) -> None:
    """Have PyTorch compile kornia's functions, *made* from which others stand in their places."""
    back = {ours: peers for peers, ours in made.items()}

    def compiling(compiler: Function) -> Function:
        @functools.wraps(compiler)
        def compile_own(model: Any = None, *args: Any, **kwargs: Any) -> Any:
            TALLY.own["compiled"] += 1
            is_ours = inspect.isroutine(model) and model in back
            return compiler(back[model] if is_ours else model, *args, **kwargs)

        return compile_own

    torch.compile = compiling(torch.compile)
    torch.jit.script = compiling(torch.jit.script)
