"""A JPEG named first, decoded while Python still imports what filters it.

The decoder works without the interpreter's lock, so on a second core that costs the imports
nothing. This module imports only NumPy and the decoder, so that it begins soon.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Thread

import simplejpeg

from cudafilter.operations.pixels import Pixels
from cudafilter.start.begun import Picture, begun

MOST_PIXELS = 1 << 26
"""Most pixels of a picture that is begun early. For larger ones the start hardly counts, and their
memory should not be taken before they are planned."""

_COLOURS = {"Gray": "GRAY", "YCbCr": "RGB", "RGB": "RGB"}
"""How a picture is coded -> what it is decoded to."""


def begin(path: str) -> None:
    """Begin with the file *path*.

    Raises nothing: whatever fails here is tried again where the picture is needed.
    """
    picture = begun.picture = Picture()
    picture.thread = Thread(target=_decode, args=(path, picture), name="first", daemon=True)
    picture.thread.start()


def pixels_of(data: bytes) -> Pixels | None:
    """The pixels of *data*, (H, W, C) uint8, gray or RGB, if begin() decoded this file; else None.
    They are given away once."""
    picture = begun.picture
    if picture is None or picture.data != data:
        return None
    begun.picture = None
    picture.thread.join()
    return picture.pixels


def _decode(path: str, picture: Picture) -> None:
    with suppress(OSError, ValueError, MemoryError):  # ValueError: simplejpeg's
        with open(path, "rb") as file:
            data = file.read()
        height, width, coding, _ = simplejpeg.decode_jpeg_header(data)
        if height * width <= MOST_PIXELS and coding in _COLOURS:
            picture.data = data
            picture.pixels = simplejpeg.decode_jpeg(data, _COLOURS[coding], strict=True)
