"""QOI: a header of 14 bytes, then chunks of one byte to five, which imagecodecs decodes."""

from __future__ import annotations

import struct

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats.limits import Extent, Limits
from cudafilter.formats.metadata import Decoded, Metadata
from cudafilter.formats.table import FORMATS, Ways
from cudafilter.operations.pixels import Pixels

_HEAD = 14
_END = FORMATS["qoi"].ends
_LINEAR = 1
"""The colour space of a file all of whose channels are linear. It is only told, by a note."""
_RGB, _RGBA, _RUN, _LUMA = 0xFE, 0xFF, 0xC0, 0x80
"""Tags of chunks: two with all eight bits, then two with the upper two of them."""


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file; ImageError for a damaged one."""
    width, height, channels, space = struct.unpack_from(">IIBB", head, 4)
    if not width or not height or channels not in (3, 4) or space > _LINEAR:
        raise ImageError("it is damaged: its header has values that QOI does not know")
    return Extent(width, height, channels, 1)


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode a QOI: RGB or RGBA."""
    import imagecodecs

    if len(data) < _HEAD + len(_END):
        raise ImageError("it is cut short")
    size = extent(data)
    limits.require_size(size.width, size.height, size.channels)
    try:
        pixels: Pixels = np.asarray(imagecodecs.qoi_decode(data))
        end = _HEAD + len(_coded(pixels))
    except (imagecodecs.QoiError, ValueError) as error:
        raise ImageError("it is damaged: its pixels cannot be decoded") from error
    # The decoder repeats the last pixel where chunks are missing. Most encoders write the same
    # chunks for the same pixels, so writing them again finds nearly all files whole.
    if data[_HEAD : end + len(_END)] != _coded(pixels) + _END:
        end = _chunks_end(data, size.width * size.height)
    notes = []
    if data[13] == _LINEAR:
        notes.append("that its colour is linear, as it says, is not kept")
    if rest := len(data) - end - len(_END):
        notes.append(f"{rest:,} bytes after its end are not kept")
    return Decoded(pixels, size.channels == 4, Metadata(), tuple(notes))


def _coded(pixels: Pixels) -> bytes:
    """The chunks of *pixels*."""
    import imagecodecs

    return bytes(imagecodecs.qoi_encode(np.ascontiguousarray(pixels)))[_HEAD : -len(_END)]


def _chunks_end(data: bytes, pixels: int) -> int:
    """Where the chunks of so many *pixels* end. ImageError unless the end's mark follows."""
    at, stop = _HEAD, len(data) - len(_END)
    while pixels > 0 and at < stop:
        tag = data[at]
        if tag >= _RGB:
            at, pixels = at + (5 if tag == _RGBA else 4), pixels - 1
        elif tag >= _RUN:
            at, pixels = at + 1, pixels - (tag - _RUN + 1)
        else:
            at, pixels = at + (2 if tag >= _LUMA else 1), pixels - 1
    if pixels > 0 or at > stop:
        raise ImageError("it is damaged: its pixels end early")
    if pixels < 0 or data[at : at + len(_END)] != _END:
        raise ImageError("it is damaged: there are too many bytes for its picture")
    return at


def write(pixels: Pixels, metadata: Metadata, ways: Ways) -> bytes:
    """Encode uint8 *pixels*. Gray becomes RGB."""
    import imagecodecs

    if pixels.shape[2] < 3:
        gray = [pixels[..., :1]] * 3
        pixels = np.concatenate([*gray, pixels[..., 1:]], axis=2)
    data = bytearray(imagecodecs.qoi_encode(np.ascontiguousarray(pixels)))
    data[13] = 0  # imagecodecs calls RGBA linear
    return bytes(data)
