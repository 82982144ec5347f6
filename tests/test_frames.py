"""Files of several frames on the command line: which are taken, checked, told, and left whole."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil

from animations import MAKERS, PATCHES, by_pillow, patch, written
from command_line import call, cli, picture, snapshot
from cudafilter.engines import Result
from cudafilter.errors import ImageError, ParameterError
from cudafilter.images import Frames, load
from cudafilter.jobs import crew
from cudafilter.jobs.frames import picked, side_by_side
from cudafilter.jobs.plan import Job
from cudafilter.jobs.record import Record
from cudafilter.jobs.worker import Settings
from cudafilter.operations.borders import Border
from cudafilter.operations.choices import LAST, frame_numbers
from cudafilter.operations.pixels import Pixels
from many_images import BLUR, StandIn

pytestmark = pytest.mark.usefixtures("here")
IDENTITY = ("kernel", "-w", "1")


def animation(path: str | Path, frames: int = 6) -> Path:
    """An animation whose times tell its frames: 10 ms, 20 ms, and so on."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    patches = [patch(n, ms=10 * n + 10) for n in range(frames)]
    path.write_bytes(MAKERS[path.suffix[1:]](patches, 3))
    return path


class TestPicking:
    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("0", (range(1),)),
            ("0,2-4", (range(1), range(2, 5))),
            (" 1 , 3- ", (range(1, 2), range(3, LAST + 1))),
            ("5-5,6", (range(5, 6), range(6, 7))),
        ],
    )
    def test_numbers_and_ranges(self, text: str, parts: tuple[range, ...]) -> None:
        assert frame_numbers(text) == parts

    @pytest.mark.parametrize("text", ["", "a", "-1", "1,1", "3,2", "4-2", "0-3,3", "1,,2", "1-2-3"])
    def test_what_makes_no_sense_is_refused(self, text: str) -> None:
        with pytest.raises(ParameterError, match="numbers from 0 on that rise"):
            frame_numbers(text)

    @pytest.mark.parametrize("format", MAKERS)
    @pytest.mark.parametrize(
        ("asked", "numbers"), [("0,2-4", [0, 2, 3, 4]), ("4-", [4, 5]), ("1,5", [1, 5])]
    )
    def test_only_these_are_written_with_their_times(
        self, format: str, asked: str, numbers: list[int]
    ) -> None:
        animation(f"a.{format}")
        assert cli(*IDENTITY, "--frames", asked, f"a.{format}", f"b.{format}").exit_code == 0
        whole, few = by_pillow(Path(f"a.{format}")), by_pillow(Path(f"b.{format}"))
        assert few.ms == [whole.ms[n] for n in numbers]
        for number, frame in zip(numbers, few.frames, strict=True):
            np.testing.assert_array_equal(frame, whole.frames[number])
        assert few.plays == 3

    @pytest.mark.parametrize("option", [["--first-frame"], ["--frames", "0"], ["--frames", "3"]])
    def test_one_frame_makes_a_still(self, option: list[str]) -> None:
        animation("a.gif")
        assert cli(*IDENTITY, *option, "a.gif", "b.png").exit_code == 0
        number = 3 if "3" in option else 0
        frame = list(Frames(Path("a.gif").read_bytes(), "a"))[number]
        still = load(Path("b.png"))
        np.testing.assert_array_equal(still.pixels, frame.pixels)
        assert cli("blur", *option, "a.gif", "b.jpg").exit_code == 0

    def test_a_picture_is_its_own_first_frame(self) -> None:
        picture("a.png")
        assert cli("blur", "--first-frame", "a.png", "b.png").exit_code == 0
        assert cli("blur", "a.png", "c.png").exit_code == 0
        assert Path("b.png").read_bytes() == Path("c.png").read_bytes()

    @pytest.mark.parametrize(
        ("asked", "told"),
        [
            ("6", "it has 6 frames, 0 to 5, and 6 was asked for"),
            ("0,3-9", "it has 6 frames, 0 to 5, and 6 was asked for"),
            ("8-", "it has 6 frames, 0 to 5, and 8 was asked for"),
        ],
    )
    def test_a_frame_that_is_not_there_is_told(self, asked: str, told: str) -> None:
        animation("a.gif")
        done = cli("blur", "--frames", asked, "a.gif", "b.gif")
        assert done.exit_code == 1
        assert f"error: a.gif: {told}" in done.stderr
        assert not Path("b.gif").exists()
        picture("c.png")
        done = cli("blur", "--frames", "1", "c.png", "d.png")
        assert "error: c.png: it has one frame, which is 0, and 1 was asked for" in done.stderr

    def test_in_place_would_lose_the_others(self) -> None:
        before = animation("a.gif").read_bytes()
        for option in (["--first-frame"], ["--frames", "1"]):
            done = cli("blur", "--in-place", *option, "a.gif")
            assert done.exit_code == 2
            assert "would be lost" in done.stderr
        assert Path("a.gif").read_bytes() == before
        both = cli("blur", "--first-frame", "--frames", "1", "a.gif", "b.gif")
        assert both.exit_code == 2

    def test_all_pages_have_no_times(self) -> None:
        with pytest.raises(ImageError, match="GIF holds frames only with their times"):
            picked(None, "gif", 3, timed=False)


class TestDestinations:
    @pytest.mark.parametrize("target", ["jpg", "bmp", "ppm"])
    def test_one_that_holds_one_picture_is_refused_with_the_way_out(self, target: str) -> None:
        animation("a.gif")
        done = cli("blur", "a.gif", f"b.{target}")
        assert done.exit_code == 1
        assert re.search(
            r"error: a.gif: it holds 6 frames, and [A-Z]+ holds only one \(choose \.png.*, or"
            r" --first-frame for the first one only\)\n",
            done.stderr,
        )
        assert not Path(f"b.{target}").exists()

    @pytest.mark.parametrize("format", MAKERS)
    def test_streams_take_animations(self, format: str) -> None:
        data = animation(f"a.{format}").read_bytes()
        assert cli("blur", f"a.{format}", f"b.{format}").exit_code == 0
        done = call("blur", "--engine", "cpu", "-", "-", stdin=data)
        assert done.returncode == 0
        assert done.stdout == Path(f"b.{format}").read_bytes()

    @pytest.mark.parametrize("format", MAKERS)
    def test_in_place(self, format: str) -> None:
        animation(f"a.{format}")
        assert cli("blur", f"a.{format}", f"b.{format}").exit_code == 0
        assert cli("blur", f"a.{format}", "--in-place").exit_code == 0
        assert Path(f"a.{format}").read_bytes() == Path(f"b.{format}").read_bytes()

    def test_a_folder_with_animations_does_not_fail(self) -> None:
        for format in MAKERS:
            animation(f"in/{format}.{format}")
        picture("in/a.jpg")
        done = cli("blur", "-r", "in", "out")
        assert done.exit_code == 0, done.stderr
        assert "4 done, 0 skipped, 0 failed" in done.stderr
        for format in MAKERS:
            assert len(by_pillow(Path(f"out/{format}.{format}")).frames) == 6

    def test_one_met_in_a_folder_is_named_where_it_fits_nowhere(self) -> None:
        animation("in/a.gif")
        animation("in/s/b.webp")
        picture("in/c.png")
        done = cli("blur", "-r", "in", "out", "--format", "jpeg", "--report", "r.jsonl")
        assert done.exit_code == 0, done.stderr
        (told,) = (line for line in done.stderr.splitlines() if line.startswith("left alone"))
        why, _, names = told.rpartition(": ")
        assert re.search(r"of several frames \(choose .*, or --first-frame for the first one", why)
        assert set(names.split(", ")) == {"in/a.gif", "in/s/b.webp"}
        assert "1 done, 0 skipped, 0 failed, 2 left alone" in done.stderr
        records = map(json.loads, Path("r.jsonl").read_text().splitlines())
        assert sorted(record["status"] for record in records) == ["done"] + ["left alone"] * 2
        assert [str(path) for path in sorted(Path("out").rglob("*.*"))] == ["out/c.jpg"]
        strict = cli("blur", "-r", "in", "out", "--format", "jpeg", "--strict")
        assert strict.exit_code == 1
        assert "1 done, 0 skipped, 2 failed" in strict.stderr
        named = cli("blur", "in/a.gif", "in/c.png", "out", "--format", "jpeg")
        assert named.exit_code == 1
        assert "error: in/a.gif: it holds 6 frames, and JPEG holds only one" in named.stderr
        first = cli("blur", "-r", "in", "out", "--format", "jpeg", "--first-frame")
        assert "3 done, 0 skipped, 0 failed" in first.stderr


class TestTelling:
    def test_lines_and_the_report_tell_frames(self) -> None:
        animation("a.gif")
        picture("c.png")
        done = cli("blur", "--check", "a.gif", "b.png", "--report", "r.jsonl", "-v")
        assert re.search(r"a.gif -> b.png 24x18 RGB uint8, 6 frames, \d", done.stderr)
        cli("blur", "c.png", "d.png", "--report", "r.jsonl")
        moving, still = map(json.loads, Path("r.jsonl").read_text().splitlines())
        assert (moving["frames"], still["frames"]) == (6, 1)
        assert (moving["width"], moving["height"], moving["channels"]) == (24, 18, 3)
        assert moving["bytes_out"] == Path("b.png").stat().st_size
        assert moving["agreement"]["samples"] == 6 * 24 * 18 * 3
        assert moving["seconds"].keys() == {"read", "decode", "run", "check", "encode"}
        assert moving["notes"].count("palette expanded to RGB") == 1

    def test_a_quick_check_counts_all_frames(self) -> None:
        rng = np.random.default_rng(0)
        frames = [rng.integers(0, 256, (60, 50, 3), np.uint8) for _ in range(3)]
        Path("a.webp").write_bytes(written("webp", frames))
        done = cli("median", "--check=quick", "a.webp", "b.webp", "--report", "r.jsonl")
        told = json.loads(Path("r.jsonl").read_text())["agreement"]
        assert done.exit_code == 0
        assert (told["samples"], told["of"]) == (3 * 4096, 3 * 9000)

    def test_a_frame_that_disagrees_is_named_and_nothing_written(self) -> None:
        animation("a.gif")
        seen: list[int] = []

        class Wrong(StandIn):
            def run(self, pixels: Pixels, *arguments: Any, **options: Any) -> Result:
                seen.append(len(seen))
                engine = super().run(pixels, *arguments, **options)
                result = engine.pixels.copy()
                if len(seen) == 4:
                    result[5, 7, 1] ^= 64
                return engine._replace(pixels=result)

        records: list[Record] = []
        from cudafilter.operations.make import make

        identity = make("kernel", weights="1")
        jobs = [Job(Path("a.gif"), Path("b.gif"), "gif")]
        settings = Settings(check="all")
        crew.run(jobs, Wrong, identity, Border(), settings, records.append)
        (record,) = records
        assert str(record.error).startswith("frame 3: DISAGREES with the reference: 1 samples")
        assert "x=7 y=5 channel=1" in str(record.error)
        assert record.agreement is not None
        assert record.agreement.violations == 1
        assert not Path("b.gif").exists()
        assert list(snapshot()) == ["a.gif"]
        assert len(seen) <= 6


def damages(format: str, data: bytes) -> list[bytes]:
    """Cuts at many places, and single bytes changed."""
    rng = np.random.default_rng(5)
    made = [data[:length] for length in range(14, len(data) - 1, max(1, len(data) // 150))]
    for at in rng.integers(0, len(data), 150):
        made.append(data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :])
    return made


class TestDamage:
    @pytest.mark.parametrize("format", MAKERS)
    def test_what_is_cut_is_refused_and_what_is_changed_told_in_a_line(self, format: str) -> None:
        data = animation(f"a.{format}").read_bytes()
        for made in damages(format, data):
            told = None
            try:
                frames = list(Frames(made, "anim"))
            except ImageError as error:
                told = str(error)
            if told is None:
                assert len(made) == len(data)
                assert len(frames) <= 6
            else:
                assert re.fullmatch(r"anim: (it |its |[\d,]+ x )[^\n]*", told)

    @pytest.mark.parametrize("format", MAKERS)
    def test_damage_in_a_late_frame_leaves_nothing(self, format: str) -> None:
        path = animation(f"a.{format}", 9)
        data = bytearray(path.read_bytes())
        at = len(data) - (60 if format == "png" else 30)
        data[at : at + 8] = bytes(8)
        if format == "gif":  # codes past those that are known
            data[at : at + 8] = b"\xff" * 8
        path.write_bytes(data)
        done = cli("blur", f"a.{format}", "b.png")
        assert done.exit_code == 1
        assert len(re.findall(r"^error: a\.\w+: it is damaged[^\n]*$", done.stderr, re.M)) == 1
        assert list(snapshot()) == [f"a.{format}"]

    def test_an_apng_of_other_frames_than_it_tells_is_refused(self) -> None:
        from image_files import chunk

        data = MAKERS["png"](PATCHES["offsets"])
        for told, reason in [(4, "tells of 4 frames and holds 3"), (2, "tells of 2 frames")]:
            at = data.index(b"acTL")
            body = told.to_bytes(4, "big") + bytes(4)
            made = data[: at - 4] + chunk(b"acTL", body) + data[at + 16 :]
            with pytest.raises(ImageError, match=reason):
                list(Frames(made, "a"))

    @pytest.mark.parametrize(
        ("field", "value"), [(0, 7), (1, 0), (1, 25), (2, 19), (3, 1), (4, 1 << 31), (7, 3), (8, 2)]
    )
    def test_an_apng_whose_frame_makes_no_sense_is_refused(self, field: int, value: int) -> None:
        import struct

        from image_files import chunk

        data = MAKERS["png"](PATCHES["whole frames"])
        at = data.index(b"fcTL")
        parts = list(struct.unpack(">IIIIIHHBB", data[at + 4 : at + 30]))
        parts[field] = value
        body = struct.pack(">IIIIIHHBB", *parts)
        with pytest.raises(ImageError, match="it is damaged"):
            list(Frames(data[: at - 4] + chunk(b"fcTL", body) + data[at + 34 :], "a"))


MANY = r"""
import re, sys
from pathlib import Path
from click.testing import CliRunner
from cudafilter.cli import app

def peak():
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) >> 10

def do(path):
    done = CliRunner().invoke(app, ["box", "--engine", "cpu", path, "out." + path[-3:]])
    assert done.exit_code == 0, done.stderr

do("few" + sys.argv[1])
before = peak()
do("many" + sys.argv[1])
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no peak of memory is told here")
@pytest.mark.parametrize("end", [".gif", ".png"])
def test_hundreds_of_frames_take_the_memory_of_a_few(end: str) -> None:
    def save(path: str, count: int) -> None:
        frames = [Pil.new("RGB", (320, 240), (n % 256, n // 4, 9)) for n in range(count)]
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=20)

    save(f"few{end}", 20)
    save(f"many{end}", 300)  # 69 MB of pixels
    done = subprocess.run(
        [sys.executable, "-c", MANY, end], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16  # MB


class TestSideBySide:
    def test_all_come_in_order(self) -> None:
        for count in range(6):
            got: list[int] = []
            side_by_side(iter(range(count)), lambda n: n * n, got.append)
            assert got == [n * n for n in range(count)]

    def test_one_is_taken_while_others_are_made_and_put(self) -> None:
        together = threading.Barrier(3)

        def waits(n: int) -> int:
            if n == 1:
                together.wait(5)
            return n

        def coming() -> Any:
            for n in range(3):
                if n == 2:
                    together.wait(5)
                yield n

        def put(n: int) -> None:
            if n == 0:
                together.wait(5)

        side_by_side(coming(), waits, put)


def test_an_interruption_leaves_no_part_of_an_animation() -> None:
    animation("a.gif", 50)
    seen: list[int] = []

    class Interrupted(StandIn):
        def run(self, pixels: Pixels, *arguments: Any, **options: Any) -> Result:
            seen.append(1)
            if len(seen) == 5:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                threading.Event().wait(0.2)
            return super().run(pixels, *arguments, **options)

    jobs = [Job(Path("a.gif"), Path("out/b.gif"), "gif")]
    with pytest.raises(KeyboardInterrupt):
        crew.run(jobs, Interrupted, BLUR, Border(), Settings(), lambda record: None)
    assert len(seen) < 20
    assert list(snapshot()) == ["a.gif"]
