"""Images: what is read, what survives being written, and what is refused."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pil
from PIL import ImageCms, ImageFile, PngImagePlugin

from cudafilter import images
from cudafilter.errors import ImageError
from cudafilter.formats import ifd, png
from cudafilter.formats.metadata import Metadata, Resolution
from cudafilter.images import READ_ONLY, Image, load, lost_metadata, to_gray
from cudafilter.pixels import Pixels
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


def chunk(kind: bytes, data: bytes) -> bytes:
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
    local.write_atomically(path, encode(image, images.format_of(path), name=str(path)))


def from_opencv(data: bytes) -> Pixels:
    """OpenCV's idea of the file, in the order RGB(A)."""
    got = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert got is not None
    got = got[..., None] if got.ndim == 2 else got[..., [2, 1, 0, 3][: got.shape[2]]]
    return np.asarray(got)


GRAY, GRAY_ALPHA, RGB, RGBA = 1, 2, 3, 4
LOSSLESS = [
    *[("png", dtype, c) for dtype in ("uint8", "uint16") for c in (1, 2, 3, 4)],
    *[("tiff", dtype, c) for dtype in ("uint8", "uint16", "float32") for c in (1, 2, 3, 4)],
    *[("ppm", dtype, c) for dtype in ("uint8", "uint16") for c in (1, 3)],
    *[("pgm", dtype, 1) for dtype in ("uint8", "uint16")],
    *[("bmp", "uint8", c) for c in (1, 3)],
    *[("webp", "uint8", c) for c in (3, 4)],
]


@pytest.mark.parametrize(("format", "dtype", "channels"), LOSSLESS)
@pytest.mark.parametrize("size", [(13, 17), (1, 1), (700, 1)])
def test_pixels_come_back_bit_for_bit(
    format: str, dtype: str, channels: int, size: tuple[int, int]
) -> None:
    pixels = random_pixels(dtype, channels, *size)
    alpha = channels in (2, 4)
    if format == "webp" and alpha:
        pixels[0, 0, -1] = 7  # WebP drops an alpha channel that is opaque throughout
    data = encode(Image(pixels, alpha), format)
    back = load(data)
    assert back.pixels.dtype == pixels.dtype
    assert back.pixels.flags.c_contiguous
    assert back.alpha == alpha
    assert back.notes == ()
    np.testing.assert_array_equal(back.pixels, pixels)
    np.testing.assert_array_equal(load(encode(back, format)).pixels, pixels)


@pytest.mark.parametrize(("format", "dtype", "channels"), LOSSLESS)
def test_other_libraries_read_the_same(format: str, dtype: str, channels: int) -> None:
    pixels = random_pixels(dtype, channels)
    data = encode(Image(pixels, channels in (2, 4)), format)
    # OpenCV expands or cannot read gray with alpha, and premultiplies TIFF alpha of 8 bits.
    if channels != 2 and (format, dtype, channels) != ("tiff", "uint8", 4):
        np.testing.assert_array_equal(from_opencv(data), pixels)
    if dtype == "uint8" or (channels == 1 and (format, dtype) != ("ppm", "uint16")):
        with Pil.open(io.BytesIO(data)) as image:
            got = np.asarray(image)
        np.testing.assert_array_equal(got.reshape(pixels.shape), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 3), ("uint16", 3), ("uint16", 1)])
def test_tiff_pixels_are_never_turned(orientation: int, dtype: str, channels: int) -> None:
    pixels = random_pixels(dtype, channels)
    image = Image(pixels, False, Metadata(exif=make_exif(orientation)))
    back = load(encode(image, "tiff"))
    np.testing.assert_array_equal(back.pixels, pixels)
    assert ifd.orientation(back.metadata.exif) == orientation


@pytest.mark.parametrize("format", ["png", "webp", "tiff"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_icc_exif_and_xmp_survive(format: str, dtype: str) -> None:
    if (format, dtype) == ("webp", "uint16"):
        pytest.skip("WebP holds 8 bits")
    image = Image(random_pixels(dtype, 3), False, Metadata(icc=ICC, exif=EXIF, xmp=XMP))
    assert lost_metadata(image, format) == ()
    data = encode(image, format)
    back = load(data).metadata
    assert (back.icc, back.xmp) == (ICC, XMP)
    if format != "tiff":  # there the EXIF lies among the picture's own tags
        assert back.exif == EXIF
    with Pil.open(io.BytesIO(data)) as seen:
        exif = seen.getexif()
        assert seen.info["icc_profile"] == ICC
        assert (exif[274], exif.get_ifd(34665)[36864]) == (6, b"0232")
    np.testing.assert_array_equal(load(data).pixels, image.pixels)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_keeps_its_segments_and_its_quality(mode: str, progressive: bool) -> None:
    picture = Pil.effect_noise((96, 80), 90).convert(mode)
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x04\x1c\x02\x00\x00"
    segment = b"\xff\xed" + struct.pack(">H", 2 + len(iptc)) + iptc
    source = pil_bytes(
        picture, "JPEG", quality=71, subsampling=2, progressive=progressive, icc_profile=ICC * 40,
        exif=b"Exif\0\0" + EXIF, xmp=XMP, comment="Grüße".encode(), dpi=(240, 200), extra=segment,
    )  # fmt: skip
    image = load(source)
    assert lost_metadata(image, "jpeg") == ()
    written = encode(image, "jpeg")
    again = load(written)
    assert replace(again.metadata, jpeg_coding=None) == replace(image.metadata, jpeg_coding=None)
    assert (again.metadata.exif, again.metadata.xmp, again.metadata.icc) == (EXIF, XMP, ICC * 40)
    with Pil.open(io.BytesIO(source)) as a, Pil.open(io.BytesIO(written)) as b:
        assert a.mode == b.mode == mode
        assert a.quantization == b.quantization  # type: ignore[attr-defined]
        assert bool(b.info.get("progressive")) == progressive
        assert b.info["comment"] == "Grüße".encode()
        if mode != "CMYK":
            assert b.info["dpi"] == (240, 200)
        if mode == "RGB":
            assert again.metadata.jpeg_coding == image.metadata.jpeg_coding
        difference = np.abs(np.asarray(a).astype(int) - np.asarray(b))
        assert difference.mean() < 3
    assert from_opencv(written).shape[:2] == (80, 96)
    assert len(encode(image, "jpeg", quality=20)) < len(written)


def test_progressive_noise_at_the_finest_quality_is_written() -> None:
    noise = random_pixels("uint8", 3, 300, 300)
    ways = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    ways += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    image = load(cv2.imencode(".jpg", noise, ways)[1].tobytes())
    assert image.metadata.jpeg_coding is not None
    assert image.metadata.jpeg_coding.progressive
    again = load(encode(image, "jpeg"))
    assert np.abs(again.pixels.astype(int) - image.pixels).mean() < 2


def test_damaged_metadata_does_not_cost_the_picture() -> None:
    damaged = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
        for marker, body in ((0xE1, b"Exif\0\0II*\0\xff"), (0xED, b"Photoshop 3.0\x008BIM.."))
    )
    image = load(pil_bytes(Pil.new("RGB", (8, 8)), "JPEG", extra=damaged))
    assert damaged in encode(image, "jpeg")


def test_gray_made_of_a_colour_jpeg_is_written() -> None:
    source = pil_bytes(Pil.new("RGB", (20, 20), "red"), "JPEG", quality=60, subsampling=2)
    back = load(encode(to_gray(load(source)), "jpeg"))
    assert np.abs(back.pixels.astype(int) - 76).max() <= 1


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


def test_jpeg_without_a_jpeg_source_is_fine() -> None:
    smooth = cv2.GaussianBlur(random_pixels("uint8", 3, 64, 64), (0, 0), 4)
    data = encode(Image(smooth), "jpeg")
    with Pil.open(io.BytesIO(data)) as image:
        assert image.layer[0][1:3] == image.layer[1][1:3]  # type: ignore[attr-defined]
    assert np.abs(load(data).pixels.astype(int) - smooth).max() <= 6


@pytest.mark.parametrize("format", ["jpeg", "tiff"])
def test_cmyk_stays_cmyk(format: str) -> None:
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:8, :, 0], inks[8:, :, 3] = 200, 90
    picture = Pil.frombytes("CMYK", (16, 16), inks.tobytes())
    image = load(pil_bytes(picture, format, **({"quality": 100} if format == "jpeg" else {})))
    assert image.metadata.cmyk
    assert not image.alpha
    back = load(encode(image, format))
    assert back.metadata.cmyk
    assert np.abs(back.pixels.astype(int) - inks).max() <= 2
    with pytest.raises(ImageError, match="PNG holds no CMYK") as caught:
        encode(image, "png", name="out.png")
    assert ".tif" in (caught.value.hint or "")
    with pytest.raises(ImageError, match="CMYK"):
        to_gray(image)


def test_png_chunks_survive_byte_for_byte() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "Åsa")
    text.add_text("Comment", "long " * 500, zip=True)
    text.add_itxt("Title", "写真", lang="ja", tkey="題名")
    text.add_itxt("Description", "Ω" * 900, lang="el", tkey="π", zip=True)
    source = pil_bytes(
        Pil.fromarray(random_pixels("uint8", 3)), "PNG", pnginfo=text, icc_profile=ICC
    )
    colour = (
        chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"sRGB", b"\0")
        + chunk(b"cHRM", struct.pack(">8I", *range(30000, 30008)))
        + chunk(b"pHYs", struct.pack(">IIB", 2835, 3333, 1))
    )  # fmt: skip
    source = source[:33] + colour + source[33:]
    written = encode(load(source), "png")
    for kind in (b"gAMA", b"sRGB", b"cHRM", b"pHYs", b"tEXt", b"zTXt", b"iTXt"):
        at = source.index(kind)
        whole = source[at - 4 : at + 8 + int.from_bytes(source[at - 4 : at], "big")]
        assert whole in written, kind
    with Pil.open(io.BytesIO(source)) as a, Pil.open(io.BytesIO(written)) as b:
        a.load()
        assert a.info == b.info
        assert [getattr(v, "lang", None) for v in a.text.values()] == [  # type: ignore[attr-defined]
            getattr(v, "lang", None) for v in b.text.values()  # type: ignore[attr-defined]
        ]  # fmt: skip
    lost = lost_metadata(load(source), "jpeg")
    assert lost == ("PNG text (Author, Comment, Title, Description)",)


def test_text_behind_the_pixels_and_16_bit_profiles_survive() -> None:
    late = raw_png(random_pixels("uint16", 4), chunk(b"eXIf", EXIF))[:-12]
    late += chunk(b"tEXt", b"Late\0yes") + chunk(b"IEND", b"")
    with Pil.open(io.BytesIO(encode(load(late), "png"))) as image:
        image.load()
        assert image.info["Late"] == "yes"
        assert image.getexif()[274] == 6


@pytest.mark.parametrize("ppm", [1, 2834, 2835, 11811, 3937, 65535])
def test_dots_per_metre_come_back_the_same(ppm: int) -> None:
    source = raw_png(random_pixels("uint8", 3), chunk(b"pHYs", struct.pack(">IIB", ppm, ppm, 1)))
    image = load(source)
    for format in ("png", "bmp", "tiff"):
        again = load(encode(image, format)).metadata.resolution
        assert again is not None
        assert again.per("metre") == (Fraction(ppm), Fraction(ppm)), format


@pytest.mark.parametrize("target", ["png", "tiff", "bmp", "jpeg"])
@pytest.mark.parametrize("source", ["png", "tiff", "bmp", "jpeg"])
def test_dpi_crosses_formats(source: str, target: str) -> None:
    data = pil_bytes(Pil.new("RGB", (3, 3)), source, dpi=(300, 300))
    with Pil.open(io.BytesIO(encode(load(data), target))) as image:
        assert [round(float(value)) for value in image.info["dpi"]] == [300, 300]


def test_tiff_tags_keep_bytes_types_and_exact_rationals() -> None:
    private = {33723: ifd.Entry(7, 5, b"\x1c\x02\x00\x00\x01")}
    image = Image(
        random_pixels("uint16", 3), False,
        Metadata(exif=EXIF, xmp=XMP, icc=ICC, tiff_tags=ifd.blob(private, ">")),
    )  # fmt: skip
    once = load(encode(image, "tiff"))
    twice = load(encode(once, "tiff"))
    assert once.metadata == twice.metadata
    assert once.metadata.resolution == Resolution(Fraction(300), Fraction(300), "inch")
    _, before, _ = ifd.parse(EXIF)
    _, after, _ = ifd.parse(once.metadata.exif or b"")
    resolution = {282, 283}
    assert {k: v for k, v in after.items() if k not in resolution} == {
        k: v for k, v in before.items() if k not in resolution
    }
    assert lost_metadata(once, "png") == ("TIFF tags 33723",)


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


def test_webp_is_lossless_unless_a_quality_is_given() -> None:
    image = Image(random_pixels("uint8", 4), True)
    np.testing.assert_array_equal(load(encode(image, "webp")).pixels, image.pixels)
    assert len(encode(image, "webp", quality=10)) < len(encode(image, "webp"))
    gray = load(encode(Image(random_pixels("uint8", 1)), "webp"))
    assert (gray.pixels == gray.pixels[..., :1]).all()


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_compression_levels_change_size_alone(format: str) -> None:
    image = Image(np.arange(200 * 300, dtype=np.uint16).reshape(200, 300, 1) // 7)
    sizes = []
    for level in (0, 1, 9):
        data = encode(image, format, compress_level=level)
        np.testing.assert_array_equal(load(data).pixels, image.pixels)
        sizes.append(len(data))
    assert sizes[0] > sizes[1] >= sizes[2]


REFUSED = [
    ("jpeg", "uint8", 4, "no transparency", ".webp"),
    ("jpeg", "uint16", 3, "8 bits a sample", ".png"),
    ("jpeg", "float32", 3, "no float", ".tif"),
    ("webp", "uint16", 4, "8 bits a sample", ".png"),
    ("bmp", "uint8", 2, "no transparency", ".png"),
    ("bmp", "uint16", 1, "8 bits a sample", ".png"),
    ("ppm", "uint8", 4, "no transparency", ".png"),
    ("pgm", "uint8", 2, "no transparency", ".png"),
    ("pgm", "uint16", 3, "no colour", ".ppm"),
    ("pbm", "uint8", 1, "not written", "pgm"),
    ("ppm", "float32", 1, "no float", ".tif"),
    ("png", "float32", 1, "no float", ".tif"),
    ("gif", "uint8", 3, "not written", "png"),
]


@pytest.mark.parametrize(("format", "dtype", "channels", "reason", "hint"), REFUSED)
def test_what_a_format_cannot_hold_is_refused(
    format: str, dtype: str, channels: int, reason: str, hint: str
) -> None:
    image = Image(random_pixels(dtype, channels), channels in (2, 4))
    with pytest.raises(ImageError, match=f"^out: .*{reason}") as caught:
        encode(image, format, name="out")
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("options", [{"quality": 0}, {"quality": 101}, {"compress_level": 10}])
def test_settings_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ImageError, match="must be"):
        encode(Image(random_pixels("uint8", 3)), "jpeg", **options)


@pytest.mark.parametrize(("format", "side"), [("jpeg", 65501), ("webp", 16384)])
def test_sides_past_the_format_are_refused(format: str, side: int) -> None:
    with pytest.raises(ImageError, match=f"1 x {side} pixels"):
        encode(Image(np.zeros((side, 1, 3), np.uint8)), format)


def test_lost_metadata_is_named() -> None:
    image = Image(random_pixels("uint8", 3), False, Metadata(icc=ICC, exif=EXIF, xmp=XMP))
    assert lost_metadata(image, "bmp") == (
        "ICC profile", "EXIF with its orientation (it will show unturned)", "XMP",
    )  # fmt: skip
    long = replace(image, metadata=Metadata(exif=EXIF + bytes(70000), xmp=bytes(70000)))
    assert lost_metadata(long, "jpeg") == ("EXIF (too long for JPEG)", "XMP (too long for JPEG)")
    assert load(encode(long, "jpeg")).metadata.exif is None
    assert lost_metadata(long, "png") == ()
    broken = replace(image, metadata=Metadata(exif=b"II*\0\xff\xff\0\0"))
    assert lost_metadata(broken, "tiff") == ("EXIF (damaged)",)
    gray = replace(image, metadata=Metadata(icc=ICC[:16] + b"GRAY" + ICC[20:]))
    assert "gray" in lost_metadata(gray, "webp")[0]
    comments = replace(image, metadata=Metadata(comments=(b"hello",)))
    assert lost_metadata(comments, "png") == ("comment",)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [3, 4])
def test_gray_is_pillows_luma_at_full_depth(dtype: str, channels: int) -> None:
    pixels = random_pixels(dtype, channels, 40, 40)
    image = to_gray(Image(pixels, channels == 4, Metadata(icc=ICC, exif=EXIF)))
    assert image.pixels.dtype == dtype
    assert image.metadata == Metadata(exif=EXIF)
    assert "profile is not kept" in image.notes[0]
    luma = pixels[..., :3].astype(np.float64) @ [0.299, 0.587, 0.114]
    if dtype == "float32":
        np.testing.assert_array_equal(image.pixels[..., 0], luma.astype(np.float32))
    else:
        assert np.abs(image.pixels[..., 0] - luma).max() < 1
    if dtype == "uint8":
        pillows = np.asarray(Pil.fromarray(pixels).convert("L"))
        np.testing.assert_array_equal(image.pixels[..., 0], pillows)
    if channels == 4:
        np.testing.assert_array_equal(image.pixels[..., 1], pixels[..., 3])
    assert to_gray(image) is image


def test_white_stays_white_in_16_bit_gray() -> None:
    white = to_gray(Image(np.full((1, 1, 3), 65535, np.uint16)))
    assert white.pixels[0, 0, 0] == 65535


def good(format: str) -> bytes:
    pixels = random_pixels("uint16" if format == "png16" else "uint8", 3, 64, 64)
    return encode(Image(pixels), format.removesuffix("16"), compress_level=0)


def refusal(data: bytes) -> str:
    """Why "pic.x" of *data* is refused; "pic.x: fine" where it is read."""
    try:
        load(data, "pic.x")
    except ImageError as error:
        return str(error)
    return "pic.x: fine"


@pytest.mark.parametrize("format", ["png", "png16", "jpeg", "webp", "tiff", "bmp", "ppm"])
def test_every_cut_and_every_flipped_byte_ends_well(format: str) -> None:
    data = good(format)
    for length in {0, 1, 2, 4, 9, 30, 60, len(data) // 4, len(data) // 2, len(data) * 9 // 10}:
        with pytest.raises(ImageError, match=r"^pic\.x: "):
            load(data[:length], "pic.x")
    rng = np.random.default_rng(3)
    for at in [*range(64), *rng.integers(0, len(data), 60)]:
        broken = bytearray(data)
        broken[at] ^= 0xFF
        assert refusal(bytes(broken)).startswith("pic.x: ")


def test_a_png_without_its_end_is_refused() -> None:
    with pytest.raises(ImageError, match="it is cut short"):
        load(good("png")[:-12])


def test_ifd_values_begin_at_even_offsets() -> None:
    entries = {tag: ifd.Entry(7, 5, b"12345") for tag in (270, 305, 306)}
    written = ifd.blob(entries, "<")
    offsets = [struct.unpack_from("<I", written, 10 + 12 * i + 8)[0] for i in range(3)]
    assert all(offset % 2 == 0 for offset in offsets)
    assert ifd.parse(ifd.blob(entries, "<"))[1] == entries


def frames(format: str) -> bytes:
    pictures = [Pil.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    return pil_bytes(pictures[0], format, save_all=True, append_images=pictures[1:])


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused_with_their_number(format: str) -> None:
    with pytest.raises(ImageError, match="anim: it holds 3 frames") as caught:
        load(frames(format), "anim")
    assert "extract" in (caught.value.hint or "")


def test_the_previews_in_a_camera_file_are_told_of() -> None:
    image = load(frames("MPO"))
    assert image.notes[0] == "2 further pictures in the file are not kept"
    assert image.pixels.shape == (8, 8, 3)
    assert load(encode(image, "jpeg")).notes == ()


def test_bombs_are_refused() -> None:
    ihdr = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="are 10,000,000,000 pixels, more than the 44,739,242"):
        load(b"\x89PNG\r\n\x1a\n" + body)
    for format in ("png", "tiff", "jpeg", "ppm", "bmp", "webp"):
        with pytest.raises(ImageError, match="pixels, more than the 5 that are read") as refused:
            load(good(format), max_pixels=5)
        assert refused.value.hint is not None
        assert "--max-pixels" in refused.value.hint


def test_pillow_is_left_strict_and_scans_pass_its_limit() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert Pil.MAX_IMAGE_PIXELS is None  # Limits has the limit


@pytest.mark.parametrize("mode", ["LAB", "YCbCr"])
def test_other_colour_spaces_are_refused(mode: str) -> None:
    data = pil_bytes(Pil.new(mode, (4, 4)), "TIFF")
    with pytest.raises(ImageError, match="cannot be filtered"):
        load(data)


@pytest.mark.parametrize("junk", [b"", b"hello, world", b"P6", b"BM", b"II*\0", b"\xff\xd8\xff"])
def test_what_is_no_image_is_refused(junk: bytes, tmp_path: Path) -> None:
    path = tmp_path / "junk.png"
    path.write_bytes(junk)
    with pytest.raises(ImageError, match=r"junk\.png: "):
        load(path)


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.png: cannot be read: No such file"):
        load(tmp_path / "none.png")
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        load(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        load(Path("nul\0name.png"))


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(good("jpeg"))
    assert load(path).metadata.jpeg_coding is not None


def test_formats_by_extension() -> None:
    assert images.format_of(Path("a/B.JPeG")) == "jpeg"
    assert images.format_of(Path("x.tif")) == "tiff"
    assert images.is_image_name(Path("x.PGM"))
    assert not images.is_image_name(Path("desktop.ini"))
    with pytest.raises(ImageError, match=r"x\.xyz") as caught:
        images.format_of(Path("x.xyz"))
    assert ".png" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["写真 ñ.png", "über.tif", "a b'\".webp"])
def test_any_path_will_do(name: str, tmp_path: Path) -> None:
    image = Image(random_pixels("uint8", 3))
    folder = tmp_path / "Ünïcødé"
    folder.mkdir()
    save(image, folder / name)
    np.testing.assert_array_equal(load(folder / name).pixels, image.pixels)


@pytest.mark.parametrize(
    ("name", "channels", "reason"), [("a.pbm", 1, "not written"), ("a.pgm", 3, "no colour")]
)
def test_pnm_names_mean_what_they_say(
    name: str, channels: int, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match=reason):
        save(Image(random_pixels("uint8", channels)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", sorted(images.FORMATS.keys() - READ_ONLY))
def test_the_first_bytes_tell_the_format(format: str) -> None:
    image = Image(random_pixels("uint8", 1 if format == "pgm" else 3))
    assert images.format_of_bytes(encode(image, format)) == format


@pytest.mark.parametrize(
    ("data", "format"),
    [(b"P1 1 1 0", "pbm"), (b"P4", "pbm"), (b"Pf", "ppm"), (b"GIF89a", "gif"), (b"II+\0", "tiff")],
)
def test_the_first_bytes_of_what_is_read_alone(data: bytes, format: str) -> None:
    assert images.format_of_bytes(data) == format


@pytest.mark.parametrize("data", [b"", b"RIFF1234WAVE", b"hello"])
def test_no_format_is_made_up(data: bytes) -> None:
    with pytest.raises(ImageError):
        images.format_of_bytes(data)


@pytest.mark.parametrize(
    ("format", "told"),
    [
        ("png", "the quality is not used: PNG is lossless"),
        ("jpeg", "the compress level is not used: JPEG has none"),
        ("webp", "the compress level is not used: WEBP has none"),
    ],
)
def test_settings_that_say_nothing_to_a_format_are_told(format: str, told: str) -> None:
    assert images.unused_settings(format) == ()
    assert images.unused_settings(format, quality=90, compress_level=9) == (told,)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["os.replace", "encode"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_save_leaves_what_was(
    failure: BaseException, step: str, exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.png"
    if exists:
        target.write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise failure

    owner, name = (os, "replace") if step == "os.replace" else (png, "write")
    monkeypatch.setattr(owner, name, fail)
    raised = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else ImageError
    with pytest.raises(raised, match=r"out\.png.*No space" if raised is ImageError else None):
        save(Image(random_pixels("uint8", 3)), target)
    assert [path.name for path in tmp_path.iterdir()] == (["out.png"] if exists else [])
    if exists:
        assert target.read_bytes() == b"old"


def test_links_that_lead_nowhere_are_reported(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(ImageError, match=r"loop\.png: cannot be written: Too many levels"):
        local.write_atomically(tmp_path / "loop.png", b"data")


def test_a_file_is_whole_where_the_system_writes_a_part_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(256)) * 20
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, rest: write(file, rest[:1000]))
    local.write_atomically(tmp_path / "x.png", data)
    assert (tmp_path / "x.png").read_bytes() == data


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_a_file_is_read_whole_where_the_system_reads_a_part_at_a_time(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (bytes(range(256)) * 20)[:size]
    (tmp_path / "x").write_bytes(data)
    assert images.read_file(tmp_path / "x") == data
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, most: read(file, min(most, 1000)))
    assert images.read_file(tmp_path / "x") == data


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    data = png.SIGNATURE + bytes(range(256)) * 1000  # more than a pipe holds
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,), daemon=True)
    writer.start()
    assert images.read_file(tmp_path / "pipe") == data


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_device_is_reported() -> None:
    with pytest.raises(ImageError, match="/dev/full: cannot be written: No space left"):
        local.write_atomically(Path("/dev/full"), b"data")


def test_folders_are_made_where_there_are_none(tmp_path: Path) -> None:
    for name in ("x", "y"):
        local.write_atomically(tmp_path / "a" / "b" / name, b"data")
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["x", "y"]


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    image = Image(random_pixels("uint8", 3))
    (tmp_path / "link.png").symlink_to(tmp_path / "none" / "x.png")
    with pytest.raises(ImageError, match="cannot be written: No such file or directory"):
        save(image, tmp_path / "link.png")
    assert not (tmp_path / "none").exists(), "whatever the link names may be elsewhere"
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match="it is a folder"):
        save(image, tmp_path / "folder.png")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ImageError, match="Not a directory"):
        save(image, tmp_path / "file" / "x.png")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_read_only_places_are_refused(tmp_path: Path) -> None:
    image = Image(random_pixels("uint8", 3))
    target = tmp_path / "x.png"
    target.write_bytes(b"old")
    target.chmod(0o444)
    with pytest.raises(ImageError, match="write-protected"):
        save(image, target)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(ImageError, match="Permission denied"):
            save(image, tmp_path / "y.png")
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_permissions_are_the_targets_or_the_umasks(tmp_path: Path) -> None:
    image = Image(random_pixels("uint8", 1))
    umask = os.umask(0o027)
    try:
        save(image, tmp_path / "new.png")
        kept = tmp_path / "kept.png"
        kept.write_bytes(b"old")
        kept.chmod(0o604)
        save(image, kept)
    finally:
        os.umask(umask)
    assert (tmp_path / "new.png").stat().st_mode & 0o777 == 0o640
    assert kept.stat().st_mode & 0o777 == 0o604


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_is_followed(dangling: bool, tmp_path: Path) -> None:
    real = tmp_path / "real.png"
    if not dangling:
        real.write_bytes(b"old")
        (tmp_path / "other.png").hardlink_to(real)
    (tmp_path / "link.png").symlink_to(real)
    image = Image(random_pixels("uint8", 1))
    save(image, tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    np.testing.assert_array_equal(load(real).pixels, image.pixels)
    if not dangling:  # it was replaced as a whole, not overwritten
        assert (tmp_path / "other.png").read_bytes() == b"old"


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    kinds = [kind for kind in LOSSLESS if kind[0] != "webp"]

    def round_trip(number: int) -> None:
        format, dtype, channels = kinds[number % len(kinds)]
        pixels = random_pixels(dtype, channels, 20 + number, 31)
        path = tmp_path / f"{number}{images.FORMATS[format][0]}"
        save(Image(pixels, channels in (2, 4)), path)
        np.testing.assert_array_equal(load(path).pixels, pixels)
        with pytest.raises(ImageError):
            load(path.read_bytes()[:50])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(round_trip, range(120)))


def test_threads_saving_one_path_leave_one_whole_file(tmp_path: Path) -> None:
    pictures = [Image(np.full((50, 50, 3), value, np.uint8)) for value in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda image: save(image, tmp_path / "one.png"), pictures))
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]
    assert len(np.unique(load(tmp_path / "one.png").pixels)) == 1
