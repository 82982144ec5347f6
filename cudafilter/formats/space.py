"""Where the parts of a TIFF or EXIF structure go."""

from __future__ import annotations

from collections.abc import Iterator

from cudafilter.stores.buffers import Buffer


class Space:
    """A file that is laid out: places in order, around the maker note, which keeps its own.

    Offsets inside many notes count from the TIFF header.
    """

    def __init__(self, at: int = 0, kept: bytes = b"", start: int = 8) -> None:
        """Begin at offset *start*, with *kept* at offset *at*, which lies behind."""
        self._given = start
        self._free = start + start % 2
        self._kept, self._taken = kept, range(at, at + len(kept))
        self._pieces: list[tuple[int, Buffer]] = [(at, kept)] if kept else []

    def take(self, length: int) -> int:
        """The even offset of the next *length* bytes that are free."""
        at = self._free
        if self._taken and at < self._taken.stop and at + length > self._taken.start:
            at = self._taken.stop + self._taken.stop % 2
        self._free = at + length + length % 2
        return at

    def put(self, at: int, piece: Buffer) -> None:
        """Lay *piece* at a place that was taken for it."""
        self._pieces.append((at, piece))

    def add(self, piece: Buffer) -> int:
        """Lay *piece* at the next free place, which is returned."""
        at = self.take(len(piece))
        self.put(at, piece)
        return at

    def value(self, value: bytes) -> int:
        """The offset of a tag's *value*: the note's own, or a new one."""
        return self._taken.start if value is self._kept else self.add(value)

    @property
    def end(self) -> int:
        """Length of the file so far."""
        return max(self._free, self._taken.stop)

    def ready(self) -> Iterator[Buffer]:
        """What is laid out to the next free place and was not given before, from the start on.

        All that was taken must be put. There are zeros where nothing lies.
        """
        self._pieces.sort(key=lambda placed: placed[0])
        ready = [placed for placed in self._pieces if placed[0] < self._free]
        del self._pieces[: len(ready)]
        for start, piece in ready:
            yield bytes(start - self._given)
            yield piece
            self._given = start + len(piece)

    def pieces(self) -> Iterator[Buffer]:
        """All that was not given yet, to the end."""
        self._free = self.end
        yield from self.ready()
        yield bytes(self.end - self._given)
