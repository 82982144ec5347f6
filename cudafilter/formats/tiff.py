"""TIFF: directories are read and laid out here, strips and tiles decoded by imagecodecs.

No library holds files to all that is needed: every strip inside the file, complete, its checksum
right. None writes 16-bit colour with a profile and EXIF either, and typed tag readers change text
and rationals. Written is one image, in strips, deflated.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from fractions import Fraction

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats import deflate, ifd
from cudafilter.formats.ifd import Entry
from cudafilter.formats.limits import Extent, Limits, refuse_frames
from cudafilter.formats.metadata import Metadata, Resolution
from cudafilter.formats.rows import Header, OneFrame, Reader, Strips, Writer
from cudafilter.formats.samples import straight
from cudafilter.formats.table import Ways
from cudafilter.formats.tiff_codecs import JPEG
from cudafilter.formats.tiff_strips import DEPTHS, FLOAT, SIGNED, UNSIGNED, Layout, Samples
from cudafilter.host.cores import each
from cudafilter.operations.pixels import Pixels, full_scale
from cudafilter.stores.buffers import Sink, Source

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_PREDICTOR, _COLOR_MAP, _INK_SET, _EXTRA, _FORMAT = 317, 320, 332, 338, 339
_XMP, _ICC, _LAYERS = 700, 34675, 37724
_DEFLATE = 8
_INVERTED, _GRAY, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {_INVERTED: 1, _GRAY: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
"""Photometric interpretation -> samples a pixel, without alpha."""
_OTHER_COLOURS = {
    4: "a mask", 8: "L*a*b* colour", 9: "L*a*b* colour", 10: "L*a*b* colour",
    32803: "a camera's raw mosaic", 32844: "LogL", 32845: "LogLuv colour", 34892: "linear raw",
}  # fmt: skip
_ASSOCIATED, _UNASSOCIATED = 1, 2

_LAYOUT = frozenset(
    {*range(254, 260), *range(262, 267), 273, 277, 278, 279, 280, 281, 284, *range(288, 294), 297}
    | {317, *range(320, 326), *range(326, 329), 330, 332, 334, 336, 337, 338, 339, 340, 341}
    | {*range(343, 348), *range(512, 522), 529, 530, 531, 532, 559, 50674, _XMP, _ICC, _LAYERS}
)
"""Tags that tell how pixels are stored, or (_LAYERS) Photoshop's layers of the old pixels."""
_RESOLUTION = frozenset({ifd.X_RESOLUTION, ifd.Y_RESOLUTION, ifd.RESOLUTION_UNIT})
_EXIF_PRIVATE = frozenset({33432, 34665, 34853})
"""Tags past 32767 that EXIF knows in its first IFD: copyright, EXIF, GPS."""

_STRIP_SIZE = 1 << 20
_MARK_BYTES = 8
"""What a file begins with: byte order, 42, and where the directory lies."""
_MAX_SIZE = (1 << 32) - 1
_TOO_LARGE = "the picture takes more than the 4 GiB that a TIFF file holds"


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file."""
    order, offset, big = ifd.header(head)
    tags, _ = ifd.read(head, order, offset, big)
    width, height = ifd.number(tags, _WIDTH, order, 0), ifd.number(tags, _HEIGHT, order, 0)
    palette = ifd.number(tags, _PHOTOMETRIC, order, 1) == _PALETTE
    channels = 3 if palette else ifd.number(tags, _SAMPLES, order, 1)
    bits = ifd.number(tags, _BITS, order, 1)
    floats = ifd.number(tags, _FORMAT, order, 1) == FLOAT
    return Extent(width, height, channels, 4 if floats else 1 if bits <= 8 else 2)


def open(source: Source, limits: Limits) -> Reader:
    """Read a TIFF of one picture: gray, RGB (with alpha or not) or CMYK.

    Pixels stay as they are stored, whatever the orientation tag says.
    """
    try:
        order, offset, big = ifd.header(source)
        tags, following = ifd.read(source, order, offset, big)
    except ifd.BrokenIfd as error:
        raise ImageError(f"it is damaged: {error}") from error
    if following:
        if (count := ifd.pages(source, order, offset, big)) > 1:
            refuse_frames(count)
        raise ImageError("it is damaged: its directories follow each other in a circle")
    if ifd.SUB_IFDS in tags or ifd.number(tags, 254, order, 0) & 1:
        raise ImageError(
            "its main picture is only a preview, or it holds further pictures (as raw photos do)",
            hint="develop or convert it first",
        )
    return _Reader(source, order, tags, limits)


class _Reader(OneFrame):
    """The reader of a picture whose strips and tiles lie anywhere."""

    in_order = False

    def __init__(
        self, source: Source, order: str, tags: Mapping[int, Entry], limits: Limits
    ) -> None:
        stored = self._stored = _samples(tags, order, limits)
        self._alpha = _alpha(tags, order, stored)
        self._layout = Layout(source, order, tags, stored, limits)
        self.step = self._layout.step
        is_palette = stored.photometric == _PALETTE
        self._palette = _palette(tags, order, stored.bits) if is_palette else None
        notes = _conversions(stored)
        if self._alpha == _ASSOCIATED:
            notes.append("premultiplied alpha stored as straight")
        self.notes = (*notes, *_losses(source, tags))
        self.header = Header(
            stored.width, stored.height, 3 if is_palette else stored.samples, stored.dtype,
            self._alpha > 0, _metadata(tags, order, stored.photometric == _CMYK),
        )  # fmt: skip

    def rows(self, first: int, last: int) -> Pixels:
        """See Reader."""
        stored, pixels = self._stored, self._layout.rows(first, last)
        if self._palette is not None:
            pixels = _coloured(pixels, self._palette)
        elif stored.bits < 8:
            pixels *= np.uint8(255 // ((1 << stored.bits) - 1))
        if stored.photometric == _INVERTED:
            full = np.array(full_scale(pixels.dtype), pixels.dtype)
            np.subtract(full, pixels[..., :1], out=pixels[..., :1])
        return straight(pixels) if self._alpha == _ASSOCIATED else pixels


def _samples(tags: Mapping[int, Entry], order: str, limits: Limits) -> Samples:
    """How samples are stored; ImageError for what cannot be read exactly, or is too large."""

    def tag(number: int, default: int) -> int:
        return ifd.number(tags, number, order, default)

    width, height, samples = tag(_WIDTH, 0), tag(_HEIGHT, 0), tag(_SAMPLES, 1)
    photometric = tag(_PHOTOMETRIC, _GRAY)
    if not width or not height:
        raise ImageError("it is damaged: it has no size")
    if photometric not in _COLOURS or (photometric == _YCBCR and tag(_COMPRESSION, 1) != JPEG):
        name = "YCbCr colour" if photometric == _YCBCR else f"colour of kind {photometric}"
        raise ImageError(f"{_OTHER_COLOURS.get(photometric, name)} cannot be filtered")
    depths = set(ifd.numbers(tags, _BITS, order) or (1,))
    kinds = set(ifd.numbers(tags, _FORMAT, order) or (UNSIGNED,))
    bits, kind = depths.pop(), kinds.pop()
    if depths or kinds or kind not in DEPTHS or bits not in DEPTHS[kind]:
        listed = ", ".join(map(str, sorted({bits, *depths})))
        sort = "whole numbers" if kind in (UNSIGNED, SIGNED) else "floats"
        sort = (
            "numbers of several kinds" if kinds else sort if kind in DEPTHS else "complex numbers"
        )
        raise ImageError(f"samples of {listed} bits ({sort}) are not supported")
    eight = kind == UNSIGNED and bits == 8
    if photometric in (_CMYK, _YCBCR) and not eight:
        name = "CMYK" if photometric == _CMYK else "YCbCr"
        raise ImageError(f"{name} is read with 8 bits only, and these samples have {bits}")
    if photometric == _CMYK and tag(_INK_SET, 1) != 1:
        raise ImageError("its inks are other than cyan, magenta, yellow and black")
    if photometric == _INVERTED and kind != UNSIGNED:
        raise ImageError("white-is-zero samples of this type are not supported")
    if photometric == _PALETTE and not (kind == UNSIGNED and bits <= 8):
        raise ImageError("a palette of more than 8 bits is not supported")
    stored = Samples(width, height, samples, bits, kind, photometric)
    limits.require_size(width, height, 3 if photometric == _PALETTE else stored.pixel_bytes)
    return stored


def _alpha(tags: Mapping[int, Entry], order: str, stored: Samples) -> int:
    """What the last sample is: _ASSOCIATED or _UNASSOCIATED alpha, or 0 for none."""
    extra = ifd.numbers(tags, _EXTRA, order)
    surplus = stored.samples - _COLOURS[stored.photometric]
    if not surplus and not extra:
        return 0
    if not extra and surplus == 1 and stored.photometric == _RGB:
        return _UNASSOCIATED  # files of four samples without the tag are RGBA
    if surplus < 0 or len(extra) != surplus:
        raise ImageError("it is damaged: its samples do not go with its colours")
    if surplus > 1 or extra[0] not in (_ASSOCIATED, _UNASSOCIATED):
        raise ImageError(
            "it has extra channels that are no alpha", hint="save it without them first"
        )
    if stored.photometric not in (_INVERTED, _GRAY, _RGB):
        what = "a palette" if stored.photometric == _PALETTE else "CMYK"
        raise ImageError(f"{what} with a separate alpha channel cannot be filtered")
    return extra[0]


def _conversions(stored: Samples) -> list[str]:
    """What becomes of samples that are kept as another type, for the user."""
    if stored.photometric == _PALETTE:
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
    values = np.array(ifd.numbers(tags, _COLOR_MAP, order), np.uint16)
    if len(values) != 3 << bits:
        raise ImageError("it is damaged: its palette is missing, or of another length")
    if values.max() > 255:  # some programs write 8 bits
        values >>= 8
    return np.ascontiguousarray(values.astype(np.uint8).reshape(3, -1).T)


def _coloured(indices: Pixels, palette: Pixels) -> Pixels:
    return np.ascontiguousarray(palette[indices[..., 0]])


def _losses(data: Source, tags: Mapping[int, Entry]) -> list[str]:
    """What of the file's tags is not kept, or will not be what it was, for the user."""
    lost = ["its Photoshop layers are not kept"] if _LAYERS in tags else []
    note = ifd.note_of(tags)
    if note and note.at + len(note.value) > ifd.MOST_EXIF and ifd.counts_from_header(note):
        lost.append("the camera's maker note may not be readable: its offsets count from the "
                    "place where it stood")  # fmt: skip
    if pointers := ifd.dangling(data):
        listed = ", ".join(map(str, pointers))
        lost.append(f"TIFF tags that point at directories of their own lead nowhere: {listed}")
    return lost


def _metadata(tags: Mapping[int, Entry], order: str, cmyk: bool) -> Metadata:
    kept = {tag: entry for tag, entry in tags.items() if tag not in _LAYOUT}
    exif = {tag: e for tag, e in kept.items() if tag < 32768 or tag in _EXIF_PRIVATE}
    private = {tag: entry for tag, entry in kept.items() if tag not in exif}
    blob = ifd.blob(exif, order) if exif.keys() - _RESOLUTION else None
    found = ifd.resolution(ifd.blob(exif, order))

    def raw(tag: int) -> bytes | None:
        value = tags[tag].value if tag in tags else None
        return value if isinstance(value, bytes) else None

    return Metadata(
        raw(_ICC),
        blob,
        raw(_XMP),
        Resolution(*found) if found else None,
        cmyk,
        tiff_tags=ifd.blob(private, order) if private else None,
    )


def create(target: Sink, header: Header, ways: Ways) -> Writer:
    """Write pixels of any type in strips of about 1 MiB, deflated side by side."""
    return _Writer(target, header, ways)


class _Writer(OneFrame):
    """Strips as they come, and the directory behind them."""

    def __init__(self, target: Sink, header: Header, ways: Ways) -> None:
        given, metadata = ways.compress_level, header.metadata
        self._level = deflate.DEFAULT_LEVEL if given is None else given
        self._target, self._header = target, header
        self._order = "<"
        self._tags: dict[int, Entry] = {}
        for blob in (metadata.tiff_tags, metadata.exif):
            if blob:
                self._order, found, _ = ifd.parse(blob)
                kept = {tag: e for tag, e in found.items() if tag not in _LAYOUT | _RESOLUTION}
                self._tags |= kept
        row = header.width * header.channels * np.dtype(header.dtype).itemsize
        self._rows = max(1, _STRIP_SIZE // row)
        self._strips = Strips(header, self._rows)
        self._space = ifd.space_around(ifd.note_of(self._tags))
        self._starts: list[int] = []
        self._lengths: list[int] = []
        target.write(bytes(_MARK_BYTES))

    def write(self, rows: Pixels) -> None:
        """See Writer."""
        block, top, starts = self._strips.add(rows)

        def strip(start: int) -> bytes:
            at = start - top
            return _deflated(block[at : at + self._rows], self._order, self._level)

        for body in each(strip, starts):
            self._starts.append(self._space.add(body))
            self._lengths.append(len(body))
        self._lay(self._space.ready())

    def close(self) -> None:
        """See Writer."""
        self._strips.require_complete()
        order = self._order
        try:
            at = ifd.write(self._all_tags(), order, self._space)
        except struct.error:  # an offset that 32 bits do not hold
            raise ImageError(_TOO_LARGE) from None
        self._lay(self._space.pieces())
        mark = b"II" if order == "<" else b"MM"
        self._target.patch(0, mark + struct.pack(order + "HI", 42, at))

    def _lay(self, pieces: Iterable[bytes]) -> None:
        if self._space.end > _MAX_SIZE:
            raise ImageError(_TOO_LARGE)
        for piece in pieces:
            self._target.write(piece)

    def _all_tags(self) -> dict[int, Entry]:
        header, order, metadata = self._header, self._order, self._header.metadata
        channels, floats = header.channels, header.dtype == "float32"
        bits = 8 * np.dtype(header.dtype).itemsize
        colours = {1: _GRAY, 3: _RGB, 4: _CMYK}[channels - header.alpha]
        tags = self._tags | {
            _WIDTH: ifd.longs(order, header.width),
            _HEIGHT: ifd.longs(order, header.height),
            _BITS: ifd.shorts(order, *[bits] * channels),
            _COMPRESSION: ifd.shorts(order, _DEFLATE),
            _PHOTOMETRIC: ifd.shorts(order, colours),
            _STRIP_OFFSETS: ifd.longs(order, *self._starts),
            _SAMPLES: ifd.shorts(order, channels),
            _ROWS: ifd.longs(order, self._rows),
            _STRIP_BYTES: ifd.longs(order, *self._lengths),
            _PLANAR: ifd.shorts(order, 1),
            _PREDICTOR: ifd.shorts(order, 1 if floats else 2),
            _FORMAT: ifd.shorts(order, *[FLOAT if floats else UNSIGNED] * channels),
        }
        if header.alpha:
            tags[_EXTRA] = ifd.shorts(order, 2)
        if metadata.icc:
            tags[_ICC] = Entry(ifd.UNDEFINED, len(metadata.icc), metadata.icc)
        if metadata.xmp:
            tags[_XMP] = Entry(1, len(metadata.xmp), metadata.xmp)
        return tags | _resolution(metadata.resolution or ifd.resolution(metadata.exif), order)


def _deflated(strip: Pixels, order: str, level: int) -> bytes:
    """One strip: integers as differences from the pixel to the left (predictor 2), deflated."""
    if strip.dtype.kind == "u":
        differences = strip.copy()
        np.subtract(strip[:, 1:], strip[:, :-1], out=differences[:, 1:])
        strip = differences
    if order == ">":
        strip = strip.astype(strip.dtype.newbyteorder(">"))
    else:
        strip = strip.astype(strip.dtype.newbyteorder("<"), copy=False)
    return deflate.stream(memoryview(strip.tobytes()), level)


def _resolution(resolution: tuple[Fraction, Fraction, str] | None, order: str) -> dict[int, Entry]:
    """The three resolution tags, which TIFF requires; 1:1 of no unit where none is known."""
    x, y, unit = resolution or (Fraction(1), Fraction(1), "")
    if unit == "metre":
        (x, y), unit = Resolution(x, y, unit).per("cm"), "cm"
    return {
        ifd.X_RESOLUTION: ifd.rational(order, x),
        ifd.Y_RESOLUTION: ifd.rational(order, y),
        ifd.RESOLUTION_UNIT: ifd.shorts(order, {"": 1, "inch": 2, "cm": 3}[unit]),
    }
