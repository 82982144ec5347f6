"""The bytes of files: where they come from, where they go, and put together without the lock.

Copying megabytes takes milliseconds; ``bytes`` does it, sliced or joined, while no other thread
runs, and many images are in work at a time. So what is large stays a memoryview until it is copied
here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias

import numpy as np

Buffer: TypeAlias = bytes | memoryview
"""Bytes of a file; a memoryview is of single bytes, contiguous."""


class Source(Protocol):
    """The bytes of a file that is read, at any place: ``bytes``, or a file that a store opened."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


class Sink(Protocol):
    """Where the bytes of a file that is written go."""

    can_patch: bool
    """Whether patch() may be called: what was sent to a pipe stays as it is."""

    def write(self, piece: Buffer, /) -> object:
        """Add *piece* to the end."""
        ...

    def patch(self, at: int, piece: bytes, /) -> object:
        """Put *piece* in place of bytes that were written at offset *at*, in one piece."""
        ...


class Pieces:
    """A Sink in memory."""

    can_patch = True

    def __init__(self) -> None:
        self._pieces: list[Buffer] = []

    def write(self, piece: Buffer) -> None:
        """Keep *piece*, which is not copied."""
        self._pieces.append(piece)

    def patch(self, at: int, piece: bytes) -> None:
        """See Sink."""
        for number, old in enumerate(self._pieces):
            if at < len(old):
                assert at + len(piece) <= len(old)
                self._pieces[number] = b"".join((old[:at], piece, old[at + len(piece) :]))
                return
            at -= len(old)
        raise AssertionError("nothing was written there")

    def joined(self) -> Buffer:
        """All that was written."""
        return self._pieces[0] if len(self._pieces) == 1 else joined(self._pieces)


def part(source: Source, start: int, stop: int) -> Buffer:
    """Bytes *start* to *stop* of *source*, not copied where they are in memory."""
    return memoryview(source)[start:stop] if isinstance(source, bytes) else source[start:stop]


def joined(pieces: Iterable[Buffer]) -> Buffer:
    """*pieces*, one of them at least, end to end."""
    return np.concatenate([np.frombuffer(piece, np.uint8) for piece in pieces]).data


def gathered(source: Source, spans: Sequence[range]) -> Buffer:
    """The bytes of *spans* of *source*, one span at least, end to end.

    NumPy waits for the interpreter's lock after each copy, and a PNG may have thousands of short
    chunks: with 16 threads that took most of a picture's time. Most encoders write chunks of one
    length. So spans that are equally long and equally far apart are copied at once.
    """
    if len(spans) == 1:
        return part(source, spans[0].start, spans[0].stop)
    if not isinstance(source, bytes):
        return joined([source[span.start : span.stop] for span in spans])
    starts = np.array([span.start for span in spans])
    lengths = np.array([len(span) for span in spans])
    strides = np.diff(starts, append=0)  # to the next span; the last one's is not used
    out, at = np.empty(lengths.sum(), np.uint8), 0
    alike = (np.diff(lengths) == 0) & (np.diff(strides) == 0)
    for run in np.split(np.arange(len(spans)), np.flatnonzero(~alike) + 1):
        shape, first = (len(run), lengths[run[0]]), run[0]
        end = at + shape[0] * shape[1]
        # NumPy sees to it that these lie within the source.
        chunks = np.ndarray(shape, np.uint8, source, starts[first], (strides[first], 1))
        out[at:end].reshape(shape)[...] = chunks
        at = end
    return out.data
