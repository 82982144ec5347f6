"""WebP: its chunks are read and written here, the pixels by Pillow, which is libwebp."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats import ifd
from cudafilter.formats.canvas import Box, box_of, changed
from cudafilter.formats.frames import FrameReader, FrameWriter
from cudafilter.formats.limits import Extent, Limits, require_entries
from cudafilter.formats.metadata import EXIF_MARK, Animation, Decoded, Metadata, Resolution
from cudafilter.formats.rows import Header, Reader, WholeReader, WholeWriter, Writer
from cudafilter.formats.table import Ways
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Sink, Source

MAX_SIDE = 16383
_MAX_TIME, _MAX_PLAYS = (1 << 24) - 1, 65535
"""Milliseconds of a frame, and how often an animation can be shown."""
_PICTURE = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}
_CODED = {b"ALPH", b"VP8 ", b"VP8L"}
_HAS_ICC, _HAS_ALPHA, _HAS_EXIF, _HAS_XMP, _MOVES = 0x20, 0x10, 0x08, 0x04, 0x02
"""What the first byte of VP8X tells."""
_PLACED = 16
"""Bytes of ANMF before the coded picture."""
_IN_PLACE, _CLEARED = 2, 1
"""Flags of ANMF: the picture takes the place of what is there, and is cleared before the next."""


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file; ImageError for a damaged one."""
    kind, body = head[12:16], head[20:30]
    if len(body) == 10 and kind == b"VP8X":
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
        return Extent(width, height, 3 + bool(body[0] & _HAS_ALPHA), 1)
    return _coded_extent(kind, body)


def _coded_extent(kind: bytes, body: bytes) -> Extent:
    """That of a coded picture, by the first bytes of its chunk."""
    alpha = 0
    if len(body) >= 10 and kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
    elif len(body) >= 5 and kind == b"VP8L" and body[0] == 0x2F:
        sides = int.from_bytes(body[1:5], "little")
        width, height = (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
        alpha = sides >> 28 & 1
    else:
        raise ImageError("it is damaged: it does not begin with its size")
    return Extent(width, height, 3 + alpha, 1)


def is_decoded_whole(head: bytes) -> bool:
    """Whether all pixels of a frame are decoded at once."""
    return True


def is_encoded_whole(header: Header, ways: Ways) -> bool:
    """Whether all pixels of a frame are encoded at once."""
    return True


def frames(source: Source) -> int:
    """How many pictures there are."""
    head = source[:21]
    if head[12:16] != b"VP8X" or not head[20] & _MOVES:
        return 1
    chunks, _ = _chunks(source[:])
    return max(1, sum(kind == b"ANMF" for kind, _ in chunks))


class _Frame(NamedTuple):
    """What is told of a frame before it is decoded."""

    box: Box
    seconds: Fraction
    flags: int
    alpha: bool


def open(source: Source, limits: Limits) -> Reader:
    """Read a WebP: RGB or RGBA frames."""
    from cudafilter.formats.pillow import open_pillow, pixels_of

    data = source[:]
    limits.require_size(*extent(data)[:2])
    chunks, end = _chunks(data)
    told = [_frame(body) for kind, body in chunks if kind == b"ANMF"]
    metadata, notes = _metadata(chunks, len(data) - end)
    if len(told) > 1:
        return FrameReader(len(told), _composed(data[:end], told, metadata, limits), notes)
    try:
        pixels, alpha, converted = pixels_of(open_pillow(data[:end], "WebP", limits))
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError("it is damaged, or cut short") from error
    return WholeReader(Decoded(pixels, alpha, metadata, (*converted, *notes)))


def _metadata(chunks: list[tuple[bytes, bytes]], surplus: int) -> tuple[Metadata, tuple[str, ...]]:
    """What *chunks* hold beside pixels, and notes on what is not kept."""
    first = dict(reversed(chunks))
    exif = first.get(b"EXIF", b"").removeprefix(EXIF_MARK) or None
    found = ifd.resolution(exif)
    kinds = [kind for kind, _ in chunks]
    animation = None
    if kinds.count(b"ANMF") > 1:
        told = first.get(b"ANIM", b"")
        if len(told) != 6:
            raise ImageError("it is damaged: it does not tell how often it is shown")
        animation = Animation(int.from_bytes(told[4:], "little"), told[:4])
    metadata = Metadata(
        first.get(b"ICCP") or None,
        exif,
        first.get(b"XMP ") or None,
        Resolution(*found) if found else None,
        animation=animation,
    )
    notes = []
    others = set(kinds) - (_PICTURE | {b"ICCP", b"EXIF", b"XMP "})
    others |= {kind for kind in (b"ICCP", b"EXIF", b"XMP ") if kinds.count(kind) > 1}
    if others:
        names = ", ".join(sorted(kind.decode("latin-1").strip() for kind in others))
        notes.append(f"not kept, for they are not known or there twice: WebP {names}")
    if surplus:
        notes.append(f"{surplus:,} bytes after its end are not kept")
    return metadata, tuple(notes)


def _chunks(data: bytes) -> tuple[list[tuple[bytes, bytes]], int]:
    """All chunks (type, data), and where the file's own size says that it ends.

    Without the data of coded pictures; of a frame only the first bytes.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if len(data) < end:
        raise ImageError("it is cut short")
    found: list[tuple[bytes, bytes]] = []
    at = 12
    while at < end:
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + length > end:
            raise ImageError("it is damaged: a chunk goes past its end")
        kept = 0 if kind in _CODED else min(length, _PLACED + 18) if kind == b"ANMF" else length
        found.append((kind, data[at + 8 : at + 8 + kept]))
        at += 8 + length + (length & 1)
    require_entries(sum(kind not in _PICTURE for kind, _ in found), "chunks")
    return found, max(at, end)


def _frame(body: bytes) -> _Frame:
    """What the first bytes of ANMF tell."""
    if len(body) < _PLACED + 18:
        raise ImageError("it is damaged: a frame has no picture")
    left, top, width, height, time = (
        int.from_bytes(body[at : at + 3], "little") for at in range(0, 15, 3)
    )
    kind, coded = body[_PLACED : _PLACED + 4], body[_PLACED + 8 :]
    alpha = kind == b"ALPH" or _coded_extent(kind, coded).channels == 4
    box = Box(2 * left, 2 * top, width + 1, height + 1)
    return _Frame(box, Fraction(time, 1000), body[15], alpha)


def _composed(
    data: bytes, frames: list[_Frame], metadata: Metadata, limits: Limits
) -> Iterator[tuple[Header, Pixels]]:
    """The frames as libwebp shows them. Viewers ignore the background colour, and so does it."""
    from cudafilter.formats.pillow import open_pillow, pixels_of

    width, height, _, _ = extent(data)
    if data[12:16] != b"VP8X":
        raise ImageError("it is damaged: frames are in a file of one picture")
    alpha = (
        frames[0].box != (0, 0, width, height)
        or any(frame.alpha for frame in frames)
        or any(frame.flags & _CLEARED for frame in frames[:-1])
    )
    # The flag may be missing where there is transparency, which would be lost then.
    data = data[:20] + bytes([data[20] | _HAS_ALPHA]) + data[21:]
    try:
        image = open_pillow(data, "WebP", limits, several=True)
        if image.n_frames != len(frames):  # type: ignore[attr-defined]
            raise ImageError("it is damaged: its frames are not those that it tells of")
        for number, frame in enumerate(frames):
            image.seek(number)
            pixels, _, _ = pixels_of(image)
            pixels = np.ascontiguousarray(pixels[..., : 3 + alpha])
            yield Header.of(pixels, alpha, metadata, frame.seconds), pixels
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError("it is damaged, or cut short") from error


def create(target: Sink, header: Header, ways: Ways) -> Writer:
    """Write uint8 pixels: lossless unless a quality is given. Gray becomes RGB."""
    if max(header.height, header.width) > MAX_SIDE:
        raise ImageError(
            f"{header.width} x {header.height} pixels are more than the {MAX_SIDE} a side that"
            " WebP holds",
            hint="choose .png or .tif",
        )
    if header.frames > 1:
        return _AnimationWriter(target, header, ways)
    return WholeWriter(target, header, ways, _still)


def _still(pixels: Pixels, metadata: Metadata, ways: Ways) -> bytes:
    from cudafilter.formats.pillow import save_pillow

    options: dict[str, Any] = {"lossless": ways.quality is None}
    if ways.quality is not None:
        options["quality"] = ways.quality
    # exact keeps the colour of transparent pixels.
    return save_pillow(
        pixels,
        "WebP",
        exact=True,
        icc_profile=metadata.icc or b"",
        exif=metadata.exif or b"",
        xmp=metadata.xmp or b"",
        **options,
    )


class _AnimationWriter(FrameWriter):
    """Of each frame what differs from the one before it, in place of what is there."""

    def __init__(self, target: Sink, header: Header, ways: Ways) -> None:
        super().__init__(header)
        self._target, self._ways = target, ways
        self._shown: Pixels | None = None
        metadata, animation = header.metadata, header.metadata.animation
        assert animation is not None
        if animation.plays > _MAX_PLAYS:
            raise ImageError(
                f"it is shown {animation.plays:,} times, and WebP holds at most {_MAX_PLAYS:,}"
            )
        flags = _MOVES | _HAS_ALPHA * header.alpha | _HAS_ICC * bool(metadata.icc)
        flags |= _HAS_EXIF * bool(metadata.exif) | _HAS_XMP * bool(metadata.xmp)
        for piece in (b"RIFF", bytes(4), b"WEBP"):  # its size follows
            target.write(piece)
        self._bytes = 4
        self._put(b"VP8X", bytes([flags, 0, 0, 0]) + _threes(header.width - 1, header.height - 1))
        if metadata.icc:
            self._put(b"ICCP", metadata.icc)
        background = animation.background or bytes(4)
        self._put(b"ANIM", background + struct.pack("<H", animation.plays))

    def _put(self, kind: bytes, body: bytes) -> None:
        piece = kind + struct.pack("<I", len(body)) + body + bytes(len(body) & 1)
        self._target.write(piece)
        self._bytes += len(piece)

    def _add(self, header: Header, pixels: Pixels) -> None:
        """See FrameWriter."""
        box = Box(0, 0, header.width, header.height)
        if self._shown is not None:
            box = box_of(changed(pixels, self._shown), even=True)
        self._shown = pixels
        coded = _still(np.ascontiguousarray(box.of(pixels)), Metadata(), self._ways)
        time = (header.seconds or 0) * 1000
        if time != round(time):
            self.notes = ("durations are rounded to milliseconds, as WebP holds them",)
        if round(time) > _MAX_TIME:
            raise ImageError(
                f"a frame is shown for {float(time) / 1000:g} s, and WebP holds at most 16777 s"
            )
        place = _threes(box.left // 2, box.top // 2, box.width - 1, box.height - 1, round(time))
        self._put(b"ANMF", place + bytes([_IN_PLACE]) + _coded(coded))

    def _end(self) -> None:
        """See FrameWriter."""
        metadata = self._first.metadata
        if metadata.exif:
            self._put(b"EXIF", metadata.exif)
        if metadata.xmp:
            self._put(b"XMP ", metadata.xmp)
        self._target.patch(4, struct.pack("<I", self._bytes))


def _threes(*numbers: int) -> bytes:
    """*numbers* as WebP has them, in three bytes each."""
    return b"".join(number.to_bytes(3, "little") for number in numbers)


def _coded(file: bytes) -> bytes:
    """The chunks of the coded picture in a still *file*."""
    found, at = b"", 12
    while at < len(file):
        stop = at + 8 + int.from_bytes(file[at + 4 : at + 8], "little")
        stop += stop - at & 1
        if file[at : at + 4] in _CODED:
            found += file[at:stop]
        at = stop
    return found
