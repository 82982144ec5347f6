"""GIF and WebP: each block and chunk is kept or named, and a damaged file is refused."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image as Pil

from cudafilter.errors import ImageError
from cudafilter.formats.limits import MAX_ENTRIES
from cudafilter.images import load, lost_metadata
from cudafilter.operations.pixels import Pixels

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'
MAGIC = b"\1" + bytes(range(255, -1, -1)) + b"\0"
COLOURS = bytes((9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 10, 20))
CLEAR_1 = b"\x21\xf9\4\1\0\0\1\0"


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        load(data, "pic")
    return str(caught.value)


def blocks(body: bytes) -> bytes:
    parts = [body[at : at + 255] for at in range(0, len(body), 255)]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def lzw(values: Pixels, end: bool = True) -> bytes:
    """Codes of 2-bit *values*, with a clear before each two so that codes keep 3 bits."""
    codes: list[int] = []
    for at, value in enumerate(values.reshape(-1).tolist()):
        codes += [4] * (at % 2 == 0) + [value]
    codes += [5] * end
    whole = sum(code << 3 * at for at, code in enumerate(codes))
    return b"\2" + blocks(whole.to_bytes(-(-3 * len(codes) // 8), "little"))


def picture(
    values: Pixels, left: int = 0, top: int = 0, own: bytes = b"", coded: bytes | None = None
) -> bytes:
    height, width = values.shape
    place = struct.pack("<HHHHB", left, top, width, height, 0x81 if own else 0)
    return b"," + place + own + (lzw(values) if coded is None else coded)


def gif(
    *parts: bytes, size: tuple[int, int] = (4, 3), shared: bytes = COLOURS, aspect: int = 0
) -> bytes:
    flags = 0x81 if shared else 0
    return b"GIF89a" + struct.pack("<HHBBB", *size, flags, 0, aspect) + shared + b"".join(parts)


VALUES = np.array([[0, 1, 2, 3], [3, 3, 0, 1], [1, 1, 1, 2]], np.uint8)
TABLE = np.frombuffer(COLOURS, np.uint8).reshape(4, 3)


def test_pixels_have_the_colours_of_their_own_palette_or_the_shared_one() -> None:
    np.testing.assert_array_equal(load(gif(picture(VALUES), b";")).pixels, TABLE[VALUES])
    own = gif(picture(VALUES, own=COLOURS[::-1]), b";", shared=b"")
    np.testing.assert_array_equal(load(own).pixels, TABLE[::-1, ::-1][VALUES])
    assert "no palette" in reason(gif(picture(VALUES), b";", shared=b""))
    few = gif(picture(VALUES), b";", shared=b"")
    few = few[:10] + b"\x80" + few[11:13] + COLOURS[:6] + few[13:]
    assert "past the 2 colours" in reason(few)


def test_a_transparent_colour_is_transparent_in_gray_too() -> None:
    image = load(gif(CLEAR_1, picture(VALUES), b";"))
    np.testing.assert_array_equal(image.pixels[..., 3], np.where(VALUES == 1, 0, 255))
    np.testing.assert_array_equal(image.pixels[..., :3], TABLE[VALUES])
    ramp = bytes(at // 3 for at in range(12))
    image = load(gif(CLEAR_1, picture(VALUES), b";", shared=ramp))
    np.testing.assert_array_equal(image.pixels[..., 0], VALUES)
    np.testing.assert_array_equal(image.pixels[..., 1], np.where(VALUES == 1, 0, 255))
    assert image.alpha


def test_what_a_picture_leaves_free_is_transparent() -> None:
    image = load(gif(picture(VALUES, left=2, top=1), b";", size=(8, 5)))
    assert image.pixels.shape == (5, 8, 4)
    expected = np.zeros((5, 8), np.uint8)
    expected[1:4, 2:6] = 255
    np.testing.assert_array_equal(image.pixels[..., 3], expected)
    np.testing.assert_array_equal(image.pixels[1:4, 2:6, :3], TABLE[VALUES])
    assert "made transparent" in image.notes[-1]
    past = load(gif(picture(VALUES, left=2, top=1), b";", size=(4, 3)))
    assert past.pixels.shape == (4, 6, 4)


@pytest.mark.parametrize("left", range(1, 12))
def test_codes_that_end_early_are_refused(left: int) -> None:
    values = VALUES.reshape(-1)[:-left]
    for end in (True, False)[: 1 if left < 3 else 2]:  # the last byte's padding may be a code
        data = gif(picture(VALUES, coded=lzw(values, end)), b";")
        assert reason(data) == "pic: it is damaged, or cut short"


def test_every_cut_is_refused() -> None:
    whole = gif(CLEAR_1, b"\x21\xfe\2hi\0", picture(VALUES, own=COLOURS), b";")
    assert load(whole).metadata.comments == (b"hi",)
    for length in range(6, len(whole)):
        assert "cut short" in reason(whole[:length])


def test_blocks_of_no_sense_are_refused() -> None:
    assert "block of an unknown kind" in reason(gif(b"\7", picture(VALUES), b";"))
    assert "no pixels" in reason(gif(b";"))
    assert "no pixels" in reason(gif(picture(VALUES[:, :0], coded=lzw(VALUES)), b";"))
    assert "damaged" in reason(gif(picture(VALUES, coded=b"\x0d" + lzw(VALUES)[1:]), b";"))
    many = b"\x21\xfe\0" * (MAX_ENTRIES + 1)
    assert "more than the 10,000" in reason(gif(many, picture(VALUES), b";"))


def test_a_canvas_of_billions_is_refused() -> None:
    data = gif(picture(VALUES), b";", size=(65535, 65535))
    assert "4,294,836,225 pixels, more than" in reason(data)
    assert "pixels, more than" in reason(gif(picture(VALUES, 65531, 65532), b";"))


def test_xmp_and_profile_are_kept_and_other_blocks_named() -> None:
    icc = bytes(range(256)) * 2
    image = load(
        gif(
            b"\x21\xff\x0bXMP DataXMP" + XMP + MAGIC,
            b"\x21\xff\x0bICCRGBG1012" + blocks(icc),
            b"\x21\xfe" + blocks(b"first") + b"\x21\xfe" + blocks(b"second" * 99),
            b"\x21\xff\x0bNETSCAPE2.0\3\1\0\0\0",
            b"\x21\1\x0c" + bytes(12) + b"\3abc\0",
            picture(VALUES),
            b";junk",
            aspect=17,
        )
    )
    assert image.metadata.xmp == XMP
    assert image.metadata.icc == icc
    assert image.metadata.comments == (b"first", b"second" * 99)
    assert image.metadata.resolution is not None
    assert image.metadata.resolution.x / image.metadata.resolution.y == 2
    assert image.notes == (
        "palette expanded to RGB",
        "a GIF block of kind 1 is not kept",
        "4 bytes after its end are not kept",
    )
    assert lost_metadata(image, "png") == ("comment",)
    as_blocks = gif(b"\x21\xff\x0bXMP DataXMP" + blocks(XMP * 9), picture(VALUES), b";")
    assert load(as_blocks).metadata.xmp == XMP * 9


def webp(**options: object) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Pil.fromarray(pixels).save(file, "WEBP", **options)
    return file.getvalue()


def riff(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


@pytest.mark.parametrize("lossless", [False, True])
def test_every_cut_of_a_webp_is_refused(lossless: bool) -> None:
    data = webp(lossless=lossless, icc_profile=b"icc" * 9)
    for length in range(12, len(data), 7):
        assert "pic: it is " in reason(data[:length])
        shorter = data[:4] + struct.pack("<I", length - 8) + data[8:length]
        assert "pic: it is " in reason(shorter)


def test_chunks_of_a_webp_are_kept_or_named() -> None:
    whole = webp(lossless=True, icc_profile=b"icc" * 9, exif=b"II*\0\10\0\0\0\0\0\0\0\0\0", xmp=XMP)
    extra = riff_chunk(b"LIST", b"abc") + riff_chunk(b"XMP ", b"again")
    image = load(riff(whole[12:] + extra) + b"trailer")
    assert image.metadata.icc == b"icc" * 9
    assert image.metadata.exif is not None
    assert image.metadata.xmp == XMP
    assert image.notes == (
        "not kept, for they are not known or there twice: WebP LIST, XMP",
        "7 bytes after its end are not kept",
    )
    assert load(whole).notes == ()
    many = riff_chunk(b"LIST", b"") * (MAX_ENTRIES + 1)
    assert "more than the 10,000" in reason(riff(whole[12:] + many))


def test_a_webp_of_a_large_canvas_is_refused_before_it_is_opened() -> None:
    canvas = riff_chunk(b"VP8X", bytes(4) + b"\xff\xff\xff" * 2)
    assert "281,474,976,710,656 pixels, more than" in reason(riff(canvas))
    assert "does not begin with its size" in reason(riff(riff_chunk(b"LIST", b"")))
