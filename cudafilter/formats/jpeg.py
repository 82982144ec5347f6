"""JPEG: simplejpeg decodes, OpenCV encodes, both by libjpeg-turbo as Pillow does and to its bits.

Pillow has what they lack: lossless coding and odd sampling when reading; CMYK, colour that is not
luma and chroma, and quantisation tables of no standard quality when writing.
"""

from __future__ import annotations

import bisect
import functools
from typing import Any, NamedTuple

import numpy as np
import simplejpeg

from cudafilter.errors import ImageError
from cudafilter.formats import jpeg_head, jpeg_scan, jpeg_strips
from cudafilter.formats.jpeg_head import (
    DECODED,
    SAMPLINGS,
    SOF0,
    SOF1,
    SOF2,
    SOF3,
    SOF9,
    SOF10,
    Frame,
    Segment,
)
from cudafilter.formats.limits import Extent, Limits
from cudafilter.formats.metadata import Decoded, JpegCoding, Metadata
from cudafilter.formats.rows import Header, WholeWriter, Writer
from cudafilter.formats.table import Ways
from cudafilter.operations.pixels import Pixels
from cudafilter.start import first_jpeg
from cudafilter.stores.buffers import Buffer, Sink, joined

DEFAULT_QUALITY = 95
"""For pictures that do not come from a JPEG; those keep their own quantisation tables, and with
them their quality and about their size."""
MAX_SIDE = 65500
_KNOWN = frozenset({SOF0, SOF1, SOF2, SOF9, SOF10})
"""Codings that simplejpeg decodes: sequential and progressive, Huffman and arithmetic."""
_COLOURS = {1: "GRAY", 3: "RGB", 4: "CMYK"}
_BROKEN = "it is damaged: its picture cannot be decoded"
_TOO_MANY = "it is damaged: there are too many bytes for its picture"
_DAMAGE = (
    ("premature end", "it is cut off: its picture ends early"),
    ("extraneous bytes", _TOO_MANY),
)
"""What libjpeg says -> what that means."""


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file."""
    frame = jpeg_head.frame_of(jpeg_head.segments_of(head)[0])
    if frame is None:
        raise ValueError("no frame header")
    return Extent(frame.width, frame.height, len(frame.components), 1)


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode a JPEG: gray, RGB or CMYK of 8 bits.

    A refusal by the strict decoder is final: other decoders make something up for what is damaged.
    """
    segments, rest = jpeg_head.segments_of(data)
    frame = _require_frame(segments)
    # libjpeg keeps two bytes of each sample's coefficients until the last scan is there.
    sample_bytes = 3 if frame.marker == SOF2 else 1
    limits.require_size(frame.width, frame.height, len(frame.components) * sample_bytes)
    scans = jpeg_scan.scans_of(segments, rest, frame)
    metadata, notes = jpeg_head.head_of(segments, frame)
    shape = frame.height, frame.width, len(frame.components)
    if _is_usual(frame):
        ready = first_jpeg.pixels_of(data)
        usable = ready is not None and ready.shape == shape
        pixels = ready if usable else _decoded(_bare(segments, rest), shape[2])
        if scans.doubt:
            _require_needed(segments, rest, scans.doubt, shape[2])
    else:
        pixels = _read_pillow(_bare(segments, rest), limits)
    if not _is_usual(frame) or frame.marker in (SOF9, SOF10):
        notes += ("its coding is unusual, and what decodes it does not tell of damage inside",)
    assert pixels is not None
    coding = metadata.jpeg_coding
    if coding and (written := _sampling(coding, shape[2], None)) != coding.sampling:
        notes += (
            f"its chroma sampling {_name(coding.sampling)} is not kept: a JPEG that keeps its"
            f" quality gets {_name(written)}",
        )
    return Decoded(pixels, False, metadata, notes + scans.notes)


def require_undamaged(data: bytes) -> None:
    """Raise ImageError where the strict decoder refuses a JPEG, whatever its size."""
    read(data, Limits(max_pixels=MAX_SIDE**2))


def _require_frame(segments: list[Segment]) -> Frame:
    """The frame header. Raises ImageError where there is none, or one of what is not read."""
    frame = jpeg_head.frame_of(segments)
    if frame is None:
        raise ImageError("it is damaged: it has no header of one picture")
    if frame.marker not in _KNOWN | {SOF3}:
        raise ImageError("its kind of JPEG coding is not read")
    if frame.bits != 8:
        raise ImageError(f"JPEGs of {frame.bits} bits a sample are not read")
    if len(frame.components) not in _COLOURS:
        raise ImageError(f"JPEGs of {len(frame.components)} channels are not read")
    if not frame.width or not frame.height:
        raise ImageError("its header has no size, which is not read")
    if any(not 1 <= factor <= 4 for part in frame.components for factor in part[:2]):
        raise ImageError("it is damaged: its sampling is wrong")
    return frame


def _is_usual(frame: Frame) -> bool:
    """Whether simplejpeg decodes it; of samplings it knows few, by the factors as they stand."""
    if frame.marker not in _KNOWN:
        return False
    luma, *chroma = [(part.across, part.down) for part in frame.components]
    if not chroma:
        return True
    ratio = frame.sampling
    if ratio not in DECODED:
        return False
    if ratio == (1, 1):
        return luma[0] * luma[1] <= 10 // len(frame.components)
    return chroma[0] == (1, 1) or (luma == (2, 2) and ratio in ((2, 1), (1, 2)))


def _bare(segments: list[Segment], rest: memoryview) -> Buffer:
    return joined([jpeg_head.bare(segments), rest])


def _decoded(bare: Buffer, channels: int) -> Pixels:
    """The pixels of *bare*, with CMYK's 0 for no ink. Raises ImageError where libjpeg warns."""
    try:
        pixels = np.asarray(simplejpeg.decode_jpeg(bare, _COLOURS[channels], strict=True))
    except ValueError as error:
        told = str(error).lower()
        if "memory" in told:
            raise MemoryError from error
        reasons = (reason for words, reason in _DAMAGE if words in told)
        raise ImageError(next(reasons, _BROKEN)) from error
    # Adobe's inks are inverted, and others' are taken for Adobe's.
    return np.invert(pixels, out=pixels) if channels == 4 else pixels


def _require_needed(segments: list[Segment], rest: memoryview, end: int, channels: int) -> None:
    """Raise ImageError unless the byte before *end* is needed.

    libjpeg reads up to 8 bytes ahead, so it does not tell of so few that are too many.
    """
    last = end - 2 if bytes(rest[end - 2 : end]) == b"\xff\0" else end - 1
    try:
        _decoded(joined([jpeg_head.bare(segments), rest[:last], rest[end:]]), channels)
    except ImageError:
        return
    raise ImageError(_TOO_MANY)


def _read_pillow(bare: Buffer, limits: Limits) -> Pixels:
    from cudafilter.formats.pillow import open_pillow, pixels_of

    try:
        return pixels_of(open_pillow(bare, "Jpeg", limits))[0]
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(_BROKEN) from error


def is_encoded_whole(header: Header, ways: Ways) -> bool:
    """Whether a picture is encoded as one: small or progressive ones, and those by Pillow."""
    return _parts(header, ways) is None


def create(target: Sink, header: Header, ways: Ways) -> Writer:
    """Write a picture as write() does; a large one in strips, with restart markers between."""
    _require_sides(header.width, header.height)
    if (chosen := _parts(header, ways)) is None:
        return WholeWriter(target, header, ways, write)
    assert chosen.quality is not None
    return jpeg_strips.Writer(target, header, chosen.quality, chosen.sampling)


def _parts(header: Header, ways: Ways) -> _Chosen | None:
    """How a picture is coded in strips; None where it is coded as one."""
    chosen = _chosen(header.channels, header.metadata, ways)
    if chosen.progressive or not _by_opencv(header.channels, chosen):
        return None
    rows, _ = jpeg_strips.size_of(header.width, chosen.sampling)
    return chosen if header.height > rows else None


def _by_opencv(channels: int, chosen: _Chosen) -> bool:
    is_rgb = channels == 3 and not chosen.transformed
    return not (chosen.quality is None or channels == 4 or is_rgb)


def _require_sides(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"{width} x {height} pixels are more than the {MAX_SIDE} a side that JPEG holds",
            hint="choose .png or .tif",
        )


def write(pixels: Pixels, metadata: Metadata, ways: Ways) -> Buffer:
    """Encode uint8 gray, RGB or CMYK *pixels* as one.

    Subsampling, colour coding and progressive coding are those of the source where it was a JPEG,
    and else 4:4:4, luma and chroma (CMYK: as it is), and sequential. So are quantisation tables
    unless a quality is given.
    """
    height, width, channels = pixels.shape
    _require_sides(width, height)
    chosen = _chosen(channels, metadata, ways)
    if _by_opencv(channels, chosen):
        piece = _encoded(pixels, chosen)
    else:
        piece = _write_pillow(pixels, metadata.cmyk, chosen)
    jfif = channels != 3 or chosen.transformed
    return jpeg_head.with_head([piece], metadata, jfif=jfif)


def template(channels: int, metadata: Metadata, ways: Ways) -> bytes:
    """A small JPEG of 1 or 3 *channels*, coded as write() would code one."""
    pixels, chosen = np.zeros((16, 16, channels), np.uint8), _chosen(channels, metadata, ways)
    if chosen.quality is None or chosen.progressive:
        return bytes(write(pixels, metadata, ways))
    colour = ("RGB", SAMPLINGS[chosen.sampling].name) if channels == 3 else ("GRAY", "Gray")
    return bytes(simplejpeg.encode_jpeg(pixels, chosen.quality, *colour))


class _Chosen(NamedTuple):
    """How a picture is coded."""

    quality: int | None
    """None where *tables* are those of no quality."""
    tables: tuple[tuple[int, ...], ...]
    """Of each channel; empty where *quality* decides."""
    sampling: tuple[int, int]
    """See JpegCoding."""
    progressive: bool
    transformed: bool
    """See JpegCoding."""


def _chosen(channels: int, metadata: Metadata, ways: Ways) -> _Chosen:
    coding = metadata.jpeg_coding
    if coding is None:
        return _Chosen(ways.quality or DEFAULT_QUALITY, (), (1, 1), False, channels == 3)
    tables = coding.tables[:channels]
    quality = ways.quality
    if quality is None and len(tables) == channels:
        quality = standard_quality(tables)
    elif channels == 4 and coding.transformed:
        luma, chroma = _standard(quality or DEFAULT_QUALITY)
        quality, tables = None, (luma, chroma, chroma, luma)
    else:
        quality, tables = quality or DEFAULT_QUALITY, ()
    sampling = _sampling(coding, channels, ways.quality)
    return _Chosen(quality, tables, sampling, coding.progressive, coding.transformed)


def _sampling(coding: JpegCoding, channels: int, quality: int | None) -> tuple[int, int]:
    """The sampling that is written where the source's is that of *coding*.

    OpenCV has more of them than Pillow, and only Pillow has CMYK and tables of no quality.
    """
    known = SAMPLINGS.get(coding.sampling)
    tables = coding.tables[:channels]
    by_opencv = channels == 3 and coding.transformed and (quality or standard_quality(tables))
    by_pillow = channels == 3 and coding.transformed and known and known.code is not None
    return coding.sampling if known and (by_opencv or by_pillow) else (1, 1)


def _name(sampling: tuple[int, int]) -> str:
    if sampling in SAMPLINGS:
        return ":".join(SAMPLINGS[sampling].name)
    return "of {} x {} to 1".format(*sampling) if all(sampling) else "of no common ratio"


@functools.lru_cache
def standard_quality(tables: tuple[tuple[int, ...], ...]) -> int | None:
    """The quality 1..100 at which libjpeg uses just *tables*, those of gray or of RGB's channels.

    None if there is none.
    """
    if len(tables) not in (1, 3) or tables[1:2] != tables[2:]:
        return None
    # A higher quality has finer steps.
    wanted = -sum(tables[0])
    found = 1 + bisect.bisect_left(range(1, 101), wanted, key=lambda q: -sum(_standard(q)[0]))
    return found if found <= 100 and _standard(found)[: len(tables)] == tables[:2] else None


def _standard(quality: int) -> tuple[tuple[int, ...], ...]:
    sample = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8), quality)
    return jpeg_head.tables_of(jpeg_head.segments_of(sample)[0])


def _encoded(pixels: Pixels, chosen: _Chosen) -> Buffer:
    from cudafilter.formats import opencv

    assert chosen.quality is not None
    name = SAMPLINGS[chosen.sampling].name
    return opencv.encode_jpeg(pixels, chosen.quality, name, chosen.progressive)


def _write_pillow(pixels: Pixels, cmyk: bool, chosen: _Chosen) -> bytes:
    from cudafilter.formats.pillow import save_pillow

    channels = pixels.shape[2]
    options: dict[str, Any] = {"quality": chosen.quality}
    if chosen.tables:
        # Pillow gives each channel a table, and the rest the last one. Of colour it makes two.
        tables = list(chosen.tables)
        while len(tables) > (2 if channels == 3 else 1) and tables[-1] == tables[-2]:
            tables.pop()
        options = {"qtables": [list(table) for table in tables]}
    if channels > 1:
        options["subsampling"] = SAMPLINGS[chosen.sampling].code
    if channels == 3:
        options["keep_rgb"] = not chosen.transformed
    is_ycck = channels == 4 and chosen.transformed
    if is_ycck:
        pixels = _ycck(pixels)
    try:
        data = save_pillow(pixels, "Jpeg", cmyk, progressive=chosen.progressive, **options)
    except OSError:
        # Pillow's buffer for a progressive file is too small for noise at the finest quality.
        # A sequential file decodes to the same pixels.
        data = save_pillow(pixels, "Jpeg", cmyk, progressive=False, **options)
    return jpeg_head.told_as_ycck(data) if is_ycck else data


def _ycck(inks: Pixels) -> Pixels:
    """CMYK as luma, chroma and black, inverted as inks are: Pillow inverts them once more."""
    from PIL import Image as PillowImage

    colour = PillowImage.fromarray(np.ascontiguousarray(inks[..., :3])).convert("YCbCr")
    return np.concatenate([np.invert(np.asarray(colour)), inks[..., 3:]], axis=2)
