"""Worker processes of this machine, real ones, and what they are made to do in tests."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from command_line import ENVIRONMENT, HOME, PROGRAM, picture

BLUR = ("blur", "-r", "in", "out", "--engine", "cpu")
TWO = ("--processes", "2")
TIMES = {"seconds", "engine_seconds", "elapsed", "start", "end", "job_start", "engine"}

MADE_UP = "MADE_UP"
"""The variable that says what worker processes do: slow, dies, refuses-0, waits-1: until another
one has refused; prints: and reads, as a library may; writes: slowly; hangs: as it writes;
halfway: the first one is killed while it writes."""
KILLER = "killer"
"""In a file's name: who filters it is killed."""

WORKERS = f"""
import os, sys, time
if "cudafilter.jobs.serving" in sys.orig_argv[-1]:
    does = os.environ.get({MADE_UP!r}, "").split()
    if "dies" in does:
        os.kill(os.getpid(), 9)
    from cudafilter.engines import open
    from cudafilter.engines.cpu import CpuEngine
    from cudafilter.errors import EngineUnavailable
    from cudafilter.jobs.worker import Worker
    do = Worker.do

    def done(self, job, held):
        if {KILLER!r} in str(job.source):
            os.kill(os.getpid(), 9)
        if "slow" in does:
            time.sleep(0.03)
        if "prints" in does:
            print("a library's word", flush=True)
            assert os.read(0, 1) == b""
        return do(self, job, held)

    def opened(name, gpu=None, **choices):
        while f"waits-{{gpu}}" in does and not os.path.exists("refused"):
            time.sleep(0.01)
        if f"refuses-{{gpu}}" in does:
            open_file("refused", "w").close()
            raise EngineUnavailable(f"GPU {{gpu}} is not whole", hint="mend it")
        engine = CpuEngine(note="no CUDA: none is made up" if name == "auto" else None)
        if name == "cuda":
            engine.name, engine.title = "cuda", f"cuda: made up (GPU {{gpu}})"
        return engine

    def complete(fd, mode, fchmod=os.fchmod):
        if "writes" in does:
            time.sleep(0.2)
        if "hangs" in does:
            time.sleep(100)
        if "halfway" in does:
            with contextlib.suppress(FileExistsError):
                open_file("first", "x").close()
                os.kill(os.getpid(), 9)
        fchmod(fd, mode)

    import builtins, contextlib
    open_file = builtins.open
    Worker.do, open.open_engine, os.fchmod = done, opened, complete
    if "hangs" in does:
        from cudafilter.jobs import serving
        serving._STOP = 0.1
"""


@pytest.fixture
def made_up(
    here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path_factory.mktemp("hooks")
    (place / "sitecustomize.py").write_text(WORKERS)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), HOME]))


def begun(*words: str, does: str = "slow") -> subprocess.Popen[str]:
    """The program, at the head of a group of processes as a shell has it."""
    return subprocess.Popen(
        [*PROGRAM, *words], text=True, process_group=0,
        env={**ENVIRONMENT, **os.environ, MADE_UP: does},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def workers_of(process: int) -> list[int]:
    """The worker processes of *process*."""
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                if b"cudafilter.jobs.serving" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
    return found


def is_there(process: int) -> bool:
    """Whether it runs: a zombie, which nobody has waited for yet, does not."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def ignores(process: int, signal: signal.Signals) -> bool:
    """Whether a *process* ignores a *signal*."""
    (mask,) = re.findall(r"^SigIgn:\t(\w+)", Path(f"/proc/{process}/status").read_text(), re.M)
    return bool(int(mask, 16) >> (signal - 1) & 1)


def wait_for(what: Callable[[], object]) -> None:
    ends = time.monotonic() + 30
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.005)


def written(count: int) -> Callable[[], bool]:
    return lambda: len(list(Path("out").glob("*.png"))) >= count


def pictures(count: int, size: tuple[int, int] = (60, 40), suffix: str = "png") -> None:
    original = picture(f"in/0.{suffix}", size).read_bytes()
    for n in range(1, count):
        Path(f"in/{n}.{suffix}").write_bytes(original)


def records(report: str) -> list[dict[str, Any]]:
    """The records of a *report* by their sources, without the times."""
    lines = [json.loads(line) for line in Path(report).read_text().splitlines()]
    told = [{name: value for name, value in line.items() if name not in TIMES} for line in lines]
    return sorted(told, key=lambda line: str(line["source"]))
