"""--processes on GPUs: how many there are by themselves, and on which GPUs. They are made up."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from command_line import cli, snapshot
from cudafilter.cli import app, options, processes
from cudafilter.jobs import workers
from cudafilter.jobs.hand import Task
from cudafilter.jobs.processes import Process, Processes
from cudafilter.jobs.serving import Early
from cudafilter.nvidia.devices import Device, Devices
from cudafilter.start import words
from worker_processes import MADE_UP, is_there, made_up, pictures, records

__all__ = ["made_up"]

pytestmark = pytest.mark.usefixtures("made_up")


class TestGpus:
    """Made up: two of 80 GB that are the CPU engine, on 32 cores."""

    @pytest.fixture(autouse=True)
    def two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpus = self.gpus(2)
        monkeypatch.setattr(processes, "devices", lambda: gpus)
        monkeypatch.setattr(processes, "no_gpu", lambda: None)
        monkeypatch.setattr(options, "find_spec", lambda name: name)
        monkeypatch.setattr(processes, "find", lambda major: "libnvjpeg")
        monkeypatch.setattr(processes, "cores", lambda: 32)

    @staticmethod
    def gpus(count: int, memory: int = 80 << 30) -> Devices:
        return Devices((Device("a GPU", memory),) * count, 13)

    def run(self, *more: str, filter: tuple[str, ...] = ("blur",)) -> Any:
        files = ("-r", "in", "out", "--report", "r.jsonl", "--engine", "cuda")
        return cli(*filter, *files, *more)

    @staticmethod
    def engines() -> set[str]:
        return {json.loads(line)["engine"] for line in Path("r.jsonl").read_text().splitlines()}

    @pytest.fixture
    def begun(self, monkeypatch: pytest.MonkeyPatch) -> list[Processes]:
        """What begins."""
        begun: list[Processes] = []
        first = Processes.__init__

        def counted(self: Processes, places: Sequence[workers.Place], early: Early) -> None:
            begun.append(self)
            first(self, places, early)

        monkeypatch.setattr(Processes, "__init__", counted)
        return begun

    @pytest.fixture
    def codecs(self, monkeypatch: pytest.MonkeyPatch) -> set[str]:
        """Those of all tasks."""
        codecs: set[str] = set()
        first = Process.begin

        def noted(self: Process, task: Task) -> None:
            codecs.add(task.codec)
            first(self, task)

        monkeypatch.setattr(Process, "begin", noted)
        return codecs

    def test_have_processes_in_turns(
        self, begun: list[Processes], codecs: set[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(MADE_UP, "slow")
        pictures(200)
        done = self.run("--processes", "3")
        assert done.exit_code == 0, done.stderr
        assert done.stderr.startswith("cuda: 2 x a GPU (GPUs 0, 1), in 3 processes\n")
        assert self.engines() == {f"cuda: made up (GPU {n})" for n in (0, 1)}
        assert codecs == {"units"}
        (processes,) = begun
        assert None not in {each.popen.returncode for each in processes._all}

    def test_that_are_named_have_all_of_them(self, codecs: set[str]) -> None:
        pictures(60)
        done = self.run("--processes", "2", "--gpu", "1", "--codec", "cpu")
        assert codecs == {"cpu"}
        assert done.stderr.startswith("cuda: made up (GPU 1), in 2 processes\n")
        assert self.engines() == {"cuda: made up (GPU 1)"}

    @pytest.mark.parametrize(
        ("suffix", "more", "early"),
        [
            ("jpg", (), Early("cuda", None, True, True)),
            ("jpg", ("--codec", "cpu"), Early("cuda", None, False)),
            ("jpg", ("--engine", "cpu"), Early("cpu", None, False)),
            ("png", (), Early("cuda", None, False)),
        ],
    )
    def test_begin_with_what_their_pictures_need(
        self, suffix: str, more: tuple[str, ...], early: Early, begun: list[Processes]
    ) -> None:
        pictures(4, suffix=suffix)
        assert self.run("--processes", "2", *more).exit_code == 0
        assert [each._early for each in begun] == [early]

    def test_that_are_not_there_are_not_replaced_by_the_cpu(
        self, begun: list[Processes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(processes, "no_gpu", lambda: "there is none")
        pictures(4)
        cli("blur", "-r", "in", "out", "--engine", "auto", "--gpu", "0", "--processes", "2")
        assert not begun  # this process says what is wrong

    def test_of_which_one_does_not_open_leave_the_others(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(MADE_UP, "slow refuses-0 waits-1")
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
        done = cli("blur", "-r", "in", "out", "--engine", "auto", "--processes", "2")
        assert done.exit_code == 0
        assert done.stderr.startswith("cpu: ")

    def test_many_jpegs_take_two_for_each_by_themselves(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(words, "MANY", 256)
        pictures(600, (8, 8), "jpg")
        done = self.run()
        assert done.exit_code == 0, done.stderr
        assert done.stderr.startswith("cuda: 2 x a GPU (GPUs 0, 1), in 4 processes\n")
        assert len(records("r.jsonl")) == len(snapshot("out")) == 600

    @pytest.mark.parametrize(
        "line",
        [
            "blur -r in out --processes 1",
            "blur -r in out --codec cpu",
            "blur -r in out --engine cpu",
            "blur -r in out --linear",
            "blur -r in out --mask in/0.jpg",
            "blur -r in out --region 0,0,4,4",
            "blur -r in out --format png",
            "blur -r in out --gpu 2",
            "blur -r in out -j 1",
            "blur -r in out --dry-run",
            "blur -r in out --existing skip",
            "blur -r in out --shard 1/9",
            "blur -r in memory://out",
            "blur -r hidden out",
            "blur -r others out",
            "chain 'blur | median' -r in out",
            "threshold --otsu -r in out",
            "canny -r in out",
        ],
    )
    def test_or_not(
        self, line: str, begun: list[Processes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No process is begun for what one process does."""
        monkeypatch.setattr(words, "MANY", 256)
        pictures(300, (8, 8), "jpg")
        for n in range(300):
            for name in (f"hidden/.{n}.jpg", f"hidden/.d/{n}.jpg", f"others/{n}.png"):
                path = Path(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.hardlink_to("in/0.jpg")
        Path("hidden/one.jpg").hardlink_to("in/0.jpg")
        if "--existing" in line:
            Path("in").rename("out")
            pictures(300, (8, 8), "jpg")
        given = shlex.split(line)
        CliRunner().invoke(app, given if "--engine" in given else [*given, "--engine", "cuda"])
        assert not begun

    @pytest.mark.parametrize("line", ["out --watch", "out --cluster auto", "too --in-place"])
    def test_nor_for_what_they_are_not_for(
        self, line: str, begun: list[Processes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(words, "MANY", 256)
        monkeypatch.setattr("cudafilter.cli.filter._plans", lambda *_: iter(()))
        pictures(300, (8, 8), "jpg")
        CliRunner().invoke(app, ["blur", "-r", "in", *line.split(), "--engine", "cuda"])
        assert not begun

    @pytest.mark.parametrize(
        ("jpegs", "gpus", "cores", "memory", "places"),
        [
            (2047, 2, 32, 80, []),
            (2048, 1, 16, 80, [0, 0, 0]),
            (2048, 1, 32, 80, [0, 0, 0]),
            (2048, 1, 11, 80, [0, 0]),
            (2048, 1, 7, 80, []),
            (2048, 1, 16, 20, [0, 0, 0]),
            (2048, 1, 16, 8, []),
            (2048, 2, 32, 80, [0, 1, 0, 1]),
            (2048, 2, 12, 80, [0, 1, 0]),
            (10_000, 8, 16, 80, [0, 1, 2, 3]),
            (10_000, 2, 32, 8, [0, 1]),
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
        monkeypatch.setattr(processes, "cores", lambda: cores)
        got = processes._by_itself(jpegs, shared())
        assert [place.device for place in got] == places
        assert sum(place.cores for place in got) in (0, cores)
        assert {place.beside for place in got} <= {len(places)}

    @pytest.mark.parametrize("does", ["dies", "refuses-0 refuses-1"])
    def test_that_no_process_can_use_are_left_to_this_one(
        self, does: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(MADE_UP, does)
        monkeypatch.setattr(words, "MANY", 256)
        pictures(300, (8, 8), "jpg")
        done = cli("blur", "-r", "in", "out", "--engine", "auto")
        assert done.exit_code == 0, done.stderr
        assert "cpu: " in done.stderr
        assert ", in 2 processes" not in done.stderr
        assert len(snapshot("out")) == 300

    @pytest.mark.parametrize("early", [(), ("--existing", "skip")])
    def test_that_no_process_can_be_begun_for_are_left_to_this_one(
        self, early: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> Process:
            raise BlockingIOError(11, "Resource temporarily unavailable")

        monkeypatch.setattr(Process, "begun", full)
        monkeypatch.setattr(words, "MANY", 256)
        pictures(300, (8, 8), "jpg")
        done = cli("blur", "-r", "in", "out", "--engine", "auto", *early)
        assert done.exit_code == 0, done.stderr
        assert len(snapshot("out")) == 300

    def test_that_no_process_is_left_for_are_not_begun_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(MADE_UP, "dies-later")
        monkeypatch.setattr(words, "MANY", 256)
        pictures(300, (8, 8), "jpg")
        done = cli("blur", "-r", "in", "out", "--engine", "auto")
        assert done.exit_code == 1
        assert "error: no worker is left that can do the images" in done.stderr

    def test_that_the_plan_does_not_have_need_none(
        self, begun: list[Processes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What has begun ends before this process begins: it holds a GPU's memory."""
        monkeypatch.setattr(words, "MANY", 256)
        pictures(20, (8, 8), "jpg")
        for n in range(300):
            os.mkfifo(f"in/pipe{n}.jpg")
        outputs: list[bool] = []
        first = Processes.leave

        def left(self: Processes) -> None:
            outputs.append(Path("out").exists())
            first(self)

        monkeypatch.setattr(Processes, "leave", left)
        done = cli("blur", "-r", "in", "out", "--engine", "auto")
        assert (done.exit_code, len(begun), outputs[0]) == (0, 1, False)
        assert len(snapshot("out")) == 20

    def test_begin_while_the_plan_is_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(words, "MANY", 256)
        pictures(600, (8, 8), "jpg")
        started: list[Any] = []
        first = Processes.__init__

        def counted(self: Processes, places: Sequence[workers.Place], early: Early) -> None:
            first(self, places, early)
            started.append((self, Path("out").exists(), early))

        monkeypatch.setattr(Processes, "__init__", counted)
        self.run()
        ((begun, _, early),) = started
        assert early == Early("cuda", None, jpeg=True, units=True)
        assert not any(is_there(each.popen.pid) for each in begun._all)
        # What is wrong with the plan is told, and none stays.
        started.clear()
        done = cli("blur", "-r", "in", "in/0.jpg", "--engine", "cuda")
        assert done.exit_code == 2
        ((begun, _, _),) = started
        assert not any(is_there(each.popen.pid) for each in begun._all)


def shared() -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(gpu=None, jobs=None, processes=None)
