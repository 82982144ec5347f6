"""What the formats that Pillow decodes have in common: its modes to pixels and back."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import (  # noqa: F401 - Pillow knows the formats whose modules are imported
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL import Image as PillowImage

from cudafilter.errors import ImageError
from cudafilter.pixels import Pixels

MAX_SAMPLES = 1 << 31
"""Largest width * height * channels that is read: 2 GiB of 8-bit samples. Pillow's own limit,
89 million pixels, warns of scans that are in daily use; a file past ours is taken for a bomb."""

if PillowImage.MAX_IMAGE_PIXELS is not None:
    # Once, on import: Pillow has no limit per call. It refuses past twice this number.
    PillowImage.MAX_IMAGE_PIXELS = max(PillowImage.MAX_IMAGE_PIXELS, MAX_SAMPLES)

_STRAIGHT = {"L", "LA", "RGB", "RGBA", "CMYK", "F"}
_REFUSED = {
    "LAB": "L*a*b* colour",
    "HSV": "HSV colour",
    "YCbCr": "YCbCr colour",
    "PA": "a palette with a separate alpha channel",
}


def open_pillow(data: bytes, format: str) -> PillowImage.Image:
    """Open *data* as Pillow's *format* and refuse one that is too large or moves."""
    try:
        image = PillowImage.open(BytesIO(data), formats=[format])
    except PillowImage.DecompressionBombError:
        raise ImageError(f"it has more than the {MAX_SAMPLES:,} samples that are read") from None
    require_size(*image.size, len(image.getbands()))
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        refuse_frames(frames)
    return image


def require_size(width: int, height: int, channels: int) -> None:
    """Raise ImageError for an image of more than MAX_SAMPLES."""
    if width * height * channels > MAX_SAMPLES:
        raise ImageError(
            f"{width} x {height} pixels of {channels} channels are more than the"
            f" {MAX_SAMPLES:,} samples that are read"
        )


def refuse_frames(frames: int) -> None:
    """Raise ImageError: writing would keep one frame of many."""
    raise ImageError(
        f"it holds {frames} frames, of which only one could be written",
        hint="extract the frames into files of their own first",
    )


def pixels_of(image: PillowImage.Image) -> tuple[Pixels, bool, list[str]]:
    """An opened image as pixels (H, W, C), whether the last is alpha, and notes."""
    notes = []
    mode = image.mode
    if mode == "P":
        image.load()
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        notes.append(f"palette expanded to {image.mode}")
    elif mode == "1":
        image = image.convert("L")
        notes.append("1-bit expanded to 8-bit gray")
    elif mode == "I":
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 65535:
            raise ImageError("it holds 32-bit integers past 65535, which would lose precision")
        notes.append("32-bit integers stored as 16-bit, which holds them all")
        return wide.astype(np.uint16)[..., None], False, notes
    elif mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., None], False, notes
    elif mode not in _STRAIGHT:
        raise ImageError(f"{_REFUSED.get(mode, f'mode {mode}')} cannot be filtered")
    pixels = np.asarray(image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return np.ascontiguousarray(pixels), image.mode in ("LA", "RGBA"), notes


def pillow_of(pixels: Pixels, cmyk: bool = False) -> PillowImage.Image:
    """uint8 *pixels* (H, W, C) as a Pillow image."""
    height, width, channels = pixels.shape
    mode = "CMYK" if cmyk else ("L", "LA", "RGB", "RGBA")[channels - 1]
    return PillowImage.frombytes(mode, (width, height), pixels.tobytes())


def decode_deep(data: bytes) -> Pixels:
    """Pixels of a 16-bit or float file in OpenCV's hands, in the order RGB or RGBA.

    Pillow cuts 16-bit colour to 8 bits. OpenCV takes metadata and orientation into no account.
    """
    import cv2

    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise ImageError("it is damaged, or its 16-bit or float coding is not supported")
    if decoded.ndim == 2:
        return np.ascontiguousarray(decoded[..., None])
    order = [2, 1, 0, 3][: decoded.shape[2]]
    return np.ascontiguousarray(decoded[..., order])


def require_same_top(deep: Pixels, cut: Pixels) -> None:
    """Raise ImageError unless *cut*, Pillow's 8 bits, are the upper ones of 16-bit *deep*.

    Two decoders that disagree on channel order, alpha or orientation must not pass in silence.
    """
    if deep.dtype != np.uint16 or not np.array_equal((deep >> 8).astype(np.uint8), cut):
        raise ImageError("its 16-bit colour is stored in a way that cannot be read exactly")
