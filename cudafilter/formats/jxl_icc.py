"""Colour profiles in a JPEG XL codestream: what can be foretold is taken off, the rest is coded."""

from __future__ import annotations

import struct

from cudafilter.errors import ImageError
from cudafilter.formats.jxl_codes import Numbers
from cudafilter.formats.jxl_head import Bits

_MOST = 1 << 20
"""Most bytes of a profile that is read: each takes some microseconds."""
_CONTEXTS = 41
_HEADER = 128
_INSERT, _SHUFFLE_2, _SHUFFLE_4, _PREDICT, _XYZ, _TYPES = 1, 2, 3, 4, 10, 16
_TYPE_NAMES = (b"XYZ ", b"desc", b"text", b"mluc", b"para", b"curv", b"sf32", b"gbd ")
_TAG_NAMES = (
    b"cprt", b"wtpt", b"bkpt", b"rXYZ", b"gXYZ", b"bXYZ", b"kXYZ", b"rTRC", b"gTRC", b"bTRC",
    b"kTRC", b"chad", b"desc", b"chrm", b"dmnd", b"dmdd", b"lumi",
)  # fmt: skip
_TRIPLES = {2: (b"rTRC", b"gTRC", b"bTRC"), 3: (b"rXYZ", b"gXYZ", b"bXYZ")}
_OF_20 = {b"rXYZ", b"gXYZ", b"bXYZ", b"kXYZ", b"wtpt", b"bkpt", b"lumi"}
"""Tags of 20 bytes."""


def read(data: bytes, at: int) -> tuple[bytes, int]:
    """The profile that begins at bit *at*, and the bit where it ends. ImageError if damaged."""
    bits = Bits(data, at)
    size = bits.long()
    if size > _MOST:
        raise ImageError(f"its colour profile has {size:,} bytes, more than the {_MOST:,} read")
    numbers = Numbers(bits, _CONTEXTS)
    coded = bytearray()
    for n in range(size):
        context = 0
        if n > _HEADER:
            context = 1 + _kind(coded[-1]) + 8 * _rough_kind(coded[-2])
        value = numbers.next(context)
        if value > 255:
            raise _damaged()
        coded.append(value)
    try:
        return _Profile(bytes(coded)).whole(), bits.at
    except (IndexError, struct.error):
        raise _damaged() from None


def _damaged() -> ImageError:
    return ImageError("it is damaged: its colour profile cannot be decoded")


def _kind(byte: int) -> int:
    if chr(byte).isascii() and chr(byte).isalpha():
        return 0
    if chr(byte) in "0123456789.,":
        return 1
    if byte < 16:
        return min(byte, 2) + 2
    return 6 if byte == 255 else 5 if byte > 240 else 7


def _rough_kind(byte: int) -> int:
    if _kind(byte) < 2:
        return _kind(byte)
    return 2 if byte < 16 else 3 if byte > 240 else 4


def _foretold(size: int) -> bytearray:
    """What a profile of so many bytes most likely begins with."""
    header = bytearray(_HEADER)
    header[:4] = struct.pack(">I", size & 0xFFFFFFFF)
    header[8] = 4
    header[12:24] = b"mntrRGB XYZ "
    header[36:40] = b"acsp"
    header[68:80] = bytes((0, 0, 246, 214, 0, 1, 0, 0, 0, 0, 211, 45))
    return header


def _corrected(header: bytearray, profile: bytes | bytearray, at: int) -> None:
    """Foretell better by the first *at* bytes of the *profile*."""
    if at == 8:
        header[80:84] = profile[4:8]
    elif at == 41:
        name = {b"A": b"APPL", b"M": b"MSFT"}.get(bytes(profile[40:41]))
        if name:
            header[40:44] = name
    elif at == 42:
        name = {b"SG": b"SGI ", b"SU": b"SUNW"}.get(bytes(profile[40:42]))
        if name:
            header[40:44] = name


class _Profile:
    """A profile that grows by commands and their data, which stand one after the other."""

    def __init__(self, coded: bytes) -> None:
        self._coded = coded
        self._at = 0
        self._size = self._number()
        commands = self._number()
        self._data = self._end = self._at + commands
        if self._size > _MOST or self._end > len(coded):
            raise _damaged()
        self._out = bytearray()

    def whole(self) -> bytes:
        """All of it. Raises IndexError or ImageError where it is damaged."""
        header = _foretold(self._size)
        for n, byte in enumerate(self._take(min(_HEADER, self._size))):
            _corrected(header, self._out, n)
            self._out.append((byte + header[n]) & 255)
        if self._at < self._end:
            self._tags()
        while self._at < self._end:
            self._content()
            if len(self._out) > self._size:
                break
        if len(self._out) != self._size or self._data != len(self._coded):
            raise _damaged()
        return bytes(self._out)

    def _number(self) -> int:
        value = shift = 0
        while True:
            byte = self._coded[self._at]
            self._at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 56:
                raise _damaged()

    def _take(self, count: int) -> bytes:
        """The next *count* bytes of the data."""
        self._data += count
        if self._data > len(self._coded):
            raise _damaged()
        return self._coded[self._data - count : self._data]

    def _command(self) -> int:
        self._at += 1
        return self._coded[self._at - 1]

    def _tags(self) -> None:
        """The list of tags."""
        count = self._number() - 1
        if count < 0:
            return
        self._out += struct.pack(">I", count)
        start, size = _HEADER + 12 * count, 0
        while self._at < self._end and len(self._out) <= self._size:
            command = self._command()
            code = command & 63
            if not code:
                break
            if code in _TRIPLES:
                name = _TRIPLES[code][0]
            else:
                name = self._take(4) if code == 1 else _TAG_NAMES[code - 4]
            start = self._number() if command & 64 else start + size
            size = 20 if name in _OF_20 else size
            size = self._number() if command & 128 else size
            for n, each in enumerate(_TRIPLES.get(code, (name,))):
                place = start + n * size * (code == 3)
                self._out += each + struct.pack(">II", place & 0xFFFFFFFF, size & 0xFFFFFFFF)

    def _content(self) -> None:
        command = self._command()
        if command == _INSERT:
            self._out += self._take(self._number())
        elif command in (_SHUFFLE_2, _SHUFFLE_4):
            self._out += _mixed(self._take(self._number()), 2 if command == _SHUFFLE_2 else 4)
        elif command == _PREDICT:
            self._predicted()
        elif command == _XYZ:
            self._out += b"XYZ " + bytes(4) + self._take(12)
        elif command >= _TYPES:
            self._out += _TYPE_NAMES[command - _TYPES] + bytes(4)
        else:
            raise _damaged()

    def _predicted(self) -> None:
        """Numbers of 1, 2 or 4 bytes that follow those *stride* bytes before them."""
        flags = self._command()
        width, order = (flags & 3) + 1, flags >> 2 & 3
        stride = self._number() if flags & 16 else width
        count = self._number()
        if width == 3 or order == 3 or stride < width or stride * 4 >= len(self._out):
            raise _damaged()
        out = self._out
        for n, byte in enumerate(_mixed(self._take(count), width)):
            if n % width == 0:
                at = len(out)
                one, two, three = (
                    int.from_bytes(out[at - k * stride : at - k * stride + width], "big")
                    for k in (1, 2, 3)
                )
                value = (one, 2 * one - two, 3 * (one - two) + three)[order]
            out.append((byte + (value >> 8 * (width - 1 - n % width))) & 255)


def _mixed(data: bytes, width: int) -> bytes:
    """*data*, of which all first bytes of numbers come first, number by number."""
    if width == 1:
        return data
    height = -(-len(data) // width)
    order = [at for first in range(height) for at in range(first, len(data), height)]
    return bytes(data[at] for at in order)


def written(profile: bytes) -> list[tuple[int, int]]:
    """*profile* as (number, bits) pieces for jxl_head.joined(): its bytes, each of eight bits."""
    header = _foretold(len(profile))
    first = bytearray()
    for n, byte in enumerate(profile[:_HEADER]):
        _corrected(header, profile, n)
        first.append((byte - header[n]) & 255)
    rest = profile[_HEADER:]
    commands = b"\0" + bytes([_INSERT]) + _varied(len(rest)) if rest else b""
    coded = _varied(len(profile)) + _varied(len(commands)) + commands + bytes(first) + rest
    pieces = [*_long(len(coded)), (0, 1)]  # nothing is repeated
    pieces += [(1, 1), (0, 2)]  # all contexts have one distribution
    pieces += [(1, 1), (15, 4)]  # of prefix codes; a symbol is a whole number
    pieces += [(1, 1), (7, 4), (127, 7)]  # 256 symbols
    # All codes have eight bits: of the lengths of codes only eight has a code, of no bits.
    pieces += [(0, 2), *[(0, 2)] * 10, (1, 2), *[(0, 2)] * 7]
    reversed_bytes = bytes(int(f"{n:08b}"[::-1], 2) for n in range(256))
    return [*pieces, (int.from_bytes(coded.translate(reversed_bytes), "little"), 8 * len(coded))]


def _varied(value: int) -> bytes:
    told = bytearray()
    while value > 127:
        told.append(value & 127 | 128)
        value >>= 7
    return bytes([*told, value])


def _long(value: int) -> list[tuple[int, int]]:
    """A number of up to 64 bits, in the longest way that it can be told."""
    pieces, shift = [(3, 2), (value & 0xFFF, 12)], 12
    while value >> shift:
        pieces += [(1, 1), (value >> shift & 255, 8)]
        shift += 8
    return [*pieces, (0, 1)]
