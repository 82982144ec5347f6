"""Files of images for tests, made by the simplest means or by other libraries."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pil
from PIL import ImageCms

from cudafilter import images
from cudafilter.formats import ifd, table
from cudafilter.images import Image
from cudafilter.operations.pixels import Pixels
from cudafilter.stores import local

ICC: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

XMP = "<x:xmpmeta xmlns:x='adobe:ns:meta/'>Übung 写真</x:xmpmeta>".encode()


def make_exif(orientation: int = 6) -> bytes:
    """Big-endian EXIF with what typed readers change: UTF-8 "ASCII", odd rationals, a sub-IFD."""
    text = "Zoë 写真\0".encode()
    sub = {36864: ifd.Entry(7, 4, b"0232"), 37510: ifd.Entry(7, 10, b"UNICODE\0hi")}
    entries = {
        270: ifd.Entry(2, len(text), text),
        274: ifd.shorts(">", orientation),
        282: ifd.Entry(5, 1, struct.pack(">II", 600000, 2000)),
        283: ifd.Entry(5, 1, struct.pack(">II", 600000, 2000)),
        296: ifd.shorts(">", 2),
        34665: ifd.Entry(4, 1, sub),
    }
    return ifd.blob(entries, ">")


EXIF = make_exif()


def random_pixels(dtype: str, channels: int, height: int = 13, width: int = 17) -> Pixels:
    """Random samples; with alpha, transparent and opaque pixels among them."""
    rng = np.random.default_rng([channels, height])
    if dtype == "float32":
        return rng.normal(0, 3, (height, width, channels)).astype(dtype)
    top = np.iinfo(dtype).max
    pixels = rng.integers(0, top, (height, width, channels), dtype=dtype, endpoint=True)
    if channels in (2, 4):
        pixels[0, :, -1], pixels[-1, :, -1] = 0, top
    return pixels


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(pixels: Pixels, extra: bytes = b"") -> bytes:
    """An unfiltered PNG of the plainest kind with *extra* chunks before the pixels."""
    height, width, channels = pixels.shape
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    body = np.insert(rows, 0, 0, axis=1).tobytes()
    depth, colour = pixels.dtype.itemsize * 8, (0, 4, 2, 6)[channels - 1]
    ihdr = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", ihdr) + extra + chunk(b"IDAT", zlib.compress(body))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


def pil_bytes(image: Pil.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def encode(image: Image, format: str, **options: Any) -> bytes:
    """images.encode, as bytes."""
    return bytes(images.encode(image, format, **options))


def save(image: Image, path: Path) -> None:
    """Write *image* as the command line does."""
    local.write_atomically(path, encode(image, table.format_of(path), name=str(path)))


def from_opencv(data: bytes) -> Pixels:
    """OpenCV's idea of the file, in the order RGB(A)."""
    got = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert got is not None
    got = got[..., None] if got.ndim == 2 else got[..., [2, 1, 0, 3][: got.shape[2]]]
    return np.asarray(got)


LOSSLESS = [
    *[("png", dtype, c) for dtype in ("uint8", "uint16") for c in (1, 2, 3, 4)],
    *[("tiff", dtype, c) for dtype in ("uint8", "uint16", "float32") for c in (1, 2, 3, 4)],
    *[("ppm", dtype, c) for dtype in ("uint8", "uint16") for c in (1, 3)],
    *[("pgm", dtype, 1) for dtype in ("uint8", "uint16")],
    *[("bmp", "uint8", c) for c in (1, 3)],
    *[("webp", "uint8", c) for c in (3, 4)],
    *[("qoi", "uint8", c) for c in (3, 4)],
    *[("avif", "uint8", c) for c in (1, 2, 3, 4)],
    *[("jxl", dtype, c) for dtype in ("uint8", "uint16", "float32") for c in (1, 2, 3, 4)],
    *[("jp2", dtype, c) for dtype in ("uint8", "uint16") for c in (1, 2, 3, 4)],
    *[("j2k", dtype, c) for dtype in ("uint8", "uint16") for c in (1, 2, 3, 4)],
]


def good(format: str) -> bytes:
    pixels = random_pixels("uint16" if format == "png16" else "uint8", 3, 64, 64)
    return encode(Image(pixels), format.removesuffix("16"), compress_level=0)
