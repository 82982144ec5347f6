"""JPEGs by Pillow, with all that such files may hold."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms

from cudafilter.operations.pixels import Pixels


def picture(height: int = 60, width: int = 83, channels: int = 3) -> Pixels:
    """Something smooth, as photos are."""
    y, x, c = np.mgrid[:height, :width, :channels]
    return np.asarray(127 + 60 * np.sin(x / 9 + c) + 60 * np.cos(y / 7 - c), np.uint8)


def jpeg(channels: int = 3, mode: str | None = None, **options: Any) -> bytes:
    """A JPEG by Pillow."""
    pixels = picture(channels=channels)
    image = Pillow.fromarray(pixels[..., 0] if channels == 1 else pixels, mode)
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def with_segments(data: bytes, *segments: tuple[int, bytes]) -> bytes:
    """*data* with more segments at its head."""
    parts = [bytes([255, marker]) + (len(body) + 2).to_bytes(2) + body for marker, body in segments]
    return data[:2] + b"".join(parts) + data[2:]


def rich() -> bytes:
    """A JPEG with all there is: EXIF with an orientation, XMP, ICC, comments, IPTC, DPI."""
    exif = Pillow.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    plain = jpeg(
        quality=83, subsampling="4:2:0", dpi=(300, 300), exif=exif, comment=b"a comment",
        icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    )  # fmt: skip
    return with_segments(
        plain,
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"),
        (0xED, b"Photoshop 3.0\0" + bytes(20)),
        (0xE7, b"made up"),
    )


def own_tables() -> bytes:
    """A JPEG with tables of no quality that any encoder has a number for."""
    tables = [[1 + (7 * i) % 23 for i in range(64)], [2 + (5 * i) % 31 for i in range(64)]]
    return jpeg(qtables=tables, subsampling="4:2:2")


def patched(data: bytes, marker: int, offset: int, value: int) -> bytes:
    """*data* with a byte of the first segment *marker* changed; offset 1 is the marker itself."""
    at = data.index(bytes([255, marker]))
    return data[: at + offset] + bytes([value]) + data[at + offset + 1 :]


CASES = {"rich": rich(), "own tables": own_tables(), "gray": jpeg(1), "4:4:4": jpeg(subsampling=0)}


def coded(pixels: Pixels, mode: str = "RGB", **options: Any) -> bytes:
    """*pixels* as a JPEG by Pillow."""
    file = io.BytesIO()
    Pillow.fromarray(pixels).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def photo(height: int = 100, width: int = 140) -> Pixels:
    """A picture with noise: whatever is missing of it is missed."""
    noise = np.random.default_rng(1).normal(0, 6, (height, width, 3))
    return np.asarray(np.clip(picture(height, width) + noise, 0, 255), np.uint8)
