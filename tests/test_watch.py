"""Folders that are watched: what is taken, when, and what is left."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command_line import ENVIRONMENT, PROGRAM
from cudafilter.errors import CudafilterError, ParameterError
from cudafilter.jobs.plan import Plan
from cudafilter.jobs.record import DONE, FAILED, Record
from cudafilter.jobs.watch import INTERVAL, PATIENCE, gone, watch

NOW = 1_000_000.0
ENDLESS = 200
"""Looks without a plan after which a test gives up waiting for one."""


class Nothing(Exception):
    """There was no plan for long."""


class World:
    """A watched folder ``in`` and the clock beside it; *meanwhile* happens at each wait."""

    def __init__(self, *sources: str, into: str = "out", **options: Any) -> None:
        self.now = NOW
        self.waited = 0
        self.meanwhile: list[Callable[[], object]] = []
        self._plans = watch(
            sources or ("in",), into, recursive=True, clock=lambda: self.now, sleep=self._sleep,
            **options,
        )  # fmt: skip

    def _sleep(self, seconds: float) -> None:
        assert seconds >= INTERVAL
        self.now += seconds
        self.waited += 1
        if self.meanwhile:
            self.meanwhile.pop(0)()
        elif self.waited > ENDLESS:
            raise Nothing

    def plan(self) -> Plan:
        self.waited = 0
        return next(self._plans)

    def next(self) -> list[tuple[str, str]]:
        """(source, destination) of the next plan that has jobs."""
        while not (plan := self.plan()).jobs:
            pass
        return [(str(job.source), str(job.destination)) for job in plan.jobs]

    def quiet(self) -> bool:
        """Whether nothing more comes. The watch is over then."""
        with pytest.raises(Nothing):
            self.plan()
        return True


@pytest.fixture(autouse=True)
def watched(here: Path) -> Path:
    """The folder that World watches."""
    folder = here / "in"
    folder.mkdir()
    return folder


def encoded(format: str = "png", seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def picture(name: str, seed: int = 0, age: float = 3600) -> Path:
    """A whole picture, last written *age* seconds before the watch begins."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    format = {".jpg": "jpeg", ".tif": "tiff"}.get(path.suffix, path.suffix[1:])
    path.write_bytes(encoded(format, seed) if format != "pbm" else b"P1 1 1 0")
    os.utime(path, (NOW - age, NOW - age))
    return path


class TestWhatIsThere:
    def test_comes_first_as_in_a_normal_run(self) -> None:
        picture("in/a.png")
        picture("in/trip/b.jpg")
        Path("in/note.txt").touch()
        plan = World(format="webp").plan()
        assert [(str(job.source), str(job.destination)) for job in plan.jobs] == [
            ("in/a.png", "out/a.webp"), ("in/trip/b.jpg", "out/trip/b.webp"),
        ]  # fmt: skip
        assert plan.many
        assert plan.left_alone == 1

    def test_may_be_nothing(self) -> None:
        world = World()
        assert world.plan().jobs == ()
        assert world.waited == 0
        assert world.quiet()

    def test_is_done_once(self) -> None:
        picture("in/a.png")
        world = World()
        assert world.next() == [("in/a.png", "out/a.png")]
        assert world.quiet()

    def test_waits_if_it_was_just_written(self) -> None:
        picture("in/old.png")
        path = picture("in/new.png", age=0.5)
        whole = path.read_bytes()
        path.write_bytes(whole[:200])
        os.utime(path, (NOW - 0.5, NOW - 0.5))
        world = World()
        assert world.next() == [("in/old.png", "out/old.png")]
        world.meanwhile = [lambda: None, lambda: path.write_bytes(whole)]
        assert world.next() == [("in/new.png", "out/new.png")]

    @pytest.mark.parametrize("existing", ["skip", "overwrite"])
    def test_existing_outputs_are_minded(self, existing: str) -> None:
        picture("in/a.png")
        picture("out/a.png")
        (job,) = World(existing=existing).plan().jobs
        assert job.skip == (existing == "skip")

    def test_existing_outputs_are_an_error_if_asked_for(self) -> None:
        picture("in/a.png")
        picture("out/a.png")
        with pytest.raises(ParameterError) as caught:
            World(existing="error")
        assert caught.value.parameter == "existing"

    def test_two_inputs_with_one_output_stop_the_job(self) -> None:
        picture("in/a.png")
        picture("in/a.jpg")
        with pytest.raises(ParameterError, match="would both become"):
            World(format="tiff")


class TestArrivals:
    def test_a_slow_writer_is_waited_for(self) -> None:
        world = World()
        world.plan()
        data, path = encoded("png"), Path("in/a.png")
        parts = [data[i : i + 300] for i in range(0, len(data), 300)]

        def append(part: bytes) -> Callable[[], object]:
            def write() -> None:
                with path.open("ab") as file:
                    file.write(part)

            return write

        # Pauses longer than a look, which make the file look the same at two of them.
        pause: list[Callable[[], object]] = [lambda: None] * 3
        world.meanwhile = [step for part in parts for step in (append(part), *pause)]
        assert world.next() == [("in/a.png", "out/a.png")]
        assert path.read_bytes() == data
        assert world.quiet(), "it is taken once"

    @pytest.mark.parametrize("format", ["png", "jpeg", "tiff", "bmp", "webp", "ppm"])
    def test_half_a_file_is_not_taken_in_any_format(self, format: str) -> None:
        world = World()
        world.plan()
        data, path = encoded(format), Path(f"in/a.{format}")
        begun = [lambda: path.write_bytes(data[: len(data) // 2])]
        world.meanwhile = [*begun, *[lambda: None] * 5, lambda: path.write_bytes(data)]
        waits = len(world.meanwhile)
        assert world.next() == [(str(path), f"out/a.{format}")]
        assert world.waited > waits

    def test_space_reserved_ahead_is_no_whole_file(self) -> None:
        world = World()
        world.plan()
        data, path = encoded("jpeg"), Path("in/a.jpg")
        reserved = data[:500] + bytes(len(data) - 500)
        world.meanwhile = [
            lambda: path.write_bytes(reserved), *[lambda: None] * 5, lambda: path.write_bytes(data),
        ]  # fmt: skip
        world.next()
        assert path.read_bytes() == data

    def test_a_file_renamed_into_place_is_taken_at_the_next_look(self) -> None:
        world = World()
        world.plan()
        picture("elsewhere.png")
        world.meanwhile = [lambda: os.rename("elsewhere.png", "in/a.png")]
        assert world.next() == [("in/a.png", "out/a.png")]
        assert world.waited == 2

    def test_several_come_in_one_plan(self) -> None:
        world = World()
        world.plan()
        picture("in/a.png")
        picture("in/b.jpg")
        assert [source for source, _ in world.next()] == ["in/a.png", "in/b.jpg"]

    def test_folders_may_arrive_and_are_mirrored(self) -> None:
        world = World()
        world.plan()
        picture("in/trip/day/a.png")
        assert world.next() == [("in/trip/day/a.png", "out/trip/day/a.png")]

    def test_hidden_and_other_files_are_left_alone_and_counted_once(self) -> None:
        world = World()
        world.plan()
        Path("in/.a.png.part").write_bytes(encoded())
        Path("in/note.txt").touch()
        picture("in/a.png")
        plan = world.plan()
        assert [str(job.source) for job in plan.jobs] == ["in/a.png"]
        assert plan.left_alone == 2
        picture("in/b.png")
        assert world.plan().left_alone == 0

    def test_one_that_stays_broken_is_taken_in_the_end_and_so_told(self) -> None:
        world = World()
        world.plan()
        Path("in/a.png").write_bytes(encoded()[:100])
        assert world.next() == [("in/a.png", "out/a.png")]
        assert world.waited * INTERVAL >= PATIENCE

    def test_several_folders_are_watched(self) -> None:
        Path("more").mkdir()
        world = World("in", "more")
        world.plan()
        picture("more/b.png")
        picture("in/a.png")
        assert world.next() == [("in/a.png", "out/a.png"), ("more/b.png", "out/b.png")]

    def test_a_folder_named_twice_is_watched_once(self) -> None:
        world = World("in", "in")
        world.plan()
        path = Path("in/a.tif")
        data = encoded("tiff")
        world.meanwhile = [lambda: path.write_bytes(data)]
        assert world.next() == [("in/a.tif", "out/a.tif")]
        assert world.waited == 2

    def test_outputs_in_the_watched_folder_never_come_back(self) -> None:
        picture("in/a.png")
        Path("in/link").symlink_to("out")
        world = World(into="in/out")
        for _, destination in world.next():
            picture(destination, seed=9)
        assert world.quiet()

    def test_outputs_that_a_link_leads_to_never_come_back(self) -> None:
        picture("in/a.png")
        Path("out").mkdir()
        Path("in/link").symlink_to("../out")
        world = World()
        for _, destination in world.next():
            picture(destination, seed=9)
        assert world.quiet()

    @pytest.mark.parametrize("existing", ["overwrite", "skip", "error"])
    def test_existing_outputs_are_minded(self, existing: str) -> None:
        picture("out/a.png")
        world = World(existing=existing)
        world.plan()
        picture("in/a.png")
        plan = world.plan()
        if existing == "error":
            ((path, reason),) = plan.refused
            assert str(path) == "in/a.png"
            assert "out/a.png exists" in reason
        else:
            (job,) = plan.jobs
            assert job.skip == (existing == "skip")

    def test_one_whose_output_is_anothers_is_refused_alone(self) -> None:
        picture("in/a.png")
        world = World(format="tiff")
        world.plan()
        picture("in/a.jpg")
        picture("in/b.jpg")
        plan = world.plan()
        assert [str(job.source) for job in plan.jobs] == ["in/b.jpg"]
        ((path, reason),) = plan.refused
        assert str(path) == "in/a.jpg"
        assert "in/a.png and in/a.jpg would both become out/a.tif" in reason
        assert world.quiet(), "it is told once"

    def test_an_output_is_free_again_once_its_input_is_gone(self) -> None:
        path = picture("in/a.png")
        world = World(format="tiff")
        assert world.next() == [("in/a.png", "out/a.tif")]
        world.meanwhile = [path.unlink, lambda: picture("in/a.jpg")]
        assert world.next() == [("in/a.jpg", "out/a.tif")]

    def test_one_that_cannot_be_written_as_it_is_named_is_refused_alone(self) -> None:
        world = World()
        world.plan()
        picture("in/a.pbm")
        picture("in/b.png")
        plan = world.plan()
        assert [str(job.source) for job in plan.jobs] == ["in/b.png"]
        ((path, reason),) = plan.refused
        assert str(path) == "in/a.pbm"
        assert "pbm files are not written" in reason

    def test_one_refused_at_the_start_is_not_refused_again(self) -> None:
        picture("in/a.pbm", age=0)
        world = World()
        assert [str(path) for path, _ in world.plan().refused] == ["in/a.pbm"]
        assert world.quiet()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
    def test_a_folder_that_cannot_be_read_is_told_once(self) -> None:
        Path("in/closed").mkdir(mode=0)
        world = World()
        assert [str(path) for path, _ in world.plan().refused] == ["in/closed"]
        assert world.quiet()


class TestChanges:
    @pytest.mark.parametrize("existing", ["overwrite", "skip", "error"])
    def test_an_input_that_changes_is_done_again_whatever_is_there(self, existing: str) -> None:
        path = picture("in/a.png")
        world = World(existing=existing)
        world.next()
        picture("out/a.png", seed=8)  # what became of it
        world.meanwhile = [lambda: path.write_bytes(encoded(seed=1))]
        (job,) = world.plan().jobs
        assert (str(job.source), job.skip) == ("in/a.png", False)
        world.meanwhile = [lambda: path.write_bytes(encoded(seed=2))]
        assert world.next() == [("in/a.png", "out/a.png")]
        assert world.quiet()

    @pytest.mark.parametrize("existing", ["skip", "error"])
    def test_so_is_an_arrival_that_changes(self, existing: str) -> None:
        world = World(existing=existing)
        world.plan()
        path = picture("in/a.png")
        world.next()
        picture("out/a.png", seed=8)
        path.write_bytes(encoded(seed=1))
        (job,) = world.plan().jobs
        assert not job.skip

    def test_one_that_changes_while_it_is_done_is_done_again(self) -> None:
        path = picture("in/a.png")
        world = World()
        world.next()
        path.write_bytes(encoded(seed=1))  # before the next plan is asked for
        assert world.next() == [("in/a.png", "out/a.png")]

    def test_one_that_vanishes_before_it_is_whole_is_forgotten(self) -> None:
        world = World()
        world.plan()
        path = Path("in/a.png")
        world.meanwhile = [lambda: path.write_bytes(encoded()[:99]), path.unlink]
        assert world.quiet()

    @pytest.mark.parametrize("existing", ["overwrite", "skip", "error"])
    def test_one_that_comes_back_is_done_again(self, existing: str) -> None:
        path = picture("in/a.png")
        world = World(existing=existing)
        world.next()
        picture("out/a.png", seed=8)
        data = path.read_bytes()
        world.meanwhile = [path.unlink, lambda: None, lambda: path.write_bytes(data)]
        (job,) = world.plan().jobs
        assert (str(job.source), job.skip) == ("in/a.png", False)

    def test_an_image_that_is_gone_when_it_is_read_is_no_error(self) -> None:
        there = str(picture("in/a.png"))
        assert gone(Record("in/b.png", "out/b.png", status=FAILED))
        assert not gone(Record(there, "out/a.png", status=FAILED))
        assert not gone(Record("in/b.png", "out/b.png", status=DONE))

    def test_a_broken_link_is_taken_so_that_loading_tells_it(self) -> None:
        Path("in/a.png").symlink_to("nowhere.png")
        assert World().next() == [("in/a.png", "out/a.png")]

    def test_a_watched_folder_that_is_gone_ends_it(self) -> None:
        world = World()
        world.plan()
        world.meanwhile = [Path("in").rmdir]
        with pytest.raises(CudafilterError, match="in: no such file or folder"):
            world.plan()


def interrupt() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_while_nothing_is_to_do_is_the_end() -> None:
    world = World()
    world.plan()
    world.meanwhile = [lambda: None, interrupt]
    with pytest.raises(StopIteration):
        world.plan()


class TestRefusals:
    @pytest.mark.parametrize(
        ("sources", "into"),
        [
            (("in",), "in"), (("in",), "./in/"), (("in/deep",), "in"), (("in",), "."),
            (("other", "in"), "link"), (("in",), None), (("in",), "-"), (("-",), "out"),
            (("a.png",), "out"), (("in", "a.png"), "out"), (("in/*.png",), "out"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_watched(self, sources: tuple[str, ...], into: str | None) -> None:
        for folder in ("in/deep", "other"):
            Path(folder).mkdir()
        Path("link").symlink_to("in")
        picture("a.png")
        picture("in/b.png")
        with pytest.raises(ParameterError) as caught:
            watch(sources, into, recursive=True)
        assert caught.value.parameter == "watch"

    def test_what_a_normal_run_refuses_is_refused_before_the_first_plan(self) -> None:
        with pytest.raises(ParameterError, match="add -r"):
            watch(["in"], "out")
        with pytest.raises(ParameterError, match="no such file or folder"):
            watch(["nowhere"], "out", recursive=True)
        with pytest.raises(ParameterError, match="must be one of"):
            watch(["in"], "out", recursive=True, format="xyz")


def test_looking_takes_a_tenth_of_the_time_at_most() -> None:
    now = NOW
    slept: list[float] = []

    def clock() -> float:
        nonlocal now
        now += 3  # a slow file system
        return now

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 2:
            raise Nothing

    plans: Iterator[Plan] = watch(["in"], "out", recursive=True, clock=clock, sleep=sleep)
    next(plans)
    now += 1000  # the first plan is done
    with pytest.raises(Nothing):
        next(plans)
    assert all(20 <= seconds <= 100 for seconds in slept)


def test_the_command_line_watches_until_ctrl_c() -> None:
    picture("in/a.png")
    process = subprocess.Popen(
        [
            *PROGRAM, "blur", "--engine", "cpu", "-r", "in", "out",
            "--watch", "--report", "report.jsonl",
        ],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def wait_for(path: str) -> None:
        until = time.monotonic() + 60
        while not Path(path).exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.05)

    try:
        wait_for("out/a.png")
        picture("b.jpg")
        Path("in/trip").mkdir()
        os.rename("b.jpg", "in/trip/b.jpg")
        wait_for("out/trip/b.jpg")
        time.sleep(0.5)  # until it waits again
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, told
    assert told.splitlines()[-1].startswith("2 done, 0 skipped, 0 failed, 0 left alone")
    records = [json.loads(line) for line in Path("report.jsonl").read_text().splitlines()]
    assert [record["destination"] for record in records] == ["out/a.png", "out/trip/b.jpg"]
