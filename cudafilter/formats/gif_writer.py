"""Writes GIF: of each frame what differs from the one before it, in 256 colours of its own.

What a filter left as it was is not drawn anew. So its colours stay still, though each frame has a
palette of its own, and only what changes takes colours of it.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats.canvas import Box, box_of, changed
from cudafilter.formats.frames import FrameWriter
from cudafilter.formats.gif_blocks import (
    APPLICATION,
    COMMENT,
    CONTROL,
    END,
    EXTENSION,
    ICC,
    IMAGE,
    LOOPS,
    XMP,
    XMP_END,
    blocks,
)
from cudafilter.formats.gif_colours import Indexed, Mask, indexed
from cudafilter.formats.metadata import Metadata
from cudafilter.formats.pillow import save_pillow
from cudafilter.formats.rows import Header
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Sink

MAX_SIDE = MAX_DELAY = MAX_LOOPS = 65535
_STAYS, _CLEARED = 1, 2
"""What a control block says becomes of a picture before the next one."""
_PICTURE_AT = 13 + 3 * 256 + 10
"""Where the codes lie in the files that Pillow writes: behind head, palette and place."""


class _Frame(NamedTuple):
    """A frame that waits for the next one, which decides what becomes of it."""

    pixels: Pixels
    """(H, W, 1 or 3)"""
    visible: Mask
    delay: int | None
    """Hundredths of a second."""


class GifWriter(FrameWriter):
    """Frames of gray, RGB or RGBA; alpha becomes all or nothing.

    Where pixels become transparent, which a picture cannot tell, all that is visible of the frame
    before is cleared, and the frame drawn on nothing.
    """

    def __init__(self, target: Sink, header: Header, dither: bool) -> None:
        super().__init__(header)
        if max(header.width, header.height) > MAX_SIDE:
            raise ImageError(
                f"{header.width} x {header.height} pixels are more than the {MAX_SIDE} a side that"
                " GIF holds"
            )
        self._target, self._dither = target, dither
        self._waiting: _Frame | None = None
        shape = header.height, header.width
        self._shown: Pixels = np.zeros((*shape, header.channels - header.alpha), np.uint8)
        self._visible: Mask = np.zeros(shape, np.bool_)
        """What shows before the waiting frame is drawn, as it was before it got few colours."""
        self._shared: bytes | None = None
        self._frames = self._reduced = self._error = 0
        self._halved = self._rounded = False

    def _add(self, header: Header, pixels: Pixels) -> None:
        """See FrameWriter."""
        visible: Mask = np.ones(pixels.shape[:2], np.bool_)
        if header.alpha:
            pixels, alphas = pixels[..., :-1], pixels[..., -1]
            visible = alphas > 127
            self._halved = self._halved or bool(np.any((alphas > 0) & (alphas < 255)))
        if self._waiting is not None:
            self._draw(self._waiting, visible)
        delay = None if header.seconds is None else self._delay(header.seconds)
        self._waiting = _Frame(np.ascontiguousarray(pixels), visible, delay)

    def _delay(self, seconds: Fraction) -> int:
        delay = round(seconds * 100)
        self._rounded = self._rounded or delay != seconds * 100
        if delay > MAX_DELAY:
            raise ImageError(
                f"a frame is shown for {float(seconds):g} s, and GIF holds at most 655.35 s"
            )
        return delay

    def _draw(self, frame: _Frame, following: Mask | None) -> None:
        """Write *frame*, now that it is known what of the *following* one is visible."""
        pixels, visible, delay = frame
        clears = following is not None and bool(np.any(visible & ~following))
        drawn = visible & (~self._visible | changed(pixels, self._shown))
        if self._shared is None:  # some viewers take the first picture's size for all
            box = Box(0, 0, visible.shape[1], visible.shape[0])
        else:
            box = box_of(visible if clears else drawn)
        part = np.ascontiguousarray(box.of(pixels))
        few = indexed(part, box.of(drawn), self._first.alpha, self._dither)
        self._frames += 1
        self._reduced += few.error > 0
        self._error = max(self._error, few.error)
        palette = _table(few)
        if self._shared is None:
            self._begin(palette)
        disposal = _CLEARED if clears else _STAYS
        if delay is not None or few.clear is not None:
            told = disposal << 2 | (few.clear is not None)
            control = struct.pack("<BHB", told, delay or 0, few.clear or 0)
            self._target.write(bytes([EXTENSION, CONTROL]) + blocks(control))
        own = b"" if palette == self._shared else palette
        flags = 0x80 | _size_code(palette) if own else 0
        self._target.write(struct.pack("<BHHHHB", IMAGE, *box, flags) + own + _codes(few.entries))
        self._shown, self._visible = pixels, np.zeros_like(visible) if clears else visible

    def _begin(self, palette: bytes) -> None:
        header, metadata, write = self._first, self._first.metadata, self._target.write
        self._shared = palette
        aspect = 0
        if metadata.resolution is not None and not metadata.resolution.unit:
            aspect = min(
                255, max(1, round(64 * metadata.resolution.y / metadata.resolution.x) - 15)
            )
        flags = 0xF0 | _size_code(palette)
        write(b"GIF89a")
        write(struct.pack("<HHBBB", header.width, header.height, flags, 0, aspect))
        write(palette)
        for kind, body in _extensions(metadata):
            write(bytes([EXTENSION, kind]) + body)

    def _end(self) -> None:
        """See FrameWriter."""
        assert self._waiting is not None
        self._draw(self._waiting, None)
        self._target.write(bytes([END]))
        notes = []
        if self._reduced:
            where = f"in {self._reduced} of {self._frames} frames " if self._frames > 1 else ""
            how = "mixed of near ones" if self._dither else "brought to near ones"
            notes.append(
                f"GIF holds 256 colours a frame: {where}others were {how},"
                f" at most {self._error} of 255 away"
            )
        if self._halved:
            notes.append("GIF holds no half transparency: an alpha below 128 became 0, others 255")
        if self._rounded:
            notes.append("durations are rounded to hundredths of a second, as GIF holds them")
        self.notes = tuple(notes)


def _extensions(metadata: Metadata) -> list[tuple[int, bytes]]:
    """Kind and blocks of what stands before the first picture."""
    found = []
    if metadata.animation is not None and metadata.animation.plays != 1:
        # 0 is for ever; any other number tells how often it is shown again.
        again = max(0, metadata.animation.plays - 1)
        if again > MAX_LOOPS:
            raise ImageError(f"it is shown {again + 1:,} times, and GIF holds at most 65,536")
        found.append((APPLICATION, b"\x0b" + LOOPS + blocks(struct.pack("<BH", 1, again))))
    if metadata.icc:
        found.append((APPLICATION, b"\x0b" + ICC + blocks(metadata.icc)))
    if metadata.xmp:
        found.append((APPLICATION, b"\x0b" + XMP + metadata.xmp + XMP_END))
    return found + [(COMMENT, blocks(comment)) for comment in metadata.comments]


def _size_code(palette: bytes) -> int:
    """How a GIF tells the length of a table of colours, a power of 2."""
    return (len(palette) // 3).bit_length() - 2


def _table(few: Indexed) -> bytes:
    """The palette as GIF holds it, filled up with black to a power of 2."""
    count = max(2, 1 << (len(few.palette) - 1).bit_length())
    return few.palette.tobytes().ljust(3 * count, b"\0")


def _codes(entries: Pixels) -> bytes:
    """The codes of *entries* (H, W), which Pillow writes as if they were gray."""
    file = save_pillow(
        np.ascontiguousarray(entries)[..., None], "Gif", interlace=False, optimize=False
    )
    return file[_PICTURE_AT:-1]
