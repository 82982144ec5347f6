"""filter_files(): what the command line does with files, as records to be iterated over."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cudafilter
from command_line import cli, folder, picture, snapshot
from cudafilter.engines import Result
from cudafilter.errors import EngineUnavailable, ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels
from many_images import StandIn, photos

__all__ = ["folder", "photos"]

Files = Callable[..., Iterator[cudafilter.Record]]


def files(*paths: Any, filter: str | Operation = "blur", **options: Any) -> Any:
    *sources, destination = paths or ("in", "out")
    options = {"engine": "cpu", "recursive": True, **options}
    return cudafilter.filter_files(sources, destination, filter, **options)


def temporaries() -> list[Path]:
    return [path for path in Path("out").rglob("*") if path.name.startswith(".")]


def at_rest() -> bool:
    """Whether no thread is left but those that are just about to end."""
    for _ in range(100):
        if not {"image", "end"} & {thread.name for thread in threading.enumerate()}:
            return True
        time.sleep(0.01)
    return False


class Slow(StandIn):
    """An engine that takes a while, and tells whether it is used once it is closed."""

    closed = used = False

    def run(self, pixels: Pixels, *arguments: Any, **named: Any) -> Result:
        time.sleep(0.05)
        self.used = self.used or self.closed  # it was closed under its work
        return super().run(pixels, *arguments, **named)

    def close(self) -> None:
        self.closed = True


class TestDoesWhatTheCommandLineDoes:
    @pytest.mark.parametrize(
        ("words", "options"),
        [
            ("", {}),
            ("--sigma 3 --border wrap", {"sigma": 3, "border": "wrap"}),
            ("--border constant --border-value 1", {"border": Border("constant", 1.0)}),
            ("--gray --format jpeg --quality 40", {"gray": True, "format": "jpeg", "quality": 40}),
            ("--linear --check", {"linear": True, "check": "all"}),
            ("--check=quick --jobs 1", {"check": "quick", "jobs": 1}),
            ("--existing skip --strict", {"existing": "skip", "strict": True}),
            ("--max-pixels 800", {"max_pixels": 800}),
            ("--max-pixels 700", {"max_pixels": 700}),
            ("--shard 2/3", {"shard": "2/3"}),
            ("--frames 0", {"frames": "0"}),
            ("--follow", {"follow": True}),
        ],
    )
    def test_with_the_options_of_the_same_names(
        self, words: str, options: dict[str, Any], folder: Path
    ) -> None:
        Path("in/film.mp4").write_bytes(b"x")
        Path("in/l.png").symlink_to("a.png")
        picture("out/a.png")
        before = snapshot("out")
        report = cli("blur", "-r", "in", "out", *words.split(), "--report", "r.jsonl")
        whole = snapshot("out")
        for path in Path("out").rglob("*.*"):
            if str(path) not in before:
                path.unlink()
        Path("out/a.png").write_bytes(before["out/a.png"])
        records = list(files(**options))
        assert snapshot("out") == whole
        assert len(records) == len(Path("r.jsonl").read_text().splitlines())
        assert any(r.status == "failed" for r in records) == (report.exit_code == 1)

    @pytest.mark.parametrize(
        ("words", "options"),
        [
            ("--strict", {"strict": True}),
            ("--frames 0,2-4", {"frames": "0,2-4"}),
            ("--check=quick", {"check": "quick"}),
            ("--jobs 3", {"jobs": 3}),
            ("--engine cuda", {"engine": "cuda"}),
            ("--gray --linear --quality 40", {"gray": True, "linear": True, "quality": 40}),
            ("--max-pixels 9 --border wrap", {"max_pixels": 9, "border": "wrap"}),
        ],
    )
    def test_as_the_command_line_asks_the_crew(
        self, words: str, options: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def ask(*given: Any, threads: int | None, **_: Any) -> Iterator[cudafilter.Record]:
            asked.append((given[0], *given[3:5], threads))
            return iter(())

        monkeypatch.setattr("cudafilter.jobs.crew.run", ask)
        monkeypatch.setattr("cudafilter.jobs.crew.records", ask)
        cli("blur", "-r", "in", "out", *words.split())
        list(files(**options))
        assert asked[0] == asked[1]

    def test_links_in_the_folder_are_followed_where_that_is_asked(self, folder: Path) -> None:
        Path("out").mkdir()
        Path("elsewhere").mkdir()
        Path("out/s").symlink_to("../elsewhere")
        with pytest.raises(ParameterError, match="leads out"):
            files()
        list(files(follow=True))
        assert Path("elsewhere/c.png").exists()

    def test_one_file_to_one_file(self, here: Path) -> None:
        picture("a.png")
        (record,) = cudafilter.filter_files("a.png", Path("b.png"), "blur", engine="cpu")
        assert (record.source, record.destination, record.status) == ("a.png", "b.png", "done")
        assert (record.width, record.height, record.colour) == (32, 24, "RGB")
        expected = cudafilter.apply(np.asarray(Image.open("a.png")), "blur", engine="cpu")
        np.testing.assert_array_equal(np.asarray(Image.open("b.png")), expected)

    def test_with_an_operation_and_an_open_engine_which_stays_open(self, photos: Path) -> None:
        engine = Slow()
        kernel = cudafilter.Filter("mine", (cudafilter.Kernel([[1.0]]),))
        assert {r.status for r in files(filter=kernel, engine=engine)} == {"done"}
        assert not engine.closed

    @pytest.mark.parametrize("check", [None, "all"])
    def test_a_check_is_in_the_record(self, photos: Path, check: str | None) -> None:
        for record in files(check=check):
            assert (record.agreement is not None and record.agreement.ok) == (check is not None)


class TestErrors:
    def test_of_one_image_are_in_its_record(self, folder: Path) -> None:
        Path("in/film.mp4").write_bytes(b"x")
        records = {record.source: record for record in files()}
        assert {name: r.status for name, r in records.items()} == {
            "in/a.png": "done", "in/b.jpg": "done", "in/s/c.png": "done",
            "in/broken.png": "failed", "in/film.mp4": "left alone",
        }  # fmt: skip
        assert records["in/broken.png"].error
        assert not Path("out/broken.png").exists()

    @pytest.mark.parametrize(
        ("paths", "options", "names"),
        [
            (("out",), {}, "sources"),
            (("gone", "out"), {}, "sources"),
            (("in", "out"), {"recursive": False}, "sources"),
            (("-", "out.png"), {}, "sources"),
            (("in/a.png", "-"), {}, "destination"),
            (("in/a.png", ""), {}, "destination"),
            (("in/a.png", "out.xyz"), {}, "destination"),
            (("in/a.png", "in/a.png"), {}, "destination"),
            ((None, "out"), {}, "sources"),
            ((b"in", "out"), {}, "sources"),
            (([3], "out"), {}, "sources"),
            (("in", None), {}, "destination"),
            (("in", "out"), {"filter": "blurr"}, "filter"),
            (("in", "out"), {"filter": None}, "filter"),
            (("in", "out"), {"border": None}, "border"),
            (("in", "out"), {"engine": None}, "engine"),
            (("in", "out"), {"frames": 0}, "frames"),
            (("in", "out"), {"shard": (1, 2)}, "shard"),
            (("in", "out"), {"format": 3}, "format"),
            (("in", "out"), {"sigma": -1}, "sigma"),
            (("in", "out"), {"in_place": True}, "in_place"),
            (("in", "out"), {"border": "mirror"}, "border"),
            (("in", "out"), {"engine": "gpu"}, "engine"),
            (("in", "out"), {"existing": "keep"}, "existing"),
            (("in", "out"), {"format": "xyz"}, "format"),
            (("in", "out"), {"check": True}, "check"),
            (("in", "out"), {"quality": 101}, "quality"),
            (("in", "out"), {"quality": "90"}, "quality"),
            (("in", "out"), {"max_pixels": 0}, "max_pixels"),
            (("in", "out"), {"jobs": 0}, "jobs"),
            (("in", "out"), {"frames": "x"}, "frames"),
            (("in", "out"), {"shard": "0/2"}, "shard"),
        ],
    )
    def test_of_the_job_are_raised_at_the_call(
        self, paths: tuple[Any, ...], options: dict[str, Any], names: str, folder: Path
    ) -> None:
        before = snapshot()
        with pytest.raises(ParameterError) as caught:
            files(*paths, **options)
        assert caught.value.parameter == names
        assert snapshot() == before

    def test_existing_outputs_may_be_one(self, folder: Path) -> None:
        picture("out/a.png")
        with pytest.raises(ParameterError, match="exists"):
            files(existing="error")

    def test_an_engine_that_cannot_run_comes_with_the_first_record(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise EngineUnavailable("no GPU")

        monkeypatch.setattr("cudafilter.jobs.files.open_engine", refuse)
        records = files(engine="cuda")
        with pytest.raises(EngineUnavailable):
            next(records)
        assert not Path("out").exists()
        assert at_rest()

    def test_what_no_image_expects_is_raised_and_ends_the_work(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr("cudafilter.jobs.worker.Worker.do", broken)
        with pytest.raises(MemoryError):
            list(files())
        assert at_rest()


class TestLeavingEarly:
    @pytest.fixture
    def engine(self, monkeypatch: pytest.MonkeyPatch) -> Slow:
        """The one that is opened."""
        engine = Slow()
        monkeypatch.setattr("cudafilter.jobs.files.open_engine", lambda *_, **__: engine)
        return engine

    @pytest.fixture(autouse=True)
    def more(self, photos: Path) -> None:
        for n in range(40):
            picture(f"in/more{n}.png")

    @pytest.mark.parametrize("jobs", [None, 1, 4])
    @pytest.mark.parametrize("taken", [1, 5])
    def test_stops_the_work_and_leaves_whole_files_only(
        self, engine: Slow, jobs: int | None, taken: int
    ) -> None:
        records = files(jobs=jobs)
        for _ in range(taken):
            assert next(records).status == "done"
        records.close()
        assert at_rest()
        assert engine.closed
        written = snapshot("out")
        assert taken <= len(written) < 46
        assert temporaries() == []
        for name in written:
            Image.open(name).load()
        time.sleep(0.2)
        assert snapshot("out") == written
        assert not engine.used

    def test_by_a_break_does_too(self, engine: Slow) -> None:
        for _ in files():
            break
        assert at_rest()
        assert engine.closed

    def test_an_error_in_the_loop_does_too(self, engine: Slow) -> None:
        def loop() -> None:
            for record in files():
                raise KeyError(record.source)

        with pytest.raises(KeyError):
            loop()
        assert at_rest()
        assert engine.closed

    def test_by_ctrl_c_does_too(self, engine: Slow) -> None:
        records = files()
        next(records)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            list(records)
        assert at_rest()
        assert engine.closed
        assert temporaries() == []

    def test_before_the_first_record_nothing_has_begun(self, engine: Slow) -> None:
        records = files()
        time.sleep(0.1)
        assert not Path("out").exists()
        records.close()
        assert not Path("out").exists()

    def test_the_rest_is_done_by_a_second_call(self, engine: Slow) -> None:
        records = files()
        next(records)
        records.close()
        statuses = [record.status for record in files(existing="skip")]
        assert len(statuses) == 46
        assert set(statuses) == {"done", "skipped"}

    def test_the_work_does_not_run_far_ahead(self, engine: Slow) -> None:
        records = files(jobs=2)
        next(records)
        time.sleep(0.5)
        assert len(snapshot("out")) <= 5  # one taken, one waiting, two in work and about to end
        assert len(list(records)) == 45


def test_no_parameter_of_a_filter_is_called_as_an_option() -> None:
    own = set(inspect.signature(cudafilter.filter_files).parameters)
    for spec in CATALOGUE.values():
        assert not own & {parameter.name for parameter in spec.parameters}, spec.name


def test_what_apply_needs_loads_nothing_of_this() -> None:
    code = "import sys, cudafilter.api; print([n for n in sys.modules if 'cudafilter.jobs' in n])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
