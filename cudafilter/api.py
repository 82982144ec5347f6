"""The Python API's two shortcuts; the rest of it is re-exported from where it lives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cudafilter.engines import Engine
from cudafilter.engines.open import open_engine
from cudafilter.errors import ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.parameter import FilterSpec
from cudafilter.operations.pixels import Pixels


def apply(
    pixels: Pixels,
    filter: str | Operation,
    *,
    border: str | Border = "edge",
    alpha: bool = False,
    engine: str | Engine = "auto",
    **parameters: Any,
) -> Pixels:
    """Filter one image, (H, W) or (H, W, C) of uint8, uint16 or float32; returns the same shape.

    *filter* is a name of the catalogue with its *parameters*, or an operation, such as a Filter.
    *alpha* says that the last channel is alpha: colour is then filtered premultiplied. *engine* is
    a name, or an open engine, which saves opening one a call. Raises ParameterError for arguments
    that make no sense and EngineUnavailable for an engine that cannot run here.

    >>> apply(np.zeros((4, 4), np.uint8), "blur", sigma=1.5).shape
    (4, 4)
    """
    if isinstance(filter, str):
        filter = make(filter, **parameters)
    elif parameters:
        raise ParameterError(next(iter(parameters)), "a Filter has its parameters already")
    edge = Border(border) if isinstance(border, str) else border
    flat = isinstance(pixels, np.ndarray) and pixels.ndim == 2
    shaped = pixels[..., None] if flat else pixels
    if isinstance(engine, str):
        opened = open_engine(engine)
        try:
            out = opened.run(shaped, filter, edge, alpha).pixels
        finally:
            opened.close()
    else:
        out = engine.run(shaped, filter, edge, alpha).pixels
    return out.reshape(pixels.shape)


def filters() -> Mapping[str, FilterSpec]:
    """The catalogue: name -> what the filter does, its parameters and an example."""
    return dict(CATALOGUE)
