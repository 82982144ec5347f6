"""Standard output, as what a file is written into."""

from __future__ import annotations

from typing import BinaryIO

from cudafilter.errors import ImageError
from cudafilter.stores.buffers import Buffer


class Stream:
    """A Sink: standard output."""

    can_patch = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, piece: Buffer) -> None:
        write_all(self._stream, piece)

    def patch(self, at: int, piece: bytes) -> None:
        raise AssertionError(f"byte {at} was sent")


def write_all(stream: BinaryIO, data: Buffer) -> None:
    """Write *data* to the end: under PYTHONUNBUFFERED a pipe takes only a part at a time.

    Raises ImageError, or BrokenPipeError where the reader has gone.
    """
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[stream.write(rest) :]
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ImageError(f"standard output: cannot be written: {error.strerror}") from error
