"""Files of this machine, pipes and devices, read whole or some bytes at any place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG

from cudafilter.errors import ImageError
from cudafilter.host.cores import free_memory
from cudafilter.stores.buffers import Source

_PIECE = 1 << 20
"""Bytes that are read at a time of what does not tell its size."""
_HEAD = 64
"""Bytes that show what a file is."""


class File:
    """A file that is open: a Source of as many bytes as it had then."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        found = os.pread(self._descriptor, max(0, stop - start), start)
        while found and start + len(found) < stop:  # more than the system reads at once
            more = os.pread(self._descriptor, stop - start - len(found), start + len(found))
            if not more:  # it was cut meanwhile
                break
            found += more
        return found


@contextmanager
def open(path: Path) -> Iterator[Source]:
    """See Store.open."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        yield File(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path, look: Callable[[bytes], object], most: int) -> bytes:
    """See Store.read. Path.read_bytes() in half as many calls of the system.

    Each gives the interpreter's lock away, and with many images in work it takes long to come back:
    up to half a millisecond, on a busy host.
    """
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(file)
        size = status.st_size
        if not S_ISREG(status.st_mode):
            if os.isatty(file):
                raise ImageError("it is a terminal, not an image")
            return to_end(lambda count: os.read(file, count), look, most)
        if size > _PIECE:
            look(os.read(file, _HEAD))
            os.lseek(file, 0, os.SEEK_SET)
        if size > most and size > (free_memory() or size):
            raise MemoryError
        piece = os.read(file, size + 1)
        if len(piece) == size:
            return piece
        # It grows, or is more than the system reads at once.
        rest = to_end(lambda count: os.read(file, count), look, max(size, most), piece[:_HEAD])
        return piece + rest
    finally:
        os.close(file)


def to_end(
    read: Callable[[int], bytes], look: Callable[[bytes], object], most: int, head: bytes = b""
) -> bytes:
    """What *read* gives until it gives nothing: *head* is what was read before, if anything.

    *look* is given the first bytes once they are there. Raises ImageError past *most* bytes.
    """
    pieces: list[bytes] = []
    size = 0
    while piece := read(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if len(head) < _HEAD:
            head += piece[:_HEAD]
            if len(head) >= _HEAD:
                look(head)
        if size > most:
            raise ImageError(
                f"it goes on past {most:,} bytes, which is all that is read of a pipe or device",
                hint="save it as a file first",
            )
    return b"".join(pieces)
