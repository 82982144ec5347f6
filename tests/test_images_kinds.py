"""Kinds of files that are read: what becomes of their samples, and what is told of it."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image as Pil

from cudafilter.errors import ImageError
from cudafilter.formats.metadata import Resolution
from cudafilter.images import Image, load
from image_files import EXIF, chunk, encode, pil_bytes, random_pixels, raw_png


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [2, 4])
def test_premultiplied_alpha_of_tiff_is_made_straight(dtype: str, channels: int) -> None:
    top = int(np.iinfo(dtype).max)
    pixels = np.full((2, 3, channels), top // 4, dtype)
    pixels[..., -1] = top // 2
    pixels[0] = 0
    data = bytearray(encode(Image(pixels, True), "tiff"))
    data[data.index(struct.pack("<HHIH", 338, 3, 1, 2)) + 8] = 1
    image = load(bytes(data))
    assert image.notes == ("premultiplied alpha stored as straight",)
    assert np.abs(image.pixels[1, :, 0].astype(int) - top // 2).max() <= 2
    np.testing.assert_array_equal(image.pixels[0], pixels[0])


@pytest.mark.parametrize("mode", ["RGBX", "RGB"])
def test_extra_channels_of_tiff_are_refused(mode: str) -> None:
    data = bytearray(encode(Image(random_pixels("uint8", 4), True), "tiff"))
    at = data.index(struct.pack("<HHIH", 338, 3, 1, 2))
    if mode == "RGBX":
        data[at + 8] = 0
    else:
        data[at : at + 2] = struct.pack("<H", 337)  # the fourth sample is then unexplained
        data[data.index(struct.pack("<HHIH", 262, 3, 1, 2)) + 8] = 1
    with pytest.raises(ImageError):
        load(bytes(data))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK", "F", "I;16"])
def test_tiffs_of_pillow_are_read(mode: str, compression: str) -> None:
    channels = len(Pil.new(mode, (1, 1)).getbands())
    dtype = {"F": "float32", "I;16": "uint16"}.get(mode, "uint8")
    pixels = random_pixels(dtype, channels)
    picture = Pil.frombytes(mode, (17, 13), pixels.tobytes())
    image = load(pil_bytes(picture, "TIFF", compression=compression))
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.alpha == (mode in ("LA", "RGBA"))


@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_big_tiff_is_read(mode: str) -> None:
    pixels = random_pixels("uint8", 3) if mode == "RGB" else random_pixels("uint16", 1)
    picture = Pil.frombytes(mode, (17, 13), pixels.tobytes())
    data = pil_bytes(picture, "TIFF", big_tiff=True, dpi=(300, 300))
    assert data[2] == 43
    image = load(data)
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.metadata.resolution == Resolution(Fraction(300), Fraction(300), "inch")


@pytest.mark.parametrize("compression", [1, 5, 8, 32946])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("channels", [3, 4])
def test_deep_tiffs_of_opencv_are_read(compression: int, dtype: str, channels: int) -> None:
    pixels = random_pixels(dtype, channels)
    swapped = np.ascontiguousarray(pixels[..., [2, 1, 0, 3][:channels]])
    ok, data = cv2.imencode(".tif", swapped, [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    assert ok
    np.testing.assert_array_equal(load(data.tobytes()).pixels, pixels)


def test_16_bit_white_is_zero_is_turned_around() -> None:
    pixels = random_pixels("uint16", 1)
    data = bytearray(encode(Image(pixels), "tiff"))
    at = data.index(struct.pack("<HHIH", 262, 3, 1, 1))
    data[at + 8] = 0
    np.testing.assert_array_equal(load(bytes(data)).pixels, 65535 - pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_keeps_all_bits(channels: int) -> None:
    pixels = random_pixels("uint16", channels)
    image = load(raw_png(pixels, chunk(b"eXIf", EXIF)))
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.metadata.exif == EXIF


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_becomes_alpha(dtype: str, channels: int) -> None:
    pixels = random_pixels(dtype, channels)
    key = pixels[2, 3].astype(">u2").tobytes()
    image = load(raw_png(pixels, chunk(b"tRNS", key)))
    assert image.alpha
    assert "transparent colour expanded to alpha" in image.notes
    np.testing.assert_array_equal(image.pixels[..., :-1], pixels)
    expected = np.where((pixels == pixels[2, 3]).all(axis=2), 0, np.iinfo(dtype).max)
    np.testing.assert_array_equal(image.pixels[..., -1], expected)


@pytest.mark.parametrize("format", ["PNG", "GIF"])
@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_are_expanded_and_told(format: str, transparent: bool) -> None:
    picture = Pil.fromarray(random_pixels("uint8", 3)).quantize(17)
    options = {"transparency": 3} if transparent else {}
    data = pil_bytes(picture, format, **options)
    image = load(data)
    mode = "RGBA" if transparent else "RGB"
    with Pil.open(io.BytesIO(data)) as seen:
        np.testing.assert_array_equal(image.pixels, np.asarray(seen.convert(mode)))
    assert image.alpha == transparent
    assert image.notes == (f"palette expanded to {mode}",)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "PPM"])
def test_1_bit_becomes_8_bit_gray(format: str) -> None:
    bits = random_pixels("uint8", 1)[..., 0] > 127
    image = load(pil_bytes(Pil.fromarray(bits), format))
    np.testing.assert_array_equal(image.pixels[..., 0], bits * np.uint8(255))
    assert image.notes == ("1-bit expanded to 8-bit gray",)


@pytest.mark.parametrize("depth", [2, 4])
def test_small_depths_of_png_are_expanded(depth: int) -> None:
    ihdr = struct.pack(">IIBBBBB", 8 // depth, 1, depth, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0\x9c")) + chunk(b"IEND", b"")
    key = chunk(b"tRNS", struct.pack(">H", 0x9C >> (8 - depth)))
    image = load(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + key + body)
    expected = [9 * 17, 12 * 17] if depth == 4 else [2 * 85, 85, 3 * 85, 0]
    np.testing.assert_array_equal(image.pixels[0, :, 0], expected)
    np.testing.assert_array_equal(image.pixels[0, :, 1], [0] + [255] * (8 // depth - 1))


def test_32_bit_integers_are_taken_where_16_bits_hold_them() -> None:
    fits = np.array([[0, 65535], [7, 300]], np.int32)
    image = load(pil_bytes(Pil.fromarray(fits), "TIFF"))
    assert image.pixels.dtype == np.uint16
    np.testing.assert_array_equal(image.pixels[..., 0], fits)
    assert "32-bit integers" in image.notes[0]
    for value in (65536, -1):
        with pytest.raises(ImageError, match=r"big\.tif: it holds 32-bit integers"):
            load(pil_bytes(Pil.fromarray(np.full((2, 2), value, np.int32)), "TIFF"), "big.tif")


@pytest.mark.parametrize("maximum", [1, 100, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
def test_pnm_of_any_maximum_is_scaled_to_full_range(kind: str, maximum: int) -> None:
    channels = 3 if kind in ("P3", "P6") else 1
    values = np.linspace(0, maximum, 2 * 5 * channels).astype(np.int64)
    header = f"{kind}\n# a comment\n5 2\n{maximum}\n".encode()
    if kind in ("P5", "P6"):
        data = header + values.astype(">u2" if maximum > 255 else "u1").tobytes()
    else:
        data = header + " ".join(map(str, values)).encode() + b"\n"
    image = load(data)
    full = 65535 if maximum > 255 else 255
    expected = np.rint(values * full / maximum).reshape(2, 5, channels)
    np.testing.assert_array_equal(image.pixels, expected)
    assert bool(image.notes) == (maximum not in (255, 65535))
