"""What this process and those that it started have used."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cudafilter.host import cores, usage

pytestmark = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="Linux tells it")


@contextmanager
def busy_process(code: str) -> Iterator[None]:
    """A process that runs *code*, says a word and waits to be ended."""
    code += "\nprint('done', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield


SPIN = "import time\nwhile time.process_time() < 0.3: pass"


def test_cores_are_those_of_this_process() -> None:
    before = usage.used()
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    after = usage.used()
    assert 0.1 <= after.cpu - before.cpu < 0.2
    assert after.clock - before.clock >= 0.1


def test_a_process_that_was_started_counts_while_it_lives_and_once_it_has_ended() -> None:
    before = usage.used()
    with busy_process(SPIN):
        alive = usage.used()
    ended = usage.used()
    assert alive.cpu - before.cpu > 0.25
    assert ended.cpu - before.cpu > 0.25
    assert ended.cpu - alive.cpu < 0.2  # not twice


def test_bytes_of_files_are_counted(tmp_path: Path) -> None:
    before = usage.used()
    (tmp_path / "file").write_bytes(bytes(3 << 20))
    written = usage.used()
    (tmp_path / "file").read_bytes()
    read = usage.used()
    assert before.given is not None
    assert written.given is not None
    assert 3 << 20 <= written.given - before.given < 4 << 20
    assert written.asked is not None
    assert read.asked is not None
    assert 3 << 20 <= read.asked - written.asked < 4 << 20
    assert read.fetched == written.fetched  # it lies in the system's cache


def test_memory_is_that_of_all_processes() -> None:
    before = usage.used().peak
    with busy_process("kept = bytearray(64 << 20)"):
        after = usage.used().peak
    assert before is not None
    assert after is not None
    assert after - before > 64 << 20


def test_the_cores_tell_what_all_do() -> None:
    before, started = usage.used(), time.monotonic()
    with busy_process(SPIN):
        after = usage.used()
    if after.all_cpu is None or before.all_cpu is None:
        pytest.skip("it has a quota")
    most = (time.monotonic() - started) * len(os.sched_getaffinity(0))
    assert 0.2 < after.all_cpu - before.all_cpu < most + 0.2


def test_of_a_part_of_the_cores_others_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    count = cores.cores()
    monkeypatch.setattr(usage, "cores", lambda: count + 1)
    assert usage.used().all_cpu is None


def test_where_the_system_tells_nothing_it_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(usage, "PROC", str(tmp_path))
    used = usage.used()
    assert used.cpu > 0
    assert (used.asked, used.fetched, used.given, used.stored) == (None,) * 4
    assert (used.all_cpu, used.peak) == (None, None)
