"""A JPEG is written as it was coded, with all that it holds; what is not kept is named."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image as Pil
from PIL import ImageCms

from cudafilter.formats import jpeg, jpeg_head
from cudafilter.formats.jpeg_head import SOI, Segment, segments_of, written
from cudafilter.formats.metadata import JpegCoding
from cudafilter.images import encode, load, lost_metadata, to_gray
from cudafilter.operations.pixels import Pixels

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def scene(channels: int = 3) -> Pixels:
    """Something smooth, of few details that coding loses."""
    y, x, c = np.mgrid[:96, :128, :channels]
    return np.asarray(128 + 60 * np.sin(x / 20 + c) + 50 * np.cos(y / 15 - c), np.uint8)


def by_pillow(pixels: Pixels, mode: str | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    Pil.fromarray(pixels, mode).save(file, "JPEG", **options)
    return file.getvalue()


def sampled(name: str, quality: int, progressive: bool = False) -> bytes:
    """A JPEG by OpenCV with the chroma sampling *name*."""
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}")
    ways = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor, cv2.IMWRITE_JPEG_QUALITY, quality]
    ways += [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    return bytes(cv2.imencode(".jpg", scene(), ways)[1])


def with_own_tables(data: bytes) -> bytes:
    """*data* with coarser tables, which no standard quality has."""
    segments, rest = segments_of(data)
    changed = [
        (marker, b"".join(
            body[at : at + 1] + bytes(min(255, value + 3) for value in body[at + 1 : at + 65])
            for at in range(0, len(body), 65)
        ) if marker == 0xDB else body)
        for marker, body in segments
    ]  # fmt: skip
    return SOI + written(changed) + rest


def with_segments(data: bytes, *added: Segment) -> bytes:
    """*data* with segments behind its first one."""
    segments, rest = segments_of(data)
    return SOI + written([segments[0], *added, *segments[1:]]) + rest


def coding(data: bytes) -> JpegCoding:
    found = load(data).metadata.jpeg_coding
    assert found is not None
    return found


def again(data: bytes, **options: Any) -> bytes:
    """*data* read and written."""
    return bytes(encode(load(data), "jpeg", **options))


@pytest.mark.parametrize("name", [sampling.name for sampling in jpeg_head.SAMPLINGS.values()])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [None, 60])
def test_each_chroma_sampling_is_kept(name: str, progressive: bool, quality: int | None) -> None:
    source = sampled(name, 80, progressive)
    result = again(source, quality=quality)
    factors = [jpeg_head.frame_of(segments_of(data)[0]) for data in (source, result)]
    assert factors[0] == factors[1]
    assert (coding(result) == coding(source)) == (quality is None)
    assert load(source).notes == ()
    off = np.abs(load(result).pixels.astype(int) - load(source).pixels)
    assert off.mean() < (0.3 if quality is None else 2)


@pytest.mark.parametrize("name", ["440", "411"])
def test_a_sampling_that_no_encoder_has_beside_its_tables_is_named(name: str) -> None:
    source = with_own_tables(sampled(name, 80))
    (note,) = load(source).notes
    assert f"sampling {':'.join(name)} is not kept" in note
    result = again(source)
    assert coding(result).tables == coding(source).tables
    assert coding(result).sampling == (1, 1)
    assert coding(again(source, quality=60)).sampling == coding(source).sampling


@pytest.mark.parametrize("factors", [(0x21, 0x21, 0x21), (0x12, 0x12, 0x12)])
def test_factors_that_say_no_subsampling_in_another_way_are_read(factors: tuple[int, ...]) -> None:
    # One unit of the same number of blocks, all flat, whatever the factors.
    data = by_pillow(np.full((16, 16, 3), 128, np.uint8), subsampling=0)
    segments, rest = segments_of(data)
    frame = bytearray(dict(segments)[0xC0])
    frame[7], frame[10], frame[13] = factors
    header = bytes(rest[: 2 + int.from_bytes(rest[2:4], "big")])
    bits = ("001010" * 2 + "0000" * 4) * 2
    coded = int(bits, 2).to_bytes(len(bits) // 8)
    changed = [(m, bytes(frame) if m == 0xC0 else body) for m, body in segments]
    image = load(SOI + written(changed) + header + coded + b"\xff\xd9")
    assert (image.pixels == 128).all()
    assert image.notes == ()
    assert coding(encode(image, "jpeg")).sampling == (1, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", ["444", "420"])
def test_cmyk_that_was_coded_as_luma_and_chroma_stays_so(own: bool, name: str) -> None:
    """Photoshop's: luma and black have the first table, chroma the second."""
    source = simplejpeg.encode_jpeg(scene(4), 92, "CMYK", name)
    source = with_own_tables(source) if own else source
    image = load(source)
    luma, chroma, other, black = coding(source).tables
    assert luma == black != chroma == other
    result = again(source)
    assert coding(result).tables == coding(source).tables
    assert coding(result).transformed
    with Pil.open(io.BytesIO(result)) as seen:
        np.testing.assert_array_equal(np.asarray(seen), load(result).pixels)
    assert np.abs(load(result).pixels.astype(int) - image.pixels).mean() < 1.5
    assert len(image.notes) == (name != "444")
    finer, coarser = (again(source, quality=quality) for quality in (98, 30))
    assert len(coarser) < len(result) < len(finer)
    assert coding(coarser).transformed


def test_cmyk_keeps_the_table_of_each_ink() -> None:
    tables = [[2 + i // 3 + 5 * ink for i in range(64)] for ink in range(4)]
    for used in (tables[:1], tables[:2], tables):
        source = by_pillow(scene(4), "CMYK", qtables=used)
        assert coding(again(source)) == coding(source)
        assert not coding(source).transformed


@pytest.mark.parametrize("progressive", [False, True])
def test_colour_that_was_coded_as_red_green_and_blue_stays_so(progressive: bool) -> None:
    source = by_pillow(scene(), quality=85, keep_rgb=True, progressive=progressive)
    assert not coding(source).transformed
    result = again(source)
    assert coding(result) == coding(source)
    with Pil.open(io.BytesIO(result)) as seen:
        np.testing.assert_array_equal(np.asarray(seen), load(result).pixels)
    assert np.abs(load(result).pixels.astype(int) - load(source).pixels).mean() < 0.2
    gray = encode(to_gray(load(source)), "jpeg")
    assert load(bytes(gray)).pixels.shape[2] == 1


def test_a_table_is_its_channels_whatever_its_number() -> None:
    source = with_own_tables(by_pillow(scene(), quality=60, subsampling=0))
    swapped = {0: 1, 1: 0}
    segments, rest = segments_of(source)
    changed = []
    for marker, body in segments:
        if marker == 0xDB:
            body = (
                bytes([swapped[body[0]]])
                + body[1:65]
                + (bytes([swapped[body[65]]]) + body[66:] if len(body) > 65 else b"")
            )
        if marker == 0xC0:
            body = bytes(
                swapped[value] if at in (8, 11, 14) else value for at, value in enumerate(body)
            )
        changed.append((marker, body))
    other = SOI + written(changed) + rest
    assert coding(other) == coding(source)
    np.testing.assert_array_equal(load(other).pixels, load(source).pixels)
    assert coding(again(other)) == coding(source)


THUMBNAIL = bytes([2, 1]) + bytes(range(6))
KEPT = {
    "JFIF thumbnail": (0xE0, b"JFXX\0\x13" + THUMBNAIL),
    "JPEG segment APP0": (0xE0, b"AVI1\0" + bytes(9)),
    "extended XMP": (0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"g" * 40 + b"<more/>"),
    "JPEG segment APP14": (0xEE, b"not that of colours"),
    "JPEG segment APP1": (0xE1, b"somebody's own"),
}


@pytest.mark.parametrize("name", KEPT)
def test_segments_are_kept_as_they_are_or_named(name: str) -> None:
    image = load(with_segments(by_pillow(scene()), KEPT[name]))
    result = encode(image, "jpeg")
    assert KEPT[name] in segments_of(result)[0]
    assert lost_metadata(image, "jpeg") == ()
    assert lost_metadata(image, "png") == (name,)
    if name.startswith("JFIF"):
        assert segments_of(result)[0][1] == KEPT[name], "its place is behind JFIF"
    np.testing.assert_array_equal(load(bytes(result)).metadata.jpeg_segments, (KEPT[name],))


def test_the_thumbnail_in_jfif_is_kept_with_the_resolution_or_named() -> None:
    segments, rest = segments_of(by_pillow(scene(), dpi=(300, 300)))
    source = SOI + written([(0xE0, segments[0][1][:12] + THUMBNAIL), *segments[1:]]) + rest
    image = load(source)
    result = encode(image, "jpeg")
    assert segments_of(result)[0][0][1][7:] == b"\1\1\x2c\1\x2c" + THUMBNAIL
    assert lost_metadata(image, "png") == ("JFIF thumbnail",)
    assert load(bytes(result)).metadata.resolution == image.metadata.resolution


def parts(*numbers: tuple[int, int]) -> list[Segment]:
    """Parts of a profile by their numbers and counts."""
    return [(0xE2, b"ICC_PROFILE\0" + bytes(number) + ICC[:100]) for number in numbers]


@pytest.mark.parametrize(
    "numbers", [[(1, 2)], [(2, 2)], [(1, 1), (1, 1)], [(1, 2), (1, 2)], [(0, 1)], [(1, 3), (3, 3)],
                [(1, 1)] * 50, [(1, 1)] * 300],
)  # fmt: skip
def test_a_profile_that_is_not_whole_is_named(numbers: list[tuple[int, int]]) -> None:
    image = load(with_segments(by_pillow(scene()), *parts(*numbers)))
    assert image.metadata.icc is None
    assert image.notes == ("the colour profile is not kept, for parts of it are missing",)


def test_a_whole_profile_in_parts_is_kept_in_any_order() -> None:
    image = load(with_segments(by_pillow(scene()), *parts((3, 3), (1, 3), (2, 3))))
    assert image.metadata.icc == ICC[:100] * 3
    assert image.notes == ()


def test_the_quality_of_gray_is_told_by_its_own_table() -> None:
    source = by_pillow(scene()[..., 0], quality=83)
    assert jpeg.standard_quality(coding(source).tables) == 83
    assert coding(again(source)) == coding(source)
