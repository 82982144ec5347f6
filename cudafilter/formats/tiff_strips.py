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

UNSIGNED, SIGNED, FLOAT = 1, 2, 3
DEPTHS = {UNSIGNED: (1, 2, 4, 8, 16, 32, 64), SIGNED: (8, 16, 32, 64), FLOAT: (16, 32, 64)}
"""Sample format -> the bits a sample that are read."""
_CODES = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}
_BATCH = 1 << 18
"""Bytes of samples that one thread decodes at a time, of segments that are small."""
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


def decode(
    data: bytes, order: str, tags: Mapping[int, Entry], stored: Samples, limits: Limits
) -> Pixels:
    """The samples as they are stored: (H, W, samples) of uint8, uint16 or float32.

    Fewer than 8 bits stay small numbers. Integers of 32 and 64 bits and negative ones must fit in
    16 bits (or 8) and floats of 64 in 32; ImageError if one does not, or if any segment is damaged.
    """
    grid = _grid(data, order, tags, stored, limits)
    compression = ifd.number(tags, 259, order, 1)
    decoder = tiff_codecs.decoder(compression)
    predict = _predictor(order, tags, stored, compression)
    reverse = ifd.number(tags, 266, order, 1) == 2 and compression != tiff_codecs.JPEG
    samples = stored.samples // grid.planes
    code = "u1" if stored.bits < 8 else f"{order}{_CODES[stored.kind]}{stored.bits // 8}"
    tables = tags[347].value if 347 in tags else b""
    shape = Segment(
        grid.rows, grid.rows, grid.width, samples, stored.bits,
        -(-grid.width * samples * stored.bits // 8), code, stored.photometric,
        tables if isinstance(tables, bytes) else b"", ifd.number(tags, 292, order, 0),
    )  # fmt: skip
    if compression in FAX and (stored.bits, samples) != (1, 1):
        raise ImageError("CCITT compression of other than 1 bit is not supported")
    pixels = np.empty((stored.height, stored.width, stored.samples), stored.dtype)
    view = memoryview(data)

    def place(number: int) -> None:
        plane, rest = divmod(number, grid.across * grid.down)
        down, across = divmod(rest, grid.across)
        top, left = down * grid.rows, across * grid.width
        rows = grid.rows if grid.tiled else min(grid.rows, stored.height - top)
        segment = shape._replace(rows=rows)
        start, length = grid.spans[number]
        source = view[start : start + length]
        try:
            if reverse:
                source = _reversed(source)
            body = decoder(source, segment)
        except (RuntimeError, ValueError) as error:
            what = "tile" if grid.tiled else "strip"
            reason = f": {error}" if isinstance(error, tiff_codecs.Damaged) else ""
            raise ImageError(f"it is damaged in {what} {number + 1}{reason}") from error
        found = predict(_unpacked(body, segment).reshape(rows, grid.width, samples))
        target = pixels[top : top + rows, left : left + grid.width, plane : plane + samples]
        target[...] = _held(found[: target.shape[0], : target.shape[1]], stored)

    count = len(grid.spans)
    step = max(1, _BATCH // max(1, grid.rows * shape.row_bytes))

    def batch(first: int) -> None:
        for number in range(first, min(first + step, count)):
            place(number)

    each(batch, range(0, count, step))
    return pixels


def _grid(
    data: bytes, order: str, tags: Mapping[int, Entry], stored: Samples, limits: Limits
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
    if any(start + length > len(data) or not length for start, length in spans):
        raise ImageError(f"it is cut short: not all of its {what} lie in the file")
    return _Grid(rows, width, across, down, planes, tiled, spans)


def _reversed(source: memoryview) -> memoryview:
    import imagecodecs

    return memoryview(imagecodecs.bitorder_decode(bytes(source)))


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
