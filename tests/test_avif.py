"""AVIF: bits, colours and the way a picture is turned are kept."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
from PIL import Image as Pil

from codec_aids import from_pillow, photo
from cudafilter.errors import ImageError
from cudafilter.formats import av1, heif, ifd
from cudafilter.formats.bmff import boxes
from cudafilter.formats.metadata import Metadata
from cudafilter.images import Image, load, lost_metadata
from image_files import EXIF, ICC, XMP, encode, make_exif, pil_bytes, random_pixels


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        load(data, "pic")
    return str(caught.value)


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_value_of_10_and_12_bits_fills_16_and_comes_back(bits: int, channels: int) -> None:
    top = (1 << bits) - 1
    values = np.arange(top + 1, dtype=np.uint16).reshape(-1, 64)
    samples = np.stack([np.roll(values, 7 * n, 0) for n in range(channels)], axis=2)
    data = imagecodecs.avif_encode(
        samples.squeeze(), level=100, bitspersample=bits, primaries=9, transfer=16
    )
    image = load(bytes(data))
    assert image.pixels.dtype == np.uint16
    np.testing.assert_array_equal(image.pixels, np.rint(samples * (65535 / top)))
    assert image.notes == (f"{bits}-bit samples scaled to 16 bits",)
    assert (image.metadata.bits, image.metadata.cicp) == (bits, (9, 16))
    again = encode(image, "avif")
    np.testing.assert_array_equal(imagecodecs.avif_decode(again, 0), samples.squeeze())
    assert load(again).metadata == image.metadata


def test_more_bits_than_it_holds_are_refused_with_a_choice() -> None:
    deep = Image(random_pixels("uint16", 3))
    with pytest.raises(
        ImageError, match="AVIF holds 12 bits a sample, and the picture has 16"
    ) as e:
        encode(deep, "avif")
    assert ".png" in (e.value.hint or "")
    nine = replace(deep, metadata=Metadata(bits=9))
    assert load(encode(nine, "avif")).metadata.bits == 10


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [3, 4])
def test_other_programs_see_the_same_turn(orientation: int, channels: int) -> None:
    image = Image(random_pixels("uint8", channels), channels == 4)
    image = replace(image, metadata=Metadata(exif=make_exif(orientation)))
    data = encode(image, "avif")
    for item in heif.items_of(data).items.values():  # that of alpha is turned too
        if item.kind == b"av01":
            turns = [one for one in item.properties if one.kind in (b"irot", b"imir")]
            assert bool(turns) == (orientation != 1)
    with Pil.open(io.BytesIO(data)) as seen:
        assert seen.getexif().get(274, 1) == orientation
        np.testing.assert_array_equal(np.asarray(seen), image.pixels)
    plain = Pil.fromarray(image.pixels)
    exif = Pil.Exif()
    exif[274] = orientation
    theirs = load(pil_bytes(plain, "AVIF", exif=exif.tobytes(), quality=90))
    assert ifd.orientation(theirs.metadata.exif) == orientation


def test_only_the_boxes_tell_how_it_is_turned() -> None:
    data = encode(Image(random_pixels("uint8", 3), False, Metadata(exif=EXIF)), "avif")
    at = data.index(b"irot") + 4
    changed = load(data[:at] + b"\1" + data[at + 1 :])
    assert changed.notes == ("its EXIF orientation 6 does not count in such files: 8 does",)
    assert changed.metadata.exif == make_exif(8)  # nothing else of it changes
    bare = load(encode(Image(random_pixels("uint8", 3)), "avif"))
    assert bare.metadata.exif is None


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4"])
def test_lossy_pictures_of_others_are_read_as_pillow_reads_them(
    mode: str, subsampling: str
) -> None:
    picture = Pil.fromarray(photo(91, 120)).convert(mode)
    if mode == "RGBA":
        picture.putalpha(7)
    data = pil_bytes(
        picture, "AVIF", quality=70, subsampling=subsampling, icc_profile=ICC, xmp=XMP, exif=EXIF
    )
    image = load(data)
    np.testing.assert_array_equal(image.pixels, from_pillow(data))
    assert (image.metadata.icc, image.metadata.xmp) == (ICC, XMP)
    assert image.notes == ()


def test_colours_without_a_profile_travel_to_png_and_are_named_elsewhere() -> None:
    image = Image(random_pixels("uint8", 3), False, Metadata(cicp=(12, 16)))
    data = encode(image, "avif")
    assert load(data).metadata.cicp == (12, 16)
    png = encode(load(data), "png")
    assert b"cICP\x0c\x10\x00\x01" in png
    assert load(png).metadata.cicp == (12, 16)
    assert lost_metadata(image, "tiff") == ("its colour space (CICP primaries 12, transfer 16)",)
    srgb = load(encode(Image(random_pixels("uint8", 3)), "avif"))
    assert srgb.metadata == Metadata()


def test_a_quality_is_lossy_and_a_level_makes_it_smaller() -> None:
    image = Image(photo(200, 300))
    sizes = [len(encode(image, "avif", quality=q)) for q in (20, 60, 95)]
    assert sizes == sorted(sizes)
    assert len(encode(image, "avif", quality=60, compress_level=7)) < 1.02 * sizes[1]
    error = np.abs(load(encode(image, "avif", quality=95)).pixels.astype(int) - image.pixels)
    assert 0 < error.mean() < 2
    best = encode(image, "avif", quality=100)
    assert np.abs(load(best).pixels.astype(int) - image.pixels).mean() < 1


def test_frames_and_further_pictures_are_refused_or_named() -> None:
    picture = Pil.fromarray(photo(60, 70))
    moving = pil_bytes(picture, "AVIF", save_all=True, append_images=[picture] * 2)
    assert "it holds 3 frames" in reason(moving)
    data = encode(Image(random_pixels("uint8", 4), True), "avif")
    at = data.index(b"auxl")
    other = load(data[:at] + b"thmb" + data[at + 4 :])
    assert other.notes == ("1 further pictures in it, such as thumbnails, are not kept",)
    assert not other.alpha


def test_every_cut_is_refused() -> None:
    image = Image(random_pixels("uint8", 4), True, Metadata(ICC, EXIF, XMP))
    data = encode(image, "avif")
    for length in [*range(16, 900, 3), *range(900, len(data), 50)]:
        assert "cut short" in reason(data[:length]) or "damaged" in reason(data[:length])


def test_a_picture_that_is_larger_than_its_boxes_say_is_refused_before_it_is_decoded() -> None:
    data = encode(Image(random_pixels("uint8", 3)), "avif")
    (place,) = (one for one in boxes(data) if one.kind == b"mdat")
    assert av1.size(data[place.start : place.stop]) == (17, 13)
    at = data.index(b"ispe") + 8
    for size in ((16, 13), (17, 12)):
        smaller = data[:at] + struct.pack(">II", *size) + data[at + 8 :]
        assert "another size than it says" in reason(smaller)
    huge = data[:at] + struct.pack(">II", 1 << 30, 1 << 30) + data[at + 8 :]
    assert "pixels, more than" in reason(huge)
    assert heif.items_of(data).size() == (17, 13)


def test_a_size_past_what_it_holds_is_refused() -> None:
    with pytest.raises(ImageError, match="more than AVIF holds"):
        encode(Image(np.zeros((1, 32769, 1), np.uint8)), "avif")
