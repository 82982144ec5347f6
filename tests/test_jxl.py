"""JPEG XL: samples, profile, colours and turn are kept or named."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image as Pil

from codec_aids import photo
from cudafilter.errors import ImageError
from cudafilter.formats import ifd, jxl_head, jxl_icc
from cudafilter.formats.bmff import box, boxes
from cudafilter.formats.jxl_head import Bits
from cudafilter.formats.metadata import Metadata
from cudafilter.images import Image, load, lost_metadata
from image_files import EXIF, ICC, XMP, encode, make_exif, pil_bytes, random_pixels

START = b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"ftyp", b"jxl \0\0\0\0jxl ")


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        load(data, "pic")
    return str(caught.value)


def by_libjxl(samples: Any, **ways: Any) -> bytes:
    ways = {"lossless": True, "effort": 3, "usecontainer": False, **ways}
    return bytes(imagecodecs.jpegxl_encode(samples, **ways))


def stream_of(data: bytes) -> bytes:
    """The codestream of a file."""
    if data.startswith(jxl_head.START):
        return data
    return b"".join(data[a:b] for kind, a, b in boxes(data) if kind == b"jxlc")


def with_head(data: bytes, icc: bytes | None = None, **changes: Any) -> bytes:
    """The codestream of *data* with another header, and a profile."""
    stream = stream_of(data)
    head = jxl_head.head_of(stream)
    frames = stream[-(-head.end // 8) :]
    head = replace(head, profiled=icc is not None, **changes)
    pieces = jxl_head.written(head) + (jxl_icc.written(icc) if icc else [])
    return jxl_head.joined(pieces) + frames


def wide(
    curve: int = 1024, gray: bool = False, more: bytes = b"", tags: tuple[bytes, ...] = ()
) -> bytes:
    """A profile of a space that has no name, as matrix and curves."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(map(number, values))

    white = (0.9642, 1, 0.8249)
    points = np.rint(65535 * np.linspace(0, 1, curve) ** 2.2).astype(">u2").tobytes()
    bend = b"curv" + struct.pack(">II", 0, curve) + points
    text = b"Wide, 2026" + more
    name = b"desc" + struct.pack(">II", 0, len(text) + 1) + text + bytes(79)
    told = [(b"desc", name), (b"cprt", b"text\0\0\0\0none\0"), (b"wtpt", xyz(*white))]
    if gray:
        told.append((b"kTRC", bend))
    else:
        told += [(b"rXYZ", xyz(0.60974, 0.31111, 0.01947)), (b"rTRC", bend)]
        told += [(b"gXYZ", xyz(0.20528, 0.62567, 0.06087)), (b"gTRC", bend)]
        told += [(b"bXYZ", xyz(0.14919, 0.06322, 0.74457)), (b"bTRC", bend)]
    told += [(one[:4], one[4:]) for one in tags]
    table, body = struct.pack(">I", len(told)), b""
    for kind, data in told:
        table += kind + struct.pack(">II", 132 + 12 * len(told) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI", 132 + 12 * len(told) + len(body), b"lcms", 0x02100000)
    head += b"mntr" + (b"GRAY" if gray else b"RGB ") + b"XYZ " + bytes(12) + b"acspAPPL" + bytes(24)
    return head + xyz(*white)[8:] + bytes(48) + table + body


WORDS = b"dmndmluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, 602, 28)
WORDS += "Wörter ".encode("utf-16-be") * 43
PLACE = b"chadsf32" + struct.pack(">10i", 0, *(65536 * (n % 4 == 0) for n in range(9)))
PROFILES = {
    "curves": wide(),
    "long curves": wide(4096),
    "short": wide(2),
    "text": wide(64, more=b" hello, world" * 60),
    "gray": wide(256, gray=True),
    "words": wide(3, tags=(WORDS, PLACE, b"lumiXYZ " + bytes(16))),
}


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_that_libjxl_wrote_are_read(name: str) -> None:
    icc = PROFILES[name]
    picture = Pil.fromarray(photo(60, 70)).convert("L" if name == "gray" else "RGB")
    jpeg = pil_bytes(picture, "JPEG", icc_profile=icc)
    image = load(bytes(imagecodecs.jpegxl_encode_jpeg(jpeg)))
    assert image.metadata.icc == icc
    assert image.notes == ()
    assert np.abs(image.pixels.astype(int) - load(jpeg).pixels).mean() < 1


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_profiles_that_are_written_come_back_and_libjxl_takes_them(name: str, dtype: str) -> None:
    pixels = random_pixels(dtype, 1 if name == "gray" else 3)
    data = encode(Image(pixels, False, Metadata(icc=PROFILES[name])), "jxl")
    back = load(data)
    assert back.metadata == Metadata(icc=PROFILES[name])
    np.testing.assert_array_equal(back.pixels, pixels)
    np.testing.assert_array_equal(imagecodecs.jpegxl_decode(data, 0), pixels.squeeze())


@pytest.mark.parametrize("bits", range(1, 17))
def test_few_bits_fill_the_range_and_come_back(bits: int) -> None:
    samples = random_pixels("uint16", 3) & np.uint16((1 << bits) - 1)
    samples[0, 0], samples[0, 1] = 0, (1 << bits) - 1
    stored = samples.astype(np.uint8 if bits <= 8 else np.uint16)
    image = load(by_libjxl(stored, bitspersample=bits))
    full = 255 if bits <= 8 else 65535
    np.testing.assert_array_equal(image.pixels, np.rint(samples * (full / ((1 << bits) - 1))))
    again = encode(image, "jxl")
    np.testing.assert_array_equal(load(again).pixels, image.pixels)
    if bits > 8:
        np.testing.assert_array_equal(imagecodecs.jpegxl_decode(again, 0), samples)


def test_floats_of_any_value_come_back_and_half_floats_are_widened() -> None:
    odd = np.array([[np.nan, np.inf, -np.inf, -0.0, 1e38, -5, 1e-40, 2**-149]], np.float32)
    image = Image(odd[..., None])
    if imagecodecs.jpegxl_version().startswith("libjxl 0.12"):
        with pytest.raises(ImageError, match="does not encode these values"):
            encode(image, "jxl")
    else:
        assert load(encode(image, "jxl")).pixels.tobytes() == odd.tobytes()
    half = random_pixels("float32", 3).astype(np.float16)
    back = load(by_libjxl(half))
    np.testing.assert_array_equal(back.pixels, half.astype(np.float32))
    assert back.notes == ("16-bit floats stored as 32-bit",)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_libjxl_turns_it_as_exif_says(orientation: int) -> None:
    pixels = random_pixels("uint8", 3)
    data = encode(Image(pixels, False, Metadata(exif=make_exif(orientation))), "jxl")
    shown = pixels
    if orientation in (3, 4, 7, 8):
        shown = shown[::-1]
    if orientation in (2, 3, 6, 7):
        shown = shown[:, ::-1]
    if orientation > 4:
        shown = np.swapaxes(pixels, 0, 1)
        shown = shown[:, ::-1] if orientation in (6, 7) else shown
        shown = shown[::-1] if orientation in (7, 8) else shown
    np.testing.assert_array_equal(imagecodecs.jpegxl_decode(data, 0), shown)
    np.testing.assert_array_equal(load(data).pixels, pixels)


def test_only_the_header_tells_how_it_is_turned() -> None:
    exif = box(b"Exif", bytes(4), EXIF)
    upright = START + exif + box(b"jxlc", by_libjxl(random_pixels("uint8", 3)))
    image = load(upright)
    assert ifd.orientation(image.metadata.exif) == 1
    assert image.notes == ("its EXIF orientation 6 does not count in such files: 1 does",)
    bare = load(with_head(by_libjxl(random_pixels("uint8", 3)), orientation=8))
    assert ifd.orientation(bare.metadata.exif) == 8
    assert bare.notes == ()


@pytest.mark.parametrize("cicp", [(12, 13), (9, 16), (9, 18), (1, 8), (11, 17)])
def test_colours_that_have_numbers_are_kept(cicp: tuple[int, int]) -> None:
    image = Image(random_pixels("uint16", 3), False, Metadata(cicp=cicp))
    assert load(encode(image, "jxl")).metadata.cicp == cicp
    assert lost_metadata(image, "jxl") == ()
    odd = replace(image, metadata=Metadata(cicp=(5, 13)))
    assert lost_metadata(odd, "jxl") == ("its colour space (CICP primaries 5, transfer 13)",)
    assert load(encode(odd, "jxl")).metadata.cicp is None


def test_a_float_without_a_profile_is_linear_as_everywhere() -> None:
    data = encode(Image(random_pixels("float32", 3)), "jxl")
    assert jxl_head.head_of(stream_of(data)).cicp == (1, 8)
    assert load(data).metadata == Metadata()
    srgb = Image(random_pixels("float32", 3), False, Metadata(cicp=(1, 13)))
    assert load(encode(srgb, "jxl")).metadata.cicp == (1, 13)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_quality_is_lossy_and_stays_in_the_colours_that_were_given(dtype: str) -> None:
    pixels = photo(200, 300).astype(np.float32) / 255
    if dtype != "float32":
        pixels = np.rint(pixels * np.iinfo(dtype).max).astype(dtype)
    image = Image(pixels)
    sizes = [len(encode(image, "jxl", quality=q)) for q in (20, 60, 95)]
    assert sizes == sorted(sizes)
    back = load(encode(image, "jxl", quality=95))
    assert back.metadata == Metadata()
    assert back.pixels.dtype == pixels.dtype
    scale = 1 if dtype == "float32" else np.iinfo(dtype).max
    error = np.abs(back.pixels.astype(float) - pixels).mean() / scale
    assert 0 < error < 0.01


def test_a_quality_takes_srgb_only() -> None:
    image = Image(photo(40, 50), False, Metadata(icc=ICC))
    assert load(encode(image, "jxl", quality=80)).metadata.icc is None  # it says sRGB itself
    for metadata in (Metadata(icc=wide()), Metadata(cicp=(12, 13))):
        with pytest.raises(ImageError, match="in sRGB only") as caught:
            encode(replace(image, metadata=metadata), "jxl", quality=80)
        assert "leave --quality out" in (caught.value.hint or "")


def test_lossy_colours_of_a_profile_are_read_as_srgb() -> None:
    lossy = by_libjxl(photo(40, 50), lossless=False, distance=1.0)
    image = load(with_head(lossy, wide()))
    np.testing.assert_array_equal(image.pixels, load(lossy).pixels)
    assert image.metadata.icc is None
    assert "converted to sRGB" in image.notes[0]


def test_boxes_of_all_kinds_are_read_and_others_named() -> None:
    pixels = random_pixels("uint8", 3)
    stream = by_libjxl(pixels)
    pieces = box(b"jxlp", bytes(4), stream[:99]) + box(b"jxlp", b"\x80\0\0\1", stream[99:])
    packed = box(b"brob", b"xml ", bytes(imagecodecs.brotli_encode(XMP)))
    exif = box(b"Exif", struct.pack(">I", 6), b"Exif\0\0", make_exif(1))
    image = load(START + packed + exif + box(b"jumb", b"claims") + pieces)
    np.testing.assert_array_equal(image.pixels, pixels)
    assert (image.metadata.xmp, image.metadata.exif) == (XMP, make_exif(1))
    assert image.notes == ("not kept, for they are not known or there twice: JXL jumb",)
    broken = load(START + box(b"brob", b"xml ", b"no brotli") + pieces)
    assert broken.metadata.xmp in (None, b"")


@pytest.mark.parametrize(
    ("samples", "ways", "words"),
    [
        (np.zeros((2, 9, 9, 3), np.uint8), {}, "frames of an animation"),
        (np.zeros((3, 9, 9), np.uint8), {"planar": True, "photometric": 1}, "neither colour nor"),
    ],
)
def test_what_cannot_be_kept_is_refused(samples: Any, ways: dict[str, Any], words: str) -> None:
    assert words in reason(by_libjxl(samples, **ways))


def test_premultiplied_alpha_is_made_straight() -> None:
    pixels = np.array([[[50, 128], [0, 0], [200, 255]]], np.uint8)
    stream = by_libjxl(pixels)
    head = jxl_head.head_of(stream)
    # the channel beside the colours: alpha of 8 bits that is multiplied in
    told = [(0, 1), (0, 2), (1, 1), (1, 2), (0, 1), (0, 2), (0, 1), (0, 2), (0, 2), (0, 2), (1, 1)]
    value = shift = 0
    for number, count in [*told, (0, 1)]:
        value, shift = value | number << shift, shift + count
    changed = with_head(stream, samples=(value, shift))
    assert head.extra == ((0, False),)
    image = load(changed)
    assert image.pixels.tolist() == [[[100, 128], [0, 0], [200, 255]]]
    assert image.notes == ("premultiplied alpha stored as straight",)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_cut_is_refused(dtype: str) -> None:
    data = encode(Image(random_pixels(dtype, 4), True, Metadata(wide(8), EXIF, XMP)), "jxl")
    for length in range(12, len(data) - 1, max(1, len(data) // 300)):
        assert "cut short" in reason(data[:length]) or "damaged" in reason(data[:length])


def test_a_size_of_billions_is_refused_before_anything_is_decoded() -> None:
    huge = jxl_head.joined([(0x0AFF, 16), (0, 1), (3, 2), (1 << 29, 30), (1, 3), (3, 2)])
    assert "pixels, more than" in reason(huge + bytes(50))
    assert "profile has 1,0" in reason(
        with_head(by_libjxl(random_pixels("uint8", 3)), bytes(1 << 20))
    )
    assert Bits(b"\x7f").take(7) == 127
    with pytest.raises(ImageError, match="header has no end"):
        Bits(b"\x7f").take(1 << 62)  # not a number of so many bits


def test_a_small_file_of_a_large_picture_is_read() -> None:
    plain = Image(np.full((3000, 4000, 3), 77, np.uint8))
    for ways in ({}, {"quality": 90}):
        back = load(encode(plain, "jxl", **ways))
        assert back.pixels.shape == plain.pixels.shape


@pytest.mark.parametrize(("ways", "usual"), [({}, 1), ({"quality": 90}, 5)])
@pytest.mark.parametrize(("dtype", "fewest"), [("float32", 7), ("float32", 10), ("uint8", 1)])
def test_where_libjxl_needs_more_effort_for_floats_it_is_taken(
    dtype: str, fewest: int, ways: dict[str, int], usual: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libjxl 0.12 fails on floats of both signs below some effort."""
    encode_really, efforts = imagecodecs.jpegxl_encode, []

    def failing(*given: Any, effort: int, **named: Any) -> Any:
        efforts.append(effort)
        if effort < fewest:
            raise imagecodecs.JpegxlError("JxlEncoderProcessOutput", -1)
        return encode_really(*given, effort=effort, **named)

    monkeypatch.setattr(imagecodecs, "jpegxl_encode", failing)
    pixels = abs(random_pixels(dtype, 3))
    back = load(encode(Image(pixels), "jxl", **ways)).pixels
    assert ways or np.array_equal(back, pixels)
    assert efforts == [usual, *(each for each in (7, 9, 10) if each <= fewest)]


def test_what_libjxl_does_not_encode_with_any_effort_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(*given: Any, **named: Any) -> None:
        raise imagecodecs.JpegxlError("JxlEncoderProcessOutput", -1)

    monkeypatch.setattr(imagecodecs, "jpegxl_encode", failing)
    with pytest.raises(ImageError, match="does not encode these values") as raised:
        encode(Image(random_pixels("float32", 3)), "jxl")
    assert raised.value.hint == "TIFF holds them"
    with pytest.raises(ImageError, match="its encoder failed"):
        encode(Image(random_pixels("uint8", 3)), "jxl")
