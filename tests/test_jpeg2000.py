"""JPEG 2000: bits, channels and boxes are kept or named; a missing tile is refused."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import imagecodecs
import numpy as np
import pytest
from PIL import Image as Pil

from cudafilter.errors import ImageError
from cudafilter.formats.bmff import box
from cudafilter.formats.metadata import Metadata, Resolution
from cudafilter.images import Image, load, lost_metadata
from cudafilter.operations.pixels import Pixels
from image_files import ICC, encode, pil_bytes, random_pixels


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        load(data, "pic")
    return str(caught.value)


def codestream(samples: Pixels, bits: int | None = None) -> bytes:
    ways = {"level": 0, "reversible": True, "codecformat": "j2k", "bitspersample": bits}
    return bytes(imagecodecs.jpeg2k_encode(samples, **ways))  # type: ignore[arg-type]


def jp2(stream: bytes, *head: bytes, shape: tuple[int, int, int], after: bytes = b"") -> bytes:
    """A file of *stream* with the boxes *head* after the image header."""
    start = b"\0\0\0\x0cjP  \r\n\x87\n" + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    size = box(b"ihdr", struct.pack(">IIHBBBB", *shape, 7, 7, 0, 0))
    return start + box(b"jp2h", size, *head) + box(b"jp2c", stream) + after


def colour(space: int) -> bytes:
    return box(b"colr", struct.pack(">BBBI", 1, 0, 0, space))


def definitions(*entries: tuple[int, int, int]) -> bytes:
    body = b"".join(struct.pack(">HHH", *entry) for entry in entries)
    return box(b"cdef", struct.pack(">H", len(entries)), body)


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("format", ["jp2", "j2k"])
def test_few_bits_fill_the_range_and_come_back(format: str, bits: int) -> None:
    top = (1 << bits) - 1
    samples = random_pixels("uint16", 3) & np.uint16(top)
    samples[0, 0], samples[0, 1] = 0, top
    stored = samples.astype(np.uint8 if bits <= 8 else np.uint16)
    stream = codestream(stored, bits)
    source = stream
    if format == "jp2":
        source = jp2(stream, colour(16), shape=(13, 17, 3))
    image = load(source)
    full = 255 if bits <= 8 else 65535
    np.testing.assert_array_equal(image.pixels, np.rint(samples * (full / top)))
    assert image.notes == (
        () if bits in (8, 16) else (f"{bits}-bit samples scaled to {16 if bits > 8 else 8} bits",)
    )
    again = encode(image, format)
    np.testing.assert_array_equal(load(again).pixels, image.pixels)
    if bits > 8:
        found = imagecodecs.jpeg2k_decode(again)
        np.testing.assert_array_equal(found, samples)  # to the bit, in as many bits
    assert load(encode(image, "png")).metadata.bits is None


def test_a_channel_goes_where_its_definition_says() -> None:
    pixels = random_pixels("uint8", 4)
    stream = codestream(np.ascontiguousarray(pixels[..., [3, 2, 1, 0]]))
    kinds = definitions((0, 1, 0), (1, 0, 3), (2, 0, 2), (3, 0, 1))
    image = load(jp2(stream, colour(16), kinds, shape=(13, 17, 4)))
    assert image.alpha
    np.testing.assert_array_equal(image.pixels, pixels)
    bare = load(jp2(codestream(pixels), colour(16), shape=(13, 17, 4)))
    assert bare.alpha
    wrong = definitions((0, 0, 1), (1, 0, 1), (2, 0, 2), (3, 1, 0))
    assert "told twice" in reason(jp2(stream, colour(16), wrong, shape=(13, 17, 4)))
    neither = definitions((0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 65535, 65535))
    assert "neither colour nor alpha" in reason(jp2(stream, colour(16), neither, shape=(13, 17, 4)))


def test_premultiplied_alpha_is_made_straight() -> None:
    pixels = np.array([[[50, 128], [0, 0], [200, 255]]], np.uint8)
    kinds = definitions((0, 0, 1), (1, 2, 0))
    image = load(jp2(codestream(pixels), colour(17), kinds, shape=(1, 3, 2)))
    assert image.pixels.tolist() == [[[100, 128], [0, 0], [200, 255]]]
    assert image.notes == ("premultiplied alpha stored as straight",)


def test_a_palette_is_expanded_and_a_pixel_past_it_refused() -> None:
    index = random_pixels("uint8", 1) % 3
    table = np.array([[1, 2, 3], [7, 200, 9], [255, 0, 4]], np.uint8)
    head = [
        colour(16),
        box(b"pclr", struct.pack(">HB3B", 3, 3, 7, 7, 7), table.tobytes()),
        box(b"cmap", *(struct.pack(">HBB", 0, 1, n) for n in range(3))),
    ]
    image = load(jp2(codestream(index), *head, shape=(13, 17, 1)))
    np.testing.assert_array_equal(image.pixels, table[index[..., 0]])
    assert image.notes == ("palette expanded",)
    assert "past the 3 colours" in reason(jp2(codestream(index + 1), *head, shape=(13, 17, 1)))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (colour(12), "CMYK cannot be filtered"),
        (colour(18), "YCbCr colour cannot be filtered"),
        (colour(99), "colour space 99 cannot be filtered"),
        (b"", "names no colour space"),
        (box(b"colr", b"\2\0\0", ICC[:16] + b"Lab " + ICC[20:]), "profile for Lab cannot"),
        (colour(17), "3 channels do not fit its colours"),
    ],
)
def test_other_colours_are_refused_by_name(head: bytes, words: str) -> None:
    assert words in reason(jp2(codestream(random_pixels("uint8", 3)), head, shape=(13, 17, 3)))


def test_boxes_are_kept_and_unknown_ones_named() -> None:
    pixels = random_pixels("uint8", 3)
    geo, xml = b"GeoJP2 of sixtee" + b"its tags", b"<gml/>"
    kept = box(b"uuid", geo) + box(b"xml ", xml)
    data = jp2(codestream(pixels), colour(16), shape=(13, 17, 3), after=kept + box(b"abcd"))
    image = load(data)
    assert image.metadata.jp2_boxes == ((b"uuid", geo), (b"xml ", xml))
    assert image.notes == ("not kept, for they are not known or there twice: JP2 abcd",)
    assert kept in encode(image, "jp2")
    assert lost_metadata(image, "png") == ("JP2 uuid, xml",)
    odd = Image(pixels, False, Metadata(icc=ICC[:16] + b"GRAY" + ICC[20:]))
    assert lost_metadata(odd, "jp2") == ("ICC profile (it is for other colours)",)
    two = jp2(codestream(pixels), colour(16), shape=(13, 17, 3), after=box(b"jp2c", b""))
    assert "it holds 2 frames" in reason(two)


@pytest.mark.parametrize("dots", [Fraction(300), Fraction(1, 3), Fraction(123456, 7)])
def test_the_resolution_is_the_nearest_that_the_box_holds(dots: Fraction) -> None:
    image = Image(
        random_pixels("uint8", 3), False, Metadata(resolution=Resolution(dots, dots, "inch"))
    )
    found = load(encode(image, "jp2")).metadata.resolution
    assert found is not None
    assert abs(found.per("inch")[0] / dots - 1) < Fraction(1, 10**6)


@pytest.mark.parametrize("format", ["jp2", "j2k"])
def test_every_cut_and_every_missing_tile_is_refused(format: str) -> None:
    tiled = pil_bytes(
        Pil.fromarray(random_pixels("uint8", 3, 40, 50)), "JPEG2000", tile_size=(16, 16),
        no_jp2=True,
    )  # fmt: skip
    whole = load(tiled)
    np.testing.assert_array_equal(whole.pixels, random_pixels("uint8", 3, 40, 50))
    data = encode(whole, format) if format == "jp2" else tiled
    for length in range(12, len(data), 7):
        assert "cut short" in reason(data[:length]) or "damaged" in reason(data[:length])
    (first,) = struct.unpack_from(">I", tiled, tiled.index(b"\xff\x90") + 6)
    at = tiled.index(b"\xff\x90")
    assert "a tile is missing" in reason(tiled[:at] + tiled[at + first :])


def test_a_quality_is_lossy_and_without_one_nothing_is_lost() -> None:
    smooth = np.asarray(Pil.effect_mandelbrot((90, 70), (-2, -1, 1, 1), 50).convert("RGB"))
    image = Image(np.ascontiguousarray(smooth))
    for quality in (40, 75, 100):
        back = load(encode(image, "jp2", quality=quality)).pixels
        error = np.mean((back.astype(float) - smooth) ** 2)
        assert 10 * np.log10(255**2 / max(error, 1e-9)) > 24 + min(quality, 90) / 4
    with Pil.open(io.BytesIO(encode(image, "jp2"))) as seen:
        np.testing.assert_array_equal(np.asarray(seen), smooth)


def test_a_size_of_billions_is_refused_before_anything_is_decoded() -> None:
    stream = bytearray(codestream(random_pixels("uint8", 3)))
    for at in (8, 12, 24, 28):
        stream[at : at + 4] = struct.pack(">I", 1 << 20)
    assert "pixels, more than" in reason(bytes(stream))
    stream[24:32] = struct.pack(">II", 1, 1)  # the size of a tile
    assert "tiles, more than JPEG 2000 holds" in reason(bytes(stream))
