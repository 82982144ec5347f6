"""``cudafilter doctor``: each thing that a run needs is tried, and a fault is named and fails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import cli
from cudafilter import images
from cudafilter.engines import Result, nvcc, shipped
from cudafilter.engines.cpu import CpuEngine
from cudafilter.engines.cuda import device as cuda
from cudafilter.engines.cuda import engine as cuda_engine
from cudafilter.errors import EngineUnavailable, ImageError
from cudafilter.formats.table import written
from cudafilter.host import cores
from cudafilter.nvidia import toolkit

Patch = pytest.MonkeyPatch
pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(autouse=True)
def no_gpu(request: pytest.FixtureRequest, monkeypatch: Patch, tmp_path: Path) -> None:
    """A machine without a GPU, and folders of its own; GPU tests look at the real one."""
    monkeypatch.setenv("CUDAFILTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "none")
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr(toolkit, "DEVICES", ())
        lacks = [toolkit.Missing("no driver", "install one")]
        monkeypatch.setattr(toolkit, "missing", lambda: lacks)


def found() -> tuple[int, dict[str, tuple[str, str, str]]]:
    """The exit code, and by check its status, what is told and what mends it."""
    done = cli("doctor", "--json")
    listed = json.loads(done.stdout)
    assert listed["ok"] == (done.exit_code == 0)
    return done.exit_code, {
        each["check"]: (each["status"], each["told"], each["mend"]) for each in listed["checks"]
    }


def test_all_is_tried_and_a_machine_without_a_gpu_is_well() -> None:
    code, checks = found()
    assert code == 0
    assert list(checks) == [
        "cpu engine", "cuda engine", "kernels", *written(), "kernel cache", "journals", "limits"
    ]  # fmt: skip
    assert {status for status, *_ in checks.values()} == {"ok", "none"}
    assert checks["cuda engine"] == ("none", "no driver; the CPU does the work", "install one")
    assert "589,824 samples is proven" in checks["cpu engine"][1]
    assert "uint8, uint16 written and read again: the same pixels" in checks["png"][1]


def test_a_line_for_each_and_one_for_what_mends_it() -> None:
    lines = cli("doctor").stdout.splitlines()
    assert "none   cuda engine   no driver; the CPU does the work" in lines
    assert f"{'':20} to have it: install one" in lines
    assert all(line[:5] in {"ok   ", "none ", "     "} for line in lines)


def test_kernels_that_come_along_are_held_to_their_digests(tmp_path: Path) -> None:
    assert found()[1]["kernels"][0] == "none"
    for arch in ("sm_100", "sm_75"):
        shipped.write(shipped.FOLDER, arch, {"blur": b"code", "box": b"other"}, 13, "a test")
    told = "4 come compiled and undamaged, for sm_75, sm_100"
    assert found()[1]["kernels"] == ("ok", told, "")
    (shipped.FOLDER / "sm_75.xz").write_bytes(b"damaged")
    code, checks = found()
    assert (code, checks["kernels"][0]) == (1, "FAULT")
    assert "sm_75.xz is damaged" in checks["kernels"][1]


def wrong_pixels(monkeypatch: Patch) -> None:
    run = CpuEngine.run

    def off_by_one(engine: CpuEngine, *given: Any, **named: Any) -> Result:
        done = run(engine, *given, **named)
        done.pixels[7, 5, 1] += 1
        return done

    monkeypatch.setattr(CpuEngine, "run", off_by_one)


def wrong_codec(monkeypatch: Patch) -> None:
    load = images.load

    def inverted(*given: Any, **named: Any) -> images.Image:
        image = load(*given, **named)
        return image.with_pixels(image.pixels.max() - image.pixels)

    monkeypatch.setattr(images, "load", inverted)


def no_codec(monkeypatch: Patch) -> None:
    def fail(*given: Any, **named: Any) -> None:
        raise ImageError("the encoder does not load")

    monkeypatch.setattr(images, "encode", fail)


def no_memory(monkeypatch: Patch) -> None:
    def fail(*given: Any, **named: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(CpuEngine, "run", fail)


def no_cache(monkeypatch: Patch) -> None:
    Path("file").touch()
    monkeypatch.setenv("CUDAFILTER_CACHE", "file/cache")


def shared_cache(monkeypatch: Patch) -> None:
    nvcc.cache_dir().mkdir()
    nvcc.cache_dir().chmod(0o777)


def little_memory(monkeypatch: Patch) -> None:
    monkeypatch.setattr(cores, "free_memory", lambda: 100 << 20)


def no_pycuda(monkeypatch: Patch) -> None:
    monkeypatch.setattr(toolkit, "DEVICES", (os.devnull,))


def closed_gpu(monkeypatch: Patch) -> None:
    monkeypatch.setattr(toolkit, "DEVICES", (os.devnull,))
    monkeypatch.setattr(toolkit, "missing", list)
    monkeypatch.setattr(cuda, "gpus", list)
    monkeypatch.setattr(os, "access", lambda path, mode: path != os.devnull)


def silent_driver(monkeypatch: Patch) -> None:
    def none() -> list[cuda.Gpu]:
        raise EngineUnavailable("no driver answers", hint="start it again")

    monkeypatch.setattr(toolkit, "missing", list)
    monkeypatch.setattr(cuda, "gpus", none)


@pytest.mark.parametrize(
    ("harm", "check", "told", "mend"),
    [
        (wrong_pixels, "cpu engine", "a blur of uint8 is wrong: DISAGREES", "install"),
        (wrong_codec, "jpeg", "what was written is read", "install"),
        (wrong_codec, "png", "what was written is read", "install"),
        (no_codec, "tiff", "the encoder does not load", "install"),
        (no_memory, "cpu engine", "there is not enough memory", "raise the limit"),
        (no_cache, "kernel cache", "file cannot be written", "CUDAFILTER_CACHE"),
        (shared_cache, "kernel cache", "others can write", "chmod go-w"),
        (little_memory, "limits", "0.1 GiB", "raise the container's limit"),
        (no_pycuda, "cuda engine", "no driver", "install one"),
        (closed_gpu, "GPU", f"may not open {os.devnull}", "groups video and render"),
        (silent_driver, "cuda engine", "no driver answers", "start it again"),
    ],
)
def test_a_fault_is_told_with_what_mends_it(
    monkeypatch: Patch, harm: Callable[[Patch], None], check: str, told: str, mend: str
) -> None:
    harm(monkeypatch)
    code, checks = found()
    status, said, by = checks[check]
    assert (code, status) == (1, "FAULT")
    assert told in said
    assert mend in by


@pytest.mark.parametrize("works", [True, False])
def test_each_gpu_proves_a_filter(monkeypatch: Patch, works: bool) -> None:
    class OnCpu(CpuEngine):
        def __init__(self, number: int) -> None:
            if number == 1 and not works:
                raise EngineUnavailable("out of memory", hint="close others")
            super().__init__()

    gpus = [cuda.Gpu(n, f"GPU of kind {n}", (9, 0), 1 << 30, "13.0") for n in (0, 1)]
    monkeypatch.setattr(toolkit, "missing", list)
    monkeypatch.setattr(cuda, "gpus", lambda: gpus)
    monkeypatch.setattr(cuda_engine, "CudaEngine", OnCpu)
    code, checks = found()
    assert checks["GPU 0"][0] == "ok"
    assert "GPU of kind 0: a blur of 589,824 samples is proven" in checks["GPU 0"][1]
    assert checks["GPU 0 JPEG"][0] == "none"
    if works:
        assert (code, checks["GPU 1"][0]) == (0, "ok")
    else:
        assert code == 1
        assert checks["GPU 1"] == ("FAULT", "GPU of kind 1: out of memory", "close others")


@pytest.mark.gpu
def test_a_real_gpu_is_well() -> None:
    code, checks = found()
    assert code == 0, checks
    assert checks["GPU 0"][0] == "ok"
    assert checks["GPU 0 JPEG"][0] in {"ok", "none"}
