"""Large JPEGs, encoded by OpenCV in strips of whole rows of blocks, with restart markers between.

Coding starts afresh at such a marker, and all strips have the same tables: nothing of a block
changes.
"""

from __future__ import annotations

import struct

from cudafilter.formats import jpeg_head
from cudafilter.formats.jpeg_head import DRI, SAMPLINGS, SOF0, SOI
from cudafilter.formats.rows import Header, OneFrame, Strips
from cudafilter.host.cores import each
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Buffer, Sink

STRIP_PIXELS = 1 << 20
"""Pixels that are encoded as one: at most 16,384 blocks, and a restart interval holds 65,535."""


def size_of(width: int, sampling: tuple[int, int]) -> tuple[int, int]:
    """Rows of a strip of a picture so wide, and its blocks."""
    across, down = (8 * factor for factor in sampling)
    blocks = -(-width // across)
    rows = max(1, STRIP_PIXELS // (blocks * across * down))
    return rows * down, blocks * rows


class Writer(OneFrame):
    """The writer of a picture of several strips."""

    def __init__(
        self, target: Sink, header: Header, quality: int, sampling: tuple[int, int]
    ) -> None:
        self._target, self._header = target, header
        self._quality, self._name = quality, SAMPLINGS[sampling].name
        self._rows, self._interval = size_of(header.width, sampling)
        self._strips = Strips(header, self._rows)
        self._number = 0
        """Strips that are written."""

    def write(self, rows: Pixels) -> None:
        """See rows.Writer."""
        from cudafilter.formats import opencv  # not before: reading does without

        block, top, starts = self._strips.add(rows)

        def strip(start: int) -> Buffer:
            part = block[start - top : start - top + self._rows]
            return opencv.encode_jpeg(part, self._quality, self._name, False)

        for start, part in zip(starts, each(strip, starts), strict=True):
            self._add(part, start + self._rows >= self._header.height)

    def close(self) -> None:
        """See rows.Writer."""
        self._strips.require_complete()

    def _add(self, part: Buffer, last: bool) -> None:
        """Write the scan of *part*, a whole JPEG; before the first one the head."""
        segments, scan = jpeg_head.segments_of(part)
        length = 2 + int.from_bytes(scan[2:4], "big")
        if not self._number:
            size = struct.pack(">H", self._header.height)
            head = [
                (marker, body[:1] + size + body[3:] if marker == SOF0 else body)
                for marker, body in segments
            ]
            head.append((DRI, struct.pack(">H", self._interval)))
            own = SOI + jpeg_head.written(head)
            self._target.write(jpeg_head.with_head([own], self._header.metadata))
            self._target.write(scan[:length])
        self._target.write(scan[length:-2])
        self._target.write(b"\xff\xd9" if last else bytes((0xFF, 0xD0 + self._number % 8)))
        self._number += 1
