"""Deflate (RFC 1950, 1951) in parts that are compressed side by side and joined to one stream.

Level 0 stores, 1 is ISA-L's, which is several times faster than zlib's for files of about the same
size, and 2 to 9 are zlib's, better than its own: of two ways the shorter one is kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from cudafilter.errors import ImageError
from cudafilter.stores.buffers import Buffer, joined

STORED, FAST = 0, 1
DEFAULT_LEVEL = FAST
WINDOW = 1 << 15
"""Bytes back that deflate can refer to."""

_ADLER = 65521


class Part(NamedTuple):
    """Some of the data, compressed."""

    body: bytes
    adler: int
    size: int
    """Bytes of the data itself."""


def part(data: memoryview, window: memoryview, level: int, last: bool) -> Part:
    """*data* compressed at *level* 0..9, ending on a whole byte unless it is the *last*.

    *window* is what goes before it, at most WINDOW bytes, so that little is lost at the seams.
    """
    if level == FAST:
        fast = isal_zlib.compressobj(FAST, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=window)
        end = isal_zlib.Z_FINISH if last else isal_zlib.Z_SYNC_FLUSH
        body = fast.compress(data) + fast.flush(end)
    else:
        # Only runs are quick to find and the best that there is for noise; repeats for drawings.
        ways = (zlib.Z_DEFAULT_STRATEGY,) + (zlib.Z_RLE,) * (level > STORED)
        body = min((_zlib(data, window, level, last, way) for way in ways), key=len)
    return Part(body, isal_zlib.adler32(data), len(data))


def _zlib(data: memoryview, window: memoryview, level: int, last: bool, strategy: int) -> bytes:
    deflater = zlib.compressobj(
        level, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy, window
    )
    end = zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH
    return deflater.compress(data) + deflater.flush(end)


class Joiner:
    """Makes one zlib stream of parts, in their order."""

    def __init__(self) -> None:
        self._low, self._high, self._head = 1, 0, b"\x78\x01"

    def add(self, part: Part, last: bool) -> bytes:
        """The stream's next piece, which holds *part*; the *last* was compressed as such."""
        head, end = self.around(part.adler, part.size, last)
        return b"".join((head, part.body, end)) if head or end else part.body

    def around(self, adler: int, size: int, last: bool) -> tuple[bytes, bytes]:
        """What stands before and behind the next part of *size* bytes, whose Adler-32 is told."""
        # Adler-32 is the sum of the bytes plus 1, and the sum of all these sums.
        high, low = adler >> 16, adler & 0xFFFF
        self._high = (self._high + high + size * (self._low - 1)) % _ADLER
        self._low = (self._low + low - 1) % _ADLER
        head, self._head = self._head, b""
        return head, (self._high << 16 | self._low).to_bytes(4, "big") if last else b""


def pieces(parts: Sequence[Part]) -> list[bytes]:
    """One zlib stream of *parts*, the last of which was compressed as such; a piece for each."""
    joiner, last = Joiner(), len(parts) - 1
    return [joiner.add(part, number == last) for number, part in enumerate(parts)]


def stream(data: memoryview, level: int) -> bytes:
    """All of *data* as a zlib stream in one part."""
    return b"".join(pieces([part(data, memoryview(b""), level, True)]))


class Inflater:
    """The *size* bytes that a zlib stream holds, taken in order.

    *feed* gives up to so many of the stream's next bytes, and none at its end. Raises ImageError
    unless the stream holds just as many, to its end, with the right checksum. No more are ever
    decompressed, and no more of the stream is in memory than about what is taken at a time.
    """

    def __init__(self, feed: Callable[[int], Buffer], size: int) -> None:
        self._feed, self._left, self._size = feed, size, size
        self._inflater = isal_zlib.decompressobj()
        self._waiting: Buffer = b""

    def take(self, count: int) -> Buffer:
        """The next *count* bytes."""
        found: list[Buffer] = []
        most = count + (count >> 10) + _FEED  # what is stored takes a little more than its bytes
        if count == self._size:
            stream = self._feed(most)
            if (whole := _whole(stream, count)) is not None:
                return whole
            self._waiting = stream
        self._left -= count
        # The byte past the last one makes it go on to the checksum.
        wanted = count if self._left else count + 1
        try:
            while wanted and not self._inflater.eof:
                data = self._waiting or self._feed(most)
                body = self._inflater.decompress(data, wanted)
                self._waiting = self._inflater.unconsumed_tail
                found += [body] if body else []
                wanted -= len(body)
                if not len(data) and not body:
                    break
        except isal_zlib.IsalError as error:  # type: ignore[misc]  # its stub says an instance
            raise ImageError("it is damaged: its compressed data cannot be read") from error
        short = wanted if self._left else wanted - 1
        if short < 0:
            raise ImageError("it is damaged: it holds more data than its size needs")
        if short or (not self._left and not self._inflater.eof):
            raise ImageError("it is cut short: it holds less data than its size needs")
        return found[0] if len(found) == 1 else joined(found)

    @property
    def surplus(self) -> int:
        """How many of the bytes that were fed follow the stream's end."""
        return len(self._inflater.unused_data)


def _whole(stream: Buffer, size: int) -> Buffer | None:
    """The *size* bytes of a sound zlib *stream* that nothing follows; None for any other.

    libdeflate writes them to one array without the interpreter's lock. ISA-L's memory grows piece
    by piece, and after each it waits for the lock: with 16 threads that takes longer than its work.
    """
    import imagecodecs

    if size > _MOST_FOR_EACH * len(stream):  # so it is cut short, and needs no memory
        return None
    out = np.empty(size, np.uint8)
    try:
        # It takes any buffer, though its types know of fewer.
        got: Any = imagecodecs.deflate_decode(cast(bytes, stream), out=cast(Any, out))
    except imagecodecs.DeflateError:
        return None
    # What follows the stream is ignored.
    if len(got) != size or stream[-4:] != adler32(got).to_bytes(4, "big"):
        return None
    return out.data


_MOST_FOR_EACH = 1032
"""Most bytes that one byte of a stream makes: four repeats of 258 bytes, each of 2 bits."""

_FEED = 1 << 14
_BLOCK = 65535
"""Most bytes of a stored block, which has 5 bytes before them."""


def stored(data: Buffer) -> Buffer:
    """*data* as a zlib stream of stored blocks, for decoders that want one."""
    whole, rest = divmod(len(data), _BLOCK)
    source = np.frombuffer(data, np.uint8)
    out: npt.NDArray[np.uint8] = np.empty(2 + whole * (_BLOCK + 5) + 5 + rest + 4, np.uint8)
    out[:2] = 0x78, 0x01
    blocks = out[2 : 2 + whole * (_BLOCK + 5)].reshape(whole, _BLOCK + 5)
    blocks[:, :5] = 0, 0xFF, 0xFF, 0, 0
    blocks[:, 5:] = source[: whole * _BLOCK].reshape(whole, _BLOCK)
    end = out[2 + blocks.size :]
    end[:5] = 1, rest & 255, rest >> 8, ~rest & 255, ~rest >> 8 & 255
    end[5 : 5 + rest] = source[whole * _BLOCK :]
    end[5 + rest :] = list(isal_zlib.adler32(data).to_bytes(4, "big"))
    return out.data


def crc32(data: Buffer, value: int = 0) -> int:
    """zlib's CRC, several times faster."""
    return isal_zlib.crc32(data, value)


def adler32(data: Buffer) -> int:
    """zlib's Adler-32, several times faster."""
    return isal_zlib.adler32(data)
