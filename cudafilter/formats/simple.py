"""WebP, BMP, PNM and GIF: Pillow does nearly all of it."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats import ifd
from cudafilter.formats.limits import Limits
from cudafilter.formats.metadata import EXIF_MARK, Decoded, Metadata, Resolution
from cudafilter.formats.pillow import open_pillow, pixels_of, save_pillow
from cudafilter.formats.table import Ways
from cudafilter.pixels import Pixels

WEBP_MAX_SIDE = 16383
_BMP_V5_HEADER, _EMBEDDED = 124, b"DEBM"
_INCH = Fraction(254, 10000)


def read_webp(data: bytes, limits: Limits) -> Decoded:
    """Decode a still WebP: RGB or RGBA."""
    image = open_pillow(data, "WEBP", limits)
    pixels, alpha, notes = pixels_of(image)
    exif = image.info.get("exif") or None
    if exif:
        exif = exif.removeprefix(EXIF_MARK)
    found = ifd.resolution(exif)
    metadata = Metadata(
        image.info.get("icc_profile") or None,
        exif,
        image.info.get("xmp") or None,
        Resolution(*found) if found else None,
    )
    return Decoded(pixels, alpha, metadata, tuple(notes))


def write_webp(pixels: Pixels, metadata: Metadata, ways: Ways) -> bytes:
    """Encode uint8 *pixels*: lossless unless a quality is given. Gray becomes RGB."""
    height, width, _ = pixels.shape
    if max(height, width) > WEBP_MAX_SIDE:
        raise ImageError(
            f"{width} x {height} pixels are more than the {WEBP_MAX_SIDE} a side that WebP holds",
            hint="choose .png or .tif",
        )
    options: dict[str, Any] = {"lossless": ways.quality is None}
    if ways.quality is not None:
        options["quality"] = ways.quality
    # exact keeps the colour of transparent pixels.
    return save_pillow(
        pixels,
        "WEBP",
        exact=True,
        icc_profile=metadata.icc or b"",
        exif=metadata.exif or b"",
        xmp=metadata.xmp or b"",
        **options,
    )


def read_bmp(data: bytes, limits: Limits) -> Decoded:
    """Decode a BMP: gray, RGB or RGBA."""
    image = open_pillow(data, "BMP", limits)
    pixels, alpha, notes = pixels_of(image)
    icc = None
    if int.from_bytes(data[14:18], "little") == _BMP_V5_HEADER and data[70:74] == _EMBEDDED:
        start = 14 + int.from_bytes(data[126:130], "little")
        icc = data[start : start + int.from_bytes(data[130:134], "little")] or None
    x, y = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (38, 42))
    known = int.from_bytes(data[14:18], "little") >= 40 and x > 0 and y > 0
    resolution = Resolution(Fraction(x), Fraction(y), "metre") if known else None
    return Decoded(pixels, alpha, Metadata(icc, resolution=resolution), tuple(notes))


def write_bmp(pixels: Pixels, metadata: Metadata, ways: Ways) -> bytes:
    """Encode uint8 gray or RGB *pixels*."""
    data = bytearray(save_pillow(pixels, "BMP", dpi=(0, 0)))
    if metadata.resolution and metadata.resolution.unit:
        for at, value in zip((38, 42), metadata.resolution.per("metre"), strict=True):
            data[at : at + 4] = round(value).to_bytes(4, "little")
    return bytes(data)


def read_gif(data: bytes, limits: Limits) -> Decoded:
    """Decode a still GIF: gray, RGB or RGBA."""
    image = open_pillow(data, "GIF", limits)
    pixels, alpha, notes = pixels_of(image)
    comment = image.info.get("comment")
    return Decoded(pixels, alpha, Metadata(comments=(comment,) if comment else ()), tuple(notes))


_PNM_FIELD = rb"(?:\s|#[^\n]*\n)+(\d+)"
_PNM_HEADER = re.compile(rb"P([2356])" + _PNM_FIELD * 3)


def read_pnm(data: bytes, limits: Limits) -> Decoded:
    """Decode PBM, PGM or PPM, plain or raw: gray or RGB of 8 or 16 bits.

    Samples whose greatest value is neither 255 nor 65535 are scaled to the full range, which is
    reversible.
    """
    header = _PNM_HEADER.match(data)
    width, height, maximum = map(int, header.groups()[1:]) if header else (0, 0, 255)
    notes = []
    if maximum not in (255, 65535):
        notes.append(f"samples scaled from 0..{maximum} to {16 if maximum > 255 else 8} bits")
    if header is None or maximum <= 255:
        pixels, alpha, more = pixels_of(open_pillow(data, "PPM", limits))
        return Decoded(pixels, alpha, Metadata(), (*notes, *more))
    if maximum > 65535:
        raise ImageError(f"its greatest value {maximum} is past 65535")
    kind = header.group(1)
    channels = 3 if kind in b"36" else 1
    limits.require_size(width, height)
    count = width * height * channels
    body = data[header.end() :]
    if kind in b"56":
        if len(body) < 1 + 2 * count or not count:
            raise ImageError("it is cut short")
        raw = np.frombuffer(body, ">u2", count, 1).astype(np.uint32)
    else:
        words = re.sub(rb"#[^\n]*", b"", body).split(maxsplit=count)[:count]
        if len(words) < count or not count:
            raise ImageError("it is cut short")
        raw = np.array(words, np.uint32)
    if raw.max() > maximum:
        raise ImageError(f"a sample is past the greatest value {maximum} that it declares")
    scaled = (raw * 65535 + maximum // 2) // maximum
    pixels = scaled.astype(np.uint16).reshape(height, width, channels)
    return Decoded(pixels, False, Metadata(), tuple(notes))


def write_pnm(pixels: Pixels, metadata: Metadata, ways: Ways) -> bytes:
    """Encode gray (P5) or RGB (P6) *pixels* of 8 or 16 bits."""
    height, width, channels = pixels.shape
    kind, maximum = (5 if channels == 1 else 6), np.iinfo(pixels.dtype).max
    body = pixels.astype(pixels.dtype.newbyteorder(">"), copy=False).tobytes()
    return f"P{kind}\n{width} {height}\n{maximum}\n".encode() + body
