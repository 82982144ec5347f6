"""Writes TIFF: pages one after the other, in strips or tiles."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

import numpy as np

from cudafilter.formats import ifd
from cudafilter.formats.ifd import Entry, Ifd
from cudafilter.formats.metadata import Resolution
from cudafilter.formats.rows import Header, Strips
from cudafilter.formats.table import Ways
from cudafilter.formats.tiff_segments import Segments
from cudafilter.formats.tiff_strips import FLOAT, UNSIGNED
from cudafilter.formats.tiff_tags import (
    BITS,
    CMYK,
    EXTRA,
    FORMAT,
    GRAY,
    HEIGHT,
    ICC,
    KIND,
    LAYOUT,
    PAGE,
    PHOTOMETRIC,
    RESOLUTION,
    RGB,
    SAMPLES,
    WIDTH,
    XMP,
)
from cudafilter.host.cores import each
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Buffer, Sink

_MOST_PAGES = 65535
"""Pages that have a number."""


class TiffWriter:
    """Strips or tiles as they come, and the directory behind them; then those of the next page."""

    notes: tuple[str, ...] = ()

    def __init__(self, target: Sink, header: Header, ways: Ways) -> None:
        self._target, self._level = target, ways.compress_level
        self._order, self._pages = "<", 0
        self._take_in(header)
        self._big = self._segments.needs_64_bits
        mark = b"II" if self._order == "<" else b"MM"
        if self._big:
            mark += struct.pack(self._order + "HHHQ", 43, 8, 0, 0)
        else:
            mark += struct.pack(self._order + "HI", 42, 0)
        self._link = 8 if self._big else 4
        """Where the place of the next directory is to stand."""
        target.write(mark)
        self._space = ifd.space_around(ifd.note_of(self._tags), len(mark))

    def _take_in(self, header: Header) -> None:
        """Begin a page."""
        self._header = header
        self._tags: dict[int, Entry] = {}
        for blob in (header.metadata.tiff_tags, header.metadata.exif):
            if blob:
                order, found, _ = ifd.parse(blob)
                if not self._pages:
                    self._order = order  # all of a file is in one
                kept = {tag: e for tag, e in found.items() if tag not in LAYOUT | RESOLUTION}
                self._tags |= kept if order == self._order else _swapped(kept)
        self._segments = Segments(header, self._level, self._order)
        self._strips = Strips(header, self._segments.rows)
        self._starts: list[int] = []
        self._lengths: list[int] = []

    def write(self, rows: Pixels) -> None:
        """See Writer."""
        block, top, starts = self._strips.add(rows)

        def segment(place: tuple[int, int]) -> Buffer:
            return self._segments.body(block, *place)

        places = [(start - top, left) for start in starts for left in self._segments.lefts]
        for body in each(segment, places):
            self._starts.append(self._space.add(body))
            self._lengths.append(len(body))
        self._lay(self._space.ready())

    def next_frame(self, header: Header) -> None:
        """See Writer."""
        self.close()
        self._take_in(header)
        self._space = ifd.space_around(ifd.note_of(self._tags), self._space.end)

    def close(self) -> None:
        """See Writer."""
        self._strips.require_complete()
        tags = self._all_tags()
        at = ifd.write(tags, self._order, self._space, self._big)
        self._lay(self._space.pieces())
        self._target.patch(self._link, struct.pack(self._order + ("Q" if self._big else "I"), at))
        self._link = at + ifd.link(tags, self._big)
        self._pages += 1

    def _lay(self, pieces: Iterable[Buffer]) -> None:
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
            PHOTOMETRIC: ifd.shorts(order, colours),
            SAMPLES: ifd.shorts(order, channels),
            FORMAT: ifd.shorts(order, *[FLOAT if floats else UNSIGNED] * channels),
        }
        tags |= self._segments.tags(self._starts, self._lengths, self._big)
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


def _swapped(entries: Ifd) -> dict[int, Entry]:
    """*entries* in the other byte order."""
    out = {}
    for tag, entry in entries.items():
        if isinstance(entry.value, bytes):
            size = (
                4 if entry.type in (ifd.RATIONAL, ifd.SRATIONAL) else ifd.SIZES.get(entry.type, 1)
            )
            parts = range(0, len(entry.value), size)
            value = b"".join(entry.value[at : at + size][::-1] for at in parts)
            out[tag] = replace(entry, value=value)
        else:
            out[tag] = replace(entry, value=_swapped(entry.value))
    return out
