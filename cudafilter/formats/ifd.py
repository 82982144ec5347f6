"""TIFF image file directories (IFDs), as TIFF and EXIF use them, kept byte for byte.

Values stay raw, in the byte order of the file they come from, so that text that is not ASCII,
unknown types and exact rationals survive where a typed reader would change them. What is read is
bounded by the length of the file: see _Budget.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from cudafilter.formats.space import Space
from cudafilter.stores.buffers import Source

SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL, IFD, LONG8, IFD8 = 3, 4, 5, 7, 10, 13, 16, 18
SIZES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
    16: 8, 17: 8, 18: 8,
}  # fmt: skip
"""Bytes of one value of each TIFF type."""
DESCRIPTION, SUB_IFDS, EXIF = 270, 330, 34665
_POINTERS = {EXIF, 34853, 40965}
"""Tags whose value is the offset of a further IFD: EXIF, GPS, interoperability."""
_MAX_DEPTH = 3
MAX_ENTRIES = 1 << 16
"""Most entries of all the directories of a file together."""
_SLACK = 1 << 16
"""Bytes that values may share in all, as equal resolutions do."""

X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, ORIENTATION = 282, 283, 296, 274
MAKER_NOTE = 37500
MOST_EXIF = 65527
"""Bytes of EXIF that a JPEG holds."""


class BrokenIfd(ValueError):
    """The bytes are no well-formed IFD."""


@dataclass(frozen=True)
class Entry:
    """One tag: its TIFF type, how many values, and their bytes, or the IFD it points to."""

    type: int
    count: int
    value: bytes | Ifd
    at: int = field(default=0, compare=False)
    """Where the value stood in the file it comes from; 0 where it comes from none."""


Ifd = Mapping[int, Entry]


class _Budget:
    """What may still be read of a file of so many bytes.

    A directory is read once, and values take no more bytes than the file has: those that many
    tags share, or directories that point at each other, cannot multiply.
    """

    def __init__(self, size: int) -> None:
        self.directories: set[int] = set()
        self._entries, self._bytes = MAX_ENTRIES, size + _SLACK

    def directory(self, offset: int, entries: int) -> None:
        if offset in self.directories:
            raise BrokenIfd("directories point at each other")
        self.directories.add(offset)
        self._entries -= entries
        if self._entries < 0:
            raise BrokenIfd(f"it has more than {MAX_ENTRIES} tags")

    def value(self, length: int) -> None:
        self._bytes -= length
        if self._bytes < 0:
            raise BrokenIfd("its tags share their bytes")


def header(data: Source) -> tuple[str, int, bool]:
    """Byte order ("<" or ">"), offset of the first IFD, and whether this is BigTIFF."""
    head = data[:16]
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise BrokenIfd("no TIFF header")
    (magic,) = struct.unpack_from(order + "H", head, 2)
    if magic == 42:
        return order, struct.unpack_from(order + "I", head, 4)[0], False
    if magic == 43 and len(head) >= 16:
        return order, struct.unpack_from(order + "Q", head, 8)[0], True
    raise BrokenIfd("no TIFF header")


def span(data: Source, order: str, offset: int, big: bool) -> tuple[int, int, int]:
    """Where the entries of the IFD at *offset* begin, how many they are, and the next IFD."""
    count_code, next_code, size = ("Q", "Q", 20) if big else ("H", "I", 12)
    try:
        start = offset + struct.calcsize("=" + count_code)
        (count,) = struct.unpack(order + count_code, data[offset:start])
        end = start + count * size
        after = end + struct.calcsize("=" + next_code)
        (following,) = struct.unpack(order + next_code, data[end:after])
    except struct.error:
        raise BrokenIfd("cut short") from None
    return start, count, following


def entries_of(
    data: Source, order: str, start: int, count: int, big: bool
) -> Iterator[tuple[int, int, int, int, int]]:
    """Tag, type, count, length and place of the value of each entry."""
    code, size, inline = ("HHQ", 20, 8) if big else ("HHI", 12, 4)
    table = data[start : start + count * size]
    for at in range(0, count * size, size):
        tag, kind, values = struct.unpack_from(order + code, table, at)
        length = SIZES.get(kind, 0) * values
        where = start + at + size - inline
        if length > inline:
            (where,) = struct.unpack_from(order + ("Q" if big else "I"), table, where - start)
        if where + length > len(data):
            raise BrokenIfd(f"the value of tag {tag} lies past the end")
        yield tag, kind, values, length, where


def read(data: Source, order: str, offset: int, big: bool = False) -> tuple[dict[int, Entry], int]:
    """The IFD at *offset* with those it points to, and the offset of the next one (0: none)."""
    return _read(data, order, offset, big, 0, _Budget(len(data)))


def _read(
    data: Source, order: str, offset: int, big: bool, depth: int, budget: _Budget
) -> tuple[dict[int, Entry], int]:
    start, count, following = span(data, order, offset, big)
    budget.directory(offset, count)
    entries: dict[int, Entry] = {}
    for tag, kind, values, length, where in entries_of(data, order, start, count, big):
        budget.value(length)
        value = data[where : where + length]
        if _points(tag, kind, values):
            if depth == _MAX_DEPTH:
                raise BrokenIfd("directories point at each other")
            (target,) = struct.unpack(order + ("I" if length == 4 else "Q"), value)
            further, _ = _read(data, order, target, big, depth + 1, budget)
            entry = Entry(IFD if kind in (IFD, IFD8) else LONG, 1, further)
        elif length:
            entry = Entry(kind, values, value, where)
        else:
            continue
        if entries.setdefault(tag, entry) != entry and not _is_shape(tag, value):
            raise BrokenIfd(f"tag {tag} stands there twice")
    return entries, following


def _is_shape(tag: int, value: bytes) -> bool:
    """Whether a second description only tells an array's shape, as tifffile writes it."""
    return tag == DESCRIPTION and value.startswith(b'{"shape":')


def _points(tag: int, kind: int, values: int) -> bool:
    known = tag in _POINTERS and kind in (LONG, LONG8)
    return values == 1 and (known or (kind in (IFD, IFD8) and tag != SUB_IFDS))


def parse(blob: bytes) -> tuple[str, dict[int, Entry], int]:
    """Byte order, first IFD and the offset of the next one, of a whole TIFF or EXIF structure."""
    order, offset, big = header(blob)
    entries, following = read(blob, order, offset, big)
    return order, entries, following


def dangling(data: Source) -> list[int]:
    """Tags of *data* that seem to be offsets of directories, though no type says so.

    Laid out anew they lead nowhere. Raises BrokenIfd.
    """
    order, offset, big = header(data)
    budget = _Budget(len(data))
    entries, _ = _read(data, order, offset, big, 0, budget)
    found = []
    for tag, entry in _all(entries):
        if tag == SUB_IFDS or not isinstance(entry.value, bytes):
            continue
        if entry.type in (IFD, IFD8):
            found.append(tag)
        elif entry.type in (LONG, LONG8) and entry.count == 1:
            (target,) = struct.unpack(order + ("I" if entry.type == LONG else "Q"), entry.value)
            if target not in budget.directories and _is_directory(data, order, target, big):
                found.append(tag)
    return sorted(set(found))


def _all(entries: Ifd) -> Iterator[tuple[int, Entry]]:
    for tag, entry in entries.items():
        yield tag, entry
        if not isinstance(entry.value, bytes):
            yield from _all(entry.value)


def _is_directory(data: Source, order: str, offset: int, big: bool) -> bool:
    """Whether a directory stands at *offset*: known types, tags in order, values in the file."""
    if offset < 8:
        return False
    try:
        start, count, _ = span(data, order, offset, big)
        last = -1
        for tag, kind, values, _, _ in entries_of(data, order, start, min(count, 64), big):
            if kind not in SIZES or not values or tag <= last:
                return False
            last = tag
    except BrokenIfd:
        return False
    return count > 0


def note_of(entries: Ifd) -> Entry | None:
    """The camera's maker note, if there is one that takes a place of its own."""
    exif = entries.get(EXIF)
    inner = exif.value if exif else {}
    for among in (inner, entries):
        note = among.get(MAKER_NOTE) if not isinstance(among, bytes) else None
        if note and isinstance(note.value, bytes) and len(note.value) > 4 and note.at >= 8:
            return note
    return None


def counts_from_header(note: Entry) -> bool:
    """Whether *note* has entries whose values it finds by offsets from the TIFF header.

    Such a note can be read only where it stood. Others count from their own beginning.
    """
    value = note.value if isinstance(note.value, bytes) else b""
    for at in range(min(len(value), MOST_EXIF) - 11):
        for order in "<>":
            _, kind, count, where = struct.unpack_from(order + "HHII", value, at)
            length = SIZES.get(kind, 0) * count
            if length > 4 and note.at <= where and where + length <= note.at + len(value):
                return True
    return False


def space_around(note: Entry | None, start: int = 8) -> Space:
    """A file to be laid out around the maker note, if there is one, which keeps its place.

    *start* is where it is laid out from; a note that stood before that gets another place.
    """
    if note is None or not isinstance(note.value, bytes) or note.at < start:
        return Space(start=start)
    return Space(note.at, note.value, start)


def link(entries: Ifd, big: bool) -> int:
    """Where in the IFD of *entries* the offset of the next one stands."""
    return 8 + 20 * len(entries) if big else 2 + 12 * len(entries)


def write(entries: Ifd, order: str, space: Space, big: bool = False) -> int:
    """Lay *entries* and all they point to into *space*; the offset of their IFD.

    *big* is for BigTIFF, whose offsets have 64 bits.
    """
    count, offset, room = ("Q", "Q", 8) if big else ("H", "I", 4)
    head = struct.pack(order + count, len(entries))
    at = space.take(link(entries, big) + room)
    table = bytearray(head)
    for tag, entry in sorted(entries.items()):
        kind = entry.type
        if not isinstance(entry.value, bytes):
            value = struct.pack(order + offset, write(entry.value, order, space, big))
            kind = {LONG: LONG8, IFD: IFD8}[kind] if big else kind
        elif len(entry.value) <= room:
            value = entry.value.ljust(room, b"\0")
        else:
            value = struct.pack(order + offset, space.value(entry.value))
        table += struct.pack(f"{order}HH{offset}", tag, kind, entry.count) + value
    space.put(at, bytes(table) + bytes(room))
    return at


def blob(entries: Ifd, order: str) -> bytes:
    """*entries* as a whole TIFF or EXIF structure.

    The maker note keeps its offset, unless that is past what a JPEG holds.
    """
    note = note_of(entries)
    if note is not None:
        kept = _blob(entries, order, note)
        if len(kept) <= MOST_EXIF:
            return kept
    return _blob(entries, order, None)


def _blob(entries: Ifd, order: str, note: Entry | None) -> bytes:
    if note is not None and note.at > MOST_EXIF:
        return bytes(MOST_EXIF + 1)
    space = space_around(note)
    at = write(entries, order, space)
    mark = b"II" if order == "<" else b"MM"
    return b"".join([mark, struct.pack(order + "HI", 42, at), *space.pieces()])


def shorts(order: str, *values: int) -> Entry:
    """An entry of 16-bit numbers."""
    return Entry(SHORT, len(values), struct.pack(f"{order}{len(values)}H", *values))


def longs(order: str, *values: int) -> Entry:
    """An entry of 32-bit numbers."""
    return Entry(LONG, len(values), struct.pack(f"{order}{len(values)}I", *values))


def long8s(order: str, *values: int) -> Entry:
    """An entry of 64-bit numbers, which only BigTIFF has."""
    return Entry(LONG8, len(values), struct.pack(f"{order}{len(values)}Q", *values))


def rational(order: str, value: Fraction) -> Entry:
    """An entry of one rational number, exact where 32 bits hold it."""
    value = value.limit_denominator(1 << 20)
    return Entry(RATIONAL, 1, struct.pack(order + "II", value.numerator, value.denominator))


def numbers(entries: Ifd, tag: int, order: str) -> tuple[int, ...]:
    """The whole numbers of *tag*; empty where it is missing or of another type."""
    entry = entries.get(tag)
    code = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(entry.type) if entry else None
    if entry is None or code is None or not isinstance(entry.value, bytes):
        return ()
    return struct.unpack(f"{order}{entry.count}{code}", entry.value)


def number(entries: Ifd, tag: int, order: str, default: int) -> int:
    """The first whole number of *tag*, or *default*."""
    found = numbers(entries, tag, order)
    return found[0] if found else default


def orientation(exif: bytes | None) -> int:
    """The orientation 1..8 that *exif* gives; 1 (upright) where it gives none."""
    try:
        order, entries, _ = parse(exif or b"")
    except BrokenIfd:
        return 1
    found = number(entries, ORIENTATION, order, 1)
    return found if 1 <= found <= 8 else 1


def turned(exif: bytes | None, orientation: int) -> bytes | None:
    """*exif* with another *orientation*, 1..8. The rest keeps its place where there was one.

    None where there is nothing to tell. EXIF that is damaged gives way.
    """
    try:
        order, entries, _ = parse(exif or b"")
    except BrokenIfd:
        order, entries, exif = ">", {}, None
    entry = entries.get(ORIENTATION)
    if exif and entry and entry.type == SHORT and entry.count == 1:
        value = struct.pack(order + "H", orientation)
        return exif[: entry.at] + value + exif[entry.at + 2 :]
    if orientation == 1 and entry is None:
        return exif
    return blob({**entries, ORIENTATION: shorts(order, orientation)}, order)


def as_told(exif: bytes | None, turn: int) -> tuple[bytes | None, list[str]]:
    """*exif* of a file that tells by itself which orientation, *turn*, it has; and notes.

    What EXIF says of that does not count in such files.
    """
    was = orientation(exif)
    lost = [f"its EXIF orientation {was} does not count in such files: {turn} does"]
    return (exif, []) if was == turn else (turned(exif, turn), lost if was != 1 else [])


def resolution(exif: bytes | None) -> tuple[Fraction, Fraction, str] | None:
    """Pixels per unit in x and y, and the unit, that *exif* gives.

    The unit is "inch", "cm", or "" where only the ratio is meant, or where another tag tells the
    unit, as ImageJ's does; 1:1 of no unit says nothing.
    """
    try:
        order, entries, _ = parse(exif or b"")
    except BrokenIfd:
        return None
    found = []
    for tag in (X_RESOLUTION, Y_RESOLUTION):
        entry = entries.get(tag)
        if entry is None or entry.type != RATIONAL or not isinstance(entry.value, bytes):
            return None
        numerator, denominator = struct.unpack_from(order + "II", entry.value)
        if not numerator or not denominator:
            return None
        found.append(Fraction(numerator, denominator))
    unit = {1: "", 2: "inch", 3: "cm"}.get(number(entries, RESOLUTION_UNIT, order, 2))
    known = unit or (unit == "" and found != [1, 1])
    return (found[0], found[1], unit or "") if known else None
