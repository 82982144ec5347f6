"""JPEG: read and written to Pillow's bits, in one piece or in strips."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pil

from codec_aids import Patch, forbid, from_pillow, no_pillow, outside, photo
from cudafilter.formats import (
    jpeg,
    jpeg_head,
    jpeg_strips,
    table,
)
from cudafilter.formats.metadata import JpegCoding, Metadata
from cudafilter.images import Image, load
from image_files import ICC, encode, from_opencv, pil_bytes, random_pixels

__all__ = ["no_pillow"]

# JPEG, reading


SAMPLINGS = {
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "440": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "411": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}

FACTORS = ((1, 1), (2, 1), (2, 2))
"""Of Pillow's codes of subsampling: luma samples for one of chroma."""


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (50, 3), (97, 131)])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [3, 75, 100])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_jpeg_is_decoded_to_pillows_bits(
    sampling: str, quality: int, progressive: bool, size: tuple[int, int], no_pillow: None
) -> None:
    ways = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    ways += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling]]
    data = cv2.imencode(".jpg", photo()[: size[0], : size[1]], ways)[1].tobytes()
    np.testing.assert_array_equal(load(data).pixels, from_pillow(data))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "options",
    [{"optimize": True}, {"restart_marker_blocks": 3}, {"keep_rgb": True}, {"progressive": True}],
)
def test_other_jpegs_are_decoded_to_pillows_bits(
    mode: str, options: dict[str, Any], no_pillow: None
) -> None:
    data = pil_bytes(Pil.fromarray(photo()).convert(mode), "JPEG", **options)
    np.testing.assert_array_equal(load(data).pixels, from_pillow(data))


def test_arithmetic_coding_is_read_as_pillow_does(tmp_path: Path) -> None:
    source, target = tmp_path / "a.ppm", tmp_path / "a.jpg"
    source.write_bytes(encode(Image(photo()), "ppm"))
    done = outside("cjpeg", "-arithmetic", "-outfile", target, source)
    assert done.returncode == 0, done.stderr
    data = target.read_bytes()
    np.testing.assert_array_equal(load(data).pixels, from_pillow(data))


def test_the_head_is_what_pillow_says_of_the_coding() -> None:
    for subsampling in (0, 1, 2):
        for quality in (5, 50, 93):
            data = pil_bytes(
                Pil.fromarray(photo()), "JPEG", quality=quality, subsampling=subsampling
            )
            with Pil.open(io.BytesIO(data)) as image:
                tables = tuple(tuple(t) for t in image.quantization.values())  # type: ignore[attr-defined]
            segments, _ = jpeg_head.segments_of(data[:700])
            head = jpeg_head.head_of(segments, jpeg_head.frame_of(segments))
            of_channels = (tables[0], tables[1], tables[1])
            assert head.metadata.jpeg_coding == JpegCoding(of_channels, FACTORS[subsampling], False)


@pytest.mark.parametrize("missing", [False, True])
def test_a_profile_in_parts_is_put_together(missing: bool) -> None:
    profile = ICC * 300
    data = encode(Image(random_pixels("uint8", 3), False, Metadata(icc=profile)), "jpeg")
    segments, rest = jpeg_head.segments_of(data)
    parts = [segment for segment in segments if segment[0] == 0xE2]
    assert len(parts) > 2
    others = [segment for segment in segments if segment[0] != 0xE2]
    mixed = parts[1:] if missing else parts[::-1]
    image = load(b"\xff\xd8" + jpeg_head.written([*mixed, *others]) + rest)
    assert image.metadata.icc == (None if missing else profile)


# JPEG, writing


def coded(quality: int, subsampling: int, progressive: bool = False) -> Metadata:
    """The metadata of a JPEG of RGB that was coded like this."""
    luma, chroma = jpeg._standard(quality)
    coding = JpegCoding((luma, chroma, chroma), FACTORS[subsampling], progressive)
    return Metadata(jpeg_coding=coding)


@pytest.mark.parametrize("quality", [1, 30, 95, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_encoded_to_pillows_bytes(
    quality: int, subsampling: int, progressive: bool, no_pillow: None
) -> None:
    pixels = np.ascontiguousarray(photo()[:201, :303])
    written = encode(Image(pixels, False, coded(quality, subsampling, progressive)), "jpeg")
    theirs = pil_bytes(
        Pil.fromarray(pixels), "JPEG", quality=quality, subsampling=subsampling,
        progressive=progressive,
    )  # fmt: skip
    assert jpeg_head.with_head([theirs], Metadata()) == written


@pytest.mark.parametrize("quality", [1, 50, 95, 100])
def test_gray_jpeg_is_encoded_to_pillows_bytes(quality: int, no_pillow: None) -> None:
    pixels = np.ascontiguousarray(photo()[..., :1])
    written = encode(Image(pixels), "jpeg", quality=quality)
    theirs = pil_bytes(Pil.fromarray(pixels[..., 0]), "JPEG", quality=quality)
    assert jpeg_head.with_head([theirs], Metadata()) == written


def test_every_standard_quality_is_recognised() -> None:
    for quality in range(1, 101):
        luma, chroma = jpeg._standard(quality)
        assert jpeg.standard_quality((luma, chroma, chroma)) == quality
        assert jpeg.standard_quality((luma,)) == quality
        assert jpeg.standard_quality((luma, chroma)) is None
        other = (*chroma[:-1], chroma[-1] + 1)
        for tables in ((luma, other, other), (luma, chroma, other), (luma, luma, luma)):
            expected = quality if luma == chroma and tables == (luma,) * 3 else None
            assert jpeg.standard_quality(tables) == expected


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_tables_of_no_standard_quality_are_kept(mode: str, monkeypatch: Patch) -> None:
    tables = [[2 + i // 3 for i in range(64)], [3 + i // 2 for i in range(64)]]
    tables = tables[:1] if mode == "L" else tables
    source = pil_bytes(Pil.fromarray(photo()).convert(mode), "JPEG", qtables=tables)
    forbid(monkeypatch, jpeg, "_encoded")
    written = encode(load(source), "jpeg")
    with Pil.open(io.BytesIO(written)) as image:
        assert list(image.quantization.values()) == tables  # type: ignore[attr-defined]
    difference = np.abs(from_pillow(written).astype(int) - from_pillow(source))
    assert difference.mean() < 2


@pytest.mark.parametrize("quality", [None, 1, 77])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_template_is_coded_as_a_picture_is(
    quality: int | None, channels: int, subsampling: int, odd: bool, progressive: bool
) -> None:
    luma, chroma = jpeg._standard(88)
    tables = (luma[::-1] if odd else luma, chroma, chroma)
    metadata = Metadata(jpeg_coding=JpegCoding(tables, FACTORS[subsampling], progressive))
    for known in (metadata, Metadata()):
        picture = encode(
            Image(photo()[:16, :16, :channels].copy(), False, known), "jpeg", quality=quality
        )
        small = jpeg.template(channels, known, table.Ways(quality=quality))
        assert _coding(small) == _coding(picture)
        assert from_pillow(small).shape[:2] == (16, 16)


def _coding(data: bytes) -> list[jpeg_head.Segment]:
    """Frame and quantisation tables of a JPEG."""
    segments, _ = jpeg_head.segments_of(data)
    return [segment for segment in segments if segment[0] in (0xC0, 0xC2, 0xDB)]


def test_a_template_does_not_wait_for_opencv() -> None:
    code = """
import sys
from cudafilter.formats import jpeg, metadata, table
luma, chroma = jpeg._standard(88)
coding = metadata.JpegCoding((luma, chroma, chroma), (2, 2), False)
known = metadata.Metadata(jpeg_coding=coding)
assert jpeg.template(3, known, table.Ways())
print([name for name in ("cv2", "PIL", "simplejpeg") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['simplejpeg']"


@pytest.mark.parametrize("subsampling", [0, 1, 2, None])
@pytest.mark.parametrize("strip", [1, 5000, 40_000])
@pytest.mark.parametrize("size", [(600, 803), (161, 16), (17, 803), (48, 48)])
def test_strips_decode_to_the_pixels_of_one_piece(
    subsampling: int | None, strip: int, size: tuple[int, int], monkeypatch: Patch
) -> None:
    pixels = np.ascontiguousarray(photo()[: size[0], : size[1], : 1 if subsampling is None else 3])
    metadata = Metadata() if subsampling is None else coded(88, subsampling)
    whole = encode(Image(pixels, False, metadata), "jpeg")
    monkeypatch.setattr(jpeg_strips, "STRIP_PIXELS", strip)
    stripped = encode(Image(pixels, False, metadata), "jpeg")
    assert (b"\xff\xdd\x00\x04" in stripped) == (strip < pixels.shape[0] * pixels.shape[1])
    for decoded in (from_pillow, from_opencv, lambda data: load(data).pixels):
        np.testing.assert_array_equal(decoded(stripped), decoded(whole))
    # Coding loses but this.
    assert np.abs(load(stripped).pixels.astype(int) - pixels).mean() < 3


def test_a_large_jpeg_is_encoded_in_strips() -> None:
    pixels = np.ascontiguousarray(np.tile(photo(), (4, 2, 1)))
    data = encode(Image(pixels), "jpeg")
    segments, _ = jpeg_head.segments_of(data)
    assert 0xDD in dict(segments)
    assert struct.unpack(">H", dict(segments)[0xDD])[0] <= 65535
    np.testing.assert_array_equal(load(data).pixels, from_pillow(data))


def test_libjpeg_itself_finds_nothing_wrong_with_strips(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(jpeg_strips, "STRIP_PIXELS", 20_000)
    source, target = tmp_path / "a.jpg", tmp_path / "a.ppm"
    source.write_bytes(encode(Image(photo(), False, coded(90, 2)), "jpeg"))
    done = outside("djpeg", "-strict", "-outfile", target, source)
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_array_equal(load(target).pixels, load(source).pixels)


def test_strips_of_any_width_fit_a_restart_interval() -> None:
    for width in (1, 8, 1000, jpeg.MAX_SIDE):
        pixels = np.zeros((64, width, 1), np.uint8)
        assert load(encode(Image(pixels), "jpeg")).pixels.shape == pixels.shape
