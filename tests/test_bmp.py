"""BMP: all its codings by their own numbers; runs and rows that leave pixels out are refused."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pytest

from cudafilter.errors import ImageError
from cudafilter.images import Image, encode, load

RAMP = b"".join(bytes((i, i, i, 0)) for i in range(256))
COLOURS = b"".join(bytes((i, 255 - i, 7, 0)) for i in range(256))


def bmp(
    width: int,
    height: int,
    bits: int,
    body: bytes,
    palette: bytes = b"",
    coding: int = 0,
    *,
    rest: bytes = b"",
    size: int = 40,
    colours: int = 0,
) -> bytes:
    start = 14 + size + len(palette)
    head = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, coding, 0, 0, 0, colours, 0)
    head = (head + rest).ljust(size, b"\0")
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, start) + head + palette + body


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        load(data, "pic.bmp")
    return str(caught.value)


def runs(body: bytes, width: int = 6, height: int = 2, bits: int = 8) -> bytes:
    palette = RAMP if bits == 8 else COLOURS[:64]
    return bmp(width, height, bits, body, palette, 1 if bits == 8 else 2)


def test_runs_of_8_bits_give_each_pixel_its_value() -> None:
    body = b"\6\7\0\0" + b"\2\1\0\4\2\3\4\5\0\0" + b"\0\1"
    assert load(runs(body)).pixels[..., 0].tolist() == [[1, 1, 2, 3, 4, 5], [7] * 6]
    odd = b"\1\1\0\5\2\3\4\5\6\0\0\0" + b"\6\7"  # padded to 16 bits, no end after the last row
    assert load(runs(odd)).pixels[..., 0].tolist() == [[7] * 6, [1, 2, 3, 4, 5, 6]]


def test_runs_of_4_bits_take_turns() -> None:
    body = b"\5\x12\1\x30\0\0" + b"\0\6\x12\x34\x56\0\0\1"
    image = load(runs(body, bits=4))
    entries = np.array([[1, 2, 3, 4, 5, 6], [1, 2, 1, 2, 1, 3]])
    np.testing.assert_array_equal(image.pixels[..., 2], entries)
    np.testing.assert_array_equal(image.pixels[..., 1], 255 - entries)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\0\1", b"\6\7\0\1", b"\6\7\0\0", b"\6\7\0\0\5\7\0\1", b"\5\7\0\0\6\7\0\1",
        b"\6\7\0\0\0\2\6\0\0\1", b"\6\7\0\0\0\6\1\2\3", b"\0\2\0\1\6\7\0\1", b"\6\7\0\0\0\0\0\1",
    ],
)  # fmt: skip
def test_runs_that_leave_pixels_out_are_refused(body: bytes) -> None:
    assert "leave pixels without a value" in reason(runs(body))


@pytest.mark.parametrize("body", [b"\7\7", b"\6\7\1\7", b"\1\7\0\6\1\2\3\4\5\6"])
def test_runs_past_their_row_are_refused(body: bytes) -> None:
    assert "past its row" in reason(runs(body))


def test_runs_that_cannot_cover_so_many_pixels_are_refused_at_once() -> None:
    body = b"\x08\x05\x00\x00" * 4
    assert "cannot cover its pixels" in reason(runs(body, 4_000_000, 10))


@pytest.mark.parametrize("bits", [1, 4, 8, 16, 24, 32])
def test_rows_that_are_cut_are_refused(bits: int) -> None:
    row = (3 * bits + 31) // 32 * 4
    palette = COLOURS[: 4 << bits] if bits <= 8 else b""
    whole = bmp(3, 4, bits, bytes(4 * row), palette)
    assert load(whole).pixels.shape == (4, 3, 3)
    used = -(-3 * bits // 8)
    np.testing.assert_array_equal(
        load(whole[: len(whole) - row + used]).pixels, load(whole).pixels
    )  # but for what only pads the last row
    assert "cut short" in reason(whole[: len(whole) - row + used - 1])


@pytest.mark.parametrize("downwards", [False, True])
@pytest.mark.parametrize(("bits", "masks"), [
    (16, (0xF800, 0x7E0, 0x1F)), (16, (0x7C00, 0x3E0, 0x1F)), (16, (0xF, 0xF0, 0xF00, 0xF000)),
    (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)), (32, (0xFF000000, 0xFF0000, 0xFF00)),
    (32, (0x7F, 0x1F00, 0x10000)),
])  # fmt: skip
def test_bit_fields_are_scaled_to_8_bits(bits: int, masks: Sequence[int], downwards: bool) -> None:
    values = np.random.default_rng(0).integers(0, 1 << bits, (4, 6), np.uint64)
    values &= np.uint64(sum(masks))
    body = values[:: 1 if downwards else -1].astype(f"<u{bits // 8}").tobytes()
    fields = struct.pack("<4I", *masks, *[0] * (4 - len(masks)))
    data = bmp(6, -4 if downwards else 4, bits, body, b"", 3, rest=fields, size=56)
    image = load(data)
    for channel, mask in enumerate(masks):
        low = (mask & -mask).bit_length() - 1
        part = (values & np.uint64(mask)) >> np.uint64(low)
        expected = np.rint(part * 255.0 / (mask >> low))
        assert np.abs(image.pixels[..., channel] - expected).max() == 0
    assert image.alpha == (len(masks) == 4)
    assert bool(image.notes) == (masks[0].bit_count() != 8)


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ((0xFF, 0xFF, 0xFF00), "overlap"), ((0x5, 0xFF00, 0xFF0000), "gaps"),
        ((0, 0xFF00, 0xFF0000), "no bits"), ((0x3FF, 0xFFC00, 0x3FF00000), "more than 8 bits"),
    ],
)  # fmt: skip
def test_bit_fields_of_no_sense_are_refused(masks: tuple[int, ...], words: str) -> None:
    fields = struct.pack("<3I", *masks)
    assert words in reason(bmp(1, 1, 32, bytes(4), b"", 3, rest=fields, size=52))


def test_bits_that_no_colour_uses_are_named() -> None:
    assert load(bmp(1, 1, 32, b"\1\2\3\0")).notes == ()
    note = "bits of its pixels that belong to no colour are not kept"
    assert load(bmp(1, 1, 32, b"\1\2\3\4")).notes == (note,)


def test_palettes_and_headers_of_no_sense_are_refused() -> None:
    assert "past the 2 colours" in reason(bmp(1, 1, 8, b"\2\0\0\0", COLOURS[:8], colours=2))
    assert "palette has a wrong length" in reason(bmp(1, 1, 8, b"", COLOURS[:3]))
    assert load(bmp(1, 1, 8, bytes(4), COLOURS + bytes(4), colours=257)).pixels.shape == (1, 1, 3)
    assert "not supported" in reason(bmp(1, 1, 24, bytes(4), coding=4))
    assert "not supported" in reason(bmp(1, 1, 7, bytes(4)))
    assert "size makes no sense" in reason(bmp(0, 1, 24, b""))
    assert "size makes no sense" in reason(bmp(-1, 1, 24, b""))
    assert "header is of a kind" in reason(bmp(1, 1, 24, bytes(4), size=48))
    for length in (2, 13, 20, 40, 53):
        assert "cut short" in reason(bmp(1, 1, 24, bytes(4))[:length])


def test_an_old_header_has_entries_of_three_bytes() -> None:
    head = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 12 + 6)
    data = head + struct.pack("<IHHHH", 12, 2, 1, 1, 1) + bytes((1, 2, 3, 4, 5, 6)) + b"\x40\0\0\0"
    assert load(data).pixels.tolist() == [[[3, 2, 1], [6, 5, 4]]]


def v5(kind: bytes, end: bytes = b"", at: int = 0, size: int = 0, gamma: bytes = b"") -> bytes:
    rest = bytes(16) + kind + gamma.ljust(48, b"\0") + struct.pack("<4I", 0, at, size, 0)
    return bmp(1, 1, 24, b"\1\2\3\0" + end, b"", rest=rest, size=124)


def test_a_profile_is_kept_or_named() -> None:
    assert load(v5(b"DEBM", b"profile", 128, 7)).metadata.icc == b"profile"
    assert load(v5(b"DEBM", b"profile", 128, 7)).notes == ()
    assert "profile is damaged" in load(v5(b"DEBM", b"profile", 128, 8)).notes[0]
    assert "that it names is not kept" in load(v5(b"KNIL", b"profile", 128, 7)).notes[0]
    assert "calibration" in load(v5(bytes(4), gamma=b"\1")).notes[0]
    assert load(v5(b"BGRs")).notes == ()
    assert load(v5(b"BGRs", b"junk")).notes == ("4 bytes after its pixels are not kept",)


def test_what_is_written_is_read_again() -> None:
    for channels in (1, 3):
        pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
        image = load(encode(Image(pixels), "bmp"))
        np.testing.assert_array_equal(image.pixels, pixels)
        assert image.notes == ()
