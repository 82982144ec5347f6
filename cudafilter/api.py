"""The Python API's shortcuts for pixels; the rest of it is re-exported from where it lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cudafilter.engines import Engine
from cudafilter.engines.open import open_engine
from cudafilter.engines.within import Within, filtered_within
from cudafilter.errors import ParameterError
from cudafilter.operations.area import Area, mask_of
from cudafilter.operations.borders import Border
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.light import SRGB, Light
from cudafilter.operations.make import made
from cudafilter.operations.operation import Operation
from cudafilter.operations.parameter import FilterSpec
from cudafilter.operations.pixels import Pixels, require_pixels
from cudafilter.operations.region import Region


def apply(
    pixels: Pixels,
    filter: str | Operation,
    *,
    border: str | Border = "edge",
    alpha: bool = False,
    engine: str | Engine = "auto",
    mask: Pixels | None = None,
    region: str | Sequence[str] = (),
    feather: int = 0,
    linear: bool = False,
    **parameters: Any,
) -> Pixels:
    """Filter one image, (H, W) or (H, W, C) of uint8, uint16 or float32; returns the same shape.

    *filter* is a name of the catalogue with its *parameters*, or an operation, such as a Filter.
    *alpha* says that the last channel is alpha: colour is then filtered premultiplied. *engine* is
    a name, or an open engine, which saves opening one a call.

    *mask*, (H, W) of the same types, says where: white is filtered, black stays. So does *region*,
    one or several of ``"X,Y,W,H"`` in pixels or percent, faded in over *feather* pixels inside its
    sides. Outside, the samples are those of *pixels*. *linear* filters integers in the linear light
    of sRGB; floats are light already.

    Raises ParameterError for arguments that make no sense, ImageError for a mask of another size
    and a region outside, and EngineUnavailable for an engine that cannot run here.

    >>> apply(np.zeros((4, 4), np.uint8), "blur", sigma=1.5).shape
    (4, 4)
    """
    filter, edge = made(filter, parameters), Border.named(border)
    flat = isinstance(pixels, np.ndarray) and pixels.ndim == 2
    shaped = require_pixels(pixels[..., None] if flat else pixels, alpha)
    regions = (region,) if isinstance(region, str) else tuple(region)
    within = None
    if mask is not None or regions or linear or feather:
        within = _within(shaped, alpha, mask, regions, feather, linear)
    opened = open_engine(engine) if isinstance(engine, str) else engine
    try:
        if within is None:
            out = opened.run(shaped, filter, edge, alpha).pixels
        else:
            out = filtered_within(opened, shaped, filter, edge, within).result
    finally:
        if opened is not engine:
            opened.close()
    return out.reshape(pixels.shape)


def _within(
    pixels: Pixels,
    alpha: bool,
    mask: Pixels | None,
    regions: Sequence[str],
    feather: int,
    linear: bool,
) -> Within:
    """How *pixels* (H, W, C) are filtered by apply()'s arguments."""
    height, width, channels = pixels.shape
    area = light = None
    if feather and not regions:
        raise ParameterError("feather", "is for the sides of regions")
    if mask is not None or regions:
        weights = None if mask is None else mask_of(require_pixels(mask[..., None]), False)
        found = tuple(map(Region.parsed, regions))
        area = Area(weights, found, feather).within(width, height)
    if linear and pixels.dtype.kind == "u":
        light = Light((SRGB,) * (channels - alpha), pixels.dtype, alpha)
    return Within(alpha, area, light)


def filters() -> Mapping[str, FilterSpec]:
    """The catalogue: name -> what the filter does, its parameters and an example."""
    return dict(CATALOGUE)
