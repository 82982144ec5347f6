"""Where a filter works: a mask, rectangles, or what lies in both; and how much at each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ImageError, ParameterError
from cudafilter.operations.pixels import Pixels, full_scale
from cudafilter.operations.region import Rectangle, Region

FULL = 65535
"""The weight of a pixel that is filtered; 0 is one that stays. It is odd, so that no mean of two
whole numbers by weights lies halfway between two others."""

Weights = npt.NDArray[np.uint16]
"""(H, W), 0 to FULL."""


@dataclass(frozen=True, eq=False)
class Area:
    """Where a filter works, in images of any size."""

    mask: Weights | None = None
    """None: everywhere."""
    regions: tuple[Region, ...] = ()
    """All of these together; none: everywhere."""
    feather: int = 0
    """Pixels inside a region's sides over which its weight rises."""

    def within(self, width: int, height: int) -> Placed:
        """The area in an image of *width* and *height*.

        Raises ImageError where the mask has another size, or a region lies outside.
        """
        if self.mask is not None and self.mask.shape != (height, width):
            rows, columns = self.mask.shape
            raise ImageError(
                f"the mask has {columns}x{rows} pixels, and the picture {width}x{height}"
            )
        rectangles = [region.within(width, height) for region in self.regions]
        return Placed(self, width, height, rectangles)

    @property
    def told(self) -> tuple[str | None, tuple[str, ...], int]:
        """What makes it another area than others, as texts and numbers."""
        mask = self.mask
        digest = None if mask is None else sha256(repr(mask.shape).encode() + mask.tobytes())
        name = None if digest is None else digest.hexdigest()
        return name, tuple(map(str, self.regions)), self.feather


class Placed:
    """An area in an image of *width* and *height*."""

    def __init__(self, area: Area, width: int, height: int, rectangles: Sequence[Rectangle]):
        self._mask, self._feather = area.mask, area.feather
        self._width, self._height, self._rectangles = width, height, rectangles
        cut = (
            (region, place)
            for region, place in zip(area.regions, rectangles, strict=True)
            if min(place.left, place.top) < 0 or place.right > width or place.bottom > height
        )
        self.notes = tuple(
            f"region {region} is cut at the edge of the picture, which has {width}x{height} pixels"
            for region, place in cut
        )
        """What the user should know."""

    def box(self) -> Rectangle:
        """The least rectangle with all pixels that have a weight; empty where none has one."""
        box = Rectangle(0, 0, self._width, self._height)
        if self._rectangles:
            box = Rectangle(
                max(0, min(each.left for each in self._rectangles)),
                max(0, min(each.top for each in self._rectangles)),
                min(self._width, max(each.right for each in self._rectangles)),
                min(self._height, max(each.bottom for each in self._rectangles)),
            )
        if self._mask is None:
            return box
        left, top = box.left, box.top
        rows = np.flatnonzero(self._mask[top : box.bottom, left : box.right].any(axis=1))
        if not len(rows):
            return Rectangle(0, 0, 0, 0)
        columns = np.flatnonzero(self._mask[top : box.bottom, left : box.right].any(axis=0))
        x, y = left + columns, top + rows
        return Rectangle(int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1)

    def weights(self, box: Rectangle) -> Weights:
        """The weights of the pixels in *box*, (its height, its width).

        That of a region is the product of two ramps, across and down, rounded half to even; of
        several the largest counts. With a mask it is the product of both, rounded.
        """
        inside = slice(box.top, box.bottom), slice(box.left, box.right)
        if not self._rectangles:
            assert self._mask is not None
            return self._mask[inside]
        found = np.zeros((box.bottom - box.top, box.right - box.left), np.uint16)
        for each in self._rectangles:
            down = ramp(each.top, each.bottom, self._height, self._feather)[inside[0]]
            across = ramp(each.left, each.right, self._width, self._feather)[inside[1]]
            part = _filled(down), _filled(across)
            shares = np.rint(down[part[0], None] * across[part[1]] * FULL)
            np.maximum(found[part], shares.astype(np.uint16), out=found[part])
        return found if self._mask is None else product(found, self._mask[inside])


def ramp(first: int, last: int, side: int, feather: int) -> npt.NDArray[np.float64]:
    """The shares of the pixels of a *side*, of which those from *first* to before *last* count.

    Inside it rises over *feather* pixels by ``t * t * (3 - 2 * t)``, the smoothstep of OpenGL's
    shading language; t is the distance of the pixel's middle from the nearer end over *feather*. An
    end at the edge of the image, or past it, has no ramp: nothing lies beyond it.
    """
    at = np.arange(side) + 0.5
    shares = ((at > first) & (at < last)).astype(np.float64)
    if feather:
        for depth, is_edge in ((at - first, first <= 0), (last - at, last >= side)):
            if not is_edge:
                shares = np.minimum(shares, np.clip(depth / feather, 0, 1))
    return shares * shares * (3 - 2 * shares)


def _filled(shares: npt.NDArray[np.float64]) -> slice:
    """From the first of *shares* that is not 0 to the last."""
    there = np.flatnonzero(shares)
    return slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0)


def product(one: Weights, other: Weights) -> Weights:
    """The product of two weights, or of a sample of 16 bits and its alpha, rounded."""
    # 65535 * 65535 and half of 65535 still fit into 32 bits.
    found: Weights = ((one.astype(np.uint32) * other + FULL // 2) // FULL).astype(np.uint16)
    return found


def mask_of(pixels: Pixels, alpha: bool) -> Weights:
    """The weights that an image tells: white is filtered, black stays. (H, W, C) to (H, W).

    Alpha counts as a factor, so what is transparent stays. Raises ParameterError ("mask") for
    colours, and for floats that are not from 0 to 1.
    """
    colours = pixels[..., :-1] if alpha else pixels
    gray = colours[..., 0]
    if not all(np.array_equal(gray, colours[..., c]) for c in range(1, colours.shape[2])):
        raise ParameterError("mask", "it has colours, and a mask is gray", hint="make it gray")
    if pixels.dtype.kind == "f" and not ((pixels >= 0) & (pixels <= 1)).all():
        raise ParameterError("mask", "its samples are not all from 0 to 1")
    found = _in_16_bits(gray)
    return product(found, _in_16_bits(pixels[..., -1])) if alpha else found


def _in_16_bits(samples: Pixels) -> Weights:
    scale = FULL / full_scale(samples.dtype)
    found: Weights = np.rint(samples.astype(np.float64) * scale).astype(np.uint16)
    return found
