"""Stacks of pages as ImageJ and OME describe them: what one page's tags tell of all of them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from cudafilter.errors import ImageError
from cudafilter.formats import ifd
from cudafilter.formats.ifd import Entry
from cudafilter.formats.metadata import Metadata
from cudafilter.stores.buffers import Source

_KIND, _REDUCED = 254, 1
"""The tag that tells what a picture is, and that of a smaller copy of another one."""
_MOST_COPIES = 64
_FURTHER = "its main picture is only a preview, or it holds further pictures (as raw photos do)"
_COMPRESSION = 259
_OFFSETS, _LENGTHS = 273, 279
_IMAGEJ_LENGTHS, _IMAGEJ = 50838, 50839
_OME_TYPES = {"uint8": "uint8", "uint16": "uint16", "float32": "float"}
"""What OME calls samples of each type."""


class Pages(NamedTuple):
    """The pages of a TIFF."""

    order: str
    """Byte order: "<" or ">"."""
    total: int
    directories: Iterator[dict[int, Entry]]
    """That of each page, read when it is wanted. Raises ImageError where it is damaged."""
    notes: tuple[str, ...]


def pages_of(source: Source) -> Pages:
    """The pages of the TIFF *source*, without smaller copies of them.

    Raises ImageError where it is damaged, or where its pictures lie otherwise than one after the
    other.
    """
    try:
        order, offset, big = ifd.header(source)
        places = _directories(source, order, offset, big)
        kept = [at for at in places if not _one(source, order, at, big, _KIND) & _REDUCED]
    except ifd.BrokenIfd as error:
        raise ImageError(f"it is damaged: {error}") from error
    if places[0] not in kept:
        raise ImageError(_FURTHER, hint="develop or convert it first")

    smaller = len(places) - len(kept)

    def directory(at: int) -> dict[int, Entry]:
        nonlocal smaller
        try:
            tags, _ = ifd.read(source, order, at, big)
        except ifd.BrokenIfd as error:
            raise ImageError(f"it is damaged: {error}") from error
        below = _smaller_copies(source, order, tags, big)
        if below is None:
            raise ImageError(_FURTHER, hint="develop or convert it first")
        smaller += below
        return tags

    first = directory(kept[0])
    notes: tuple[str, ...] = ()
    if smaller and len(kept) > 1:
        notes = ("smaller copies of its pages are not kept",)
    elif smaller:
        notes = (f"smaller copies of its picture are not kept: {smaller}",)
    if len(kept) > 1:
        return Pages(order, len(kept), chain([first], map(directory, kept[1:])), notes)
    count, further = _unlisted(first, order, len(source))
    return Pages(order, count, chain([first], further), notes)


def _smaller_copies(source: Source, order: str, tags: Mapping[int, Entry], big: bool) -> int | None:
    """How many directories below the one of *tags* hold its picture once more, smaller.

    None where they hold anything else.
    """
    places = ifd.numbers(tags, ifd.SUB_IFDS, order)
    if ifd.SUB_IFDS in tags and not 0 < len(places) <= _MOST_COPIES:
        return None
    try:
        found = [ifd.read(source, order, at, big)[0] for at in places]
    except ifd.BrokenIfd as error:
        raise ImageError(f"it is damaged: {error}") from error
    well = all(ifd.number(each, _KIND, order, 0) & _REDUCED for each in found)
    return len(found) if well else None


def _directories(data: Source, order: str, offset: int, big: bool) -> list[int]:
    """Where the IFDs are that follow each other from *offset*. Raises BrokenIfd."""
    found: dict[int, None] = {}
    entries = 0
    while offset:
        if offset in found:
            raise ifd.BrokenIfd("its directories follow each other in a circle")
        found[offset] = None
        _, count, offset = ifd.span(data, order, offset, big)
        entries += count
        if count > ifd.MAX_ENTRIES:
            raise ifd.BrokenIfd(f"it has more than {ifd.MAX_ENTRIES} tags")
        if 12 * entries > len(data):
            raise ifd.BrokenIfd("its directories lie over each other")
    return list(found)


def _one(data: Source, order: str, offset: int, big: bool, tag: int) -> int:
    """The first whole number of *tag* in the IFD at *offset*, or 0. Raises BrokenIfd."""
    start, count, _ = ifd.span(data, order, offset, big)
    found = {
        number: Entry(kind, values, data[where : where + length])
        for number, kind, values, length, where in ifd.entries_of(data, order, start, count, big)
        if number == tag
    }
    return ifd.number(found, tag, order, 0)


def of_some(metadata: Metadata) -> tuple[Metadata, tuple[str, ...]]:
    """*metadata* of a page for a file without the other pages, and notes for the user.

    What ImageJ and OME wrote of the whole stack would be wrong there.
    """
    metadata, imagej = _without(metadata, b"ImageJ=")
    metadata, ome = _without(metadata, b"<OME")
    names = ["ImageJ"] * imagej + ["OME"] * ome
    return metadata, tuple(f"what {name} tells of all pages is not kept" for name in names)


def retyped(metadata: Metadata, dtype: str, channels: int) -> tuple[Metadata, tuple[str, ...]]:
    """*metadata* of a page whose samples are of *dtype* now, and notes for the user.

    *channels* are those of a pixel. An OME description tells both, and is left out if it is wrong.
    """
    text = _description(metadata)
    if text is None or b"<OME" not in text:
        return metadata, ()
    kinds = set(re.findall(rb"<(?:\w+:)?Pixels[^>]*\sType=\"(\w+)\"", text))
    counts = set(re.findall(rb"\sSamplesPerPixel=\"(\d+)\"", text))
    right = kinds <= {_OME_TYPES[dtype].encode()} and (not counts or b"%d" % channels in counts)
    if right:
        return metadata, ()
    metadata, _ = _without(metadata, b"<OME")
    return metadata, ("its OME description is not kept, for it tells of other samples",)


def _description(metadata: Metadata) -> bytes | None:
    if metadata.exif is None:
        return None
    try:
        entry = ifd.parse(metadata.exif)[1].get(ifd.DESCRIPTION)
    except ifd.BrokenIfd:
        return None
    return entry.value if entry is not None and isinstance(entry.value, bytes) else None


def _without(metadata: Metadata, mark: bytes) -> tuple[Metadata, bool]:
    """*metadata* without a description that has *mark*, and whether there was one."""
    text = _description(metadata)
    if text is None or mark not in text or metadata.exif is None:
        return metadata, False
    metadata = replace(metadata, exif=_less(metadata.exif, {ifd.DESCRIPTION}))
    if metadata.tiff_tags is not None and mark == b"ImageJ=":
        less = _less(metadata.tiff_tags, {_IMAGEJ_LENGTHS, _IMAGEJ})
        metadata = replace(metadata, tiff_tags=less)
    return metadata, True


def _less(blob: bytes, drop: set[int]) -> bytes | None:
    """The directory *blob* without some tags; None where nothing is left."""
    order, entries, _ = ifd.parse(blob)
    entries = {tag: entry for tag, entry in entries.items() if tag not in drop}
    return ifd.blob(entries, order) if entries else None


def _unlisted(
    tags: Mapping[int, Entry], order: str, size: int
) -> tuple[int, Iterator[dict[int, Entry]]]:
    """How many pages ImageJ tells of in *tags*, the only directory, and those of all further ones.

    It writes no others where a stack passes 4 GiB: the pages follow each other, not compressed.
    *size* is that of the file. Raises ImageError where they are not found so.
    """
    entry = tags.get(ifd.DESCRIPTION)
    text = entry.value if entry is not None and isinstance(entry.value, bytes) else b""
    told = re.search(rb"^images=(\d{1,9})$", text, re.MULTILINE)
    if not text.startswith(b"ImageJ=") or told is None or int(told[1]) < 2:
        return 1, iter(())
    count = int(told[1])
    offsets, lengths = (ifd.numbers(tags, tag, order) for tag in (_OFFSETS, _LENGTHS))
    page = sum(lengths)
    ends = [offset + length for offset, length in zip(offsets, lengths, strict=False)]
    if (
        ifd.number(tags, _COMPRESSION, order, 1) != 1
        or len(offsets) != len(lengths)
        or not page
        or list(offsets[1:]) != ends[:-1]
        or offsets[0] + count * page > size
    ):
        raise ImageError(f"it tells of {count} images, and only one is found in it")

    def shifted(by: int) -> dict[int, Entry]:
        moved = struct.pack(f"{order}{len(offsets)}Q", *(offset + by for offset in offsets))
        return {**tags, _OFFSETS: Entry(ifd.LONG8, len(offsets), moved)}

    return count, (shifted(number * page) for number in range(1, count))
