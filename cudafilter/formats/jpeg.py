"""JPEG: simplejpeg decodes, OpenCV encodes, both by libjpeg-turbo as Pillow does and to its bits.

Pillow has what they do not take: CMYK, arithmetic coding, odd sampling and damage when reading,
CMYK and quantisation tables of no standard quality when writing.
"""

from __future__ import annotations

import bisect
import functools
import struct
from typing import Any, NamedTuple

import numpy as np
import simplejpeg

from cudafilter import ahead
from cudafilter.cores import each
from cudafilter.errors import ImageError
from cudafilter.formats import jpeg_head
from cudafilter.formats.buffers import Buffer, joined
from cudafilter.formats.jpeg_head import DRI, SOF0, SOF1, SOF2, SOI, Frame
from cudafilter.formats.limits import Limits
from cudafilter.formats.metadata import Decoded, Metadata
from cudafilter.formats.table import JPEG_SIGNATURE, Ways
from cudafilter.pixels import Pixels

SIGNATURE = JPEG_SIGNATURE
DEFAULT_QUALITY = 95
"""For pictures that do not come from a JPEG; those keep their own quantisation tables, and with
them their quality and about their size."""
MAX_SIDE = 65500
STRIP_PIXELS = 1 << 20
"""Pixels that are encoded as one: at most 16,384 blocks, and a restart interval holds 65,535."""
_SAMPLINGS = frozenset({(1, 1), (2, 1), (2, 2), (1, 2), (4, 1), (1, 4)})
"""Luma samples for one of chroma, across and down, that simplejpeg knows."""
_NAMES = {0: "444", 1: "422", 2: "420"}
"""Pillow's code of a subsampling -> simplejpeg's."""
_MCU = {0: (8, 8), 1: (16, 8), 2: (16, 16)}
"""Pillow's code of a subsampling -> width and height of what is coded as one."""


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode a JPEG: gray, RGB or CMYK of 8 bits."""
    segments, rest = jpeg_head.segments_of(data)
    frame = jpeg_head.frame_of(segments)
    shape = _shape(frame, limits)
    pixels = ahead.pixels_of(data) if shape else None
    if pixels is None or pixels.shape != shape:
        bare = joined([jpeg_head.bare(segments), rest])
        pixels = _decoded(bare, shape[2]) if shape else None
        if pixels is None:
            pixels = _read_pillow(bare, limits)
    metadata, notes = jpeg_head.head_of(segments, frame)
    return Decoded(pixels, False, metadata, notes)


def _shape(frame: Frame | None, limits: Limits) -> tuple[int, int, int] | None:
    """(H, W, C) of what simplejpeg reads: gray or colour, Huffman-coded. None of anything else."""
    if frame is None or frame.marker not in (SOF0, SOF1, SOF2) or frame.bits != 8:
        return None
    channels = len(frame.components)
    if channels != 1 and frame.sampling not in _SAMPLINGS:
        return None
    limits.require_size(frame.width, frame.height)
    return frame.height, frame.width, 1 if channels == 1 else 3


def _decoded(bare: Buffer, channels: int) -> Pixels | None:
    """What simplejpeg reads of *bare*.

    It refuses whatever libjpeg warns of; Pillow then tells what is broken from what is merely odd.
    """
    try:
        pixels = simplejpeg.decode_jpeg(bare, "GRAY" if channels == 1 else "RGB", strict=True)
    except ValueError:
        return None
    return np.asarray(pixels)


def _read_pillow(bare: Buffer, limits: Limits) -> Pixels:
    from cudafilter.formats.pillow import open_pillow, pixels_of

    return pixels_of(open_pillow(bare, "JPEG", limits))[0]


def write(pixels: Pixels, metadata: Metadata, ways: Ways) -> Buffer:
    """Encode uint8 gray, RGB or CMYK *pixels*.

    Subsampling and progressive coding are those of the source where it was a JPEG, and else 4:4:4
    and sequential. So are quantisation tables unless a quality is given.
    """
    height, width, channels = pixels.shape
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"{width} x {height} pixels are more than the {MAX_SIDE} a side that JPEG holds",
            hint="choose .png or .tif",
        )
    chosen = _chosen(channels, metadata, ways)
    if chosen.quality is None or channels == 4:
        pieces: list[Buffer] = [_write_pillow(pixels, metadata.cmyk, chosen)]
    else:
        pieces = _encoded(pixels, chosen.quality, chosen.subsampling, chosen.progressive)
    return jpeg_head.with_head(pieces, metadata)


def template(channels: int, metadata: Metadata, ways: Ways) -> bytes:
    """A small JPEG of 1 or 3 *channels*, coded as write() would code one."""
    pixels, chosen = np.zeros((16, 16, channels), np.uint8), _chosen(channels, metadata, ways)
    if chosen.quality is None or chosen.progressive:
        return bytes(write(pixels, metadata, ways))
    colour = ("RGB", _NAMES[chosen.subsampling]) if channels == 3 else ("GRAY", "Gray")
    return bytes(simplejpeg.encode_jpeg(pixels, chosen.quality, *colour))


class _Chosen(NamedTuple):
    """How a picture is coded."""

    quality: int | None
    """None where *tables* are those of no quality."""
    tables: tuple[tuple[int, ...], ...]
    """The source's; empty where *quality* decides."""
    subsampling: int
    progressive: bool


def _chosen(channels: int, metadata: Metadata, ways: Ways) -> _Chosen:
    coding = metadata.jpeg_coding
    subsampling = coding.subsampling if coding and channels > 1 else 0
    progressive = bool(coding and coding.progressive)
    tables = coding.tables[: 1 if channels == 1 else 4] if coding and ways.quality is None else ()
    quality = standard_quality(tables, channels) if tables else ways.quality or DEFAULT_QUALITY
    return _Chosen(quality, tables, subsampling, progressive)


@functools.lru_cache
def standard_quality(tables: tuple[tuple[int, ...], ...], channels: int) -> int | None:
    """The quality 1..100 at which libjpeg uses just *tables*, one for gray and two for RGB.

    None if there is none.
    """
    if len(tables) != (1 if channels == 1 else 2):
        return None
    # A higher quality has finer steps.
    wanted = -sum(tables[0])
    found = 1 + bisect.bisect_left(range(1, 101), wanted, key=lambda q: -sum(_standard(q)[0]))
    return found if found <= 100 and _standard(found)[: len(tables)] == tables else None


def _standard(quality: int) -> tuple[tuple[int, ...], ...]:
    sample = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8), quality)
    return jpeg_head.tables_of(jpeg_head.segments_of(sample)[0])


def _encoded(pixels: Pixels, quality: int, subsampling: int, progressive: bool) -> list[Buffer]:
    """*pixels* encoded by OpenCV, a large picture in strips of whole rows of blocks.

    In pieces, the first of which holds all segments.
    """
    from cudafilter.formats import opencv

    height, width, _ = pixels.shape
    across, down = _MCU[subsampling]
    blocks = -(-width // across)
    rows = max(1, STRIP_PIXELS // (blocks * across * down))
    if progressive or height <= rows * down:
        return [opencv.encode_jpeg(pixels, quality, subsampling, progressive)]

    def strip(top: int) -> Buffer:
        part = pixels[top : top + rows * down]
        return opencv.encode_jpeg(part, quality, subsampling, False)

    return _one_file(each(strip, range(0, height, rows * down)), height, blocks * rows)


def _one_file(parts: list[Buffer], height: int, interval: int) -> list[Buffer]:
    """JPEGs of *interval* blocks each as one of *height*, with restart markers where they meet.

    Coding starts afresh at such a marker, and all have the same tables: nothing of a block changes.
    """
    segments, _ = jpeg_head.segments_of(parts[0])
    head = [
        (marker, body[:1] + struct.pack(">H", height) + body[3:] if marker == SOF0 else body)
        for marker, body in segments
    ]
    scans = [jpeg_head.segments_of(part)[1] for part in parts]
    length = 2 + int.from_bytes(scans[0][2:4], "big")
    segments = [*head, (DRI, struct.pack(">H", interval))]
    pieces: list[Buffer] = [SOI + jpeg_head.written(segments), scans[0][:length]]
    for number, scan in enumerate(scans):
        last = number == len(scans) - 1
        end = b"\xff\xd9" if last else bytes((0xFF, 0xD0 + number % 8))
        pieces += [scan[length:-2], end]
    return pieces


def _write_pillow(pixels: Pixels, cmyk: bool, chosen: _Chosen) -> bytes:
    from cudafilter.formats.pillow import save_pillow

    options: dict[str, Any] = {"quality": chosen.quality}
    if chosen.tables:
        options = {"qtables": [list(table) for table in chosen.tables]}
    if pixels.shape[2] > 1:
        options["subsampling"] = chosen.subsampling
    try:
        return save_pillow(pixels, "JPEG", cmyk, progressive=chosen.progressive, **options)
    except OSError:
        # Pillow's buffer for a progressive file is too small for noise at the finest quality.
        # A sequential file decodes to the same pixels.
        return save_pillow(pixels, "JPEG", cmyk, progressive=False, **options)
