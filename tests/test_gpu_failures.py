"""A GPU that fails at work: memory, a context that dies, a kernel that is not loaded.

Faults are injected where the engine calls the driver, on a stand-in for it. The tests marked gpu
have a kernel trap on a real one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from agreement import assert_agrees, random_pixels
from command_line import cli, snapshot
from cudafilter.engines import Engine, Result
from cudafilter.engines import open as opening
from cudafilter.engines.cuda import kernels
from cudafilter.engines.cuda.device import Applied
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.engines.fleet import Fleet
from cudafilter.engines.mended import MOST_LOSSES, Mended
from cudafilter.errors import DeviceLost, EngineError, EngineUnavailable
from cudafilter.nvidia import nvjpeg
from fake_cuda import FakeCuda, Fault, LaunchError, MemoryError
from stand_in_gpus import BLUR, PIXELS, StandIn, fail

pytestmark = pytest.mark.usefixtures("here")

COUNT = 6


@pytest.fixture
def fake(built: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """The driver that engines open."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ here")
    monkeypatch.setattr(nvjpeg, "find", lambda major: None)
    fake = FakeCuda(built)
    fake.install(monkeypatch)
    return fake


@pytest.fixture
def others(fake: FakeCuda, built: Path, monkeypatch: pytest.MonkeyPatch) -> list[FakeCuda]:
    """The drivers that further processes find; each one that is opened takes the next."""
    found = [FakeCuda(built) for _ in range(COUNT)]
    left = iter(found)

    def apart(numbers: Any, variant: str, codec: str) -> Engine:
        next(left).install(monkeypatch)
        engine = CudaEngine(variant=variant, codec=codec)
        engine.title += ", in a process of its own"
        return engine

    monkeypatch.setattr(opening, "_open_apart", apart)
    return found


@pytest.fixture
def photos() -> Path:
    for n in range(COUNT):
        Path("in").mkdir(exist_ok=True)
        Image.fromarray(random_pixels((70, 50, 3), "uint8", seed=n)).save(f"in/{n}.bmp")
    return Path("in")


def blur(*options: str, jobs: int = 1) -> tuple[int, str, dict[str, dict[str, Any]]]:
    """The exit code, stderr and the report's lines by picture, of a folder on the GPU."""
    Path("report").unlink(missing_ok=True)
    words = ["blur", "-r", "in", "out", "--engine", "cuda", "--variant", "constant", "-v"]
    ran = cli(*words, "-j", str(jobs), "--report", "report", *options)
    lines = [json.loads(line) for line in Path("report").read_text().splitlines()]
    assert len({line["source"] for line in lines}) == len(lines) == COUNT, "a record an image"
    return ran.exit_code, ran.stderr, {Path(line["source"]).stem: line for line in lines}


def notes_of(records: dict[str, dict[str, Any]]) -> list[str]:
    return [note for record in records.values() for note in record["notes"]]


@pytest.fixture
def whole(photos: Path, fake: FakeCuda) -> dict[str, bytes]:
    """The results of a run without a fault."""
    assert blur()[0] == 0
    done = snapshot("out")
    assert len(done) == COUNT
    shutil.rmtree("out")
    return done


class TestMemory:
    @pytest.mark.parametrize("times", [1, 2, 5])
    def test_bands_are_halved_until_they_find_room(self, fake: FakeCuda, times: int) -> None:
        engine = CudaEngine(variant="constant")
        fake.faults = [Fault("mem_alloc", MemoryError, "out of memory", times=times)]
        assert_agrees(engine, random_pixels((90, 90, 3), "uint8"), BLUR)
        assert fake.faults[0].met > times
        engine.close()

    def test_others_may_leave_less_than_the_driver_said(self, fake: FakeCuda) -> None:
        engine = CudaEngine(variant="constant")
        engine._device.memory_limit = 1 << 20
        fake.memory = 20_000
        assert_agrees(engine, random_pixels((90, 90, 3), "uint8"), BLUR)
        engine.close()

    def test_where_nothing_fits_the_sizes_are_told(self, fake: FakeCuda) -> None:
        engine = CudaEngine(variant="constant")
        fake.faults = [Fault("mem_alloc", MemoryError, "out of memory", times=100)]
        with pytest.raises(EngineError) as caught:
            engine.run(random_pixels((90, 80, 3), "uint8"), BLUR)
        told = str(caught.value)
        assert "80x90 pixels of 3 channels and their result take 43,200 bytes" in told
        assert "bytes are free" in told
        assert "--engine cpu" in str(caught.value.hint)
        engine.close()

    def test_one_image_fails_and_the_rest_goes_on(
        self, whole: dict[str, bytes], fake: FakeCuda, others: list[FakeCuda]
    ) -> None:
        Image.fromarray(random_pixels((9, 9, 1), "uint8")[..., 0]).save("in/5.bmp")
        fake.faults = [Fault("upload", at=3)]
        code, told, records = blur()
        assert code == 1
        assert [n for n, record in records.items() if record["status"] == "failed"] == ["2"]
        assert "error: in/2.bmp: the GPU failed: upload failed" in told
        assert not others[0].order, "the context lives: nothing is opened anew"


class TestLostDevice:
    @pytest.mark.parametrize("at", [1, 3, COUNT])
    def test_its_images_run_again_to_the_same_bytes(
        self, whole: dict[str, bytes], fake: FakeCuda, others: list[FakeCuda], at: int
    ) -> None:
        fake.faults = [Fault("Stream.synchronize", LaunchError, at=at, lasting=True)]
        code, told, records = blur("--check")
        assert (code, snapshot("out")) == (0, whole)
        (note,) = notes_of(records)
        assert "was lost: the GPU failed: Stream.synchronize failed" in note
        assert note in told
        engines = [record["engine"] for record in records.values()]
        assert sum("a process of its own" in engine for engine in engines) == COUNT - at
        assert fake.dead is not None
        assert others[0].calls["launch"] == COUNT - at + 1
        assert not others[1].order

    def test_several_at_work_are_all_done(
        self, whole: dict[str, bytes], fake: FakeCuda, others: list[FakeCuda]
    ) -> None:
        fake.faults = [Fault("Stream.synchronize", LaunchError, at=2, lasting=True)]
        code, _, records = blur(jobs=4)
        assert (code, snapshot("out")) == (0, whole)
        assert len(notes_of(records)) == 1
        assert not others[1].order

    def test_an_image_that_kills_each_gpu_fails_and_the_rest_goes_on(
        self, whole: dict[str, bytes], fake: FakeCuda, others: list[FakeCuda]
    ) -> None:
        fake.faults = [Fault("launch", LaunchError, at=3, lasting=True)]
        others[0].faults = [Fault("launch", LaunchError, lasting=True)]
        code, told, records = blur()
        assert code == 1
        assert [n for n, record in records.items() if record["status"] == "failed"] == ["2"]
        assert "error: in/2.bmp: the GPU failed: launch failed" in told
        assert snapshot("out") == {k: v for k, v in whole.items() if k != "out/2.bmp"}

    def test_a_gpu_that_does_not_come_back_fails_the_rest(
        self, whole: dict[str, bytes], fake: FakeCuda, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[object] = []

        def gone(*which: object) -> Engine:
            tried.append(which)
            raise EngineUnavailable("GPU 0 is off the bus")

        monkeypatch.setattr(opening, "_open_apart", gone)
        fake.faults = [Fault("launch", LaunchError, at=3, lasting=True)]
        code, _, records = blur()
        assert code == 1
        assert [r["status"] for r in records.values()] == ["done"] * 2 + ["failed"] * 4
        assert len(tried) == 1

    @pytest.mark.parametrize("lasting", [False, True])
    def test_the_cpu_does_it_if_asked_to_and_says_so(
        self,
        whole: dict[str, bytes],
        fake: FakeCuda,
        monkeypatch: pytest.MonkeyPatch,
        lasting: bool,
    ) -> None:
        gone = fail(EngineUnavailable("it is gone"))
        monkeypatch.setattr(opening, "_open_apart", lambda *_: gone())
        fake.faults = [Fault("launch", LaunchError, at=3, lasting=lasting)]
        code, told, records = blur("--on-gpu-failure", "cpu", "--check")
        assert code == 0
        by_cpu = [n for n, r in records.items() if "done by cpu: " in " ".join(r["notes"])]
        assert by_cpu == (["2", "3", "4", "5"] if lasting else ["2"])
        assert all(note in told for note in notes_of(records))
        assert all(record["agreement"]["ok"] for record in records.values())

    def test_another_gpu_does_it_where_there_are_several(
        self, fake: FakeCuda, built: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = CudaEngine(variant="constant")
        FakeCuda(built).install(monkeypatch)
        two = CudaEngine(variant="constant")
        engine = Mended(Fleet([one, two]), fail(AssertionError("nothing is opened anew")))
        pixels = random_pixels((20, 30, 3), "uint8")
        expected = engine.run(pixels, BLUR).pixels
        fake.faults = [Fault("launch", LaunchError, at=1, lasting=True)]
        done = engine.run(pixels, BLUR)
        assert np.array_equal(done.pixels, expected)
        assert "failed and is left out: the GPU failed: launch failed" in done.notes[0]
        engine.close()

    def test_where_all_are_lost_one_is_opened_anew(self) -> None:
        lost = fail(DeviceLost("it trapped"))
        fleet = Fleet([StandIn(0, does=lost), StandIn(1, does=lost)])
        engine = Mended(fleet, lambda: StandIn(2))
        done = engine.run(PIXELS, BLUR)
        assert done.notes == ("GPU 0 + GPU 1 was lost: it trapped; now GPU 2",)
        assert engine.run(PIXELS, BLUR).notes == ()

    def test_an_image_that_only_waited_where_another_killed_it_is_done(self) -> None:
        waited = fail(DeviceLost("another killed it", begun=False))
        engines = iter([StandIn(1, does=waited), StandIn(2)])
        engine = Mended(StandIn(0, does=fail(DeviceLost("it trapped"))), lambda: next(engines))
        assert len(engine.run(PIXELS, BLUR).notes) == 2

    def test_after_some_in_a_row_none_is_opened_any_more(self) -> None:
        lost = fail(DeviceLost("it trapped"))
        opened: list[StandIn] = []

        def again() -> Engine:
            opened.append(StandIn(len(opened) + 1, does=lost))
            return opened[-1]

        engine = Mended(StandIn(0, does=lost), again)
        for _ in range(5):
            with pytest.raises(DeviceLost):
                engine.run(PIXELS, BLUR)
        assert len(opened) == MOST_LOSSES
        opened[-1].does = lambda: None
        assert engine.run(PIXELS, BLUR).notes, "what was lost is told with the next that is done"


class TestKernel:
    def test_one_that_the_driver_does_not_load_is_told(self, fake: FakeCuda) -> None:
        engine = CudaEngine(variant="constant")
        text = "no kernel image is available for execution on the device"
        fake.faults = [Fault("module_from_buffer", text=text, times=2)]
        with pytest.raises(EngineError) as caught:
            engine.run(PIXELS, BLUR)
        assert "does not load constant.cu, compiled for sm_90: " in str(caught.value)
        assert text in str(caught.value)
        assert "the driver runs CUDA up to 13.0: update it" in str(caught.value.hint)
        assert_agrees(engine, PIXELS, BLUR)
        engine.close()

    def test_one_from_the_cache_is_compiled_anew_before_that(
        self, fake: FakeCuda, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[object] = []

        def cubin(*what: Any, refused: object = None) -> bytes:
            asked.append(refused)
            return fake.cubin(*what)

        monkeypatch.setattr(kernels, "cubin", cubin)
        engine = CudaEngine(variant="constant")
        fake.faults = [Fault("module_from_buffer", text="device kernel image is invalid")]
        assert_agrees(engine, PIXELS, BLUR)
        assert [str(why) for why in asked] == [
            "None",
            "module_from_buffer failed: device kernel image is invalid",
        ]
        engine.close()


class TestCorruptedResult:
    """A bit that is another one in what comes back is caught by --check, on every route."""

    ROUTES: ClassVar[dict[str, tuple[list[str], Callable[[CudaEngine], object]]]] = {
        "whole": ([], lambda engine: None),
        "bands": ([], lambda engine: setattr(engine._device, "memory_limit", 15_000)),
        "gray": (["--gray"], lambda engine: None),
        "in place": (["--in-place"], lambda engine: None),
    }

    @pytest.mark.parametrize("flipped", [False, True])
    @pytest.mark.parametrize("route", ROUTES)
    def test_of_a_folder(
        self,
        photos: Path,
        fake: FakeCuda,
        monkeypatch: pytest.MonkeyPatch,
        route: str,
        flipped: bool,
    ) -> None:
        options, prepare = self.ROUTES[route]
        made = CudaEngine.__init__

        def prepared(engine: CudaEngine, *given: Any, **named: Any) -> None:
            made(engine, *given, **named)
            prepare(engine)

        monkeypatch.setattr(CudaEngine, "__init__", prepared)
        fake.flips = flipped
        before = snapshot("in")
        words = ["in"] if "--in-place" in options else ["in", "out"]
        ran = cli("blur", "-r", *words, "--engine", "cuda", "--check", *options)
        assert ran.exit_code == flipped, ran.stderr
        assert ran.stderr.count("DISAGREES") >= COUNT * flipped
        assert f"check: {0 if flipped else COUNT} of {COUNT} images agree" in ran.stderr
        if flipped:
            assert snapshot("in") == before
            assert not Path("out").exists() or not snapshot("out")
        if route == "bands":
            assert fake.calls["launch"] >= 3 * COUNT


LOST = """
import gc
import trapping
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.errors import DeviceLost
from stand_in_gpus import BLUR, PIXELS
trapping.trap()
engine = CudaEngine(variant="vanilla")
for pixels in (PIXELS[..., :1], PIXELS):
    try:
        engine.run(pixels, BLUR)
    except DeviceLost as lost:
        print(lost.begun)
engine.close()
del engine
gc.collect()
"""


def trapping(*words: str) -> subprocess.CompletedProcess[str]:
    """Python with *words*, in a process of its own: it loses the GPU for good."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, *words], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip


@pytest.mark.gpu
class TestTrap:
    """A real GPU whose kernel traps: the process has lost it, and another one gets it back."""

    def test_the_context_is_lost_and_nothing_is_printed_for_it(self) -> None:
        ran = trapping("-c", LOST)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "True\nFalse\n", "")

    @pytest.mark.parametrize("format", ["bmp", "jpg"])
    @pytest.mark.parametrize("jobs", ["1", "4"])
    def test_its_images_run_again_in_another_process(self, format: str, jobs: str) -> None:
        Path("in").mkdir()
        for n in range(12):
            pixels = random_pixels((64, 48, 1 if n == 5 else 3), "uint8", seed=n)
            Image.fromarray(pixels.squeeze()).save(f"in/{n}.{format}")
        words = ["blur", "-r", "in", "out", "--engine", "cuda", "--variant", "vanilla", "--check"]
        program = str(Path(__file__).with_name("trapping.py"))
        ran = trapping(program, *words, "-j", jobs, "--report", "report", "-v")
        assert ran.returncode == 0, ran.stderr
        lines = [json.loads(line) for line in Path("report").read_text().splitlines()]
        assert [line["status"] for line in lines] == ["done"] * 12
        assert all(line["agreement"]["ok"] for line in lines)
        assert "PyCUDA WARNING" not in ran.stderr
        (note,) = {note for line in lines for note in line["notes"] if "was lost" in note}
        assert "in a process of its own" in note


@pytest.mark.gpu
@pytest.mark.parametrize("where", ["device memory", "result"])
def test_a_bit_flipped_on_a_real_gpu_is_caught(
    photos: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    import pycuda.driver as cuda

    queue, download = Applied.queue, CudaEngine.run

    def flip_there(applied: Applied, *rows: int) -> None:
        queue(applied, *rows)
        applied.slot.stream.synchronize()
        byte = np.empty(1, np.uint8)
        cuda.memcpy_dtoh(byte, applied.out)
        byte ^= 128
        cuda.memcpy_htod(applied.out, byte)
        cuda.Context.synchronize()  # it may return before the byte has arrived

    def flip_here(engine: CudaEngine, *given: Any, **named: Any) -> Result:
        done = download(engine, *given, **named)
        done.pixels[3, 4, 1] ^= 1 << 6
        return done

    if where == "result":
        monkeypatch.setattr(CudaEngine, "run", flip_here)
    else:
        monkeypatch.setattr(Applied, "queue", flip_there)
    ran = cli("blur", "-r", "in", "out", "--engine", "cuda", "--check")
    assert ran.exit_code == 1
    assert ran.stderr.count("DISAGREES") >= COUNT
    assert not Path("out").exists() or not snapshot("out")
