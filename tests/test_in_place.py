"""Pictures that are changed in place: once, whatever ends a run or comes between."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import agreement
from command_line import HOME, cli, killed
from cudafilter.cli import app
from cudafilter.engines import Engine, Result
from cudafilter.errors import CudafilterError
from cudafilter.jobs import crew
from cudafilter.jobs.journal import Journal, job_of
from cudafilter.jobs.plan import make_plan
from cudafilter.jobs.record import Record
from cudafilter.jobs.worker import Settings
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels
from cudafilter.stores import local

COUNT = 30
OPTIONS = ["--in-place", "-r", "--engine", "cpu", "-j", "1"]
PROGRAM = "from cudafilter.__main__ import main; main()"
BLUR = make("blur", sigma=2.0)


@pytest.fixture(autouse=True)
def state(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the journals are. Processes of a test find it, and the package, too."""
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "state"))
    monkeypatch.setenv("PYTHONPATH", HOME)
    return here / "state" / "cudafilter" / "in-place"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "trip").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
        name = f"trip/{number}.bmp" if number % 2 else f"{number}\n.bmp"
        Image.fromarray(pixels).save(folder / name)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """The files of *folder* by their names, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def command(*words: object, code: str = "") -> list[str]:
    """The program on the CPU, one picture at a time, in a process that first runs *code*."""
    return [sys.executable, "-c", f"{code}\n{PROGRAM}", *map(str, words), *OPTIONS]


class Ran(NamedTuple):
    returncode: int
    stderr: str


def run(*words: object) -> Ran:
    """The program in this process, which has not seen any folder yet."""
    local._folders.clear()
    done = CliRunner().invoke(app, [*map(str, words), *OPTIONS], prog_name="cudafilter")
    return Ran(done.exit_code, done.stderr)


class Inverter(agreement.StandIn):
    """An engine that inverts, and calls *change* before that, once."""

    def __init__(self, change: Callable[[], object] = lambda: None) -> None:
        self._changes = [change]

    def run(
        self,
        pixels: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
        *,
        overwrite: bool = False,
        rows: tuple[int, int] | None = None,
    ) -> Result:
        """255 less each sample."""
        if self._changes:
            self._changes.pop()()
        return Result(255 - pixels)


def in_place(photos: Path, engine: Engine, journal: Journal | None = None) -> list[Record]:
    """The records of a run in this process."""
    seen: list[Record] = []
    jobs = make_plan([str(photos)], None, recursive=True).jobs
    crew.run(
        jobs, lambda: engine, BLUR, Border(), Settings(), seen.append, threads=1, journal=journal
    )
    return seen


@pytest.fixture
def once(photos: Path, tmp_path: Path, cpu: Engine) -> dict[str, bytes]:
    """What *photos* are after a blur."""
    copies = tmp_path / "once"
    shutil.copytree(photos, copies)
    assert all(record.error is None for record in in_place(copies, cpu))
    return content(copies)


class TestKilled:
    @pytest.mark.parametrize(
        ("call", "number", "moment"),
        [
            ("fchmod", 3, "before a picture is complete"),
            ("fdatasync", 3, "after it is written down, before it takes its place"),
            ("unlink", 3, "after it took its place, before the old one is gone"),
        ],
    )
    def test_at_each_step_of_a_picture(
        self, photos: Path, once: dict[str, bytes], state: Path, call: str, number: int, moment: str
    ) -> None:
        killed(call, number, "blur", "--sigma", 2, photos, *OPTIONS)
        assert content(photos) != once
        ran = run("blur", "--sigma", 2, photos)
        assert "an unfinished run of this job is finished" in ran.stderr
        assert content(photos) == once, moment
        assert not list(state.glob("*.jsonl"))
        assert run("blur", "--sigma", 2, photos, "-q").returncode == 0
        assert content(photos) != once, "the job had ended: this is a new one"

    def test_a_part_of_the_tree_may_be_finished_first(
        self, photos: Path, once: dict[str, bytes]
    ) -> None:
        killed("fchmod", COUNT - 2, "blur", "--sigma", 2, photos, *OPTIONS)
        for part in (photos / "trip", photos):
            assert run("blur", "--sigma", 2, part).returncode == 0
        assert content(photos) == once

    def test_the_tree_may_be_moved_meanwhile(self, photos: Path, once: dict[str, bytes]) -> None:
        killed("fchmod", 5, "blur", "--sigma", 2, photos, *OPTIONS)
        moved = photos.rename(photos.with_name("moved"))
        assert run("blur", "--sigma", 2, moved).returncode == 0
        assert content(moved) == once

    def test_another_job_is_told_of_it(self, photos: Path) -> None:
        killed("fchmod", 5, "blur", "--sigma", 2, photos, *OPTIONS)
        ran = run("blur", "--sigma", 7, photos)
        assert "an unfinished run of 'blur' has changed 4 of these pictures" in ran.stderr
        assert f"{COUNT} done, 0 skipped" in ran.stderr
        assert "an unfinished run" not in run("blur", "--sigma", 2, photos).stderr, (
            "none of its pictures is left"
        )

    def test_one_that_was_changed_since_is_filtered(self, photos: Path) -> None:
        killed("fchmod", 5, "blur", "--sigma", 2, photos, *OPTIONS)
        for path in photos.rglob("*.bmp"):
            os.utime(path)
        assert f"{COUNT} done, 0 skipped" in run("blur", "--sigma", 2, photos).stderr


class TestFailed:
    def test_pictures_are_tried_again_and_the_others_left(
        self, photos: Path, once: dict[str, bytes], state: Path
    ) -> None:
        (photos / "broken.bmp").write_bytes(b"BM")
        ran = run("blur", "--sigma", 2, photos)
        assert ran.returncode == 1
        (journal,) = state.glob("*.jsonl")
        assert f"what is done is noted in {journal}" in ran.stderr
        assert journal.stat().st_mode & 0o777 == 0o600
        assert run("blur", "--sigma", 2, photos).returncode == 1
        (photos / "broken.bmp").unlink()
        assert run("blur", "--sigma", 2, photos).returncode == 0
        assert content(photos) == once
        assert not list(state.glob("*.jsonl"))

    def test_without_its_journal_all_is_done_anew(
        self, photos: Path, once: dict[str, bytes], state: Path
    ) -> None:
        (photos / "broken.bmp").write_bytes(b"BM")
        run("blur", "--sigma", 2, photos)
        for journal in state.glob("*.jsonl"):
            journal.unlink()
        assert f"{COUNT} done, 0 skipped, 1 failed" in run("blur", "--sigma", 2, photos).stderr

    def test_without_a_place_for_the_journal_it_is_told(
        self, photos: Path, once: dict[str, bytes], tmp_path: Path
    ) -> None:
        (tmp_path / "state").write_bytes(b"")
        ran = run("blur", "--sigma", 2, photos)
        assert "no journal can be kept" in ran.stderr
        assert content(photos) == once

    def test_a_picture_that_cannot_be_written_down_stays(
        self, photos: Path, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = content(photos)
        with Journal(state, "job", "blur", photos.rglob("*.bmp")) as journal:
            write = os.write

            def full(file: int, data: bytes) -> int:
                return write(file, data) if len(data) > 1000 else write(file, data[:5])

            monkeypatch.setattr(os, "write", full)
            records = in_place(photos, Inverter(), journal)
        assert {record.status for record in records} == {"failed"}
        assert all("the journal" in str(record.error) for record in records)
        assert content(photos) == before


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "one").mkdir()
    Image.new("RGB", (30, 20), (1, 2, 3)).save(tmp_path / "one" / "a.bmp")
    return tmp_path / "one" / "a.bmp"


class TestAnotherProgramsSave:
    """Between the reading and the writing of a picture it may be saved by another program."""

    def saved_over(self, photo: Path) -> None:
        Image.new("RGB", (30, 20), (7, 8, 9)).save(photo.with_name("new"), "BMP")
        photo.with_name("new").replace(photo)

    def saved_into(self, photo: Path) -> None:
        Image.new("RGB", (30, 20), (7, 8, 9)).save(photo)

    def saved_with_its_old_time(self, photo: Path) -> None:
        before = photo.stat()
        self.saved_into(photo)
        os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns))

    @pytest.mark.parametrize("how", ["saved_over", "saved_into", "saved_with_its_old_time"])
    def test_stays(self, photo: Path, how: str) -> None:
        (record,) = in_place(photo.parent, Inverter(lambda: getattr(self, how)(photo)))
        assert record.status == "failed"
        assert "another program changed it meanwhile" in str(record.error)
        assert np.asarray(Image.open(photo))[0, 0].tolist() == [7, 8, 9]
        assert os.listdir(photo.parent) == ["a.bmp"]

    def test_stays_where_it_comes_after_the_last_look(
        self, photo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exchange, calls = local._exchange, 0

        def late(one: str, other: Path) -> bool:
            nonlocal calls
            calls += 1
            if calls == 1:
                self.saved_over(photo)
            return exchange(one, other)

        monkeypatch.setattr(local, "_exchange", late)
        if not exchange(str(photo), photo):
            pytest.skip("two files cannot swap their names here")
        (record,) = in_place(photo.parent, Inverter())
        assert record.status == "failed"
        assert np.asarray(Image.open(photo))[0, 0].tolist() == [7, 8, 9]
        assert os.listdir(photo.parent) == ["a.bmp"]

    def test_stays_without_exchanges_where_it_comes_before_the_last_look(
        self, photo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sync = os.fsync

        def late(file: int) -> None:
            sync(file)
            self.saved_over(photo)

        monkeypatch.setattr(local, "_exchange", lambda one, other: False)
        monkeypatch.setattr(os, "fsync", late)
        (record,) = in_place(photo.parent, Inverter())
        assert record.status == "failed"
        assert np.asarray(Image.open(photo))[0, 0].tolist() == [7, 8, 9]
        assert os.listdir(photo.parent) == ["a.bmp"]

    def test_the_newest_stays_where_it_comes_between_the_exchange_and_its_undoing(
        self, photo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exchange, calls = local._exchange, 0

        def late(one: str, other: Path) -> bool:
            nonlocal calls
            calls += 1
            if calls < 3:
                self.saved_over(photo)
                if calls == 2:
                    Image.new("RGB", (30, 20), (4, 5, 6)).save(photo.with_name("new"), "BMP")
                    photo.with_name("new").replace(photo)
            return exchange(one, other)

        monkeypatch.setattr(local, "_exchange", late)
        if not exchange(str(photo), photo):
            pytest.skip("two files cannot swap their names here")
        (record,) = in_place(photo.parent, Inverter())
        assert record.status == "failed"
        assert np.asarray(Image.open(photo))[0, 0].tolist() == [4, 5, 6]
        assert os.listdir(photo.parent) == ["a.bmp"]

    def test_a_picture_that_was_removed_does_not_come_back(self, photo: Path) -> None:
        (record,) = in_place(photo.parent, Inverter(photo.unlink))
        assert "another program changed it meanwhile" in str(record.error)
        assert os.listdir(photo.parent) == []

    def test_without_exchanges_the_picture_is_replaced(
        self, photo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(local, "_exchange", lambda one, other: False)
        (record,) = in_place(photo.parent, Inverter())
        assert record.error is None
        assert np.asarray(Image.open(photo))[0, 0].tolist() == [254, 253, 252]
        assert os.listdir(photo.parent) == ["a.bmp"]


class TestLinks:
    def test_each_name_of_a_file_gets_the_result_once(self, photo: Path) -> None:
        photo.with_name("b.bmp").hardlink_to(photo)
        records = in_place(photo.parent, Inverter())
        assert [record.error for record in records] == [None, None]
        assert any("2 hard links" in note for record in records for note in record.notes)
        for name in ("a.bmp", "b.bmp"):
            pixels = np.asarray(Image.open(photo.with_name(name)))
            assert pixels[0, 0].tolist() == [254, 253, 252]

    def test_a_link_stays_one(self, photo: Path, tmp_path: Path) -> None:
        (tmp_path / "link.bmp").symlink_to(photo)
        (record,) = in_place(tmp_path / "link.bmp", Inverter())
        assert record.error is None
        assert (tmp_path / "link.bmp").is_symlink()
        assert np.asarray(Image.open(photo))[0, 0].tolist() == [254, 253, 252]


class TestTwoRuns:
    def test_do_not_change_one_picture(self, photos: Path, state: Path) -> None:
        before = content(photos)
        with Journal(state, "job", "blur", photos.rglob("*.bmp")):
            for source in (photos, photos / "trip", photos / "trip" / "1.bmp"):
                ran = run("sharpen", source)
                assert ran.returncode == 1
                assert f"another run changes it in place now (process {os.getpid()})" in ran.stderr
        assert content(photos) == before
        assert run("sharpen", photos / "trip").returncode == 0

    def test_may_change_different_ones(self, photos: Path, state: Path) -> None:
        with Journal(state, "job", "blur", (photos / "trip").glob("1.bmp")):
            assert run("blur", "--sigma", 2, photos / "trip" / "3.bmp").returncode == 0

    def test_a_link_is_the_file_it_leads_to(self, photos: Path, state: Path) -> None:
        (photos / "link.bmp").symlink_to("trip/1.bmp")
        with (
            Journal(state, "job", "blur", [photos / "trip" / "1.bmp"]),
            pytest.raises(CudafilterError, match="another run"),
        ):
            Journal(state, "other", "blur", [photos / "link.bmp"])


class TestJob:
    def test_is_told_by_what_makes_other_pixels(self) -> None:
        jobs = [
            job_of(BLUR, Border()),
            job_of(make("blur", sigma=2.5), Border()),
            job_of(make("sharpen"), Border()),
            job_of(BLUR, Border("wrap")),
            job_of(BLUR, Border("constant", 0.5)),
            job_of(BLUR, Border(), True),
            job_of(make("kernel", weights="0 1 0"), Border()),
            job_of(make("kernel", weights="0 1; 0 0"), Border()),
        ]
        assert len(set(jobs)) == len(jobs)
        assert job_of(make("blur", sigma=2.0), Border()) == jobs[0]

    @pytest.mark.parametrize(
        ("option", "other"),
        [
            ([], False), (["--gray"], True), (["--quality", "80"], True), (["--dither"], True),
            (["--compress-level", "9"], False),
        ],
    )  # fmt: skip
    def test_options_that_make_other_pixels_make_another(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch, option: list[str], other: bool
    ) -> None:
        told: list[str] = []

        def heard(*what: Any) -> str:
            told.append(job_of(*what))
            return told[-1]

        monkeypatch.setattr("cudafilter.jobs.journal.job_of", heard)
        for options in [], option:
            cli("blur", "--in-place", str(photos / "trip" / "1.bmp"), *options)
        assert (len(set(told)) == 2) is other
        assert len(told) == 2

    def test_a_line_that_a_power_cut_tore_is_left_out(self, photos: Path, state: Path) -> None:
        path = photos / "trip" / "1.bmp"
        state.mkdir(parents=True)
        now = local.stat(path)
        assert now is not None
        line = json.dumps([str(path), now.inode, now.size, now.modified])
        (state / "job-1.jsonl").write_text(f'{{}}\n["/a", 1,\n{line}\n\0\0\0\n[1, 2]\n"x"')
        with Journal(state, "job", "blur", [path, photos / "trip" / "3.bmp"]) as journal:
            assert journal.has_done(path, now)
            assert not journal.has_done(path, now._replace(size=1))

    def test_whole_names_need_no_current_folder(
        self, photos: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        with Journal(state, "job", "blur", [photos / "trip" / "3.bmp"]) as journal:
            journal.close(finished=True)

    def test_names_without_a_folder_are_those_of_the_current_one(
        self, tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("a", "b"):  # in one process
            (tmp_path / name).mkdir()
            monkeypatch.chdir(tmp_path / name)
            photo = Path("in.bmp")
            Image.new("RGB", (3, 3)).save(photo)
            now = local.stat(photo)
            assert now is not None
            for known in (False, True):
                journal = Journal(state, "job", "blur", [photo])
                assert journal.has_done(photo, now) == known
                journal.add(photo, now)
                journal.close(finished=False)
