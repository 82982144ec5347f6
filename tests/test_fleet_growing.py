"""Engines that join a fleet when those that there are do not suffice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from agreement import random_pixels
from cudafilter.engines.codecs import FileJob, FileResult
from cudafilter.engines.fleet import BUSY, WINDOW, Fleet
from cudafilter.engines.open import _join
from cudafilter.errors import EngineError, EngineUnavailable
from cudafilter.operations.borders import Border
from stand_in_gpus import BLUR, PIXELS, Clock, StandIn, clock, fail, in_threads, settle

__all__ = ["clock"]


class TestGrowth:
    """Engines that join when those that there are do not suffice."""

    def grown(self, first: StandIn, *others: StandIn, refuse: int = 0) -> tuple[Fleet, list[int]]:
        """A fleet of *first* which may open *others*, and which of them it has opened."""
        opened: list[int] = []

        def opener(i: int, other: StandIn) -> Callable[[], StandIn]:
            def open() -> StandIn:
                opened.append(i)
                time.sleep(0.05)
                if i <= refuse:
                    raise EngineUnavailable("no room")
                return other

            return open

        more = {other.title: opener(i, other) for i, other in enumerate(others, 1)}
        return Fleet([first], more=more), opened

    @pytest.mark.parametrize(("kernel", "joins"), [(0.99 * BUSY, False), (BUSY, True), (3.0, True)])
    def test_one_joins_once_kernels_keep_the_first_busy(
        self, kernel: float, joins: bool, clock: Clock
    ) -> None:
        grown, opened = self.grown(StandIn(0, kernel=kernel / 2), StandIn(1))
        clock.now = WINDOW / 2
        grown.run(PIXELS, BLUR)
        assert not opened, "the window is not over"
        clock.now = WINDOW
        grown.run(PIXELS, BLUR)
        settle(grown)
        assert opened == ([1] if joins else [])
        grown.close()

    def test_it_gets_its_share(self, clock: Clock) -> None:
        first, second = StandIn(0, kernel=1.0, parallel=1), StandIn(1, parallel=1)
        grown, _ = self.grown(first, second)
        clock.now = WINDOW
        grown.run(PIXELS, BLUR)
        settle(grown)
        together = threading.Barrier(2, timeout=10)
        first.does = second.does = together.wait
        in_threads(2, lambda _: grown.run(PIXELS, BLUR).pixels)
        assert (first.runs, second.runs) == (2, 1)
        grown.close()
        assert second.closed

    def test_a_pause_is_not_work_and_makes_later_work_no_less(self, clock: Clock) -> None:
        grown, opened = self.grown(StandIn(0, kernel=0.9), StandIn(1))
        for _ in range(5):
            clock.now += 10
            grown.run(PIXELS, BLUR)
        assert not opened
        clock.now += WINDOW
        grown.run(PIXELS, BLUR)
        settle(grown)
        assert opened == [1]

    def test_two_must_be_busy_for_a_third(self, clock: Clock) -> None:
        grown, opened = self.grown(StandIn(0, kernel=WINDOW), StandIn(1), StandIn(2))
        for n in range(1, 4):
            clock.now = n * WINDOW
            grown.run(PIXELS, BLUR)
            settle(grown)
        assert opened == [1]
        grown.count(WINDOW)
        clock.now += WINDOW
        grown.run(PIXELS, BLUR)
        settle(grown)
        assert opened == [1, 2]

    def test_jpegs_count_too(self, clock: Clock) -> None:
        done = FileResult(b"", 4, 3, 3, "RGB", seconds={"kernel": 1.0})
        grown, opened = self.grown(StandIn(0, jpeg=lambda: done), StandIn(1, jpeg=lambda: done))
        assert grown.jpeg is not None
        clock.now = WINDOW
        grown.jpeg.filter(FileJob(b"", BLUR, Border()))
        settle(grown)
        assert opened == [1]

    def test_work_goes_on_meanwhile(self, clock: Clock) -> None:
        first = StandIn(0, kernel=1.0)
        at_work = threading.Event()
        opened: list[str] = []

        def slowly(name: str) -> StandIn:
            opened.append(name)
            assert at_work.wait(10)
            return StandIn(1)

        grown = Fleet([first], more={name: partial(slowly, name) for name in ("GPU 1", "GPU 2")})
        for n in range(1, 4):
            clock.now = n * WINDOW
            grown.run(PIXELS, BLUR)
        assert (first.runs, len(grown._members)) == (3, 1)
        at_work.set()
        settle(grown)
        assert len(grown._members) == 2
        assert opened == ["GPU 1"], "one at a time"

    def test_closing_waits_for_one_that_is_being_opened(self, clock: Clock) -> None:
        second = StandIn(1)

        def slowly() -> StandIn:
            time.sleep(0.1)
            return second

        grown = Fleet([StandIn(0, kernel=1.0)], more={"GPU 1": slowly})
        clock.now = WINDOW
        grown.run(PIXELS, BLUR)
        grown.close()
        assert second.closed

    def test_one_that_does_not_open_is_told_and_the_next_joins(self, clock: Clock) -> None:
        grown, opened = self.grown(StandIn(0, kernel=1.0), StandIn(1), StandIn(2), refuse=1)
        clock.now = WINDOW
        grown.run(PIXELS, BLUR)
        settle(grown)
        assert opened == [1, 2]
        assert grown.run(PIXELS, BLUR).notes == ("GPU 1 is left out: no room",)
        assert grown.run(PIXELS, BLUR).notes == (), "it is told once"
        grown.close()

    def test_one_that_fails_hands_its_work_to_one_that_opens_then(self) -> None:
        first, third = StandIn(0, does=fail(EngineError("gone"))), StandIn(2)
        grown, opened = self.grown(first, StandIn(1), third, refuse=1)
        assert grown.run(PIXELS, BLUR).notes == (
            "GPU 1 is left out: no room",
            "GPU 0 failed and is left out: gone",
        )
        assert (opened, third.runs) == ([1, 2], 1)

    def test_images_that_fail_side_by_side_open_one(self) -> None:
        grown, opened = self.grown(StandIn(0), StandIn(1), StandIn(2))
        together = threading.Barrier(8, timeout=10)

        def break_down() -> None:
            together.wait()
            raise EngineError("gone")

        grown._members[0].engine.does = break_down  # type: ignore[attr-defined]
        in_threads(8, lambda _: grown.run(PIXELS, BLUR).pixels)
        assert opened == [1]

    def test_an_image_on_which_all_fail_is_still_to_blame_itself(self) -> None:
        first, second = (StandIn(i, does=fail(EngineError(f"by {i}"))) for i in range(2))
        grown, opened = self.grown(first, second)
        for _ in range(2):
            with pytest.raises(EngineError, match="by 0"):
                grown.run(PIXELS, BLUR)
        assert opened == [1]


@pytest.mark.gpu
def test_a_gpu_that_joins_gives_the_bits_of_the_first() -> None:
    from cudafilter.engines.cuda.device import gpus
    from cudafilter.engines.cuda.engine import CudaEngine

    last = len(gpus()) - 1  # a host of one GPU has it twice
    grown = Fleet([CudaEngine(0)], more={"GPU": partial(_join, last, "auto", "auto")})
    image = random_pixels((300, 410, 3), "uint8", seed=0)
    expected = grown.run(image, BLUR).pixels
    time.sleep(WINDOW)
    grown.count(2 * WINDOW)
    settle(grown)
    assert len(grown._members) == 2
    assert np.array_equal(grown._members[1].engine.run(image, BLUR).pixels, expected)
    grown.close()
