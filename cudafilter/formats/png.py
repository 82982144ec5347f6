"""PNG: chunks are kept as they are; only pixels are decoded and encoded.

Kept: iCCP, eXIf, pHYs, text, gAMA, cHRM, sRGB, cICP, mDCV, cLLI, and chunks that the PNG
specification calls safe to copy. Not kept, since they tell of the old pixels: tIME, bKGD, sBIT,
hIST, sPLT.
"""

from __future__ import annotations

import logging
import struct
import zlib
from fractions import Fraction
from typing import cast

import numpy as np

from cudafilter.cores import each
from cudafilter.errors import ImageError
from cudafilter.formats import deflate
from cudafilter.formats.buffers import Buffer, joined
from cudafilter.formats.limits import Limits, refuse_frames
from cudafilter.formats.metadata import EXIF_MARK, Decoded, Metadata, Resolution
from cudafilter.formats.png_filters import filtered
from cudafilter.formats.table import PNG_SIGNATURE, Ways
from cudafilter.pixels import Pixels, full_scale

SIGNATURE = PNG_SIGNATURE
STRIP = 1 << 20
"""Bytes of filtered rows that are compressed as one."""

_PICTURE = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_COLOUR = {b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI"}
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
"""PNG's colour types, but for the palette."""
_XMP = b"XML:com.adobe.xmp"
_MAX_INFLATED = 1 << 26
"""Bytes past which a compressed profile or XMP packet is taken for a bomb."""

Chunk = tuple[bytes, Buffer]

# What libpng warns of, our own error tells. Without a handler of its own it would go to stderr.
logging.getLogger("imagecodecs").addHandler(logging.NullHandler())


def _chunks(data: bytes) -> list[Chunk]:
    """All chunks (type, data) to IEND; raises ImageError for a cut or damaged one."""
    view = memoryview(data)
    found: list[Chunk] = []
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], view[at + 8 : at + 8 + length]
        crc = data[at + 8 + length : at + 12 + length]
        if len(crc) < 4:
            break
        if deflate.crc32(body, deflate.crc32(kind)) != int.from_bytes(crc, "big"):
            raise ImageError(f"it is damaged: chunk {kind.decode('latin-1')} fails its checksum")
        found.append((kind, body))
        if kind == b"IEND":
            return found
        at += 12 + length
    raise ImageError("it is cut short")


def _file(chunks: list[Chunk]) -> Buffer:
    pieces: list[Buffer] = [SIGNATURE]
    for kind, body in chunks:
        crc = deflate.crc32(body, deflate.crc32(kind))
        pieces += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", crc)]
    return joined(pieces)


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode a PNG: gray, gray with alpha, RGB or RGBA of 8 or 16 bits."""
    chunks = _chunks(data)
    if chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise ImageError("it is damaged: it does not begin with its size")
    width, height, bits, colour = struct.unpack_from(">IIBB", chunks[0][1])
    limits.require_size(width, height)
    first = dict(reversed(chunks))
    if b"acTL" in first and (frames := int.from_bytes(first[b"acTL"][:4], "big")) > 1:
        refuse_frames(frames)
    # Only what makes the picture: decoders then cannot turn, tint or expand it.
    needed = _PICTURE | ({b"tRNS"} if colour == 3 else set())
    kept = [chunk for chunk in chunks if chunk[0] in needed]
    bare = _file(kept) if len(kept) < len(chunks) else data
    notes: list[str] = []
    alpha = colour in (4, 6)
    plain = bits >= 8 and colour in _CHANNELS
    fast = _decoded(bare, (height, width, _CHANNELS[colour]), bits) if plain else None
    if fast is not None:
        pixels = fast
    elif bits == 16 and colour != 0:
        # Pillow cuts 16-bit colour to 8 bits.
        raise ImageError("it is damaged, or too large for 16-bit colour")
    else:  # Pillow tells what is broken from what is merely odd
        pixels, alpha, notes = _read_pillow(bare, limits)
    if b"tRNS" in first and colour in (0, 2):
        key = np.frombuffer(first[b"tRNS"], ">u2").astype(np.int64)
        if bits < 8:
            key *= 255 // ((1 << bits) - 1)
        opaque = np.any(pixels != key, axis=2, keepdims=True)
        full = np.array(full_scale(pixels.dtype), pixels.dtype)
        pixels = np.concatenate([pixels, np.where(opaque, full, full * 0)], axis=2)
        alpha = True
        notes.append("transparent colour expanded to alpha")
    metadata, lost = _metadata(chunks)
    return Decoded(pixels, alpha, metadata, (*notes, *lost))


def _decoded(bare: Buffer, shape: tuple[int, int, int], bits: int) -> Pixels | None:
    """What libpng reads without changing it: 8 or 16 bits and no palette. None for what it finds
    wrong.

    imagecodecs brings it without the interpreter's lock, and half again as fast as OpenCV does.
    """
    import imagecodecs

    try:
        # It takes any buffer, though its types know of fewer.
        pixels = np.asarray(imagecodecs.png_decode(cast(bytes, bare)))
    except (imagecodecs.PngError, ValueError):
        return None
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return pixels if pixels.shape == shape and pixels.itemsize * 8 == bits else None


def _read_pillow(bare: Buffer, limits: Limits) -> tuple[Pixels, bool, list[str]]:
    from cudafilter.formats.pillow import open_pillow, pixels_of

    return pixels_of(open_pillow(bare, "PNG", limits))


def _metadata(chunks: list[Chunk]) -> tuple[Metadata, list[str]]:
    icc = exif = xmp = resolution = None
    kept: list[tuple[bytes, bytes]] = []
    notes = []
    for kind, body in ((kind, bytes(body)) for kind, body in chunks if kind not in _PICTURE):
        if kind == b"iCCP":
            try:
                icc = _inflate(body[body.index(b"\0") + 2 :])
            except (ValueError, zlib.error):
                notes.append("its ICC profile is damaged and is not kept")
        elif kind == b"eXIf":
            exif = body.removeprefix(EXIF_MARK)
        elif kind == b"pHYs" and len(body) == 9:
            x, y, unit = struct.unpack(">IIB", body)
            if x and y:
                resolution = Resolution(Fraction(x), Fraction(y), "metre" if unit == 1 else "")
        elif kind == b"iTXt" and body.startswith(_XMP + b"\0") and xmp is None:
            try:
                xmp = _international(body)
            except (ValueError, zlib.error):
                kept.append((kind, body))
        elif kind in _COLOUR or (kind[0] & kind[3] & 32):
            kept.append((kind, body))
    found = Metadata(icc, exif, xmp, resolution, png_chunks=tuple(kept))
    return found, notes


def _inflate(body: bytes) -> bytes:
    inflater = zlib.decompressobj()
    out = inflater.decompress(body, _MAX_INFLATED)
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
    # A chunk may hold 2**31 - 1 bytes.
    step = 1 << 30
    pieces = _compressed(pixels, level)
    data = [
        (b"IDAT", piece[at : at + step]) for piece in pieces for at in range(0, len(piece), step)
    ]
    return _file([(b"IHDR", ihdr), *_ancillary(metadata), *data, (b"IEND", b"")])


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
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
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
