"""TIFF: 8-bit is decoded by Pillow, 16-bit and float colour by OpenCV; written here.

Neither library writes 16-bit colour with a profile and EXIF, and typed tag readers change text
and rationals, so files are laid out here: one image, strips, deflate.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from cudafilter.cores import each
from cudafilter.errors import ImageError
from cudafilter.formats import deflate, ifd
from cudafilter.formats.ifd import Entry
from cudafilter.formats.limits import Limits, refuse_frames
from cudafilter.formats.metadata import Decoded, Metadata, Resolution
from cudafilter.formats.pillow import decode_deep, open_pillow, pixels_of, require_same_top
from cudafilter.formats.table import Ways
from cudafilter.pixels import Pixels, full_scale

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _SUB_IFDS, _EXTRA, _FORMAT = 317, 322, 330, 338, 339
_XMP, _ICC, _LAYERS = 700, 34675, 37724
_DEFLATE, _OLD_DEFLATE = 8, 32946
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_INVERTED, _GRAY, _RGB, _PALETTE, _CMYK = 0, 1, 2, 3, 5

_LAYOUT = frozenset(
    {*range(254, 260), *range(262, 267), 273, 277, 278, 279, 280, 281, 284, *range(288, 294), 297}
    | {317, *range(320, 326), *range(326, 329), 330, 332, 334, 336, 337, 338, 339, 340, 341}
    | {*range(343, 348), *range(512, 522), 529, 530, 531, 532, 559, _XMP, _ICC, _LAYERS}
)
"""Tags that tell how pixels are stored, or (_LAYERS) Photoshop's layers of the old pixels."""
_RESOLUTION = frozenset({ifd.X_RESOLUTION, ifd.Y_RESOLUTION, ifd.RESOLUTION_UNIT})
_EXIF_PRIVATE = frozenset({33432, 34665, 34853})
"""Tags past 32767 that EXIF knows in its first IFD: copyright, EXIF, GPS."""

_STRIP_SIZE = 1 << 20
_MAX_SIZE = (1 << 32) - 1


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode a TIFF of one picture: gray, RGB (with alpha or not) or CMYK.

    Pixels stay as they are stored, whatever the orientation tag says.
    """
    order, offset, big = ifd.header(data)
    tags, following = ifd.read(data, order, offset, big)
    if following:
        refuse_frames(_count(data, order, offset, big))
    if _SUB_IFDS in tags or ifd.number(tags, 254, order, 0) & 1:
        raise ImageError(
            "its main picture is only a preview, or it holds further pictures (as raw photos do)",
            hint="develop or convert it first",
        )

    def tag(number: int, default: int) -> int:
        return ifd.number(tags, number, order, default)

    width, height, samples = tag(_WIDTH, 0), tag(_HEIGHT, 0), tag(_SAMPLES, 1)
    limits.require_size(width, height)
    bits = set(ifd.numbers(tags, _BITS, order) or (1,))
    kind, photometric = tag(_FORMAT, _UNSIGNED), tag(_PHOTOMETRIC, _GRAY)
    extra = ifd.numbers(tags, _EXTRA, order)
    if len(bits) > 1 or not bits <= {1, 2, 4, 8, 16, 32}:
        listed = ", ".join(map(str, sorted(bits)))
        raise ImageError(f"samples of {listed} bits are not supported")
    depth = bits.pop()
    if kind == _SIGNED and depth == 8:
        raise ImageError("signed 8-bit samples are not supported")
    if extra and (len(extra) > 1 or extra[0] == 0):
        raise ImageError(
            "it has extra channels that are no alpha", hint="save it without them first"
        )
    premultiplied = extra[:1] == (1,)
    notes: list[str] = []
    data = _bare(data, order, tags)
    if depth > 8 and samples > 1:
        if photometric not in (_GRAY, _RGB):
            raise ImageError(f"{depth}-bit samples are supported in gray and RGB alone")
        pixels = _read_deep(data, order, tags, samples, (height, width))
        alpha = samples in (2, 4)
        if alpha and premultiplied:
            pixels = _unpremultiplied(pixels)
        elif depth == 16 and samples > 2:
            shallow, _, _ = pixels_of(open_pillow(data, "TIFF", limits))
            require_same_top(pixels, shallow)
    else:
        pixels, alpha, notes = pixels_of(open_pillow(data, "TIFF", limits))
        if pixels.shape != (height, width, pixels.shape[2] if photometric == _PALETTE else samples):
            raise ImageError("its channels are stored in a way that cannot be read exactly")
        if photometric == _INVERTED and depth > 8:
            if pixels.dtype != np.uint16 or kind != _UNSIGNED:
                raise ImageError("white-is-zero samples of this type are not supported")
            pixels = 65535 - pixels
    if alpha and premultiplied:
        notes.append("premultiplied alpha stored as straight")
    metadata = _metadata(tags, order, photometric == _CMYK)
    return Decoded(pixels, alpha, metadata, tuple(notes))


def _count(data: bytes, order: str, offset: int, big: bool) -> int:
    """How many IFDs follow each other from *offset*; a loop counts once."""
    seen: set[int] = set()
    while offset and offset not in seen:
        seen.add(offset)
        try:
            _, offset = ifd.read(data, order, offset, big)
        except ifd.BrokenIfd:
            break
    return len(seen)


def _bare(data: bytes, order: str, tags: Mapping[int, Entry]) -> bytes:
    """*data* as a classic TIFF with a new IFD of nothing but what makes the picture.

    Decoders then cannot turn pixels by their orientation, warn of tags, or trip over EXIF.
    """
    kept = {}
    for tag in tags.keys() & _LAYOUT - {_XMP, _ICC, _LAYERS}:
        # BigTIFF's 64-bit offsets fit in 32 bits here.
        values = ifd.numbers(tags, tag, order) if tags[tag].type == ifd.LONG8 else ()
        kept[tag] = ifd.longs(order, *values) if values else tags[tag]
    end = len(data) + len(data) % 2
    directory = ifd.write(kept, order, end)
    if end + len(directory) > _MAX_SIZE:
        raise ImageError("files of more than 4 GiB are not read")
    head = data[:2] + struct.pack(order + "HI", 42, end)
    return b"".join([head, data[8:], b"\0" * (len(data) % 2), directory])


def _unpremultiplied(pixels: Pixels) -> Pixels:
    """Straight alpha from premultiplied, rounded to nearest; transparent colour becomes 0."""
    full = full_scale(pixels.dtype)
    exact = pixels.astype(np.float64)
    alphas = exact[..., -1:]
    visible = alphas > 0
    colour = np.where(visible, exact[..., :-1] * full / np.where(visible, alphas, 1), 0)
    if pixels.dtype.kind == "u":
        colour = np.minimum(np.rint(colour), full)
    return np.concatenate([colour.astype(pixels.dtype), pixels[..., -1:]], axis=2)


def _read_deep(
    data: bytes, order: str, tags: Mapping[int, Entry], samples: int, size: tuple[int, int]
) -> Pixels:
    """16-bit or float samples of 2, 3 or 4 channels, as stored."""
    pixels = decode_deep(data) if samples > 2 else _read_strips(data, order, tags, samples, size)
    if pixels.shape != (*size, samples) or pixels.dtype.name not in ("uint16", "float32"):
        raise ImageError("its samples are stored in a way that cannot be read exactly")
    return pixels


def _read_strips(
    data: bytes, order: str, tags: Mapping[int, Entry], samples: int, size: tuple[int, int]
) -> Pixels:
    """Strips of interleaved samples, plain or deflated: deep gray with alpha, which no library
    reads."""
    compression = ifd.number(tags, _COMPRESSION, order, 1)
    predictor = ifd.number(tags, _PREDICTOR, order, 1)
    code = {(16, _UNSIGNED): "u2", (32, _FLOAT): "f4"}.get(
        (ifd.number(tags, _BITS, order, 1), ifd.number(tags, _FORMAT, order, _UNSIGNED))
    )
    if (
        code is None
        or compression not in (1, _DEFLATE, _OLD_DEFLATE)
        or predictor not in (1, 2)
        or (predictor == 2 and code == "f4")
        or ifd.number(tags, _PLANAR, order, 1) != 1
        or _TILE_WIDTH in tags
    ):
        raise ImageError(
            "16-bit or float gray with alpha is read from plain or deflated strips alone"
        )
    height, width = size
    limit = height * width * samples * int(code[1])
    parts = []
    offsets = ifd.numbers(tags, _STRIP_OFFSETS, order)
    for at, length in zip(offsets, ifd.numbers(tags, _STRIP_BYTES, order), strict=True):
        strip = data[at : at + length]
        parts.append(strip if compression == 1 else zlib.decompressobj().decompress(strip, limit))
    body = b"".join(parts)
    if len(body) != limit:
        raise ImageError("it is cut short")
    pixels = np.frombuffer(body, order + code).reshape(height, width, samples)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    return np.cumsum(pixels, axis=1, dtype=pixels.dtype) if predictor == 2 else pixels


def _metadata(tags: Mapping[int, Entry], order: str, cmyk: bool) -> Metadata:
    kept = {tag: entry for tag, entry in tags.items() if tag not in _LAYOUT}
    exif = {tag: e for tag, e in kept.items() if tag < 32768 or tag in _EXIF_PRIVATE}
    private = {tag: entry for tag, entry in kept.items() if tag not in exif}
    blob = ifd.blob(exif, order) if exif.keys() - _RESOLUTION else None
    found = ifd.resolution(ifd.blob(exif, order))

    def raw(tag: int) -> bytes | None:
        value = tags[tag].value if tag in tags else None
        return value if isinstance(value, bytes) else None

    return Metadata(
        raw(_ICC),
        blob,
        raw(_XMP),
        Resolution(*found) if found else None,
        cmyk,
        tiff_tags=ifd.blob(private, order) if private else None,
    )


def write(pixels: Pixels, metadata: Metadata, ways: Ways) -> bytes:
    """Encode *pixels* of any type in strips of about 1 MiB, deflated side by side."""
    level = deflate.DEFAULT_LEVEL if ways.compress_level is None else ways.compress_level
    height, width, channels = pixels.shape
    order = "<"
    tags: dict[int, Entry] = {}
    for blob in (metadata.exif, metadata.tiff_tags):
        if blob:
            order, found, _ = ifd.parse(blob)
            tags |= {tag: e for tag, e in found.items() if tag not in _LAYOUT | _RESOLUTION}
    rows = max(1, _STRIP_SIZE // (width * channels * pixels.itemsize))
    parts = each(lambda y: _deflated(pixels[y : y + rows], order, level), range(0, height, rows))
    starts = [8]
    for strip in parts:
        # Strips begin at even offsets, as the IFD must.
        starts.append(starts[-1] + len(strip) + len(strip) % 2)
    colours = channels - ways.alpha
    tags |= {
        _WIDTH: ifd.longs(order, width),
        _HEIGHT: ifd.longs(order, height),
        _BITS: ifd.shorts(order, *[pixels.itemsize * 8] * channels),
        _COMPRESSION: ifd.shorts(order, _DEFLATE),
        _PHOTOMETRIC: ifd.shorts(order, {1: _GRAY, 3: _RGB, 4: _CMYK}[colours]),
        _STRIP_OFFSETS: ifd.longs(order, *starts[:-1]),
        _SAMPLES: ifd.shorts(order, channels),
        _ROWS: ifd.longs(order, rows),
        _STRIP_BYTES: ifd.longs(order, *map(len, parts)),
        _PLANAR: ifd.shorts(order, 1),
        _PREDICTOR: ifd.shorts(order, 1 if pixels.dtype.kind == "f" else 2),
        _FORMAT: ifd.shorts(order, *[_FLOAT if pixels.dtype.kind == "f" else _UNSIGNED] * channels),
    }
    if ways.alpha:
        tags[_EXTRA] = ifd.shorts(order, 2)
    if metadata.icc:
        tags[_ICC] = Entry(ifd.UNDEFINED, len(metadata.icc), metadata.icc)
    if metadata.xmp:
        tags[_XMP] = Entry(1, len(metadata.xmp), metadata.xmp)
    tags |= _resolution(metadata.resolution or ifd.resolution(metadata.exif), order)
    directory = ifd.write(tags, order, starts[-1]) if starts[-1] <= _MAX_SIZE else b""
    if starts[-1] + len(directory) > _MAX_SIZE:
        raise ImageError("the picture takes more than the 4 GiB that a TIFF file holds")
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(order + "HI", 42, starts[-1])
    padded = [strip + b"\0" * (len(strip) % 2) for strip in parts]
    return b"".join([head, *padded, directory])


def _deflated(strip: Pixels, order: str, level: int) -> bytes:
    """One strip: integers as differences from the pixel to the left (predictor 2), deflated."""
    if strip.dtype.kind == "u":
        differences = strip.copy()
        np.subtract(strip[:, 1:], strip[:, :-1], out=differences[:, 1:])
        strip = differences
    if order == ">":
        strip = strip.astype(strip.dtype.newbyteorder(">"))
    else:
        strip = strip.astype(strip.dtype.newbyteorder("<"), copy=False)
    return deflate.stream(memoryview(strip.tobytes()), level)


def _resolution(resolution: tuple[Fraction, Fraction, str] | None, order: str) -> dict[int, Entry]:
    """The three resolution tags, which TIFF requires; 1:1 of no unit where none is known."""
    x, y, unit = resolution or (Fraction(1), Fraction(1), "")
    if unit == "metre":
        (x, y), unit = Resolution(x, y, unit).per("cm"), "cm"
    return {
        ifd.X_RESOLUTION: ifd.rational(order, x),
        ifd.Y_RESOLUTION: ifd.rational(order, y),
        ifd.RESOLUTION_UNIT: ifd.shorts(order, {"": 1, "inch": 2, "cm": 3}[unit]),
    }
