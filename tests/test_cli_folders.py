"""Folders through the command line: once, watched, and with a bar that tells how far it is."""

from __future__ import annotations

import gc
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from command_line import ENVIRONMENT, PROGRAM, call, cli, folder, picture, python, snapshot
from cudafilter.cli.progress import Progress
from cudafilter.cli.report import JsonLines
from cudafilter.jobs.record import Record

__all__ = ["folder"]

pytestmark = pytest.mark.usefixtures("here")


class TestFolder:
    def test_is_done_in_spite_of_a_broken_image(self, folder: Path) -> None:
        result = cli("sobel", "-r", "in/", "out/")
        assert result.exit_code == 1
        assert sorted(snapshot("out")) == ["out/a.png", "out/b.jpg", "out/s/c.png"]
        lines = result.stderr.splitlines()
        assert [line for line in lines if line.startswith("error: in/broken.png: ")]
        assert lines[-1].startswith("3 done, 0 skipped, 1 failed, 1 left alone; ")
        assert lines[-1].endswith("images/s")
        assert result.stdout == ""

    def test_check_is_summed_up_with_the_worst(self, folder: Path) -> None:
        result = cli("blur", "-r", "--check", "in", "out")
        assert "check: 3 of 3 images agree with the reference" in result.stderr
        assert "  worst in/" in result.stderr

    def test_verbose_tells_each_image_and_quiet_errors_only(self, folder: Path) -> None:
        assert "in/s/c.png -> out/s/c.png" in cli("box", "-rv", "in", "out").stderr
        quiet = cli("box", "-rq", "in", "out").stderr.splitlines()
        assert [line.split(":")[1].strip() for line in quiet] == ["in/broken.png"]

    def test_dry_run_lists_and_touches_nothing(self, folder: Path) -> None:
        before = snapshot()
        result = cli("sobel", "-r", "in", "out", "--format", "png", "--dry-run")
        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            "in/a.png -> out/a.png",
            "in/b.jpg -> out/b.png",
            "in/broken.png -> out/broken.png",
            "in/s/c.png -> out/s/c.png",
        ]
        assert "4 to do, 0 skipped, 1 left alone" in result.stderr
        assert snapshot() == before

    def test_skip_resumes(self, folder: Path) -> None:
        picture("out/a.png", (5, 5))
        before = Path("out/a.png").read_bytes()
        result = cli("sobel", "-r", "in", "out", "--existing", "skip", "--report", "r.jsonl")
        assert "2 done, 1 skipped, 1 failed" in result.stderr
        assert Path("out/a.png").read_bytes() == before
        lines = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
        assert sorted((line["source"], line["status"]) for line in lines) == [
            ("in/a.png", "skipped"),
            ("in/b.jpg", "done"),
            ("in/broken.png", "failed"),
            ("in/s/c.png", "done"),
        ]
        assert next(line for line in lines if line["status"] == "failed")["error"]

    def test_a_report_is_written_as_the_images_end(self) -> None:
        with JsonLines("r.jsonl") as report:
            report.write(Record("a.png", "b.png"))
            assert json.loads(Path("r.jsonl").read_text())["source"] == "a.png"

    def test_a_report_may_go_to_stdout(self, folder: Path) -> None:
        result = cli("sobel", "-r", "in", "out", "--report", "-")
        assert {json.loads(line)["source"] for line in result.stdout.splitlines()} == {
            "in/a.png", "in/b.jpg", "in/broken.png", "in/s/c.png",
        }  # fmt: skip

    def test_what_the_plan_refuses_is_reported_and_fails(self, folder: Path) -> None:
        Image.new("1", (4, 4)).save("in/z.pbm")
        result = cli("box", "-r", "in", "out", "--report", "r.jsonl")
        assert result.exit_code == 1
        assert "error: in/z.pbm: pbm files are not written" in result.stderr
        assert "3 done, 0 skipped, 2 failed" in result.stderr
        assert len(Path("r.jsonl").read_text().splitlines()) == 5
        dry = cli("box", "-r", "in", "out", "--dry-run")
        assert dry.exit_code == 1
        assert "error: in/z.pbm" in dry.stderr

    def test_equal_stems_stop_it(self, folder: Path) -> None:
        picture("in/a.jpg")
        result = cli("sobel", "-r", "in", "out", "--format", "png")
        assert result.exit_code == 2
        assert "in/a.jpg and in/a.png would both become out/a.png" in result.stderr
        assert not Path("out").exists()

    def test_in_place_replaces_each(self, folder: Path) -> None:
        before = snapshot("in")
        assert cli("blur", "-r", "in", "--in-place").exit_code == 1
        after = snapshot("in")
        assert after.keys() == before.keys()
        changed = {name for name in after if after[name] != before[name]}
        assert changed == {"in/a.png", "in/b.jpg", "in/s/c.png"}

    def test_nothing_to_do_is_no_error(self) -> None:
        Path("in").mkdir()
        Path("in/x.txt").touch()
        result = cli("blur", "-r", "in", "out")
        assert result.exit_code == 0
        assert "0 done, 0 skipped, 0 failed, 1 left alone" in result.stderr

    def test_lost_metadata_is_told_once_with_a_count(self) -> None:
        exif = Image.Exif()
        exif[0x010E] = "a picture"
        for n in range(3):
            Path("in").mkdir(exist_ok=True)
            Image.new("RGB", (8, 8)).save(f"in/{n}.jpg", exif=exif)
        told = cli("box", "-r", "in", "out", "--format", "bmp").stderr.splitlines()
        notes = [line for line in told if line.startswith("note: ")]
        assert notes
        assert all(line.endswith("(3 images)") for line in notes)
        each = cli("box", "-rv", "in", "out", "--format", "bmp").stderr
        assert "note: in/0.jpg: BMP does not hold" in each

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc's malloc")
    def test_memory_of_one_image_serves_the_next(self) -> None:
        code = """
import resource
import numpy as np
from cudafilter.host.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(36 << 20, np.uint8)[::4096] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
print(faults(), faults())
"""
        first, second = map(int, python(code).split())
        assert second < 5 < first

    def test_libraries_start_no_threads_beside_ours(self) -> None:
        code = (
            "import os, sys, cudafilter.cli as cli; cli._leave = lambda code: None;"
            " from cudafilter.__main__ import main;"
            " sys.argv[1:] = ['--version']; main(); import cv2; print(cv2.getNumThreads());"
            " print(len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 1)"
        )
        told = python(code, without=("OPENCV_FOR_THREADS_NUM", "OPENBLAS_NUM_THREADS"))
        assert told.split()[-2:] == ["1", "1"]

    def test_no_garbage_is_looked_for_until_the_engine_is_open(self) -> None:
        picture("in.png")
        code = """
import gc, sys, cudafilter.cli as cli
from cudafilter.engines import open as engines
open_engine, seen = engines.open_engine, []
def opened(*args, **options):
    seen.append(gc.isenabled())
    engine = open_engine(*args, **options)
    run = engine.run
    engine.run = lambda *a, **b: (seen.append(gc.isenabled()), run(*a, **b))[1]
    return engine
engines.open_engine = opened
cli._leave = lambda code: print(code, seen)
sys.argv[1:] = ["blur", "-q", "--engine", "cpu", "in.png", "out.png"]
cli.main()
"""
        assert python(code) == "0 [False, True]\n"
        gc.disable()
        try:
            cli("blur", "--dry-run", "in.png", "out.png")
            assert gc.isenabled()
        finally:
            gc.enable()


class TestWatch:
    def test_filters_what_is_there_and_what_arrives_until_interrupted(self) -> None:
        picture("in/a.png")
        process = subprocess.Popen(
            [*PROGRAM, "box", "--engine", "cpu", "--watch", "-r", "in", "out"],
            env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        told = [process.stderr.readline() for _ in range(2)]
        picture("b.png").rename("in/b.png")
        told.append(process.stderr.readline())
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        told += process.communicate(timeout=20)[1].splitlines()
        assert process.returncode == 0, "it ends as it should: nothing is left undone"
        assert told[0].startswith("cpu: ")
        assert told[1].startswith("in/a.png -> out/a.png 32x24 RGB uint8")
        assert told[2].startswith("in/b.png -> out/b.png 32x24 RGB uint8")
        assert told[3].startswith("2 done, 0 skipped, 0 failed, 0 left alone; ")
        assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png"]

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ("in --in-place", "'--watch': in place, each result would be filtered again"),
            ("- out.png", "'--watch': watches folders"),
            ("-r in out --dry-run", "--watch does not end"),
        ],
    )
    def test_what_cannot_be_watched_is_refused(self, arguments: str, told: str) -> None:
        picture("in/a.png")
        result = cli("box", "--watch", *arguments.split())
        assert result.exit_code == 2
        assert told in " ".join(result.stderr.split())
        assert not Path("out").exists()


class TestProgress:
    def test_a_terminal_has_a_bar_of_one_line(self, folder: Path) -> None:
        controller, terminal = pty.openpty()
        process = subprocess.Popen(
            [*PROGRAM, "sobel", "--engine", "cpu", "-r", "in", "out"],
            stdout=subprocess.DEVNULL, stderr=terminal,
            env={**ENVIRONMENT, "TERM": "xterm"},
        )  # fmt: skip
        os.close(terminal)
        shown = b""
        while True:
            try:
                chunk = os.read(controller, 4096)
            except OSError:  # EIO: the other end is closed
                break
            if not chunk:
                break
            shown += chunk
        os.close(controller)
        assert process.wait() == 1
        assert b"] 4/4  " in shown
        assert b"images/s" in shown

    def test_a_pipe_has_none(self, folder: Path) -> None:
        told = call("sobel", "--engine", "cpu", "-r", "in", "out").stderr
        assert b"\r" not in told
        assert b"\x1b" not in told

    @pytest.mark.parametrize("columns", [20, 40, 79])
    @pytest.mark.parametrize("done", [0, 1, 99999])
    def test_the_line_fits(self, columns: int, done: int) -> None:
        progress = Progress(100000, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        progress.done = progress._worked = done
        assert len(progress.line(12345.6, columns)) <= columns

    def test_time_left_is_by_the_images_that_took_work(self) -> None:
        progress = Progress(100, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        for n in range(50):
            progress.advance(worked=n >= 40)
        assert "50/100  2 images/s  0:25 left" in progress.line(5.0, 79)
