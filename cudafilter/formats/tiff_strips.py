"""TIFF's strips and tiles: where they lie, and the samples that they hold.

Each lies inside the file, and there are as many as the layout needs: no more, no fewer. All the
pixels come from them; nothing is filled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats import ifd, tiff_codecs
from cudafilter.formats.ifd import Entry
from cudafilter.formats.limits import Limits
from cudafilter.formats.tiff_codecs import FAX, PICTURES, Segment
from cudafilter.host.cores import each
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Buffer, Source, part

UNSIGNED, SIGNED, FLOAT = 1, 2, 3
DEPTHS = {UNSIGNED: (1, 2, 4, 8, 16, 32, 64), SIGNED: (8, 16, 32, 64), FLOAT: (16, 32, 64)}
"""Sample format -> the bits a sample that are read."""
_CODES = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}
_BATCH = 1 << 18
"""Bytes of samples that one thread decodes at a time, of segments that are small."""
_CUT = 1 << 20
"""Bytes of a strip that is not compressed and that are read at a time."""
_MAX_SEGMENTS = 1 << 20


class Samples(NamedTuple):
    """How samples are stored."""

    width: int
    height: int
    samples: int
    bits: int
    kind: int
    """UNSIGNED, SIGNED or FLOAT."""
    photometric: int

    @property
    def dtype(self) -> str:
        """NumPy's name of what they become: uint8, uint16 or float32."""
        if self.kind == FLOAT:
            return "float32"
        return "uint8" if self.bits <= 8 else "uint16"

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel in memory, before it is converted."""
        return self.samples * max(1, self.bits // 8)


class _Grid(NamedTuple):
    """Segments, in the order of the file: across, down, and by plane."""

    rows: int
    width: int
    across: int
    down: int
    planes: int
    tiled: bool
    spans: list[tuple[int, int]]
    """Offset and length of each."""


class Layout:
    """A picture's samples as they are stored, by rows.

    Integers of 32 and 64 bits and negative ones must fit in 16 bits (or 8) and floats of 64 in 32.
    """

    def __init__(
        self,
        source: Source,
        order: str,
        tags: Mapping[int, Entry],
        stored: Samples,
        limits: Limits,
    ) -> None:
        """Raises ImageError where strips or tiles are missing or of an unknown kind."""
        self._source, self._stored = source, stored
        compression = ifd.number(tags, 259, order, 1)
        grid = self._grid = _grid(source, order, tags, stored, limits)
        self._decoder = tiff_codecs.decoder(compression)
        self._predict = _predictor(order, tags, stored, compression)
        self._reverse = ifd.number(tags, 266, order, 1) == 2 and compression != tiff_codecs.JPEG
        samples = stored.samples // grid.planes
        code = "u1" if stored.bits < 8 else f"{order}{_CODES[stored.kind]}{stored.bits // 8}"
        tables = tags[347].value if 347 in tags else b""
        self._shape = Segment(
            grid.rows, grid.rows, grid.width, samples, stored.bits,
            -(-grid.width * samples * stored.bits // 8), code, stored.photometric,
            tables if isinstance(tables, bytes) else b"", ifd.number(tags, 292, order, 0),
        )  # fmt: skip
        if compression in FAX and (stored.bits, samples) != (1, 1):
            raise ImageError("CCITT compression of other than 1 bit is not supported")
        if compression == tiff_codecs.NONE:
            self._cut()

    @property
    def step(self) -> int:
        """Rows of a strip or tile, which are decoded at a time."""
        return min(self._grid.rows, self._stored.height)

    def _cut(self) -> None:
        """Cut strips of all rows into some that are small: what is not compressed can be."""
        grid, shape = self._grid, self._shape
        rows = max(1, _CUT // shape.row_bytes)
        whole = grid.rows * shape.row_bytes
        if (
            grid.down > 1
            or grid.tiled
            or rows >= grid.rows
            or any(n != whole for _, n in grid.spans)
        ):
            return
        step = rows * shape.row_bytes
        spans = [
            (start + at, min(step, whole - at))
            for start, _ in grid.spans
            for at in range(0, whole, step)
        ]
        self._grid = grid._replace(rows=rows, down=-(-grid.rows // rows), spans=spans)
        self._shape = shape._replace(rows=rows, full_rows=rows)

    def rows(self, first: int, last: int) -> Pixels:
        """Rows *first* to before *last*: (last - first, W, samples) of uint8, uint16 or float32.

        Fewer than 8 bits stay small numbers. Raises ImageError if a sample does not fit, or if any
        segment is damaged.
        """
        stored, grid = self._stored, self._grid
        pixels = np.empty((last - first, stored.width, stored.samples), stored.dtype)
        downs = range(first // grid.rows, -(-last // grid.rows))
        numbers = [
            (plane * grid.down + down) * grid.across + across
            for plane in range(grid.planes)
            for down in downs
            for across in range(grid.across)
        ]
        step = max(1, _BATCH // max(1, grid.rows * self._shape.row_bytes))

        def batch(begin: int) -> None:
            for number in numbers[begin : begin + step]:
                self._place(number, pixels, first)

        each(batch, range(0, len(numbers), step))
        return pixels

    def _place(self, number: int, pixels: Pixels, first: int) -> None:
        """Decode the strip or tile *number* into *pixels*, which begin at row *first*."""
        stored, grid = self._stored, self._grid
        plane, rest = divmod(number, grid.across * grid.down)
        down, across = divmod(rest, grid.across)
        top, left = down * grid.rows, across * grid.width
        rows = grid.rows if grid.tiled else min(grid.rows, stored.height - top)
        segment = self._shape._replace(rows=rows)
        start, length = grid.spans[number]
        data: Any = part(self._source, start, start + length)
        try:
            if self._reverse:
                data = _reversed(data)
            body = self._decoder(data, segment)
        except (RuntimeError, ValueError) as error:
            what = "tile" if grid.tiled else "strip"
            reason = f": {error}" if isinstance(error, tiff_codecs.Damaged) else ""
            raise ImageError(f"it is damaged in {what} {number + 1}{reason}") from error
        samples = segment.samples
        found = self._predict(_unpacked(body, segment).reshape(rows, grid.width, samples))
        above = max(0, first - top)  # rows that were not asked for
        place = top + above - first
        target = pixels[place : place + rows - above, left : left + grid.width]
        target = target[..., plane : plane + samples]
        target[...] = _held(found[above : above + len(target), : target.shape[1]], stored)


def _grid(
    source: Source, order: str, tags: Mapping[int, Entry], stored: Samples, limits: Limits
) -> _Grid:
    tiled = 322 in tags
    offsets_tag, lengths_tag = (324, 325) if tiled else (273, 279)
    if tiled:
        width, rows = ifd.number(tags, 322, order, 0), ifd.number(tags, 323, order, 0)
    else:
        width = stored.width
        rows = min(ifd.number(tags, 278, order, stored.height), stored.height)
    if not width or not rows:
        raise ImageError("it is damaged: its strips or tiles have no size")
    across, down = -(-stored.width // width), -(-stored.height // rows)
    if tiled:
        # Tiles may be larger than the picture.
        limits.require_size(across * width, down * rows, stored.pixel_bytes)
    planar = ifd.number(tags, 284, order, 1)
    if planar not in (1, 2):
        raise ImageError("it is damaged: its planes are stored in an unknown way")
    planes = stored.samples if planar == 2 else 1
    count = across * down * planes
    offsets = ifd.numbers(tags, offsets_tag, order)
    lengths = ifd.numbers(tags, lengths_tag, order)
    what = "tiles" if tiled else "strips"
    if not len(offsets) == len(lengths) == count:
        raise ImageError(
            f"it is damaged: it tells of {len(offsets):,} offsets and {len(lengths):,} lengths of "
            f"{what}, and has {count:,}"
        )
    if count > _MAX_SEGMENTS:
        raise ImageError(f"it has {count:,} {what}, more than the {_MAX_SEGMENTS:,} that are read")
    spans = list(zip(offsets, lengths, strict=True))
    if any(start + length > len(source) or not length for start, length in spans):
        raise ImageError(f"it is cut short: not all of its {what} lie in the file")
    return _Grid(rows, width, across, down, planes, tiled, spans)


def _reversed(data: Buffer) -> memoryview:
    import imagecodecs

    return memoryview(imagecodecs.bitorder_decode(bytes(data)))


def _predictor(
    order: str, tags: Mapping[int, Entry], stored: Samples, compression: int
) -> Callable[[Pixels], Pixels]:
    """From the differences that are stored to samples (rows, W, samples) in native order."""
    number = 1 if compression in PICTURES else ifd.number(tags, 317, order, 1)
    if number == 1:
        return _native
    if number == 2 and stored.bits in (8, 16, 32, 64):
        return _summed
    if number == 3 and stored.kind == FLOAT:
        return _floats
    raise ImageError(f"its predictor ({number}) does not go with {stored.bits}-bit samples")


def _native(samples: Pixels) -> Pixels:
    return samples.astype(samples.dtype.newbyteorder("="), copy=False)


def _summed(samples: Pixels) -> Pixels:
    """Predictor 2: each sample is the sum of all differences to its left, as integers."""
    import imagecodecs

    samples = _native(samples)
    whole = samples.view(f"u{samples.itemsize}")
    return imagecodecs.delta_decode(whole, axis=1).view(samples.dtype)


def _floats(samples: Pixels) -> Pixels:
    """Predictor 3: the bytes of a row's floats, the highest of all first, as differences."""
    import imagecodecs

    return imagecodecs.floatpred_decode(samples.view(samples.dtype.newbyteorder("=")), axis=1)


def _unpacked(body: Any, segment: Segment) -> Pixels:
    """The samples of all rows, each row of which begins at a whole byte."""
    if segment.bits >= 8:
        return np.frombuffer(body, segment.dtype)
    per_byte = 8 // segment.bits
    packed = np.frombuffer(body, np.uint8).reshape(segment.rows, segment.row_bytes, 1)
    shifts = np.arange(per_byte - 1, -1, -1, dtype=np.uint8) * np.uint8(segment.bits)
    spread = (packed >> shifts) & np.uint8((1 << segment.bits) - 1)
    return spread.reshape(segment.rows, -1)[:, : segment.width * segment.samples]


def _held(found: Pixels, stored: Samples) -> Pixels:
    """*found*, all of which the type that they are read as holds."""
    if stored.kind == FLOAT and stored.bits <= 32:
        return found
    if stored.kind == FLOAT:
        with np.errstate(over="ignore"):
            single = found.astype(np.float32)
        if not np.array_equal(single, found, equal_nan=True):
            raise ImageError("it holds 64-bit floats that would lose precision in 32 bits")
        return single
    if stored.kind == SIGNED and found.min() < 0:
        raise ImageError(
            f"it holds {stored.bits}-bit integers below 0, which no integer type here has",
            hint="add an offset, or save it as 32-bit float",
        )
    if stored.bits > 16 and found.max() > 65535:
        raise ImageError(
            f"it holds {stored.bits}-bit integers past 65535, which would lose precision",
            hint="scale it down, or save it as 32-bit float",
        )
    return found
