"""Writes PNG: rows are filtered and become one zlib stream, on all cores or beside them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import partial

import numpy as np

from cudafilter.errors import EngineError
from cudafilter.formats import deflate
from cudafilter.formats.png_chunks import SIGNATURE, ancillary, put
from cudafilter.formats.png_filters import filtered
from cudafilter.formats.png_path import PngPath
from cudafilter.formats.rows import Header, OneFrame, Strips
from cudafilter.formats.table import Ways
from cudafilter.host.cores import each
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Buffer, Sink

STRIP = 1 << 20
"""Bytes of filtered rows that are compressed as one."""


class PngWriter(OneFrame):
    """Goes strip by strip; a picture that comes whole may be taken by OneFrame.png."""

    def __init__(self, target: Sink, header: Header, ways: Ways) -> None:
        given = ways.compress_level
        self._level = deflate.DEFAULT_LEVEL if given is None else given
        self._given = given is not None
        self._deflated = False
        self._target, self._header, self._stream = target, header, deflate.Joiner()
        depth = np.dtype(header.dtype).itemsize
        self._row = 1 + header.width * header.channels * depth
        self._step = max(1, STRIP // self._row)
        self._halo = -(-deflate.WINDOW // self._row)
        self._strips = Strips(header, self._step, self._halo + 1)  # the filters look at one more
        colour = (0, 4, 2, 6)[header.channels - 1]
        ihdr = struct.pack(">IIBBBBB", header.width, header.height, depth * 8, colour, 0, 0, 0)
        target.write(SIGNATURE)
        for chunk in [(b"IHDR", ihdr), *ancillary(header.metadata)]:
            put(target, *chunk)

    def write(self, rows: Pixels) -> None:
        """See Writer."""
        whole = len(rows) == self._header.height
        png = self.png() if whole and not self._given else None
        if png is not None and self._deflate(png, rows):
            return
        block, top, starts = self._strips.add(rows)
        for start, strip in zip(starts, each(partial(self._part, block, top), starts), strict=True):
            put(self._target, b"IDAT", self._stream.add(strip, self._is_last(start)))

    def write_deflated(self, pieces: Sequence[Buffer]) -> None:
        """Write all rows, as PngPath.deflate has made them."""
        for piece in pieces:
            put(self._target, b"IDAT", piece)
        self._deflated = True

    def close(self) -> None:
        """See Writer."""
        if not self._deflated:
            self._strips.require_complete()
        put(self._target, b"IEND", b"")

    def _deflate(self, png: PngPath, rows: Pixels) -> bool:
        """Write all *rows* by *png*, unless it leaves them to the host."""
        try:
            done = png.deflate(rows)
        except EngineError as error:
            self.notes += (f"compressed on the CPU: {error}",)
            return False
        self.notes += done.notes
        if done.pieces is not None:
            self.write_deflated(done.pieces)
        return self._deflated

    def _is_last(self, start: int) -> bool:
        return start + self._step >= self._header.height

    def _part(self, block: Pixels, top: int, start: int) -> deflate.Part:
        """The strip that begins at row *start*, compressed; *block* begins at row *top*."""
        stop, above = min(start + self._step, self._header.height), max(0, start - self._halo)
        rows = filtered(block, above - top, stop - top, self._level).reshape(-1).data
        at = (start - above) * self._row
        window = rows[max(0, at - deflate.WINDOW) : at]
        return deflate.part(rows[at:], window, self._level, last=self._is_last(start))
