"""GIF: its blocks are read and its frames put together here, the codes by Pillow."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from io import BytesIO

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ImageError
from cudafilter.formats.canvas import CLEAR, RESTORE, Box, Canvas
from cudafilter.formats.frames import FrameReader
from cudafilter.formats.gif_blocks import END, IMAGE, Found, Picture, walk
from cudafilter.formats.limits import Extent, Limits
from cudafilter.formats.metadata import Animation, Metadata, Resolution
from cudafilter.formats.rows import Header, Reader, Writer
from cudafilter.formats.table import Ways
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Sink, Source

_SQUARE = 49
"""The aspect ratio's code for square pixels."""
_RAMP = np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes()


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file."""
    width, height = struct.unpack_from("<HH", head, 6)
    return Extent(width, height, 4, 1)


def is_decoded_whole(head: bytes) -> bool:
    """Whether all pixels of a frame are decoded at once."""
    return True


def is_encoded_whole(header: Header, ways: Ways) -> bool:
    """Whether all pixels of a frame are encoded at once."""
    return True


def frames(source: Source) -> int:
    """How many pictures there are."""
    return len(walk(source[:]).pictures)


def open(source: Source, limits: Limits) -> Reader:
    """Read a GIF: gray, RGB or RGBA frames. What pictures leave free is transparent."""
    data = source[:]
    found = walk(data)
    pictures = found.pictures
    if not pictures:
        raise ImageError("it is damaged: it has no pixels")
    width = max(found.width, *(p.box.left + p.box.width for p in pictures))
    height = max(found.height, *(p.box.top + p.box.height for p in pictures))
    gray = all(_is_ramp(palette) for palette in {p.palette for p in pictures})
    whole = Box(0, 0, width, height)
    alpha = _shows_through(pictures, whole)
    limits.require_size(width, height, (1 if gray else 3) + alpha)
    notes = [] if gray else [f"palette expanded to {'RGBA' if alpha else 'RGB'}"]
    if pictures[0].box != whole:
        notes.append("what its picture leaves free is made transparent")
    if found.end < len(data):
        found.lost.append(f"{len(data) - found.end:,} bytes after its end are not kept")
    header = Header(width, height, (1 if gray else 3) + alpha, "uint8", alpha, _metadata(found))
    return FrameReader(len(pictures), _frames(data, pictures, header), (*notes, *found.lost))


def _is_ramp(palette: bytes) -> bool:
    """Whether each entry is the gray of its number."""
    return palette == _RAMP[: len(palette)]


def _shows_through(pictures: list[Picture], whole: Box) -> bool:
    """Whether a frame may have transparent pixels."""
    first = pictures[0]
    return (
        first.box != whole
        or first.clear is not None
        or (len(pictures) > 1 and first.disposal == RESTORE)
        or any(picture.disposal == CLEAR for picture in pictures[:-1])
    )


def _metadata(found: Found) -> Metadata:
    resolution = animation = None
    if found.aspect not in (0, _SQUARE):
        resolution = Resolution(Fraction(64), Fraction(found.aspect + 15), "")
    if len(found.pictures) > 1:
        # It tells how often the animation is shown again, and nothing where that is never.
        plays = 1 if found.loops is None else found.loops + 1 if found.loops else 0
        animation = Animation(plays)
    return Metadata(
        found.icc, None, found.xmp, resolution, comments=tuple(found.comments), animation=animation
    )


def _frames(
    data: bytes, pictures: list[Picture], header: Header
) -> Iterator[tuple[Header, Pixels]]:
    colours = header.channels - header.alpha
    canvas = Canvas(header.width, header.height, colours, np.uint8, header.alpha)
    moving = len(pictures) > 1
    for picture in pictures:
        table: Pixels = np.frombuffer(picture.palette, np.uint8).reshape(-1, 3)
        indices = _indices(data, picture)
        if indices.max() >= len(table):
            raise ImageError(
                f"it is damaged: a pixel is past the {len(table)} colours of its palette"
            )
        table = table[:, :colours]
        if picture.clear is not None:
            opaque: npt.NDArray[np.uint8] = np.full((len(table), 1), 255, np.uint8)
            opaque[picture.clear : picture.clear + 1] = 0
            table = np.concatenate([table, opaque], axis=1)
        # Without an animation, what is transparent keeps its colour.
        pixels = canvas.draw(table[indices], picture.box, moving, picture.disposal)
        seconds = Fraction(picture.delay, 100) if moving else None
        yield replace(header, seconds=seconds), pixels


def _indices(data: bytes, picture: Picture) -> npt.NDArray[np.uint8]:
    """The palette entries (H, W) of *picture*, which Pillow reads from a file of only that."""
    from PIL import GifImagePlugin

    width, height = picture.box.width, picture.box.height
    head = struct.pack("<6sHHBBB", b"GIF89a", width, height, 0xF7, 0, 0)
    place = struct.pack("<BHHHHB", IMAGE, 0, 0, width, height, picture.flags & 0x40)
    coded = data[picture.coded.start : picture.coded.stop]
    file = head + _RAMP + place + coded + bytes([END])
    try:
        # The palette is gray, so its entries come as gray values.
        indices: Pixels = np.asarray(GifImagePlugin.GifImageFile(BytesIO(file)))
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        raise ImageError("it is damaged, or cut short") from error
    if indices.shape != (height, width):
        raise ImageError("it is damaged, or cut short")
    return indices


def create(target: Sink, header: Header, ways: Ways) -> Writer:
    """Write uint8 pixels with 256 colours a frame; see gif_writer.py."""
    from cudafilter.formats.gif_writer import GifWriter

    return GifWriter(target, header, dither=ways.dither)
