"""JPEG 2000 codestreams: their segments are read here, the pixels by imagecodecs (OpenJPEG).

jp2.py has the boxes around them. A file of only a codestream holds gray or RGB, with alpha or
without, and comments.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats.limits import Extent, Limits, require_entries
from cudafilter.formats.metadata import Decoded, Metadata
from cudafilter.formats.samples import drawn, scaling_note, spread
from cudafilter.formats.table import Ways
from cudafilter.host.cores import share
from cudafilter.operations.pixels import Pixels

MAX_BITS = 16
_SIZ, _SOT, _COM, _END = 0xFF51, 0xFF90, 0xFF64, b"\xff\xd9"
_MOST_TILES = 65535
_OWN = (b"Created by OpenJPEG", b"Kakadu")
"""What comments begin with that tell only which program wrote the file."""


class Picture(NamedTuple):
    """What the main header says."""

    width: int
    height: int
    bits: tuple[int, ...]
    """Of each channel's samples; negative where they have signs."""
    steps: tuple[tuple[int, int], ...]
    """Of each channel, how many pixels across and down have one sample."""
    tiles: int

    @property
    def depth(self) -> int:
        """Bits of a sample. Raises ImageError where channels differ or are not read."""
        bits = set(self.bits)
        if len(bits) != 1:
            raise ImageError("its channels have different numbers of bits, which are not read")
        (depth,) = bits
        if not 1 <= depth <= MAX_BITS:
            told = f"{abs(depth)} bits" + " with a sign" * (depth < 0)
            raise ImageError(f"samples of {told} are not read from JPEG 2000")
        if set(self.steps) != {(1, 1)}:
            raise ImageError("its channels are of different sizes, which are not read")
        return depth


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file."""
    picture = picture_of(head)
    return Extent(picture.width, picture.height, len(picture.bits), _sample_bytes(picture))


def _sample_bytes(picture: Picture) -> int:
    return 2 if max(map(abs, picture.bits)) > 8 else 1


def picture_of(data: bytes) -> Picture:
    """The main header's facts. Raises ImageError for a damaged one."""
    try:
        mark, length, _, *sides, count = struct.unpack_from(">HHH8IH", data, 2)
        parts = [struct.unpack_from(">BBB", data, 42 + 3 * n) for n in range(count)]
    except struct.error:
        raise ImageError("it is cut short") from None
    right, bottom, left, top, wide, high, tile_left, tile_top = sides
    if (
        mark != _SIZ
        or length != 38 + 3 * count
        or not count
        or right <= left
        or bottom <= top
        or not (tile_left <= left < tile_left + wide and tile_top <= top < tile_top + high)
        or any(not across or not down for _, across, down in parts)
    ):
        raise ImageError("it is damaged: its header has values that JPEG 2000 does not know")
    tiles = -(-(right - tile_left) // wide) * -(-(bottom - tile_top) // high)
    if tiles > _MOST_TILES:
        raise ImageError(f"it is damaged: it has {tiles:,} tiles, more than JPEG 2000 holds")
    bits = tuple(((kind & 127) + 1) * (-1 if kind & 128 else 1) for kind, _, _ in parts)
    steps = tuple((across, down) for _, across, down in parts)
    return Picture(right - left, bottom - top, bits, steps, tiles)


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode a bare codestream: gray or RGB, the channel after these alpha."""
    picture = picture_of(data)
    channels = len(picture.bits)
    if channels > 4:
        raise ImageError(f"{channels} channels are not read")
    samples, comments, notes = decoded(data, picture, limits)
    depth = picture.depth
    metadata = Metadata(comments=comments, bits=depth if depth > 8 else None)
    pixels = spread(samples, depth)
    return Decoded(pixels, channels in (2, 4), metadata, (*scaling_note(depth), *notes))


def decoded(
    data: bytes, picture: Picture, limits: Limits
) -> tuple[Pixels, tuple[bytes, ...], list[str]]:
    """The samples (H, W, C) of the codestream *data* as they are stored, its comments, and notes.

    The data have no checksum, but each tile must have just the bytes that it says.
    """
    import imagecodecs

    # OpenJPEG has four bytes for each sample.
    limits.require_size(picture.width, picture.height, 4 * len(picture.bits))
    depth = picture.depth
    comments, end = _walk(data, picture.tiles)
    notes = []
    if end < len(data):
        notes.append(f"{len(data) - end:,} bytes after its end are not kept")
    try:
        samples: Pixels = np.asarray(imagecodecs.jpeg2k_decode(data[:end], numthreads=share()))
    except (imagecodecs.Jpeg2kError, ValueError, NotImplementedError) as error:
        raise ImageError("it is damaged: its picture cannot be decoded") from error
    shape = picture.height, picture.width, len(picture.bits)
    if samples.size != np.prod(shape) or samples.dtype.kind != "u":
        raise ImageError("it is damaged: its picture cannot be decoded")
    if samples.max() >= 1 << depth:
        raise ImageError(f"it is damaged: a sample has more than its {depth} bits")
    return samples.reshape(shape), comments, notes


def _walk(data: bytes, tiles: int) -> tuple[tuple[bytes, ...], int]:
    """The comments, and where the codestream ends. Raises ImageError where a tile is missing."""
    comments: list[bytes] = []
    seen: set[int] = set()
    at = 2
    try:
        while data[at : at + 2] != _END:
            mark, length = struct.unpack_from(">HH", data, at)
            if mark == _SOT:
                tile, length = struct.unpack_from(">HI", data, at + 4)
                seen.add(tile)
                # Only of the last one the length may be left out.
                length = length or data.rindex(_END, at) - at
                at += length
            elif seen or mark < 0xFF4F:
                raise ImageError("it is damaged: its tiles do not follow each other")
            else:
                if mark == _COM and data[at + 4 : at + 6] == b"\0\1":
                    comments.append(data[at + 6 : at + 2 + length])
                at += 2 + length
            if length < 2 or at + 2 > len(data):
                raise ImageError("it is cut short")
    except (struct.error, ValueError):
        raise ImageError("it is cut short") from None
    require_entries(len(comments), "comments")
    if seen != set(range(tiles)):
        raise ImageError("it is damaged: a tile is missing")
    return tuple(one for one in comments if not one.startswith(_OWN)), at + 2


def write(pixels: Pixels, metadata: Metadata, ways: Ways) -> bytes:
    """Encode uint8 or uint16 *pixels*: lossless unless a quality is given.

    A quality N is a signal of 25 + N / 4 dB over the noise. 16-bit pixels from a file of fewer bits
    get these bits again.
    """
    import imagecodecs

    bits = 8 if pixels.dtype == np.uint8 else metadata.bits or 16
    samples = drawn(pixels, bits) if bits > 8 else pixels
    channels = pixels.shape[2]
    data = bytes(
        imagecodecs.jpeg2k_encode(
            samples,
            level=0 if ways.quality is None else 25 + ways.quality // 4,
            reversible=ways.quality is None,
            mct=channels > 2,
            codecformat="j2k",
            bitspersample=bits,
            numthreads=share(),
        )
    )
    segments = [struct.pack(">HHH", _COM, len(one) + 4, 1) + one for one in metadata.comments]
    at = 4 + struct.unpack_from(">H", data, 4)[0]
    return b"".join([data[:at], *segments, data[at:]])
