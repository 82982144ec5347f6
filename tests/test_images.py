"""Images: what survives being written, and what a format refuses."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image as Pil

from cudafilter.errors import ImageError
from cudafilter.formats import ifd, table
from cudafilter.formats.metadata import Metadata
from cudafilter.images import Image, load, to_gray
from image_files import (
    EXIF,
    ICC,
    LOSSLESS,
    encode,
    from_opencv,
    make_exif,
    pil_bytes,
    random_pixels,
)


@pytest.mark.parametrize(("format", "dtype", "channels"), LOSSLESS)
@pytest.mark.parametrize("size", [(13, 17), (1, 1), (700, 1)])
def test_pixels_come_back_bit_for_bit(
    format: str, dtype: str, channels: int, size: tuple[int, int]
) -> None:
    pixels = random_pixels(dtype, channels, *size)
    alpha = channels in (2, 4)
    if format in ("webp", "avif") and alpha:
        pixels[0, 0, -1] = 7  # they drop an alpha channel that is opaque throughout
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
    # OpenCV expands or cannot read gray with alpha, premultiplies TIFF alpha of 8 bits, and has
    # no QOI and JPEG XL. Nor has Pillow JPEG XL.
    unknown = format in ("qoi", "jxl") or (format, dtype, channels) == ("tiff", "uint8", 4)
    if channels != 2 and not unknown:
        np.testing.assert_array_equal(from_opencv(data), pixels)
    if format == "jxl":
        return
    if dtype == "uint8" or (channels == 1 and (format, dtype) != ("ppm", "uint16")):
        with Pil.open(io.BytesIO(data)) as image:
            got = np.asarray(image)
        if channels == 2 and got.shape[2] == 4:  # so it gives gray of AVIF
            got = got[..., 2:]
        np.testing.assert_array_equal(got.reshape(pixels.shape), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 3), ("uint16", 3), ("uint16", 1)])
def test_tiff_pixels_are_never_turned(orientation: int, dtype: str, channels: int) -> None:
    pixels = random_pixels(dtype, channels)
    image = Image(pixels, False, Metadata(exif=make_exif(orientation)))
    back = load(encode(image, "tiff"))
    np.testing.assert_array_equal(back.pixels, pixels)
    assert ifd.orientation(back.metadata.exif) == orientation


def test_progressive_noise_at_the_finest_quality_is_written() -> None:
    noise = random_pixels("uint8", 3, 300, 300)
    ways = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    ways += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    image = load(cv2.imencode(".jpg", noise, ways)[1].tobytes())
    assert image.metadata.jpeg_coding is not None
    assert image.metadata.jpeg_coding.progressive
    again = load(encode(image, "jpeg"))
    assert np.abs(again.pixels.astype(int) - image.pixels).mean() < 2


def test_gray_made_of_a_colour_jpeg_is_written() -> None:
    source = pil_bytes(Pil.new("RGB", (20, 20), "red"), "JPEG", quality=60, subsampling=2)
    back = load(encode(to_gray(load(source)), "jpeg"))
    assert np.abs(back.pixels.astype(int) - 76).max() <= 1


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
    ("gif", "uint16", 1, "8 bits a sample", ".png"),
    ("ppm", "float32", 1, "no float", ".tif"),
    ("png", "float32", 1, "no float", ".tif"),
    ("pbm", "uint8", 1, "not written", "png"),
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


@pytest.mark.parametrize(
    ("format", "told"),
    [
        ("png", "the quality is not used: PNG is lossless"),
        ("jpeg", "the compress level is not used: JPEG has none"),
        ("webp", "the compress level is not used: WEBP has none"),
    ],
)
def test_settings_that_say_nothing_to_a_format_are_told(format: str, told: str) -> None:
    assert table.unused_settings(format) == ()
    assert table.unused_settings(format, quality=90, compress_level=9) == (told,)
