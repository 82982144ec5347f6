"""A GPU that starts while Python still imports."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cudafilter import __main__ as process
from cudafilter.cli import app
from cudafilter.nvidia import nvjpeg, nvjpeg_units
from cudafilter.nvidia.nvjpeg import NvJpeg, NvJpegError
from cudafilter.start import early, gpus, words
from cudafilter.start.begun import begun


class Driver:
    """libcuda, whose calls fail from *failing* on."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name == "cuDriverGetVersion":
                arguments[0]._obj.value = 13020
            if name == "cuDeviceGetCount":
                arguments[0]._obj.value = 3
            return int(name == self.failing)

        return call


@pytest.fixture(autouse=True)
def nothing_begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """PyCUDA is there and nothing has begun."""
    monkeypatch.setattr(begun, "gpus", {})
    monkeypatch.setattr(gpus, "find_spec", lambda name: object())
    yield
    for one in begun.gpus.values():
        one.thread.join()


def driver(monkeypatch: pytest.MonkeyPatch, failing: str = "") -> Driver:
    """The Driver that is loaded, and an NvJpeg that is its path."""
    made = Driver(failing)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: made)
    monkeypatch.setattr(nvjpeg, "find", lambda major: f"libnvjpeg.so.{major}")
    monkeypatch.setattr(nvjpeg, "NvJpeg", lambda path: path)
    return made


def test_the_context_is_there_before_nvjpeg_which_is_given_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = driver(monkeypatch)
    gpus.start((1,), jpeg=True)
    assert gpus.nvjpeg_of(0)[0] is None
    assert str(gpus.nvjpeg_of(1)[0]) == "libnvjpeg.so.13"
    assert gpus.nvjpeg_of(1)[0] is None
    assert made.calls == [
        "cuInit", "cuDeviceGetCount", "cuDriverGetVersion", "cuDeviceGet",
        "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent",
    ]  # fmt: skip


def test_all_gpus_are_woken_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    made = driver(monkeypatch)
    gpus.start(None, jpeg=True)
    assert gpus.nvjpeg_of(0)[0] is not None  # the first one finds out how many there are
    assert [gpus.nvjpeg_of(gpu)[0] is not None for gpu in (1, 2, 3)] == [True, True, False]
    assert made.calls.count("cuDevicePrimaryCtxRetain") == 3


def test_a_gpu_is_woken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = driver(monkeypatch)
    gpus.start((1,), jpeg=True)
    gpus.start([1, 2], jpeg=True)
    assert gpus.nvjpeg_of(1)[0] is not None
    assert gpus.nvjpeg_of(2)[0] is not None
    assert made.calls.count("cuDevicePrimaryCtxRetain") == 2


def test_without_jpegs_only_the_context_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = driver(monkeypatch)
    gpus.start((0,), jpeg=False)
    assert gpus.nvjpeg_of(0)[0] is None
    assert made.calls[-1] == "cuDevicePrimaryCtxRetain"


@pytest.mark.parametrize(
    "failing", ["cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDevicePrimaryCtxRetain"]
)
def test_what_fails_is_the_engines_to_tell(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = driver(monkeypatch, failing)
    gpus.start((0,), jpeg=True)
    assert gpus.nvjpeg_of(0)[0] is None
    assert made.calls[-1] == failing


@pytest.mark.parametrize("error", [OSError("no such file"), NvJpegError("CreateEx", 1)])
def test_a_library_that_fails_is_the_engines_to_tell(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(monkeypatch)

    def load(path: str) -> NvJpeg:
        raise error

    monkeypatch.setattr(nvjpeg, "NvJpeg", load)
    gpus.start((0,), jpeg=True)
    assert gpus.nvjpeg_of(0)[0] is None


def test_nothing_starts_without_pycuda(monkeypatch: pytest.MonkeyPatch) -> None:
    made = driver(monkeypatch)
    monkeypatch.setattr(gpus, "find_spec", lambda name: None)
    gpus.start((0,), jpeg=True)
    assert gpus.nvjpeg_of(0)[0] is None
    assert not made.calls


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, cudafilter.start.gpus; print('numpy' in sys.modules, 'pycuda' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("line", "started"),
    [
        ("a.png out.png", None),
        ("a.png many", None),
        ("", None),
        ("a.png out.png --engine cuda", ((0,), False)),
        ("a.jpg out.png --engine cuda", ((0,), True)),
        ("a.JPEG out.png --gpu 2,0", ((2, 0), True)),
        ("a.jpg out.png --gpu all", (None, True)),
        ("a.png out.jpg --variant tiled", ((0,), False)),
        ("a.jpg out.jpg --engine cuda --codec cpu", ((0,), False)),
        ("a.jpg out.jpg --engine cuda --codec pillow", ((0,), False)),
        ("a.jpg out.jpg --engine cuda --codec units", ((0,), "units")),
        ("a.png out.jpg --engine cuda --codec units", ((0,), False)),
        ("a.jpg out.jpg --engine cuda --check", ((0,), True)),
        ("a.jpg --in-place --engine cuda", ((0,), True)),
        ("a.jpg out.jpg --engine cuda --dry-run", None),
        ("few out -r", None),
        ("many out -r", ((0,), True)),
        ("many out -r --gpu all", (None, True)),
        ("few out -r --engine cuda", ((0,), True)),
        ("many out -r --gpu 1", ((1,), True)),
        ("many out -r --engine cpu", None),
        ("few many -r", None),
        ("many/*.png out", None),
        ("many few -r", ((0,), True)),
        ("many out -r --shard 1/2", None),
        ("many out -r --retry-failed r.jsonl", None),
    ],
)
def test_only_a_gpu_that_is_sure_to_be_needed_is_woken(
    line: str,
    started: tuple[tuple[int, ...] | None, bool | str] | None,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def start(numbers: tuple[int, ...] | None, jpeg: bool, units: bool) -> None:
        seen.append((numbers, "units" if units else jpeg))

    monkeypatch.setattr(gpus, "start", start)
    for name in ("a.png", "a.jpg", "a.JPEG"):
        Path(name).touch()
    for folder, count in (("few", words.FEW), ("many", words.FEW + 1)):
        Path(folder).mkdir()
        for i in range(count):
            Path(folder, f"{i}.{'jpg' if i == 3 else 'png'}").touch()
    monkeypatch.setattr("cudafilter.cli.filter._plans", lambda *_: (_ for _ in ()))
    line_words = ["blur", *line.split()]
    CliRunner().invoke(app, line_words)
    assert seen == ([] if started is None else [started])
    assert words.needs_gpu(line_words) == (started is not None)


@pytest.mark.parametrize(
    ("line", "pycuda", "started"),
    [
        ("a.png out.png --gpu 0", True, True),
        ("a.png out.png", True, False),
        ("a.png out.png --gpu 0", False, False),
    ],
)
def test_the_driver_starts_before_the_command_line_is_read(
    line: str, pycuda: bool, started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = driver(monkeypatch)
    order: list[str] = []
    original = gpus.start_driver

    def start_driver() -> None:
        order.append("driver")
        original()

    monkeypatch.setattr(gpus, "start_driver", start_driver)
    monkeypatch.setattr("cudafilter.cli.main", lambda: order.append("command line"))
    monkeypatch.setattr(early, "find_spec", lambda name: object() if pycuda else None)
    monkeypatch.setattr("sys.argv", ["cudafilter", "blur", *line.split()])
    process.main()
    for thread in drivers():
        thread.join()
    assert made.calls == (["cuInit"] if started else [])
    assert order == (["driver", "command line"] if started else ["command line"])


def drivers() -> list[threading.Thread]:
    """The threads that start the driver."""
    return [thread for thread in threading.enumerate() if thread.name == "driver"]


def test_a_driver_that_is_not_there_is_the_engines_to_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)

    def absent(name: str) -> Driver:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    gpus.start_driver()
    for thread in drivers():
        thread.join()
    assert not raised


def test_waiting_gives_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    driver(monkeypatch)
    gpus.wait(0)
    gpus.start((0,), jpeg=True)
    gpus.wait(0)
    assert begun.gpus[0].nvjpeg is not None
    assert gpus.nvjpeg_of(0)[0] is not None


@pytest.mark.parametrize("there", [True, False])
def test_the_units_are_made_there_too_where_they_are_wanted(
    there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(monkeypatch)

    class Loaded:
        units = object() if there else None

    loaded, made = Loaded(), object()
    monkeypatch.setattr(nvjpeg, "NvJpeg", lambda path: loaded)
    monkeypatch.setattr(nvjpeg_units, "Batches", lambda library: library is loaded and made)
    gpus.start((0,), jpeg=True)
    gpus.start((1,), jpeg=True, units=True)
    given: list[tuple[object, object]] = [gpus.nvjpeg_of(gpu) for gpu in (0, 1, 1)]
    assert given == [(loaded, None), (loaded, made if there else None), (None, None)]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinities here")
def test_nvjpeg_is_made_on_one_core_and_that_alone() -> None:
    cores = os.sched_getaffinity(0)
    seen: list[set[int]] = []
    with nvjpeg.on_one_core():
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
    assert [len(each) for each in seen] == [1]
    assert os.sched_getaffinity(0) == cores
    with pytest.raises(NvJpegError), nvjpeg.on_one_core():
        raise NvJpegError("CreateEx", 1)
    assert os.sched_getaffinity(0) == cores


def test_nvjpeg_is_made_where_cores_cannot_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("seccomp")

    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    with nvjpeg.on_one_core():
        pass
    monkeypatch.delattr(os, "sched_setaffinity")
    with nvjpeg.on_one_core():
        pass


def test_nvjpeg_makes_its_handle_there(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    @contextmanager
    def on_one_core() -> Iterator[None]:
        made.append("one core")
        yield
        made.append("all")

    def function(name: str) -> Any:
        return lambda *_: made.append(name)  # None, as a status, is success

    class Library:
        def __getattr__(self, name: str) -> Any:
            return function(name)

    for way in ("CDLL", "PyDLL"):
        monkeypatch.setattr(ctypes, way, lambda path: Library())
    monkeypatch.setattr(nvjpeg, "on_one_core", on_one_core)
    NvJpeg("libnvjpeg")
    assert made == ["one core", "nvjpegCreateEx", "all"]
    assert NvJpeg("libnvjpeg").units is not None
    assert made[3:] == ["one core", "nvjpegCreateEx", "all"] * 2


def test_handles_are_made_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    at_work: list[int] = []

    def create(*_: Any) -> None:  # None, as a status, is success
        at_work.append(1)
        assert len(at_work) == 1
        time.sleep(0.01)
        at_work.pop()

    class Library:
        def __getattr__(self, name: str) -> Any:
            return create if name == "nvjpegCreateEx" else lambda *_: None

    for way in ("CDLL", "PyDLL"):
        monkeypatch.setattr(ctypes, way, lambda path: Library())
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(NvJpeg, ["libnvjpeg"] * 4))) == 4


def test_the_first_files_are_found_in_folders_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for n in range(words.FEW // 2):
        (tmp_path / f"{n}.png").touch()
        (tmp_path / "a" / "b" / f"{n}.jpg").touch()
        (tmp_path / "a" / f".{n}.png").touch()
    found = words.first_files([str(tmp_path), "one.png", str(tmp_path / "none")])
    assert len(found) == words.FEW + 1
    assert len([name for name in found if name.endswith(".jpg")]) == words.FEW // 2
    assert "one.png" in found
