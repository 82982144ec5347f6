"""Numbers as JPEG XL codes them: prefix codes or ANS, contexts, and repetition (LZ77).

Only profiles are read so here, and they are short. libjxl decodes the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from cudafilter.errors import ImageError
from cudafilter.formats.jxl_head import Bits

_LOG = 12
"""Probabilities of ANS are whole numbers that add up to 2**12."""
_FINAL = 0x13 << 16
"""The state at the end of what ANS coded."""
_PREFIX_BITS = 15
_WINDOW = 1 << 20
_COUNT_CODES = {
    (3, 0): 10, (3, 2): 7, (3, 4): 6, (3, 5): 8, (3, 6): 9, (4, 3): 3, (4, 7): 5, (4, 9): 4,
    (4, 11): 1, (4, 15): 2, (5, 17): 0, (6, 33): 11, (7, 1): 12, (7, 65): 13,
}  # fmt: skip
"""(bits, their number) -> the logarithm of a probability, or _SAME."""
_SAME = 13
_LENGTH_ORDER = (1, 2, 3, 4, 0, 5, 17, 6, 16, 7, 8, 9, 10, 11, 12, 13, 14, 15)
_LENGTH_CODES = {(2, 0): 0, (2, 1): 4, (2, 2): 3, (3, 3): 2, (4, 7): 1, (4, 15): 5}
"""(bits, their number) -> the length of a code for lengths."""


class _Symbols(Protocol):
    """Gives symbols of one distribution."""

    def next(self, bits: Bits, state: _State) -> int: ...


class _State:
    """ANS's state; all distributions share it."""

    value = _FINAL


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

    def next(self, bits: Bits, state: _State) -> int:
        if not self._codes:
            return self._only
        code = 0
        for length in range(1, _PREFIX_BITS + 1):
            code = code << 1 | bits.take(1)
            if (found := self._codes.get((length, code))) is not None:
                return found
        raise _damaged()


class _Ans:
    """Symbols by an alias table: in each of its equal parts at most two symbols lie."""

    def __init__(self, counts: list[int], log_parts: int) -> None:
        self._counts = counts
        self._log_part = _LOG - log_parts
        part, parts = 1 << self._log_part, 1 << log_parts
        if len(counts) > parts:
            raise _damaged()
        cuts = counts + [0] * (parts - len(counts))
        self._right, self._offset = list(range(parts)), [0] * parts
        if max(cuts) == 1 << _LOG:
            only = cuts.index(1 << _LOG)
            self._right = [only] * parts
            self._offset = [part * n for n in range(parts)]
            self._cut = [0] * parts
            return
        over = [n for n, count in enumerate(cuts) if count > part]
        under = [n for n, count in enumerate(cuts) if count < part]
        while over:
            large, small = over[-1], under.pop()
            cuts[large] -= part - cuts[small]
            self._right[small], self._offset[small] = large, cuts[large] - cuts[small]
            if cuts[large] <= part:
                over.pop()
                if cuts[large] < part:
                    under.append(large)
        self._cut = cuts

    def next(self, bits: Bits, state: _State) -> int:
        value = state.value & ((1 << _LOG) - 1)
        part, at = value >> self._log_part, value & ((1 << self._log_part) - 1)
        symbol = part
        if at >= self._cut[part]:
            symbol, at = self._right[part], at + self._offset[part]
        if symbol >= len(self._counts):
            raise _damaged()
        state.value = self._counts[symbol] * (state.value >> _LOG) + at
        if state.value < 1 << 16:
            state.value = state.value << 16 | bits.take(16)
        return symbol


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


def _short(bits: Bits, log_bits: int) -> int:
    """A number that is small as a rule: of up to 2**log_bits bits."""
    if not bits.take(1):
        return 0
    count = bits.take(log_bits)
    return (1 << count) + bits.take(count)


class Numbers:
    """The numbers of *contexts* kinds at a place of *bits*."""

    def __init__(self, bits: Bits, contexts: int) -> None:
        self._bits, self._state = bits, _State()
        self._repeats, self._least, self._length = 1 << 32, 0, _Wide(0, 0, 0)
        if bits.take(1):
            self._repeats = bits.one_of(224, 512, 4096, (8, 15))
            self._least = bits.one_of(3, 4, (5, 2), (9, 8))
            self._length = _wide(bits, 8)
            contexts += 1
        self._map = _map(bits, contexts) if contexts > 1 else [0]
        count = max(self._map) + 1
        prefix = bits.take(1)
        log_symbols = _PREFIX_BITS if prefix else 5 + bits.take(2)
        self._wide = [_wide(bits, log_symbols) for _ in range(count)]
        self._symbols: list[_Symbols] = []
        if prefix:
            sizes = [1 + _short(bits, 4) for _ in range(count)]
            self._symbols += [_Prefix(_lengths(bits, size)) for size in sizes]
        else:
            self._symbols += [_Ans(_counts(bits), log_symbols) for _ in range(count)]
            self._state.value = bits.take(32)
        self._found: list[int] = []
        self._copies: Iterator[int] = iter(())
        self._left = 0

    def next(self, context: int) -> int:
        """The next number, which is of the kind *context*."""
        if not self._left:
            kind = self._map[context]
            token = self._symbols[kind].next(self._bits, self._state)
            if token < self._repeats:
                found = self._wide[kind].number(token, self._bits)
                self._found.append(found)
                return found
            self._left = self._least + self._length.number(token - self._repeats, self._bits)
            kind = self._map[-1]
            token = self._symbols[kind].next(self._bits, self._state)
            back = 1 + self._wide[kind].number(token, self._bits)
            self._back = min(back, len(self._found), _WINDOW)
        self._left -= 1
        found = self._found[-self._back] if self._back else 0
        self._found.append(found)
        return found

    def end(self) -> None:
        """Raise ImageError unless all was read as it was written."""
        if self._state.value != _FINAL:
            raise _damaged()


def _map(bits: Bits, contexts: int) -> list[int]:
    """Which distribution each context has."""
    if bits.take(1):
        size = bits.take(2)
        return [bits.take(size) for _ in range(contexts)]
    moved = bits.take(1)
    numbers = Numbers(bits, 1)
    found = [numbers.next(0) for _ in range(contexts)]
    numbers.end()
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
        coded[place] = _coded(bits, _LENGTH_CODES)
        room -= 32 >> coded[place] if coded[place] else 0
        if room <= 0:
            break
    code = _Prefix(coded)
    at, last, repeated, times, room = 0, 8, -1, 0, 1 << _PREFIX_BITS
    while at < size and room > 0:
        length = code.next(bits, _State())
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


def _coded(bits: Bits, codes: dict[tuple[int, int], int]) -> int:
    for length in range(2, 8):
        if (found := codes.get((length, bits.look(length)))) is not None:
            bits.take(length)
            return found
    raise _damaged()


def _counts(bits: Bits) -> list[int]:
    """Probabilities of ANS."""
    whole = 1 << _LOG
    if bits.take(1):
        symbols = [_short(bits, 3) for _ in range(1 + bits.take(1))]
        counts = [0] * (max(symbols) + 1)
        counts[symbols[0]] = bits.take(_LOG) if len(symbols) > 1 else whole
        if len(symbols) > 1 and symbols[0] == symbols[1]:
            raise _damaged()
        counts[symbols[-1]] = whole - (counts[symbols[0]] if len(symbols) > 1 else 0)
        return counts
    if bits.take(1):
        size = 1 + _short(bits, 3)
        return [whole // size + (n < whole % size) for n in range(size)]
    return _detailed(bits, whole)


def _detailed(bits: Bits, whole: int) -> list[int]:
    log = 0
    while log < 3 and bits.take(1):
        log += 1
    shift = (bits.take(log) | 1 << log) - 1
    if shift > _SAME:
        raise _damaged()
    size = 3 + _short(bits, 3)
    logs, same = [0] * size, [0] * size
    at, omitted = 0, -1
    while at < size:
        logs[at] = _coded(bits, _COUNT_CODES)
        if logs[at] == _SAME:
            same[at] = _short(bits, 3) + 5
            at += same[at] - 1
            continue
        if omitted < 0 or logs[at] > logs[omitted]:
            omitted = at
        at += 1
    if omitted < 0:
        raise _damaged()
    counts = [0] * size
    left = previous = 0
    for n, log in enumerate(logs):
        if same[n]:
            left, previous = same[n] - 1, counts[n - 1] if n else 0
        if left:
            counts[n], left = previous, left - 1
        elif n == omitted or not log:
            continue
        elif log == 1:
            counts[n] = 1
        else:
            told = max(0, min(log - 1, shift - (_LOG - (log - 1) >> 1)))
            counts[n] = (1 << log - 1) + (bits.take(told) << log - 1 - told)
    counts[omitted] = whole - sum(counts)
    if counts[omitted] <= 0:
        raise _damaged()
    return counts
