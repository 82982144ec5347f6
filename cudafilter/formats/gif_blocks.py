"""The blocks of GIF files."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from cudafilter.errors import ImageError
from cudafilter.formats.canvas import CLEAR, KEEP, RESTORE, Box
from cudafilter.formats.limits import require_entries

EXTENSION, IMAGE, END = 0x21, 0x2C, 0x3B
CONTROL, COMMENT, APPLICATION = 0xF9, 0xFE, 0xFF
XMP, ICC, LOOPS = b"XMP DataXMP", b"ICCRGBG1012", b"NETSCAPE2.0"
_LOOPS = {LOOPS, b"ANIMEXTS1.0"}
XMP_END = b"\1" + bytes(range(255, -1, -1)) + b"\0"
"""Follows XMP, which lies there without block lengths: leads readers of blocks to the end."""
_DISPOSALS = {2: CLEAR, 3: RESTORE, 4: RESTORE}
"""What a control block says -> what becomes of a picture. Some programs write 4 for 3."""


@dataclass
class Picture:
    """One picture of a file: all of it, or what a frame changes."""

    box: Box
    flags: int
    palette: bytes
    clear: int | None
    """The palette entry that is transparent."""
    delay: int
    """How long it is shown, in hundredths of a second."""
    disposal: int
    """KEEP, CLEAR or RESTORE."""
    coded: range
    """Where the size of the first codes and the blocks of codes lie in the file."""


@dataclass
class Found:
    """What a file holds."""

    width: int
    height: int
    aspect: int
    pictures: list[Picture] = field(default_factory=list)
    comments: list[bytes] = field(default_factory=list)
    xmp: bytes | None = None
    icc: bytes | None = None
    loops: int | None = None
    """How often it is shown again; 0 for ever, None where nothing tells."""
    lost: list[str] = field(default_factory=list)
    end: int = 0


def walk(data: bytes) -> Found:
    """All blocks of a file. Raises ImageError for one that is cut or damaged."""
    try:
        width, height, flags, _, aspect = struct.unpack_from("<HHBBB", data, 6)
        found = Found(width, height, aspect)
        shared, at = _palette(data, 13, flags)
        control: tuple[int | None, int, int] = None, 0, KEEP
        entries = 0
        while data[at] != END:
            kind, at = data[at], at + 1
            if kind == IMAGE:
                left, top, wide, high, flags = struct.unpack_from("<HHHHB", data, at)
                own, at = _palette(data, at + 9, flags)
                end = _skip(data, at + 1)
                if not wide or not high:
                    raise ImageError("it is damaged: a picture in it has no pixels")
                if not (own or shared):
                    raise ImageError("it has no palette")
                box = Box(left, top, wide, high)
                found.pictures.append(
                    Picture(box, flags, own or shared, *control, coded=range(at, end))
                )
                at, control = end, (None, 0, KEEP)
            elif kind == EXTENSION:
                start, end = at + 1, _skip(data, at + 1)
                if data[at] == CONTROL and data[start] == 4:
                    told, delay, clear = struct.unpack_from("<BHB", data, start + 1)
                    disposal = _DISPOSALS.get(told >> 2 & 7, KEEP)
                    control = clear if told & 1 else None, delay, disposal
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


def _extension(kind: int, body: bytes, found: Found) -> None:
    """Keep what *body*, the blocks of an extension, holds, or name it."""
    name = body[1 : 1 + body[0]]
    if kind == COMMENT:
        found.comments.append(_joined(body))
    elif kind == APPLICATION and name == XMP and found.xmp is None:
        rest = body[1 + body[0] :]
        found.xmp = rest.removesuffix(XMP_END) if rest.endswith(XMP_END) else _joined(rest)
    elif kind == APPLICATION and name == ICC and found.icc is None:
        found.icc = _joined(body[1 + body[0] :])
    elif kind == APPLICATION and name in _LOOPS and body[12:14] == b"\3\1" and len(body) >= 16:
        found.loops = int.from_bytes(body[14:16], "little")
    elif kind == APPLICATION:
        found.lost.append(f"GIF application block {name.decode('latin-1')} is not kept")
    else:
        found.lost.append(f"a GIF block of kind {kind} is not kept")


def blocks(body: bytes) -> bytes:
    """*body* as blocks of at most 255 bytes, and the empty one that ends them."""
    parts = [body[at : at + 255] for at in range(0, len(body), 255)]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
