"""BMP: a palette, samples in bit fields, or runs of palette entries.

Read here and not by Pillow, which fills what runs leave out and takes minutes for it.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ImageError
from cudafilter.formats.limits import Extent, Limits
from cudafilter.formats.metadata import Decoded, Metadata, Resolution
from cudafilter.formats.table import Ways
from cudafilter.operations.pixels import Pixels

_PLAIN, _RLE8, _RLE4, _FIELDS, _ALPHA_FIELDS = 0, 1, 2, 3, 6
_CORE, _OS2, _V4, _V5 = 12, 64, 108, 124
_HEADERS = (_CORE, 40, 52, 56, _OS2, _V4, _V5)
_MASKS = {
    16: (0x7C00, 0x3E0, 0x1F, 0),
    24: (0xFF0000, 0xFF00, 0xFF, 0),
    32: (0xFF0000, 0xFF00, 0xFF, 0),
}
"""Bits of red, green, blue and alpha in a pixel that does not say."""
_CALIBRATED = 0
_RUN_PIXELS = 128
"""More pixels than a byte of runs can stand for: two bytes repeat a pixel 255 times."""


class Header(NamedTuple):
    """What a file begins with."""

    size: int
    """Bytes of this header."""
    start: int
    """Where the pixels begin."""
    width: int
    height: int
    downwards: bool
    """The uppermost row comes first."""
    bits: int
    """Of a pixel."""
    coding: int
    resolution: tuple[int, int]
    """Pixels a metre."""
    colours: int
    """Entries of the palette; 0 where there is none."""
    masks: tuple[int, int, int, int]


def header_of(data: bytes) -> Header:
    """The header of a file. Raises ImageError for one that is damaged or of an unknown kind."""
    try:
        start, size = struct.unpack_from("<II", data, 10)
        if size not in _HEADERS:
            raise ImageError("its header is of a kind that is not supported, or damaged")
        if size == _CORE:
            width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
            coding, across, down, colours = _PLAIN, 0, 0, 0
        else:
            width, height, _, bits, coding, _, across, down, colours = struct.unpack_from(
                "<iiHHIIiiI", data, 18
            )
        masks = _MASKS.get(bits, (0, 0, 0, 0))
        if coding in (_FIELDS, _ALPHA_FIELDS) and size != _OS2:
            alpha = size >= 56 or coding == _ALPHA_FIELDS
            red, green, blue = struct.unpack_from("<III", data, 54)
            masks = red, green, blue, struct.unpack_from("<I", data, 66)[0] if alpha else 0
    except struct.error:
        raise ImageError("it is cut short in its header") from None
    if width < 1 or not height:
        raise ImageError("it is damaged: its size makes no sense")
    # Some palettes have more entries than a pixel can name.
    colours = min(colours or 1 << bits, 1 << bits) if bits <= 8 else 0
    return Header(
        size, start, width, abs(height), height < 0, bits, coding, (across, down), colours, masks
    )


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file."""
    header = header_of(head)
    return Extent(header.width, header.height, 3 + bool(header.masks[3]), 1)


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode a BMP: gray, RGB or RGBA."""
    header = header_of(data)
    _require_known(header)
    palette = _palette(data, header)
    gray = palette is not None and _is_gray(palette)
    channels = 1 if gray else 3 + bool(header.masks[3])
    limits.require_size(header.width, header.height, channels)
    if header.coding in (_RLE8, _RLE4):
        if header.downwards:
            raise ImageError("it is damaged: its runs go from the top")
        stored, end = _runs(data, header)
    else:
        stored, end = _rows(data, header)
    if not header.downwards:
        stored = stored[::-1]
    notes = []
    if palette is None:
        pixels = _fields(stored, header)
        if header.bits == 16 or any(bin(mask).count("1") != 8 for mask in header.masks if mask):
            notes.append("samples scaled to 8 bits")
        unused = (1 << header.bits) - 1 & ~sum(header.masks)
        if unused and np.any(stored & unused):
            notes.append("bits of its pixels that belong to no colour are not kept")
    else:
        if stored.max() >= len(palette):
            raise ImageError(
                f"it is damaged: a pixel is past the {len(palette)} colours of its palette"
            )
        pixels = palette[stored]
        if gray:
            pixels = pixels[..., :1]
        if not gray:
            notes.append("palette expanded to RGB")
        elif header.bits == 1:
            notes.append("1-bit expanded to 8-bit gray")
    icc, place, lost = _profile(data, header)
    # What lies between its pixels and its profile, and behind that.
    rest = data[end : max(end, place)] + data[max(end, place + len(icc or b"")) :]
    if rest.strip(b"\0"):
        lost.append(f"{len(rest):,} bytes after its pixels are not kept")
    across, down = header.resolution
    resolution = None
    if across > 0 and down > 0:
        resolution = Resolution(Fraction(across), Fraction(down), "metre")
    metadata = Metadata(icc, resolution=resolution)
    return Decoded(np.ascontiguousarray(pixels), channels == 4, metadata, (*notes, *lost))


def _require_known(header: Header) -> None:
    """Raise ImageError for a coding that is not read, or bits that do not go with it."""
    depths: tuple[int, ...] = {
        _PLAIN: (1, 2, 4, 8, 16, 24, 32),
        _RLE8: (8,),
        _RLE4: (4,),
        _FIELDS: (16, 32),
        _ALPHA_FIELDS: (16, 32),
    }.get(header.coding, ())
    if header.size == _OS2 and header.coding in (_FIELDS, _ALPHA_FIELDS):
        depths = ()  # other codings under the same numbers
    if header.bits not in depths:
        raise ImageError(
            f"its coding {header.coding} of {header.bits} bits a pixel is not supported"
        )
    together = 0
    for mask in header.masks if header.bits > 8 else ():
        low = mask & -mask
        whole = mask < 1 << header.bits and mask & together == 0
        if not whole or (mask and mask // low & (mask // low + 1)):
            raise ImageError("it is damaged: its bit fields overlap or have gaps")
        together |= mask
        if mask.bit_count() > 8:
            raise ImageError("it has more than 8 bits a sample, which is not supported in BMP")
    if header.bits > 8 and not all(header.masks[:3]):
        raise ImageError("it is damaged: a colour has no bits")


def _palette(data: bytes, header: Header) -> npt.NDArray[np.uint8] | None:
    """The palette (N, 3) in the order RGB; None where there is none."""
    if not header.colours:
        return None
    entry = 3 if header.size == _CORE else 4
    at = 14 + header.size
    count = header.colours
    if header.size == _CORE or header.start >= at:  # old files end it where the pixels begin
        count = min(count, max(0, header.start - at) // entry)
    if not count or len(data) < at + count * entry:
        raise ImageError("it is damaged: its palette has a wrong length")
    colours = np.frombuffer(data, np.uint8, count * entry, at).reshape(count, entry)
    return colours[:, 2::-1]


def _is_gray(palette: npt.NDArray[np.uint8]) -> bool:
    """Whether it is black and white, or each of 256 entries is its own gray."""
    if len(palette) not in (2, 256):
        return False
    ramp = np.linspace(0, 255, len(palette), dtype=np.uint8)
    return bool(np.all(palette == ramp[:, None]))


def _rows(data: bytes, header: Header) -> tuple[Pixels, int]:
    """Pixels as they are stored, in the order of the file, and where they end.

    (H, W), or (H, W, 3) of 24 bits.
    """
    height, width, bits = header.height, header.width, header.bits
    row = (width * bits + 31) // 32 * 4
    # The last row's padding is missing in some files.
    need = row * (height - 1) + -(-width * bits // 8)
    if header.start < 14 + header.size or len(data) < header.start + need:
        raise ImageError("it is cut short")
    flat: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8)[header.start :][: row * height]
    end = header.start + len(flat)
    if len(flat) < row * height:
        flat = np.concatenate([flat, np.zeros(row * height - len(flat), np.uint8)])
    rows = flat.reshape(height, row)
    if bits == 8:
        return rows[:, :width], end
    if bits == 24:
        return rows[:, : width * 3].reshape(height, width, 3), end
    if bits > 8:
        return rows.view(f"<u{bits // 8}")[:, :width], end
    parts = [rows >> shift & (1 << bits) - 1 for shift in range(8 - bits, -1, -bits)]
    return np.stack(parts, axis=2).reshape(height, -1)[:, :width], end


def _fields(stored: Pixels, header: Header) -> Pixels:
    """RGB or RGBA of pixels that are bit fields, scaled to 8 bits."""
    if header.bits == 24:
        return stored[..., ::-1]
    masks = [mask for mask in header.masks if mask]
    out = np.empty((*stored.shape, len(masks)), np.uint8)
    for channel, mask in enumerate(masks):
        low = (mask & -mask).bit_length() - 1
        most = mask >> low
        field = (stored & mask) >> low
        out[..., channel] = field if most == 255 else (field * 255 + most // 2) // most
    return out


def _runs(data: bytes, header: Header) -> tuple[Pixels, int]:
    """Palette entries (H, W) of a run-length coded file, in the file's order, and where they end.

    Raises ImageError unless the runs give each pixel a value and stay inside the rows.
    """
    width, height, at = header.width, header.height, header.start
    if at < 14 + header.size or width * height > len(data) * _RUN_PIXELS:
        raise ImageError("it is cut short: its runs cannot cover its pixels")
    out = bytearray(width * height)
    half = header.coding == _RLE4
    row = column = 0
    end = len(data) - 1
    while at < end and row < height:
        count, value = data[at], data[at + 1]
        at += 2
        if count:
            run = (
                (bytes((value >> 4, value & 15)) * 128)[:count] if half else bytes((value,)) * count
            )
        elif value == 0 and column == width:
            row, column = row + 1, 0
            continue
        elif value > 2:
            size = -(-value // 2) if half else value
            packed = data[at : at + size]
            at += size + (size & 1)
            if len(packed) < size:
                break
            run = packed
            if half:
                run = bytes(n for byte in packed for n in (byte >> 4, byte & 15))[:value]
            count = value
        else:
            break  # the end, or a jump that leaves pixels out
        if column + count > width:
            raise ImageError("it is damaged: a run goes past its row")
        place = row * width + column
        out[place : place + count] = run
        column += count
    if data[at : at + 2] == b"\0\1":
        at += 2
    if row < height and not (row == height - 1 and column == width):
        raise ImageError("it is cut short: its runs leave pixels without a value")
    return np.frombuffer(out, np.uint8).reshape(height, width), at


def _profile(data: bytes, header: Header) -> tuple[bytes | None, int, list[str]]:
    """The embedded ICC profile, where it is, and what of the colour space is not kept."""
    if header.size < _V4:
        return None, 0, []
    kind = data[70:74]
    if kind == b"KNIL":
        return None, 0, ["the file of the colour profile that it names is not kept"]
    if int.from_bytes(kind, "little") == _CALIBRATED and any(data[74:122]):
        return None, 0, ["the calibration of its colours is not kept"]
    if header.size < _V5 or kind != b"DEBM":
        return None, 0, []
    at, size = struct.unpack_from("<II", data, 126)
    icc = data[14 + at : 14 + at + size]
    if not size or len(icc) < size or at < header.size:
        return None, 0, ["its ICC profile is damaged and is not kept"]
    return icc, 14 + at, []


def write(pixels: Pixels, metadata: Metadata, ways: Ways) -> bytes:
    """Encode uint8 gray or RGB *pixels*."""
    from cudafilter.formats.pillow import save_pillow

    data = bytearray(save_pillow(pixels, "Bmp", dpi=(0, 0)))
    if metadata.resolution and metadata.resolution.unit:
        for at, value in zip((38, 42), metadata.resolution.per("metre"), strict=True):
            data[at : at + 4] = round(value).to_bytes(4, "little")
    return bytes(data)
