"""Progress: a bar on a terminal, a line a minute elsewhere, and nothing once all is told."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from functools import partial
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from command_line import ENVIRONMENT, PROGRAM
from cudafilter.cli import progress
from cudafilter.cli.progress import Lines, Progress
from cudafilter.cli.report import Reporter

CLEAR = "\r\x1b[K"


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("total", "size", "what", "bar", "line"),
    [
        (8, 0, "images", " 4/8  0.2 images/s  0:20 left",
         "4 of 8 images, 0.2 images/s, 0:20 left"),
        (80_000, 19_200_000_000, "rows", " 40000/80000 rows  9.6/19.2 GB  480 MB/s  0:20 left",
         "40,000 of 80,000 rows, 9.6/19.2 GB of pixels, 480 MB/s, 0:20 left"),
        (600, 60_000_000, "rows", " 300/600 rows  30.0/60.0 MB  1.5 MB/s  0:20 left",
         "300 of 600 rows, 30.0/60.0 MB of pixels, 1.5 MB/s, 0:20 left"),
    ],
)  # fmt: skip
def test_half_of_it_is_told_with_speed_and_time_left(
    total: int, size: int, what: str, bar: str, line: str
) -> None:
    shown = Progress(total, StringIO(), what=what, size=size)
    shown.advance(worked=True, by=total // 2)
    assert shown.line(20, 79).endswith(f"]{bar}")
    assert len(shown.line(20, 79)) == 79
    lines = Lines(total, what=what, size=size)
    lines.advance(worked=True, by=total // 2)
    assert lines.text(20) == line


@pytest.mark.parametrize("columns", [10, 20, 40, 79])
@pytest.mark.parametrize("done", [0, 1, 99999])
def test_a_bar_with_bytes_fits_too(columns: int, done: int) -> None:
    bar = Progress(100_000, StringIO(), what="rows", size=10**13)
    bar.done = bar._worked = done
    assert len(bar.line(12345.6, columns)) <= columns


def test_elsewhere_a_line_stands_every_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, str]] = []
    clock = Clock()
    monkeypatch.setattr(progress, "tell", lambda text: told.append((clock.now - 100, text)))
    lines = Lines(2000, clock, "rows", 2_000_000_000)
    for _ in range(200):
        clock.now += 1
        lines.advance(worked=True, by=10)
    assert [seconds for seconds, _ in told] == [60, 120, 180]
    assert told[0][1] == "600 of 2,000 rows, 0.6/2.0 GB of pixels, 10 MB/s, 2:20 left"


@pytest.mark.parametrize(("term", "kind"), [("xterm", Progress), ("dumb", Lines)])
def test_a_terminal_that_erases_nothing_gets_lines(
    monkeypatch: pytest.MonkeyPatch, term: str, kind: type[Lines]
) -> None:
    """Such as Emacs' shell: it shows the codes that erase."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    assert type(progress.progress(9)) is kind


def test_a_bar_is_removed_and_comes_back_until_it_is_closed() -> None:
    stream, clock = StringIO(), Clock()
    bar = Progress(5, stream, clock)
    bar.advance(worked=True)
    bar.clear()
    assert stream.getvalue().endswith(CLEAR)
    bar.advance(worked=True)
    assert "2/5" in stream.getvalue().rpartition(CLEAR)[2]
    bar.close()
    at = stream.getvalue()
    assert at.endswith(CLEAR)
    clock.now += 9
    bar.advance(worked=True)
    assert stream.getvalue() == at


def test_a_thread_that_is_still_at_work_draws_no_bar_once_all_is_told() -> None:
    shared: Any = SimpleNamespace(quiet=False, watch=False, verbose=False, debug=False)
    reporter = Reporter(shared)
    reporter.rows(1, 10, 100)
    bar = reporter._progress
    assert bar is not None
    reporter.finish(interrupted=True)
    assert bar._closed


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("large", [True, False], ids=["rows", "images"])
def test_ctrl_c_leaves_no_bar_on_the_terminal(large: bool) -> None:
    if large:
        with open("in.ppm", "wb") as file:
            file.write(b"P6 4000 12000 255\n")
            file.truncate(file.tell() + 4000 * 12000 * 3)
        words = ["blur", "--sigma", "30", "in.ppm", "out.ppm"]
    else:
        Path("in").mkdir()
        Image.new("RGB", (500, 500)).save("in/0.png")
        for n in range(1, 500):
            os.link("in/0.png", f"in/{n}.png")
        words = ["blur", "-r", "in", "out"]
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *words, "--engine", "cpu"], stdout=subprocess.DEVNULL, stderr=terminal,
        env={**ENVIRONMENT, "CUDAFILTER_MEMORY": "60000000", "TERM": "xterm"},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    os.close(terminal)
    shown, sent = b"", False
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline
        try:
            chunk = os.read(controller, 4096)
        except OSError:  # EIO: the other end is closed
            break
        if not chunk:
            break
        shown += chunk
        if not sent and re.search(rb"\] [1-9]\d*/", shown):
            process.send_signal(signal.SIGINT)
            sent = True
    os.close(controller)
    assert process.wait() == 130
    # What stands below the last line that was removed is told in words only.
    text = shown.decode()
    before, _, last = text.rpartition(CLEAR)
    assert (" rows  " in before) == large
    assert re.fullmatch(r"(?s)(.*\n)*interrupted: \d+ of \d+ images? done, 0 failed\r?\n", last)
    assert "] " not in last
