"""What the formats that Pillow decodes have in common: its modes to pixels and back."""

from __future__ import annotations

from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from cudafilter.errors import ImageError
from cudafilter.formats.limits import Limits, refuse_frames
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Buffer

# Once, on import: Pillow has no limit per call, and Limits has one.
PillowImage.MAX_IMAGE_PIXELS = None

_STRAIGHT = {"L", "LA", "RGB", "RGBA", "CMYK", "F"}
_REFUSED = {
    "LAB": "L*a*b* colour",
    "HSV": "HSV colour",
    "YCbCr": "YCbCr colour",
    "PA": "a palette with a separate alpha channel",
}


def open_pillow(
    data: Buffer, format: str, limits: Limits, several: bool = False
) -> PillowImage.Image:
    """Open *data* and refuse what is too large, or unless *several* are meant holds more frames.

    *format* is that of save_pillow().
    """
    _plug_in(format)
    image = PillowImage.open(BytesIO(data), formats=[format.upper()])
    limits.require_size(*image.size)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and not several and image.format != "MPO":
        refuse_frames(frames)
    return image


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


def save_pillow(pixels: Pixels, format: str, cmyk: bool = False, **options: Any) -> bytes:
    """uint8 *pixels* (H, W, C) as a file of Pillow's *format*, as its modules spell it: "WebP"."""
    _plug_in(format)
    file = BytesIO()
    pillow_of(pixels, cmyk).save(file, format.upper(), **options)
    return file.getvalue()


def _plug_in(format: str) -> None:
    """Make *format* known to Pillow, which otherwise imports every module that it has."""
    import_module(f"PIL.{format}ImagePlugin")
