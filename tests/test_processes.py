"""--processes: worker processes of this machine, real ones, on the CPU engine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from command_line import ENVIRONMENT, PROGRAM, cli, folder, picture, snapshot
from cudafilter.cli import processes
from cudafilter.jobs import serving, workers
from cudafilter.jobs.hand import Task
from cudafilter.jobs.processes import Process, Processes
from cudafilter.jobs.serving import Early
from cudafilter.jobs.settings import Settings
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.start.begun import QUEUES
from cudafilter.start.begun import begun as all_begun
from worker_processes import (
    BLUR,
    KILLER,
    MADE_UP,
    TWO,
    begun,
    ignores,
    is_there,
    made_up,
    pictures,
    records,
    wait_for,
    workers_of,
    written,
)

__all__ = ["folder", "made_up"]

TASK = Task(make("blur"), Border(), Settings(), "cpu", "auto", "auto", "fail", None, 1, ".", {})

pytestmark = pytest.mark.usefixtures("made_up")


class TestARun:
    @pytest.mark.parametrize("more", [(), ("--check",), ("--strict",), ("-j", "3"), ("-j", "1")])
    def test_does_and_tells_what_one_process_does(
        self, folder: Path, more: tuple[str, ...]
    ) -> None:
        Path("in/film.mp4").write_bytes(b"x")
        one = cli(*BLUR, *more, "--report", "one.jsonl")
        made = snapshot("out")
        Path("out").rename("before")
        done = cli(*BLUR, *more, "--report", "two.jsonl", *TWO)
        assert done.exit_code == one.exit_code == 1  # one is broken
        assert snapshot("out") == made
        assert records("two.jsonl") == records("one.jsonl")
        shared_out = more != ("-j", "1")
        assert done.stderr.splitlines()[0].endswith(", in 2 processes") == shared_out
        assert told(done.stderr) == told(one.stderr)

    def test_takes_masks_chains_and_what_is_there(self, folder: Path) -> None:
        picture("mask.png", mode="L")
        told_by = "raise SystemExit('a module among the pictures was imported')"
        Path("multiprocessing.py").write_text(told_by)
        words = ("chain", "blur | sharpen", "in/a.png", "in/s/c.png", "out", "--engine", "cpu",
                 "--mask", "mask.png", "--background", "white", "--linear")  # fmt: skip
        cli(*words)
        made = snapshot("out")
        Path("out/a.png").unlink()
        done = cli(*words, *TWO, "--existing", "skip", "--report", "-")
        assert (done.exit_code, snapshot("out")) == (0, made)
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert Counter(line["status"] for line in told) == {"done": 1, "skipped": 1}

    def test_retries_what_failed(self, folder: Path) -> None:
        cli(*BLUR, *TWO, "--report", "r.jsonl")
        Path("in/broken.png").write_bytes(Path("in/a.png").read_bytes())
        picture("in/broken2.png")
        done = cli(*BLUR, *TWO, "--retry-failed", "r.jsonl", "--report", "r2.jsonl")
        assert done.exit_code == 0
        assert [line["source"] for line in records("r2.jsonl")] == ["in/broken.png"]

    def test_says_why_it_takes_no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "no_gpu", lambda: "there is none")
        pictures(20)
        done = cli("blur", "-r", "in", "out", *TWO, "--engine", "auto")
        assert done.exit_code == 0
        first = done.stderr.splitlines()[0]
        assert first.endswith(", in 2 processes; no CUDA: none is made up")

    def test_keeps_its_pipes_from_what_libraries_print_and_read(self) -> None:
        pictures(8)
        process = begun(*BLUR, *TWO, "--report", "-", does="prints")
        out, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
        assert len(list(map(json.loads, out.splitlines()))) == 8
        assert told.count("a library's word") == 8

    def test_of_one_image_is_in_this_process(self) -> None:
        picture("a.png")
        done = cli("blur", "a.png", "b.png", *TWO)
        assert (done.exit_code, "processes" in done.stderr) == (0, False)

    @pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_is_interrupted_as_in_one_process(self, stop: signal.Signals) -> None:
        pictures(300)
        process = begun(*BLUR, *TWO, "--report", "r.jsonl")
        wait_for(written(5))
        those = workers_of(process.pid)
        assert process.pid not in map(os.getpgid, those)  # until they ignore signals
        wait_for(lambda: all(ignores(each, stop) for each in those))
        for each in those:  # as systemd does
            os.kill(each, stop)
        os.killpg(process.pid, stop)  # as a terminal does
        _, told = process.communicate(timeout=20)
        assert process.returncode == 130
        outputs = sorted(snapshot("out"))
        assert f"interrupted: {len(outputs)} of 300 images done, 0 failed" in told
        assert sorted(line["destination"] for line in records("r.jsonl")) == outputs
        assert len(outputs) < 300
        assert "lost" not in told
        assert "Traceback" not in told
        assert len(those) == 2
        assert not any(map(is_there, those))

    def test_is_interrupted_twice_and_finishes_what_it_writes(self) -> None:
        pictures(60)
        process = begun(*BLUR, *TWO, "--report", "r.jsonl", does="writes")
        wait_for(lambda: list(Path("out").glob(".*")))
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)  # else both are one
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
        assert (process.returncode, "Traceback" in told) == (130, False)
        outputs = sorted(snapshot("out"))
        assert 0 < len(outputs) < 60
        assert sorted(line["destination"] for line in records("r.jsonl")) == outputs

    def test_is_interrupted_between_no_record_and_its_file(self) -> None:
        """The signal comes while a record is told, and others of its worker are to come."""
        pictures(60)
        code = (
            "import os, signal, time\n"
            "from cudafilter.cli.report import JsonLines\n"
            "write, told = JsonLines.write, []\n"
            "def signalled(self, record):\n"
            "    told.append(record)\n"
            "    if len(told) == 3:\n"
            "        os.kill(os.getpid(), signal.SIGINT)\n"
            "        time.sleep(0.2)\n"
            "    write(self, record)\n"
            "JsonLines.write = signalled\n"
            "from cudafilter.__main__ import main; main()"
        )
        done = subprocess.run(
            [PROGRAM[0], "-c", code, *BLUR, *TWO, "--report", "r.jsonl"], text=True, timeout=60,
            env={**ENVIRONMENT, **os.environ}, capture_output=True, check=False,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert done.returncode == 130, done.stderr
        assert sorted(line["destination"] for line in records("r.jsonl")) == sorted(snapshot("out"))


def told(stderr: str) -> list[str]:
    """The lines but the engine's, without times and rates, and without what depends on order."""
    lines = [line for line in stderr.splitlines()[1:] if not line.startswith("  worst ")]
    return sorted(re.sub(r"[\d.]+(e[+-]\d+)? (s|images/s)", "T", line) for line in lines)


class TestWorkersThatAreLost:
    def test_are_replaced_and_their_images_are_done_again(self) -> None:
        pictures(80)
        cli(*BLUR)
        made = snapshot("out")
        Path("out").rename("before")
        process = begun(*BLUR, *TWO, "--check", "--report", "r.jsonl")
        wait_for(written(3))
        for each in (killed := workers_of(process.pid)):
            os.kill(each, signal.SIGKILL)
        out, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
        assert snapshot("out") == made  # and no temporary
        assert [line["source"] for line in records("r.jsonl")] == sorted(
            f"in/{n}.png" for n in range(80)
        )
        assert told.count("a worker on this machine was lost") == len(killed) == 2
        assert out == ""

    def test_leave_no_temporary(self) -> None:
        """Killed with its pictures written halfway."""
        pictures(8)
        process = begun(*BLUR, *TWO, "-j", "2", does="halfway")
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
        assert sorted(snapshot("out")) == sorted(f"out/{n}.png" for n in range(8))
        assert "was lost" in told

    def test_a_picture_that_kills_them_fails_and_the_others_are_done(self) -> None:
        pictures(12)
        picture(f"in/{KILLER}.png")
        done = cli(*BLUR, *TWO, "--report", "r.jsonl")
        assert done.exit_code == 1
        error = f"error: in/{KILLER}.png: 2 workers were lost while they did it"
        assert f"{error} (try it with --processes 1)" in done.stderr
        assert Counter(line["status"] for line in records("r.jsonl")) == {"done": 12, "failed": 1}

    def test_before_they_are_ready_end_the_job(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pictures(12)
        monkeypatch.setenv(MADE_UP, "dies")
        done = cli(*BLUR, *TWO)
        assert done.exit_code == 1
        assert "error: no worker is left that can do the images" in done.stderr
        assert done.stderr.count("was lost") == 2 * workers.MOST_STARTS
        assert not Path("out").exists()

    def test_all_end_where_the_command_is_killed(self) -> None:
        pictures(300)
        process = begun(*BLUR, *TWO, does="writes")
        wait_for(lambda: list(Path("out").glob(".*")))
        those = workers_of(process.pid)
        process.kill()
        process.communicate()
        assert len(those) == 2
        wait_for(lambda: not any(map(is_there, those)))
        assert not list(Path("out").glob(".*"))  # what was being written was finished

    def test_end_with_the_command_though_a_disk_hangs(self) -> None:
        pictures(8)
        process = begun(*BLUR, *TWO, does="hangs")
        wait_for(lambda: list(Path("out").glob(".*")))
        those = workers_of(process.pid)
        process.kill()
        process.communicate()
        wait_for(lambda: not any(map(is_there, those)))


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("-r", "in", "--in-place"), "--in-place keeps a journal"),
            (("-r", "in", "out", "--watch"), "--watch does not end"),
            (("-r", "in", "out", "--cluster", "auto"), "--cluster has processes of its own"),
            (("in/a.png", "pipe.png", "out/"), "pipe.png is a stream of this machine"),
            (("-r", "in", "out", "--processes", "65"), "must be a whole number from 1 to 64"),
            (("-r", "in", "out", "--processes", "0"), "must be a whole number from 1 to 64"),
        ],
    )
    def test_is_told(self, words: tuple[str, ...], told: str) -> None:
        picture("in/a.png")
        picture("in/b.png")
        os.mkfifo("pipe.png")
        before = snapshot()
        done = cli("blur", *TWO, *words)
        assert done.exit_code == 2
        assert told in " ".join(done.stderr.split())
        assert snapshot() == before

    def test_but_not_of_a_preset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDAFILTER_PROCESSES", "2")
        picture("in/a.png")
        done = cli("blur", "in/a.png", "--in-place")
        assert done.exit_code == 0


class TestAProcess:
    @pytest.mark.parametrize("units", [True, False])
    @pytest.mark.parametrize("engine", ["cuda", "cpu"])
    def test_starts_its_gpu_and_imports_before_it_has_a_task(
        self, engine: str, units: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[object] = []

        def start(numbers: tuple[int, ...], *, jpeg: bool, units: bool) -> None:
            seen.append((numbers, jpeg, units))

        monkeypatch.setattr("cudafilter.start.gpus.start", start)
        monkeypatch.setattr("cudafilter.engines.open.preload", seen.append)
        serving._prepare(Early(engine, 1, not units, units))
        gpu = [((1,), not units, units)] if engine == "cuda" else []
        assert seen == [*gpu, engine]


class TestACarrier:
    def test_that_cannot_start_a_process_leaves_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first = Process.begun
        started: list[Process] = []

        def full(place: workers.Place, early: Early) -> Process:
            if started:
                raise BlockingIOError(11, "Resource temporarily unavailable")
            started.append(first(place, early))
            return started[0]

        monkeypatch.setattr(Process, "begun", full)
        picture("in/a.png")
        picture("in/b.png")
        done = cli(*BLUR, *TWO)
        assert (done.exit_code, done.stderr) == (
            1, "error: no process can be started: Resource temporarily unavailable\n",
        )  # fmt: skip
        assert not is_there(started[0].popen.pid)

    @pytest.mark.parametrize(("ours", "left"), [(True, None), (False, "2")])
    def test_gives_workers_all_hardware_queues_unless_the_user_says_how_many(
        self, ours: bool, left: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[str | None] = []

        def refuse(*_: object, env: dict[str, str], **__: object) -> None:
            assert env["PYTHONPATH"].split(os.pathsep) == [each for each in sys.path if each]
            seen.append(env.get(QUEUES))
            raise BlockingIOError(11, "no more")

        monkeypatch.setattr(all_begun, "few_queues", ours)
        monkeypatch.setenv(QUEUES, "2")
        monkeypatch.setattr(subprocess, "Popen", refuse)
        (place,) = processes.placed([None])
        with pytest.raises(BlockingIOError):
            Process.begun(place, Early("cpu", None, False))
        assert seen == [left]

    def test_tells_of_a_process_that_has_ended(self) -> None:
        (place,) = processes.placed([None])
        joined = Processes([place], Early("cpu", None, False))
        (process,) = joined._all
        process.popen.kill()
        call = process.open()
        assert joined.wait([call], 20) == [call]
        with pytest.raises(workers.Lost, match="its process has ended"):
            joined.result(call)
        joined.leave()

    @pytest.mark.parametrize(
        ("asked", "each"), [(None, [None, None, None]), (7, [3, 2, 2]), (2, [1, 1, 1])]
    )
    def test_shares_out_the_images_in_work(
        self, asked: int | None, each: list[int | None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent: list[Any] = []
        monkeypatch.setattr(Process, "send", lambda self, message: sent.append(message))
        monkeypatch.setattr(processes, "cores", lambda: 8)
        places = processes.placed([1, 0, 1])
        early = Early("cpu", None, False)
        joined = Processes(places, early)
        for place in places:
            joined.start(place, TASK._replace(threads=asked))
        joined.leave()
        gpus = [1, 0, 1]
        assert sent[:3] == [early._replace(gpu=gpu) for gpu in gpus]
        # With its cores of the 8, and how many share the memory.
        assert sent[3:] == [
            (TASK._replace(gpu=gpu, threads=threads), cores, 3)
            for gpu, threads, cores in zip(gpus, each, [3, 3, 2], strict=True)
        ]

    def test_tells_of_a_call_that_failed(self) -> None:
        (place,) = processes.placed([None])
        joined = Processes([place], Early("cpu", None, False))
        process = joined.start(place, TASK)
        call = process._call("open", "more than it takes")
        assert joined.wait([call], 20) == [call]
        with pytest.raises(workers.Lost, match="TypeError: "):
            joined.result(call)
        joined.leave()

    def test_ends_a_process_that_cannot_answer_any_more(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deaf = "import os, time; os.close(1); time.sleep(60)"
        monkeypatch.setattr("cudafilter.jobs.processes._SERVE", deaf)
        (place,) = processes.placed([None])
        joined = Processes([place], Early("cpu", None, False))
        (process,) = joined._all
        call = process.open()
        assert joined.wait([call], 20) == [call]
        assert process.popen.returncode == -signal.SIGKILL  # before what it wrote is swept
        joined.leave()

    def test_waits_no_longer_than_it_is_told(self) -> None:
        (place,) = processes.placed([None])
        joined = Processes([place], Early("cpu", None, False))
        (process,) = joined._all
        started = time.monotonic()
        assert joined.wait([process._call("never")], 0.05) == []
        assert time.monotonic() - started < 5
        joined.leave()
        assert not is_there(process.popen.pid)
        assert isinstance(process, Process)
