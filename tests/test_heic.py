"""HEIC, by an extra: pixels as they are stored, bits, profile, EXIF and XMP are kept."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil
from PIL import ImageOps

from codec_aids import photo
from command_line import cli
from cudafilter.errors import ImageError
from cudafilter.formats import heic, ifd
from cudafilter.formats.samples import spread
from cudafilter.images import Image, encode, load
from cudafilter.operations.pixels import Pixels
from image_files import ICC, XMP, make_exif, random_pixels


@pytest.fixture
def pillow_heif() -> Any:
    return pytest.importorskip("pillow_heif", reason="the extra heic is not installed")


def made(library: Any, pixels: Pixels, orientation: int = 1, **ways: Any) -> bytes:
    """A HEIC without loss."""
    file = io.BytesIO()
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    mode = modes[pixels.shape[2]] + (";16" if pixels.dtype == np.uint16 else "")
    picture = library.from_bytes(mode, pixels.shape[1::-1], pixels.tobytes())
    picture[0].info["exif"] = b"Exif\0\0" + make_exif(orientation)
    picture[0].info["icc_profile"], picture[0].info["xmp"] = ICC, XMP
    exact = {"chroma": 444, "matrix_coefficients": 0} if pixels.shape[2] > 1 else {}
    picture.save(file, **{"quality": -1, **exact, **ways})
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_come_as_they_are_stored(channels: int, orientation: int, pillow_heif: Any) -> None:
    pixels = random_pixels("uint8", channels, 64, 80)
    image = load(made(pillow_heif, pixels, orientation))
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.alpha == (channels == 4)
    assert image.notes == ()
    assert (image.metadata.icc, image.metadata.xmp) == (ICC, XMP)
    assert ifd.orientation(image.metadata.exif) == orientation


@pytest.mark.parametrize("bits", [10, 12])
def test_bits_fill_16_and_are_those_of_an_avif_made_of_it(
    bits: int, pillow_heif: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    pixels = random_pixels("uint16", 3, 64, 80)
    image = load(made(pillow_heif, pixels))
    np.testing.assert_array_equal(image.pixels, spread(pixels >> np.uint16(16 - bits), bits))
    assert image.notes == (f"{bits}-bit samples scaled to 16 bits",)
    back = load(bytes(encode(image, "avif")))
    np.testing.assert_array_equal(back.pixels, image.pixels)
    assert back.metadata == image.metadata


def test_tiles_make_one_picture(pillow_heif: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow_heif.options, "GRID_TILE_SIZE", 256)
    pixels = photo(600, 803)
    image = load(made(pillow_heif, pixels, quality=90, chroma=420))
    assert image.pixels.shape == pixels.shape
    assert np.abs(image.pixels.astype(int) - pixels).mean() < 4


def test_every_cut_is_refused_and_it_is_not_written(pillow_heif: Any, tmp_path: Path) -> None:
    data = made(pillow_heif, random_pixels("uint8", 3, 64, 80))
    for length in range(40, len(data), 97):
        with pytest.raises(ImageError, match=r"cut short|damaged"):
            load(data[:length])
    with pytest.raises(ImageError, match="heic files are not written"):
        encode(Image(random_pixels("uint8", 3)), "heic")
    (tmp_path / "a.heic").write_bytes(data)
    ran = cli("blur", str(tmp_path / "a.heic"), str(tmp_path / "b.avif"), "--engine", "cpu")
    assert ran.exit_code == 0, ran.stderr


def test_without_the_extra_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    data = bytearray(encode(Image(random_pixels("uint8", 3)), "avif"))
    data[8:12] = b"heic"  # as far as its boxes tell
    data[16:28] = b"mif1heicmiaf"
    data = data.replace(b"av01", b"hvc1")
    with pytest.raises(ImageError, match="pillow-heif is not installed") as caught:
        load(bytes(data))
    assert caught.value.hint == "pip install 'cudafilter[heic]'"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_unturned_undoes_what_a_viewer_does(orientation: int) -> None:
    stored = random_pixels("uint8", 3)
    picture = Pil.fromarray(stored)
    picture.getexif()[274] = orientation
    shown = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(heic.unturned(shown, orientation), stored)
