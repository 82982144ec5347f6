"""--processes: worker processes of this machine, real ones, on the CPU engine and on GPUs that are
made up."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from command_line import ENVIRONMENT, HOME, PROGRAM, cli, folder, picture, snapshot
from cudafilter.cli import options, processes
from cudafilter.jobs import workers
from cudafilter.jobs.processes import Early, Process, Processes
from cudafilter.nvidia.devices import Device, Devices

__all__ = ["folder"]

BLUR = ("blur", "-r", "in", "out", "--engine", "cpu")
TWO = ("--processes", "2")
TIMES = {"seconds", "engine_seconds", "elapsed", "start", "end", "job_start", "engine"}

MADE_UP = "MADE_UP"
"""The variable that says what worker processes do: slow, dies, refuses-0; halfway: the first one is
killed while it writes."""
KILLER = "killer"
"""In a file's name: who filters it is killed."""

WORKERS = f"""
import os, sys, time
if "cudafilter.jobs.processes" in sys.orig_argv[-1]:
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
        return do(self, job, held)

    def opened(name, gpu=None, **choices):
        if f"refuses-{{gpu}}" in does:
            raise EngineUnavailable(f"GPU {{gpu}} is not whole", hint="mend it")
        engine = CpuEngine()
        if name == "cuda":
            engine.name, engine.title = "cuda", f"cuda: made up (GPU {{gpu}})"
        return engine

    def complete(fd, mode, fchmod=os.fchmod):
        if "halfway" in does:
            with contextlib.suppress(FileExistsError):
                open_file("first", "x").close()
                os.kill(os.getpid(), 9)
        fchmod(fd, mode)

    import builtins, contextlib
    open_file = builtins.open
    Worker.do, open.open_engine, os.fchmod = done, opened, complete
"""


@pytest.fixture(autouse=True)
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
                if b"cudafilter.jobs.processes" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
    return found


def is_there(process: int) -> bool:
    """Whether it runs: a zombie, which nobody has waited for yet, does not."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


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
        Path("cv2.py").write_text("raise SystemExit('a module among the pictures was imported')")
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
        os.killpg(process.pid, stop)  # as a terminal does
        _, told = process.communicate(timeout=20)
        assert process.returncode == 130
        outputs = sorted(snapshot("out"))
        assert f"interrupted: {len(outputs)} of 300 images done, 0 failed" in told
        assert sorted(line["destination"] for line in records("r.jsonl")) == outputs
        assert "lost" not in told
        assert "Traceback" not in told
        assert len(those) == 2
        assert not any(map(is_there, those))

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
        process = begun(*BLUR, *TWO)
        wait_for(written(3))
        those = workers_of(process.pid)
        process.kill()
        process.communicate()
        assert len(those) == 2
        wait_for(lambda: not any(map(is_there, those)))
        assert not list(Path("out").glob(".*"))  # what was being written was finished


class TestGpus:
    """Made up: two of 80 GB that are the CPU engine, on 32 cores."""

    @pytest.fixture(autouse=True)
    def two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpus = self.gpus(2)
        monkeypatch.setattr(processes, "devices", lambda: gpus)
        monkeypatch.setattr(processes, "device_files", lambda: len(gpus.every))
        monkeypatch.setattr(processes, "no_gpu", lambda: None)
        monkeypatch.setattr(options, "find_spec", lambda name: name)
        monkeypatch.setattr(processes, "find", lambda major: "libnvjpeg")
        monkeypatch.setattr(processes, "cores", lambda: 32)

    @staticmethod
    def gpus(count: int, memory: int = 80 << 30) -> Devices:
        return Devices((Device("a GPU", memory),) * count, 13)

    def run(self, *words: str) -> Any:
        return cli("blur", "-r", "in", "out", "--report", "r.jsonl", *words, "--engine", "cuda")

    @staticmethod
    def engines() -> set[str]:
        return {json.loads(line)["engine"] for line in Path("r.jsonl").read_text().splitlines()}

    def test_have_processes_in_turns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(MADE_UP, "slow")
        pictures(200)
        done = self.run("--processes", "3")
        assert done.exit_code == 0, done.stderr
        assert done.stderr.startswith("cuda: 2 x a GPU (GPUs 0, 1), in 3 processes\n")
        assert self.engines() == {f"cuda: made up (GPU {n})" for n in (0, 1)}

    def test_that_are_named_have_all_of_them(self) -> None:
        pictures(60)
        done = self.run("--processes", "2", "--gpu", "1")
        assert done.stderr.startswith("cuda: made up (GPU 1), in 2 processes\n")
        assert self.engines() == {"cuda: made up (GPU 1)"}

    def test_of_which_one_does_not_open_leave_the_others(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(MADE_UP, "slow refuses-0")
        pictures(30)
        done = self.run("--processes", "2")
        assert done.exit_code == 0
        assert "note: a worker on GPU 0 is left out: GPU 0 is not whole" in done.stderr
        assert self.engines() == {"cuda: made up (GPU 1)"}

    def test_none_of_which_opens_are_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(MADE_UP, "refuses-0 refuses-1")
        pictures(3)
        done = self.run("--processes", "2")
        assert (done.exit_code, done.stderr) == (
            1, "error: GPU 0 is not whole\nhint: mend it\n",
        )  # fmt: skip

    def test_and_with_auto_the_cpu_does_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(MADE_UP, "refuses-0 refuses-1")
        pictures(20)
        words = ("-r", "in", "out", "--engine", "auto", "--processes", "2")
        done = cli("blur", *words)
        assert done.exit_code == 0
        assert done.stderr.startswith("cpu: ")

    def test_many_jpegs_take_two_for_each_by_themselves(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(processes, "MANY", 256)
        pictures(600, (8, 8), "jpg")
        done = self.run()
        assert done.exit_code == 0, done.stderr
        assert done.stderr.startswith("cuda: 2 x a GPU (GPUs 0, 1), in 4 processes\n")
        assert len(records("r.jsonl")) == len(snapshot("out")) == 600

    @pytest.mark.parametrize(
        "words",
        [("--processes", "1"), ("--processes", "0"), ("--codec", "cpu"), ("-j", "1"),
         ("--linear",), ("--format", "png"), ("--gpu", "2")],
    )  # fmt: skip
    def test_or_not(self, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "MANY", 256)
        pictures(600, (8, 8), "jpg")
        done = self.run(*words)
        assert done.exit_code == 1  # there is no GPU in this process
        assert "error: " in done.stderr
        assert not Path("out").exists()

    @pytest.mark.parametrize(
        ("jpegs", "gpus", "cores", "memory", "places"),
        [
            (255, 2, 32, 80, []),
            (256, 2, 32, 80, [0, 1]),
            (256, 2, 4, 80, []),  # one of four cores: as today
            (1023, 1, 16, 80, []),
            (1024, 1, 16, 80, [0, 0]),
            (1024, 1, 7, 80, []),
            (1024, 1, 16, 8, []),
            (1024, 2, 32, 80, [0, 1]),
            (2048, 2, 32, 80, [0, 1, 0, 1]),
            (2048, 2, 12, 80, [0, 1]),
            (10_000, 1, 16, 80, [0, 0]),
            (10_000, 8, 16, 80, [0, 1, 2, 3]),
            (10_000, 0, 16, 80, []),
        ],
    )
    def test_have_as_many_as_pay(
        self,
        jpegs: int,
        gpus: int,
        cores: int,
        memory: int,
        places: list[int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        found = self.gpus(gpus, memory << 30)
        monkeypatch.setattr(processes, "devices", lambda: found)
        monkeypatch.setattr(processes, "device_files", lambda: gpus)
        monkeypatch.setattr(processes, "cores", lambda: cores)
        got = processes._by_itself(jpegs, shared())
        assert [place.device for place in got] == places
        assert sum(place.cores for place in got) in (0, cores)
        assert {place.beside for place in got} <= {len(places)}

    def test_begin_while_the_plan_is_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "MANY", 256)
        pictures(600, (8, 8), "jpg")
        started: list[Any] = []
        first = Processes.__init__

        def counted(self: Processes, places: Sequence[workers.Place], early: Early) -> None:
            first(self, places, early)
            started.append((self, Path("out").exists(), early))

        monkeypatch.setattr(Processes, "__init__", counted)
        self.run()
        ((begun, _, early),) = started
        assert early == Early("cuda", None, True)
        assert not any(is_there(each.popen.pid) for each in begun._all)
        # What is wrong with the plan is told, and none stays.
        started.clear()
        done = self.run("--format", "nothing")
        assert done.exit_code == 2
        ((begun, _, _),) = started
        assert not any(is_there(each.popen.pid) for each in begun._all)


def shared() -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(gpu=None, jobs=None, processes=None)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("-r", "in", "--in-place"), "--in-place keeps a journal"),
            (("-r", "in", "out", "--watch"), "--watch does not end"),
            (("-r", "in", "out", "--cluster", "auto"), "--cluster has processes of its own"),
            (("in/a.png", "pipe.png", "out/"), "pipe.png is a stream of this machine"),
            (("-r", "in", "out", "--processes", "65"), "must be a whole number from 0 to 64"),
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


class TestACarrier:
    def test_that_cannot_start_a_process_leaves_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first, started = Process.begun, []

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
