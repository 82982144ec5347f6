"""TIFF: directories are read here, strips and tiles decoded by imagecodecs; see tiff_writer.py.

No library holds files to all that is needed: every strip inside the file, complete, its checksum
right. None writes 16-bit colour with a profile and EXIF either, and typed tag readers change text
and rationals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats import ifd, stacks
from cudafilter.formats.frames import PageReader
from cudafilter.formats.ifd import Entry
from cudafilter.formats.limits import Extent, Limits
from cudafilter.formats.metadata import Metadata, Resolution, TiffLayout
from cudafilter.formats.rows import Header, OneFrame, Reader, Writer
from cudafilter.formats.samples import straight
from cudafilter.formats.table import Ways
from cudafilter.formats.tiff_codecs import JPEG
from cudafilter.formats.tiff_strips import DEPTHS, FLOAT, SIGNED, UNSIGNED, Layout, Samples
from cudafilter.formats.tiff_tags import (
    BITS,
    CMYK,
    COLOR_MAP,
    COMPRESSION,
    EXTRA,
    FORMAT,
    GRAY,
    HEIGHT,
    ICC,
    INK_SET,
    INVERTED,
    LAYERS,
    LAYOUT,
    PALETTE,
    PHOTOMETRIC,
    RESOLUTION,
    RGB,
    SAMPLES,
    SLICES,
    TILE_ROWS,
    TILE_WIDTH,
    WIDTH,
    XMP,
    YCBCR,
)
from cudafilter.formats.tiff_writer import TiffWriter
from cudafilter.operations.pixels import Pixels, full_scale
from cudafilter.stores.buffers import Sink, Source

_COLOURS = {INVERTED: 1, GRAY: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
"""Photometric interpretation -> samples a pixel, without alpha."""
_OTHER_COLOURS = {
    4: "a mask", 8: "L*a*b* colour", 9: "L*a*b* colour", 10: "L*a*b* colour",
    32803: "a camera's raw mosaic", 32844: "LogL", 32845: "LogLuv colour", 34892: "linear raw",
}  # fmt: skip
_ASSOCIATED, _UNASSOCIATED = 1, 2
_EXIF_PRIVATE = frozenset({33432, 34665, 34853})
"""Tags past 32767 that EXIF knows in its first IFD: copyright, EXIF, GPS."""


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file."""
    order, offset, big = ifd.header(head)
    tags, _ = ifd.read(head, order, offset, big)
    width, height = ifd.number(tags, WIDTH, order, 0), ifd.number(tags, HEIGHT, order, 0)
    palette = ifd.number(tags, PHOTOMETRIC, order, 1) == PALETTE
    channels = 3 if palette else ifd.number(tags, SAMPLES, order, 1)
    bits = ifd.number(tags, BITS, order, 1)
    floats = ifd.number(tags, FORMAT, order, 1) == FLOAT
    return Extent(width, height, channels, 4 if floats else 1 if bits <= 8 else 2)


def frames(source: Source) -> int:
    """How many pages there are."""
    return stacks.pages_of(source).total


def open(source: Source, limits: Limits) -> Reader:
    """Read a TIFF: pages that are gray, RGB (with alpha or not) or CMYK.

    Pixels stay as they are stored, whatever the orientation tag says.
    """
    pages = stacks.pages_of(source)
    first = next(pages.directories)
    notes = [*_losses(source, first), *pages.notes]
    main = _Reader(source, pages.order, first, limits, notes)
    if pages.total == 1:
        return main
    further = (_Reader(source, pages.order, tags, limits, []) for tags in pages.directories)
    return PageReader(pages.total, chain([main], further))


class _Reader(OneFrame):
    """The reader of a picture whose strips and tiles lie anywhere."""

    in_order = False

    def __init__(
        self,
        source: Source,
        order: str,
        tags: Mapping[int, Entry],
        limits: Limits,
        notes: Sequence[str],
    ) -> None:
        stored = self._stored = _samples(tags, order, limits)
        self._alpha = _alpha(tags, order, stored)
        self._layout = Layout(source, order, tags, stored, limits)
        self.step = self._layout.step
        is_palette = stored.photometric == PALETTE
        self._palette = _palette(tags, order, stored.bits) if is_palette else None
        told = _conversions(stored)
        if self._alpha == _ASSOCIATED:
            told.append("premultiplied alpha stored as straight")
        channels = 3 if is_palette else stored.samples
        metadata, wrong = stacks.retyped(
            _metadata(tags, order, stored.photometric == CMYK), stored.dtype, channels
        )
        self.notes = (*told, *notes, *wrong)
        self.header = Header(
            stored.width, stored.height, channels, stored.dtype, self._alpha > 0, metadata
        )

    def rows(self, first: int, last: int) -> Pixels:
        """See Reader."""
        stored, pixels = self._stored, self._layout.rows(first, last)
        if self._palette is not None:
            pixels = _coloured(pixels, self._palette)
        elif stored.bits < 8:
            pixels *= np.uint8(255 // ((1 << stored.bits) - 1))
        if stored.photometric == INVERTED:
            full = np.array(full_scale(pixels.dtype), pixels.dtype)
            np.subtract(full, pixels[..., :1], out=pixels[..., :1])
        return straight(pixels) if self._alpha == _ASSOCIATED else pixels


def _samples(tags: Mapping[int, Entry], order: str, limits: Limits) -> Samples:
    """How samples are stored; ImageError for what cannot be read exactly, or is too large."""

    def tag(number: int, default: int) -> int:
        return ifd.number(tags, number, order, default)

    width, height, samples = tag(WIDTH, 0), tag(HEIGHT, 0), tag(SAMPLES, 1)
    photometric = tag(PHOTOMETRIC, GRAY)
    if not width or not height:
        raise ImageError("it is damaged: it has no size")
    if (slices := tag(SLICES, 1)) > 1:
        raise ImageError(f"it holds a volume of {slices:,} slices", hint="save each as a page")
    if photometric not in _COLOURS or (photometric == YCBCR and tag(COMPRESSION, 1) != JPEG):
        name = "YCbCr colour" if photometric == YCBCR else f"colour of kind {photometric}"
        raise ImageError(f"{_OTHER_COLOURS.get(photometric, name)} cannot be filtered")
    depths = set(ifd.numbers(tags, BITS, order) or (1,))
    kinds = set(ifd.numbers(tags, FORMAT, order) or (UNSIGNED,))
    bits, kind = depths.pop(), kinds.pop()
    if depths or kinds or kind not in DEPTHS or bits not in DEPTHS[kind]:
        sizes = sorted({bits, *depths})
        few = len(sizes) <= 4
        listed = ", ".join(map(str, sizes)) if few else f"{sizes[0]:,} to {sizes[-1]:,}"
        sort = "whole numbers" if kind in (UNSIGNED, SIGNED) else "floats"
        sort = (
            "numbers of several kinds" if kinds else sort if kind in DEPTHS else "complex numbers"
        )
        raise ImageError(f"samples of {listed} bits ({sort}) are not supported")
    eight = kind == UNSIGNED and bits == 8
    if photometric in (CMYK, YCBCR) and not eight:
        name = "CMYK" if photometric == CMYK else "YCbCr"
        raise ImageError(f"{name} is read with 8 bits only, and these samples have {bits}")
    if photometric == CMYK and tag(INK_SET, 1) != 1:
        raise ImageError("its inks are other than cyan, magenta, yellow and black")
    if photometric == INVERTED and kind != UNSIGNED:
        raise ImageError("white-is-zero samples of this type are not supported")
    if photometric == PALETTE and not (kind == UNSIGNED and bits <= 8):
        raise ImageError("a palette of more than 8 bits is not supported")
    stored = Samples(width, height, samples, bits, kind, photometric)
    limits.require_size(width, height, 3 if photometric == PALETTE else stored.pixel_bytes)
    return stored


def _alpha(tags: Mapping[int, Entry], order: str, stored: Samples) -> int:
    """What the last sample is: _ASSOCIATED or _UNASSOCIATED alpha, or 0 for none."""
    extra = ifd.numbers(tags, EXTRA, order)
    surplus = stored.samples - _COLOURS[stored.photometric]
    if not surplus and not extra:
        return 0
    if not extra and surplus == 1 and stored.photometric == RGB:
        return _UNASSOCIATED  # files of four samples without the tag are RGBA
    if surplus < 0 or len(extra) != surplus:
        raise ImageError("it is damaged: its samples do not go with its colours")
    if surplus > 1 or extra[0] not in (_ASSOCIATED, _UNASSOCIATED):
        raise ImageError(
            "it has extra channels that are no alpha", hint="save it without them first"
        )
    if stored.photometric not in (INVERTED, GRAY, RGB):
        what = "a palette" if stored.photometric == PALETTE else "CMYK"
        raise ImageError(f"{what} with a separate alpha channel cannot be filtered")
    return extra[0]


def _conversions(stored: Samples) -> list[str]:
    """What becomes of samples that are kept as another type, for the user."""
    if stored.photometric == PALETTE:
        return ["palette expanded to RGB"]
    if stored.bits == 1:
        return ["1-bit expanded to 8-bit gray"]
    kind = "floats" if stored.kind == FLOAT else "integers"
    kept = 8 * np.dtype(stored.dtype).itemsize
    if stored.kind == SIGNED and stored.bits == kept:
        return [f"{kept}-bit integers with a sign stored without one"]
    if stored.bits >= 8 and stored.bits != kept:
        return [f"{stored.bits}-bit {kind} stored as {kept}-bit, which holds them all"]
    return []


def _palette(tags: Mapping[int, Entry], order: str, bits: int) -> Pixels:
    """The colours (2**bits, 3) of a palette, in 8 bits."""
    values = np.array(ifd.numbers(tags, COLOR_MAP, order), np.uint16)
    if len(values) != 3 << bits:
        raise ImageError("it is damaged: its palette is missing, or of another length")
    if values.max() > 255:  # some programs write 8 bits
        values >>= 8
    return np.ascontiguousarray(values.astype(np.uint8).reshape(3, -1).T)


def _coloured(indices: Pixels, palette: Pixels) -> Pixels:
    return np.ascontiguousarray(palette[indices[..., 0]])


def _losses(data: Source, tags: Mapping[int, Entry]) -> list[str]:
    """What of the file's tags is not kept, or will not be what it was, for the user."""
    lost = ["its Photoshop layers are not kept"] if LAYERS in tags else []
    note = ifd.note_of(tags)
    if note and note.at + len(note.value) > ifd.MOST_EXIF and ifd.counts_from_header(note):
        lost.append("the camera's maker note may not be readable: its offsets count from the "
                    "place where it stood")  # fmt: skip
    if pointers := ifd.dangling(data):
        listed = ", ".join(map(str, pointers))
        lost.append(f"TIFF tags that point at directories of their own lead nowhere: {listed}")
    return lost


def _metadata(tags: Mapping[int, Entry], order: str, cmyk: bool) -> Metadata:
    kept = {tag: entry for tag, entry in tags.items() if tag not in LAYOUT}
    exif = {tag: e for tag, e in kept.items() if tag < 32768 or tag in _EXIF_PRIVATE}
    private = {tag: entry for tag, entry in kept.items() if tag not in exif}
    blob = ifd.blob(exif, order) if exif.keys() - RESOLUTION else None
    found = ifd.resolution(ifd.blob(exif, order))

    def raw(tag: int) -> bytes | None:
        value = tags[tag].value if tag in tags else None
        return value if isinstance(value, bytes) else None

    return Metadata(
        raw(ICC),
        blob,
        raw(XMP),
        Resolution(*found) if found else None,
        cmyk,
        tiff_tags=ifd.blob(private, order) if private else None,
        tiff_layout=_layout(tags, order),
    )


def _layout(tags: Mapping[int, Entry], order: str) -> TiffLayout:
    tile = ifd.number(tags, TILE_WIDTH, order, 0), ifd.number(tags, TILE_ROWS, order, 0)
    compression = ifd.number(tags, COMPRESSION, order, 1)
    return TiffLayout(tile if TILE_WIDTH in tags else None, compression)


def create(target: Sink, header: Header, ways: Ways) -> Writer:
    """Write pixels of any type: in deflated strips, or laid out as the TIFF that they come from.

    Pages follow each other. It is a BigTIFF where offsets of 32 bits may not do.
    """
    if not target.can_patch:
        raise ImageError(
            "a TIFF begins with the place of what is known at its end, so a pipe takes it only if"
            " all of it is in memory",
            hint="write it to a file",
        )
    return TiffWriter(target, header, ways)
