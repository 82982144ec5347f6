"""The sheet of ``cudafilter preview --compare``: before and after, with a part enlarged."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL.Image import Resampling

from cudafilter.cli.sheet import Panel, Picture, contact_sheet, split
from cudafilter.errors import ParameterError

ZOOM = 3
"""Pixels of the sheet for one of the part that is enlarged."""


def compared(
    heading: Sequence[str], before: Picture, after: Picture, size: int, at: tuple[int, int] | None
) -> Picture:
    """The whole picture, *size* pixels at most and split, and a part of both enlarged beside it.

    *before* and *after* are of one size. The part has its middle *at* (x, y), or where the two
    differ most. Raises ParameterError ("at") where that lies outside.
    """
    width, height = before.size
    share = size / max(width, height)
    share = min(1.0, share) if share < 2 else int(share)
    whole = max(1, round(width * share)), max(1, round(height * share))
    side = max(1, min(*whole) // ZOOM) if share <= 1 else max(1, min(width, height) // 2)
    zoom = max(ZOOM, min(*whole) // side) if share > 1 else ZOOM
    x, y = most_changed(before, after, side) if at is None else at
    if not (0 <= x < width and 0 <= y < height):
        raise ParameterError("at", f"{x},{y} lies outside a picture of {width}x{height}")
    left, top = min(max(0, x - side // 2), width - side), min(max(0, y - side // 2), height - side)
    framed = tuple(round(edge * share) for edge in (left, top, left + side, top + side))
    how = Resampling.LANCZOS if share < 1 else Resampling.NEAREST
    caption = "the whole picture"
    if share != 1:
        caption += f" at {100 * share:.3g} % of its size" if share < 1 else f", {share} times"
    halves = before.resize(whole, how), after.resize(whole, how)
    panels = [Panel(split(*halves, framed), "before | after", caption)]
    caption = f"{side}x{side} pixels around {left + side // 2},{top + side // 2}, {zoom} times"
    for picture, title in ((before, "before"), (after, "after")):
        part = picture.crop((left, top, left + side, top + side))
        large = part.resize((side * zoom, side * zoom), Resampling.NEAREST)
        panels.append(Panel(large, title, caption))
    return contact_sheet(heading, panels, len(panels))


def most_changed(before: Picture, after: Picture, side: int) -> tuple[int, int]:
    """The middle (x, y) of the square of *side* pixels in which the two differ most."""
    change = np.abs(np.asarray(before, np.float32) - np.asarray(after, np.float32)).sum(axis=2)
    mean = cv2.blur(change, (side, side), borderType=cv2.BORDER_CONSTANT)
    y, x = np.unravel_index(int(np.argmax(mean)), mean.shape)
    return int(x), int(y)
