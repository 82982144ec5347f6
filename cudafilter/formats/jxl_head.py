"""What a JPEG XL codestream begins with: size, samples, channels, colours. Read and written anew.

All are bits, the lowest of each byte first. The profile, if any, and then whole bytes of frames
follow.
"""

from __future__ import annotations

from dataclasses import dataclass

from cudafilter.errors import ImageError

START = b"\xff\x0a"
MAX_CHANNELS = 16
"""Most channels beside the colours that are looked at."""
ALPHA = 0
"""The type of an extra channel."""
RGB, GRAY, XYB = 0, 1, 2
"""Kinds of colours."""
_CUSTOM = 2
_SRGB = (1, 1, 13)
"""White point, primaries and transfer curve of sRGB."""
_PRIMARIES = {(1, 1): 1, (1, 9): 9, (1, 11): 12, (11, 11): 11}
"""White point and primaries -> the primaries' number in CICP. Transfer curves have its numbers."""
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


class Bits:
    """Bits of *data* from bit *at* on, the lowest of each byte first."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data, self.at = data, at

    def look(self, count: int) -> int:
        """The next *count* bits as a number, zeros after the end. They stay the next ones."""
        first = self.at >> 3
        piece = self._data[first : (self.at + count + 7) >> 3]
        return int.from_bytes(piece, "little") >> (self.at & 7) & ((1 << count) - 1)

    def take(self, count: int) -> int:
        """The next *count* bits as a number."""
        if self.at + count > 8 * len(self._data):
            raise ImageError("it is cut short, or damaged: its header has no end")
        found = self.look(count)
        self.at += count
        return found

    def since(self, start: int) -> tuple[int, int]:
        """The bits from *start* on as a number, and how many they are."""
        return Bits(self._data, start).take(self.at - start), self.at - start

    def one_of(self, *ways: int | tuple[int, int]) -> int:
        """A number told in one of four ways: itself, or (least, bits of what is added)."""
        way = ways[self.take(2)]
        return way if isinstance(way, int) else way[0] + self.take(way[1])

    def kind(self) -> int:
        """The number of one of several kinds."""
        return self.one_of(0, 1, (2, 4), (18, 6))

    def long(self) -> int:
        """A number of up to 64 bits."""
        way = self.take(2)
        if way < 3:
            return (0, 1, 17)[way] + self.take((0, 4, 8)[way])
        value, shift = self.take(12), 12
        while self.take(1):
            if shift == 60:
                return value | self.take(4) << 60
            value |= self.take(8) << shift
            shift += 8
        return value


@dataclass
class Head:
    """What a codestream begins with."""

    width: int = 0
    height: int = 0
    size: tuple[int, int] = (0, 0)
    """The bits that tell it, and how many."""
    orientation: int = 1
    animated: bool = False
    bits: int = 8
    exponent: int = 0
    """Bits of a float sample's exponent; 0 for whole numbers."""
    extra: tuple[tuple[int, bool], ...] = ()
    """Types of the channels after the colours, and whether they are multiplied in."""
    xyb: bool = True
    """Colours are stored absolute, and lossy."""
    samples: tuple[int, int] = (0x48, 7)
    """The bits that tell all from the depth to xyb."""
    space: int = RGB
    """RGB, GRAY, XYB, or 3 for what only the profile knows."""
    profiled: bool = False
    """A colour profile follows."""
    cicp: tuple[int, int] | None = None
    """Primaries and transfer curve by CICP's numbers; None where it has none for them."""
    brightness: tuple[int, int] = (1, 1)
    """The bits that tell how bright it is meant to be."""
    plain: bool = True
    """It has neither a preview nor transforms of its own: written() tells all that it says."""
    end: int = 0
    """How many bits there are up to the profile or the frames."""

    @property
    def channels(self) -> int:
        """Channels with those beside the colours."""
        return (1 if self.space == GRAY else 3) + len(self.extra)


def head_of(data: bytes) -> Head:
    """The header of a codestream. Raises ImageError for a damaged one."""
    if data[:2] != START:
        raise ImageError("it is damaged: it does not begin with its size")
    bits, head = Bits(data, 16), Head()
    head.height, head.width = _size(bits)
    head.size = bits.since(16)
    if not bits.take(1):
        _metadata(bits, head)
    else:
        head.cicp = _SRGB[1:]
    if not bits.take(1):
        head.plain = False
        _transforms(bits, head)
    head.end = bits.at
    return head


def _size(bits: Bits) -> tuple[int, int]:
    """Height and width."""
    small = bits.take(1)

    def side() -> int:
        return 8 * (1 + bits.take(5)) if small else bits.one_of((1, 9), (1, 13), (1, 18), (1, 30))

    height = side()
    ratio = bits.take(3)
    if not ratio:
        return height, side()
    across, down = _RATIOS[ratio]
    return height, height * across // down


def _metadata(bits: Bits, head: Head) -> None:
    more = bits.take(1)
    if more:
        head.orientation = 1 + bits.take(3)
        if bits.take(1):
            _size(bits)
        if bits.take(1):
            head.plain = False
            _preview(bits)
        if bits.take(1):
            head.animated = True
            bits.one_of(100, 1000, (1, 10), (1, 30))
            bits.one_of(1, 1001, (1, 8), (1, 10))
            bits.one_of(0, (0, 3), (0, 16), (0, 32))
            bits.take(1)
    start = bits.at
    head.bits, head.exponent = _depth(bits)
    bits.take(1)
    count = bits.one_of(0, 1, (2, 4), (1, 12))
    if count > MAX_CHANNELS:
        raise ImageError(f"{count} channels beside its colours are not read")
    head.extra = tuple(_extra(bits, head) for _ in range(count))
    head.xyb = bool(bits.take(1))
    head.samples = bits.since(start)
    _colours(bits, head)
    if more:
        start = bits.at
        if not bits.take(1):
            bits.take(16 + 16 + 1 + 16)
        head.brightness = bits.since(start)
    if extensions := bits.long():
        lengths = [bits.long() for n in range(64) if extensions >> n & 1]
        bits.take(sum(lengths))


def _preview(bits: Bits) -> None:
    eighths = bits.take(1)
    ways = (16, 32, (1, 5), (33, 9)) if eighths else ((1, 6), (65, 8), (321, 10), (1345, 12))
    bits.one_of(*ways)
    if not bits.take(3):
        bits.one_of(*ways)


def _depth(bits: Bits) -> tuple[int, int]:
    """Bits of a sample, and of its exponent."""
    if bits.take(1):
        return bits.one_of(32, 16, 24, (1, 6)), 1 + bits.take(4)
    return bits.one_of(8, 10, 12, (1, 6)), 0


def _extra(bits: Bits, head: Head) -> tuple[int, bool]:
    """The type of a channel beside the colours, and whether it is multiplied into them."""
    if bits.take(1):
        return ALPHA, False
    kind, depth = bits.kind(), _depth(bits)
    shift = bits.one_of(0, 3, 4, (1, 3))
    bits.take(8 * bits.one_of(0, (0, 4), (16, 5), (48, 10)))
    associated = kind == ALPHA and bool(bits.take(1))
    if kind == 2:
        bits.take(64)
    elif kind == 5:
        bits.one_of(1, (0, 2), (3, 4), (19, 8))
    if kind == ALPHA and (shift or depth[1] != head.exponent):
        raise ImageError("its alpha has other samples than its colours, which are not read")
    return kind, associated


def _colours(bits: Bits, head: Head) -> None:
    if bits.take(1):
        head.cicp = _SRGB[1:]
        return
    head.profiled, head.space = bool(bits.take(1)), bits.kind()
    if head.profiled:
        return
    white, primaries, transfer = _SRGB
    if head.space != XYB:
        white = bits.kind()
        _custom(bits, white == _CUSTOM)
    if head.space not in (XYB, GRAY):
        primaries = bits.kind()
        _custom(bits, 3 * (primaries == _CUSTOM))
    if head.space != XYB:
        if bits.take(1):
            bits.take(24)
            transfer = 0  # a power
        else:
            transfer = bits.kind()
    bits.kind()
    found = _PRIMARIES.get((white, primaries))
    head.cicp = (found, transfer) if found and transfer not in (0, _CUSTOM) else None


def _custom(bits: Bits, count: int) -> None:
    for _ in range(2 * count):
        bits.one_of((0, 19), (524288, 19), (1048576, 20), (2097152, 21))


def _transforms(bits: Bits, head: Head) -> None:
    """Skip what only decoders need."""
    if head.xyb and not bits.take(1):
        bits.take(16 * (9 + 3 + 4))
    weights = bits.take(3)
    for n, count in enumerate((15, 55, 210)):
        if weights >> n & 1:
            bits.take(16 * count)


def written(head: Head) -> list[tuple[int, int]]:
    """*head* as (number, bits) pieces, up to the profile or the frames.

    Raises ImageError where it is not plain.
    """
    if not head.plain:
        raise ImageError("a picture with a preview or transforms of its own is not read so")
    pieces: list[tuple[int, int]] = [(int.from_bytes(START, "little"), 16), head.size, (0, 1)]
    more = head.orientation != 1 or head.brightness != (1, 1)
    pieces.append((more, 1))
    if more:
        pieces += [(head.orientation - 1, 3), (0, 3)]
    pieces += [head.samples, (0, 1), (head.profiled, 1), *_kind(head.space)]
    if not head.profiled:
        primaries, transfer = head.cicp or _SRGB[1:]
        known = {number: pair for pair, number in _PRIMARIES.items()}
        white, own = known[primaries]
        pieces += _kind(white)
        if head.space != GRAY:
            pieces += _kind(own)
        pieces += [(0, 1), *_kind(transfer), *_kind(1)]
    if more:
        pieces.append(head.brightness)
    return [*pieces, (0, 2), (1, 1)]


def _kind(number: int) -> list[tuple[int, int]]:
    if number < 2:
        return [(number, 2)]
    return [(2, 2), (number - 2, 4)] if number < 18 else [(3, 2), (number - 18, 6)]


def joined(pieces: list[tuple[int, int]]) -> bytes:
    """Pieces of bits, filled up to whole bytes."""
    value = shift = 0
    for number, count in pieces:
        value |= number << shift
        shift += count
    return value.to_bytes(-(-shift // 8), "little")
