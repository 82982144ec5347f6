"""A filter in an area of an image only, or in linear light, on any engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cudafilter.engines import Engine, Result
from cudafilter.engines.flow import Flow
from cudafilter.operations.area import Placed
from cudafilter.operations.blend import blend
from cudafilter.operations.borders import Border
from cudafilter.operations.light import Light
from cudafilter.operations.operation import Operation, whole_of
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.region import Rectangle

Span = tuple[int, int]
"""The first row, and the one past the last."""


@dataclass(frozen=True)
class Within:
    """What is done before and after a filter to the images of a size and kind.

    The engine filters what begin() gives. What end() makes of its result is the image.
    """

    alpha: bool
    """The last channel is alpha."""
    area: Placed | None = None
    """None: everywhere."""
    light: Light | None = None
    """None: samples are filtered as they are."""

    def begin(self, pixels: Pixels) -> Pixels:
        """Rows of the image as the filter is to get them: float32 where that is light."""
        return pixels if self.light is None else self.light.decoded(pixels)

    def box(self, height: int, width: int) -> Rectangle:
        """The pixels that change, of an image of *height* and *width*; it may be empty."""
        return Rectangle(0, 0, width, height) if self.area is None else self.area.box()

    def blended(self, source: Pixels, filtered: Pixels, box: Rectangle) -> Pixels:
        """The *filtered* pixels in *box*, of *source*, where they are to be seen.

        Both are what begin() gives, and so is this.
        """
        if self.area is None:
            return filtered
        return blend(source, filtered, self.area.weights(box), self.alpha)

    def end(self, blended: Pixels) -> Pixels:
        """Rows that are *blended* as rows of an image."""
        return blended if self.light is None else self.light.encoded(blended)


class Parts(NamedTuple):
    """An image that was filtered within an area or in light, and what its parts were."""

    source: Pixels
    """All of the image as the filter got it."""
    box: Rectangle
    """Which pixels may differ from the image's."""
    first: int
    """The first row that the engine gave, ..."""
    filtered: Pixels
    """... and all of them: those of *box* in full, or more."""
    blended: Pixels
    """The pixels in *box*, blended with the source."""
    result: Pixels
    """The image."""
    told: Result
    """The engine's seconds and notes."""


def filtered_within(
    engine: Engine, pixels: Pixels, filter: Operation, border: Border, within: Within
) -> Parts:
    """*pixels* (H, W, C) after *filter*, as *within* says.

    The filtered rows have the bits that they have in a result of the whole image. Raises what
    Engine.run does.
    """
    source, box = within.begin(pixels), within.box(*pixels.shape[:2])
    if not box.size:
        none = source[:0]
        return Parts(source, box, 0, none, none, pixels.copy(), Result(none))
    rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
    if whole_of(filter.unrolled(border)) is not None:
        first, last = 0, len(source)
    else:
        first, last = box.top, box.bottom
    done = _rows(engine, source, filter, border, within.alpha, (first, last))
    filtered = done.pixels[box.top - first : box.bottom - first, columns]
    blended = within.blended(source[rows, columns], filtered, box)
    ended = within.end(blended)
    if ended.shape == pixels.shape:
        result = ended
    else:
        result = pixels.copy()
        result[rows, columns] = ended
    return Parts(source, box, first, done.pixels, blended, result, done)


def _rows(
    engine: Engine, source: Pixels, filter: Operation, border: Border, alpha: bool, rows: Span
) -> Result:
    """*rows* of *source* after *filter*; only what these need is computed."""
    first, last = rows
    if last - first == len(source):
        return engine.run(source, filter, border, alpha)
    height, width, channels = source.shape
    flow = Flow(
        engine, filter, border, alpha, (height, width, channels), source.dtype, iter((source,)),
        lambda top, bottom: source[top:bottom],
    )  # fmt: skip
    pixels = np.ascontiguousarray(flow.rows(first, last))
    return Result(pixels, dict(flow.seconds), tuple(flow.notes))
