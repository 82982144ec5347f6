"""The point operations of the catalogue, and what needs the whole image.

A module of its own, so that other filters do not wait for its imports.
"""

from __future__ import annotations

from collections.abc import Callable

from cudafilter.operations.canny import Canny
from cudafilter.operations.operation import Operation
from cudafilter.operations.point import invert, levels, threshold


def _threshold(at: float | None, otsu: bool) -> Operation:
    return threshold(at, otsu)


MAKERS: dict[str, Callable[..., Operation]] = {
    "canny": Canny,
    "invert": invert,
    "levels": levels,
    "threshold": _threshold,
}
