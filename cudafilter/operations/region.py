"""Rectangles of an image, as they are written: ``X,Y,W,H`` in pixels or percent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from cudafilter.errors import ImageError, ParameterError, require_text

_NUMBER = re.compile(r"(-?\d{1,9})|(-?\d{1,9}(?:\.\d{1,9})?)%", re.ASCII)
_HINT = "X,Y,W,H: the upper left corner, width and height, such as 10,20,300,200 or 25%,25%,50%,50%"


@dataclass(frozen=True)
class Length:
    """Pixels, or percent of a side of the image."""

    number: Fraction
    percent: bool = False

    def of(self, side: int) -> Fraction:
        """It in pixels of an image that has *side* of them that way."""
        return self.number * side / 100 if self.percent else self.number


@dataclass(frozen=True)
class Rectangle:
    """Pixels from *left* to before *right*, and from *top* to before *bottom*."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> int:
        """How many pixels they are."""
        return (self.right - self.left) * (self.bottom - self.top)


@dataclass(frozen=True)
class Region:
    """A rectangle by its upper left corner and its size."""

    x: Length
    y: Length
    width: Length
    height: Length

    @classmethod
    def parsed(cls, text: str) -> Region:
        """The region that *text* tells. Raises ParameterError ("region") where it is none."""
        require_text("region", text, _HINT)
        parts = [_NUMBER.fullmatch(part.strip()) for part in text.split(",")]
        if len(parts) != 4:
            raise ParameterError("region", f"must be four numbers, not {text!r}", hint=_HINT)
        lengths = []
        for part, word in zip(parts, text.split(","), strict=True):
            if part is None:
                what = "must be whole pixels or percent"
                raise ParameterError("region", f"{what}, not {word.strip()!r}", hint=_HINT)
            percent = part[2] is not None
            lengths.append(Length(Fraction(part[2] if percent else part[1]), percent))
        region = cls(*lengths)
        if region.width.number <= 0 or region.height.number <= 0:
            raise ParameterError("region", f"{text} has no width or no height", hint=_HINT)
        return region

    def within(self, width: int, height: int) -> Rectangle:
        """Its pixels in an image of *width* and *height*; some may lie outside.

        Its sides lie at whole pixels, half to even, so that percents that touch leave no gap.
        Raises ImageError where no pixel of the image is left.
        """
        x, y = self.x.of(width), self.y.of(height)
        found = Rectangle(
            round(x), round(y), round(x + self.width.of(width)), round(y + self.height.of(height))
        )
        across, down = found.right - found.left, found.bottom - found.top
        if not across or not down:
            raise ImageError(f"region {self} is less than a pixel of its {width}x{height}")
        if found.left >= width or found.top >= height or found.right <= 0 or found.bottom <= 0:
            raise ImageError(
                f"region {self} is outside: it is {across}x{down} pixels from"
                f" {found.left},{found.top} on, and the picture has {width}x{height}"
            )
        return found

    def __str__(self) -> str:
        lengths = (self.x, self.y, self.width, self.height)
        return ",".join(f"{float(each.number):.12g}{'%' * each.percent}" for each in lengths)
