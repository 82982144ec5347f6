"""PNG: pixels are decoded here, by rows; png_chunks.py keeps what else there is.

libdeflate inflates a whole picture, ISA-L some rows at a time, for which the row above them is put
before. libpng undoes the row filters.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from functools import partial
from typing import NamedTuple, cast

import numpy as np

from cudafilter.errors import EngineError, ImageError
from cudafilter.formats import deflate
from cudafilter.formats.limits import Extent, Limits
from cudafilter.formats.metadata import Decoded
from cudafilter.formats.png_chunks import (
    GRAY,
    MOVING,
    PALETTE,
    PICTURE,
    RGB,
    SIGNATURE,
    Chunk,
    Chunks,
    chunks_of,
    frames_told,
    metadata_of,
    put,
)
from cudafilter.formats.png_filters import NONE, PAETH
from cudafilter.formats.png_writer import PngWriter
from cudafilter.formats.rows import Header, OneFrame, Reader, WholeReader, Writer
from cudafilter.formats.table import Ways
from cudafilter.operations.pixels import Pixels, full_scale
from cudafilter.stores.buffers import Buffer, Pieces, Sink, Source, gathered, joined

_MOST = 1 << 30
"""Most bytes of a chunk that is made."""
MAX_SIDE = 1_000_000
"""libpng reads no longer ones."""

_CHANNELS = {GRAY: 1, RGB: 3, PALETTE: 1, 4: 2, 6: 4}
"""PNG's colour types -> samples a pixel in the file."""
_DEPTHS = {GRAY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
)  # fmt: skip
"""Adam7's passes: first column, first row, columns and rows apart."""

# What libpng warns of, our own error tells. Without a handler of its own it would go to stderr.
logging.getLogger("imagecodecs").addHandler(logging.NullHandler())


class _Header(NamedTuple):
    """What IHDR says."""

    width: int
    height: int
    bits: int
    colour: int
    compression: int
    filtering: int
    interlaced: int

    def row_bytes(self, width: int) -> int:
        """Bytes of a row of *width* pixels, without the number of its filter."""
        return -(-width * self.bits * _CHANNELS[self.colour] // 8)

    def filtered(self, rows: int) -> int:
        """Bytes of so many filtered rows, before compression; all of them if interlaced."""
        if not self.interlaced:
            return rows * (1 + self.row_bytes(self.width))
        sizes = (
            (-(-max(0, self.width - x) // across), -(-max(0, self.height - y) // down))
            for x, y, across, down in _PASSES
        )
        return sum(high * (1 + self.row_bytes(wide)) for wide, high in sizes if wide)


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file."""
    width, height, bits, colour = struct.unpack_from(">IIBB", head, 16)
    channels = {0: 1, 2: 3, 3: 4, 4: 2, 6: 4}[colour]  # a palette becomes RGBA at most
    return Extent(width, height, channels, 2 if bits == 16 else 1)


def frames(source: Source) -> int:
    """How many pictures there are: what tells it stands before the pixels."""
    at = len(SIGNATURE)
    while (kind := source[at + 4 : at + 8]) not in (b"acTL", b"IDAT", b""):
        at += 12 + int.from_bytes(source[at : at + 4], "big")
    return frames_told([(kind, source[at + 8 : at + 16])])


def is_decoded_whole(head: bytes) -> bool:
    """Whether the file that begins with *head* is interlaced."""
    return head[28:29] == b"\1"


def open(source: Source, limits: Limits) -> Reader:
    """Read a PNG: gray, gray with alpha, RGB or RGBA of 8 or 16 bits."""
    chunks = chunks_of(source)
    header = _header(chunks.found)
    first = dict(reversed(chunks.found))
    clear = b"tRNS" in first
    channels = 3 + clear if header.colour == PALETTE else _CHANNELS[header.colour]
    limits.require_size(header.width, header.height, channels * (1 + (header.bits > 8)))
    _require_order([kind for kind, _ in chunks.found], header.colour)
    moves = frames_told(chunks.found) > 1
    still = chunks
    if moves:
        still = chunks._replace(found=[c for c in chunks.found if c[0] not in MOVING])
    reader = PngReader(source, still, header)
    if moves:
        from cudafilter.formats import apng  # not before: most pictures stand still

        again = [chunk for chunk in still.found if chunk[0] in (b"PLTE", b"tRNS")]

        def decode(width: int, height: int, spans: list[range]) -> Pixels:
            part = header._replace(width=width, height=height)
            return PngReader(source, Chunks(again, spans, [], len(source)), part).rows(0, height)

        return apng.open(source, chunks, reader, decode)
    if not header.interlaced:
        return reader
    told = reader.header
    return WholeReader(
        Decoded(reader.rows(0, header.height), told.alpha, told.metadata, reader.notes)
    )


class PngReader(OneFrame):
    """The reader of a file whose rows follow each other; of an interlaced one, of all at once.

    What rows() or filtered() has given is given once.
    """

    step, in_order = 1, True

    def __init__(self, source: Source, chunks: Chunks, header: _Header) -> None:
        self._stored = header
        self._next = 0
        self._above: bytes | None = None
        """The row above the next one, as it is stored, unfiltered."""
        self._feed = _Feed(source, chunks.spans)
        self._inflater = deflate.Inflater(self._feed.take, header.filtered(header.height))
        first = dict(reversed(chunks.found))
        self._palette, self._clear = first.get(b"PLTE", b""), first.get(b"tRNS")
        alpha = header.colour in (4, 6)
        metadata, lost = metadata_of(chunks.found, header.colour, header.bits)
        notes = []
        if header.colour == PALETTE:
            alpha = self._clear is not None
            notes.append(f"palette expanded to {'RGBA' if alpha else 'RGB'}")
        elif header.bits < 8:
            notes.append(f"{header.bits}-bit expanded to 8-bit gray")
        channels = 3 + alpha if header.colour == PALETTE else _CHANNELS[header.colour]
        if self._clear is not None and not alpha:
            alpha, channels = True, channels + 1
            notes.append("transparent colour expanded to alpha")
        if chunks.end < len(source):
            lost.append(f"{len(source) - chunks.end:,} bytes after its end are not kept")
        dtype = "uint16" if header.bits == 16 else "uint8"
        self.header = Header(header.width, header.height, channels, dtype, alpha, metadata)
        self.notes = (*notes, *lost)

    def rows(self, first: int, last: int) -> Pixels:
        """See Reader."""
        if first != self._next:
            raise ValueError(f"row {first} of a PNG where {self._next} is the next")
        header = self._stored
        stored = self._samples(last - first)
        if header.colour == PALETTE:
            return _expanded(stored, self._palette, self._clear)
        pixels = stored
        if header.bits < 8:
            pixels = pixels * np.uint8(255 // ((1 << header.bits) - 1))
        if self.header.channels > _CHANNELS[header.colour]:
            assert self._clear is not None
            pixels = _with_alpha(pixels, stored, header.bits, self._clear)
        return pixels

    @property
    def is_plain(self) -> bool:
        """Whether its samples are those of its pixels, each of one or two bytes."""
        stored = self._stored
        return stored.bits >= 8 and stored.colour != PALETTE and self._clear is None

    def filtered(self, count: int) -> Buffer:
        """The next *count* rows as PngPath.unfilter takes them; of an interlaced file, all."""
        header = self._stored
        raw = self._inflater.take(header.filtered(count))
        self._next += count
        if self._next == header.height and (surplus := self._feed.left + self._inflater.surplus):
            told = f"{surplus} bytes after the end of its pixels are not kept"
            self.notes = (told, *self.notes)
        if not header.interlaced:
            filters = np.frombuffer(raw, np.uint8)[:: header.filtered(1)]
            if filters.max() > PAETH:
                raise ImageError("it is damaged: its rows cannot be read")
        return raw

    def _samples(self, count: int) -> Pixels:
        """The next *count* rows as they are stored, (count, W, C), those below 8 bits too.

        The data are inflated here, for libpng believes data without an end or with a wrong
        checksum. It only undoes filters and interlacing. Samples below 8 bits go through as whole
        bytes, and a palette, which it would expand, as gray.
        """
        header = self._stored
        raw = self.filtered(count)
        colour = GRAY if header.colour == PALETTE else header.colour
        told = header._replace(colour=colour, height=count)
        packed = header.bits < 8 and not header.interlaced
        if packed:
            told = told._replace(width=header.row_bytes(header.width), bits=8)
        if self._above is not None:
            raw = joined([bytes([NONE]), self._above, raw])
            told = told._replace(height=count + 1)
        pixels = self._beside(told, raw) if count == header.height else None
        if pixels is None:
            pixels = _unfiltered(told, raw)[told.height - count :]
        del raw
        if self._next < header.height:
            row = pixels[-1]
            self._above = row.astype(row.dtype.newbyteorder(">")).tobytes()
        if packed:
            return _unpacked(pixels, header)
        if header.bits < 8:  # libpng spreads them over 0 to 255
            pixels //= np.uint8(255 // ((1 << header.bits) - 1))
        return pixels

    def _beside(self, header: _Header, raw: Buffer) -> Pixels | None:
        """As _unfiltered(), beside the host's cores; None where these are to do it."""
        if header.bits < 8 or header.interlaced or (png := self.png()) is None:
            return None
        shape = header.height, header.width, _CHANNELS[header.colour]
        try:
            done = png.unfilter(raw, shape, header.bits // 8)
        except EngineError as error:
            self.notes += (f"row filters undone on the CPU: {error}",)
            return None
        self.notes += done.notes
        return done.pixels


class _Feed:
    """The data of the IDAT chunks, one after the other."""

    def __init__(self, source: Source, spans: list[range]) -> None:
        self._source, self._spans = source, deque(spans)
        self.left = sum(map(len, spans))
        """Bytes that were not taken."""

    def take(self, count: int) -> Buffer:
        """The next *count* bytes, or as many as there are."""
        found: list[range] = []
        while count and self._spans:
            span = self._spans[0]
            taken = span[:count]
            found.append(taken)
            count -= len(taken)
            self.left -= len(taken)
            self._spans[0] = span[len(taken) :]
            if not self._spans[0]:
                self._spans.popleft()
        return gathered(self._source, found) if found else b""


def _header(chunks: list[Chunk]) -> _Header:
    if chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise ImageError("it is damaged: it does not begin with its size")
    header = _Header(*struct.unpack(">IIBBBBB", chunks[0][1]))
    if (
        not header.width
        or not header.height
        or header.bits not in _DEPTHS.get(header.colour, ())
        or header.compression
        or header.filtering
        or header.interlaced > 1
    ):
        raise ImageError("it is damaged: its header has values that PNG does not know")
    if max(header.width, header.height) > MAX_SIDE:
        raise ImageError(
            f"{header.width} x {header.height} pixels are more than the {MAX_SIDE:,} a side that"
            " are read from PNG"
        )
    return header


def _require_order(kinds: list[bytes], colour: int) -> None:
    """Raise ImageError unless the chunks that make the picture stand where they must."""
    critical = {kind for kind in kinds if not kind[0] & 32} - PICTURE
    if critical:
        name = critical.pop().decode("latin-1")
        raise ImageError(f"it needs chunk {name}, which is not of the PNG standard")
    pixels = [at for at, kind in enumerate(kinds) if kind == b"IDAT"]
    if not pixels:
        raise ImageError("it is damaged: it has no pixels")
    well = pixels[-1] - pixels[0] == len(pixels) - 1
    for kind in (b"IHDR", b"PLTE", b"tRNS"):
        well &= kinds.count(kind) <= 1 and kind not in kinds[pixels[0] :]
    if colour == PALETTE:
        before = kinds[: kinds.index(b"tRNS")] if b"tRNS" in kinds else kinds
        well &= b"PLTE" in before
    if not well:
        raise ImageError("it is damaged: its chunks are not in order")


def _unfiltered(header: _Header, raw: Buffer) -> Pixels:
    """The samples (H, W, C) of the filtered rows *raw*, by libpng."""
    import imagecodecs

    file = Pieces()
    file.write(SIGNATURE)
    put(file, b"IHDR", struct.pack(">IIBBBBB", *header))
    data = deflate.stored(raw)
    for at in range(0, len(data), _MOST):
        put(file, b"IDAT", data[at : at + _MOST])
    put(file, b"IEND", b"")
    try:
        # It takes any buffer, though its types know of fewer.
        pixels = np.asarray(imagecodecs.png_decode(cast(bytes, file.joined())))
    except (imagecodecs.PngError, ValueError) as error:
        raise ImageError("it is damaged: its rows cannot be read") from error
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    shape = header.height, header.width, _CHANNELS[header.colour]
    if pixels.shape != shape or pixels.itemsize != (2 if header.bits == 16 else 1):
        raise ImageError("it is damaged: its rows cannot be read")
    return pixels


def _unpacked(packed: Pixels, header: _Header) -> Pixels:
    """The samples of rows of bytes, several of them in each."""
    bits = header.bits
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    spread = (packed >> shifts) & np.uint8((1 << bits) - 1)
    return np.ascontiguousarray(spread.reshape(len(packed), -1)[:, : header.width, None])


def _expanded(indices: Pixels, palette: Buffer, clear: Buffer | None) -> Pixels:
    """RGB, or RGBA where *clear* has the alpha of the first entries of the *palette*."""
    count = len(palette) // 3
    if len(palette) % 3 or not 1 <= count <= 256 or (clear is not None and len(clear) > count):
        raise ImageError("it is damaged: its palette has a wrong length")
    if indices.max() >= count:
        raise ImageError(f"it is damaged: a pixel is past the {count} colours of its palette")
    colours = np.frombuffer(palette, np.uint8).reshape(count, 3)
    if clear is not None:
        alpha = np.full((count, 1), 255, np.uint8)
        alpha[: len(clear), 0] = np.frombuffer(clear, np.uint8)
        colours = np.concatenate([colours, alpha], axis=1)
    return np.ascontiguousarray(colours[indices[..., 0]])


def _with_alpha(pixels: Pixels, stored: Pixels, bits: int, clear: Buffer) -> Pixels:
    """*pixels* with alpha: none where the *stored* samples are those of *clear*, else full."""
    if len(clear) != 2 * stored.shape[2]:
        raise ImageError("it is damaged: its transparent colour has a wrong length")
    # The specification: only as many low bits count as the samples have.
    key = (np.frombuffer(clear, ">u2") & ((1 << bits) - 1)).astype(stored.dtype)
    opaque = np.any(stored != key, axis=2, keepdims=True)
    full = np.array(full_scale(pixels.dtype), pixels.dtype)
    return np.concatenate([pixels, np.where(opaque, full, full * 0)], axis=2)


def create(target: Sink, header: Header, ways: Ways) -> Writer:
    """Write uint8 or uint16 pixels; 2 or 4 channels are read with alpha."""
    if header.frames > 1:
        from cudafilter.formats import apng

        return apng.ApngWriter(target, header, partial(PngWriter, ways=ways))
    return PngWriter(target, header, ways)
