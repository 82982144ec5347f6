"""A JPEG named first, decoded while Python still imports what filters it.

The decoder works without the interpreter's lock, so on a second core that costs the imports
nothing. This module imports only NumPy and the decoder, so that it begins soon.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Thread

import simplejpeg

from cudafilter.pixels import Pixels

MOST_PIXELS = 1 << 26
"""Of larger pictures the start is a small part, and memory is not to be taken before they are
planned."""

_COLOURS = {"Gray": "GRAY", "YCbCr": "RGB", "RGB": "RGB"}
"""How a picture is coded -> what it is decoded to."""

_first: _First | None = None


def begin(path: str) -> None:
    """Begin with the file *path*.

    Nothing is raised: what fails here fails again where the picture is needed, which tells why.
    """
    global _first
    _first = _First(path)
    _first.start()


def pixels_of(data: bytes) -> Pixels | None:
    """(H, W, C) uint8, gray or RGB: what simplejpeg decodes *data* to, if it is the file begun
    with; given away once."""
    global _first
    first = _first
    if first is None or first.data != data:
        return None
    _first = None
    first.join()
    return first.pixels


class _First(Thread):
    def __init__(self, path: str) -> None:
        super().__init__(name="ahead", daemon=True)
        self._path = path
        self.data: bytes | None = None
        """The file, as soon as it is read."""
        self.pixels: Pixels | None = None

    def run(self) -> None:
        with suppress(OSError, ValueError, MemoryError):  # ValueError: simplejpeg's
            with open(self._path, "rb") as file:
                data = file.read()
            height, width, coding, _ = simplejpeg.decode_jpeg_header(data)
            if height * width <= MOST_PIXELS and coding in _COLOURS:
                self.data = data
                self.pixels = simplejpeg.decode_jpeg(data, _COLOURS[coding], strict=True)
