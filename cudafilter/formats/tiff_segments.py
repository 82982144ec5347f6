"""From rows to TIFF's strips and tiles: cut, predicted and compressed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cudafilter.formats import deflate, ifd, tiff_codecs
from cudafilter.formats.ifd import Entry
from cudafilter.formats.metadata import TiffLayout
from cudafilter.formats.rows import Header
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Buffer

STRIP_SIZE = 1 << 20
"""Bytes of a strip, before it is compressed."""
_MOST_TILE = 1 << 26
"""Most bytes of a tile that is written; larger ones become strips."""
_MOST_CLASSIC = (1 << 32) - 1 - (1 << 20)
"""Bytes up to which a file's offsets surely fit into 32 bits."""

Encoder = Callable[[Any, int], Buffer]
"""From rows, (rows, bytes of a row), and a level of deflate to the bytes of a segment."""


class Segments:
    """The strips or tiles of a picture in byte order *order*.

    They are as ``metadata.tiff_layout`` has them, where that holds all samples as they are, and
    strips that are deflated otherwise. *level* asks for deflate.
    """

    def __init__(self, header: Header, level: int | None, order: str) -> None:
        layout = header.metadata.tiff_layout or TiffLayout()
        self._header, self._order = header, order
        self._level = deflate.DEFAULT_LEVEL if level is None else level
        codec = layout.compression if level is None else tiff_codecs.ADOBE_DEFLATE
        self._codec = codec if codec in _ENCODERS else tiff_codecs.ADOBE_DEFLATE
        self._encode = _ENCODERS[self._codec]
        self._pixel = header.channels * np.dtype(header.dtype).itemsize
        self._tile = _tile(layout, self._pixel)
        if self._tile is None:
            self.rows = max(1, STRIP_SIZE // (header.width * self._pixel))
            self.lefts = range(1)
        else:
            width, self.rows = self._tile
            self.lefts = range(0, header.width, width)
        """Rows of a strip or tile, and the columns where these begin."""

    @property
    def needs_64_bits(self) -> bool:
        """Whether offsets may be past 32 bits. Deflate adds little to what it cannot compress."""
        header, metadata = self._header, self._header.metadata
        width, height = header.width, header.height
        if self._tile is not None:
            across, down = self._tile
            width, height = -(-width // across) * across, -(-height // down) * down
        count = len(self.lefts) * -(-height // self.rows)
        kept = (metadata.icc, metadata.exif, metadata.xmp, metadata.tiff_tags)
        size = width * height * self._pixel
        size += size // 64 + 64 * count + sum(len(blob) for blob in kept if blob)
        return size * header.frames > _MOST_CLASSIC

    def body(self, block: Pixels, at: int, left: int) -> Buffer:
        """The strip or tile whose rows begin at row *at* of *block*, at column *left*, compressed.

        Integers are stored as differences from the pixel to the left (predictor 2).
        """
        part = block[at : at + self.rows]
        if self._tile is not None:
            width, rows = self._tile
            part = part[:, left : left + width]
            missing = rows - len(part), width - part.shape[1]
            if any(missing):
                part = np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)))
        if self._predictor == 2:
            differences = part.copy()
            np.subtract(part[:, 1:], part[:, :-1], out=differences[:, 1:])
            part = differences
        stored = np.ascontiguousarray(part, f"{self._order}{part.dtype.str[1:]}")
        return self._encode(stored.reshape(len(part), -1).view(np.uint8), self._level)

    @property
    def _predictor(self) -> int:
        plain = self._codec in (tiff_codecs.NONE, tiff_codecs.PACKBITS)
        return 1 if plain or self._header.dtype == "float32" else 2

    def tags(self, starts: list[int], lengths: list[int], big: bool) -> dict[int, Entry]:
        """The tags of the layout. *big* says that offsets have 64 bits."""
        order = self._order
        places = ifd.long8s if big else ifd.longs
        tags = {
            259: ifd.shorts(order, self._codec),
            284: ifd.shorts(order, 1),
            317: ifd.shorts(order, self._predictor),
        }
        if self._tile is None:
            return tags | {
                273: places(order, *starts), 278: ifd.longs(order, self.rows),
                279: places(order, *lengths),
            }  # fmt: skip
        width, rows = self._tile
        return tags | {
            322: ifd.longs(order, width), 323: ifd.longs(order, rows),
            324: places(order, *starts), 325: places(order, *lengths),
        }  # fmt: skip


def _tile(layout: TiffLayout, pixel: int) -> tuple[int, int] | None:
    """Width and height of tiles; None for strips. The standard has multiples of 16."""
    if layout.tile is None:
        return None
    width, rows = layout.tile
    well = not width % 16 and not rows % 16 and width * rows * pixel <= _MOST_TILE
    return (width, rows) if well else None


def _plain(rows: Any, level: int) -> Buffer:
    return memoryview(rows).cast("B")


def _deflated(rows: Any, level: int) -> Buffer:
    return deflate.stream(memoryview(rows).cast("B"), level)


def _lzw(rows: Any, level: int) -> Buffer:
    import imagecodecs

    return bytes(imagecodecs.lzw_encode(rows))


def _packbits(rows: Any, level: int) -> Buffer:
    import imagecodecs

    return bytes(imagecodecs.packbits_encode(rows, axis=-1))


def _zstd(rows: Any, level: int) -> Buffer:
    import imagecodecs

    return bytes(imagecodecs.zstd_encode(rows))


def _lzma(rows: Any, level: int) -> Buffer:
    import lzma

    return lzma.compress(rows)


_ENCODERS: dict[int, Encoder] = {
    tiff_codecs.NONE: _plain,
    tiff_codecs.LZW: _lzw,
    tiff_codecs.PACKBITS: _packbits,
    tiff_codecs.ADOBE_DEFLATE: _deflated,
    tiff_codecs.LZMA: _lzma,
    tiff_codecs.ZSTD: _zstd,
}
"""What keeps all samples. The others, such as JPEG, lose some or hold few types."""
