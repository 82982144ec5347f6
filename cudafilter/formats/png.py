"""PNG: chunks are kept as they are; only pixels are decoded and encoded.

Kept: iCCP, eXIf, pHYs, text, gAMA, cHRM, sRGB, cICP, mDCV, cLLI, and chunks that the PNG
specification calls safe to copy. Not kept, since they tell of the old pixels: tIME, bKGD, sBIT,
hIST, sPLT.
"""

from __future__ import annotations

import functools
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from cudafilter.cores import cores
from cudafilter.errors import ImageError
from cudafilter.formats.metadata import EXIF_MARK, Decoded, Metadata, Resolution
from cudafilter.formats.pillow import (
    decode_deep,
    open_pillow,
    pixels_of,
    refuse_frames,
    require_same_top,
)
from cudafilter.pixels import Pixels, full_scale

SIGNATURE = b"\x89PNG\r\n\x1a\n"
DEFAULT_LEVEL = 1
"""zlib's level. Deflate is most of a job's time: 1 is the fastest that compresses, for files up to
some tenths larger than at 6."""

STRIP = 1 << 20
"""Bytes of filtered rows that are compressed as one."""

WINDOW = 1 << 15
"""Bytes back that deflate can refer to."""

_COLOUR = {b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI"}
_XMP = b"XML:com.adobe.xmp"
_MAX_INFLATED = 1 << 26
"""Bytes past which a compressed profile or XMP packet is taken for a bomb."""

Chunk = tuple[bytes, bytes]


def _chunks(data: bytes) -> list[Chunk]:
    """All chunks (type, data) to IEND; raises ImageError for a cut or damaged one."""
    found: list[Chunk] = []
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        crc = data[at + 8 + length : at + 12 + length]
        if len(crc) < 4:
            break
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(crc, "big"):
            raise ImageError(f"it is damaged: chunk {kind.decode('latin-1')} fails its checksum")
        found.append((kind, body))
        if kind == b"IEND":
            return found
        at += 12 + length
    raise ImageError("it is cut short")


def _join(chunks: list[Chunk]) -> bytes:
    parts = [SIGNATURE]
    for kind, body in chunks:
        crc = zlib.crc32(body, zlib.crc32(kind))
        parts += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", crc)]
    return b"".join(parts)


def read(data: bytes) -> Decoded:
    """Decode a PNG: gray, gray with alpha, RGB or RGBA of 8 or 16 bits."""
    chunks = _chunks(data)
    if chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise ImageError("it is damaged: it does not begin with its size")
    bits, colour = chunks[0][1][8:10]
    first = dict(reversed(chunks))
    if b"acTL" in first and (frames := int.from_bytes(first[b"acTL"][:4], "big")) > 1:
        refuse_frames(frames)
    # Only what makes the picture: decoders then cannot turn, tint or expand it.
    needed = {b"IHDR", b"PLTE", b"IDAT", b"IEND"} | ({b"tRNS"} if colour == 3 else set())
    bare = _join([chunk for chunk in chunks if chunk[0] in needed])
    image = open_pillow(bare, "PNG")
    pixels, alpha, notes = pixels_of(image)
    if bits == 16 and colour != 0:
        deep = decode_deep(bare)
        require_same_top(deep, pixels)
        # OpenCV and Pillow both expand gray with alpha to RGBA.
        pixels = np.ascontiguousarray(deep[..., [0, 3]]) if colour == 4 else deep
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


def _metadata(chunks: list[Chunk]) -> tuple[Metadata, list[str]]:
    icc = exif = xmp = resolution = None
    kept: list[Chunk] = []
    notes = []
    for kind, body in chunks:
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


def write(pixels: Pixels, metadata: Metadata, level: int | None = None) -> bytes:
    """Encode uint8 or uint16 *pixels*; 2 or 4 channels are read with alpha.

    Rows are stored as differences from the row above (filter "up"), the cheapest filter that
    helps photos and drawings alike.
    """
    height, width, channels = pixels.shape
    rows = pixels.astype(pixels.dtype.newbyteorder(">"), copy=False)
    samples = rows.reshape(height, -1).view(np.uint8)
    filtered = np.empty((height, samples.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = samples[0]
    np.subtract(samples[1:], samples[:-1], out=filtered[1:, 1:])
    body = compress(filtered.reshape(-1), DEFAULT_LEVEL if level is None else level)
    colour = (0, 4, 2, 6)[channels - 1]
    depth = pixels.dtype.itemsize * 8
    ihdr = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    # A chunk may hold 2**31 - 1 bytes.
    step = 1 << 30
    data = [(b"IDAT", body[at : at + step]) for at in range(0, len(body), step)]
    return _join([(b"IHDR", ihdr), *_ancillary(metadata), *data, (b"IEND", b"")])


def compress(data: npt.NDArray[np.uint8], level: int) -> bytes:
    """One zlib stream (RFC 1950) of the bytes *data*, its strips compressed side by side.

    Each strip starts with the window that the one before leaves, so that little is lost at the
    seams, and ends on a whole byte. Strips depend on the data alone, so the bytes do not depend
    on the core count.
    """
    starts = range(0, max(1, data.size), STRIP)

    def strip(start: int) -> bytes:
        window = data[max(0, start - WINDOW) : start].tobytes()
        deflater = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=window)
        last = start + STRIP >= data.size
        return deflater.compress(data[start : start + STRIP].data) + deflater.flush(
            zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH
        )

    strips = map(strip, starts) if len(starts) == 1 else _compressors().map(strip, starts)
    return b"\x78\x01" + b"".join(strips) + zlib.adler32(data.data).to_bytes(4, "big")


@functools.cache
def _compressors() -> ThreadPoolExecutor:
    """Threads for strips; zlib works without the interpreter's lock."""
    return ThreadPoolExecutor(cores(), thread_name_prefix="deflate")


def _ancillary(metadata: Metadata) -> list[Chunk]:
    """All metadata chunks, which may all stand between IHDR and the pixels."""
    chunks = []
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
