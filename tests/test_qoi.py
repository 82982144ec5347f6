"""QOI: chunks of any encoder are read, and none may be missing."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from cudafilter.errors import ImageError
from cudafilter.images import Image, load
from image_files import encode, random_pixels

END = bytes(7) + b"\1"


def head(width: int, height: int, channels: int = 3, space: int = 0) -> bytes:
    return b"qoif" + struct.pack(">IIBB", width, height, channels, space)


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        load(data, "pic")
    return str(caught.value)


def test_chunks_that_its_own_encoder_would_not_choose_are_read() -> None:
    # 5 x 1: a full pixel, the same from the table, a small difference, a luma one, a run of one
    chunks = b"\xfe\x0a\x14\x1e" + bytes([(10 * 3 + 20 * 5 + 30 * 7 + 255 * 11) % 64])
    chunks += b"\x7f" + b"\xa5\x88" + b"\xc0"
    pixels = load(head(5, 1) + chunks + END).pixels
    assert pixels.tolist() == [
        [[10, 20, 30], [10, 20, 30], [11, 21, 31], [16, 26, 36], [16, 26, 36]]
    ]
    for cut in range(1, len(chunks)):
        assert "end early" in reason(head(5, 1) + chunks[:cut] + END)
    assert "too many bytes" in reason(head(5, 1) + chunks + b"\xc0" + END)


def test_every_cut_is_refused_and_what_follows_the_end_is_named() -> None:
    data = encode(Image(random_pixels("uint8", 4), True), "qoi")
    assert data[13] == 0  # sRGB, as all files without a profile
    for length in range(4, len(data)):
        assert "cut short" in reason(data[:length]) or "damaged" in reason(data[:length])
    assert load(data + b"junk").notes == ("4 bytes after its end are not kept",)
    linear = load(data[:13] + b"\1" + data[14:])
    assert linear.notes == ("that its colour is linear, as it says, is not kept",)


def test_gray_is_written_as_rgb_and_a_header_of_no_sense_refused() -> None:
    gray = random_pixels("uint8", 2)
    back = load(encode(Image(gray, True), "qoi")).pixels
    np.testing.assert_array_equal(back[..., [0, 3]], gray)
    for wrong in (head(0, 1), head(1, 0), head(1, 1, 2), head(1, 1, 3, 9)):
        assert "header has values" in reason(wrong + b"\xc0" + END)
    assert "pixels, more than" in reason(head(1 << 30, 1 << 30) + b"\xc0" + END)
