"""Writes TIFF: pages one after the other, in strips, deflated."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats import deflate, ifd
from cudafilter.formats.ifd import Entry
from cudafilter.formats.metadata import Resolution
from cudafilter.formats.rows import Header, Strips
from cudafilter.formats.table import Ways
from cudafilter.formats.tiff_strips import FLOAT, UNSIGNED
from cudafilter.formats.tiff_tags import (
    BITS,
    CMYK,
    COMPRESSION,
    EXTRA,
    FORMAT,
    GRAY,
    HEIGHT,
    ICC,
    KIND,
    LAYOUT,
    PAGE,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    RESOLUTION,
    RGB,
    ROWS,
    SAMPLES,
    STRIP_BYTES,
    STRIP_OFFSETS,
    WIDTH,
    XMP,
)
from cudafilter.host.cores import each
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Sink

_DEFLATE = 8
_STRIP_SIZE = 1 << 20
_MARK_BYTES = 8
"""What a file begins with: byte order, 42, and where the directory lies."""
_MAX_SIZE = (1 << 32) - 1
_MOST_PAGES = 65535
"""Pages that have a number."""
_TOO_LARGE = "the picture takes more than the 4 GiB that a TIFF file holds"


class TiffWriter:
    """Strips as they come, and the directory behind them; then those of the next page."""

    notes: tuple[str, ...] = ()

    def __init__(self, target: Sink, header: Header, ways: Ways) -> None:
        given = ways.compress_level
        self._level = deflate.DEFAULT_LEVEL if given is None else given
        self._target = target
        self._order = "<"
        self._pages, self._link = 0, _MARK_BYTES - 4
        """How many are whole, and where the place of the next one's directory is to stand."""
        self._begin(header, _MARK_BYTES)
        mark = b"II" if self._order == "<" else b"MM"
        target.write(mark + struct.pack(self._order + "HI", 42, 0))

    def _begin(self, header: Header, start: int) -> None:
        """Begin a page, whose parts lie from *start* on."""
        self._header = header
        self._tags: dict[int, Entry] = {}
        for blob in (header.metadata.tiff_tags, header.metadata.exif):
            if blob:
                order, found, _ = ifd.parse(blob)
                if not self._pages:
                    self._order = order  # all of a file is in one
                kept = {tag: e for tag, e in found.items() if tag not in LAYOUT | RESOLUTION}
                self._tags |= kept if order == self._order else ifd.swapped(kept)
        row = header.width * header.channels * np.dtype(header.dtype).itemsize
        self._rows = max(1, _STRIP_SIZE // row)
        self._strips = Strips(header, self._rows)
        self._space = ifd.space_around(ifd.note_of(self._tags), start)
        self._starts: list[int] = []
        self._lengths: list[int] = []

    def write(self, rows: Pixels) -> None:
        """See Writer."""
        block, top, starts = self._strips.add(rows)

        def strip(start: int) -> bytes:
            at = start - top
            return _deflated(block[at : at + self._rows], self._order, self._level)

        for body in each(strip, starts):
            self._starts.append(self._space.add(body))
            self._lengths.append(len(body))
        self._lay(self._space.ready())

    def next_frame(self, header: Header) -> None:
        """See Writer."""
        self.close()
        self._begin(header, self._space.end)

    def close(self) -> None:
        """See Writer."""
        self._strips.require_complete()
        tags = self._all_tags()
        try:
            at = ifd.write(tags, self._order, self._space)
        except struct.error:  # an offset that 32 bits do not hold
            raise ImageError(_TOO_LARGE) from None
        self._lay(self._space.pieces())
        self._target.patch(self._link, struct.pack(self._order + "I", at))
        self._link = at + ifd.length(tags) - 4
        self._pages += 1

    def _lay(self, pieces: Iterable[bytes]) -> None:
        if self._space.end > _MAX_SIZE:
            raise ImageError(_TOO_LARGE)
        for piece in pieces:
            self._target.write(piece)

    def _all_tags(self) -> dict[int, Entry]:
        header, order, metadata = self._header, self._order, self._header.metadata
        channels, floats = header.channels, header.dtype == "float32"
        bits = 8 * np.dtype(header.dtype).itemsize
        colours = {1: GRAY, 3: RGB, 4: CMYK}[channels - header.alpha]
        tags = self._tags | {
            WIDTH: ifd.longs(order, header.width),
            HEIGHT: ifd.longs(order, header.height),
            BITS: ifd.shorts(order, *[bits] * channels),
            COMPRESSION: ifd.shorts(order, _DEFLATE),
            PHOTOMETRIC: ifd.shorts(order, colours),
            STRIP_OFFSETS: ifd.longs(order, *self._starts),
            SAMPLES: ifd.shorts(order, channels),
            ROWS: ifd.longs(order, self._rows),
            STRIP_BYTES: ifd.longs(order, *self._lengths),
            PLANAR: ifd.shorts(order, 1),
            PREDICTOR: ifd.shorts(order, 1 if floats else 2),
            FORMAT: ifd.shorts(order, *[FLOAT if floats else UNSIGNED] * channels),
        }
        if header.alpha:
            tags[EXTRA] = ifd.shorts(order, 2)
        if 1 < header.frames <= _MOST_PAGES:
            tags[KIND] = ifd.longs(order, 2)  # a page of several
            tags[PAGE] = ifd.shorts(order, self._pages, header.frames)
        if metadata.icc:
            tags[ICC] = Entry(ifd.UNDEFINED, len(metadata.icc), metadata.icc)
        if metadata.xmp:
            tags[XMP] = Entry(1, len(metadata.xmp), metadata.xmp)
        return tags | _resolution(metadata.resolution or ifd.resolution(metadata.exif), order)


def _deflated(strip: Pixels, order: str, level: int) -> bytes:
    """One strip: integers as differences from the pixel to the left (predictor 2), deflated."""
    if strip.dtype.kind == "u":
        differences = strip.copy()
        np.subtract(strip[:, 1:], strip[:, :-1], out=differences[:, 1:])
        strip = differences
    if order == ">":
        strip = strip.astype(strip.dtype.newbyteorder(">"))
    else:
        strip = strip.astype(strip.dtype.newbyteorder("<"), copy=False)
    return deflate.stream(memoryview(strip.tobytes()), level)


def _resolution(resolution: tuple[Fraction, Fraction, str] | None, order: str) -> dict[int, Entry]:
    """The three resolution tags, which TIFF requires; 1:1 of no unit where none is known."""
    x, y, unit = resolution or (Fraction(1), Fraction(1), "")
    if unit == "metre":
        (x, y), unit = Resolution(x, y, unit).per("cm"), "cm"
    return {
        ifd.X_RESOLUTION: ifd.rational(order, x),
        ifd.Y_RESOLUTION: ifd.rational(order, y),
        ifd.RESOLUTION_UNIT: ifd.shorts(order, {"": 1, "inch": 2, "cm": 3}[unit]),
    }
