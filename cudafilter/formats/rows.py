"""Image files by rows: the reader, the writer, and both for formats that know only whole files.

What a module of a format has:

- ``extent(head) -> Extent``: the size of the image by the first bytes of its file;
- ``frames(source) -> int`` where a file may hold several;
- to read whole files ``read(data, limits) -> Decoded``, or by rows ``open(source, limits) ->
  Reader``;
- ``is_decoded_whole(head) -> bool`` and ``is_encoded_whole(header, ways) -> bool``, where some
  files of a format that goes by rows do not;
- to write whole files ``write(pixels, metadata, ways) -> Buffer``, or by rows ``create(target,
  header, ways) -> Writer``.

The table says which of these there are. Reasons are raised as ImageError without the file's name,
which images.py puts before them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats.holds import require_frames, require_held
from cudafilter.formats.limits import Extent, Limits
from cudafilter.formats.metadata import Decoded, Metadata, split
from cudafilter.formats.table import FORMATS, ROWS, Ways, format_of_bytes, written
from cudafilter.operations.pixels import Pixels, require_pixels
from cudafilter.stores.buffers import Buffer, Sink, Source

if TYPE_CHECKING:
    from cudafilter.formats.png_path import PngPath


@dataclass(frozen=True)
class Header:
    """What a picture is, without its pixels."""

    width: int
    height: int
    channels: int
    dtype: str
    """NumPy's name of a sample: uint8, uint16 or float32."""
    alpha: bool = False
    """The last channel is (straight) alpha."""
    metadata: Metadata = field(default_factory=Metadata)
    seconds: Fraction | None = None
    """How long it is shown, of a frame of an animation. A page has no such time."""
    frames: int = 1
    """How many pictures the file will have that is to be written."""

    @classmethod
    def of(
        cls,
        pixels: Pixels,
        alpha: bool,
        metadata: Metadata,
        seconds: Fraction | None = None,
        frames: int = 1,
    ) -> Header:
        """That of *pixels* in memory."""
        height, width, channels = pixels.shape
        return cls(width, height, channels, pixels.dtype.name, alpha, metadata, seconds, frames)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all its pixels in memory."""
        return self.width * self.height * self.channels * np.dtype(self.dtype).itemsize

    @property
    def colour(self) -> str:
        """What the channels are, in a word for people and for the table."""
        names = {1: "gray", 2: "gray+alpha", 3: "RGB", 4: "RGBA"}
        return "CMYK" if self.metadata.cmyk else names[self.channels]


HEAD_OF_KIND = 32
"""Bytes that show a file's format and whether its rows lie in order."""


class Reader(Protocol):
    """An image file that is read."""

    @property
    def header(self) -> Header:
        """That of the frame at hand, which is the first one until next_frame()."""
        ...

    @property
    def frames(self) -> int:
        """Pictures in the file: pages, or those of an animation."""
        ...

    @property
    def step(self) -> int:
        """Rows that are decoded at a time: a strip's, say. All of them where it cannot do less.

        Cuts of a multiple of it are the fastest, and take the memory of so many rows.
        """
        ...

    @property
    def in_order(self) -> bool:
        """Rows can be asked for only downwards, each once."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was converted on the way; complete when the last row was read."""
        ...

    def rows(self, first: int, last: int) -> Pixels:
        """Rows *first* to before *last* of the frame: (last - first, W, C), C-contiguous.

        Raises ImageError where they are damaged. What is to be seen only at the end of a file
        is seen when its last row is read.
        """
        ...

    def next_frame(self) -> Header:
        """Go on to the next frame. Raises ImageError where there is none."""
        ...


class Writer(Protocol):
    """An image file that is written. It is whole once it is closed."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What became of pixels that the format does not hold as they are; complete once closed."""
        ...

    def write(self, rows: Pixels) -> None:
        """Add *rows* (N, W, C), any number of them. They are copied where they are kept."""
        ...

    def next_frame(self, header: Header) -> None:
        """End the frame, all rows of which are there, and begin one more."""
        ...

    def close(self) -> None:
        """End the file. Raises ValueError where rows are missing."""
        ...


def extent(head: Source) -> Extent:
    """The size of an image by the first bytes of its file.

    Raises ImageError where these show no known format, and nearly anything where the head is
    damaged or too short.
    """
    found: Extent = _module(format_of_bytes(head[:HEAD_OF_KIND])).extent(head)
    return found


def frames(source: Source) -> int:
    """How many pictures a file holds, by what it tells before they are decoded.

    Raises ImageError, and nearly anything where it is damaged.
    """
    told = getattr(_module(format_of_bytes(source[:HEAD_OF_KIND])), "frames", None)
    return int(told(source)) if told is not None else 1


def is_decoded_whole(head: bytes) -> bool:
    """Whether all pixels are in memory once the file that begins with *head* is open."""
    format = format_of_bytes(head)
    if FORMATS[format].reads != ROWS:
        return True
    told = getattr(_module(format), "is_decoded_whole", None)
    return told is not None and bool(told(head))


def is_encoded_whole(format: str, header: Header, ways: Ways) -> bool:
    """Whether all pixels of *header* are in memory before the first byte of the file is written."""
    if FORMATS[format].writes != ROWS:
        return True
    told = getattr(_module(format), "is_encoded_whole", None)
    return told is not None and bool(told(header, ways))


def open(
    source: Source,
    max_pixels: int | None = None,
    by_rows: bool = False,
    png: Callable[[], PngPath | None] | None = None,
) -> Reader:
    """The reader of an image file, whatever its name says it is.

    *source* stays open as long as rows are read. *by_rows* says that few of them are held at a
    time; *png* gives what may help to read them, if it is there by then. Raises ImageError for what
    is damaged, too large (see limits.Limits) or not read.
    """
    head = source[:HEAD_OF_KIND]
    format = format_of_bytes(head)
    by_rows = by_rows and not is_decoded_whole(head)
    module, limits = _module(format), Limits(len(source), max_pixels, by_rows)
    if FORMATS[format].reads == ROWS:
        reader: Reader = module.open(source, limits)
        if png is not None and isinstance(reader, OneFrame):
            reader.png = png
        return reader
    return WholeReader(module.read(source[:], limits))


def create(
    format: str,
    target: Sink,
    header: Header,
    *,
    quality: int | None = None,
    compress_level: int | None = None,
    dither: bool = False,
    png: Callable[[], PngPath | None] | None = None,
) -> Writer:
    """The writer of a file of *format* into *target*; all else is as images.Output has it.

    Raises ImageError, with a hint what to choose, where bits, alpha, colour or frames would be
    lost. Of metadata what the format holds is written; see metadata.split().
    """
    if format not in FORMATS or FORMATS[format].writes is None:
        known = ", ".join(written())
        raise ImageError(f"{format} files are not written", hint=f"choose one of {known}")
    require_range("quality", quality, 1, 100)
    require_range("compress level", compress_level, 0, 9)
    told = header.metadata
    require_held(format, header.dtype, header.channels, header.alpha, told.cmyk, told.bits)
    if header.frames > 1:
        require_frames(format, header.frames, timed=header.seconds is not None)
    metadata, _ = split(told, format, header.channels)
    header = replace(header, metadata=metadata)
    module, ways = _module(format), Ways(quality, compress_level, dither)
    if FORMATS[format].writes == ROWS:
        writer: Writer = module.create(target, header, ways)
        if png is not None and isinstance(writer, OneFrame):
            writer.png = png
        return writer
    return WholeWriter(target, header, ways, module.write)


def require_range(what: str, value: int | None, least: int, most: int) -> None:
    """Raise ImageError unless *value* is None or *least* to *most*."""
    if value is not None and not least <= value <= most:
        raise ImageError(f"{what} must be {least} to {most}, not {value}")


def _module(format: str) -> Any:
    return import_module(f"cudafilter.formats.{FORMATS[format].module}")


class OneFrame:
    """A file of one picture, to be read or written."""

    frames = 1
    notes: tuple[str, ...] = ()
    png: Callable[[], PngPath | None] = staticmethod(lambda: None)
    """What may do parts of a PNG's coding, if it is there by then."""

    def next_frame(self, *_: object) -> Any:
        """See Reader and Writer."""
        raise ImageError("a file of this kind is read and written with one picture only")


class WholeReader(OneFrame):
    """The reader of a file that was decoded whole."""

    in_order = False

    def __init__(self, decoded: Decoded) -> None:
        self._pixels = require_pixels(decoded.pixels, decoded.alpha)
        self.header = Header.of(self._pixels, decoded.alpha, decoded.metadata)
        self.step = self.header.height
        self.notes = decoded.notes

    def rows(self, first: int, last: int) -> Pixels:
        """See Reader."""
        return self._pixels[first:last]


class WholeWriter(OneFrame):
    """The writer of a file that is encoded whole, when its last row is there."""

    def __init__(
        self,
        target: Sink,
        header: Header,
        ways: Ways,
        encode: Callable[[Pixels, Metadata, Ways], Buffer],
    ) -> None:
        self._target, self._header, self._ways, self._encode = target, header, ways, encode
        self._strips = Strips(header, header.height)

    def write(self, rows: Pixels) -> None:
        """See Writer."""
        pixels, _, complete = self._strips.add(rows)
        if complete:
            pixels = np.ascontiguousarray(pixels)
            self._target.write(self._encode(pixels, self._header.metadata, self._ways))

    def close(self) -> None:
        """See Writer."""
        self._strips.require_complete()


class Strips:
    """Rows that come in any cut, given out in strips of the same height.

    So a file does not depend on how its rows were cut. One writer uses it, from one thread.
    """

    def __init__(self, header: Header, step: int, halo: int = 0) -> None:
        self._header, self._step, self._halo = header, step, halo
        self._held: list[Pixels] = []
        self._top = self._next = self._end = 0
        """The first row that is held, the first row of the next strip, and how many came."""

    def add(self, rows: Pixels) -> tuple[Pixels, int, range]:
        """Rows of all strips that *rows* complete, the number of the first, and where they begin.

        The rows begin up to *halo* rows above the first of these strips.
        """
        header = self._header
        if rows.dtype.name != header.dtype or rows.shape[1:] != (header.width, header.channels):
            raise ValueError(f"rows {rows.shape} of {rows.dtype} do not belong to {header}")
        self._end += len(rows)
        if self._end > header.height:
            raise ValueError(f"row {self._end} of {header.height}")
        whole = self._end == header.height
        stop = self._end if whole else self._end // self._step * self._step
        top, starts = self._top, range(self._next, stop, self._step)
        if not starts:
            self._held.append(rows.copy())
            return rows[:0], top, starts
        block = np.concatenate([*self._held, rows]) if self._held else rows
        self._next, self._top = stop, max(0, stop - self._halo)
        rest = block[self._top - top :]
        self._held = [] if whole else [rest.copy()]
        return block, top, starts

    def require_complete(self) -> None:
        """Raise ValueError unless all rows came."""
        if self._end != self._header.height:
            raise ValueError(f"{self._end} of {self._header.height} rows were written")
