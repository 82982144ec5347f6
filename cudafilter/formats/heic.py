"""HEIC: its boxes are read here, the pixels by pillow-heif (libheif, libde265), which is an extra.

It is not written: what its encoder writes without loss, most programs for HEIC do not show.
"""

from __future__ import annotations

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats import heif
from cudafilter.formats.limits import Extent, Limits, refuse_frames
from cudafilter.formats.metadata import Decoded
from cudafilter.formats.samples import scaling_note, spread, straight
from cudafilter.operations.pixels import Pixels

_TOLD = {b"ispe", b"pixi", b"hvcC", b"colr", b"irot", b"imir", b"clap"}
"""Properties of the picture that are kept or applied."""


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file."""
    return heif.extent(head)


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode a still HEIC: gray to RGBA of 8, 10 or 12 bits, unturned."""
    found = heif.items_of(data)
    if found.frames > 1:
        refuse_frames(found.frames)
    width, height = found.size()
    alpha = found.alpha()
    limits.require_size(width, height, 3 + bool(alpha))
    for item in found.items.values():
        heif.item_data(data, item)  # all of it is there
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(
            "it is a HEIC photo, for which pillow-heif is not installed",
            hint="pip install 'cudafilter[heic]'",
        ) from None
    try:
        opened = pillow_heif.open_heif(data, convert_hdr_to_8bit=False)
        mode, bits = opened.mode, opened.info["bit_depth"]
        samples: Pixels = np.asarray(opened)
    except (OSError, ValueError, SyntaxError, RuntimeError, EOFError, KeyError) as error:
        raise ImageError(
            "its picture cannot be decoded: it is damaged, or of a kind that is not read"
        ) from error
    samples = samples.reshape(*samples.shape[:2], -1)
    if samples.dtype == np.uint16:
        samples = samples >> np.uint16(16 - bits)
    orientation = found.orientation()
    pixels = np.ascontiguousarray(unturned(samples, orientation))
    cropped = found.main.first(b"clap") is not None
    if not cropped and pixels.shape[:2] != (height, width):
        raise ImageError("it is damaged: its picture is of another size than it says")
    metadata, notes = heif.metadata_of(data, found, bits, _TOLD)
    pixels = spread(pixels, bits)
    has_alpha = mode.split(";")[0] in ("LA", "RGBA", "RGBa")
    if mode.startswith("RGBa"):
        pixels = straight(pixels)
        notes.append("premultiplied alpha stored as straight")
    return Decoded(pixels, has_alpha, metadata, (*scaling_note(bits), *notes))


def unturned(shown: Pixels, orientation: int) -> Pixels:
    """The stored rows of a picture that is *shown* turned by an EXIF *orientation*."""
    if orientation > 4:
        shown = np.swapaxes(shown, 0, 1)
    if orientation in (3, 4, 6, 7):
        shown = shown[::-1]
    if orientation in (2, 3, 7, 8):
        shown = shown[:, ::-1]
    return shown
