"""Damaged JPEGs: refused where that can be seen, whatever else would decode them."""

from __future__ import annotations

import io
import struct
import time
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image as Pil

from cudafilter.errors import ImageError
from cudafilter.formats import jpeg_head, jpeg_scan, pillow
from cudafilter.images import load
from cudafilter.operations.pixels import Pixels

EOI = b"\xff\xd9"
CODINGS: dict[str, dict[str, Any]] = {
    "sequential": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
}
MODES = ["L", "RGB", "CMYK"]


def photo(height: int = 120, width: int = 150) -> Pixels:
    """RGB like a photo: smooth, with a sensor's noise."""
    y, x, c = np.mgrid[:height, :width, :3]
    noise = np.random.default_rng(1).normal(0, 5, (height, width, 3))
    scene = 120 + 60 * np.sin(x / 9 + c) + 40 * np.cos(y / 7) + noise
    return np.asarray(np.clip(scene, 0, 255), np.uint8)


def jpeg(mode: str = "RGB", pixels: Pixels | None = None, **options: Any) -> bytes:
    """A JPEG by Pillow."""
    file = io.BytesIO()
    Pil.fromarray(photo() if pixels is None else pixels).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def scan_starts(data: bytes) -> list[int]:
    """Where each scan's header begins."""
    return [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]


def refused(data: bytes, reason: str = "cut off|damaged") -> None:
    with pytest.raises(ImageError, match=reason):
        load(data)


@pytest.fixture(autouse=True)
def no_second_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: Any) -> Any:
        pytest.fail("Pillow was asked")

    monkeypatch.setattr(pillow, "open_pillow", opened)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("coding", CODINGS)
def test_a_scan_that_ends_early_is_refused_with_an_end_marker_too(mode: str, coding: str) -> None:
    data = jpeg(mode, quality=90, **CODINGS[coding])
    start = scan_starts(data)[0] + 20
    load(data)
    for end in (start, (start + len(data)) // 2, len(data) - 22, len(data) - 4):
        refused(data[:end])
        refused(data[:end] + EOI)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [16, 200, 1000])
def test_a_hole_of_zeros_is_refused(mode: str, coding: str, size: int) -> None:
    data = jpeg(mode, quality=90, **CODINGS[coding])
    at = len(data) // 3
    refused(data[:at] + bytes(size) + data[at + size :])


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("quality", [10, 50, 90, 100])
@pytest.mark.parametrize("coding", CODINGS)
def test_zeros_of_flat_and_regular_pictures_are_no_damage(
    mode: str, quality: int, coding: str
) -> None:
    y, x = np.mgrid[:200, :320]
    ramp = np.repeat((x * 255 // 319)[..., None], 3, axis=2).astype(np.uint8)
    checks = np.repeat((255 * ((x // 8 + y // 8) % 2))[..., None], 3, axis=2).astype(np.uint8)
    framed = np.pad(photo(), ((100, 100), (200, 200), (0, 0)))
    for pixels in (np.full((400, 500, 3), 255, np.uint8), ramp, checks, framed):
        data = jpeg(mode, pixels, quality=quality, **CODINGS[coding])
        with Pil.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(np.squeeze(load(data).pixels), np.asarray(image))


def test_a_hole_that_decodes_is_refused_unless_all_bytes_are_needed() -> None:
    flat = jpeg("L", np.zeros((800, 800, 3), np.uint8), optimize=True)
    load(flat)
    refused(flat[:-3] + bytes(1) + flat[-3:], "too many bytes")


@pytest.mark.parametrize("mode", MODES)
def test_each_scan_of_a_progressive_picture_is_needed(mode: str) -> None:
    data = jpeg(mode, progressive=True)
    starts = [*scan_starts(data), len(data) - 2]
    # From the end of a scan's data to that of the next there are its tables and its header.
    ends = []
    for start, after in pairwise(starts):
        table = data.rfind(b"\xff\xc4", start, after)
        ends.append(after if table < 0 else table)
    begins = [starts[0], *ends]
    assert len(ends) > 5
    for begin, end in zip(begins, ends, strict=False):
        refused(data[:begin] + data[end:], "scans of it are missing|do not follow")
        refused(data[:end] + data[begin:], "do not follow each other")
        if end != ends[-1]:
            refused(data[:end] + EOI, "scans of it are missing")


def in_three_scans(size: int = 16) -> bytes:
    """A flat sequential JPEG whose channels have a scan each."""
    data = jpeg("RGB", np.full((size, size, 3), 128, np.uint8), subsampling=0)
    segments, _ = jpeg_head.segments_of(data)
    blocks = (size // 8) ** 2
    bits = {1: "001010", 2: "0000", 3: "0000"}  # no change, and nothing but the mean
    body = b""
    for part, code in bits.items():
        text = code * blocks
        text += "1" * (-len(text) % 8)
        table = 0 if part == 1 else 0x11
        header = bytes([1, part, table, 0, 63, 0])
        coded = int(text, 2).to_bytes(len(text) // 8)
        body += b"\xff\xda" + struct.pack(">H", 2 + len(header)) + header + coded
    return jpeg_head.SOI + jpeg_head.written(segments) + body + EOI


def test_each_channel_of_a_sequential_picture_is_needed() -> None:
    data = in_three_scans()
    assert load(data).pixels.tolist() == [[[128] * 3] * 16] * 16
    starts = [*scan_starts(data), len(data) - 2]
    for begin, end in pairwise(starts):
        refused(data[:begin] + data[end:], "scans of it are missing")
        refused(data[:end] + data[begin:], "do not follow each other")


@pytest.mark.parametrize("harm", ["lost", "swapped", "extra", "fewer"])
def test_restart_markers_are_counted(harm: str) -> None:
    data = jpeg(quality=90, restart_marker_rows=1)
    load(data)
    first, second = (data.index(bytes([0xFF, code])) for code in (0xD0, 0xD1))
    if harm == "lost":
        data = data[:first] + data[first + 2 :]
    elif harm == "swapped":
        data = (
            data[: first + 1]
            + b"\xd1"
            + data[first + 2 : second + 1]
            + b"\xd0"
            + data[second + 2 :]
        )
    elif harm == "extra":
        data = data[:first] + b"\xff\xd0" + data[first:]
    else:
        data = data[:first] + data[second:]
    refused(data)


def test_stray_bytes_in_the_picture_are_refused() -> None:
    data = jpeg(quality=90)
    refused(data[:-2] + b"stray bytes" + EOI, "too many bytes")


@pytest.mark.parametrize(
    "trailer", [b"", bytes(100), b"\xff" * 9, b"\0video" + bytes(4000), jpeg()]
)
def test_what_follows_the_end_is_named(trailer: bytes) -> None:
    for options in CODINGS.values():
        notes = load(jpeg(**options) + trailer).notes
        if trailer.strip(b"\0\xff"):
            assert notes == (f"{len(trailer):,} bytes after the picture's end are not kept",)
        else:
            assert notes == ()


def patched(data: bytes, marker: int, offset: int, new: bytes) -> bytes:
    at = data.index(bytes([0xFF, marker])) + offset
    return data[:at] + new + data[at + len(new) :]


def test_what_libjpeg_warns_of_in_the_head_is_no_damage() -> None:
    data = jpeg()
    expected = load(data).pixels
    later = data.replace(b"JFIF\0\1", b"JFIF\0\3")
    assert later != data
    segments, rest = jpeg_head.segments_of(data)
    adobe = (0xEE, b"Adobe\0\x64\0\0\0\0\7")
    unknown = jpeg_head.SOI + jpeg_head.written([adobe, *segments[1:]]) + rest
    for file in (later, unknown):
        with pytest.raises(ValueError, match=r"revision|transform"):
            simplejpeg.decode_jpeg(file)
        np.testing.assert_array_equal(load(file).pixels, expected)


@pytest.mark.parametrize(
    ("offset", "new", "reason"),
    [
        (1, b"\xc5", "kind of JPEG coding"),
        (4, b"\x0c", "12 bits a sample"),
        (5, b"\0\0", "no size"),
        (7, b"\0\0", "no size"),
        (9, b"\4", "no header of one picture"),
        (11, b"\0", "sampling is wrong"),
        (11, b"\x51", "sampling is wrong"),
    ],
)
def test_heads_that_are_not_read_are_refused_with_the_reason(
    offset: int, new: bytes, reason: str
) -> None:
    refused(patched(jpeg(), 0xC0, offset, new), reason)


def test_two_frames_are_refused() -> None:
    data = jpeg()
    segments, rest = jpeg_head.segments_of(data)
    frame = next(segment for segment in segments if segment[0] == 0xC0)
    refused(jpeg_head.SOI + jpeg_head.written([*segments, frame]) + rest, "header of one picture")
    refused(data[:-2] + data[2:], "no end marker")


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [(3000, 3000), (65500, 65500), (1, 65500)])
def test_a_picture_larger_than_its_bytes_can_hold_is_refused_at_once(
    coding: str, size: tuple[int, int]
) -> None:
    data = jpeg("L", photo(16, 16), **CODINGS[coding])
    marker = 0xC2 if coding == "progressive" else 0xC0
    started = time.process_time()
    refused(patched(data, marker, 5, struct.pack(">HH", *size)), "cannot hold|more than the")
    assert time.process_time() - started < 0.5


def test_a_picture_of_many_scans_is_refused_at_once() -> None:
    data = jpeg("L", np.zeros((2000, 2000, 3), np.uint8), progressive=True)
    last = scan_starts(data)[-1]
    refused(data[:-2] + data[last:-2] * 5000 + EOI, f"more than {jpeg_scan.MOST_SCANS} scans")


def test_a_head_of_many_segments_takes_no_time() -> None:
    data = jpeg()
    for segment in (b"\xff\xe2\0\2", b"\xff\xe2\0\x10ICC_PROFILE\0\1\1", b"\xff\xfe\0\2"):
        started = time.process_time()
        load(data[:2] + segment * 50_000 + data[2:])
        assert time.process_time() - started < 2


@pytest.mark.parametrize("length", [0, 1])
def test_a_segment_of_an_impossible_length_is_refused(length: int) -> None:
    refused(patched(jpeg(), 0xDB, 2, struct.pack(">H", length)))


def test_odd_samplings_are_read_and_their_risk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    # As many blocks of luma for one of chroma as 4:2:0 has in four of its units, all of them flat.
    data = jpeg("RGB", np.full((16, 32, 3), 128, np.uint8), subsampling=0)
    segments, rest = jpeg_head.segments_of(patched(data, 0xC0, 11, b"\x42"))
    header = bytes(rest[: 2 + int.from_bytes(rest[2:4], "big")])
    bits = "001010" * 8 + "0000" * 2
    coded = int(bits + "1" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8))
    image = load(jpeg_head.SOI + jpeg_head.written(segments) + header + coded + EOI)
    assert (image.pixels == 128).all()
    unusual, sampling = image.notes
    assert "does not tell of damage" in unusual
    assert "sampling of 4 x 2 to 1 is not kept" in sampling
    assert "gets 4:4:4" in sampling


def test_opencv_takes_what_is_refused_here() -> None:
    """Why one strict decoder decides: others fill what is missing."""
    data = jpeg(quality=90)
    cut = data[: len(data) // 2] + EOI
    assert cv2.imdecode(np.frombuffer(cut, np.uint8), 1) is not None
    refused(cut)


@pytest.mark.parametrize("body", [b"", bytes(2), b"\x55\x12\x99"])
def test_arithmetic_coding_has_no_end_that_could_come_early_which_is_told(body: bytes) -> None:
    segments, rest = jpeg_head.segments_of(jpeg("L", photo(8, 8)))
    arithmetic = [(0xC9 if marker == 0xC0 else marker, data) for marker, data in segments]
    header = bytes(rest[: 2 + int.from_bytes(rest[2:4], "big")])
    (note,) = load(jpeg_head.SOI + jpeg_head.written(arithmetic) + header + body + EOI).notes
    assert "does not tell of damage" in note


@pytest.mark.parametrize("at", range(24))
@pytest.mark.parametrize("size", [16, 17])
def test_a_hole_is_found_wherever_it_lies(at: int, size: int) -> None:
    data = memoryview(b"\x51" * at + bytes(size) + b"\x51" * 30)
    assert jpeg_scan._find(data[1:] if at else data, bytes(16)) == max(0, at - 1)
    assert jpeg_scan._find(memoryview(b"\x51" * 50 + bytes(6)), bytes(16)) == -1


def test_metadata_among_the_scans_is_named() -> None:
    data = jpeg(progressive=True)
    last = scan_starts(data)[-1]
    for segment in (b"\xff\xfe\0\x06note", b"\xff\xe7\0\x06note"):
        image = load(data[:last] + segment + data[last:])
        assert image.notes == ("6 bytes among its scans are not kept",)
