"""TIFF image file directories (IFDs), as TIFF and EXIF use them, kept byte for byte.

Values stay raw, in the byte order of the file they come from, so that text that is not ASCII,
unknown types and exact rationals survive where a typed reader would change them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 3, 4, 5, 7, 16
_SIZES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
    16: 8, 17: 8, 18: 8,
}  # fmt: skip
"""Bytes of one value of each TIFF type."""
_POINTERS = {34665, 34853, 40965}
"""Tags whose value is the offset of a further IFD: EXIF, GPS, interoperability."""
_MAX_DEPTH = 3

X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, ORIENTATION = 282, 283, 296, 274


class BrokenIfd(ValueError):
    """The bytes are no well-formed IFD."""


@dataclass(frozen=True)
class Entry:
    """One tag: its TIFF type, how many values, and their bytes, or the IFD it points to."""

    type: int
    count: int
    value: bytes | Ifd


Ifd = Mapping[int, Entry]


def header(data: bytes) -> tuple[str, int, bool]:
    """Byte order ("<" or ">"), offset of the first IFD, and whether this is BigTIFF."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        raise BrokenIfd("no TIFF header")
    (magic,) = struct.unpack_from(order + "H", data, 2)
    if magic == 42:
        return order, struct.unpack_from(order + "I", data, 4)[0], False
    if magic == 43 and len(data) >= 16:
        return order, struct.unpack_from(order + "Q", data, 8)[0], True
    raise BrokenIfd("no TIFF header")


def read(
    data: bytes, order: str, offset: int, big: bool = False, depth: int = 0
) -> tuple[dict[int, Entry], int]:
    """The IFD at *offset* with those it points to, and the offset of the next one (0: none)."""
    count_code, entry_code, inline = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    entry_size = struct.calcsize("=" + entry_code) + inline
    entries: dict[int, Entry] = {}
    try:
        (count,) = struct.unpack_from(order + count_code, data, offset)
        offset += struct.calcsize("=" + count_code)
        for at in range(offset, offset + count * entry_size, entry_size):
            tag, kind, values = struct.unpack_from(order + entry_code, data, at)
            length = _SIZES.get(kind, 0) * values
            where = at + entry_size - inline
            if length > inline:
                (where,) = struct.unpack_from(order + ("Q" if big else "I"), data, where)
            if where + length > len(data):
                raise BrokenIfd(f"the value of tag {tag} lies past the end")
            value = data[where : where + length]
            if tag in _POINTERS and kind in (4, 13, 16, 18) and values == 1:
                if depth == _MAX_DEPTH:
                    raise BrokenIfd("IFDs point at each other")
                (target,) = struct.unpack(order + ("I" if length == 4 else "Q"), value)
                further, _ = read(data, order, target, big, depth + 1)
                entries[tag] = Entry(LONG, 1, further)
            elif length:
                entries[tag] = Entry(kind, values, value)
        end = offset + count * entry_size
        (following,) = struct.unpack_from(order + ("Q" if big else "I"), data, end)
    except struct.error:
        raise BrokenIfd("cut short") from None
    return entries, following


def parse(blob: bytes) -> tuple[str, dict[int, Entry], int]:
    """Byte order, first IFD and the offset of the next one, of a whole TIFF or EXIF structure."""
    order, offset, big = header(blob)
    entries, following = read(blob, order, offset, big)
    return order, entries, following


def write(entries: Ifd, order: str, offset: int) -> bytes:
    """*entries* as an IFD to be put at the even *offset*, followed by all it points to."""
    table = struct.pack(order + "H", len(entries))
    free = offset + 2 + 12 * len(entries) + 4
    values = b""
    for tag, entry in sorted(entries.items()):
        if not isinstance(entry.value, bytes):
            further = write(entry.value, order, free + len(values))
            table += struct.pack(order + "HHII", tag, LONG, 1, free + len(values))
            values += further
            continue
        table += struct.pack(order + "HHI", tag, entry.type, entry.count)
        if len(entry.value) <= 4:
            table += entry.value.ljust(4, b"\0")
        else:
            table += struct.pack(order + "I", free + len(values))
            values += entry.value + b"\0" * (len(entry.value) % 2)
    return table + b"\0\0\0\0" + values


def blob(entries: Ifd, order: str) -> bytes:
    """*entries* as a whole TIFF or EXIF structure."""
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HI", 42, 8) + write(entries, order, 8)


def shorts(order: str, *values: int) -> Entry:
    """An entry of 16-bit numbers."""
    return Entry(SHORT, len(values), struct.pack(f"{order}{len(values)}H", *values))


def longs(order: str, *values: int) -> Entry:
    """An entry of 32-bit numbers."""
    return Entry(LONG, len(values), struct.pack(f"{order}{len(values)}I", *values))


def rational(order: str, value: Fraction) -> Entry:
    """An entry of one rational number, exact where 32 bits hold it."""
    value = value.limit_denominator(1 << 20)
    return Entry(RATIONAL, 1, struct.pack(order + "II", value.numerator, value.denominator))


def numbers(entries: Ifd, tag: int, order: str) -> tuple[int, ...]:
    """The whole numbers of *tag*; empty where it is missing or of another type."""
    entry = entries.get(tag)
    code = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(entry.type) if entry else None
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


def resolution(exif: bytes | None) -> tuple[Fraction, Fraction, str] | None:
    """Pixels per unit in x and y, and the unit, that *exif* gives.

    The unit is "inch", "cm", or "" where only the ratio is meant; 1:1 of no unit says nothing.
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
    known = unit or (unit == "" and found[0] != found[1])
    return (found[0], found[1], unit or "") if known else None
