"""An image larger than its share of memory is done by rows: the same files, in little memory."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Pil

from agreement import StandIn
from command_line import ENVIRONMENT, call, cli, killed, picture, signalled, snapshot
from cudafilter.check import compare_rows
from cudafilter.cli.progress import Progress
from cudafilter.engines import Result
from cudafilter.engines import open as engines
from cudafilter.engines.cpu import CpuEngine
from cudafilter.errors import LimitError
from cudafilter.formats import rows, tiff_segments
from cudafilter.formats.rows import Header
from cudafilter.images import Image
from cudafilter.jobs import by_rows, sizing
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.operations.pixels import Pixels
from cudafilter.proof.bands import not_by_bands
from cudafilter.stores import local
from image_files import EXIF, LOSSLESS, encode, random_pixels, save

FEW = "20000"
"""Bytes of memory of which a band takes some rows."""


@pytest.fixture(autouse=True)
def place(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sizing.MEMORY, raising=False)
    monkeypatch.setattr(tiff_segments, "STRIP_SIZE", 1000)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sizing.MEMORY, FEW)


def both(*words: str, to: str, monkeypatch: pytest.MonkeyPatch, memory: str = FEW) -> str:
    """Do it in one piece and by rows, into the same bytes; what is told of the rows."""
    whole = cli(*words, f"whole{to}")
    assert whole.exit_code == 0, whole.stderr
    assert "by rows" not in whole.stderr
    monkeypatch.setenv(sizing.MEMORY, memory)
    flowed = cli(*words, f"rows{to}")
    monkeypatch.delenv(sizing.MEMORY)
    assert flowed.exit_code == 0, flowed.stderr
    assert "done by rows" in flowed.stderr
    assert Path(f"rows{to}").read_bytes() == Path(f"whole{to}").read_bytes()
    return flowed.stderr


@pytest.mark.parametrize(("format", "dtype", "channels"), [*LOSSLESS, ("jpeg", "uint8", 3)])
def test_a_file_is_the_same_as_in_one_piece(
    format: str, dtype: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image(random_pixels(dtype, channels, 61, 90), channels in (2, 4))
    path = Path(f"in.{format}")
    path.write_bytes(encode(image, format))
    told = both("blur", "--sigma", "2", str(path), to=f".{format}", monkeypatch=monkeypatch)
    assert re.search(r"done by rows, \d+ at a time: whole it would take about [\d.]+ MB", told)


@pytest.mark.parametrize("border", ["edge", "wrap", "constant", "reflect", "symmetric"])
@pytest.mark.parametrize("source", ["png", "tiff", "ppm"])
@pytest.mark.parametrize(
    "words",
    [
        ("blur", "--sigma", "3"),
        ("median", "--radius", "2"),
        ("tophat",),
        ("chain", "blur --sigma 1 | sobel --border wrap | unsharp"),
    ],
    ids=" ".join,
)
def test_borders_reach_rows_that_are_far_away(
    source: str, border: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(Image(random_pixels("uint8", 3, 80, 60)), Path(f"in.{source}"))
    engine = ("--engine", "cpu") if words[0] == "chain" else ()
    both(*words, "--border", border, f"in.{source}", *engine, to=".tif", monkeypatch=monkeypatch)


@pytest.mark.parametrize("words", [("--gray",), ("--compress-level", "7"), ("--check",)])
def test_options_hold(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    save(Image(random_pixels("uint16", 4, 80, 60), alpha=True), Path("in.png"))
    both("sharpen", *words, "in.png", to=".tif", monkeypatch=monkeypatch)


def test_metadata_is_kept_or_named(little: None) -> None:
    image = random_pixels("uint8", 3, 80, 60)
    Pil.fromarray(image).save("in.png", exif=EXIF, dpi=(72, 72))
    done = cli("blur", "in.png", "out.ppm", "--quality", "3")
    assert "note: in.png: PPM does not hold EXIF" in done.stderr
    assert "the quality is not used" in done.stderr
    cli("blur", "in.png", "out.tif")
    with tifffile.TiffFile("out.tif") as file:
        assert file.pages[0].tags[274].value == 6  # type: ignore[union-attr]


@pytest.mark.parametrize("check", ["--check", "--check=quick"])
@pytest.mark.parametrize("border", ["edge", "wrap"])
def test_each_band_is_checked(check: str, border: str, monkeypatch: pytest.MonkeyPatch) -> None:
    save(Image(random_pixels("uint8", 3, 200, 90)), Path("in.tif"))
    words = ("blur", "--border", border, check, "in.tif", "--report", "report")
    both(*words, to=".png", monkeypatch=monkeypatch)
    whole, flowed = (json.loads(line) for line in Path("report").read_text().splitlines())
    assert flowed["agreement"]["of"] == whole["agreement"]["of"] == 200 * 90 * 3
    assert flowed["agreement"]["ok"]
    assert flowed["agreement"]["samples"] == (4096 if "quick" in check else 200 * 90 * 3)
    if check == "--check":
        assert flowed["agreement"]["differing"] == whole["agreement"]["differing"]
        assert flowed["agreement"]["largest"] == whole["agreement"]["largest"]
    assert whole["elapsed"] is None
    assert flowed["elapsed"] > 0


def test_a_check_of_both_ends_at_once_is_refused(little: None) -> None:
    save(Image(random_pixels("uint8", 3, 80, 60)), Path("in.tif"))
    words = ("chain", "blur | sobel --border wrap", "in.tif", "out.tif", "--engine", "cpu")
    done = cli(*words, "--check")
    assert done.exit_code == 1
    assert "too large to be checked in one piece: steps whose borders are wrap" in done.stderr
    assert cli(*words).exit_code == 0


@pytest.mark.parametrize("check", [(), ("--check",), ("--check=quick",)])
@pytest.mark.parametrize(
    "words",
    [("canny",), ("threshold", "--otsu"), ("chain", "median | threshold --otsu | blur")],
    ids=" ".join,
)
def test_what_needs_the_whole_picture_is_refused(
    words: tuple[str, ...], check: tuple[str, ...], little: None
) -> None:
    save(Image(random_pixels("uint8", 3, 80, 60)), Path("in.tif"))
    done = cli(*words, *check, "in.tif", "out.tif")
    assert done.exit_code == 1
    assert "take about 0.1 MB of memory, more than there is for images:" in done.stderr
    name = "canny" if "canny" in words else "threshold"
    assert f": {name} needs the whole picture at once" in done.stderr
    assert not Path("out.tif").exists()


def test_the_memory_that_is_told_is_that_which_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    save(Image(random_pixels("uint8", 3, 500, 600)), Path("in.png"))
    takes = sizing.footprint(Path("in.png").read_bytes(), "png")
    monkeypatch.setenv(sizing.MEMORY, str(takes))
    assert "done by rows" not in cli("blur", "in.png", "out.png").stderr
    told = cli("blur", "--linear", "in.png", "light.png").stderr
    found = re.search(r"whole it would take about ([\d.]+) MB", told)
    assert found is not None, told
    assert float(found[1]) * 1e6 > takes


def test_what_needs_the_whole_picture_may_take_all_free_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sizing, "free_memory", lambda: 100_000)
    save(Image(random_pixels("uint8", 3, 80, 60)), Path("in.png"))  # takes 72,000
    assert "done by rows" in cli("blur", "in.png", "out.png").stderr
    done = cli("threshold", "--otsu", "in.png", "other.png")
    assert done.exit_code == 0, done.stderr
    assert "done by rows" not in done.stderr


def test_rows_of_what_needs_the_whole_picture_are_not_compared() -> None:
    otsu, pixels = make("threshold", otsu=True), random_pixels("uint8", 1, 9, 9)
    pixels = pixels.reshape(9, 9, 1)
    with pytest.raises(LimitError, match="threshold is checked on the whole picture only"):
        compare_rows(pixels[:3], 0, pixels, otsu, Border(), False)
    assert not_by_bands(otsu, Border()) == "threshold depends on the whole picture"


class Liar(StandIn):
    """An engine with one wrong sample in row *at* of what it is asked for."""

    def __init__(self, at: int) -> None:
        self._engine, self._at, self._rows = CpuEngine(), at, 0

    def run(self, pixels: Pixels, *words: Any, **named: Any) -> Result:
        done = self._engine.run(pixels, *words, **named)
        if self._rows <= self._at < self._rows + len(done.pixels):
            done.pixels[self._at - self._rows, 4, 1] ^= 128
        self._rows += len(done.pixels)
        return done


@pytest.mark.parametrize("row", [0, 37, 79])
def test_a_wrong_sample_is_found_in_its_band(
    row: int, little: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(Image(random_pixels("uint8", 3, 80, 60)), Path("in.tif"))
    monkeypatch.setattr(engines, "open_engine", lambda *a, **k: Liar(row))
    before = snapshot()
    done = cli("blur", "--check", "in.tif", "out.tif")
    assert done.exit_code == 1
    assert f"x=4 y={row} channel=1" in done.stderr
    assert snapshot() == before


@pytest.mark.parametrize("format", ["png", "tif", "ppm"])
def test_what_is_damaged_further_down_leaves_nothing(format: str, little: None) -> None:
    save(Image(random_pixels("uint8", 3, 200, 60)), path := Path(f"in.{format}"))
    data = path.read_bytes()
    for spoilt in (data[: len(data) * 2 // 3], data[:3000] + bytes(900) + data[3900:]):
        path.write_bytes(spoilt)
        before = snapshot()
        done = cli("blur", str(path), "out.png")
        if format == "ppm" and len(spoilt) == len(data):
            assert done.exit_code == 0  # any bytes are samples
            continue
        assert done.exit_code == 1
        assert re.search(rf"error: in\.{format}: it is (damaged|cut short)", done.stderr)
        assert snapshot() == before
        assert cli("blur", str(path), "--in-place").exit_code == 1
        assert snapshot() == before


def test_in_place_the_old_one_goes_when_the_new_one_is_whole(little: None) -> None:
    save(Image(random_pixels("uint8", 3, 200, 60)), Path("in.tif"))
    Path("copy.tif").write_bytes(Path("in.tif").read_bytes())
    assert cli("blur", "in.tif", "--in-place").exit_code == 0
    assert cli("blur", "copy.tif", "out.tif").exit_code == 0
    assert Path("in.tif").read_bytes() == Path("out.tif").read_bytes()
    assert len(snapshot()) == 3


@pytest.mark.parametrize("format", ["tif", "png", "ppm"])
def test_a_header_may_stand_anywhere(
    format: str, little: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TIFF's at the end, or with more tiles than the first bytes of the file tell of."""
    monkeypatch.setattr(sizing, "HEAD", 200)
    monkeypatch.setattr("cudafilter.images.read_file", lambda *_, **__: pytest.fail("it was read"))
    save(Image(random_pixels("uint8", 3, 200, 60)), Path(f"in.{format}"))
    assert cli("blur", f"in.{format}", "out.png").exit_code == 0
    pixels = random_pixels("uint8", 3, 200, 400)
    tifffile.imwrite("in.tif", pixels, photometric="rgb", tile=(16, 16))
    assert cli("blur", "in.tif", "out.png").exit_code == 0


def test_many_images_large_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    for n, height in enumerate((10, 200, 11, 150)):
        save(Image(random_pixels("uint8", 3, height, 60)), Path("in").joinpath(f"{n}.png"))
    assert cli("blur", "-r", "in", "whole").exit_code == 0
    monkeypatch.setenv(sizing.MEMORY, FEW)
    for words in ((), ("-j", "3")):
        done = cli("blur", "-r", "in", "out", "--existing", "overwrite", *words)
        assert done.exit_code == 0, done.stderr
        assert "(2 images)" in done.stderr or done.stderr.count("done by rows") == 2
        for path in Path("whole").iterdir():
            assert Path("out", path.name).read_bytes() == path.read_bytes()


def test_pipes_get_the_rows_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    save(Image(random_pixels("uint8", 3, 200, 60)), Path("in.png"))
    assert cli("blur", "in.png", "whole.png").exit_code == 0
    monkeypatch.setitem(ENVIRONMENT, sizing.MEMORY, FEW)
    data = Path("in.png").read_bytes()
    done = call("blur", "--engine", "cpu", "-", "-", stdin=data)
    assert done.returncode == 0, done.stderr
    assert done.stdout == Path("whole.png").read_bytes()
    save(Image(random_pixels("uint8", 3, 200, 60)), Path("in.tif"))
    refused = call("blur", "--engine", "cpu", "in.tif", "-")
    assert refused.returncode == 1
    assert b"a pipe takes it only if all of it is in memory (write it to a file)" in refused.stderr


def test_what_cannot_stream_tells_the_memory_that_it_would_take(
    little: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_rows, "free_memory", lambda: 2_000_000)
    random = np.random.default_rng(0).integers(0, 256, (900, 1000, 3), np.uint8)
    for name in ("in.webp", "in.ppm"):
        save(Image(random), Path(name))
    Path("text.ppm").write_bytes(b"P2 1500 1000 255\n" + b"7 " * 1_500_000)
    tifffile.imwrite("in.tif", random, photometric="rgb", compression="zlib", rowsperstrip=900)
    free = "MB of memory, and 2.0 MB are free"
    for source, target, reason in [
        ("in.webp", "o.png", f"22 {free}: WEBP files of its kind are decoded as a whole"),
        ("in.ppm", "o.webp", f"{free}: WEBP files are encoded as a whole"),
        ("text.ppm", "o.pgm", f"{free}: PGM files of its kind are decoded as a whole"),
        ("in.tif", "o.png", f"{free}: TIFF files of its kind are decoded 900 rows at a time"),
    ]:  # fmt: skip
        done = cli("blur", source, target)
        assert done.exit_code == 1
        assert reason in done.stderr
        assert "(convert it to TIFF in small strips or tiles first" in done.stderr
    monkeypatch.setattr(by_rows, "free_memory", lambda: 1 << 30)
    assert cli("blur", "in.webp", "o.png").exit_code == 0


def test_a_size_that_the_file_cannot_hold_is_told_before_memory(
    little: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory was too little for what a damaged header says, the hint was to convert it."""
    monkeypatch.setattr(by_rows, "free_memory", lambda: 2_000_000)
    data = bytearray(encode(Image(random_pixels("uint8", 3, 16, 16)), "jpeg"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (65_500).to_bytes(2, "big") * 2
    Path("in.jpg").write_bytes(data)
    done = cli("blur", "in.jpg", "out.jpg")
    assert "65500 x 65500 are 4,290,250,000 pixels, more than the" in done.stderr
    assert "convert it" not in done.stderr


def test_a_size_past_the_usual_limit_is_read_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cudafilter.formats.limits.MAX_PIXELS", 1000)
    save(Image(random_pixels("uint8", 3, 80, 60)), Path("in.tif"))
    assert "more than the 1,000 that are read" in cli("blur", "in.tif", "out.tif").stderr
    monkeypatch.setenv(sizing.MEMORY, FEW)
    assert cli("blur", "in.tif", "out.tif").exit_code == 0
    assert "more than the 4,000" in cli("blur", "--max-pixels", "4000", "in.tif", "out.tif").stderr


def test_memory_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    save(Image(random_pixels("uint8", 3, 8, 6)), Path("in.tif"))
    for wrong in ("1e9", "0", "-1", "much"):
        monkeypatch.setenv(sizing.MEMORY, wrong)
        done = cli("blur", "in.tif", "out.tif")
        assert done.exit_code == 2
        assert f"CUDAFILTER_MEMORY must be a number of bytes, not '{wrong}'" in done.stderr


def test_progress_tells_of_rows(little: None, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[int, int, str]] = []
    monkeypatch.setattr(
        Progress, "_show", lambda self, now: shown.append((self.done, self.total, self.what))
    )
    monkeypatch.setattr(
        "cudafilter.cli.progress.progress",
        lambda total, what, size: Progress(total, what=f"{what} of {size} bytes"),
    )
    save(Image(random_pixels("uint8", 3, 80, 60)), Path("in.tif"))
    assert cli("blur", "in.tif", "out.png").exit_code == 0
    assert shown[-1] == (80, 80, f"rows of {80 * 60 * 3} bytes")
    assert len(shown) > 1


def large(path: Path, height: int = 12288) -> None:
    """A PPM of 3072 columns: 113 MB of pixels."""
    band = np.random.default_rng(0).integers(0, 64, (256, 3072, 3), np.uint8)

    def fill(target: Any) -> None:
        writer = rows.create("ppm", target, Header(3072, height, 3, "uint8"))
        for _ in range(height // 256):
            writer.write(band)
        writer.close()

    local.write_whole(local.resolve(path), fill)


PEAK = """
import re, sys
from pathlib import Path
from cudafilter.cli import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    assert not end.code
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no peak of memory is told here")
@pytest.mark.parametrize("target", ["ppm", "png", "tif"])
def test_memory_is_that_of_few_bands(target: str) -> None:
    large(Path("in.ppm"))
    large(Path("small.ppm"), 256)
    peaks = []
    for source in ("small.ppm", "in.ppm"):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, "blur", "--engine", "cpu", source, f"out.{target}"],
            env={**ENVIRONMENT, sizing.MEMORY: str(24 << 20)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert Path(f"out.{target}").exists(), done.stderr
        peaks.append(int(done.stdout) >> 10)
    assert peaks[1] - peaks[0] < 40  # MB, of 113 and 565


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing(stop: signal.Signals, little: None) -> None:
    picture("in.png", (100, 200))
    done = signalled(stop, "write", 20, "blur", "--engine", "cpu", "in.png", "out.ppm")
    assert done.returncode == 130
    assert "interrupted" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in Path().iterdir()] == ["in.png"]


@pytest.mark.parametrize("writes", [1, 2, 20])
def test_a_kill_leaves_nothing_after_the_next_run(writes: int, little: None) -> None:
    picture("in.png", (100, 200))
    words = ["blur", "--engine", "cpu", "in.png", "out.ppm"]
    killed("write", writes, *words)
    temporary, source = sorted(path.name for path in Path().iterdir())
    assert temporary.startswith(".cudafilter-")
    assert source == "in.png"
    assert call(*words).returncode == 0
    assert sorted(path.name for path in Path().iterdir()) == ["in.png", "out.ppm"]
