"""PNG: chunks are kept as they are; only pixels are decoded and encoded.

Kept: iCCP, eXIf, pHYs, text, gAMA, cHRM, sRGB, cICP, mDCV, cLLI, bKGD, sCAL, pCAL, sTER, and chunks
that the PNG specification calls safe to copy. Others tell of the file as it was (tIME, sBIT, hIST,
sPLT) or of what nobody here knows: they are named and left out.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple, cast

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats import deflate
from cudafilter.formats.limits import MAX_METADATA, Limits, refuse_frames, require_entries
from cudafilter.formats.metadata import EXIF_MARK, Decoded, Metadata, Resolution
from cudafilter.formats.png_filters import filtered
from cudafilter.formats.table import PNG_SIGNATURE, Ways
from cudafilter.host.cores import each
from cudafilter.operations.pixels import Pixels, full_scale
from cudafilter.stores.buffers import Buffer, joined

SIGNATURE = PNG_SIGNATURE
STRIP = 1 << 20
"""Bytes of filtered rows that one thread compresses at a time."""
MAX_SIDE = 1_000_000
"""libpng reads no longer ones."""

_PICTURE = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}
_HOLDING = {
    b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"bKGD", b"sCAL", b"pCAL", b"sTER",
}  # fmt: skip
"""Chunks that hold for the result, though the specification does not call them safe to copy."""
_GRAY, _RGB, _PALETTE = 0, 2, 3
_CHANNELS = {_GRAY: 1, _RGB: 3, _PALETTE: 1, 4: 2, 6: 4}
"""PNG's colour types -> samples a pixel in the file."""
_DEPTHS = {_GRAY: (1, 2, 4, 8, 16), _RGB: (8, 16), _PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
)  # fmt: skip
"""Adam7's passes: first column, first row, columns and rows apart."""
_XMP = b"XML:com.adobe.xmp"
_ONCE = {b"iCCP", b"eXIf", b"pHYs", _XMP}
"""Of these the first counts."""

Chunk = tuple[bytes, Buffer]

# What libpng warns of, our own error tells. Without a handler of its own it would go to stderr.
logging.getLogger("imagecodecs").addHandler(logging.NullHandler())


def _chunks(data: bytes) -> tuple[list[Chunk], int]:
    """All chunks (type, data) to IEND, and where that ends.

    Raises ImageError for a cut or damaged one.
    """
    view = memoryview(data)
    found: list[Chunk] = []
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], view[at + 8 : at + 8 + length]
        crc = data[at + 8 + length : at + 12 + length]
        if len(crc) < 4:
            break
        if not kind.isalpha():  # of ASCII, as bytes have it
            raise ImageError("it is damaged: a chunk has no name")
        if deflate.crc32(body, deflate.crc32(kind)) != int.from_bytes(crc, "big"):
            raise ImageError(f"it is damaged: chunk {kind.decode('latin-1')} fails its checksum")
        found.append((kind, body))
        at += 12 + length
        if kind == b"IEND":
            return found, at
    raise ImageError("it is cut short")


def _file(chunks: list[Chunk]) -> Buffer:
    pieces: list[Buffer] = [SIGNATURE]
    for kind, body in chunks:
        crc = deflate.crc32(body, deflate.crc32(kind))
        pieces += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", crc)]
    return joined(pieces)


class _Header(NamedTuple):
    """What IHDR says."""

    width: int
    height: int
    bits: int
    colour: int
    compression: int
    filtering: int
    interlaced: int

    @property
    def size(self) -> int:
        """Bytes of the filtered rows, before compression."""
        pixel = self.bits * _CHANNELS[self.colour]

        def rows(width: int, height: int) -> int:
            return height * (1 + -(-width * pixel // 8)) if width and height else 0

        if not self.interlaced:
            return rows(self.width, self.height)
        return sum(
            rows(-(-max(0, self.width - x) // across), -(-max(0, self.height - y) // down))
            for x, y, across, down in _PASSES
        )


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode a PNG: gray, gray with alpha, RGB or RGBA of 8 or 16 bits."""
    chunks, end = _chunks(data)
    header = _header(chunks)
    first = dict(reversed(chunks))
    if b"acTL" in first and (frames := int.from_bytes(first[b"acTL"][:4], "big")) > 1:
        refuse_frames(frames)
    colour, bits = header.colour, header.bits
    clear = first.get(b"tRNS")
    channels = 3 + (clear is not None) if colour == _PALETTE else _CHANNELS[colour]
    limits.require_size(header.width, header.height, channels * (1 + (bits > 8)))
    _require_order([kind for kind, _ in chunks], colour)
    stored, surplus = _stored(header, chunks)
    notes = [f"{surplus} bytes after the end of its pixels are not kept"] * bool(surplus)
    alpha = colour in (4, 6)
    if colour == _PALETTE:
        pixels = _expanded(stored, first[b"PLTE"], clear)
        alpha = clear is not None
        notes.append(f"palette expanded to {'RGBA' if alpha else 'RGB'}")
    else:
        pixels = stored
        if bits < 8:
            pixels = pixels * np.uint8(255 // ((1 << bits) - 1))
            notes.append(f"{bits}-bit expanded to 8-bit gray")
        if clear is not None and not alpha:
            pixels = _with_alpha(pixels, stored, bits, clear)
            alpha = True
            notes.append("transparent colour expanded to alpha")
    metadata, lost = _metadata(chunks, colour, bits)
    if end < len(data):
        lost.append(f"{len(data) - end:,} bytes after its end are not kept")
    return Decoded(pixels, alpha, metadata, (*notes, *lost))


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
    critical = {kind for kind in kinds if not kind[0] & 32} - _PICTURE
    if critical:
        name = critical.pop().decode("latin-1")
        raise ImageError(f"it needs chunk {name}, which is not of the PNG standard")
    pixels = [at for at, kind in enumerate(kinds) if kind == b"IDAT"]
    if not pixels:
        raise ImageError("it is damaged: it has no pixels")
    well = pixels[-1] - pixels[0] == len(pixels) - 1
    for kind in (b"IHDR", b"PLTE", b"tRNS"):
        well &= kinds.count(kind) <= 1 and kind not in kinds[pixels[0] :]
    if colour == _PALETTE:
        before = kinds[: kinds.index(b"tRNS")] if b"tRNS" in kinds else kinds
        well &= b"PLTE" in before
    if not well:
        raise ImageError("it is damaged: its chunks are not in order")


def _stored(header: _Header, chunks: list[Chunk]) -> tuple[Pixels, int]:
    """The samples as they are stored, (H, W, C), those below 8 bits too, and the bytes after them.

    The data are inflated here, for libpng believes data without an end or with a wrong checksum.
    It only undoes filters and interlacing. It would expand a palette, so it takes that for gray.
    """
    import imagecodecs

    pieces = [body for kind, body in chunks if kind == b"IDAT"]
    raw, surplus = deflate.inflated(pieces[0] if len(pieces) == 1 else joined(pieces), header.size)
    colour = _GRAY if header.colour == _PALETTE else header.colour
    ihdr = struct.pack(">IIBBBBB", *header._replace(colour=colour))
    file = _file([(b"IHDR", ihdr), *_data([deflate.stored(raw)]), (b"IEND", b"")])
    del raw
    try:
        # It takes any buffer, though its types know of fewer.
        pixels = np.asarray(imagecodecs.png_decode(cast(bytes, file)))
    except (imagecodecs.PngError, ValueError) as error:
        raise ImageError("it is damaged: its rows cannot be read") from error
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    shape = header.height, header.width, _CHANNELS[colour]
    if pixels.shape != shape or pixels.itemsize != (2 if header.bits == 16 else 1):
        raise ImageError("it is damaged: its rows cannot be read")
    if header.bits < 8:  # libpng spreads them over 0 to 255
        pixels //= np.uint8(255 // ((1 << header.bits) - 1))
    return pixels, surplus


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


def _metadata(chunks: list[Chunk], colour: int, bits: int) -> tuple[Metadata, list[str]]:
    found = [(kind, bytes(body)) for kind, body in chunks if kind not in _PICTURE]
    require_entries(len(found), "chunks")
    kept: list[tuple[bytes, bytes]] = []
    lost: list[str] = []
    notes: list[str] = []
    only: dict[bytes, bytes] = {}
    for kind, body in found:
        name = _XMP if kind == b"iTXt" and body.startswith(_XMP + b"\0") else kind
        stale = kind == b"bKGD" and (bits < 8 or colour == _PALETTE)
        if name in _ONCE and name not in only:
            only[name] = body
        elif not stale and (kind in _HOLDING or (kind[0] & kind[3] & 32 and kind not in _ONCE)):
            kept.append((kind, body))
        else:
            lost.append(kind.decode("latin-1"))
    icc = xmp = resolution = None
    icc_name, _, packed = only.get(b"iCCP", b"").partition(b"\0")
    try:
        icc = _inflate(packed[1:]) if b"iCCP" in only else None
    except (ValueError, zlib.error):
        notes.append("its ICC profile is damaged and is not kept")
    try:
        xmp = _international(only[_XMP]) if _XMP in only else None
    except (ValueError, IndexError, zlib.error):
        kept.append((b"iTXt", only[_XMP]))
    exif = only[b"eXIf"].removeprefix(EXIF_MARK) if b"eXIf" in only else None
    dots = only.get(b"pHYs", b"")
    x, y, unit = struct.unpack(">IIB", dots) if len(dots) == 9 else (0, 0, 0)
    if x and y:
        resolution = Resolution(Fraction(x), Fraction(y), "metre" if unit == 1 else "")
    elif b"pHYs" in only:
        lost.append("pHYs")
    kinds = {kind for kind, _ in chunks}
    if b"PLTE" in kinds and colour != _PALETTE:
        lost.append("PLTE")
    if b"tRNS" in kinds and colour not in (_GRAY, _RGB, _PALETTE):
        lost.append("tRNS")
    if lost:
        names = ", ".join(sorted(set(lost)))
        notes.append(f"not kept, for they tell of the file as it was or are not known: PNG {names}")
    metadata = Metadata(icc, exif, xmp, resolution, png_chunks=tuple(kept), icc_name=icc_name[:79])
    return metadata, notes


def _inflate(body: bytes) -> bytes:
    inflater = zlib.decompressobj()
    out = inflater.decompress(body, MAX_METADATA)
    if not inflater.eof:
        raise ValueError("cut short or too large")
    return out


def _international(body: bytes) -> bytes:
    """The text of an iTXt chunk: keyword 0 compressed method language 0 translated 0 text."""
    at = body.index(b"\0") + 1
    compressed = body[at]
    text = body[at + 2 :].split(b"\0", 2)[2]
    return _inflate(text) if compressed else text


def write(pixels: Pixels, metadata: Metadata, ways: Ways) -> Buffer:
    """Encode uint8 or uint16 *pixels*; 2 or 4 channels are read with alpha."""
    height, width, channels = pixels.shape
    level = deflate.DEFAULT_LEVEL if ways.compress_level is None else ways.compress_level
    colour = (0, 4, 2, 6)[channels - 1]
    depth = pixels.dtype.itemsize * 8
    ihdr = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = _data(_compressed(pixels, level))
    return _file([(b"IHDR", ihdr), *_ancillary(metadata), *data, (b"IEND", b"")])


def _data(pieces: Sequence[Buffer]) -> list[Chunk]:
    """The chunks of a zlib stream in *pieces*. One may hold 2**31 - 1 bytes."""
    step = 1 << 30
    return [
        (b"IDAT", piece[at : at + step]) for piece in pieces for at in range(0, len(piece), step)
    ]


def _compressed(pixels: Pixels, level: int) -> list[bytes]:
    """The filtered rows of *pixels* as one zlib stream, made strip by strip, a piece each."""
    height = len(pixels)
    row = 1 + pixels[0].nbytes
    step = max(1, STRIP // row)
    halo = -(-deflate.WINDOW // row)

    def strip(start: int) -> deflate.Part:
        stop, top = min(start + step, height), max(0, start - halo)
        rows = filtered(pixels, top, stop, level).reshape(-1).data
        at = (start - top) * row
        window = rows[max(0, at - deflate.WINDOW) : at]
        return deflate.part(rows[at:], window, level, last=stop == height)

    return deflate.pieces(each(strip, range(0, height, step)))


def _ancillary(metadata: Metadata) -> list[Chunk]:
    """All metadata chunks, which may all stand between IHDR and the pixels."""
    chunks: list[Chunk] = []
    if metadata.icc:
        name = metadata.icc_name or b"ICC Profile"
        chunks.append((b"iCCP", name + b"\0\0" + zlib.compress(metadata.icc)))
    if metadata.resolution:
        x, y = metadata.resolution.per("metre")
        unit = 1 if metadata.resolution.unit else 0
        if not unit:
            # A bare ratio must be in whole numbers.
            x, y = Fraction(x.numerator * y.denominator), Fraction(y.numerator * x.denominator)
        chunks.append((b"pHYs", struct.pack(">IIB", round(x), round(y), unit)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif))
    if metadata.xmp:
        chunks.append((b"iTXt", _XMP + b"\0\0\0\0\0" + metadata.xmp))
    return chunks + list(metadata.png_chunks)
