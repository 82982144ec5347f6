"""Numbers as JPEG XL codes them: prefix codes, contexts, and repetition (LZ77).

Only profiles are read so here, which libjxl always codes by prefix codes. The other way, ANS, is
refused: nothing was found that writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cudafilter.errors import ImageError
from cudafilter.formats.jxl_head import Bits

_PREFIX_BITS = 15
_WINDOW = 1 << 20
_LENGTH_ORDER = (1, 2, 3, 4, 0, 5, 17, 6, 16, 7, 8, 9, 10, 11, 12, 13, 14, 15)
_LENGTH_CODES = {(2, 0): 0, (2, 1): 4, (2, 2): 3, (3, 3): 2, (4, 7): 1, (4, 15): 5}
"""(bits, their number) -> the length of a code for lengths."""


class _Prefix:
    """Codes of up to 15 bits, the shortest first, in order of their symbols."""

    def __init__(self, lengths: list[int]) -> None:
        self._only = 0
        self._codes: dict[tuple[int, int], int] = {}
        used = [(length, symbol) for symbol, length in enumerate(lengths) if length]
        if len(used) < 2:
            self._only = used[0][1] if used else 0
            return
        code = last = 0
        for length, symbol in sorted(used):
            code <<= length - last
            last = length
            self._codes[length, code] = symbol
            code += 1
        if code != 1 << last:
            raise _damaged()

    def next(self, bits: Bits) -> int:
        """The next symbol."""
        if not self._codes:
            return self._only
        code = 0
        for length in range(1, _PREFIX_BITS + 1):
            code = code << 1 | bits.take(1)
            if (found := self._codes.get((length, code))) is not None:
                return found
        raise _damaged()


class _Wide(NamedTuple):
    """How a number that is too large for a symbol is split: what of it follows as plain bits."""

    split: int
    high: int
    low: int

    def number(self, token: int, bits: Bits) -> int:
        if token < 1 << self.split:
            return token
        kept = self.high + self.low
        count = self.split - kept + ((token - (1 << self.split)) >> kept)
        if count > 32:
            raise _damaged()
        low, token = token & ((1 << self.low) - 1), token >> self.low
        high = 1 << self.high | (token & ((1 << self.high) - 1))
        return (high << count | bits.take(count)) << self.low | low


def _damaged() -> ImageError:
    return ImageError("it is damaged: its colour profile cannot be decoded")


def _log_up(value: int) -> int:
    """The least number of bits that tell *value* numbers apart."""
    return (value - 1).bit_length()


def _wide(bits: Bits, log_symbols: int) -> _Wide:
    split = bits.take(_log_up(log_symbols + 1))
    high = low = 0
    if split > log_symbols:
        raise _damaged()
    if split != log_symbols:
        high = bits.take(_log_up(split + 1))
        if high > split:
            raise _damaged()
        low = bits.take(_log_up(split - high + 1))
    if high + low > split:
        raise _damaged()
    return _Wide(split, high, low)


def _short(bits: Bits) -> int:
    """A number of up to 16 bits that is small as a rule."""
    if not bits.take(1):
        return 0
    count = bits.take(4)
    return (1 << count) + bits.take(count)


class Numbers:
    """The numbers of *contexts* kinds at a place of *bits*."""

    def __init__(self, bits: Bits, contexts: int) -> None:
        self._bits = bits
        self._repeats, self._least, self._length = 1 << 32, 0, _Wide(0, 0, 0)
        if bits.take(1):
            self._repeats = bits.one_of(224, 512, 4096, (8, 15))
            self._least = bits.one_of(3, 4, (5, 2), (9, 8))
            self._length = _wide(bits, 8)
            contexts += 1
        self._map = _map(bits, contexts) if contexts > 1 else [0]
        count = max(self._map) + 1
        if not bits.take(1):
            raise ImageError("its colour profile is coded in a way that is not read")
        self._wide = [_wide(bits, _PREFIX_BITS) for _ in range(count)]
        sizes = [1 + _short(bits) for _ in range(count)]
        self._symbols = [_Prefix(_lengths(bits, size)) for size in sizes]
        self._found: list[int] = []
        self._copies: Iterator[int] = iter(())
        self._left = 0

    def next(self, context: int) -> int:
        """The next number, which is of the kind *context*."""
        if not self._left:
            kind = self._map[context]
            token = self._symbols[kind].next(self._bits)
            if token < self._repeats:
                found = self._wide[kind].number(token, self._bits)
                self._found.append(found)
                return found
            self._left = self._least + self._length.number(token - self._repeats, self._bits)
            kind = self._map[-1]
            token = self._symbols[kind].next(self._bits)
            back = 1 + self._wide[kind].number(token, self._bits)
            self._back = min(back, len(self._found), _WINDOW)
        self._left -= 1
        found = self._found[-self._back] if self._back else 0
        self._found.append(found)
        return found


def _map(bits: Bits, contexts: int) -> list[int]:
    """Which distribution each context has."""
    if bits.take(1):
        size = bits.take(2)
        return [bits.take(size) for _ in range(contexts)]
    moved = bits.take(1)
    numbers = Numbers(bits, 1)
    found = [numbers.next(0) for _ in range(contexts)]
    if moved:
        order = list(range(256))
        for n, place in enumerate(found):
            if place > 255:
                raise _damaged()
            found[n] = order.pop(place)
            order.insert(0, found[n])
    if max(found) > 255:
        raise _damaged()
    return found


def _lengths(bits: Bits, size: int) -> list[int]:
    """The lengths of the codes of *size* symbols, as Brotli tells them."""
    if size == 1:
        return [0]
    way = bits.take(2)
    lengths = [0] * size
    if way == 1:
        count, wide = 1 + bits.take(2), _log_up(size)
        symbols = [bits.take(wide) for _ in range(count)]
        if max(symbols) >= size or len(set(symbols)) < count:
            raise _damaged()
        told = [[1], [1, 1], [1, 2, 2], [2, 2, 2, 2]][count - 1]
        if count == 4 and bits.take(1):
            told = [1, 2, 3, 3]
        for symbol, length in zip(symbols, told, strict=True):
            lengths[symbol] = length
        return lengths
    coded, room = [0] * 18, 32
    for place in _LENGTH_ORDER[way:]:
        coded[place] = _length(bits)
        room -= 32 >> coded[place] if coded[place] else 0
        if room <= 0:
            break
    code = _Prefix(coded)
    at, last, repeated, times, room = 0, 8, -1, 0, 1 << _PREFIX_BITS
    while at < size and room > 0:
        length = code.next(bits)
        if length < 16:
            lengths[at] = length
            at, times = at + 1, 0
            if length:
                last, room = length, room - (1 << _PREFIX_BITS >> length)
            continue
        value, extra = (last, 2) if length == 16 else (0, 3)
        if repeated != value:
            times, repeated = 0, value
        before = times
        times = (times - 2 << extra if times else 0) + 3 + bits.take(extra)
        more = times - before
        if at + more > size:
            raise _damaged()
        lengths[at : at + more] = [value] * more
        at += more
        room -= more * (1 << _PREFIX_BITS >> value) if value else 0
    if room:
        raise _damaged()
    return lengths


def _length(bits: Bits) -> int:
    for length in range(2, 5):
        if (found := _LENGTH_CODES.get((length, bits.look(length)))) is not None:
            bits.take(length)
            return found
    raise _damaged()
