"""``bench --folder``: a real run, measured; the folder stays as it is, nothing is left."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from command_line import ENVIRONMENT, PROGRAM, cli, folder, picture, snapshot
from cudafilter.cli import app, bench_folder
from cudafilter.engines import Engine
from cudafilter.engines import open as engines
from cudafilter.jobs import crew, measure, sizing
from cudafilter.jobs.job import Job
from cudafilter.jobs.measure import Results, Tally, Until, situation
from cudafilter.jobs.record import DONE, FAILED, Record
from cudafilter.nvidia.nvml import Busy
from many_images import StandIn
from test_nvml import BUS, made

__all__ = ["folder"]

pytestmark = pytest.mark.usefixtures("here")

STAGES = ["read", "decode", "run", "encode", "write", "wait"]


@pytest.fixture(autouse=True)
def temporaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results go."""
    place = tmp_path / "temporaries"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))
    return place


def bench(*words: str) -> Any:
    return cli("bench", "--engine", "cpu", *words)


def figures(*words: str) -> dict[str, Any]:
    """What ``--json`` prints."""
    told: dict[str, Any] = json.loads(bench(*words, "--json").stdout)
    return told


def test_a_folder_is_run_and_told(folder: Path, temporaries: Path) -> None:
    before = snapshot(folder)
    result = bench("--folder", "in")
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    assert "blur of in: 3 of 4 pictures" in result.stdout
    assert "1 failed" in rows["blur"]
    for name in ("speed", "stages", "mostly", "in", "cores", "disk", "memory", "bound:", "hint:"):
        assert name in rows, name
    assert " of 2 busy" in rows["cores"] or os.cpu_count() != 2
    assert rows["GPU"].split() == ["GPU", "not", "used"]
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stderr.startswith("cpu: OpenCV")
    assert snapshot(folder) == before
    assert list(temporaries.iterdir()) == []


def test_what_is_told_of_pictures_is_told_once(here: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.open(picture(f"in/{name}")).convert("P").save(f"in/{name}")
    (run,) = figures("--folder", "in")["runs"]
    assert run["notes"] == {"palette expanded to RGB": 2}
    told = bench("--folder", "in").stderr.splitlines()
    assert told.count("note: palette expanded to RGB (2 images)") == 1


@pytest.mark.parametrize("words", ["--engine cpu", "", "--check=quick", "--codec cpu -j 3"])
def test_the_run_is_that_of_the_filters_command(
    words: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Any] = []
    original = engines.open_engine

    def open_engine(*names: str, **options: Any) -> Engine:
        usual = {"on_gpu_failure": "fail"}
        runs.append([names, {**usual, **options}])
        return original("cpu")

    def run(
        jobs: Any, open_engine: Any, filter: Any, border: Any, settings: Any, *_: Any, **named: Any
    ) -> None:
        sources = {job.source for job in jobs}
        open_engine()
        runs[-1][2:] = [sources, filter, border, settings, named["threads"]]

    monkeypatch.setattr(engines, "open_engine", open_engine)
    monkeypatch.setattr(crew, "run", run)
    monkeypatch.setattr(sizing, "small", lambda jobs, filter: None)
    for command in ("bench --folder in blur", "blur -r in out"):
        CliRunner().invoke(app, [*command.split(), *words.split()])
    of_bench, of_filter = runs
    assert of_bench == of_filter


def test_a_small_folder_is_the_cpus_as_in_a_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "small", lambda jobs, filter: "a small job")
    result = cli("bench", "--folder", "in")
    assert "; a small job\n" in result.stderr
    assert result.stderr.startswith("cpu: OpenCV")


def test_a_broken_file_is_told_and_the_rest_goes_on(folder: Path) -> None:
    result = bench("--folder", "in")
    assert result.stderr.count("error: in/broken.png: ") == 1
    assert result.exit_code == 1  # as a run's


def test_a_folder_without_faults_is_no_failure(folder: Path) -> None:
    (folder / "broken.png").unlink()
    assert bench("--folder", "in").exit_code == 0


def test_json_has_all_figures(folder: Path) -> None:
    data = figures("--folder", "in", "blur", "sobel")
    assert data["folder"] == "in"
    assert data["engine"].startswith("cpu: OpenCV")
    assert [run["filter"] for run in data["runs"]] == ["blur", "sobel"]
    for run in data["runs"]:
        assert (run["pictures"], run["of"], run["failed"]) == (3, 4, 1)
        whole = [folder / name for name in ("a.png", "b.jpg", "s/c.png")]
        assert run["bytes_in"] == sum(path.stat().st_size for path in whole)
        assert run["bytes_out"] > 0
        assert list(run["stages"]) == STAGES
        assert sum(run["stages"].values()) == pytest.approx(1)
        assert sum(run["parts"].values()) == pytest.approx(1 - run["stages"]["wait"])
        assert {"decode (png)", "decode (jpeg)", "encode (png)", "run"} <= set(run["parts"])
        assert 0 < run["cores_busy"] <= run["cores"] + 0.5
        assert 0 < run["in_work"] < 5
        assert run["gpus"] == []
        assert run["gpus_untold"] == "not used"
        assert run["bound"]["name"] == "pictures"
        assert run["memory"] > 10 << 20


def test_a_check_is_a_stage(folder: Path) -> None:
    (run,) = figures("--folder", "in", "--check", "median")["runs"]
    assert run["stages"]["check"] > 0


def test_no_picture_begins_after_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job(Path(f"{n}.png"), Path("out"), None) for n in range(5)]
    clock = iter(range(100))
    monkeypatch.setattr("cudafilter.jobs.measure.time.monotonic", lambda: next(clock))
    assert len(list(Until(jobs, 3))) == 3


def test_the_warm_up_does_not_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch, temporaries: Path
) -> None:
    runs: list[list[Job]] = []
    original = crew.run

    def run(jobs: Any, *given: Any, **named: Any) -> None:
        runs.append(list(jobs))
        original(jobs, *given, **named)

    monkeypatch.setattr(crew, "run", run)
    monkeypatch.setattr(measure, "WARM", 2)
    (measured,) = figures("--folder", "in")["runs"]
    assert [len(jobs) for jobs in runs] == [2, 4]
    assert measured["pictures"] == 3
    assert runs[0] == runs[1][:2]


def test_pictures_come_in_an_order_that_is_random_and_always_the_same(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[list[Path]] = []

    def run(jobs: Any, *given: Any, **named: Any) -> None:
        orders.append([job.source for job in jobs])

    for n in range(40):
        picture(f"in/{n:02}.png", (8, 8))
    monkeypatch.setattr(crew, "run", run)
    bench("--folder", "in")
    bench("--folder", "in")
    _, first, _, second = orders
    assert first == second != sorted(first)
    assert len(set(first)) == 40


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--folder gone", "gone: there is no such folder"),
        ("--folder a.png", "a.png: it is no folder"),
        ("--folder empty", "empty: there are no images in it"),
        ("--folder in --sizes 16", "--sizes has a meaning without --folder only"),
        ("--folder in --html a.html", "--html has a meaning without --folder only"),
        ("--seconds 3", "--seconds has a meaning with --folder only"),
        ("--jobs 3", "--jobs has a meaning with --folder only"),
        ("--folder in --seconds 0", "--seconds"),
    ],
)
def test_what_cannot_be_is_a_usage_error(words: str, told: str) -> None:
    picture("a.png")
    picture("in/a.png")
    Path("empty").mkdir()
    result = bench(*words.split())
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_folder_that_may_not_be_read_is_not_called_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any) -> None:
        raise PermissionError(13, "Permission denied")

    picture("in/a.png")
    monkeypatch.setattr(os, "scandir", refuse)
    result = bench("--folder", "in")
    assert result.exit_code == 2
    assert "in: Permission denied" in result.stderr


def test_results_never_go_into_the_folder(temporaries: Path) -> None:
    picture(temporaries / "a.png")
    result = bench("--folder", str(temporaries.parent))
    assert result.exit_code == 2
    assert "where results would go, is in" in result.stderr
    assert "TMPDIR" in result.stderr


def test_a_folder_of_broken_files_is_an_error(here: Path) -> None:
    Path("in").mkdir()
    Path("in/a.png").write_bytes(b"\x89PNG")
    result = bench("--folder", "in")
    assert result.exit_code == 1
    assert "error: in: no image could be done" in result.stderr


def test_results_are_for_the_user_only(
    folder: Path, temporaries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def add(self: Results, record: Record) -> None:
        (made,) = temporaries.iterdir()
        seen.append((made.stat().st_mode & 0o777, Path(record.destination).is_relative_to(made)))

    monkeypatch.setattr(Results, "add", add)
    bench("--folder", "in")
    assert seen == [(0o700, True)] * 8  # of the warm-up, and of the run


def test_results_make_room_for_newer_ones() -> None:
    results = Results(100)
    for name in "abc":
        Path(name).write_bytes(bytes(40))
        results.add(Record(name, name, status=DONE, bytes_out=40))
    assert [Path(name).exists() for name in "abc"] == [False, True, True]
    results.add(Record("d", "d", status=FAILED))
    results.clear()
    assert not any(Path(name).exists() for name in "abc")


def test_ctrl_c_leaves_nothing(temporaries: Path) -> None:
    original = picture("in/0.png", (900, 900)).read_bytes()
    for n in range(1, 300):
        Path(f"in/{n}.png").write_bytes(original)
    before = snapshot("in")
    process = subprocess.Popen(
        [*PROGRAM, "bench", "--engine", "cpu", "--folder", "in"],
        env={**ENVIRONMENT, "TMPDIR": str(temporaries)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not list(temporaries.glob("*/*.png")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert told.splitlines()[-1] == "interrupted"
    assert list(temporaries.iterdir()) == []
    assert snapshot("in") == before


def ended(ago: float, **facts: Any) -> Record:
    """The record of a picture that began so many seconds *ago* and has just ended."""
    return Record("a.jpg", "b.png", status=DONE, started=time.time() - ago, **facts)


def test_what_is_between_the_stages_is_waiting() -> None:
    tally = Tally()
    tally.add(ended(10, seconds={"decode": 4.0, "encode": 3.0}))
    assert tally.spent["wait"] == pytest.approx(3, abs=0.1)
    assert tally.parts == {"decode (jpeg)": 4.0, "encode (png)": 3.0}
    assert tally.lives == pytest.approx(10, abs=0.1)


def test_of_stages_that_overlap_the_shares_count() -> None:
    tally = Tally()
    tally.add(ended(10, seconds={"decode": 12.0, "encode": 8.0}))
    assert tally.spent["decode"] == pytest.approx(6, abs=0.1)
    assert tally.spent["encode"] == pytest.approx(4, abs=0.1)
    assert tally.spent["wait"] == pytest.approx(0, abs=0.1)


def test_what_failed_counts_as_failed_only() -> None:
    tally = Tally()
    record = ended(10, seconds={"decode": 4.0}, bytes_in=7)
    record.status = FAILED
    tally.add(record)
    assert (tally.counts[FAILED], tally.lives, tally.bytes_in, tally.spent) == (1, 0, 0, {})


def measured(*gpus: Busy) -> measure.Measured:
    made = measure.Measured("blur", pictures=40, of=40, seconds=4.0, gpus=dict(enumerate(gpus)))
    made.engine_seconds = {"kernel": 0.8}
    made.stages = {"run": 1.0}
    return made


def test_the_busiest_gpu_counts() -> None:
    gpus = Busy(0.1, 0.2, None, None, None), Busy(0.7, 0.2, 0.9, 0.0, 0.0)
    found = situation(measured(*gpus), on_gpu=True)
    assert (found.gpu, found.units) == (0.7, 0.9)


def test_without_nvml_the_records_tell_of_kernels() -> None:
    found = situation(measured(), on_gpu=True)
    assert found.gpu == pytest.approx(0.2)
    assert found.units is None
    assert situation(measured(), on_gpu=False).gpu is None


def test_a_gpu_is_told_in_lines() -> None:
    made = measured(Busy(0.19, 0.07, 0.97, None, None), Busy(None, None, None, None, None))
    text = list(bench_folder.lines(made, "photos"))
    assert "  GPU 0   kernels 19 %, memory 7 %, JPEG units 97 %" in text
    assert "  GPU 1   tells nothing" in text
    assert "  engine  kernel 20 %" in text


def test_a_gpu_is_watched_while_the_run_lasts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = ctypes.CDLL(made(tmp_path, "-DJPEG"))
    monkeypatch.setattr("cudafilter.nvidia.nvml.ctypes.CDLL", lambda name: library)
    monkeypatch.setattr(bench_folder, "buses_of", lambda engine, gpu: {3: BUS})
    (run,) = figures("--folder", "in")["runs"]
    assert run["gpus_untold"] is None
    (gpu,) = run["gpus"]
    assert (gpu["number"], gpu["kernels"], gpu["jpeg"]) == (3, 0.19, 0.97)
    assert gpu["encoder"] is None


def test_a_gpu_without_nvml_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_folder, "buses_of", lambda engine, gpu: {0: BUS})
    monkeypatch.setattr("cudafilter.nvidia.nvml.ctypes.CDLL", missing)
    (run,) = figures("--folder", "in")["runs"]
    assert run["gpus"] == []
    assert run["gpus_untold"] == "NVML does not tell: there is no libnvidia-ml.so.1"


def missing(name: str) -> None:
    raise OSError(name)


@pytest.mark.parametrize(("asked", "numbers"), [(None, [0, 1]), (1, [1])])
def test_the_gpus_that_may_be_used_are_watched(
    asked: int | None, numbers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Device:
        def __init__(self, number: int) -> None:
            self.number = number

        @staticmethod
        def count() -> int:
            return 2

        def pci_bus_id(self) -> str:
            return f"0000:3{self.number}:00.0"

    driver = SimpleNamespace(Device=Device)
    monkeypatch.setattr("cudafilter.engines.cuda.device.driver", lambda: driver)
    found = measure.buses_of(StandIn(), asked)
    assert found == {number: f"0000:3{number}:00.0" for number in numbers}


@pytest.mark.gpu
def test_a_gpu_tells_how_busy_it_was(folder: Path) -> None:
    (run,) = json.loads(cli("bench", "--engine", "cuda", "--folder", "in", "--json").stdout)["runs"]
    assert run["pictures"] == 3
    assert run["gpus_untold"] is None
    assert run["engine_seconds"]["kernel"] > 0
    for gpu in run["gpus"]:
        assert 0 <= gpu["kernels"] <= 1
        assert gpu["jpeg"] is None or 0 <= gpu["jpeg"] <= 1
