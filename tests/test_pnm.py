"""PBM, PGM, PPM and PFM: exactly the samples that the header declares, each a number in range."""

from __future__ import annotations

import numpy as np
import pytest

from cudafilter.errors import ImageError
from cudafilter.images import load, lost_metadata


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        load(data, "pic.pnm")
    return str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"P5\n2 1\n100\n\x01\x65", b"P6\n1 1\n100\n\1\2\xff", b"P2\n2 1\n100\n1 101",
        b"P3\n1 1\n100\n1 2 101", b"P5\n1 1\n1000\n\x03\xe9", b"P2\n1 1\n1000\n1001",
        b"P2\n1 1\n255\n" + b"9" * 4000, b"P2\n1 1\n255\n18446744073709551617",
    ],
)  # fmt: skip
def test_a_sample_past_the_maximum_is_refused(data: bytes) -> None:
    assert "past the greatest value" in reason(data)


@pytest.mark.parametrize(
    "data",
    [
        b"P5\n2 2\n255\nabc", b"P6\n2 2\n255\n" + bytes(11), b"P5\n2 2\n65535\n" + bytes(7),
        b"P4\n9 2\n" + bytes(3), b"P2\n2 2\n255\n1 2 3", b"P3\n1 1\n255\n1 2", b"P1\n2 2\n101",
        b"Pf\n2 2\n-1.0\n" + bytes(15), b"PF\n1 1\n1.0\n" + bytes(11), b"P5\n1 1\n255",
        b"P2\n1 1\n255\n", b"P1\n1 1\n", b"P5\n1", b"P5", b"P5\n1 1\n# no end",
    ],
)  # fmt: skip
def test_a_cut_file_is_refused(data: bytes) -> None:
    assert "cut short" in reason(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"P2\n2 1\n255\n1 x", "a sample is no number"),
        (b"P2\n2 1\n255\n1 -1", "a sample is no number"),
        (b"P2\n2 1\n255\n1 2.5", "a sample is no number"),
        (b"P1\n2 1\n1 2", "a sample is no number"),
        (b"P2\n2 1\n255\n1 2 3", "more samples"),
        (b"P1\n2 1\n111", "more samples"),
        (b"P5\nx 1\n255\n1", "size is no number"),
        (b"P5\n-1 1\n255\n1", "size is no number"),
        (b"P5\n" + b"1" * 4000 + b" 1\n255\n1", "in its header"),
        (b"P5\n1234567890 1\n255\n1", "size is no number, or too large"),
        (b"P5\n0 1\n255\n", "no pixels"),
        (b"P5\n1 1\n0\n1", "greatest value 0 is not 1 to 65535"),
        (b"P5\n1 1\n65536\n11", "greatest value 65536 is not 1 to 65535"),
        (b"P5\n1 1\nmax\n1", "greatest value is no number"),
        (b"Pf\n1 1\n0\n1234", "scale is no number, or 0"),
        (b"Pf\n1 1\nnan\n1234", "scale is no number, or 0"),
        (b"P5\n1 1\n255#1", "header has no end"),
    ],
)
def test_what_makes_no_sense_is_refused(data: bytes, words: str) -> None:
    assert words in reason(data)


def test_a_second_image_is_refused_and_other_bytes_are_named() -> None:
    one = b"P5\n2 1\n255\nab"
    assert "another image follows" in reason(one * 2)
    assert "another image follows" in reason(one + b"\n" + one)
    assert load(one + b"\n").notes == ()
    assert load(one + b"junk").notes == ("4 bytes after its end are not kept",)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3])
def test_floats_keep_their_values_and_rows_go_upwards(order: str, channels: int) -> None:
    values = np.random.default_rng(0).normal(0, 9, (3, 5, channels)).astype(np.float32)
    scale = b"-1.0" if order == "<" else b"1"
    head = b"Pf" if channels == 1 else b"PF"
    data = head + b"\n5 3\n" + scale + b"\n" + values[::-1].astype(order + "f4").tobytes()
    image = load(data)
    np.testing.assert_array_equal(image.pixels, values)
    assert image.pixels.dtype == np.float32
    assert image.notes == ()
    assert load(data.replace(scale, scale + b"e1", 1)).notes == ("its scale 10 is not kept",)


def test_bits_need_no_gaps_and_1_is_black() -> None:
    for data in (b"P1\n3 2\n101\n0 1 0", b"P1 3 2 1 0#c\n1\n010", b"P4\n3 2\n\xa0\x40"):
        assert load(data).pixels[..., 0].tolist() == [[0, 255, 0], [255, 0, 255]]


def test_comments_are_kept_for_a_format_that_holds_them() -> None:
    image = load(b"P2 # by hand\n2 1\n#wide\n255\n1 # one\n2")
    assert image.metadata.comments == (b"by hand\nwide\none",)
    assert image.pixels.reshape(-1).tolist() == [1, 2]
    assert lost_metadata(image, "jpeg") == ()
    assert lost_metadata(image, "pgm") == ("comment",)
    assert load(b"P5\n" + b"#\n" * 50000 + b"1 1 255\n\7").pixels.tolist() == [[[7]]]


def test_pixels_may_be_written_to() -> None:
    for data in (
        b"P5\n1 1\n255\n1",
        b"P6\n1 1\n65535\n123456",
        b"Pf\n1 1\n-1\n1234",
        b"P1\n1 1\n1",
    ):
        assert load(data).pixels.flags.writeable
