"""The segments of a JPEG before its scans: how it is coded, and its metadata, kept as it is."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from operator import itemgetter
from typing import NamedTuple

from cudafilter.formats import ifd
from cudafilter.formats.buffers import Buffer, joined
from cudafilter.formats.metadata import EXIF_MARK, XMP_MARK, JpegCoding, Metadata, Resolution

Segment = tuple[int, bytes]
"""Marker and data."""

SOI = b"\xff\xd8"
SOF0, SOF1, SOF2, SOS, DRI = 0xC0, 0xC1, 0xC2, 0xDA, 0xDD
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_APP0, _APP1, _APP2, _APP14, _APP15, _COM, _DQT = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE, 0xDB
_ICC_MARK, _MPF_MARK = b"ICC_PROFILE\0", b"MPF\0"
_ICC_PART = 65519
"""Most bytes of a profile in one segment."""
_MPF_COUNT = 0xB001
_SAMPLINGS = {(1, 1): 0, (2, 1): 1, (2, 2): 2}
"""Luma samples for one of chroma, across and down -> Pillow's code."""


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


class Frame(NamedTuple):
    """What the frame header says."""

    marker: int
    bits: int
    width: int
    height: int
    components: tuple[Component, ...]

    @property
    def sampling(self) -> tuple[int, int] | None:
        """Luma samples for one of chroma; None for other than Y, Cb, Cr with luma the finest."""
        if len(self.components) != 3 or {*self.components[1:]} != {(1, 1)}:
            return None
        return self.components[0].across, self.components[0].down


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
        if marker == SOS:
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
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

    Damaged metadata is kept as it is and does not keep a decoder from the pixels.
    """
    kept = [
        segment
        for segment in segments
        if segment[0] in (_APP0, _APP14)
        or not (_APP0 <= segment[0] <= _APP15 or segment[0] == _COM)
    ]
    return SOI + written(kept)


def frame_of(segments: list[Segment]) -> Frame | None:
    """The frame header; None where there is not exactly one, or it is damaged."""
    found = [segment for segment in segments if segment[0] in _FRAMES]
    if len(found) != 1 or len(found[0][1]) < 6:
        return None
    marker, body = found[0]
    bits, height, width, count = struct.unpack_from(">BHHB", body)
    if len(body) != 6 + 3 * count:
        return None
    factors = body[7::3]
    components = tuple(Component(factor >> 4, factor & 15) for factor in factors)
    return Frame(marker, bits, width, height, components)


def tables_of(segments: list[Segment]) -> tuple[tuple[int, ...], ...]:
    """The quantisation tables by their numbers, each row by row; damaged ones left out."""
    tables = {}
    for marker, body in segments:
        while marker == _DQT and body:
            wide = body[0] >> 4
            size = 129 if wide else 65
            if len(body) < size:
                break
            values = struct.unpack_from(">64H" if wide else "64B", body, 1)
            tables[body[0] & 15] = _by_rows(values)
            body = body[size:]
    return tuple(tables[number] for number in sorted(tables))


def head_of(segments: list[Segment], frame: Frame | None) -> Head:
    """Metadata and notes of a file."""
    exif = xmp = resolution = coding = None
    comments, others, notes = [], [], []
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
        elif marker == _APP2 and body.startswith(_MPF_MARK):
            # The index of pictures that are not kept.
            if extra := _pictures(body[len(_MPF_MARK) :]) - 1:
                notes.append(
                    f"{extra} further picture{'s' * (extra != 1)} in the file are not kept"
                )
        elif marker == _APP2 and body.startswith(_ICC_MARK):
            pass
        elif _APP1 <= marker <= _APP15 and not (marker == _APP14 and body.startswith(b"Adobe")):
            others.append((marker, body))
    if resolution is None and (found := ifd.resolution(exif)):
        resolution = Resolution(*found)
    if frame is not None:
        sampling = _SAMPLINGS.get(frame.sampling or (1, 1), 0)
        coding = JpegCoding(tables_of(segments), sampling, frame.marker in _PROGRESSIVE)
    metadata = Metadata(
        icc=_profile(segments),
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


def _profile(segments: list[Segment]) -> bytes | None:
    """The ICC profile, put together from its numbered parts; None where one is missing."""
    parts = sorted(
        body[len(_ICC_MARK) :]
        for marker, body in segments
        if marker == _APP2 and body.startswith(_ICC_MARK) and len(body) > len(_ICC_MARK) + 1
    )
    if not parts or parts[0][1] != len(parts):
        return None
    return b"".join(part[2:] for part in parts) or None


def with_head(encoded: Sequence[Buffer], metadata: Metadata) -> Buffer:
    """*encoded* with JFIF and the segments of *metadata* in place of its own JFIF segment.

    The first of its pieces holds that whole.
    """
    first = memoryview(encoded[0])[len(SOI) :]
    if first[:2] == bytes((0xFF, _APP0)):
        first = first[2 + int.from_bytes(first[2:4], "big") :]
    return joined([SOI + written(_segments(metadata)), first, *encoded[1:]])


def _segments(metadata: Metadata) -> list[Segment]:
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
    if metadata.icc:
        icc = metadata.icc
        parts = [icc[at : at + _ICC_PART] for at in range(0, len(icc), _ICC_PART)]
        segments += [
            (_APP2, _ICC_MARK + bytes((number, len(parts))) + part)
            for number, part in enumerate(parts, 1)
        ]
    segments += metadata.jpeg_segments
    segments += [(_COM, comment) for comment in metadata.comments]
    return segments
