"""Boxes, as JPEG 2000, JPEG XL, AVIF and HEIC files are made of: a length, a kind, a body."""

from __future__ import annotations

import struct
from typing import NamedTuple

from cudafilter.errors import ImageError
from cudafilter.formats.limits import require_entries


class Box(NamedTuple):
    """A box, and where its body lies."""

    kind: bytes
    start: int
    stop: int


def boxes(data: bytes, start: int = 0, stop: int | None = None, cut: bool = False) -> list[Box]:
    """The boxes from *start* to *stop*, the last of which may have no length.

    Raises ImageError where one goes past *stop*, unless the data are *cut* there, or where there
    are too many.
    """
    stop = len(data) if stop is None else stop
    found: list[Box] = []
    while start < stop:
        if stop - start < 8:
            if cut:
                break
            raise ImageError("it is cut short, or bytes follow its end")
        length, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if length == 1 and stop - start >= 16:
            (length,) = struct.unpack_from(">Q", data, body)
            body += 8
        elif length == 0:
            length = stop - start
        end = min(start + length, stop) if cut else start + length
        if end < body or end > stop:
            raise ImageError("it is cut short, or damaged: a part goes past its end")
        found.append(Box(kind, body, end))
        require_entries(len(found), "parts")
        start = end
    return found


def box(kind: bytes, *body: bytes) -> bytes:
    """A box of *kind*."""
    whole = b"".join(body)
    if len(whole) + 8 > 0xFFFFFFFF:
        return struct.pack(">I4sQ", 1, kind, len(whole) + 16) + whole
    return struct.pack(">I4s", len(whole) + 8, kind) + whole
