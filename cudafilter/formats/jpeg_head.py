"""The segments of a JPEG before its scans: how it is coded, and its metadata, kept as it is."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from operator import itemgetter
from typing import NamedTuple

from cudafilter.formats import ifd
from cudafilter.formats.metadata import EXIF_MARK, XMP_MARK, JpegCoding, Metadata, Resolution
from cudafilter.stores.buffers import Buffer, joined

Segment = tuple[int, bytes]
"""Marker and data."""

SOI = b"\xff\xd8"
SOF0, SOF1, SOF2, SOF3, SOF9, SOF10 = 0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA
DHT, EOI, SOS, DRI = 0xC4, 0xD9, 0xDA, 0xDD
FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
APP0, _APP1, _APP2, _APP14, APP15, COM, _DQT = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE, 0xDB
_JFIF_MARK, _ADOBE_MARK = b"JFIF\0", b"Adobe"
_JFIF_SIZE = 14
"""Bytes of a JFIF segment without a thumbnail. libjpeg takes a shorter one for none."""
_ADOBE_TRANSFORM = 11
"""Where an Adobe segment tells whether colour became luma and chroma: 0 is no, 1 and 2 are yes."""
_ICC_MARK, _MPF_MARK = b"ICC_PROFILE\0", b"MPF\0"
_ICC_PART = 65519
"""Most bytes of a profile in one segment."""
_MPF_COUNT = 0xB001


class Sampling(NamedTuple):
    """Names of a chroma subsampling that can be written."""

    name: str
    """OpenCV's and simplejpeg's."""
    code: int | None
    """Pillow's, which has quantisation tables of no standard quality; None where it has none."""


SAMPLINGS = {
    (1, 1): Sampling("444", 0),
    (2, 1): Sampling("422", 1),
    (2, 2): Sampling("420", 2),
    (1, 2): Sampling("440", None),
    (4, 1): Sampling("411", None),
}
"""Luma samples for one of chroma, across and down -> what that is called; no others are written."""
DECODED = frozenset({*SAMPLINGS, (1, 4)})
"""What simplejpeg decodes."""


def _diagonal(place: int) -> tuple[int, int]:
    y, x = divmod(place, 8)
    return x + y, y if (x + y) % 2 else x


_ZIGZAG = sorted(range(64), key=_diagonal)
"""Where the values of a quantisation table belong, in the order that the file has them."""
_by_rows = itemgetter(*sorted(range(64), key=_ZIGZAG.__getitem__))
"""Brings them from the file's order into that of rows."""


class Component(NamedTuple):
    """One channel as it is coded."""

    across: int
    down: int
    """Sampling factors."""
    table: int
    """Number of its quantisation table."""


class Frame(NamedTuple):
    """What the frame header says."""

    marker: int
    bits: int
    width: int
    height: int
    components: tuple[Component, ...]

    @property
    def sampling(self) -> tuple[int, int] | None:
        """Luma samples for one of chroma, across and down; black has as many as luma.

        None for gray, and where there is no such ratio.
        """
        if len(self.components) not in (3, 4):
            return None
        luma, *chroma = [(part.across, part.down) for part in self.components]
        if chroma[0] != chroma[1] or chroma[2:] not in ([], [luma]):
            return None
        across, down = chroma[0]
        if not across or not down or luma[0] % across or luma[1] % down:
            return None
        return luma[0] // across, luma[1] // down

    @property
    def progressive(self) -> bool:
        """Whether each scan refines what those before it have."""
        return self.marker in PROGRESSIVE


class Head(NamedTuple):
    """All that a JPEG holds but its pixels."""

    metadata: Metadata
    notes: tuple[str, ...]


def segments_of(data: Buffer) -> tuple[list[Segment], memoryview]:
    """All segments before the first scan, and what follows them; decoders judge that."""
    data = memoryview(data)
    found = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == SOS or length < 2:
            break
        found.append((marker, bytes(data[at + 4 : at + 2 + length])))
        at += 2 + length
    return found, data[at:]


def written(segments: list[Segment]) -> bytes:
    """*segments* as bytes of a file."""
    return b"".join(
        struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments
    )


def bare(segments: list[Segment]) -> bytes:
    """The head of a file of nothing but what makes the picture.

    Damaged metadata does not keep a decoder from the pixels. Of JFIF and Adobe segments there is
    what tells the colours, put so that libjpeg warns of no version or code that it does not know.
    """
    frame = frame_of(segments)
    transformed = 2 if frame and len(frame.components) == 4 else 1
    kept = []
    for marker, body in segments:
        if _is_jfif(marker, body):
            body = _JFIF_MARK + b"\1\1" + body[7:12] + b"\0\0"
        elif _is_adobe(marker, body):
            code = transformed if body[_ADOBE_TRANSFORM] else 0
            body = body[:_ADOBE_TRANSFORM] + bytes([code])
        elif APP0 <= marker <= APP15 or marker == COM:
            continue
        kept.append((marker, body))
    return SOI + written(kept)


def _is_jfif(marker: int, body: bytes) -> bool:
    return marker == APP0 and body.startswith(_JFIF_MARK) and len(body) >= _JFIF_SIZE


def _is_adobe(marker: int, body: bytes) -> bool:
    return marker == _APP14 and body.startswith(_ADOBE_MARK) and len(body) > _ADOBE_TRANSFORM


def frame_of(segments: list[Segment]) -> Frame | None:
    """The frame header; None where there is not exactly one, or it is damaged."""
    found = [segment for segment in segments if segment[0] in FRAMES]
    if len(found) != 1 or len(found[0][1]) < 6:
        return None
    marker, body = found[0]
    bits, height, width, count = struct.unpack_from(">BHHB", body)
    if len(body) != 6 + 3 * count:
        return None
    coded = zip(body[7::3], body[8::3], strict=True)
    components = tuple(Component(factor >> 4, factor & 15, table) for factor, table in coded)
    return Frame(marker, bits, width, height, components)


def is_transformed(segments: list[Segment], frame: Frame) -> bool:
    """Whether colour became luma and chroma; told as libjpeg tells it. So are gray pictures."""
    codes = [body[_ADOBE_TRANSFORM] for marker, body in segments if _is_adobe(marker, body)]
    if len(frame.components) == 4:
        return bool(codes and codes[-1])
    if len(frame.components) != 3 or any(_is_jfif(*segment) for segment in segments):
        return True
    if codes:
        return codes[-1] != 0
    return names_of(segments, frame) != b"RGB"


def names_of(segments: list[Segment], frame: Frame) -> bytes:
    """A byte for each channel, by which scans name it."""
    return next(body for marker, body in segments if marker == frame.marker)[6::3]


def _coding(segments: list[Segment], frame: Frame) -> JpegCoding:
    tables = _numbered_tables(segments)
    return JpegCoding(
        tuple(tables[part.table] for part in frame.components if part.table in tables),
        frame.sampling or ((1, 1) if len(frame.components) == 1 else (0, 0)),
        frame.progressive,
        is_transformed(segments, frame),
    )


def tables_of(segments: list[Segment]) -> tuple[tuple[int, ...], ...]:
    """The quantisation tables by their numbers, each row by row; damaged ones left out."""
    tables = _numbered_tables(segments)
    return tuple(tables[number] for number in sorted(tables))


def _numbered_tables(segments: list[Segment]) -> dict[int, tuple[int, ...]]:
    tables: dict[int, tuple[int, ...]] = {}
    for marker, body in segments:
        while marker == _DQT and body:
            wide = body[0] >> 4
            size = 129 if wide else 65
            if len(body) < size:
                break
            values = struct.unpack_from(">64H" if wide else "64B", body, 1)
            tables[body[0] & 15] = _by_rows(values)
            body = body[size:]
    return tables


def head_of(segments: list[Segment], frame: Frame | None) -> Head:
    """Metadata and notes of a file."""
    exif = xmp = resolution = coding = None
    comments, others, notes = [], [], []
    for marker, body in segments:
        if marker == APP0 and body.startswith(_JFIF_MARK) and len(body) >= 12:
            unit, x, y = struct.unpack_from(">BHH", body, 7)
            # Pillow and others write the ratio 1:1 for "not known".
            if unit in (0, 1, 2) and x and y and (unit or x != y):
                resolution = Resolution(Fraction(x), Fraction(y), ("", "inch", "cm")[unit])
            if len(body) > _JFIF_SIZE:
                others.append((marker, body))  # a thumbnail
        elif marker == _APP1 and body.startswith(EXIF_MARK) and exif is None:
            exif = body[len(EXIF_MARK) :]
        elif marker == _APP1 and body.startswith(XMP_MARK) and xmp is None:
            xmp = body[len(XMP_MARK) :]
        elif marker == COM:
            comments.append(body)
        elif marker == _APP2 and body.startswith(_MPF_MARK):
            # The index of pictures that are not kept.
            if extra := _pictures(body[len(_MPF_MARK) :]) - 1:
                notes.append(
                    f"{extra} further picture{'s' * (extra != 1)} in the file are not kept"
                )
        elif marker == _APP2 and body.startswith(_ICC_MARK):
            pass
        elif APP0 <= marker <= APP15 and not (marker == _APP14 and body.startswith(_ADOBE_MARK)):
            others.append((marker, body))
    if resolution is None and (found := ifd.resolution(exif)):
        resolution = Resolution(*found)
    if frame is not None:
        coding = _coding(segments, frame)
    icc, whole = _profile(segments)
    if not whole:
        notes.append("the colour profile is not kept, for parts of it are missing")
    metadata = Metadata(
        icc=icc,
        exif=exif,
        xmp=xmp,
        resolution=resolution,
        cmyk=frame is not None and len(frame.components) == 4,
        comments=tuple(comments),
        jpeg_segments=tuple(others),
        jpeg_coding=coding,
    )
    return Head(metadata, tuple(notes))


def _pictures(index: bytes) -> int:
    """How many pictures a multi-picture file holds, by its index."""
    try:
        order, entries, _ = ifd.parse(index)
    except ifd.BrokenIfd:
        return 1
    return max(1, ifd.number(entries, _MPF_COUNT, order, 1))


def _profile(segments: list[Segment]) -> tuple[bytes | None, bool]:
    """The ICC profile, put together from its numbered parts, and whether all of them are there."""
    parts = sorted(
        body[len(_ICC_MARK) :]
        for marker, body in segments
        if marker == _APP2 and body.startswith(_ICC_MARK)
    )
    numbers = [tuple(part[:2]) for part in parts]
    if numbers != [(number, len(parts)) for number in range(1, len(parts) + 1)]:
        return None, False
    return b"".join(part[2:] for part in parts) or None, True


def with_head(encoded: Sequence[Buffer], metadata: Metadata, *, jfif: bool = True) -> Buffer:
    """*encoded* with JFIF and the segments of *metadata* in place of its own JFIF segment.

    The first of its pieces holds that whole. Without *jfif* there is none: with it, three channels
    would be luma and chroma.
    """
    first = memoryview(encoded[0])[len(SOI) :]
    if first[:2] == bytes((0xFF, APP0)):
        first = first[2 + int.from_bytes(first[2:4], "big") :]
    return joined([SOI + written(_segments(metadata, jfif)), first, *encoded[1:]])


def told_as_ycck(encoded: bytes) -> bytes:
    """*encoded*, a JPEG that begins with Adobe's segment, as one of luma, chroma and black."""
    at = encoded.index(_ADOBE_MARK) + _ADOBE_TRANSFORM
    return encoded[:at] + b"\2" + encoded[at + 1 :]


def _segments(metadata: Metadata, jfif: bool) -> list[Segment]:
    unit, x, y = 0, 1, 1
    if metadata.resolution:
        named = metadata.resolution.unit
        exact = metadata.resolution.per("inch" if named == "metre" else named or "inch")
        unit = {"": 0, "cm": 2}.get(named, 1)
        x, y = (min(65535, max(1, round(value))) for value in exact)
    first = [body for marker, body in metadata.jpeg_segments if marker == APP0]
    thumbnails = [body[12:] for body in first if body.startswith(_JFIF_MARK)]
    density = struct.pack(">5sHBHH", _JFIF_MARK, 0x0102, unit, x, y)
    segments = [(APP0, density + (thumbnails[0] if thumbnails else b"\0\0"))] if jfif else []
    # Right behind JFIF is the place of its extensions.
    segments += [(APP0, body) for body in first if not body.startswith(_JFIF_MARK)]
    if metadata.exif:
        segments.append((_APP1, EXIF_MARK + metadata.exif))
    if metadata.xmp:
        segments.append((_APP1, XMP_MARK + metadata.xmp))
    if metadata.icc:
        icc = metadata.icc
        parts = [icc[at : at + _ICC_PART] for at in range(0, len(icc), _ICC_PART)]
        segments += [
            (_APP2, _ICC_MARK + bytes((number, len(parts))) + part)
            for number, part in enumerate(parts, 1)
        ]
    segments += [segment for segment in metadata.jpeg_segments if segment[0] != APP0]
    segments += [(COM, comment) for comment in metadata.comments]
    return segments
