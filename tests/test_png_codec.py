"""PNG: exact whatever the strips, small, and read by others; broken pixels are refused."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from codec_aids import Patch, drawing, from_pillow, no_pillow, outside, photo
from cudafilter.errors import ImageError
from cudafilter.formats import (
    png_chunks,
    png_filters,
    png_writer,
)
from cudafilter.formats.metadata import Metadata
from cudafilter.images import Image, load
from cudafilter.operations.pixels import Pixels
from image_files import ICC, chunk, encode, from_opencv, pil_bytes, random_pixels

__all__ = ["no_pillow"]

SIZES = [(1, 1), (1, 40), (40, 1), (7, 5), (33, 31), (64, 200)]

KINDS = [(dtype, channels) for dtype in ("uint8", "uint16") for channels in (1, 2, 3, 4)]


@pytest.mark.parametrize("strip", [1, 257, 1 << 20])
@pytest.mark.parametrize("level", [0, 1, 2, 9])
@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_png_is_exact_whatever_the_strips(
    strip: int, level: int, dtype: str, channels: int, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(png_writer, "STRIP", strip)
    for size in SIZES:
        pixels = random_pixels(dtype, channels, *size)
        pixels[size[0] // 2 :] //= 16  # so that rows take different filters
        data = encode(Image(pixels, channels in (2, 4)), "png", compress_level=level)
        np.testing.assert_array_equal(load(data).pixels, pixels)
        if channels != 2:
            np.testing.assert_array_equal(from_opencv(data), pixels)
        if dtype == "uint8" or channels == 1:
            np.testing.assert_array_equal(from_pillow(data), pixels)


@pytest.mark.parametrize("level", [0, 1, 6])
@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_pngcheck_finds_nothing(
    level: int, dtype: str, channels: int, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(png_writer, "STRIP", 300)
    text = (b"tEXt", b"Title\0a picture")
    image = Image(
        random_pixels(dtype, channels),
        channels in (2, 4),
        Metadata(icc=ICC if channels > 2 else None, png_chunks=(text,)),
    )
    path = tmp_path / "a.png"
    path.write_bytes(encode(image, "png", compress_level=level))
    done = outside("pngcheck", "-v", path)
    assert done.returncode == 0, done.stdout
    assert "No errors" in done.stdout


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_vips_reads_the_same(dtype: str, channels: int, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(png_writer, "STRIP", 300)
    pixels = random_pixels(dtype, channels)
    source, target = tmp_path / "a.png", tmp_path / "a.raw"
    source.write_bytes(encode(Image(pixels, channels in (2, 4)), "png"))
    done = outside("vips", "rawsave", source, target)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == pixels.tobytes()


@pytest.mark.parametrize("picture", [photo, drawing])
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_higher_levels_give_smaller_files(picture: Callable[[], Pixels], format: str) -> None:
    image = Image(picture())
    sizes = [len(encode(image, format, compress_level=level)) for level in range(10)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes == sorted(sizes, reverse=True)
    assert len(encode(image, format)) == sizes[1]


@pytest.mark.parametrize("picture", [photo, drawing])
def test_png_sizes_are_about_pillows(picture: Callable[[], Pixels]) -> None:
    image = Pil.fromarray(picture())
    for level, most in ((1, 1.15), (6, 1.05), (9, 1.05)):
        ours = encode(Image(picture()), "png", compress_level=level)
        theirs = pil_bytes(image, "PNG", compress_level=level)
        assert len(ours) <= most * len(theirs)


@pytest.mark.parametrize("level", [0, 1, 6])
@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_rows_are_filtered_the_same_wherever_a_strip_begins(
    level: int, dtype: str, channels: int
) -> None:
    pixels = random_pixels(dtype, channels)
    whole = png_filters.filtered(pixels, 0, len(pixels), level)
    for start in range(len(pixels)):
        part = png_filters.filtered(pixels, start, len(pixels), level)
        np.testing.assert_array_equal(part, whole[start:])


def test_each_row_takes_the_filter_that_serves_it() -> None:
    row = np.arange(60, dtype=np.uint8)
    noise = np.random.default_rng(3).integers(0, 256, 60, dtype=np.uint8)
    still = np.zeros(60, np.uint8)
    ramp = np.stack([row * 3, noise, noise, still, still + 1])[..., None]
    kinds = png_filters.filtered(ramp, 0, 5, 6)[:, 0]
    assert kinds[0] == png_filters.SUB
    assert kinds[2] == png_filters.UP
    assert kinds[3] == png_filters.NONE


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_png_is_read_without_pillow(dtype: str, channels: int, no_pillow: None) -> None:
    pixels = random_pixels(dtype, channels)
    data = encode(Image(pixels, channels in (2, 4)), "png")
    np.testing.assert_array_equal(load(data).pixels, pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_interlaced_png_is_read_the_same(mode: str, no_pillow: None) -> None:
    channels = len(Pil.new(mode, (1, 1)).getbands())
    pixels = random_pixels("uint8", channels, 21, 18)
    body = b""
    for y, x, down, across in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):  # fmt: skip
        rows = pixels[y::down, x::across]
        body += b"".join(b"\0" + row.tobytes() for row in rows)
    ihdr = struct.pack(">IIBBBBB", 18, 21, 8, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 1)
    parts = chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(load(png_chunks.SIGNATURE + parts).pixels, pixels)


def png_of(body: bytes, bits: int = 8) -> bytes:
    """A 64x64 RGB PNG with the zlib stream *body*, its checksums right."""
    ihdr = struct.pack(">IIBBBBB", 64, 64, bits, 2, 0, 0, 0)
    parts = chunk(b"IHDR", ihdr) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return png_chunks.SIGNATURE + parts


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("harm", ["cut", "empty", "short", "flipped", "filter", "header"])
def test_png_of_broken_pixels_is_refused(bits: int, harm: str) -> None:
    rows = np.random.default_rng(4).integers(0, 5, (64, 1 + 64 * 3 * bits // 8), dtype=np.uint8)
    rows[:, 0] = 0
    raw = rows.tobytes()
    whole = zlib.compress(raw)
    assert load(png_of(whole, bits)).pixels.shape == (64, 64, 3)
    half = len(whole) // 2
    body = {
        "cut": whole[:half],
        "empty": b"",
        "short": zlib.compress(raw[:-500]),
        "flipped": whole[:half] + bytes([whole[half] ^ 255]) + whole[half + 1 :],
        "filter": zlib.compress(b"\x09" + raw[1:]),
        "header": b"\0" + whole[1:],
    }[harm]
    with pytest.raises(ImageError, match=r"^input: "):
        load(png_of(body, bits))


@pytest.mark.parametrize("chunks", [(), ((b"tEXt", b"Title\0a picture"),)])
def test_png_of_a_wrong_checksum_is_refused(chunks: tuple[tuple[bytes, bytes], ...]) -> None:
    image = Image(random_pixels("uint8", 3), False, Metadata(png_chunks=chunks))
    data = bytearray(encode(image, "png", compress_level=0))
    data[data.index(b"IDAT") + 100] ^= 1
    with pytest.raises(ImageError, match="chunk IDAT fails its checksum"):
        load(bytes(data))


@pytest.mark.parametrize("wrong", [lambda x: (x >> 8).astype(np.uint8), lambda x: x[..., :1]])
def test_pixels_of_the_wrong_kind_are_not_believed(
    wrong: Callable[[Pixels], Pixels], monkeypatch: Patch
) -> None:
    deep = random_pixels("uint16", 3)
    data = encode(Image(deep), "png")
    monkeypatch.setattr("imagecodecs.png_decode", lambda _: wrong(deep))
    with pytest.raises(ImageError, match="damaged"):
        load(data)
