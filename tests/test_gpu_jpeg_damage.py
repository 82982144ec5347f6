"""Damage that nvJPEG does not tell of: what looks like it is decoded on the CPU too.

The stand-in decodes by Pillow, which fills what is missing in silence, as nvJPEG does.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from cudafilter.engines.codecs import NotTaken
from cudafilter.errors import ImageError
from cudafilter.formats import jpeg as cpu_codec
from cudafilter.formats.jpeg_head import SOI, frame_of, segments_of, written
from cudafilter.formats.jpeg_scan import BLOCK, is_flat, is_simple
from fake_nvjpeg import Opener, fake, opened, through
from jpegs import coded, photo

__all__ = ["fake", "opened"]
EOI = b"\xff\xd9"
KNOWN = ("jpeg", "png")


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the CPU was asked to judge."""
    seen: list[bytes] = []
    original = cpu_codec.require_undamaged

    def judge(data: bytes) -> None:
        seen.append(data)
        original(data)

    monkeypatch.setattr(cpu_codec, "require_undamaged", judge)
    return seen


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"optimize": True}])
def test_an_early_end_leaves_a_flat_end_which_the_cpu_judges(
    mode: str, options: dict[str, Any], opened: Opener, judged: list[bytes]
) -> None:
    _, path, library = opened()
    data = coded(photo(), mode, quality=90, **({} if mode == "L" else options))
    for rest in (len(data) // 2, 400):
        cut = data[:-rest] + EOI
        with pytest.raises(ImageError, match="it is cut off"):
            through(path, cut)
        assert judged[-1] == cut
    assert library.calls["DecodeJpegDevice"] == 3  # the first was the fixture's


def test_a_photo_is_not_decoded_twice(opened: Opener, judged: list[bytes]) -> None:
    for options in ({}, {"restart_marker_rows": 1}, {"quality": 100}, {"optimize": True}):
        through(opened()[1], coded(photo(), **options))
    assert not judged


@pytest.mark.parametrize("harm", ["hole", "lost", "swapped", "further"])
def test_what_looks_damaged_is_judged_before_the_gpu_sees_it(
    harm: str, opened: Opener, judged: list[bytes]
) -> None:
    _, path, library = opened()
    before = library.calls["DecodeJpegHost"]
    whole = coded(photo(), quality=40, restart_marker_rows=1)
    first, second = (whole.index(bytes([0xFF, code])) for code in (0xD0, 0xD1))
    data = {
        "hole": whole[: first + 20] + bytes(10) + whole[first + 30 :],
        "lost": whole[:first] + whole[first + 2 :],
        "swapped": whole[: first + 1] + b"\xd1" + whole[first + 2 : second + 1] + b"\xd0"
        + whole[second + 2 :],
        "further": whole[:first] + b"\xff\xd0" + whole[first:],
    }[harm]  # fmt: skip
    with pytest.raises(ImageError, match=r"it is cut off|it is damaged"):
        through(path, data)
    assert library.calls["DecodeJpegHost"] == before
    assert judged == [data]


def test_what_cannot_be_a_whole_picture_is_refused(opened: Opener, judged: list[bytes]) -> None:
    path = opened()[1]
    data = coded(photo(), quality=90)
    half = len(data) // 2
    for damaged in (data[:half], data[:half] + bytes(200) + data[half + 200 :]):
        with pytest.raises(ImageError, match=r"it is cut off|a hole of zeros"):
            through(path, damaged)
    assert not judged, "no decoder is needed for that"


def test_a_picture_that_ends_flat_goes_through_once_the_cpu_has_read_it(
    opened: Opener, judged: list[bytes]
) -> None:
    path = opened()[1]
    pixels = photo()
    pixels[-20:, -20:] = 255
    data = coded(pixels, quality=90)
    done = through(path, data)
    assert judged == [data]
    assert (done.width, done.height) == (140, 100)


def test_what_follows_the_picture_is_named(opened: Opener) -> None:
    done = through(opened()[1], coded(photo()) + b"a video")
    assert done.notes == ("7 bytes after the picture's end are not kept",)


@pytest.mark.parametrize("size", [(30_000, 30_000), (6000, 6000)])
def test_a_size_that_is_not_read_by_default_is_left_to_the_cpu(
    size: tuple[int, int], opened: Opener
) -> None:
    segments, rest = segments_of(coded(photo(16, 16)))
    changed = [
        (marker, body[:1] + struct.pack(">HH", *size) + body[5:] if marker == 0xC0 else body)
        for marker, body in segments
    ]
    with pytest.raises(NotTaken, match="unusually large"):
        through(opened()[1], SOI + written(changed) + rest)


@pytest.mark.parametrize("height", range(1, 10))
@pytest.mark.parametrize("width", range(1, 10))
def test_the_last_block_tells_whatever_the_size(height: int, width: int) -> None:
    rows = (height - 1) % BLOCK + 1
    columns = (width - 1) % BLOCK + 1
    for channels in (1, 3):
        end = np.zeros((rows, width, channels), np.uint8)
        end[:, : width - columns] = 9  # of other blocks
        assert is_flat(end)
        end[0, -1, 0] += rows > 1  # chroma of the rows before
        end[-1, width - columns] += columns > 1
        assert is_flat(end)
        if rows * columns > 4 and min(rows, columns) > 1:
            end[-1, -1, -1] += 1
            assert not is_flat(end)


def simple(data: bytes) -> bool:
    segments, rest = segments_of(data)
    frame = frame_of(segments)
    assert frame is not None
    return is_simple(segments, rest, frame)


def with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    segments, rest = segments_of(data)
    return SOI + written([(marker, body), *segments]) + bytes(rest)


def test_only_a_file_without_a_doubt_goes_without_a_look_through_its_scan() -> None:
    data = coded(photo())
    assert simple(data)
    assert not simple(data + b"a film behind the end")
    assert not simple(data[:-2])
    assert not simple(coded(photo(), restart_marker_blocks=4))
    middle = len(data) - 2000
    assert not simple(data[:middle] + bytes(40) + data[middle + 40 :])
    for marker, body in [(0xE2, b"MPF\0rest"), (0xE1, b"http://ns.adobe.com/xap/ MotionPhoto")]:
        assert not simple(with_segment(data, marker, body))
    short = data[: len(data) - len(segments_of(data)[1]) + 20] + EOI
    assert not simple(short), "its bytes cannot hold so many blocks"
