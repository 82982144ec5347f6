"""Metadata of images: what survives, what crosses formats, and what is told as lost."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image as Pil
from PIL import PngImagePlugin

from cudafilter.formats import ifd
from cudafilter.formats.metadata import Metadata, Resolution
from cudafilter.images import Image, load, lost_metadata
from image_files import (
    EXIF,
    ICC,
    XMP,
    chunk,
    encode,
    from_opencv,
    pil_bytes,
    random_pixels,
    raw_png,
)


@pytest.mark.parametrize("format", ["png", "webp", "tiff"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_icc_exif_and_xmp_survive(format: str, dtype: str) -> None:
    if (format, dtype) == ("webp", "uint16"):
        pytest.skip("WebP holds 8 bits")
    image = Image(random_pixels(dtype, 3), False, Metadata(icc=ICC, exif=EXIF, xmp=XMP))
    assert lost_metadata(image, format) == ()
    data = encode(image, format)
    back = load(data).metadata
    assert (back.icc, back.xmp) == (ICC, XMP)
    if format != "tiff":  # there the EXIF lies among the picture's own tags
        assert back.exif == EXIF
    with Pil.open(io.BytesIO(data)) as seen:
        exif = seen.getexif()
        assert seen.info["icc_profile"] == ICC
        assert (exif[274], exif.get_ifd(34665)[36864]) == (6, b"0232")
    np.testing.assert_array_equal(load(data).pixels, image.pixels)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_keeps_its_segments_and_its_quality(mode: str, progressive: bool) -> None:
    picture = Pil.effect_noise((96, 80), 90).convert(mode)
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x04\x1c\x02\x00\x00"
    segment = b"\xff\xed" + struct.pack(">H", 2 + len(iptc)) + iptc
    source = pil_bytes(
        picture, "JPEG", quality=71, subsampling=2, progressive=progressive, icc_profile=ICC * 40,
        exif=b"Exif\0\0" + EXIF, xmp=XMP, comment="Grüße".encode(), dpi=(240, 200), extra=segment,
    )  # fmt: skip
    image = load(source)
    assert lost_metadata(image, "jpeg") == ()
    written = encode(image, "jpeg")
    again = load(written)
    assert replace(again.metadata, jpeg_coding=None) == replace(image.metadata, jpeg_coding=None)
    assert (again.metadata.exif, again.metadata.xmp, again.metadata.icc) == (EXIF, XMP, ICC * 40)
    with Pil.open(io.BytesIO(source)) as a, Pil.open(io.BytesIO(written)) as b:
        assert a.mode == b.mode == mode
        assert a.quantization == b.quantization  # type: ignore[attr-defined]
        assert bool(b.info.get("progressive")) == progressive
        assert b.info["comment"] == "Grüße".encode()
        if mode != "CMYK":
            assert b.info["dpi"] == (240, 200)
        if mode == "RGB":
            assert again.metadata.jpeg_coding == image.metadata.jpeg_coding
        difference = np.abs(np.asarray(a).astype(int) - np.asarray(b))
        assert difference.mean() < 3
    assert from_opencv(written).shape[:2] == (80, 96)
    assert len(encode(image, "jpeg", quality=20)) < len(written)


def test_damaged_metadata_does_not_cost_the_picture() -> None:
    damaged = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
        for marker, body in ((0xE1, b"Exif\0\0II*\0\xff"), (0xED, b"Photoshop 3.0\x008BIM.."))
    )
    image = load(pil_bytes(Pil.new("RGB", (8, 8)), "JPEG", extra=damaged))
    assert damaged in encode(image, "jpeg")


def test_png_chunks_survive_byte_for_byte() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "Åsa")
    text.add_text("Comment", "long " * 500, zip=True)
    text.add_itxt("Title", "写真", lang="ja", tkey="題名")
    text.add_itxt("Description", "Ω" * 900, lang="el", tkey="π", zip=True)
    source = pil_bytes(
        Pil.fromarray(random_pixels("uint8", 3)), "PNG", pnginfo=text, icc_profile=ICC
    )
    colour = (
        chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"sRGB", b"\0")
        + chunk(b"cHRM", struct.pack(">8I", *range(30000, 30008)))
        + chunk(b"pHYs", struct.pack(">IIB", 2835, 3333, 1))
    )  # fmt: skip
    source = source[:33] + colour + source[33:]
    written = encode(load(source), "png")
    for kind in (b"gAMA", b"sRGB", b"cHRM", b"pHYs", b"tEXt", b"zTXt", b"iTXt"):
        at = source.index(kind)
        whole = source[at - 4 : at + 8 + int.from_bytes(source[at - 4 : at], "big")]
        assert whole in written, kind
    with Pil.open(io.BytesIO(source)) as a, Pil.open(io.BytesIO(written)) as b:
        a.load()
        assert a.info == b.info
        assert [getattr(v, "lang", None) for v in a.text.values()] == [  # type: ignore[attr-defined]
            getattr(v, "lang", None) for v in b.text.values()  # type: ignore[attr-defined]
        ]  # fmt: skip
    lost = lost_metadata(load(source), "jpeg")
    assert lost == ("PNG text (Author, Comment, Title, Description)",)


def test_text_behind_the_pixels_and_16_bit_profiles_survive() -> None:
    late = raw_png(random_pixels("uint16", 4), chunk(b"eXIf", EXIF))[:-12]
    late += chunk(b"tEXt", b"Late\0yes") + chunk(b"IEND", b"")
    with Pil.open(io.BytesIO(encode(load(late), "png"))) as image:
        image.load()
        assert image.info["Late"] == "yes"
        assert image.getexif()[274] == 6


@pytest.mark.parametrize("ppm", [1, 2834, 2835, 11811, 3937, 65535])
def test_dots_per_metre_come_back_the_same(ppm: int) -> None:
    source = raw_png(random_pixels("uint8", 3), chunk(b"pHYs", struct.pack(">IIB", ppm, ppm, 1)))
    image = load(source)
    for format in ("png", "bmp", "tiff"):
        again = load(encode(image, format)).metadata.resolution
        assert again is not None
        assert again.per("metre") == (Fraction(ppm), Fraction(ppm)), format


@pytest.mark.parametrize("target", ["png", "tiff", "bmp", "jpeg"])
@pytest.mark.parametrize("source", ["png", "tiff", "bmp", "jpeg"])
def test_dpi_crosses_formats(source: str, target: str) -> None:
    data = pil_bytes(Pil.new("RGB", (3, 3)), source, dpi=(300, 300))
    with Pil.open(io.BytesIO(encode(load(data), target))) as image:
        assert [round(float(value)) for value in image.info["dpi"]] == [300, 300]


def test_tiff_tags_keep_bytes_types_and_exact_rationals() -> None:
    private = {33723: ifd.Entry(7, 5, b"\x1c\x02\x00\x00\x01")}
    image = Image(
        random_pixels("uint16", 3), False,
        Metadata(exif=EXIF, xmp=XMP, icc=ICC, tiff_tags=ifd.blob(private, ">")),
    )  # fmt: skip
    once = load(encode(image, "tiff"))
    twice = load(encode(once, "tiff"))
    assert once.metadata == twice.metadata
    assert once.metadata.resolution == Resolution(Fraction(300), Fraction(300), "inch")
    _, before, _ = ifd.parse(EXIF)
    _, after, _ = ifd.parse(once.metadata.exif or b"")
    resolution = {282, 283}
    assert {k: v for k, v in after.items() if k not in resolution} == {
        k: v for k, v in before.items() if k not in resolution
    }
    assert lost_metadata(once, "png") == ("TIFF tags 33723",)


def test_lost_metadata_is_named() -> None:
    image = Image(random_pixels("uint8", 3), False, Metadata(icc=ICC, exif=EXIF, xmp=XMP))
    assert lost_metadata(image, "bmp") == (
        "ICC profile", "EXIF with its orientation (it will show unturned)", "XMP",
    )  # fmt: skip
    long = replace(image, metadata=Metadata(exif=EXIF + bytes(70000), xmp=bytes(70000)))
    assert lost_metadata(long, "jpeg") == ("EXIF (too long for JPEG)", "XMP (too long for JPEG)")
    assert load(encode(long, "jpeg")).metadata.exif is None
    assert lost_metadata(long, "png") == ()
    broken = replace(image, metadata=Metadata(exif=b"II*\0\xff\xff\0\0"))
    assert lost_metadata(broken, "tiff") == ("EXIF (damaged)",)
    gray = replace(image, metadata=Metadata(icc=ICC[:16] + b"GRAY" + ICC[20:]))
    assert "gray" in lost_metadata(gray, "webp")[0]
    comments = replace(image, metadata=Metadata(comments=(b"hello",)))
    assert lost_metadata(comments, "png") == ("comment",)


def test_ifd_values_begin_at_even_offsets() -> None:
    entries = {tag: ifd.Entry(7, 5, b"12345") for tag in (270, 305, 306)}
    written = ifd.blob(entries, "<")
    offsets = [struct.unpack_from("<I", written, 10 + 12 * i + 8)[0] for i in range(3)]
    assert all(offset % 2 == 0 for offset in offsets)
    assert ifd.parse(ifd.blob(entries, "<"))[1] == entries
