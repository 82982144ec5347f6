"""JPEG: Pillow codes the pixels; segments are kept as they are."""

from __future__ import annotations

import struct
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from typing import Any

from PIL.Image import Image as PillowImage
from PIL.JpegImagePlugin import get_sampling

from cudafilter.errors import ImageError
from cudafilter.formats import ifd
from cudafilter.formats.metadata import (
    EXIF_MARK,
    XMP_MARK,
    Decoded,
    JpegCoding,
    Metadata,
    Resolution,
)
from cudafilter.formats.pillow import open_pillow, pillow_of, pixels_of
from cudafilter.pixels import Pixels

SIGNATURE = b"\xff\xd8\xff"
DEFAULT_QUALITY = 95
"""For pictures that do not come from a JPEG; those keep their own quantisation tables, and with
them their quality and about their size."""
MAX_SIDE = 65500
_APP0, _APP1, _APP2, _APP14, _COM, _SOS = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE, 0xDA


def _segments(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """All (marker, data) before the first scan, and what follows them; Pillow judges that."""
    found = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == _SOS:
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((marker, data[at + 4 : at + 2 + length]))
        at += 2 + length
    return found, data[at:]


def _joined(segments: list[tuple[int, bytes]]) -> bytes:
    return b"".join(
        struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments
    )


def read(data: bytes) -> Decoded:
    """Decode a JPEG: gray, RGB or CMYK of 8 bits."""
    segments, rest = _segments(data)
    # Only what makes the picture, its profile and the index of further pictures (APP2): damaged
    # metadata is kept as it is and does not keep Pillow from the pixels.
    needed = [s for s in segments if s[0] in (_APP0, _APP2, _APP14) or not _is_note(s[0])]
    image = open_pillow(data[:2] + _joined(needed) + rest, "JPEG")
    pixels, alpha, notes = pixels_of(image)
    if image.format == "MPO":
        extra = getattr(image, "n_frames", 1) - 1
        notes.append(f"{extra} further picture{'s' * (extra != 1)} in the file are not kept")
    tables = getattr(image, "quantization", {})
    coding = JpegCoding(
        tuple(tuple(tables[key]) for key in sorted(tables)),
        max(0, get_sampling(image)),
        bool(image.info.get("progressive")),
    )
    metadata = replace(
        _metadata(segments),
        icc=image.info.get("icc_profile") or None,
        cmyk=image.mode == "CMYK",
        jpeg_coding=coding,
    )
    return Decoded(pixels, alpha, metadata, tuple(notes))


def _is_note(marker: int) -> bool:
    """Whether a segment is a comment or an application's, no part of the coding."""
    return _APP0 <= marker <= 0xEF or marker == _COM


def _metadata(segments: list[tuple[int, bytes]]) -> Metadata:
    """What the segments hold; Pillow puts the ICC profile's parts together."""
    exif = xmp = resolution = None
    comments, others = [], []
    for marker, body in segments:
        if marker == _APP0 and body.startswith(b"JFIF\0") and len(body) >= 12:
            unit, x, y = struct.unpack_from(">BHH", body, 7)
            # Pillow and others write the ratio 1:1 for "not known".
            if unit in (0, 1, 2) and x and y and (unit or x != y):
                resolution = Resolution(Fraction(x), Fraction(y), ("", "inch", "cm")[unit])
        elif marker == _APP1 and body.startswith(EXIF_MARK) and exif is None:
            exif = body[len(EXIF_MARK) :]
        elif marker == _APP1 and body.startswith(XMP_MARK) and xmp is None:
            xmp = body[len(XMP_MARK) :]
        elif marker == _COM:
            comments.append(body)
        elif marker == _APP2 and body.startswith((b"ICC_PROFILE\0", b"MPF\0")):
            pass  # Pillow reads the profile; MPF is the index of pictures that are not kept
        elif _APP1 <= marker <= 0xEF and not (marker == _APP14 and body.startswith(b"Adobe")):
            others.append((marker, body))
    if resolution is None and (found := ifd.resolution(exif)):
        resolution = Resolution(*found)
    return Metadata(
        exif=exif,
        xmp=xmp,
        resolution=resolution,
        comments=tuple(comments),
        jpeg_segments=tuple(others),
    )


def write(pixels: Pixels, metadata: Metadata, quality: int | None = None) -> bytes:
    """Encode uint8 gray, RGB or CMYK *pixels*.

    *quality* is 1..100. Subsampling and progressive coding are those of the source where it was
    a JPEG, and else 4:4:4 and sequential.
    """
    height, width, _ = pixels.shape
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"{width} x {height} pixels are more than the {MAX_SIDE} a side that JPEG holds",
            hint="choose .png or .tif",
        )
    coding = metadata.jpeg_coding
    options: dict[str, Any] = {"subsampling": coding.subsampling if coding else 0}
    if quality is None and coding and coding.tables:
        options["qtables"] = [list(table) for table in coding.tables[:4]]
    else:
        options["quality"] = DEFAULT_QUALITY if quality is None else quality
    if pixels.shape[2] == 1:
        del options["subsampling"]
        options["qtables"] = options.get("qtables", [])[:1] or None
    if metadata.icc:
        options["icc_profile"] = metadata.icc
    image = pillow_of(pixels, metadata.cmyk)
    try:
        progressive = bool(coding and coding.progressive)
        data = _encoded(image, progressive=progressive, **options)
    except OSError:
        # Pillow's buffer for a progressive file is too small for noise at the finest quality.
        # A sequential file decodes to the same pixels.
        data = _encoded(image, progressive=False, **options)
    return _with_segments(data, _written(metadata))


def _encoded(image: PillowImage, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def _written(metadata: Metadata) -> bytes:
    """JFIF and all kept segments but the ICC profile's, which Pillow cuts to size."""
    unit, x, y = 0, 1, 1
    if metadata.resolution:
        named = metadata.resolution.unit
        exact = metadata.resolution.per("inch" if named == "metre" else named or "inch")
        unit = {"": 0, "cm": 2}.get(named, 1)
        x, y = (min(65535, max(1, round(value))) for value in exact)
    segments = [(_APP0, struct.pack(">5sHBHHBB", b"JFIF\0", 0x0102, unit, x, y, 0, 0))]
    if metadata.exif:
        segments.append((_APP1, EXIF_MARK + metadata.exif))
    if metadata.xmp:
        segments.append((_APP1, XMP_MARK + metadata.xmp))
    segments += metadata.jpeg_segments
    segments += [(_COM, comment) for comment in metadata.comments]
    return _joined(segments)


def _with_segments(data: bytes, segments: bytes) -> bytes:
    """*segments* at the head of the encoded *data*, in place of its JFIF segment."""
    rest = data[2:]
    if rest[:2] == b"\xff\xe0":
        rest = rest[2 + int.from_bytes(rest[2:4], "big") :]
    return data[:2] + segments + rest
