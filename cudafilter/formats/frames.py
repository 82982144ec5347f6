"""What readers and writers of several frames have in common; see rows.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats.rows import Header, Reader, Strips
from cudafilter.operations.pixels import Pixels


class FrameReader:
    """The reader of a file whose *count* frames are decoded one after the other, each whole."""

    in_order = False

    def __init__(
        self, count: int, frames: Iterator[tuple[Header, Pixels]], notes: tuple[str, ...] = ()
    ) -> None:
        self.frames, self.notes, self._coming = count, notes, frames
        self.header = self.next_frame()
        self.step = self.header.height

    def rows(self, first: int, last: int) -> Pixels:
        """See Reader."""
        return self._pixels[first:last]

    def next_frame(self) -> Header:
        """See Reader."""
        try:
            self.header, self._pixels = next(self._coming)
        except StopIteration:
            raise ImageError(f"it holds no more than {self.frames} frames") from None
        return self.header


class PageReader:
    """The reader of a file of *count* pages, each of which has a reader of its own."""

    def __init__(self, count: int, pages: Iterator[Reader]) -> None:
        self.frames, self._pages = count, pages
        self._page = next(pages)

    @property
    def header(self) -> Header:
        """See Reader."""
        return self._page.header

    @property
    def step(self) -> int:
        """See Reader."""
        return self._page.step

    @property
    def in_order(self) -> bool:
        """See Reader."""
        return self._page.in_order

    @property
    def notes(self) -> tuple[str, ...]:
        """See Reader. Those of the page at hand."""
        return self._page.notes

    def rows(self, first: int, last: int) -> Pixels:
        """See Reader."""
        return self._page.rows(first, last)

    def next_frame(self) -> Header:
        """See Reader."""
        try:
            self._page = next(self._pages)
        except StopIteration:
            raise ImageError(f"it holds no more than {self.frames} pages") from None
        return self.header


class FrameWriter:
    """The writer of a file that takes its frames whole, all of one size and type."""

    def __init__(self, header: Header) -> None:
        self._first = self._header = header
        self._strips = Strips(header, header.height)
        self.notes: tuple[str, ...] = ()

    def write(self, rows: Pixels) -> None:
        """See Writer."""
        pixels, _, complete = self._strips.add(rows)
        if complete:
            self._add(self._header, np.ascontiguousarray(pixels))

    def next_frame(self, header: Header) -> None:
        """See Writer. Raises ImageError where the frame is of another size or type."""
        self._strips.require_complete()
        if replace(header, seconds=None, metadata=self._first.metadata) != replace(
            self._first, seconds=None
        ):
            raise ImageError("its frames are of several sizes or types, which only TIFF holds")
        self._header, self._strips = header, Strips(header, header.height)

    def close(self) -> None:
        """See Writer."""
        self._strips.require_complete()
        self._end()

    def _add(self, header: Header, pixels: Pixels) -> None:
        """Write a frame, *pixels* (H, W, C), which stay as they are."""
        raise NotImplementedError

    def _end(self) -> None:
        """Write what follows the last frame."""
