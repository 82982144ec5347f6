"""Draws sheets of pictures with names: contact sheets, before and after, weights.

All with Pillow and its own font, so that a sheet looks the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from cudafilter.operations.pixels import Pixels

Picture = PillowImage.Image

PAPER, INK, FAINT, LINE = (255, 255, 255), (24, 28, 38), (84, 90, 102), (196, 200, 208)
PLUS, MINUS = np.array((178, 34, 24)), np.array((24, 84, 168))
"""The colours of the largest weight and of its negative; 0 is the paper."""
MARK = (255, 196, 0)

MARGIN, GAP, WORDS = 24, 18, 6
"""Pixels around a sheet, between pictures, and above a title."""
HEADING, TITLE, CAPTION = 20, 16, 13
"""Sizes of text, in pixels."""
LEAST = 180
"""Least width of a column, so that words fit below a picture of a few pixels."""
LEADING = 1.35
"""Height of a line over the size of its text."""
CHECKER = 8
"""Side of the squares that lie behind transparent pixels."""

NUMBERS = 44
"""Least side of a weight's square that has its number in it."""


class Panel(NamedTuple):
    """A picture of a sheet, what it is called, and what else is said of it."""

    picture: Picture
    title: str
    caption: str = ""


@cache
def font(size: int) -> Any:
    """Pillow's own font, *size* pixels high."""
    return ImageFont.load_default(size)


def shown(pixels: Pixels, alpha: bool, cmyk: bool = False) -> Picture:
    """*pixels* (H, W, C) of any type as 8-bit RGB; squares show through where they are clear.

    Floats show what lies from 0 to 1; NaN is black.
    """
    if pixels.dtype == np.uint16:
        pixels = (pixels.astype(np.uint32) * 255 + 32767) // 65535
    elif pixels.dtype == np.float32:
        pixels = np.rint(np.clip(np.nan_to_num(pixels, nan=0.0), 0, 1) * 255)
    channels = pixels.shape[2]
    mode = "CMYK" if cmyk else {1: "L", 2: "LA" if alpha else "L", 3: "RGB", 4: "RGBA"}[channels]
    pixels = np.ascontiguousarray(pixels[..., : len(mode)], np.uint8)
    height, width, _ = pixels.shape
    picture = PillowImage.frombytes(mode, (width, height), pixels.tobytes())
    if not alpha:
        return picture.convert("RGB")
    rows, columns = np.ogrid[:height, :width]
    squares = (rows // CHECKER + columns // CHECKER) % 2 * 40 + 196
    behind = PillowImage.fromarray(squares.astype(np.uint8)).convert("RGBA")
    return PillowImage.alpha_composite(behind, picture.convert("RGBA")).convert("RGB")


def contact_sheet(
    heading: Sequence[str], panels: Sequence[Panel], columns: int, room: int = 0
) -> Picture:
    """*panels* in *columns* with the lines of *heading* above; the first one is the largest.

    Where *columns* is 0, there are as many as *room* pixels hold.
    """
    widest = max(LEAST, *(panel.picture.width for panel in panels))
    columns = min(columns or max(1, (room + GAP) // (widest + GAP)), len(panels))
    widths = [
        max(LEAST, *(panel.picture.width for panel in panels[n::columns])) for n in range(columns)
    ]
    captions = [_wrapped(p.caption, CAPTION, widths[n % columns]) for n, p in enumerate(panels)]
    inner = sum(widths) + GAP * (columns - 1)
    lines = [line for text in heading[1:] for line in _wrapped(text, CAPTION, inner)]
    y = MARGIN + _height(HEADING) + len(lines) * _height(CAPTION) + GAP
    places = []
    for first in range(0, len(panels), columns):
        row = range(first, min(first + columns, len(panels)))
        tallest = max(panels[n].picture.height for n in row)
        places += [(MARGIN + sum(widths[:n]) + GAP * n, y, tallest) for n in range(len(row))]
        said = max(len(captions[n]) for n in row)
        y += tallest + WORDS + _height(TITLE) + said * _height(CAPTION) + GAP
    sheet = PillowImage.new("RGB", (inner + 2 * MARGIN, y - GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), _fitted(heading[0], HEADING, inner), INK, font(HEADING))
    for n, line in enumerate(lines):
        below = MARGIN + _height(HEADING) + n * _height(CAPTION)
        draw.text((MARGIN, below), line, FAINT, font(CAPTION))
    for n, (panel, (x, top, tallest)) in enumerate(zip(panels, places, strict=True)):
        _draw_panel(sheet, panel, captions[n], x, top, widths[n % columns], tallest)
    return sheet


def _draw_panel(
    sheet: Picture, panel: Panel, caption: Sequence[str], x: int, y: int, width: int, height: int
) -> None:
    """*panel* in the middle of a place of *width* and *height* at (x, y), its words below."""
    draw = ImageDraw.Draw(sheet)
    picture = panel.picture
    left, top = x + (width - picture.width) // 2, y + (height - picture.height) // 2
    # A line around it: a picture that ends in white has an edge too.
    draw.rectangle((left - 1, top - 1, left + picture.width, top + picture.height), outline=LINE)
    sheet.paste(picture, (left, top))
    y += height + WORDS
    draw.text((x + width / 2, y), _fitted(panel.title, TITLE, width), INK, font(TITLE), "ma")
    y += _height(TITLE)
    for line in caption:
        draw.text((x + width / 2, y), line, FAINT, font(CAPTION), "ma")
        y += _height(CAPTION)


def split(before: Picture, after: Picture, crop: tuple[int, ...]) -> Picture:
    """The left half of *before* and the right half of *after*; a frame shows the *crop*.

    Both are of one size, and *crop* is left, top, right and bottom in their pixels.
    """
    picture = before.copy()
    middle = picture.width // 2
    picture.paste(after.crop((middle, 0, *after.size)), (middle, 0))
    draw = ImageDraw.Draw(picture)
    draw.line((middle, 0, middle, picture.height), PAPER, 3)
    draw.line((middle, 0, middle, picture.height), INK, 1)
    left, top, right, bottom = crop
    for grow, colour in ((1, INK), (0, MARK), (-1, INK)):
        draw.rectangle((left - grow, top - grow, right + grow, bottom + grow), outline=colour)
    _tag(draw, (middle - 8, 8), "before", "ra")
    _tag(draw, (middle + 8, 8), "after", "la")
    return picture


def _tag(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, anchor: str) -> None:
    """*text* on a dark ground, legible on any picture."""
    left, top, right, bottom = draw.textbbox(at, text, font(TITLE), anchor)
    draw.rectangle((left - 5, top - 4, right + 5, bottom + 4), INK)
    draw.text(at, text, PAPER, font(TITLE), anchor)


def weights(values: np.ndarray[Any, Any], anchor: tuple[int, int], side: int) -> Picture:
    """*values* (rows, columns) as squares, positive red and negative blue, about *side* pixels.

    The *anchor*'s square, whose pixel is computed, has a frame. Where squares are large enough,
    the numbers stand in them.
    """
    rows, columns = values.shape
    cell = max(1, side // max(rows, columns))
    most = float(np.abs(values).max()) or 1.0
    share = np.abs(values)[..., None] / most
    colours = share * np.where(values[..., None] < 0, MINUS, PLUS) + (1 - share) * PAPER
    picture = PillowImage.fromarray(np.rint(colours).astype(np.uint8))
    picture = picture.resize((columns * cell, rows * cell), PillowImage.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    if cell >= 8:
        for i in range(1, max(rows, columns)):
            draw.line((i * cell, 0, i * cell, rows * cell), LINE)
            draw.line((0, i * cell, columns * cell, i * cell), LINE)
    if cell >= NUMBERS:
        size = min(TITLE, cell // 4 + 1)
        for y, x in np.ndindex(rows, columns):
            ink = PAPER if share[y, x, 0] > 0.55 else INK
            place = (x + 0.5) * cell, (y + 0.5) * cell
            draw.text(place, _number(float(values[y, x])), ink, font(size), "mm")
    y, x = anchor
    if cell >= 4:
        draw.rectangle((x * cell, y * cell, (x + 1) * cell, (y + 1) * cell), outline=INK, width=2)
    return picture


def _number(value: float) -> str:
    """*value* in at most six characters where it is below 100: -.084."""
    if value == 0:
        return "0"
    text = f"{value:.3f}".rstrip("0").rstrip(".").replace("0.", ".", 1)
    return "~0" if text in ("0", "-0") else text


def enlarged(picture: Picture, size: int) -> tuple[Picture, int]:
    """*picture* so many times as large as *size* pixels hold, and how many that is, 1 or more."""
    times = max(1, size // max(picture.size))
    size_of_it = picture.width * times, picture.height * times
    return picture.resize(size_of_it, PillowImage.Resampling.NEAREST), times


def _height(size: int) -> int:
    return round(size * LEADING)


def _fitted(text: str, size: int, width: int) -> str:
    """*text*, or as much of its beginning as fits into *width* pixels."""
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """*text* in lines of at most *width* pixels."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_fitted(word, size, width))
    return lines
