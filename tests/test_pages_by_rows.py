"""Pages larger than their share of memory go by rows, one after the other: the same stack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from agreement import StandIn
from command_line import ENVIRONMENT, cli, snapshot
from cudafilter.engines import Result
from cudafilter.engines import open as engines
from cudafilter.engines.cpu import CpuEngine
from cudafilter.formats import tiff_segments
from cudafilter.jobs import by_rows, sizing
from cudafilter.operations.pixels import Pixels
from cudafilter.proof import ends
from test_by_rows import PEAK
from test_pages import MAKERS

FEW = "20000"
"""Bytes of memory of which a band of these pages takes some rows."""


@pytest.fixture(autouse=True)
def place(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sizing.MEMORY, raising=False)
    monkeypatch.setattr(tiff_segments, "STRIP_SIZE", 1000)


def stack(name: str = "a.tif", alpha: bool = False) -> None:
    """Three pages of several sizes and two types, in strips of few rows."""
    random = np.random.default_rng(0)
    with tifffile.TiffWriter(name) as file:
        for number, dtype in enumerate(("uint8", "uint16", "uint8")):
            shape = (60 + 20 * number, 50 + 10 * number, 3 + alpha)
            page = random.integers(0, np.iinfo(dtype).max, shape, dtype)
            file.write(
                page, photometric="rgb", rowsperstrip=4, metadata=None, compression="zlib",
                description=f"page {number}", extrasamples=["unassalpha"] if alpha else None,
            )  # fmt: skip


def both(
    *words: str, monkeypatch: pytest.MonkeyPatch, memory: str = FEW, to: str = ".tif"
) -> tuple[str, str]:
    """Do it page by page and by rows, into the same bytes; what is told of each."""
    told = []
    for name in ("whole", "rows"):
        if name == "rows":
            monkeypatch.setenv(sizing.MEMORY, memory)
        done = cli(*words, f"{name}{to}", "--engine", "cpu")
        monkeypatch.delenv(sizing.MEMORY, raising=False)
        assert done.exit_code == 0, done.stderr
        told.append(done.stderr)
    assert "by rows" not in told[0]
    assert "done by rows" in told[1]
    assert Path(f"rows{to}").read_bytes() == Path(f"whole{to}").read_bytes()
    return told[0], told[1]


@pytest.mark.parametrize("name", MAKERS)
def test_a_stack_is_the_same_as_page_by_page(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MAKERS[name]()
    _, told = both("blur", "a.tif", monkeypatch=monkeypatch, memory="1000")
    assert "note: a.tif: its pages are done by rows, " in told


@pytest.mark.parametrize(
    "words",
    [
        ("blur", "--sigma", "3", "--border", "wrap"),
        ("chain", "median | sobel | unsharp"),
        ("median", "--gray"),
        ("blur", "--background", "red"),
        ("blur", "--linear"),
        ("blur", "--region", "5,5,30,40"),
        ("blur", "--frames", "1-"),
        ("blur", "--frames", "0,2", "--check"),
        ("blur", "--check=quick"),
    ],
    ids=" ".join,
)
def test_options_hold_for_each_page(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack(alpha=True)
    both(*words, "a.tif", monkeypatch=monkeypatch)


@pytest.mark.parametrize("to", [".tif", ".png"])
def test_a_page_that_is_picked_goes_by_rows(to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stack()
    _, told = both("blur", "--frames", "1", "a.tif", to=to, monkeypatch=monkeypatch)
    assert "note: a.tif: done by rows, " in told


def test_frames_are_refused_as_they_are_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    stack()
    for words in (("--frames", "3", "b.tif"), ("b.png",)):
        told = []
        for memory in ("1000000000", FEW):
            monkeypatch.setenv(sizing.MEMORY, memory)
            done = cli("blur", "a.tif", *words)
            assert done.exit_code == 1
            told.append(done.stderr)
        assert told[0] == told[1]
    assert list(snapshot()) == ["a.tif"]


def test_the_report_tells_the_first_page_and_the_checks_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack()
    both("blur", "--check", "a.tif", "--report", "report", monkeypatch=monkeypatch)
    whole, flowed = (json.loads(line) for line in Path("report").read_text().splitlines())
    for name in ("width", "height", "channels", "dtype", "colour", "frames", "bytes_out"):
        assert flowed[name] == whole[name], name
    for name in ("samples", "of", "differing", "largest", "ok"):
        assert flowed["agreement"][name] == whole["agreement"][name], name
    assert flowed["agreement"]["of"] == 3 * (60 * 50 + 80 * 60 + 100 * 70)


class Liar(StandIn):
    """An engine with one wrong sample in the last row of the second page."""

    def __init__(self) -> None:
        self._engine, self._rows = CpuEngine(), 0

    def run(self, pixels: Pixels, *words: Any, **named: Any) -> Result:
        done = self._engine.run(pixels, *words, **named)
        self._rows += len(done.pixels)
        if self._rows == 60 + 80:
            done.pixels[-1, 4, 1] ^= 32768
        return done


def test_a_wrong_sample_is_told_with_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    stack()
    monkeypatch.setenv(sizing.MEMORY, FEW)
    monkeypatch.setattr(engines, "open_engine", lambda *a, **k: Liar())
    done = cli("blur", "--check", "a.tif", "b.tif")
    assert done.exit_code == 1
    assert "error: a.tif: frame 1: DISAGREES" in done.stderr
    assert "x=4 y=79 channel=1" in done.stderr
    assert list(snapshot()) == ["a.tif"]


def test_a_wrong_blend_is_told_with_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    stack()
    monkeypatch.setenv(sizing.MEMORY, FEW)
    monkeypatch.setattr(ends, "wrong_blend", lambda *_: (1, 2, 0))
    done = cli("blur", "--region", "0,0,20,20", "--check", "a.tif", "b.tif")
    assert done.exit_code == 1
    assert "error: a.tif: frame 0: DISAGREES with the reference: the blend is" in done.stderr


def test_a_page_that_is_damaged_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stack()
    with tifffile.TiffFile("a.tif") as file:
        at = file.pages[2].dataoffsets[20] + 5
    data = Path("a.tif").read_bytes()
    Path("a.tif").write_bytes(data[:at] + bytes(60) + data[at + 60 :])
    monkeypatch.setenv(sizing.MEMORY, FEW)
    done = cli("blur", "a.tif", "b.tif")
    assert done.exit_code == 1
    assert "error: a.tif: it is damaged in strip 21" in done.stderr
    assert list(snapshot()) == ["a.tif"]


def test_a_page_that_does_not_go_by_rows_tells_the_memory_that_it_would_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second one is one strip, which is decoded as a whole."""
    with tifffile.TiffWriter("a.tif") as file:
        for height, strip in ((100, 10), (2000, 2000)):
            page = np.zeros((height, 300), np.uint8)
            file.write(page, rowsperstrip=strip, compression="zlib", metadata=None)
    monkeypatch.setenv(sizing.MEMORY, FEW)
    monkeypatch.setattr(by_rows, "free_memory", lambda: 2_000_000)
    done = cli("blur", "a.tif", "b.tif")
    assert done.exit_code == 1
    assert "error: a.tif: frame 1: it would take about 7.2 MB of memory" in done.stderr
    assert "TIFF files of its kind are decoded 2,000 rows at a time" in done.stderr
    assert list(snapshot()) == ["a.tif"]
    assert cli("blur", "a.tif", "b.tif", "--frames", "0").exit_code == 0


def test_a_filter_of_whole_pictures_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stack()
    monkeypatch.setenv(sizing.MEMORY, FEW)
    done = cli("canny", "a.tif", "b.tif")
    assert done.exit_code == 1
    assert ": frame 0: it would take about " in done.stderr
    assert "canny needs the whole picture at once" in done.stderr


def test_progress_goes_on_from_page_to_page(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int, int]] = []
    monkeypatch.setattr(
        "cudafilter.cli.report.Reporter.rows", lambda self, *figures: told.append(figures)
    )
    stack()
    monkeypatch.setenv(sizing.MEMORY, FEW)
    assert cli("blur", "a.tif", "b.tif").exit_code == 0
    done = [figures[0] for figures in told]
    assert done == sorted(done)
    assert len(done) > 3
    assert told[-1] == (3 * 60, 3 * 60, 3 * 60 * 50 * 3)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no peak of memory is told here")
@pytest.mark.parametrize("words", [(), ("--frames", "1")], ids=["all pages", "one page"])
def test_memory_is_that_of_few_bands(words: tuple[str, ...]) -> None:
    """Each page has 48 MB. Page by page, three of them are in work."""
    for name, height in (("small.tif", 100), ("large.tif", 8000)):
        with tifffile.TiffWriter(name) as file:
            for number in range(3):
                page = np.full((height, 2000, 3), number, np.uint8)
                file.write(page, photometric="rgb", rowsperstrip=16, metadata=None)
    peaks = []
    for source in ("small.tif", "large.tif"):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, "blur", "--engine", "cpu", source, "b.tif", *words],
            env={**ENVIRONMENT, sizing.MEMORY: str(24 << 20)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) >> 10)
    assert peaks[1] - peaks[0] < 40  # MB
