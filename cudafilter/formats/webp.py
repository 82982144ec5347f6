"""WebP: its chunks are read here, the pixels by Pillow, which is libwebp."""

from __future__ import annotations

import struct
from typing import Any

from cudafilter.errors import ImageError
from cudafilter.formats import ifd
from cudafilter.formats.limits import Extent, Limits, refuse_frames, require_entries
from cudafilter.formats.metadata import EXIF_MARK, Decoded, Metadata, Resolution
from cudafilter.formats.table import Ways
from cudafilter.operations.pixels import Pixels

MAX_SIDE = 16383
_PICTURE = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file; ImageError for a damaged one."""
    kind, body = head[12:16], head[20:30]
    alpha = 0
    if len(body) == 10 and kind == b"VP8X":
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
        alpha = body[0] >> 4 & 1
    elif len(body) == 10 and kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
    elif len(body) >= 5 and kind == b"VP8L" and body[0] == 0x2F:
        sides = int.from_bytes(body[1:5], "little")
        width, height = (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
        alpha = sides >> 28 & 1
    else:
        raise ImageError("it is damaged: it does not begin with its size")
    return Extent(width, height, 3 + alpha, 1)


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode a still WebP: RGB or RGBA."""
    from cudafilter.formats.pillow import open_pillow, pixels_of

    limits.require_size(*extent(data)[:2])
    chunks, end = _chunks(data)
    frames = sum(kind == b"ANMF" for kind, _ in chunks)
    if frames > 1:
        refuse_frames(frames)
    try:
        pixels, alpha, notes = pixels_of(open_pillow(data[:end], "WebP", limits))
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError("it is damaged, or cut short") from error
    first = dict(reversed(chunks))
    exif = first.get(b"EXIF", b"").removeprefix(EXIF_MARK) or None
    found = ifd.resolution(exif)
    metadata = Metadata(
        first.get(b"ICCP") or None,
        exif,
        first.get(b"XMP ") or None,
        Resolution(*found) if found else None,
    )
    known = _PICTURE | {b"ICCP", b"EXIF", b"XMP "}
    others = {kind for kind, _ in chunks} - known
    kinds = [kind for kind, _ in chunks]
    others |= {kind for kind in (b"ICCP", b"EXIF", b"XMP ") if kinds.count(kind) > 1}
    if others:
        names = ", ".join(sorted(kind.decode("latin-1").strip() for kind in others))
        notes.append(f"not kept, for they are not known or there twice: WebP {names}")
    if end < len(data):
        notes.append(f"{len(data) - end:,} bytes after its end are not kept")
    return Decoded(pixels, alpha, metadata, tuple(notes))


def _chunks(data: bytes) -> tuple[list[tuple[bytes, bytes]], int]:
    """All chunks (type, data), and where the file's own size says that it ends."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if len(data) < end:
        raise ImageError("it is cut short")
    found: list[tuple[bytes, bytes]] = []
    at = 12
    while at < end:
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + length > end:
            raise ImageError("it is damaged: a chunk goes past its end")
        found.append((kind, b"" if kind in _PICTURE else data[at + 8 : at + 8 + length]))
        at += 8 + length + (length & 1)
    require_entries(sum(kind not in _PICTURE for kind, _ in found), "chunks")
    return found, max(at, end)


def write(pixels: Pixels, metadata: Metadata, ways: Ways) -> bytes:
    """Encode uint8 *pixels*: lossless unless a quality is given. Gray becomes RGB."""
    from cudafilter.formats.pillow import save_pillow

    height, width, _ = pixels.shape
    if max(height, width) > MAX_SIDE:
        raise ImageError(
            f"{width} x {height} pixels are more than the {MAX_SIDE} a side that WebP holds",
            hint="choose .png or .tif",
        )
    options: dict[str, Any] = {"lossless": ways.quality is None}
    if ways.quality is not None:
        options["quality"] = ways.quality
    # exact keeps the colour of transparent pixels.
    return save_pillow(
        pixels,
        "WebP",
        exact=True,
        icc_profile=metadata.icc or b"",
        exif=metadata.exif or b"",
        xmp=metadata.xmp or b"",
        **options,
    )
