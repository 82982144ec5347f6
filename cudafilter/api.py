"""The Python API's two shortcuts; the rest of it is re-exported from where it lives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cudafilter.borders import Border
from cudafilter.catalogue import CATALOGUE, FilterSpec
from cudafilter.engines import Engine, open_engine
from cudafilter.filter import Filter, make
from cudafilter.pixels import Pixels


def apply(
    pixels: Pixels,
    filter: str | Filter,
    *,
    border: str | Border = "edge",
    alpha: bool = False,
    engine: str | Engine = "auto",
    **parameters: Any,
) -> Pixels:
    """Filter one image, (H, W) or (H, W, C) of uint8, uint16 or float32; returns the same shape.

    *filter* is a name of the catalogue with its *parameters*, or a Filter. *alpha* says that the
    last channel is alpha: colour is then filtered premultiplied. *engine* is a name, or an open
    engine, which saves opening one a call. Raises ParameterError for arguments that make no
    sense and EngineUnavailable for an engine that cannot run here.

    >>> apply(np.zeros((4, 4), np.uint8), "blur", sigma=1.5).shape
    (4, 4)
    """
    chosen = make(filter, **parameters) if isinstance(filter, str) else filter
    edge = Border(border) if isinstance(border, str) else border
    shaped = pixels[..., None] if pixels.ndim == 2 else pixels
    if isinstance(engine, str):
        opened = open_engine(engine)
        try:
            out = opened.run(shaped, chosen, edge, alpha)
        finally:
            opened.close()
    else:
        out = engine.run(shaped, chosen, edge, alpha)
    return out.reshape(pixels.shape)


def filters() -> Mapping[str, FilterSpec]:
    """The catalogue: name -> what the filter does, its parameters and an example."""
    return dict(CATALOGUE)
