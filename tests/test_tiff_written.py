"""TIFFs are written as those that they come from: strips or tiles, compression, 64-bit offsets."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Pil

from cudafilter.formats import ifd, rows, tiff_segments
from cudafilter.formats.rows import Header
from cudafilter.images import Image, encode, load
from cudafilter.stores import local
from image_files import EXIF, ICC, XMP, random_pixels
from test_tiff import tiff

LOSSLESS = {
    "none": 1,
    "lzw": 5,
    "packbits": 32773,
    "adobe_deflate": 8,
    "lzma": 34925,
    "zstd": 50000,
}
TIFFFILE = {"none": None, "adobe_deflate": "zlib"}


def page(data: bytes) -> Any:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return file.pages[0]


def read(data: bytes) -> Any:
    return tifffile.imread(io.BytesIO(data))


@pytest.mark.parametrize("tile", [None, (32, 16)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("codec", LOSSLESS)
def test_layout_and_compression_stay(codec: str, dtype: str, tile: tuple[int, int] | None) -> None:
    for channels in (1, 3, 4):
        pixels = random_pixels(dtype, channels, 45, 70)
        how: dict[str, Any] = {"tile": tile} if tile else {}
        source = load(tiff(pixels, compression=TIFFFILE.get(codec, codec), **how))
        data = bytes(encode(source, "tiff"))
        written = page(data)
        assert written.compression == LOSSLESS[codec]
        assert written.is_tiled == (tile is not None)
        if tile is not None:
            assert (written.tilelength, written.tilewidth) == tile
        np.testing.assert_array_equal(read(data), np.squeeze(pixels))
        np.testing.assert_array_equal(load(data).pixels, pixels)
        assert load(data).metadata.tiff_layout == source.metadata.tiff_layout


@pytest.mark.parametrize("codec", [name for name in LOSSLESS if name not in ("lzma", "zstd")])
def test_pillow_reads_it_too(codec: str) -> None:
    pixels = random_pixels("uint8", 3, 45, 70)
    layouts: list[dict[str, Any]] = [{}, {"tile": (32, 16)}]
    for how in layouts:
        source = tiff(pixels, compression=TIFFFILE.get(codec, codec), **how)
        with Pil.open(io.BytesIO(bytes(encode(load(source), "tiff")))) as image:
            np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("level", [0, 6])
def test_a_level_asks_for_deflate(level: int) -> None:
    source = load(tiff(random_pixels("uint8", 3, 45, 70), compression="lzw", tile=(32, 16)))
    written = page(bytes(encode(source, "tiff", compress_level=level)))
    assert (written.compression, written.is_tiled) == (8, True)


def test_what_would_lose_samples_becomes_deflate() -> None:
    pixels = np.full((45, 70, 3), 90, np.uint8)
    source = load(tiff(pixels, compression="jpeg"))
    assert page(bytes(encode(source, "tiff"))).compression == 8
    assert page(bytes(encode(Image(pixels), "tiff"))).compression == 8


def test_tiles_of_other_sides_become_strips() -> None:
    source = load(tiff(random_pixels("uint8", 3, 45, 70), tile=(32, 16)))
    layout = source.metadata.tiff_layout
    assert layout is not None
    for tile in [(33, 16), (1 << 20, 1 << 20)]:
        other = Image(
            source.pixels, False, source.metadata.__class__(tiff_layout=layout._replace(tile=tile))
        )
        assert not page(bytes(encode(other, "tiff"))).is_tiled


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tile", [None, (32, 16)])
def test_bigtiff_holds_what_a_tiff_does(
    order: str, tile: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    little = {34665: ifd.Entry(4, 1, {36864: ifd.Entry(7, 4, b"0232")})}
    exif = EXIF if order == ">" else ifd.blob(little, "<")
    pixels = random_pixels("uint8", 3, 45, 70)
    how: dict[str, Any] = {"tile": tile} if tile else {}
    metadata = load(tiff(pixels, **how)).metadata
    image = Image(pixels, False, metadata.__class__(
        icc=ICC, exif=exif, xmp=XMP, tiff_layout=metadata.tiff_layout
    ))  # fmt: skip
    small = bytes(encode(image, "tiff"))
    monkeypatch.setattr(tiff_segments, "_MOST_CLASSIC", 1000)
    big = bytes(encode(image, "tiff"))
    assert small[2:4].strip(b"\0") == b"*"
    assert big[2:4].strip(b"\0") == b"+"
    np.testing.assert_array_equal(read(big), pixels)
    one, other = load(small), load(big)
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert one.metadata == other.metadata
    assert ifd.parse(other.metadata.exif or b"")[1][34665] == ifd.parse(exif)[1][34665]
    if order == "<":  # Pillow knows no BigTIFF of the other order, whoever wrote it
        with Pil.open(io.BytesIO(big)) as found:
            np.testing.assert_array_equal(np.asarray(found), pixels)


def test_past_4_gib_offsets_have_64_bits(tmp_path: Path) -> None:
    """A sparse file: its zeros take no room on the disk."""
    width, height = 40_000, 40_000
    header = Header(width, height, 3, "uint8")
    segments = tiff_segments.Segments(header, 0, "<")
    assert segments.needs_64_bits
    assert not tiff_segments.Segments(Header(width, 30_000, 3, "uint8"), 0, "<").needs_64_bits
    band = np.zeros((2000, width, 3), np.uint8)
    band[:, 5] = 7

    def fill(target: Any) -> None:
        writer = rows.create("tiff", target, header)
        for _ in range(height // len(band)):
            writer.write(band)
        writer.close()

    local.write_whole(local.resolve(tmp_path / "big.tif"), fill)
    with local.open(tmp_path / "big.tif") as file:
        assert len(file) < 1 << 28
        reader = rows.open(file, width * height)
        assert (reader.header.width, reader.header.height) == (width, height)
        np.testing.assert_array_equal(reader.rows(height - 3, height), band[:3])
