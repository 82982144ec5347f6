"""PBM, PGM, PPM and PFM: a header of a few words, then samples as bytes or as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ImageError
from cudafilter.formats.limits import Extent, Limits
from cudafilter.formats.metadata import Decoded, Metadata
from cudafilter.formats.rows import Header as Picture
from cudafilter.formats.rows import OneFrame, Reader, Strips, WholeReader, Writer
from cudafilter.formats.table import Ways
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Sink, Source, part

_COMMENT = re.compile(rb"#[^\r\n]*")
_GAP = re.compile(rb"(?:[ \t\n\v\f\r]+|#[^\r\n]*[\r\n])+")
_WORD = re.compile(rb"[^ \t\n\v\f\r#]{1,32}")
_WHOLE = re.compile(rb"\d{1,9}")
_DIGITS = b"0123456789 \t\n\v\f\r"
_BITS = b"01 \t\n\v\f\r"
_SPACES = b" \t\n\v\f\r"
_HEAD = 1 << 16
"""Bytes that are read at a time to find where the header ends, or what follows the samples."""
_MARK = 3
"""Bytes that show that another image follows."""


class Header(NamedTuple):
    """What a file begins with."""

    kind: int
    """The letter or digit behind the P."""
    width: int
    height: int
    maximum: int
    """The greatest sample; 1 for PBM, 0 for PFM."""
    scale: float
    """PFM's factor, whose sign is its byte order; 0 for the others."""
    start: int
    """Where the samples begin."""
    comments: tuple[bytes, ...]

    @property
    def channels(self) -> int:
        """Samples a pixel."""
        return 3 if self.kind in b"36F" else 1

    @property
    def sample_bytes(self) -> int:
        """Bytes of a decoded sample."""
        return 4 if self.scale else 2 if self.maximum > 255 else 1


def header_of(data: bytes) -> Header:
    """The header of a file. Raises ImageError for a damaged one."""
    kind = data[1]
    at = 2
    words: list[bytes] = []
    comments: list[bytes] = []
    for _ in range(2 if kind in b"14" else 3):
        gap = _GAP.match(data, at)
        word = _WORD.match(data, gap.end()) if gap else None
        if gap is None or word is None:
            raise ImageError("it is damaged, or cut short in its header")
        comments += (line[1:].strip() for line in _COMMENT.findall(gap.group()))
        words.append(word.group())
        at = word.end()
    if not all(map(_WHOLE.fullmatch, words[:2])):
        raise ImageError("it is damaged: its size is no number, or too large")
    width, height = map(int, words[:2])
    maximum, scale = 1, 0.0
    if kind in b"Ff":
        maximum, scale = 0, _scale(words[2])
    elif len(words) == 3:
        if not _WHOLE.fullmatch(words[2]):
            raise ImageError("it is damaged: its greatest value is no number")
        maximum = int(words[2])
        if not 1 <= maximum <= 65535:
            raise ImageError(f"its greatest value {maximum} is not 1 to 65535")
    if not width or not height:
        raise ImageError("it is damaged: it has no pixels")
    return Header(kind, width, height, maximum, scale, at, tuple(filter(None, comments)))


def _scale(word: bytes) -> float:
    try:
        scale = float(word)
    except ValueError:
        scale = 0.0
    if not scale or not np.isfinite(scale):
        raise ImageError("it is damaged: its scale is no number, or 0")
    return scale


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file."""
    header = header_of(head)
    return Extent(header.width, header.height, header.channels, header.sample_bytes)


def is_decoded_whole(head: bytes) -> bool:
    """Whether the samples of the file that begins with *head* are text."""
    return head[1:2] in (b"1", b"2", b"3")


def open(source: Source, limits: Limits) -> Reader:
    """Read PBM, PGM, PPM or PFM, plain or raw: gray or RGB of 8 or 16 bits, or float32.

    Samples whose greatest value is neither 255 nor 65535 are scaled to the full range, which is
    reversible. A sample past the greatest value is damage.
    """
    header = _header(source)
    limits.require_size(header.width, header.height, header.channels * header.sample_bytes)
    return _Raw(source, header) if header.kind not in b"123" else _plain(source, header)


def _header(source: Source) -> Header:
    """header_of() a file, of whose bytes few are read unless there are long comments."""
    most = _HEAD
    while most < len(source):
        with suppress(ImageError):
            if (header := header_of(source[:most])).start < most:
                return header
        most *= 2
    return header_of(source[:])


class _Raw(OneFrame):
    """The reader of a raw file, whose rows lie where their number says."""

    step, in_order = 1, False

    def __init__(self, source: Source, header: Header) -> None:
        self._source, self._stored = source, header
        channels, bits = header.channels, header.kind == ord("4")
        order = "<" if header.scale < 0 else ">"
        self._type = np.dtype(
            order + "f4" if header.scale else ">u2" if header.maximum > 255 else "u1"
        )
        samples = -(-header.width // 8) if bits else header.width * channels
        self._row = samples * self._type.itemsize
        self._start = header.start + 1
        end = self._start + header.height * self._row
        if len(source) < end:
            raise ImageError("it is cut short")
        if source[header.start : self._start] not in _SPACES:
            raise ImageError("it is damaged: its header has no end")
        self.notes = (*_what_follows(source, end), *_conversions(header))
        self.header = _told(header, header.comments)

    def rows(self, first: int, last: int) -> Pixels:
        """See Reader."""
        header, count = self._stored, last - first
        place = header.height - last if header.scale else first  # PFM's lowest row comes first
        start = self._start + place * self._row
        data = part(self._source, start, start + count * self._row)
        samples = np.frombuffer(data, self._type).reshape(count, -1)
        if header.kind == ord("4"):
            samples = np.unpackbits(samples, axis=1, count=header.width)
        if header.scale:
            samples = samples[::-1]
        native = samples.astype(self._type.newbyteorder("="))
        return _scaled(native.reshape(count, header.width, header.channels), header)


def _plain(source: Source, header: Header) -> Reader:
    """The reader of a file of numbers as text, which shows their places only when it is read."""
    samples, comments = _text(source[header.start :], header)
    told = _told(header, (*header.comments, *comments))
    return WholeReader(
        Decoded(_scaled(samples, header), False, told.metadata, _conversions(header))
    )


def _told(header: Header, comments: Sequence[bytes]) -> Picture:
    comment = b"\n".join(comments)
    metadata = Metadata(comments=(comment,) if comment else ())
    dtype = "float32" if header.scale else "uint16" if header.maximum > 255 else "uint8"
    return Picture(header.width, header.height, header.channels, dtype, False, metadata)


def _conversions(header: Header) -> tuple[str, ...]:
    """What becomes of the samples, for the user."""
    if header.scale:
        factor = abs(header.scale)
        return (f"its scale {factor:g} is not kept",) if factor != 1 else ()
    if header.kind in b"14":
        return ("1-bit expanded to 8-bit gray",)
    maximum, bits = header.maximum, 8 * header.sample_bytes
    if maximum == (1 << bits) - 1:
        return ()
    return (f"samples scaled from 0..{maximum} to {bits} bits",)


def _scaled(samples: Pixels, header: Header) -> Pixels:
    """*samples* over the whole range of their type. Raises ImageError for one past the greatest."""
    if header.scale:
        return samples
    if header.kind in b"14":  # 1 is black
        return (1 - samples.astype(np.uint8, copy=False)) * np.uint8(255)
    maximum = header.maximum
    if samples.size and samples.max() > maximum:
        raise ImageError(f"a sample is past the greatest value {maximum} that it declares")
    full = 65535 if maximum > 255 else 255
    if maximum != full:
        samples = (samples.astype(np.uint32) * full + maximum // 2) // maximum
    return samples.astype(np.uint16 if maximum > 255 else np.uint8, copy=False)


def _text(body: bytes, header: Header) -> tuple[Pixels, list[bytes]]:
    """The samples (H, W, C) of a plain file, and the comments between them."""
    comments = [line[1:].strip() for line in _COMMENT.findall(body)]
    body = _COMMENT.sub(b"", body)
    count = header.width * header.height * header.channels
    bits = header.kind == ord("1")
    if body.translate(None, _BITS if bits else _DIGITS):
        raise ImageError("it is damaged: a sample is no number")
    samples: npt.NDArray[np.integer[npt.NBitBase]]
    if bits:  # they need no gaps
        samples = np.frombuffer(body.translate(None, _BITS[2:]), np.uint8) - np.uint8(ord("0"))
    else:  # numbers of any length: past 64 bits they are the greatest ones
        samples = np.fromstring(body, np.int64, sep=" ") if body.strip() else np.empty(0, np.int64)
    if len(samples) < count:
        raise ImageError("it is cut short")
    if len(samples) > count:
        raise ImageError("it is damaged: it holds more samples than its size needs")
    return samples.reshape(header.height, header.width, header.channels), comments


def _what_follows(source: Source, end: int) -> tuple[str, ...]:
    """Refuse a second image behind the first; tell of other bytes there."""
    rest = b""
    for at in range(end, len(source), _HEAD):
        rest = (rest + source[at : at + _HEAD]).lstrip()
        if len(rest.rstrip()) > _MARK:
            break
    if re.match(rb"P[1-7Ff]\s", rest.rstrip()):
        raise ImageError(
            "another image follows the first in it",
            hint="extract the images into files of their own first",
        )
    return (f"{len(source) - end:,} bytes after its end are not kept",) if rest else ()


def create(target: Sink, header: Picture, ways: Ways) -> Writer:
    """Write gray (P5) or RGB (P6) pixels of 8 or 16 bits."""
    return _Writer(target, header)


class _Writer(OneFrame):
    def __init__(self, target: Sink, header: Picture) -> None:
        kind, maximum = (5 if header.channels == 1 else 6), np.iinfo(header.dtype).max
        target.write(f"P{kind}\n{header.width} {header.height}\n{maximum}\n".encode())
        self._target, self._strips = target, Strips(header, 1)

    def write(self, rows: Pixels) -> None:
        """See Writer."""
        rows, _, _ = self._strips.add(rows)
        stored = rows.astype(rows.dtype.newbyteorder(">"), order="C")  # a copy in any case
        self._target.write(stored.reshape(-1).view(np.uint8).data)

    def close(self) -> None:
        """See Writer."""
        self._strips.require_complete()
