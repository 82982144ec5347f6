"""PNGs on the device: what is asked for gets there through each engine, and what fails is told."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agreement import assert_agrees, random_pixels
from cudafilter import images
from cudafilter.check import compare
from cudafilter.engines import Engine
from cudafilter.engines.codecs import FileJob, FileResult
from cudafilter.engines.cuda import png_files, screen, unfilter
from cudafilter.engines.cuda.device import Applied
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.engines.fleet import Fleet
from cudafilter.engines.mended import MOST_LOSSES, Mended
from cudafilter.errors import DeviceLost, EngineError
from cudafilter.formats import limits, png
from cudafilter.formats.png_path import Deflated, Unfiltered
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from fake_cuda import FakeCuda, Fault, MemoryError
from fake_nvjpeg import fake
from image_files import chunk
from png_engines import BLUR, ROWS, Run, by_host, compiled, png_of, raw_png, through
from stand_in_gpus import PIXELS, StandIn, fail

__all__ = ["compiled", "fake"]

CHAIN = Chain((Link(BLUR), Link(make("sobel"))))
JOINED = Chain((Link(make("sharpen")), Link(make("sharpen"))))
"""Two steps that are one launch: there is no other way for them."""

SMALL = png_of(random_pixels((40, 50, 3), "uint8"))


class Asked:
    """Engine.png, or Engine.jpeg, that notes what it is asked; or raises *error*."""

    parallel = 1

    def __init__(self, error: EngineError | None = None) -> None:
        self.error = error
        self.asked: list[FileJob] = []

    def filter(self, job: FileJob) -> FileResult:
        self.asked.append(job)
        if self.error is not None:
            raise self.error
        seconds = {"inflate": 9.0, "unfilter": 1.0, "kernel": 2.0, "prove": 4.0, "deflate": 8.0}
        return FileResult(SMALL, 50, 40, 3, "RGB", ("a note",), seconds)

    def deflate(self, *_: Any) -> Deflated:
        return Deflated()

    def unfilter(self, *_: Any) -> Unfiltered:
        return Unfiltered()


def with_path(path: Asked, number: int = 0, **more: Any) -> StandIn:
    engine = StandIn(number, **more)
    engine.png = path
    return engine


def in_a_fleet(path: Asked) -> Engine:
    return Fleet([StandIn(), with_path(path, 1)])


def mended(path: Asked) -> Engine:
    return Mended(with_path(path), StandIn)


def on_a_gpu(path: Asked, compiled: CudaEngine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(compiled.png, "_files", path)
    return compiled


def test_what_is_asked_for_is_passed_on(
    compiled: CudaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, job = Asked(), FileJob(SMALL, BLUR, Border("wrap"), True, 90, True, True)
    for engine in (in_a_fleet(path), mended(path), on_a_gpu(path, compiled, monkeypatch)):
        assert engine.png is not None
        assert engine.png.filter(job).notes == ("a note",)
        assert path.asked.pop() == job
    monkeypatch.undo()


def test_a_fleet_counts_the_seconds_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[float] = []
    path = Asked()
    engine = with_path(path)
    engine.jpeg = path
    fleet = Fleet([engine])
    monkeypatch.setattr(fleet, "count", counted.append)
    through(fleet, SMALL)
    assert fleet.jpeg is not None
    fleet.jpeg.filter(FileJob(SMALL, BLUR, Border()))
    assert counted == [15.0, 15.0]


def test_a_fleet_tells_of_a_member_that_fails(compiled: CudaEngine) -> None:
    fleet = Fleet([with_path(Asked(EngineError("gone"))), compiled])
    done = through(fleet, SMALL)
    assert done is not None
    assert bytes(done.data) == by_host(compiled, SMALL, BLUR)
    assert done.notes == ("GPU 0 failed and is left out: gone",)


class TestAGpuThatIsLost:
    """What is opened in its place is in a process of its own, and codes no PNGs."""

    def test_is_told_though_the_host_does_the_file(self) -> None:
        mended = Mended(with_path(Asked(DeviceLost("gone"))), lambda: StandIn(1))
        assert through(mended, SMALL) is None
        assert mended.run(PIXELS, BLUR).notes == ("GPU 0 was lost: gone; now GPU 1",)

    def test_one_that_kills_each_is_done_by_the_spare(self, here: Path) -> None:
        Path("a.png").write_bytes(SMALL)
        opened: list[StandIn] = []
        mended = Mended(with_path(Asked(DeviceLost("gone"))), killing(opened), StandIn)
        record, data = Run(mended)()
        assert record.status == "done"
        assert data is not None
        assert sum("was lost" in note for note in record.notes) == len(opened) < MOST_LOSSES
        assert mended.run(PIXELS, BLUR), "less than MOST_LOSSES: one more is opened"
        assert len(opened) == MOST_LOSSES

    def test_after_some_in_a_row_none_is_opened_though_files_are_left_to_the_host(
        self, here: Path
    ) -> None:
        Path("a.png").write_bytes(SMALL)
        opened: list[StandIn] = []
        mended = Mended(with_path(Asked(DeviceLost("gone"))), killing(opened), StandIn)
        for _ in range(MOST_LOSSES):
            record, _ = Run(mended)()
            assert record.status == "done"
        assert len(opened) == MOST_LOSSES

    def test_without_a_spare_the_file_fails(self, here: Path) -> None:
        Path("a.png").write_bytes(SMALL)
        record, data = Run(with_path(Asked(DeviceLost("gone"))))()
        assert (record.status, record.error, data) == ("failed", "gone", None)


def killing(opened: list[StandIn]) -> Any:
    """Opens GPUs that the first picture kills."""

    def again() -> StandIn:
        opened.append(StandIn(len(opened) + 1, does=fail(DeviceLost("gone"))))
        return opened[-1]

    return again


def test_a_failure_that_passes_is_told_with_a_spare_too(here: Path) -> None:
    Path("a.png").write_bytes(SMALL)
    engine = with_path(Asked(EngineError("no")))
    for each in (Fleet([engine]), Mended(engine, StandIn), Mended(engine, StandIn, StandIn)):
        record, data = Run(each)()
        assert record.status == "done"
        assert record.notes == ("filtered again by way of the host: no",)
        assert data is not None


class TestAWorker:
    @pytest.mark.parametrize("gray", [False, True])
    @pytest.mark.parametrize("check", [None, "quick", "all"])
    def test_asks_for_what_a_check_needs(self, check: str | None, gray: bool, here: Path) -> None:
        Path("a.png").write_bytes(SMALL)
        path = Asked()
        record, data = Run(with_path(path), border=Border("wrap"))(check=check, gray=gray)
        kept, proven = check is not None, check == "all"
        job = FileJob(SMALL, BLUR, Border("wrap"), gray, None, kept, proven)
        assert path.asked == [job]
        if check is None:
            assert (data, record.notes) == (SMALL, ("a note",))

    def test_proves_by_the_device(
        self, here: Path, compiled: CudaEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(screen, "LEAST_SAMPLES", 0)
        Path("a.png").write_bytes(png_of(random_pixels((99, 50, 3), "uint8")))
        record, data = Run(compiled)(check="all")
        assert record.status == "done", record.error
        assert "prove" in record.engine_seconds
        assert data is not None

    @pytest.mark.parametrize("least", [0, 1 << 30], ids=["proven", "not proven"])
    @pytest.mark.parametrize("filter", [BLUR, CHAIN], ids=["filter", "chain"])
    def test_finds_a_bit_that_is_flipped_on_the_device(
        self,
        filter: Operation,
        least: int,
        here: Path,
        compiled: CudaEngine,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(screen, "LEAST_SAMPLES", least)
        Path("a.png").write_bytes(SMALL)
        queue = Applied.queue

        def flipping(applied: Applied) -> None:
            queue(applied)
            byte = applied.out + applied.launch.out_itemsize - 1
            applied.slot.stream.put(lambda: ctypes.memset(byte, 77, 1))

        monkeypatch.setattr(Applied, "queue", flipping)
        record, data = Run(compiled, filter)(check="all")
        assert data is None
        assert "DISAGREES" in str(record.error)
        assert "unfilter" in record.engine_seconds

    def test_takes_no_more_pixels_than_allowed(self, here: Path, compiled: CudaEngine) -> None:
        Path("a.png").write_bytes(SMALL)
        run = Run(compiled)
        (record, _), (by_host, _) = run(max_pixels=99), run(max_pixels=99, engine_codec=False)
        assert (record.status, record.error, record.hint) == (
            "failed", by_host.error, by_host.hint,
        )  # fmt: skip

    def test_tells_what_is_too_large_as_the_host_does(
        self, here: Path, compiled: CudaEngine
    ) -> None:
        data = raw_png(ROWS)
        Path("a.png").write_bytes(data[:16] + b"\xff" + data[17:])
        run = Run(compiled)
        (record, _), (by_host, _) = run(), run(engine_codec=False)
        assert "fails its checksum" in str(by_host.error)
        assert (record.error, record.hint) == (by_host.error, by_host.hint)

    def test_tells_no_news_of_settings_for_all_runs(self, here: Path) -> None:
        Path("a.png").write_bytes(SMALL)
        record, _ = Run(with_path(Asked()))(quality=50, usual=frozenset({"quality"}))
        assert record.notes == ("a note",)

    def test_keeps_to_the_host_what_is_not_for_the_codec(self, here: Path) -> None:
        Path("a.png").write_bytes(SMALL)
        path = Asked()
        Run(with_path(path))(linear=True)
        assert not path.asked

    def test_tells_the_same_of_what_follows_the_pixels(
        self, here: Path, compiled: CudaEngine
    ) -> None:
        Path("a.png").write_bytes(raw_png(ROWS, more=b"xyz") + b"more")
        run = Run(compiled)
        (record, data), (by_host, host) = run(), run(engine_codec=False)
        assert "unfilter" in record.engine_seconds
        assert (data, record.notes) == (host, by_host.notes)
        assert len(record.notes) == 2


@pytest.mark.parametrize("border", ["reflect", "wrap"])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("name", ["blur", "sharpen"])
def test_the_device_proves_as_it_does_of_pixels(
    name: str, channels: int, border: str, compiled: CudaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "LEAST_SAMPLES", 0)
    pixels, filter, edge = random_pixels((60, 50, channels), "uint8"), make(name), Border(border)
    alpha = channels == 4
    done = through(compiled, png_of(pixels), filter, edge, keep=True, screen=True)
    assert done is not None
    assert done.screened is not None
    assert done.kept is not None
    result = compiled.run(pixels, filter, edge, alpha).pixels
    expected = compiled.screen(pixels, result, filter, edge, alpha).screened
    assert expected is not None
    assert done.screened.right == expected.right
    source, result = done.kept
    assert compare(result, source, filter, edge, alpha, screen=done.screened).ok


def test_a_variant_that_cannot_do_it_is_told_by_the_host(
    here: Path, compiled: CudaEngine, fake: FakeCuda
) -> None:
    Path("a.png").write_bytes(SMALL)
    engine = CudaEngine(variant="box")
    for filter in (BLUR, CHAIN):
        assert through(compiled, SMALL, filter) is not None
        assert through(engine, SMALL, filter) is None
        (record, _), (by_host, _) = Run(engine, filter)(), Run(engine, filter)(engine_codec=False)
        assert record.status == "failed"
        assert (record.error, record.hint) == (by_host.error, by_host.hint)
    engine.close()


class TestMemory:
    @pytest.mark.parametrize("keep", [False, True])
    @pytest.mark.parametrize("filter", [BLUR, CHAIN], ids=["filter", "chain"])
    def test_it_takes_what_is_reckoned(
        self, filter: Operation, keep: bool, compiled: CudaEngine, fake: FakeCuda
    ) -> None:
        before = fake.in_use
        assert through(compiled, SMALL, filter, keep=keep) is not None
        weights = sum(kept.nbytes for kept in fake.living() if kept.address in fake.weights)
        taken = fake.in_use - before - weights
        compiled._device.memory_limit = taken
        assert through(compiled, SMALL, filter, keep=keep) is not None
        compiled._device.memory_limit = taken - 1
        assert through(compiled, SMALL, filter, keep=keep) is None

    def test_too_large_or_too_long_a_picture_is_left_to_the_host(
        self, compiled: CudaEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = png_of(random_pixels((40, 50, 3), "uint16"))
        monkeypatch.setattr(unfilter, "MOST", 40 * 50 * 6)
        assert through(compiled, data) is not None
        monkeypatch.setattr(unfilter, "MOST", 40 * 50 * 6 - 1)
        assert through(compiled, data) is None

    def test_a_file_of_few_bytes_is_left_to_the_host(
        self, compiled: CudaEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = png_of(np.zeros((300, 300, 3), np.uint8))
        assert through(compiled, data) is not None
        monkeypatch.setattr(limits, "SPARSE_BYTES", 0)
        assert through(compiled, data) is None

    @pytest.mark.parametrize("filter", [BLUR, CHAIN], ids=["filter", "chain"])
    def test_codecs_give_theirs_to_an_image_that_finds_none(
        self,
        filter: Operation,
        compiled: CudaEngine,
        fake: FakeCuda,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        freed: list[str] = []
        for name in ("_jpeg", "_png"):
            codec = SimpleNamespace(free=lambda name=name: freed.append(name))
            monkeypatch.setattr(compiled, name, codec)
        fake.faults.append(Fault("mem_alloc", MemoryError, "out of memory"))
        compiled.run(PIXELS, filter)
        assert freed == ["_jpeg", "_png"]
        monkeypatch.undo()

    @pytest.mark.parametrize("filter", [BLUR, CHAIN, JOINED], ids=["filter", "chain", "joined"])
    def test_files_give_theirs_to_images(
        self, filter: Operation, compiled: CudaEngine, fake: FakeCuda
    ) -> None:
        assert through(compiled, SMALL, filter) is not None
        pixels = random_pixels((33, 44, 3), "uint8")
        assert through(compiled, SMALL) is not None
        fake.memory = fake.in_use + 100
        assert_agrees(compiled, pixels, filter)

    @pytest.mark.parametrize("filter", [BLUR, CHAIN, JOINED], ids=["filter", "chain", "joined"])
    def test_no_slot_is_held_meanwhile(
        self,
        filter: Operation,
        compiled: CudaEngine,
        fake: FakeCuda,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What waits for the codecs may be waited for by one of them, which wants all slots."""
        compiled.run(random_pixels((3, 4, 3), "uint8"), filter)  # loads its kernels
        assert through(compiled, SMALL) is not None
        slots, lent = compiled._device.slots, list[int]()
        free = compiled._free_codecs

        def told() -> None:
            lent.append(slots.count - len(slots._free))
            free()

        monkeypatch.setattr(compiled, "_free_codecs", told)
        fake.memory = fake.in_use + 100
        compiled.run(random_pixels((33, 44, 3), "uint8"), filter)
        assert lent == [0]

    def test_files_give_theirs_to_parts_of_pngs(self, compiled: CudaEngine, fake: FakeCuda) -> None:
        large = random_pixels((200, 200, 3), "uint8")
        assert through(compiled, png_of(large)) is not None
        assert compiled.png is not None
        fake.memory = fake.in_use + 100
        assert compiled.png.deflate(large).pieces is not None

    def test_it_is_given_back_once_files_in_flight_are_done(
        self, compiled: CudaEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert through(compiled, SMALL) is not None
        assert compiled._png is not None
        files = compiled._png._files
        assert files is not None
        inflated, on = threading.Event(), threading.Event()
        right = png_files.PngFiles._inflated

        def waiting(*given: Any) -> tuple[int, float]:
            done = right(*given)
            inflated.set()
            assert on.wait(20)
            return done

        def free() -> None:
            with compiled._device.current():
                files.free()

        monkeypatch.setattr(png_files.PngFiles, "_inflated", waiting)
        threads = [threading.Thread(target=through, args=(compiled, SMALL), daemon=True)]
        threads[0].start()
        assert inflated.wait(20)
        threads.append(threading.Thread(target=free, daemon=True))
        threads[1].start()
        while not (files._readers._closed or files._slots._closed):
            pass
        on.set()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()


def test_an_interlaced_file_is_not_inflated_for_nothing(
    compiled: CudaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = raw_png(bytes(79), interlaced=1)
    monkeypatch.setattr(png, "open", fail(AssertionError("it is inflated")))
    assert through(compiled, data) is None


def test_metadata_that_the_host_would_leave_out_are_left_to_it(compiled: CudaEngine) -> None:
    data = raw_png(ROWS, ancillary=chunk(b"bKGD", bytes(6)))  # of RGB, in a gray picture
    assert images.lost_metadata(images.load(data), "png")
    assert through(compiled, data) is None
