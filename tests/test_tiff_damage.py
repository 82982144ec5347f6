"""A TIFF that is damaged, cut, or built to cost much is refused, quickly and with a reason."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc

import numpy as np
import pytest
import tifffile

from cudafilter.errors import ImageError
from cudafilter.images import Image, encode, load


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


def tiff(*entries: bytes, following: int = 0, body: bytes = b"") -> bytes:
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", following)
    return b"II*\0" + struct.pack("<I", 8) + directory + body


def gray(width: int, height: int, offset: int = 8, length: int = 64, codec: int = 8) -> list[bytes]:
    return [
        entry(256, 4, 1, width), entry(257, 4, 1, height), entry(258, 3, 1, 8),
        entry(259, 3, 1, codec), entry(262, 3, 1, 1), entry(273, 4, 1, offset),
        entry(279, 4, 1, length),
    ]  # fmt: skip


def strips(data: bytes) -> list[tuple[int, int]]:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        return list(zip(page.dataoffsets, page.databytecounts, strict=True))


def waves(height: int, width: int, dtype: str) -> Image:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([128 + 90 * np.sin(x / 30 + k) + 20 * np.cos(y / 17) for k in range(3)], -1)
    return Image(pixels.astype(dtype))


def harm(data: bytes, places: list[int], image: Image) -> list[int]:
    """The *places* at which a byte can be damaged so that other pixels are read."""
    wrong = []
    for at in places:
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[at] ^= flip
            try:
                got = load(bytes(damaged)).pixels
            except ImageError:
                continue
            if not np.array_equal(got, image.pixels):
                wrong.append(at)
    return wrong


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_no_damaged_byte_of_a_strip_gives_other_pixels(dtype: str, level: int) -> None:
    image = waves(9, 11, dtype)
    data = bytes(encode(image, "tiff", compress_level=level))
    places = [at for start, length in strips(data) for at in range(start, start + length)]
    assert harm(data, places, image) == []
    large = waves(200, 600, dtype)
    data = bytes(encode(large, "tiff", compress_level=level))
    places = [start + length * part // 7 for start, length in strips(data) for part in range(7)]
    assert harm(data, places[:20], large) == []


def test_a_strip_that_goes_on_past_its_end_is_refused() -> None:
    data = bytearray(encode(waves(9, 11, "uint8"), "tiff"))
    ((_, length),) = strips(bytes(data))
    at = data.index(struct.pack("<HHII", 279, 4, 1, length)) + 8
    data[at : at + 4] = struct.pack("<I", length + 6)
    with pytest.raises(ImageError, match="more follows its end"):
        load(bytes(data))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("rows", [32, 128])
def test_rows_without_strips_are_refused(dtype: str, rows: int) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, waves(64, 48, dtype).pixels, photometric="rgb", rowsperstrip=16)
    data = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as read:
        at = read.pages[0].tags[257].valueoffset  # type: ignore[union-attr]
    struct.pack_into("<H", data, at, rows)
    with pytest.raises(ImageError, match="it tells of 4 offsets and 4 lengths of strips, and has"):
        load(bytes(data))


def test_a_file_that_lacks_its_last_bytes_is_refused() -> None:
    file = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (400, 50), np.uint8)
    tifffile.imwrite(file, pixels, rowsperstrip=1)
    data = file.getvalue()
    for lost in (1, 100, 1000, 9000):
        with pytest.raises(ImageError, match="not all of its strips lie in the file"):
            load(data[:-lost])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(*gray(60_000, 60_000)), "3,600,000,000 pixels"),
        (tiff(*gray(1, 1)[:5], entry(322, 4, 1, 1 << 30), entry(323, 4, 1, 1 << 30)), "pixels"),
        (tiff(entry(256, 16, (1 << 32) - 1, 8)), "lies past the end"),
        (tiff(*gray(4, 4), following=8), "in a circle"),
        (tiff(entry(34665, 4, 1, 8)), "point at each other"),
        (tiff(*gray(4, 4), entry(277, 3, 1, 65535)), "samples do not go"),
        (b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1 << 60) + bytes(99), "cut short"),
        (b"II+\0\x08\0\0\0" + struct.pack("<Q", (1 << 64) - 8) + bytes(99), "cut short"),
        (
            b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1 << 18) + bytes(20 << 18) + bytes(8),
            "more than 65536 tags",
        ),
        (
            tiff(*(entry(40_000 + i, 7, 200_000, 8) for i in range(20_000)), body=bytes(40_000)),
            "tags share their bytes",
        ),
    ],
    ids=["size", "tile", "count", "pages", "exif", "samples", "big", "offset", "million", "shared"],
)  # fmt: skip
def test_what_costs_much_is_refused_at_once(data: bytes, reason: str) -> None:
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ImageError, match=reason):
        load(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - start < 1
    assert peak < 50 << 20


def test_samples_of_many_sizes_are_told_in_one_line() -> None:
    """Each of a damaged file's 60,000 sizes was told."""
    sizes = struct.pack("<60000H", *range(1, 60_001))
    head = [entry(256, 4, 1, 9), entry(257, 4, 1, 9), entry(258, 3, 60_000, 62)]
    data = tiff(*head, entry(262, 3, 1, 1), body=sizes)
    with pytest.raises(ImageError, match=r"samples of 1 to 60,000 bits \(whole numbers\) are not"):
        load(data)


@pytest.mark.parametrize("codec", ["lzw", "deflate", "zstd", "lzma", "packbits"])
def test_a_strip_that_holds_far_more_is_refused(codec: str) -> None:
    file = io.BytesIO()
    tifffile.imwrite(
        file, np.zeros((8192, 8192), np.uint8), compression=codec, rowsperstrip=8192, metadata=None
    )
    data = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as read:
        places = [read.pages[0].tags[tag].valueoffset for tag in (256, 257)]  # type: ignore[union-attr]
    for at in places:
        struct.pack_into("<H", data, at, 16)
    tracemalloc.start()
    with pytest.raises(ImageError, match="it is damaged in strip 1"):
        load(bytes(data))
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
