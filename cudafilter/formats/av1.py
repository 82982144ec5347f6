"""How large an AV1 picture says that it is: the decoder takes memory for that at once."""

from __future__ import annotations

from cudafilter.errors import ImageError

_SEQUENCE = 1
"""The kind of an open bitstream unit that begins a sequence."""


class _Bits:
    """Bits of *data*, the highest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ImageError("it is cut short, or damaged: its picture has no header")
        return self._value >> self._left & ((1 << count) - 1)


def size(data: bytes) -> tuple[int, int]:
    """The greatest width and height of the pictures in *data*. Raises ImageError if none is told.

    *data* are units with their lengths, as in AVIF.
    """
    sizes = [_sequence(unit) for kind, unit in _units(data) if kind == _SEQUENCE]
    if not sizes:
        raise ImageError("it is damaged: its picture has no header")
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _units(data: bytes) -> list[tuple[int, bytes]]:
    """Kind and first bytes of each unit."""
    found, at = [], 0
    while at < len(data):
        head = data[at]
        at += 2 if head & 4 else 1
        length, shift = 0, 0
        if not head & 2:
            length = len(data) - at
        while head & 2 and at < len(data):
            byte = data[at]
            length |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128 or shift > 35:
                break
        if at + length > len(data):
            raise ImageError("it is cut short, or damaged: its picture ends early")
        found.append((head >> 3 & 15, data[at : at + min(length, 256)]))
        at += length
    return found


def _sequence(unit: bytes) -> tuple[int, int]:
    bits = _Bits(unit)
    bits.take(4)  # profile, still picture
    if bits.take(1):  # a reduced header
        bits.take(5)
    else:
        delays = timing = 0
        if bits.take(1):
            bits.take(64)
            if bits.take(1):
                _skip_golomb(bits)
            if timing := bits.take(1):
                delays = bits.take(5) + 1
                bits.take(42)
        shown = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if timing and bits.take(1):
                bits.take(2 * delays + 1)
            if shown and bits.take(1):
                bits.take(4)
    across, down = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(across) + 1, bits.take(down) + 1


def _skip_golomb(bits: _Bits) -> None:
    """Skip a number that begins with as many zeros as it has bits after its first one."""
    zeros = 0
    while not bits.take(1):
        zeros += 1
    bits.take(zeros)
