"""Which files are images, by their content, and which are refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil
from PIL import ImageFile

from cudafilter.errors import ImageError
from cudafilter.formats import table
from cudafilter.images import Image, load
from image_files import chunk, encode, good, pil_bytes, random_pixels


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


def frames(format: str) -> bytes:
    pictures = [Pil.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    return pil_bytes(pictures[0], format, save_all=True, append_images=pictures[1:])


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused_with_their_number(format: str) -> None:
    with pytest.raises(ImageError, match="anim: it holds 3 frames") as caught:
        load(frames(format), "anim")
    assert "--first-frame" in (caught.value.hint or "")


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
    assert table.format_of(Path("a/B.JPeG")) == "jpeg"
    assert table.format_of(Path("x.tif")) == "tiff"
    assert table.is_image_name(Path("x.PGM"))
    assert not table.is_image_name(Path("desktop.ini"))
    with pytest.raises(ImageError, match=r"x\.xyz") as caught:
        table.format_of(Path("x.xyz"))
    assert ".png" in (caught.value.hint or "")


@pytest.mark.parametrize("format", sorted(table.written()))
def test_the_first_bytes_tell_the_format(format: str) -> None:
    image = Image(random_pixels("uint8", 1 if format == "pgm" else 3))
    assert table.format_of_bytes(encode(image, format)) == format


@pytest.mark.parametrize(
    ("data", "format"),
    [(b"P1 1 1 0", "pbm"), (b"P4", "pbm"), (b"Pf", "pfm"), (b"GIF89a", "gif"), (b"II+\0", "tiff")],
)
def test_the_first_bytes_of_what_is_read_alone(data: bytes, format: str) -> None:
    assert table.format_of_bytes(data) == format


@pytest.mark.parametrize("data", [b"", b"RIFF1234WAVE", b"hello"])
def test_no_format_is_made_up(data: bytes) -> None:
    with pytest.raises(ImageError):
        table.format_of_bytes(data)
