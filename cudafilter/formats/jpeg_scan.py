"""The scans of a JPEG: whether all of the picture is there.

A decoder takes what it finds and is silent of a scan that is missing. What is inside a scan is for
the decoder to judge.
"""

from __future__ import annotations

import re
import threading
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ImageError
from cudafilter.formats.jpeg_head import (
    APP0,
    APP15,
    COM,
    DHT,
    DRI,
    EOI,
    FRAMES,
    SOI,
    SOS,
    Frame,
    Segment,
    names_of,
)
from cudafilter.operations.pixels import Pixels

BLOCK = 8
"""Pixels a side of what is coded as one."""
MOST_SCANS = 100
"""Encoders write 10 to 20. For each, a decoder goes through the whole picture, whatever its
bytes."""
_HOLE = bytes(16)
"""Where zeros are the code of a coefficient, so many are some forty times the same value in a row,
which no picture has. Unwritten parts of a file are such holes."""
_SUSPECT = bytes(8)
"""So many zeros can be flat parts of a picture. They are rare in a photo."""
_STANDARD = {0: 0x01, 1: 0x00}
"""Of the standard's tables for coefficients the symbol whose code is all zeros."""
_ARITHMETIC = 0xC9
"""Frames from here on are coded so."""
_RST0, _RST7 = 0xD0, 0xD7
_FOLLOWED = b"MPF\0", b"Container", b"MotionPhoto", b"MicroVideo"
"""Words in the head of a file that tells of pictures or a film behind its end."""
_END, _FILL = bytes([0xFF, EOI]), b"\xff\xff"
_CUT = "it is cut off: no end marker follows its picture"
_RESTART = rb"\xff[\xd0-\xd7]"
_MISSING = 99
"""More than the lowest bit of a coefficient."""
_PIECE = 1 << 22
"""Bytes that are looked through at a time."""


class _Scratch(threading.local):
    """Memory of each thread for a piece: to map and give back megabytes for each picture made 16
    threads half as fast."""

    def __init__(self) -> None:
        self.flags = np.empty(_PIECE, np.bool_)


_scratch = _Scratch()


class Scan(NamedTuple):
    """One scan, as its header says, and where its coded data are."""

    components: tuple[int, ...]
    """Their places in the frame."""
    first: int
    last: int
    """Coefficients, 0..63."""
    known: int
    """Lowest bit of them that the scans before brought; 0 if none."""
    low: int
    """Lowest bit that this one brings."""
    data: memoryview
    restarts: bytes
    """The codes of its restart markers."""


class Scans(NamedTuple):
    """What follows the head of a file."""

    scans: tuple[Scan, ...]
    trailer: int
    """Bytes after the end marker; 0 where they are padding."""
    doubt: int
    """Where in *rest* coded data end which have a hole that may be a flat part; 0 if none do."""
    between: int
    """Bytes of metadata behind the first scan."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        lost = {"among its scans": self.between, "after the picture's end": self.trailer}
        return tuple(
            f"{count:,} bytes {where} are not kept" for where, count in lost.items() if count
        )


def scans_of(segments: list[Segment], rest: memoryview, frame: Frame) -> Scans:
    """The scans in *rest*, which begins at the first one.

    Raises ImageError unless an end marker follows them, they bring all of each channel, and their
    bytes can hold so many blocks.
    """
    names = names_of(segments, frame)
    zeros = dict(_STANDARD)
    for segment in segments:
        _note_tables(zeros, *segment)
    places, codes = _marks(rest)
    found: list[Scan] = []
    at = doubt = between = 0
    while rest[at : at + 2] != _END:
        if at + 4 > len(rest):
            raise ImageError(_CUT)
        marker, length = rest[at + 1], int.from_bytes(rest[at + 2 : at + 4], "big")
        start = at + 2 + length
        if rest[at] != 0xFF or marker in FRAMES or marker == SOI[1] or length < 2:
            raise ImageError("it is damaged: there is no end marker behind its picture")
        if marker == SOS:
            first = int(np.searchsorted(places, start))
            end = first + _restarts(codes[first:])
            if end == places.size:
                raise ImageError(_CUT)
            data, restarts = rest[start : int(places[end])], codes[first:end].tobytes()
            header = bytes(rest[at + 4 : start])
            found.append(_scan(header, names, data, restarts))
            if not doubt and (inside := _doubt(found[-1], header, zeros, frame)):
                doubt = start + inside
            if len(found) > MOST_SCANS:
                raise ImageError(f"it has more than {MOST_SCANS} scans, which are not read")
            start = int(places[end])
        elif APP0 <= marker <= APP15 or marker == COM:
            between += length
        else:
            _note_tables(zeros, marker, bytes(rest[at + 4 : start]))
        at = start
        while rest[at : at + 2] == _FILL:
            at += 1
    _require_all(found, frame)
    _require_bytes(found, frame)
    return Scans(tuple(found), _trailer(rest[at + 2 :]), doubt, between)


def is_simple(segments: list[Segment], rest: memoryview, frame: Frame) -> bool:
    """Whether a file of one scan, with what follows its head in *rest*, needs no scans_of().

    That looks at each byte several times and gives the interpreter's lock away each time: many
    threads then wait for it longer than they work. A file without restart markers that ends with
    an end marker and has no hole is left to a look at what was decoded, see is_flat(). What it does
    not see is a further picture behind the end that nothing in the head tells of.
    """
    if rest[-2:] != _END or _restart_interval(segments) or _bits(frame) > 8 * len(rest):
        return False
    for marker, body in segments:
        if APP0 <= marker <= APP15 and any(mark in body for mark in _FOLLOWED):
            return False
    return _find(rest, _SUSPECT) < 0


def is_suspect(segments: list[Segment], scan: Scan, frame: Frame) -> bool:
    """Whether *scan*, the only one, looks as a damaged one does: a strict decoder should judge it.

    That is for decoders that do not tell of damage. Restart markers are counted; a hole is seen.
    """
    interval = _restart_interval(segments)
    across = max(part.across for part in frame.components)
    down = max(part.down for part in frame.components)
    if len(frame.components) == 1:
        across = down = 1
    units = -(-frame.width // (8 * across)) * -(-frame.height // (8 * down))
    expected = (units - 1) // interval if interval else 0
    if len(scan.restarts) != expected:
        return True
    in_order = bytes(range(_RST0, _RST7 + 1)) * (expected // 8 + 1)
    return scan.restarts != in_order[:expected] or _find(scan.data, _SUSPECT) >= 0


def _restart_interval(segments: list[Segment]) -> int:
    """Units from one restart marker to the next; 0 where there are none."""
    bodies = [body for marker, body in segments if marker == DRI and len(body) >= 2]
    return int.from_bytes(bodies[-1][:2], "big") if bodies else 0


def is_flat(end: Pixels) -> bool:
    """Whether the last block of a picture is of one colour, by its last rows of blocks.

    So is all that nvJPEG gives behind an end that comes early; it does not tell of it. The
    block's first row and column are left out: chroma from before the end may have come into them.
    """
    columns = (end.shape[1] - 1) % BLOCK + 1
    block = end[len(end) > 1 :, end.shape[1] - columns + (columns > 1) :]
    return bool((block == block[-1, -1]).all())


def _marks(rest: memoryview) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint8]]:
    """Where markers are, in scans and in other bytes that look alike, and their codes."""
    data = np.frombuffer(rest, np.uint8)
    found = [np.empty(0, np.intp)]
    for first in range(0, data.size - 1, _PIECE):
        piece = data[first : min(first + _PIECE, data.size - 1)]
        flags = np.equal(piece, 0xFF, out=_scratch.flags[: piece.size])
        found.append(np.flatnonzero(flags) + first)
    places = np.concatenate(found)
    codes = data[1:][places]
    markers = (codes != 0) & (codes != 0xFF)
    return places[markers], codes[markers]


def _restarts(codes: npt.NDArray[np.uint8]) -> int:
    """How many of *codes*, before any other, are of restart markers."""
    others = np.flatnonzero((codes < _RST0) | (codes > _RST7))
    return int(others[0]) if others.size else codes.size


def _scan(header: bytes, names: bytes, data: memoryview, restarts: bytes) -> Scan:
    count = header[0] if header else 0
    chosen = header[1 : 1 + 2 * count : 2]
    if not count or len(header) != 4 + 2 * count or any(name not in names for name in chosen):
        raise ImageError("it is damaged: a scan's header is wrong")
    first, last, bits = header[1 + 2 * count :]
    places = tuple(names.index(name) for name in chosen)
    return Scan(places, first, last, bits >> 4, bits & 15, data, restarts)


def _find(data: memoryview, zeros: bytes) -> int:
    """Where *zeros*, at least 7 of them, are in *data*; -1 if nowhere.

    Hardly ever is there a word of zeros, and NumPy finds that without the interpreter's lock.
    """
    samples = np.frombuffer(data, np.uint8)
    # Aligned words are compared ten times as fast as others.
    start = -samples.__array_interface__["data"][0] % 4
    words = samples[start : start + (samples.size - start) // 4 * 4].view(np.uint32)
    return bytes(data).find(zeros) if words.min(initial=1) == 0 else -1


def _note_tables(zeros: dict[int, int], marker: int, body: bytes) -> None:
    """Keep of each table for coefficients, by its number, the symbol whose code is all zeros."""
    while marker == DHT and len(body) > 17:
        if body[0] >> 4:
            zeros[body[0] & 15] = body[17]
        body = body[17 + sum(body[1:17]) :]


def _doubt(scan: Scan, header: bytes, zeros: dict[int, int], frame: Frame) -> int:
    """Where in a scan the data end that have a hole; 0 where there is none.

    Raises ImageError for a hole where zeros code coefficients. Elsewhere it may be a flat part.
    """
    if frame.marker >= _ARITHMETIC or (hole := _find(scan.data, _HOLE)) < 0:
        return 0
    symbols = (zeros.get(numbers & 15, 0) for numbers in header[2 : 1 + 2 * header[0] : 2])
    brings_all = not frame.progressive or (scan.first > 0 and not scan.known)
    if brings_all and any(symbol & 15 for symbol in symbols):
        raise ImageError("it is damaged: there is a hole of zeros in its picture")
    restart = re.compile(_RESTART).search(scan.data, hole)
    return restart.start() if restart else len(scan.data)


def _require_all(scans: list[Scan], frame: Frame) -> None:
    """Raise ImageError unless *scans* bring each bit of each coefficient, and each one once."""
    size = 64 if frame.progressive else 1
    # Of each coefficient the lowest bit so far.
    low = [[_MISSING] * size for _ in frame.components]
    for scan in scans:
        first, last = (scan.first, min(scan.last, 63)) if frame.progressive else (0, 0)
        known, after = (scan.known, scan.low) if frame.progressive else (0, 0)
        for part in scan.components:
            for coefficient in range(first, last + 1):
                if low[part][coefficient] != (known or _MISSING) or (known and after != known - 1):
                    raise ImageError("it is damaged: its scans do not follow each other")
                low[part][coefficient] = after
    if any(bit for part in low for bit in part):
        raise ImageError("it is damaged: scans of it are missing")


def _require_bytes(scans: list[Scan], frame: Frame) -> None:
    """Raise ImageError where Huffman coding cannot have brought so many blocks in so few bytes."""
    if frame.marker < _ARITHMETIC and _bits(frame) > 8 * sum(len(scan.data) for scan in scans):
        raise ImageError(
            f"it is cut off: its bytes cannot hold {frame.width} x {frame.height} pixels"
        )


def _bits(frame: Frame) -> int:
    """The fewest bits that Huffman coding needs for all blocks."""
    across = max(part.across for part in frame.components)
    down = max(part.down for part in frame.components)
    blocks = sum(
        -(-frame.width * part.across // (8 * across)) * -(-frame.height * part.down // (8 * down))
        for part in frame.components
    )
    # A block has a code for its mean, and one for the rest or a share of one.
    return blocks * (1 if frame.progressive else 2)


def _trailer(after: memoryview) -> int:
    return len(after) if bytes(after).strip(b"\0\xff") else 0
