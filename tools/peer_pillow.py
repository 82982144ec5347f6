"""Pillow's filters by cudafilter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from peer_adapters import TALLY, Array, Function, Unmapped, apply

import cudafilter
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.make import make
from cudafilter.operations.rank import Rank
from cudafilter.operations.window import square


def by_pillow(peers: Function, image: Any, filter: Any) -> tuple[Any, str]:
    """``Image.filter``: kernels, ranks, boxes, and the three boxes that are its Gaussian blur."""
    from PIL import ImageFilter

    made = filter() if callable(filter) else filter
    if image.mode not in ("L", "LA", "RGB", "RGBA", "RGBX", "CMYK") or 0 in image.size:
        raise Unmapped("modes that are no image of cudafilter's")
    with TALLY.comparing():
        expected = peers(image, filter)
    pixels = np.asarray(image).reshape(image.height, image.width, -1)
    if isinstance(made, ImageFilter.Kernel | ImageFilter.BuiltinFilter):
        got = _pillow_kernel(pixels, *made.filterargs)
    elif isinstance(made, ImageFilter.RankFilter | ImageFilter.MinFilter | ImageFilter.MaxFilter
                    | ImageFilter.MedianFilter):  # fmt: skip
        got = apply(pixels, Rank("percentile", square(made.size // 2), made.rank))
    elif isinstance(made, ImageFilter.BoxBlur):
        got = boxes(pixels, *_both(made.radius), 1)
    elif isinstance(made, ImageFilter.GaussianBlur):
        x, y = (_box_radius(sigma, 3) for sigma in _both(made.radius))
        got = boxes(pixels, x, y, 3)
    else:
        raise Unmapped("filters that cudafilter has not")
    return _as_image(image, got), _steps(got, expected)


def _both(value: Any) -> tuple[float, float]:
    """What Pillow takes as one number or as one along x and one along y."""
    return (value[0], value[1]) if isinstance(value, list | tuple) else (value, value)


def _steps(got: Array, image: Any) -> str:
    """The class of the difference of *got* from Pillow's *image*.

    Each pass of Pillow's boxes may round the other way, for it works in fixed point. All of them
    together came to two steps at most.
    """
    far = np.abs(got.astype(int) - np.asarray(image).reshape(got.shape)).max()
    return "same" if far == 0 else "rounding" if far <= 2 else "fault"


def _as_image(image: Any, pixels: Array) -> Any:
    from PIL import Image

    made = image.copy()
    made.paste(Image.frombytes(image.mode, image.size, pixels.tobytes()))
    return made


def _pillow_kernel(
    pixels: Array, size: tuple[int, int], scale: float, offset: float, weights: Sequence[float]
) -> Array:
    """Pillow's kernels are given from the bottom up, and leave what is at the image's sides."""
    if pixels.shape[0] < size[1] or pixels.shape[1] < size[0]:
        raise Unmapped("images smaller than the kernel")
    kernel = cudafilter.Kernel(np.reshape(weights, (size[1], size[0]))[::-1])
    out = pixels.copy()
    y, x = size[1] // 2, size[0] // 2
    inner = slice(y, -y or None), slice(x, -x or None)
    operation = Correlation("kernel", (kernel,), gain=1 / scale, bias=offset / 255)
    out[inner] = apply(pixels, operation)[inner]
    return out


def _box_radius(sigma: float, passes: int) -> float:
    """The radius of each of *passes* boxes that have the variance of a Gaussian together.

    A box of a whole radius l and a share of the next sample on both sides: of the variance wanted,
    what l leaves open decides the share.
    """
    variance = sigma * sigma / passes
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    share = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    return whole + share / (6 * (variance - (whole + 1) ** 2))


def boxes(pixels: Array, x: float, y: float, passes: int) -> Array:
    """*passes* boxes of a radius that may be broken along each axis, rounded after each pass."""
    for radius, turned in ((x, False), (y, True)):
        if radius <= 0:
            if radius < 0:
                raise Unmapped("a radius below 0")
            continue
        row = np.ones(2 * math.ceil(radius) + 1)
        if radius % 1:
            row[[0, -1]] = radius % 1
        weights = row[:, None] if turned else row[None, :]
        operation = make("kernel", weights=weights, normalize=True)
        for _ in range(passes):
            pixels = apply(pixels, operation)
    return pixels


def by_box_blur(peers: Function, image: Any, radius: float = 1, n: int = 1) -> tuple[Any, str]:
    """The helper of Pillow's own tests of boxes, which calls its C code."""
    if image.mode not in ("L", "RGB", "RGBA", "CMYK") or 0 in image.size:
        raise Unmapped("modes that are no image of cudafilter's")
    pixels = np.asarray(image).reshape(image.height, image.width, -1)
    with TALLY.comparing():
        expected = peers(image, radius, n)
    got = boxes(pixels, radius, radius, n)
    return _as_image(image, got), _steps(got, expected)
