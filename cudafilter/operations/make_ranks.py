"""The ranks of the catalogue, and what is made of them.

A module of its own, so that other filters do not wait for its imports.
"""

from __future__ import annotations

from collections.abc import Callable

from cudafilter.errors import ParameterError
from cudafilter.operations.difference import blackhat, closing, opening, outline, tophat
from cudafilter.operations.operation import Operation
from cudafilter.operations.rank import dilation, erosion, median, percentile
from cudafilter.operations.weights import parse_weights
from cudafilter.operations.window import Window, cross, disk, masked, square


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

MAKERS: dict[str, Callable[..., Operation]] = {
    "median": median,
    "percentile": percentile,
    "erode": _shaped(erosion),
    "dilate": _shaped(dilation),
    "open": _shaped(opening),
    "close": _shaped(closing),
    "tophat": _shaped(tophat),
    "blackhat": _shaped(blackhat),
    "outline": _shaped(outline),
}
