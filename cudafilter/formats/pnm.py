"""PBM, PGM, PPM and PFM: a header of a few words, then samples as bytes or as text."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ImageError
from cudafilter.formats.limits import Limits
from cudafilter.formats.metadata import Decoded, Metadata
from cudafilter.formats.table import Ways
from cudafilter.operations.pixels import Pixels

_COMMENT = re.compile(rb"#[^\r\n]*")
_GAP = re.compile(rb"(?:[ \t\n\v\f\r]+|#[^\r\n]*[\r\n])+")
_WORD = re.compile(rb"[^ \t\n\v\f\r#]{1,32}")
_WHOLE = re.compile(rb"\d{1,9}")
_DIGITS = b"0123456789 \t\n\v\f\r"
_BITS = b"01 \t\n\v\f\r"


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


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode PBM, PGM, PPM or PFM, plain or raw: gray or RGB of 8 or 16 bits, or float32.

    Samples whose greatest value is neither 255 nor 65535 are scaled to the full range, which is
    reversible. A sample past the greatest value is damage.
    """
    header = header_of(data)
    limits.require_size(header.width, header.height, header.channels * header.sample_bytes)
    kind = header.kind
    notes: list[str] = []
    comments: list[bytes] = []
    if kind in b"123":
        samples, comments = _text(data, header)
    else:
        samples, end = _raw(data, header)
        _require_one(data, end, notes)
    comment = b"\n".join([*header.comments, *comments])
    metadata = Metadata(comments=(comment,) if comment else ())
    if header.scale:
        if abs(header.scale) != 1:
            notes.append(f"its scale {abs(header.scale):g} is not kept")
        return Decoded(samples, False, metadata, tuple(notes))
    if kind in b"14":  # 1 is black
        notes.append("1-bit expanded to 8-bit gray")
        return Decoded((1 - samples) * np.uint8(255), False, metadata, tuple(notes))
    maximum = header.maximum
    if samples.max() > maximum:
        raise ImageError(f"a sample is past the greatest value {maximum} that it declares")
    full = 65535 if maximum > 255 else 255
    if maximum != full:
        notes.append(f"samples scaled from 0..{maximum} to {16 if maximum > 255 else 8} bits")
        samples = (samples.astype(np.uint32) * full + maximum // 2) // maximum
    pixels = samples.astype(np.uint16 if maximum > 255 else np.uint8)
    return Decoded(pixels, False, metadata, tuple(notes))


def _raw(data: bytes, header: Header) -> tuple[Pixels, int]:
    """The samples (H, W, C) of a raw file, and where they end."""
    height, width, channels = header.height, header.width, header.channels
    bits = header.kind == ord("4")
    order = "<" if header.scale < 0 else ">"
    stored = np.dtype(order + "f4" if header.scale else ">u2" if header.maximum > 255 else "u1")
    row = -(-width // 8) if bits else width * channels
    start, count = header.start + 1, height * row
    end = start + count * stored.itemsize
    if len(data) < end:
        raise ImageError("it is cut short")
    if data[header.start] not in b" \t\n\v\f\r":
        raise ImageError("it is damaged: its header has no end")
    samples = np.frombuffer(data, stored, count, start).reshape(height, row)
    if bits:
        samples = np.unpackbits(samples, axis=1, count=width)
    if header.scale:
        samples = samples[::-1]  # the lowest row comes first
    native = samples.astype(stored.newbyteorder("="))
    return native.reshape(height, width, channels), end


def _text(data: bytes, header: Header) -> tuple[Pixels, list[bytes]]:
    """The samples (H, W, C) of a plain file, and the comments between them."""
    body = data[header.start :]
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


def _require_one(data: bytes, end: int, notes: list[str]) -> None:
    """Refuse a second image behind the first; note other bytes there."""
    rest = data[end:].strip()
    if re.match(rb"P[1-7Ff]\s", rest):
        raise ImageError(
            "another image follows the first in it",
            hint="extract the images into files of their own first",
        )
    if rest:
        notes.append(f"{len(data) - end:,} bytes after its end are not kept")


def write(pixels: Pixels, metadata: Metadata, ways: Ways) -> bytes:
    """Encode gray (P5) or RGB (P6) *pixels* of 8 or 16 bits."""
    height, width, channels = pixels.shape
    kind, maximum = (5 if channels == 1 else 6), np.iinfo(pixels.dtype).max
    body = pixels.astype(pixels.dtype.newbyteorder(">"), copy=False).tobytes()
    return f"P{kind}\n{width} {height}\n{maximum}\n".encode() + body
