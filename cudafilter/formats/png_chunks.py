"""PNG's chunks: read, written, and which of them travel with a picture.

Kept: iCCP, eXIf, pHYs, text, gAMA, cHRM, sRGB, cICP, mDCV, cLLI, bKGD, sCAL, pCAL, sTER, and chunks
that the PNG specification calls safe to copy. Others tell of the file as it was (tIME, sBIT, hIST,
sPLT) or of what nobody here knows: they are named and left out.
"""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from typing import NamedTuple

from cudafilter.errors import ImageError
from cudafilter.formats import deflate
from cudafilter.formats.limits import MAX_METADATA, require_entries
from cudafilter.formats.metadata import EXIF_MARK, Metadata, Resolution
from cudafilter.formats.table import FORMATS
from cudafilter.stores.buffers import Buffer, Sink, Source, part

_HEAD = struct.Struct(">I4s")
(SIGNATURE,) = FORMATS["png"].starts
GRAY, RGB, PALETTE = 0, 2, 3
"""PNG's colour types that more than one module asks for."""
_SMALL = 1 << 16
"""Bytes of a small chunk. libpng writes 8 KiB, so there are thousands of them."""
_PIECE, _SMALL_PIECE = 1 << 20, 5 << 10
"""Bytes of a chunk whose checksum is found at a time. For more than 5 KiB ISA-L gives the
interpreter's lock away, and to get it back takes longer than a small chunk's checksum: threads that
read PNGs waited for each other most of the time."""
MOVING = {b"acTL", b"fcTL", b"fdAT"}
"""What makes an animation."""
PICTURE = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}
_HOLDING = {
    b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"bKGD", b"sCAL", b"pCAL", b"sTER",
}  # fmt: skip
"""Chunks that hold for the result, though the specification does not call them safe to copy."""
_XMP = b"XML:com.adobe.xmp"
_ONCE = {b"iCCP", b"eXIf", b"pHYs", _XMP}
"""Of these the first counts."""


Chunk = tuple[bytes, Buffer]


class Chunks(NamedTuple):
    """A file's chunks."""

    found: list[Chunk]
    """Type and data of each, to IEND; without the data of IDAT and fdAT."""
    spans: list[range]
    """Where the data of each IDAT lie."""
    more: list[range]
    """Where those of each fdAT lie."""
    end: int
    """Where IEND ends."""


def chunks_of(source: Source) -> Chunks:
    """All chunks. Raises ImageError for a cut or damaged one: all checksums are looked at."""
    found: list[Chunk] = []
    places: dict[bytes, list[range]] = {b"IDAT": [], b"fdAT": []}
    at = len(SIGNATURE)
    while at + 12 <= len(source):
        length, kind = _HEAD.unpack(source[at : at + 8])
        span = range(at + 8, at + 8 + length)
        crc = source[span.stop : span.stop + 4]
        if len(crc) < 4:
            break
        if not kind.isalpha():  # of ASCII, as bytes have it
            raise ImageError("it is damaged: a chunk has no name")
        value, piece = 0, _SMALL_PIECE if length <= _SMALL else _PIECE
        for start in range(at + 4, span.stop, piece):
            value = deflate.crc32(part(source, start, min(start + piece, span.stop)), value)
        if value != int.from_bytes(crc, "big"):
            raise ImageError(f"it is damaged: chunk {kind.decode('latin-1')} fails its checksum")
        if kind in places:
            places[kind].append(span)
            found.append((kind, b""))
        else:
            found.append((kind, part(source, span.start, span.stop)))
        at = span.stop + 4
        if kind == b"IEND":
            return Chunks(found, places[b"IDAT"], places[b"fdAT"], at)
    raise ImageError("it is cut short")


def frames_told(chunks: list[Chunk]) -> int:
    """How many frames a file with *chunks* says to have; 1 for a still picture."""
    told = dict(reversed(chunks)).get(b"acTL", b"")
    return int.from_bytes(told[:4], "big") if len(told) == 8 else 1


def put(target: Sink, kind: bytes, body: Buffer) -> None:
    """Write a chunk."""
    target.write(struct.pack(">I", len(body)) + kind)
    target.write(body)
    target.write(struct.pack(">I", deflate.crc32(body, deflate.crc32(kind))))


def metadata_of(chunks: list[Chunk], colour: int, bits: int) -> tuple[Metadata, list[str]]:
    found = [(kind, bytes(body)) for kind, body in chunks if kind not in PICTURE]
    require_entries(len(found), "chunks")
    kept: list[tuple[bytes, bytes]] = []
    lost: list[str] = []
    notes: list[str] = []
    only: dict[bytes, bytes] = {}
    for kind, body in found:
        name = _XMP if kind == b"iTXt" and body.startswith(_XMP + b"\0") else kind
        stale = kind == b"bKGD" and (bits < 8 or colour == PALETTE)
        if name in _ONCE and name not in only:
            only[name] = body
        elif not stale and (kind in _HOLDING or (kind[0] & kind[3] & 32 and kind not in _ONCE)):
            kept.append((kind, body))
        else:
            lost.append(kind.decode("latin-1"))
    icc = xmp = resolution = cicp = None
    for chunk in kept:
        if chunk[0] == b"cICP" and len(chunk[1]) == 4 and chunk[1][2:] == b"\0\1":
            cicp = chunk[1][0], chunk[1][1]
            kept.remove(chunk)
            break
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
    if b"PLTE" in kinds and colour != PALETTE:
        lost.append("PLTE")
    if b"tRNS" in kinds and colour not in (GRAY, RGB, PALETTE):
        lost.append("tRNS")
    if lost:
        names = ", ".join(sorted(set(lost)))
        notes.append(f"not kept, for they tell of the file as it was or are not known: PNG {names}")
    metadata = Metadata(
        icc, exif, xmp, resolution, png_chunks=tuple(kept), icc_name=icc_name[:79], cicp=cicp
    )
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


def ancillary(metadata: Metadata) -> list[Chunk]:
    """All metadata chunks, which may all stand between IHDR and the pixels."""
    chunks: list[Chunk] = []
    if metadata.icc:
        name = metadata.icc_name or b"ICC Profile"
        chunks.append((b"iCCP", name + b"\0\0" + zlib.compress(metadata.icc)))
    if metadata.cicp and max(metadata.cicp) < 256:
        chunks.append((b"cICP", bytes((*metadata.cicp, 0, 1))))
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
