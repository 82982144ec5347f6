"""GIF: its blocks are read here, the coded pixels by Pillow."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ImageError
from cudafilter.formats.limits import Extent, Limits, refuse_frames, require_entries
from cudafilter.formats.metadata import Decoded, Metadata, Resolution
from cudafilter.operations.pixels import Pixels

_EXTENSION, _IMAGE, _END = 0x21, 0x2C, 0x3B
_CONTROL, _COMMENT, _APPLICATION = 0xF9, 0xFE, 0xFF
_XMP, _ICC = b"XMP DataXMP", b"ICCRGBG1012"
_XMP_END = b"\1" + bytes(range(255, -1, -1)) + b"\0"
"""Follows XMP, which lies there without block lengths: leads readers of blocks to the end."""
_SQUARE = 49
"""The aspect ratio's code for square pixels."""
_RAMP = np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes()


@dataclass
class _Frame:
    left: int
    top: int
    width: int
    height: int
    flags: int
    palette: bytes
    clear: int | None
    """The palette entry that is transparent."""
    coded: bytes
    """The size of the first codes and the blocks of codes."""


@dataclass
class _Found:
    """What a file holds."""

    width: int
    height: int
    aspect: int
    frames: list[_Frame] = field(default_factory=list)
    comments: list[bytes] = field(default_factory=list)
    xmp: bytes | None = None
    icc: bytes | None = None
    lost: list[str] = field(default_factory=list)
    end: int = 0


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file."""
    width, height = struct.unpack_from("<HH", head, 6)
    return Extent(width, height, 4, 1)


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode a still GIF: gray, RGB or RGBA. What the picture leaves free is transparent."""
    found = _walk(data)
    if not found.frames:
        raise ImageError("it is damaged: it has no pixels")
    if len(found.frames) > 1:
        refuse_frames(len(found.frames))
    (frame,) = found.frames
    width = max(found.width, frame.left + frame.width)
    height = max(found.height, frame.top + frame.height)
    covered = (width, height) == (frame.width, frame.height)
    colours = np.frombuffer(frame.palette, np.uint8).reshape(-1, 3)
    gray = bool(np.all(colours == np.arange(len(colours), dtype=np.uint8)[:, None]))
    if gray:
        colours = colours[:, :1]
    alpha = not covered or frame.clear is not None
    limits.require_size(width, height, colours.shape[1] + alpha)
    indices = _indices(frame)
    if indices.max() >= len(colours):
        raise ImageError(
            f"it is damaged: a pixel is past the {len(colours)} colours of its palette"
        )
    if alpha:
        opaque: npt.NDArray[np.uint8] = np.full((len(colours), 1), 255, np.uint8)
        if frame.clear is not None and frame.clear < len(colours):
            opaque[frame.clear] = 0
        colours = np.concatenate([colours, opaque], axis=1)
    pixels = colours[indices]
    notes = [] if gray else [f"palette expanded to {'RGBA' if alpha else 'RGB'}"]
    if not covered:
        whole = np.zeros((height, width, pixels.shape[2]), np.uint8)
        top, left = frame.top, frame.left
        whole[top : top + frame.height, left : left + frame.width] = pixels
        pixels = whole
        notes.append("what its picture leaves free is made transparent")
    if found.end < len(data):
        found.lost.append(f"{len(data) - found.end:,} bytes after its end are not kept")
    resolution = None
    if found.aspect not in (0, _SQUARE):
        resolution = Resolution(Fraction(64), Fraction(found.aspect + 15), "")
    metadata = Metadata(found.icc, None, found.xmp, resolution, comments=tuple(found.comments))
    return Decoded(np.ascontiguousarray(pixels), alpha, metadata, (*notes, *found.lost))


def _walk(data: bytes) -> _Found:
    """All blocks of a file. Raises ImageError for one that is cut or damaged."""
    try:
        width, height, flags, _, aspect = struct.unpack_from("<HHBBB", data, 6)
        found = _Found(width, height, aspect)
        shared, at = _palette(data, 13, flags)
        clear: int | None = None
        entries = 0
        while data[at] != _END:
            kind, at = data[at], at + 1
            if kind == _IMAGE:
                left, top, wide, high, flags = struct.unpack_from("<HHHHB", data, at)
                own, at = _palette(data, at + 9, flags)
                end = _skip(data, at + 1)
                if not wide or not high:
                    raise ImageError("it is damaged: a picture in it has no pixels")
                if not (own or shared):
                    raise ImageError("it has no palette")
                coded = data[at:end] if not found.frames else b""
                found.frames.append(
                    _Frame(left, top, wide, high, flags, own or shared, clear, coded)
                )
                at, clear = end, None
            elif kind == _EXTENSION:
                start, end = at + 1, _skip(data, at + 1)
                if data[at] == _CONTROL and data[start] == 4:
                    clear = data[start + 4] if data[start + 1] & 1 else None
                else:
                    entries += 1
                    _extension(data[at], data[start:end], found)
                at = end
            else:
                raise ImageError("it is damaged: it holds a block of an unknown kind")
        require_entries(entries, "blocks")
    except (IndexError, struct.error):
        raise ImageError("it is cut short") from None
    found.end = at + 1
    return found


def _palette(data: bytes, at: int, flags: int) -> tuple[bytes, int]:
    """The palette at *at*, empty if *flags* say that there is none, and where it ends."""
    end = at + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    if end > len(data):
        raise IndexError
    return data[at:end], end


def _skip(data: bytes, at: int) -> int:
    """Where the blocks that begin at *at* end."""
    while length := data[at]:
        at += 1 + length
    return at + 1


def _joined(body: bytes) -> bytes:
    """The content of blocks."""
    pieces, at = [], 0
    while length := body[at]:
        pieces.append(body[at + 1 : at + 1 + length])
        at += 1 + length
    return b"".join(pieces)


def _extension(kind: int, body: bytes, found: _Found) -> None:
    """Keep what *body*, the blocks of an extension, holds, or name it."""
    name = body[1 : 1 + body[0]]
    if kind == _COMMENT:
        found.comments.append(_joined(body))
    elif kind == _APPLICATION and name == _XMP and found.xmp is None:
        rest = body[1 + body[0] :]
        found.xmp = rest.removesuffix(_XMP_END) if rest.endswith(_XMP_END) else _joined(rest)
    elif kind == _APPLICATION and name == _ICC and found.icc is None:
        found.icc = _joined(body[1 + body[0] :])
    elif kind == _APPLICATION:
        found.lost.append(f"GIF application block {name.decode('latin-1')} is not kept")
    else:
        found.lost.append(f"a GIF block of kind {kind} is not kept")


def _indices(frame: _Frame) -> npt.NDArray[np.uint8]:
    """The palette entries (H, W) of *frame*, which Pillow reads from a file of only that."""
    from PIL import GifImagePlugin

    head = struct.pack("<6sHHBBB", b"GIF89a", frame.width, frame.height, 0xF7, 0, 0)
    place = struct.pack("<BHHHHB", _IMAGE, 0, 0, frame.width, frame.height, frame.flags & 0x40)
    file = head + _RAMP + place + frame.coded + bytes([_END])
    try:
        # The palette is gray, so its entries come as gray values.
        indices: Pixels = np.asarray(GifImagePlugin.GifImageFile(BytesIO(file)))
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        raise ImageError("it is damaged, or cut short") from error
    if indices.shape != (frame.height, frame.width):
        raise ImageError("it is damaged, or cut short")
    return indices
