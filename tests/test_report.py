"""The report, the lines without a terminal, and output that cannot be written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cudafilter
from command_line import ENVIRONMENT, PROGRAM, cli
from cudafilter.cli.progress import Lines, Progress, progress

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


def lines(path: str = "r.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture(autouse=True)
def photos(here: Path) -> None:
    Path("in").mkdir()
    for name in "abc":
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(f"in/{name}.png")


def test_every_line_tells_the_job_and_the_times() -> None:
    Path("in/d.png").write_bytes(b"no image")
    before = datetime.now(UTC)
    shared = ("--border", "constant", "--border-value", "0.5", "--report", "r.jsonl")
    assert cli("blur", "-r", "in", "out", "--sigma", "1.5", *shared).exit_code == 1
    assert len(lines()) == 4
    for line in lines():
        assert line["version"] == cudafilter.__version__
        assert (line["filter"], line["parameters"]) == ("blur", {"sigma": 1.5, "radius": None})
        assert (line["border"], line["border_value"]) == ("constant", 0.5)
        start, end = (datetime.fromisoformat(line[name]) for name in ("start", "end"))
        job = datetime.fromisoformat(line["job_start"])
        slack = 0.002  # times are cut to milliseconds
        assert before.timestamp() - slack <= job.timestamp() <= start.timestamp() + slack
        assert start <= end <= datetime.now(UTC)
        if line["status"] == "done":
            assert line["engine"].startswith("cpu: ")


def test_a_second_run_adds_to_the_report() -> None:
    assert cli("box", "-r", "in", "out", "--report", "r.jsonl").exit_code == 0
    first = Path("r.jsonl").read_bytes()
    again = cli("box", "-r", "in", "out", "--existing", "skip", "--report", "r.jsonl")
    assert again.exit_code == 0
    assert Path("r.jsonl").read_bytes().startswith(first)
    assert [line["status"] for line in lines()] == ["done"] * 3 + ["skipped"] * 3
    assert len({line["job_start"] for line in lines()}) == 2


def test_a_line_that_was_cut_off_spoils_no_other() -> None:
    Path("r.jsonl").write_text('{"source": "whole"}\n{"source": "cu')
    assert cli("box", "-r", "in", "out", "--report", "r.jsonl").exit_code == 0
    whole, cut, *more = Path("r.jsonl").read_text().splitlines()
    assert cut == '{"source": "cu'
    assert [json.loads(line)["status"] for line in more] == ["done"] * 3
    assert json.loads(whole) == {"source": "whole"}


@needs_full
def test_a_report_that_is_lost_stops_no_image() -> None:
    result = cli("box", "-r", "in", "out", "--report", "/dev/full")
    assert result.exit_code == 1
    assert len(list(Path("out").iterdir())) == 3
    told = result.stderr.splitlines()
    assert [line for line in told if line.startswith("error: ")] == [
        "error: cannot write the report /dev/full: No space left on device;"
        " the images go on without it"
    ]
    assert told[-1].startswith("3 done, 0 skipped, 0 failed")


def test_a_report_whose_reader_has_gone_stops_no_image() -> None:
    os.mkfifo("pipe")
    reader = threading.Thread(target=lambda: os.close(os.open("pipe", os.O_RDONLY)))
    reader.start()
    result = cli("box", "-r", "in", "out", "--report", "pipe", "-j", "1")
    reader.join()
    assert len(list(Path("out").iterdir())) == 3
    assert result.exit_code == 1
    assert "error: cannot write the report pipe: Broken pipe" in result.stderr


def test_a_pipe_takes_a_report() -> None:
    os.mkfifo("pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.extend(Path("pipe").read_text().splitlines()))
    reader.start()
    assert cli("box", "-r", "in", "out", "--report", "pipe").exit_code == 0
    reader.join()
    assert {json.loads(line)["status"] for line in read} == {"done"}


@pytest.mark.parametrize("path", ["in", "none/r.jsonl", "in/a.png/r.jsonl"])
def test_a_report_that_cannot_be_opened_is_found_before_any_work(path: str) -> None:
    result = cli("box", "-r", "in", "out", "--report", path)
    assert result.exit_code == 2
    assert f"'--report': cannot write {path}: " in result.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "there"])
def test_a_report_does_not_go_where_the_image_goes(name: str) -> None:
    with open("there", "wb") as there:
        done = subprocess.run(
            [*PROGRAM, "box", "--engine", "cpu", "in/a.png", "-", "--report", name],
            env=ENVIRONMENT, stdout=there, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "standard output is taken by the image" in done.stderr
    assert Path("there").read_bytes() == b""


PRINTING = [
    "--help",
    "--version",
    "blur --help",
    "filters",
    "filters --json",
    "info --json",
    "bench box --sizes 8 --repeat 1 --engine cpu --channels 1 --json",
    "blur -r in out --dry-run",
    "bench --folder in --engine cpu",
]


@needs_full
@pytest.mark.parametrize("line", PRINTING)
def test_output_that_cannot_be_written_is_one_error(line: str) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROGRAM, *line.split()],
            env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    told = [text for text in done.stderr.splitlines() if text.startswith(("error:", "hint:"))]
    assert told == ["error: standard output: cannot be written: No space left on device"]


@pytest.mark.parametrize("line", [PRINTING[3], PRINTING[5], PRINTING[7]])
def test_a_closed_output_is_one_error(line: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m cudafilter {line} >&-', sys.executable],
        env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "error: standard output is closed\n")


def test_a_listing_whose_reader_has_gone_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*PROGRAM, "blur", "-r", "in", "out", "--dry-run"],
        env=ENVIRONMENT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_a_line_is_told_every_minute(capsys: Any) -> None:
    clock = Clock()
    lines = Lines(20000, clock)
    for second in range(1, 182):
        for _ in range(35):
            lines.advance(worked=True)
        clock.now = 1000.0 + second
    assert capsys.readouterr().err.splitlines() == [
        "2,101 of 20,000 images, 35 images/s, 8:31 left",
        "4,201 of 20,000 images, 35 images/s, 7:31 left",
        "6,301 of 20,000 images, 35 images/s, 6:31 left",
    ]


def test_a_short_job_and_the_last_image_have_no_such_line(capsys: Any) -> None:
    clock = Clock()
    lines = Lines(2, clock)
    clock.now += 59.9
    lines.advance(worked=True)
    clock.now += 10
    lines.advance(worked=True)
    assert capsys.readouterr().err == ""


def test_skipped_images_do_not_count_for_the_speed() -> None:
    lines = Lines(100, Clock())
    for n in range(50):
        lines.advance(worked=n >= 40)
    assert lines.text(5.0) == "50 of 100 images, 2 images/s, 0:25 left"
    assert Lines(3, Clock()).text(5.0) == "0 of 3 images"


def test_a_pipe_gets_lines_and_no_bar() -> None:
    assert type(progress(3)) is Lines


def test_the_bar_is_drawn_ten_times_a_second_at_most() -> None:
    clock = Clock()
    with open("shown", "w", encoding="utf-8") as shown:
        bar = Progress(100, shown, clock)
        for _ in range(50):
            clock.now += 0.02
            bar.advance(worked=True)
        bar.clear()
    drawn = Path("shown").read_bytes().decode()
    assert len(re.findall(r"\d+/100", drawn)) in range(8, 12)
    assert drawn.endswith("\r\x1b[K")
