"""HEIF: the items of AVIF and HEIC files, their properties, and what hangs on them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from cudafilter.errors import ImageError
from cudafilter.formats import ifd
from cudafilter.formats.bmff import Box, boxes
from cudafilter.formats.limits import Extent, require_entries
from cudafilter.formats.metadata import EXIF_MARK, SRGB, Metadata, Resolution

ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0")
XMP = b"application/rdf+xml"
_UNSAID = 2
"""CICP's number for a colour space that is not told."""
# Which EXIF orientation a turn to the left, in quarters, and then a mirror give: None, exchanging
# top and bottom (0), or left and right (1).
_ORIENTATIONS = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 0): 4, (0, 1): 2, (1, 0): 5, (1, 1): 7, (2, 0): 2, (2, 1): 4, (3, 0): 7, (3, 1): 5,
}  # fmt: skip


class Property(NamedTuple):
    """What is told of an item."""

    kind: bytes
    body: bytes


@dataclass
class Item:
    """A picture or a piece of metadata in a file."""

    kind: bytes = b""
    content: bytes = b""
    """The media type of an item of kind mime."""
    properties: list[Property] = field(default_factory=list)
    references: dict[bytes, list[int]] = field(default_factory=dict)
    """What it refers to, by kind."""
    extents: list[tuple[int, int]] = field(default_factory=list)
    """Where its data begin and how long they are."""

    def first(self, kind: bytes) -> bytes | None:
        """The first property of *kind*."""
        return next((one.body for one in self.properties if one.kind == kind), None)


class Items(NamedTuple):
    """What a file holds."""

    items: dict[int, Item]
    primary: int
    frames: int
    """Of an animation; 1 where it is none."""

    @property
    def main(self) -> Item:
        """The picture that is shown."""
        return self.items[self.primary]

    def size(self) -> tuple[int, int]:
        """Width and height of the picture, unturned. Raises ImageError where it has none."""
        body = self.main.first(b"ispe")
        width, height = struct.unpack_from(">4xII", body) if body and len(body) >= 12 else (0, 0)
        if not width or not height:
            raise ImageError("it is damaged: its picture has no size")
        return width, height

    def alpha(self) -> tuple[int, Item] | None:
        """The number and item of the picture's alpha."""
        for number, item in self.items.items():
            kind = (item.first(b"auxC") or b"")[4:]
            if self.primary in item.references.get(b"auxl", []) and kind.startswith(ALPHA):
                return number, item
        return None

    def further(self) -> int:
        """How many pictures there are that the one that is shown is not made of."""
        own, alpha = {self.primary}, self.alpha()
        own |= {alpha[0]} if alpha else set()
        for number in list(own):
            own.update(self.items[number].references.get(b"dimg", []))
        told = {b"Exif", b"mime", b"uri ", b""}
        return sum(n not in own and item.kind not in told for n, item in self.items.items())

    def orientation(self) -> int:
        """The EXIF orientation that says how the picture is turned."""
        turn, mirror = 0, None
        for kind, body in self.main.properties:
            if kind == b"irot" and body:
                turn = body[0] & 3
            elif kind == b"imir" and body:
                mirror = body[0] & 1
        return _ORIENTATIONS[turn, mirror]

    def told(self, data: bytes, kind: bytes, content: bytes = b"") -> list[bytes]:
        """The data of the items of *kind* that tell of the picture."""
        return [
            item_data(data, item)
            for item in self.items.values()
            if item.kind == kind
            and item.content.startswith(content)
            and self.primary in item.references.get(b"cdsc", [self.primary])
        ]


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file."""
    found = items_of(head, cut=True)
    width, height = found.size()
    channels = (found.main.first(b"pixi") or bytes(4) + b"\3")[4]
    return Extent(width, height, channels + bool(found.alpha()), 2)


def item_data(data: bytes, item: Item) -> bytes:
    """The bytes of *item*. Raises ImageError where they are not in the file."""
    pieces = []
    left = len(data)
    for start, length in item.extents:
        left -= length  # extents that share bytes must not multiply them
        if start + length > len(data) or left < 0:
            raise ImageError("it is cut short, or damaged: a part lies past its end")
        pieces.append(data[start : start + length])
    return b"".join(pieces)


def metadata_of(
    data: bytes, found: Items, bits: int, known: set[bytes]
) -> tuple[Metadata, list[str]]:
    """What a file tells of its picture of so many *bits* a sample, and notes.

    *known* are the kinds of properties that are no loss. How the picture is turned becomes the EXIF
    orientation, for what else EXIF says of that does not count.
    """
    exif = None
    for body in found.told(data, b"Exif")[:1]:
        (skipped,) = struct.unpack_from(">I", body.ljust(4, b"\0"))
        exif = body[4 + skipped :].removeprefix(EXIF_MARK) or None
    exif, notes = ifd.as_told(exif, found.orientation())
    packets = found.told(data, b"mime", XMP)
    icc = cicp = None
    for kind, body in found.main.properties:
        if kind == b"colr" and body[:4] in (b"prof", b"rICC"):
            icc = icc or body[4:]
        elif kind == b"colr" and body[:4] == b"nclx" and len(body) >= 8:
            cicp = cicp or struct.unpack_from(">HH", body, 4)
    if cicp and cicp[0] in (_UNSAID, SRGB[0]) and cicp[1] in (_UNSAID, SRGB[1]):
        cicp = None
    if others := sorted({k.decode("latin-1") for k, _ in found.main.properties if k not in known}):
        notes.append(f"not kept: the properties {', '.join(others)}")
    if further := found.further():
        notes.append(f"{further} further pictures in it, such as thumbnails, are not kept")
    resolution = ifd.resolution(exif)
    metadata = Metadata(
        icc,
        exif,
        packets[0] if packets else None,
        Resolution(*resolution) if resolution else None,
        bits=bits if bits > 8 else None,
        cicp=cicp,
    )
    return metadata, notes


def orientation_boxes(orientation: int) -> tuple[int | None, int | None]:
    """The turn and the mirror that give an EXIF *orientation*; None for what is not needed."""
    for (turn, mirror), given in _ORIENTATIONS.items():
        if given == orientation:
            return turn or None, mirror
    raise ValueError(f"no orientation {orientation}")


def items_of(data: bytes, cut: bool = False) -> Items:
    """All items of a file, or of the first bytes of one. Raises ImageError for a damaged one."""
    try:
        return _items_of(data, cut)
    except (struct.error, IndexError, ValueError):
        raise ImageError("it is damaged: its list of parts makes no sense") from None


def _items_of(data: bytes, cut: bool) -> Items:
    top = boxes(data, cut=cut)
    metas = [one for one in top if one.kind == b"meta"]
    if len(metas) != 1:
        raise ImageError("it is damaged: it has no picture")
    inner = {one.kind: one for one in reversed(boxes(data, metas[0].start + 4, metas[0].stop))}
    items: dict[int, Item] = {}
    if b"iinf" in inner:
        _take_infos(data, inner[b"iinf"], items)
    if b"iloc" in inner:
        _take_places(data, inner[b"iloc"], items, inner.get(b"idat"))
    if b"iref" in inner:
        _take_references(data, inner[b"iref"], items)
    if b"iprp" in inner:
        _take_properties(data, inner[b"iprp"], items)
    main = inner.get(b"pitm")
    if main is None:
        raise ImageError("it is damaged: it has no picture")
    wide = data[main.start] > 0
    (primary,) = struct.unpack_from(">I" if wide else ">H", data, main.start + 4)
    if primary not in items:
        raise ImageError("it is damaged: it has no picture")
    return Items(items, primary, _frames(data, top))


def _take_infos(data: bytes, at: Box, items: dict[int, Item]) -> None:
    wide = data[at.start] > 0
    for kind, start, stop in boxes(data, at.start + (8 if wide else 6), at.stop):
        version = data[start]
        if kind != b"infe" or version not in (2, 3):
            continue
        number, _, kind = struct.unpack_from(">HH4s" if version == 2 else ">IH4s", data, start + 4)
        text = data[start + (12 if version == 2 else 14) : stop].split(b"\0")
        items.setdefault(number, Item()).kind = kind
        if kind == b"mime" and len(text) > 1:
            items[number].content = text[1]


def _take_places(data: bytes, at: Box, items: dict[int, Item], within: Box | None) -> None:
    """Where items' data are: in the file, or *within* a box."""
    version, sizes, more = data[at.start], data[at.start + 4], data[at.start + 5]
    offset_size, length_size, base_size = sizes >> 4, sizes & 15, more >> 4
    index_size = more & 15 if version else 0
    where, extents = at.start + 6, 0

    def number(size: int) -> int:
        nonlocal where
        where += size
        if where > at.stop:
            raise IndexError
        return int.from_bytes(data[where - size : where], "big")

    for _ in range(number(4 if version == 2 else 2)):
        item = items.setdefault(number(4 if version == 2 else 2), Item())
        method = number(2) & 15 if version else 0
        number(2)
        base = number(base_size)
        if method == 1 and within is not None:
            base += within.start
        elif method:
            raise ValueError(method)
        parts = number(2)
        extents += parts
        require_entries(extents, "parts")
        for _ in range(parts):
            number(index_size)
            item.extents.append((base + number(offset_size), number(length_size)))


def _take_references(data: bytes, at: Box, items: dict[int, Item]) -> None:
    code = ">I" if data[at.start] else ">H"
    size = struct.calcsize(code)
    for kind, start, stop in boxes(data, at.start + 4, at.stop):
        (number,) = struct.unpack_from(code, data, start)
        (count,) = struct.unpack_from(">H", data, start + size)
        if start + size + 2 + count * size > stop:
            raise IndexError
        targets = struct.unpack_from(f">{count}{code[1]}", data, start + size + 2)
        items.setdefault(number, Item()).references.setdefault(kind, []).extend(targets)


def _take_properties(data: bytes, at: Box, items: dict[int, Item]) -> None:
    inner = boxes(data, at.start, at.stop)
    known: list[Property] = []
    for one in inner:
        if one.kind == b"ipco":
            known += [Property(k, data[a:b]) for k, a, b in boxes(data, one.start, one.stop)]
    for one in inner:
        if one.kind != b"ipma":
            continue
        version, wide = data[one.start], data[one.start + 3] & 1
        (count,) = struct.unpack_from(">I", data, one.start + 4)
        where = one.start + 8
        require_entries(count, "parts")
        for _ in range(count):
            (number,) = struct.unpack_from(">I" if version else ">H", data, where)
            where += 4 if version else 2
            told, where = data[where], where + 1
            indices = struct.unpack_from(f">{told}{'H' if wide else 'B'}", data, where)
            where += told * (2 if wide else 1)
            if where > one.stop:
                raise IndexError
            mask = 0x7FFF if wide else 0x7F
            properties = [known[(index & mask) - 1] for index in indices if index & mask]
            items.setdefault(number, Item()).properties.extend(properties)


def _frames(data: bytes, top: list[Box]) -> int:
    """Pictures of the longest track."""
    most = 1
    for kind, start, stop in top:
        if kind != b"moov":
            continue
        at = data.find(b"stsz", start, stop)
        while at >= 0:
            most = max(most, struct.unpack_from(">I", data, at + 12)[0])
            at = data.find(b"stsz", at + 4, stop)
    return most
