"""TIFFs of several pages: stacks, ImageJ's and OME's too, whose descriptions stay true."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from command_line import cli, snapshot
from cudafilter import apply
from cudafilter.errors import ImageError
from cudafilter.formats import tiff_segments
from cudafilter.images import Frames, load
from cudafilter.operations.pixels import Pixels

pytestmark = pytest.mark.usefixtures("here")
SOURCE, TARGET = Path("a.tif"), Path("b.tif")
STACK: Pixels = np.random.default_rng(0).integers(0, 60_000, (3, 4, 2, 20, 15), np.uint16)
"""Times, depths, channels, rows, columns."""


def imagej(**options: Any) -> None:
    metadata = {
        "axes": "TZCYX", "mode": "composite", "unit": "um", "spacing": 0.5,
        "Labels": [f"label {n}" for n in range(24)], "Ranges": (0.0, 100.0, 0.0, 200.0),
    }  # fmt: skip
    tifffile.imwrite(
        SOURCE, STACK, imagej=True, metadata=metadata, resolution=(2.5, 2.5), **options
    )


def ome() -> None:
    metadata = {
        "axes": "TZCYX", "PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "µm",
        "Channel": {"Name": ["first", "second"]},
    }  # fmt: skip
    tifffile.imwrite(SOURCE, STACK, ome=True, metadata=metadata)


def plain(**options: Any) -> None:
    tifffile.imwrite(SOURCE, STACK.reshape(-1, 20, 15), photometric="minisblack", **options)


MAKERS: dict[str, Callable[[], None]] = {
    "ImageJ": imagej,
    "ImageJ, big-endian": lambda: imagej(byteorder=">"),
    "ImageJ, one directory for all": lambda: imagej(truncate=True),
    "OME": ome,
    "plain": plain,
    "deflated": lambda: plain(compression="zlib", predictor=True),
    "big-endian": lambda: plain(byteorder=">"),
    "BigTIFF": lambda: plain(bigtiff=True),
    "tiles": lambda: plain(tile=(16, 16)),
}


def written(*options: str, filter: str = "blur") -> tifffile.TiffFile:
    done = cli(filter, *options, str(SOURCE), str(TARGET))
    assert done.exit_code == 0, done.stderr
    return tifffile.TiffFile(TARGET)


def pages_of(file: tifffile.TiffFile) -> list[Any]:
    return [*file.pages]


@pytest.mark.parametrize("name", MAKERS)
def test_each_page_is_filtered_and_the_stack_stays_one(name: str) -> None:
    MAKERS[name]()
    with tifffile.TiffFile(SOURCE) as before, written("--check") as after:
        assert [series.axes for series in after.series] == [series.axes for series in before.series]
        assert after.series[0].shape == before.series[0].shape
        expected = [apply(page, "blur", engine="cpu") for page in STACK.reshape(-1, 20, 15)]
        for page, pixels in zip(pages_of(after), expected, strict=True):
            np.testing.assert_array_equal(page.asarray(), pixels)
        np.testing.assert_array_equal(after.asarray().reshape(-1, 20, 15), expected)
        assert after.imagej_metadata == before.imagej_metadata
        assert after.ome_metadata == before.ome_metadata
        assert after.byteorder == before.byteorder
        assert pages_of(after)[0].resolution == pages_of(before)[0].resolution


@pytest.mark.parametrize("pages", [1, 3])
def test_a_description_beside_that_of_an_arrays_shape_is_kept(pages: int) -> None:
    """tifffile writes both, under one tag."""
    tifffile.imwrite(SOURCE, STACK[0, :pages, 0], photometric="minisblack", description="my cells")
    assert cli("blur", "a.tif", "b.tif").exit_code == 0
    with tifffile.TiffFile(TARGET) as written:
        assert written.pages.first.description == "my cells"
        assert len(written.pages) == pages


def test_pages_are_numbered() -> None:
    plain()
    with written() as after:
        assert [page.tags["PageNumber"].value for page in pages_of(after)] == [
            (n, 24) for n in range(24)
        ]
        assert {page.tags["NewSubfileType"].value for page in pages_of(after)} == {2}


def test_pages_of_any_size_and_type_keep_their_own_tags() -> None:
    rng = np.random.default_rng(1)
    pages: list[Pixels] = [
        rng.integers(0, 60_000, (20, 15), np.uint16),
        rng.integers(0, 255, (7, 30, 3), np.uint8),
        rng.random((9, 5)).astype(np.float32),
        rng.integers(0, 255, (1, 1, 4), np.uint8),
    ]
    with tifffile.TiffWriter(SOURCE) as file:
        for number, page in enumerate(pages):
            file.write(
                page, metadata=None, description=f"page {number}", resolution=(number + 1, 7),
                photometric="rgb" if page.ndim == 3 else "minisblack",
                extrasamples=["unassalpha"] if page.shape[-1] == 4 else None,
                iccprofile=bytes(3 + number), extratags=[(65000, 3, 2, (number, 5), True)],
            )  # fmt: skip
    with written(filter="median") as after:
        for number, (page, pixels) in enumerate(zip(pages_of(after), pages, strict=True)):
            alpha = pixels.shape[-1] == 4
            expected = apply(pixels, "median", alpha=alpha, engine="cpu")
            np.testing.assert_array_equal(page.asarray(), expected)
            assert page.description == f"page {number}"
            assert page.tags["XResolution"].value == (number + 1, 1)
            assert page.tags["InterColorProfile"].value == bytes(3 + number)
            assert page.tags[65000].value == (number, 5)


def test_pages_of_another_byte_order_than_the_first_are_turned() -> None:
    """The first page has no tags that tell the order, so the file gets one of its own."""
    with tifffile.TiffWriter(SOURCE, byteorder=">") as file:
        for number in range(3):
            tags = [(65000, 3, 2, (number, 500), True), (65001, 12, 1, 0.1, True)] * (number > 0)
            file.write(
                STACK[0, 0, 0], metadata=None, software=False, photometric="minisblack",
                extratags=tags,
            )  # fmt: skip
    with written() as after:
        assert after.byteorder == "<"
        for number in (1, 2):
            assert pages_of(after)[number].tags[65000].value == (number, 500)
            assert pages_of(after)[number].tags[65001].value == 0.1


@pytest.mark.parametrize(("make", "name"), [(imagej, "ImageJ"), (ome, "OME")])
@pytest.mark.parametrize("option", ["--frames 2-4", "--frames 0,5", "--first-frame"])
def test_what_tells_of_all_pages_is_not_kept_of_some(
    make: Callable[[], None], name: str, option: str
) -> None:
    make()
    done = cli("blur", *option.split(), str(SOURCE), str(TARGET))
    assert f"note: a.tif: what {name} tells of all pages is not kept" in done.stderr
    with tifffile.TiffFile(TARGET) as after:
        assert not after.is_imagej
        assert not after.is_ome
        assert not pages_of(after)[0].description
        assert 50838 not in pages_of(after)[0].tags
    made = cli("blur", "--frames", "0-", str(SOURCE), str(TARGET))
    assert "not kept" not in made.stderr


def test_an_ome_description_of_other_samples_is_not_kept() -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (3, 9, 8, 3), np.uint8)
    tifffile.imwrite(SOURCE, rgb, ome=True, photometric="rgb", metadata={"axes": "ZYXS"})
    with written() as after:
        assert after.is_ome
    done = cli("blur", "--gray", str(SOURCE), str(TARGET))
    assert "its OME description is not kept, for it tells of other samples" in done.stderr
    with tifffile.TiffFile(TARGET) as after:
        assert not after.is_ome
    signed = STACK[0, :, 0].astype(np.int16) // 2
    tifffile.imwrite(SOURCE, np.abs(signed), ome=True, metadata={"axes": "ZYX"})
    assert "it tells of other samples" in cli("blur", str(SOURCE), str(TARGET)).stderr


def test_smaller_copies_are_named_and_left_out() -> None:
    page = STACK[0, 0, 0]
    with tifffile.TiffWriter(SOURCE) as file:
        file.write(page, metadata=None)
        file.write(page[::2, ::2], subfiletype=1, metadata=None)
        file.write(page[::4, ::4], subfiletype=1, metadata=None)
    done = cli("blur", str(SOURCE), str(TARGET))
    assert "note: a.tif: smaller copies of its picture are not kept: 2" in done.stderr
    with tifffile.TiffFile(TARGET) as after:
        assert len(after.pages) == 1
    with tifffile.TiffWriter(SOURCE) as file:
        file.write(page[::2, ::2], subfiletype=1, metadata=None)
        file.write(page, metadata=None)
    with pytest.raises(ImageError, match="only a preview"):
        load(SOURCE)


def test_a_stack_goes_only_where_pages_are_held() -> None:
    plain()
    for name in ("b.gif", "b.webp", "b.png"):
        done = cli("blur", str(SOURCE), name)
        assert done.exit_code == 1
        assert "holds frames only with their times, and pages have none" in done.stderr
    assert cli("blur", str(SOURCE), "b.jpg").exit_code == 1
    assert list(snapshot()) == ["a.tif"]
    assert cli("blur", "--frames", "7", str(SOURCE), "b.png").exit_code == 0
    np.testing.assert_array_equal(
        load(Path("b.png")).pixels[..., 0], apply(STACK[0, 3, 1], "blur", engine="cpu")
    )


@pytest.mark.parametrize(
    ("make", "break_", "reason"),
    [
        (plain, lambda data: data[:-40], "damaged|cut|past the end"),
        (lambda: plain(compression="zlib"), lambda data: flipped(data, 5000), "damaged|checksum"),
        (lambda: imagej(truncate=True), lambda data: data[:-1], "tells of 24 images, and only one"),
        (plain, lambda data: linked(data, 23, 0), "in a circle"),
        (plain, lambda data: linked(data, 12, 1 << 30), "damaged: cut short"),
    ],
    ids=["cut", "samples", "unlisted", "circle", "link"],
)
def test_damage_is_refused_and_leaves_nothing(
    make: Callable[[], None], break_: Callable[[bytes], bytes], reason: str
) -> None:
    make()
    SOURCE.write_bytes(break_(SOURCE.read_bytes()))
    done = cli("blur", str(SOURCE), str(TARGET))
    assert done.exit_code == 1
    assert len(re.findall(rf"^error: a.tif: .*(?:{reason})", done.stderr, re.MULTILINE)) == 1
    assert list(snapshot()) == ["a.tif"]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


def linked(data: bytes, page: int, to: int) -> bytes:
    """*data* whose *page* leads to the page *to*, or to that offset."""
    with tifffile.TiffFile(SOURCE) as file:
        places = [one.offset for one in pages_of(file)]
        count = len(pages_of(file)[page].tags)
    at = places[page] + 2 + 12 * count
    target = places[to] if to < len(places) else to
    return data[:at] + target.to_bytes(4, "little") + data[at + 4 :]


def test_directories_over_each_other_are_refused_at_once() -> None:
    """60,000 entries of 12 bytes, and behind them 30 directories that each hold most of them."""
    count, most = 30, 60_000
    starts = [8 + 12 * n for n in range(count)]
    data = bytearray(8 + 12 * (most + count) + 2)
    data[:8] = b"II*\0\x08\0\0\0"
    for n, start in enumerate(starts):
        data[start : start + 2] = most.to_bytes(2, "little")
        follows = starts[n + 1] if n + 1 < count else 0
        end = start + 2 + 12 * most
        data[end : end + 4] = follows.to_bytes(4, "little")
    with pytest.raises(ImageError, match="it is damaged: its directories lie over each other"):
        list(Frames(bytes(data), "a"))


MANY = r"""
import re, sys
from pathlib import Path
from click.testing import CliRunner
from cudafilter.cli import app

def peak():
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) >> 10

def do(*arguments):
    done = CliRunner().invoke(app, ["box", "--engine", "cpu", *arguments])
    assert done.exit_code == 0, done.stderr

do("few.tif", "out.tif")
before = peak()
do("many.tif", "out.tif")
do("many.tif", "one.tif", "--frames", "990")
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no peak of memory is told here")
@pytest.mark.parametrize("bigendian", [False, True])
def test_a_thousand_pages_take_the_memory_of_a_few(bigendian: bool) -> None:
    order: Any = ">" if bigendian else "<"
    for name, count in [("few.tif", 10), ("many.tif", 1000)]:  # 1000 take 128 MB
        pages = (np.full((256, 256), n, np.uint16) for n in range(count))
        tifffile.imwrite(
            name, pages, shape=(count, 256, 256), dtype="uint16", byteorder=order, metadata=None,
            photometric="minisblack",
        )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 12  # MB
    np.testing.assert_array_equal(tifffile.imread("out.tif")[::99, 3, 3], np.arange(0, 1000, 99))


def test_strips_of_pages_do_not_depend_on_their_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_segments, "STRIP_SIZE", 100)
    plain()
    with written(filter="box") as after:
        for page, pixels in zip(pages_of(after), STACK.reshape(-1, 20, 15), strict=True):
            np.testing.assert_array_equal(page.asarray(), apply(pixels, "box", engine="cpu"))
            assert len(page.dataoffsets) > 1
