"""Images side by side: how many are in work, and what memory they take."""

from __future__ import annotations

import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cudafilter import images
from cudafilter.engines.codecs import FileResult, NotTaken
from cudafilter.jobs import crew, sizing
from cudafilter.jobs.plan import Job
from cudafilter.jobs.record import Record
from cudafilter.jobs.worker import Settings
from cudafilter.operations.borders import Border
from cudafilter.operations.pixels import Pixels
from cudafilter.stores import local
from many_images import BLUR, StandIn, folder_jobs, photos, run

__all__ = ["photos"]


class Many:
    """An engine's codec that is worth many threads, and takes nothing."""

    parallel = 20

    def filter(self, *_: Any, **__: Any) -> FileResult:
        raise NotTaken("never")


class TestSideBySide:
    """Whatever stage is slow, images wait in it side by side, and come out the same."""

    @pytest.mark.parametrize("slow", ["load", "encode", "write_whole", "engine"])
    def test_a_slow_stage_is_entered_by_as_many_as_there_are_threads(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch, slow: str
    ) -> None:
        together = threading.Barrier(3, timeout=10)

        def slowed(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                together.wait()  # breaks unless three are in at once
                return original(*arguments, **named)

            return call

        engine = StandIn()
        if slow == "engine":
            engine = StandIn(slowed(lambda pixels: pixels))
        else:
            module = local if slow == "write_whole" else images
            monkeypatch.setattr(module, slow, slowed(getattr(module, slow)))
        records = run(folder_jobs(), engine, threads=3)
        assert [record.error for record in records.values()] == [None] * 6

    def test_the_host_codes_as_many_as_there_are_cores_however_many_the_engines_codec_takes(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(crew, "cores", lambda: 2)
        inside, most = [], 0

        def wait(pixels: Pixels) -> Pixels:
            nonlocal most
            inside.append(1)
            most = max(most, len(inside))
            time.sleep(0.02)
            inside.pop()
            return pixels

        engine = StandIn(wait, jpeg=Many())
        jobs = [Job(photos / f"{n % 6}.png", Path(f"{n}.png"), "png") for n in range(24)]
        seen: list[Record] = []
        settings = Settings(engine_codec=True)
        crew.run(jobs, lambda: engine, BLUR, Border(), settings, seen.append)
        assert len(seen) == 24
        assert most == 2

    @pytest.mark.parametrize(
        ("cores", "waiting", "together"),
        [(1, 0, 1), (2, 0, 2), (8, 0, 8), (1, 3, 3), (2, 4, 4), (8, 3, 8), (16, 4, 16)],
    )
    def test_images_in_work_are_as_many_as_keep_cores_and_engine_busy(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch, cores: int, waiting: int, together: int
    ) -> None:
        monkeypatch.setattr(crew, "cores", lambda: cores)
        inside, most = 0, 0
        changed = threading.Condition()

        def wait(pixels: Pixels) -> Pixels:
            nonlocal inside, most
            with changed:
                inside += 1
                most = max(most, inside)
                changed.notify_all()
                assert changed.wait_for(lambda: most >= together, timeout=10)
            time.sleep(0.02)  # for one too many to come
            with changed:
                inside -= 1
            return pixels

        jobs = [Job(photos / f"{n % 6}.png", Path(f"{n}.png"), "png") for n in range(2 * together)]
        seen: list[Record] = []
        engine = StandIn(wait, parallel=waiting)
        crew.run(jobs, lambda: engine, BLUR, Border(), Settings(), seen.append)
        assert [record.error for record in seen] == [None] * len(jobs)
        assert most == together

    def test_outputs_do_not_depend_on_who_is_first(self, photos: Path) -> None:
        rng = np.random.default_rng(4)

        def dawdle(pixels: Pixels) -> Pixels:
            time.sleep(rng.uniform(0, 0.02))
            return 255 - pixels

        written = {}
        for threads in (1, 5):
            records = run(folder_jobs(), StandIn(dawdle), threads=threads)
            assert len(records) == 6
            written[threads] = [path.read_bytes() for path in sorted(Path("out").iterdir())]
        assert written[1] == written[5]

    def test_jobs_may_come_while_it_runs(self, photos: Path) -> None:
        seen: list[Record] = []
        arrived = threading.Event()

        def arriving() -> Iterator[Job]:
            yield Job(photos / "0.png", Path("0.png"), "png")
            assert arrived.wait(5), "the first image waits for the second one to come"
            yield Job(photos / "1.png", Path("1.png"), "png")

        def tell(record: Record) -> None:
            seen.append(record)
            arrived.set()

        crew.run(arriving(), StandIn, BLUR, Border(), Settings(), tell, threads=2)
        assert [record.destination for record in seen] == ["0.png", "1.png"]

    def test_a_source_of_jobs_that_fails_ends_the_run(self, photos: Path) -> None:
        def failing() -> Iterator[Job]:
            yield Job(photos / "0.png", Path("0.png"), "png")
            raise OSError("the folder has gone")

        with pytest.raises(OSError, match="has gone"):
            crew.run(failing(), StandIn, BLUR, Border(), Settings(), lambda r: None)


class TestMemory:
    def test_images_alive_are_as_many_as_threads(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alive, most = 0, 0
        lock = threading.RLock()

        def gone() -> None:
            nonlocal alive
            with lock:
                alive -= 1

        def load(*arguments: Any, **options: Any) -> images.Image:
            nonlocal alive, most
            image = original(*arguments, **options)
            with lock:
                alive += 1
                most = max(most, alive)
            weakref.finalize(image.pixels, gone)
            return image

        def copy_slowly(pixels: Pixels) -> Pixels:
            time.sleep(0.001)
            return pixels.copy()

        original = images.frame_of
        monkeypatch.setattr(images, "frame_of", load)
        jobs = [Job(photos / f"{n % 6}.png", Path(f"{n}.png"), "png") for n in range(300)]
        crew.run(
            jobs, lambda: StandIn(copy_slowly), BLUR, Border(), Settings(),
            lambda record: None, threads=3,
        )  # fmt: skip
        assert 1 < most <= 3
        assert alive == 0

    def test_does_not_grow_with_the_queue(self, photos: Path) -> None:
        def peak(count: int) -> int:
            jobs = (Job(Path("large.png"), Path("x.png"), "png") for _ in range(count))
            tracemalloc.start()
            crew.run(jobs, StandIn, BLUR, Border(), Settings(), lambda record: None, threads=1)
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return most

        Image.new("RGB", (400, 300)).save("large.png")
        peak(10)  # what is imported and cached on first use
        assert peak(400) < 1.5 * peak(20)

    def test_a_queue_of_ten_thousand_is_small(self, photos: Path) -> None:
        tracemalloc.start()
        jobs = [
            Job(Path(f"photographs/of/a/day/{n:08}.jpg"), Path(f"out/of/a/day/{n:08}.jpg"), "jpeg")
            for n in range(10_000)
        ]
        each = tracemalloc.get_traced_memory()[0] / len(jobs)
        tracemalloc.stop()
        assert each < 1000, "bytes a job: 10 MB at most, as one image in work takes"

    def test_large_images_wait_for_room(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = 20 * 30 * 3 * sizing.COPIES
        inside, most = 0, 0
        lock = threading.Lock()

        def count(pixels: Pixels) -> Pixels:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with lock:
                inside -= 1
            return pixels

        monkeypatch.setattr(sizing, "memory_for_images", lambda: 2 * one)
        monkeypatch.setattr(crew, "cores", lambda: 6)
        assert [r.error for r in run(folder_jobs(), StandIn(count)).values()] == [None] * 6
        assert most == 2
        most = 0
        monkeypatch.setattr(sizing, "memory_for_images", lambda: one // 2)
        assert [r.error for r in run(folder_jobs(), StandIn(count)).values()] == [None] * 6
        assert most == 1, "an image larger than the whole budget goes alone"
