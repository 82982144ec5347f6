"""Files by rows: any cut gives the pixels and the bytes of the whole, in little memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import fuzz_worker as worker

from cudafilter.errors import FramesError, ImageError
from cudafilter.formats import (
    deflate,
    png_chunks,
    png_writer,
    pnm,
    rows,
    table,
    tiff_segments,
    tiff_strips,
)
from cudafilter.formats.metadata import Metadata
from cudafilter.formats.rows import Header, Reader
from cudafilter.images import Image, encode, load
from cudafilter.operations.pixels import Pixels
from cudafilter.stores import local
from cudafilter.stores.buffers import Pieces, Source
from image_files import LOSSLESS, random_pixels

CUTS = [1, 5, 1 << 20]
"""Rows that are read or written at a time; the last is more than there are."""
BY_ROWS = ["png", "tiff", "pnm"]
"""The fuzzer's names of formats that are read by rows."""


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read or made a megabyte at a time in small pieces, so that small files have many."""
    for module, name in [
        (deflate, "_FEED"), (png_chunks, "_PIECE"), (pnm, "_HEAD"), (tiff_strips, "_CUT"),
        (png_writer, "STRIP"), (deflate, "WINDOW"), (tiff_segments, "STRIP_SIZE"),
    ]:  # fmt: skip
        monkeypatch.setattr(module, name, 300)


def bands(height: int, cut: int) -> Iterator[tuple[int, int]]:
    for first in range(0, height, cut):
        yield first, min(first + cut, height)


def read(reader: Reader, cut: int) -> Pixels:
    """All rows, asked for *cut* at a time."""
    return np.concatenate([reader.rows(*band) for band in bands(reader.header.height, cut)])


def outcome(source: Source, cut: int) -> Any:
    """What comes of reading *source* by rows: all that is known of it, or the error."""
    try:
        reader = rows.open(source)
        pixels = read(reader, cut)
    except ImageError as error:
        return str(error)
    return pixels.tobytes(), reader.header, reader.notes


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("format", worker.FORMATS)
def test_rows_of_any_cut_are_those_of_the_whole(format: str, cut: int) -> None:
    for seed in worker.FORMATS[format].seeds():
        try:
            whole = load(seed.data)
        except ImageError:
            continue
        reader = rows.open(seed.data)
        pixels = read(reader, cut)
        np.testing.assert_array_equal(pixels, whole.pixels, err_msg=seed.name)
        assert reader.header == Header.of(whole.pixels, whole.alpha, whole.metadata), seed.name
        assert reader.notes == whole.notes, seed.name
        assert pixels.flags.c_contiguous, seed.name
        assert reader.frames == 1
        told = rows.extent(seed.data)
        assert (told.width, told.height) == (reader.header.width, reader.header.height)


@pytest.mark.parametrize("format", BY_ROWS)
def test_a_file_gives_what_its_bytes_in_memory_give(format: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for seed in worker.FORMATS[format].seeds():
        path.write_bytes(seed.data)
        with local.open(path) as file:
            assert outcome(file, 5) == outcome(seed.data, 1 << 20), seed.name


@pytest.mark.parametrize("format", BY_ROWS)
def test_damage_is_found_by_rows_as_in_the_whole(format: str, tmp_path: Path) -> None:
    cases, path = worker.Cases(0), tmp_path / "file"
    for number in range(300):
        data = cases.get(format, number).data
        path.write_bytes(data)
        try:
            with np.errstate(all="ignore"):
                expected = load(data, "file")
        except FramesError:
            continue
        except ImageError:
            # Which of several damages is told depends on what is read first.
            with local.open(path) as file, pytest.raises((ImageError, ValueError)):
                read(rows.open(file), 5)
        else:
            with local.open(path) as file:
                np.testing.assert_array_equal(read(rows.open(file), 5), expected.pixels)


@pytest.mark.parametrize("format", BY_ROWS)
def test_rows_that_lie_anywhere_are_read_in_any_order(format: str) -> None:
    found = set()
    for seed in worker.FORMATS[format].seeds():
        try:
            reader = rows.open(seed.data)
        except ImageError:
            continue
        whole, height = load(seed.data).pixels, reader.header.height
        found.add(reader.in_order)
        backwards = reversed(list(bands(height, 5)))
        if reader.in_order and height > 5:
            with pytest.raises(ValueError, match=f"row {height // 5 * 5} of a PNG where 0"):
                reader.rows(*next(backwards))
        elif not reader.in_order:
            for first, last in backwards:
                np.testing.assert_array_equal(reader.rows(first, last), whole[first:last])
    assert found == ({True, False} if format == "png" else {False})  # the interlaced ones


CODED = {"quality": 80, "compress_level": 6}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("options", [{}, CODED], ids=["plain", "coded"])
@pytest.mark.parametrize(
    ("format", "dtype", "channels"), [*LOSSLESS, ("jpeg", "uint8", 1), ("jpeg", "uint8", 3)]
)
def test_rows_of_any_cut_make_the_same_file(
    format: str, dtype: str, channels: int, options: dict[str, Any], cut: int
) -> None:
    # EXIF with a maker note that keeps its place, in the midst of a TIFF's strips
    exif = b"II*\0\x08\0\0\0\1\0\x7c\x92\x07\0\x40\0\0\0\x84\3\0\0\0\0\0\0"
    exif = exif.ljust(900, b"\0") + bytes(range(64))
    # Rows repeat where deflate's window ends, so that all of the window shows in the file.
    period = -(-deflate.WINDOW // (1 + 43 * channels * np.dtype(dtype).itemsize))
    pixels = np.concatenate([random_pixels(dtype, channels, period, 43)] * 61)[:61]
    image = Image(pixels, channels in (2, 4), Metadata(exif=exif))
    file = Pieces()
    header = Header.of(image.pixels, image.alpha, image.metadata)
    writer = rows.create(format, file, header, **options)
    for first, last in bands(61, cut):
        band = image.pixels[first:last].copy()
        writer.write(band)
        band[...] = 77  # the caller's own again
    writer.close()
    assert bytes(file.joined()) == bytes(encode(image, format, **options))


@pytest.mark.parametrize("format", table.written())
def test_a_file_is_written_whole_or_not_at_all(format: str, tmp_path: Path) -> None:
    image = Image(random_pixels("uint8", 1 if format == "pgm" else 3, 40, 30))
    header, path = Header.of(image.pixels, False, Metadata()), tmp_path / "deep" / "file"

    def fill(target: Any, rows_to_write: int = 40) -> None:
        writer = rows.create(format, target, header)
        for first, last in bands(rows_to_write, 7):
            writer.write(image.pixels[first:last])
        writer.close()

    local.write_whole(local.resolve(path), fill)
    assert path.read_bytes() == bytes(encode(image, format))
    with pytest.raises(ImageError, match="file: cannot be written: 33 of 40 rows were written"):
        local.write_whole(local.resolve(path), lambda target: fill(target, 33))
    assert [path.name for path in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == bytes(encode(image, format))


def test_rows_that_do_not_belong_are_refused() -> None:
    writer = rows.create("ppm", Pieces(), Header(4, 3, 3, "uint8"))
    for wrong in (random_pixels("uint8", 3, 1, 5), random_pixels("uint16", 3, 1, 4)):
        with pytest.raises(ValueError, match="do not belong"):
            writer.write(wrong)
    writer.write(random_pixels("uint8", 3, 2, 4))
    with pytest.raises(ValueError, match="2 of 3 rows"):
        writer.close()
    with pytest.raises(ValueError, match="row 4 of 3"):
        writer.write(random_pixels("uint8", 3, 2, 4))
    with pytest.raises(ImageError, match="one picture only"):
        writer.next_frame(Header(4, 3, 3, "uint8"))


STREAMED = r"""
import re, sys
from pathlib import Path
import numpy as np
from cudafilter.formats import rows
from cudafilter.stores import local

source, target, format, most = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
rng = np.random.default_rng(0)
def peak():
    status = Path("/proc/self/status").read_text()  # ru_maxrss has the parent's too
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) >> 10

def fill(sink):
    with local.open(source) as file:
        reader = rows.open(file, most)
        height, step = reader.header.height, max(reader.step, 256)
        writer = rows.create(format, sink, reader.header)
        for first in range(0, height, step):
            writer.write(reader.rows(first, min(first + step, height)))
        writer.close()

small = target.with_name("small")
with small.open("wb") as file:
    file.write(b"P6 64 512 255 " + rng.bytes(64 * 512 * 3))
source, big = small, source
fill_small = local.write_whole(local.resolve(target), fill)
source = target
local.write_whole(local.resolve(target.with_name("again")), fill)
before, source = peak(), big
local.write_whole(local.resolve(target), fill)
print(peak() - before)
"""


def large(kind: str, path: Path) -> None:
    """A file of 3072 x 12288 RGB, which is 113 MB of pixels."""
    band = np.random.default_rng(0).integers(0, 64, (256, 3072, 3), np.uint8)
    if kind == "tiled":
        tiles = (band[:, left : left + 256] for _ in range(48) for left in range(0, 3072, 256))
        options: Any = {"tile": (256, 256), "compression": "zlib", "photometric": "rgb"}
        tifffile.imwrite(path, tiles, shape=(12288, 3072, 3), dtype="uint8", **options)
        return
    if kind == "one strip":
        whole = np.concatenate([band] * 48)
        tifffile.imwrite(path, whole, photometric="rgb", rowsperstrip=12288)
        return

    def fill(target: Any) -> None:
        writer = rows.create(kind, target, Header(3072, 12288, 3, "uint8"))
        for _ in range(48):
            writer.write(band)
        writer.close()

    local.write_whole(local.resolve(path), fill)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no peak of memory is told here")
@pytest.mark.parametrize(
    ("source", "target"),
    [("ppm", "ppm"), ("png", "png"), ("tiff", "tiff"), ("tiled", "tiff"), ("one strip", "ppm")],
)
def test_streaming_a_large_file_takes_the_memory_of_a_band(
    source: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # pieces of their full size
    path, out = tmp_path / "in", tmp_path / "out"
    with ExitStack() as stack:
        stack.callback(path.unlink)
        large(source, path)
        done = subprocess.run(
            [sys.executable, "-c", STREAMED, str(path), str(out), target, str(1 << 29)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) < 48  # MB, of 113
        if source == target:
            assert out.read_bytes() == path.read_bytes()
