"""Several engines as one: who does the work, and what happens when one of them fails."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest

from agreement import random_pixels
from cudafilter import wake
from cudafilter.borders import Border
from cudafilter.catalogue import ALL, gpu_numbers
from cudafilter.engines import Engine, Result
from cudafilter.engines.cuda.jpeg import JpegPath, JpegResult, NotTaken
from cudafilter.engines.fleet import BUSY, WINDOW, Fleet
from cudafilter.engines.open import _join, open_engine
from cudafilter.errors import EngineError, EngineUnavailable, LimitError, ParameterError
from cudafilter.filter import Filter, make
from cudafilter.pixels import Pixels

BLUR = make("blur", sigma=1)
PIXELS = random_pixels((9, 11, 3), "uint8")


class StandIn:
    """A GPU that the test makes work, wait or fail."""

    name = "cuda"
    note: str | None = None

    def __init__(
        self,
        number: int = 0,
        parallel: int = 2,
        jpeg: Callable[[], JpegResult] | None = None,
        does: Callable[[], object] = lambda: None,
        kernel: float | None = None,
    ) -> None:
        self.title = f"GPU {number}"
        self.parallel = parallel
        self.jpeg: JpegPath | None = StandInJpeg(jpeg) if jpeg else None
        self.does = does
        self.kernel = kernel
        """Seconds that its kernels take for an image, where it tells."""
        self.runs = 0
        self.closed = False

    def run(
        self,
        pixels: Pixels,
        filter: Filter,
        border: Border = Border(),
        alpha: bool = False,
        *,
        overwrite: bool = False,
    ) -> Result:
        assert not overwrite, "another may need the pixels"
        self.does()
        self.runs += 1
        kernel = {} if self.kernel is None else {"kernel": self.kernel}
        return Result(pixels + np.uint8(1), {self.title: float(self.runs), **kernel})

    def close(self) -> None:
        self.closed = True


@dataclass
class StandInJpeg:
    does: Callable[[], JpegResult]
    parallel: int = 3

    def filter(
        self, data: bytes, filter: Filter, border: Border, *, gray: bool, quality: int | None
    ) -> JpegResult:
        return self.does()


def fail(error: Exception) -> Callable[[], Any]:
    def raising() -> object:
        raise error

    return raising


def in_threads(count: int, work: Callable[[int], object]) -> None:
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()


def both(**options: Any) -> tuple[StandIn, StandIn, Fleet]:
    one, two = StandIn(0, **options), StandIn(1, **options)
    return one, two, Fleet([one, two])


class TestSharing:
    def test_one_caller_stays_with_the_first_whose_buffers_are_there(self) -> None:
        one, two, fleet = both()
        for _ in range(5):
            fleet.run(PIXELS, BLUR)
        assert (one.runs, two.runs) == (5, 0)

    @pytest.mark.parametrize("count", [2, 3, 8])
    def test_callers_at_a_time_are_spread_evenly(self, count: int) -> None:
        members = [StandIn(i) for i in range(count)]
        together = threading.Barrier(2 * count, timeout=10)
        for member in members:
            member.does = together.wait
        fleet = Fleet(members)
        in_threads(2 * count, lambda _: fleet.run(PIXELS, BLUR).pixels)
        assert [member.runs for member in members] == [2] * count

    def test_the_one_that_serves_more_at_a_time_gets_more(self) -> None:
        small, large = StandIn(0, parallel=1), StandIn(1, parallel=3)
        together = threading.Barrier(8, timeout=10)
        small.does = large.does = together.wait
        fleet = Fleet([small, large])
        in_threads(8, lambda _: fleet.run(PIXELS, BLUR).pixels)
        assert (small.runs, large.runs) == (2, 6)

    def test_a_slow_one_gets_less(self) -> None:
        slow, fast, fleet = both(parallel=1)
        fast_is_done = threading.Event()
        slow.does = lambda: fast_is_done.wait(10)

        def rest() -> None:
            for _ in range(20):
                fleet.run(PIXELS, BLUR)
            fast_is_done.set()

        in_threads(2, lambda i: fleet.run(PIXELS, BLUR).pixels if i == 0 else rest())
        assert slow.runs <= 2
        assert fast.runs >= 19

    def test_it_takes_as_many_callers_as_its_members_together(self) -> None:
        assert Fleet([StandIn(0, parallel=2), StandIn(1, parallel=3)]).parallel == 5

    def test_it_names_all(self) -> None:
        _, _, fleet = both()
        assert fleet.title == "GPU 0 + GPU 1"
        assert fleet.name == "cuda"

    def test_seconds_are_those_of_the_engine_that_did_the_work(self) -> None:
        one, two, fleet = both()
        together = threading.Barrier(2, timeout=10)
        one.does = two.does = together.wait
        told: dict[int, dict[str, float]] = {}

        def work(i: int) -> None:
            told[i] = dict(fleet.run(PIXELS, BLUR).seconds)
            together.wait()

        in_threads(2, work)
        assert sorted(name for timings in told.values() for name in timings) == ["GPU 0", "GPU 1"]

    def test_real_engines_give_the_same_bits_in_any_number(self, cpu: Engine) -> None:
        fleet = Fleet([open_engine("cpu"), open_engine("cpu"), open_engine("cpu")])
        images = [random_pixels((33, 40 + i, 3), "uint16", seed=i) for i in range(12)]
        results: dict[int, Pixels] = {}
        in_threads(
            12, lambda i: results.update({i: fleet.run(images[i], BLUR, Border("wrap")).pixels})
        )
        fleet.close()
        for i, image in enumerate(images):
            assert np.array_equal(results[i], cpu.run(image, BLUR, Border("wrap")).pixels)

    def test_closing_closes_all(self) -> None:
        one, two, fleet = both()
        fleet.close()
        assert one.closed
        assert two.closed


class TestFailure:
    def test_the_pixels_are_there_for_another(self) -> None:
        one, two, fleet = both()
        one.does = fail(EngineError("gone"))
        fleet.run(PIXELS, BLUR, overwrite=True)
        assert two.runs == 1

    def test_its_image_is_done_by_another_and_it_is_left_out(self) -> None:
        one, two, fleet = both()
        one.does = fail(EngineError("the GPU failed: launch failure"))
        done = fleet.run(PIXELS, BLUR)
        assert np.array_equal(done.pixels, PIXELS + np.uint8(1))
        assert done.notes == ("GPU 0 failed and is left out: the GPU failed: launch failure",)
        assert two.runs == 1
        one.does = lambda: None
        assert fleet.run(PIXELS, BLUR).notes == (), "it is told once"
        assert (one.runs, two.runs) == (0, 2)

    def test_images_under_way_on_it_are_all_done(self) -> None:
        one, two, three = members = [StandIn(i) for i in range(3)]
        fleet = Fleet(members)
        together = threading.Barrier(6, timeout=10)
        begun: set[int] = set()

        def begin() -> None:
            if threading.get_ident() not in begun:  # not when an image is done again
                begun.add(threading.get_ident())
                together.wait()

        def break_down() -> None:
            begin()
            raise EngineError("gone")

        one.does = three.does = begin
        two.does = break_down
        results: dict[int, Pixels] = {}
        notes: Counter[str] = Counter()

        def call(i: int) -> None:
            done = fleet.run(PIXELS, BLUR)
            results[i] = done.pixels
            notes.update(done.notes)

        in_threads(6, call)
        assert len(results) == 6
        assert notes == {"GPU 1 failed and is left out: gone": 2}
        assert (two.runs, one.runs + three.runs) == (0, 6)

    def test_an_image_on_which_all_fail_is_to_blame_itself(self) -> None:
        one, two, fleet = both()
        one.does, two.does = fail(EngineError("first")), fail(EngineError("second"))
        with pytest.raises(EngineError, match="first"):
            fleet.run(PIXELS, BLUR)
        one.does = two.does = lambda: None
        assert fleet.run(PIXELS, BLUR).notes == ()
        assert one.runs == 1

    def test_the_last_one_that_fails_is_not_left_out(self) -> None:
        one, two, fleet = both()
        one.does = fail(EngineError("gone"))
        fleet.run(PIXELS, BLUR)
        two.does = fail(EngineError("a bad moment"))
        for _ in range(2):
            with pytest.raises(EngineError, match="a bad moment"):
                fleet.run(PIXELS, BLUR)
        one.does = two.does = lambda: None
        fleet.run(PIXELS, BLUR)
        assert (one.runs, two.runs) == (0, 2)

    def test_what_the_others_fail_at_is_tried_on_one_left_out(self) -> None:
        one, two, fleet = both()
        one.does = fail(EngineError("a bad moment"))
        fleet.run(PIXELS, BLUR)
        one.does, two.does = lambda: None, fail(EngineError("gone"))
        assert fleet.run(PIXELS, BLUR).notes == ("GPU 1 failed and is left out: gone",)
        assert one.runs == 1

    def test_two_that_fail_in_turns_are_not_both_left_out(self) -> None:
        one, two, fleet = both(parallel=1)
        together = threading.Barrier(2, timeout=10)
        failed: set[str] = set()

        def once(member: StandIn) -> Callable[[], object]:
            def do() -> None:
                if member.title not in failed:
                    failed.add(member.title)
                    together.wait()
                    raise EngineError("once")

            return do

        one.does, two.does = once(one), once(two)
        in_threads(2, lambda _: fleet.run(PIXELS, BLUR).pixels)
        fleet.run(PIXELS, BLUR)
        assert one.runs + two.runs == 3

    @pytest.mark.parametrize(
        "error", [LimitError("too large a kernel"), ParameterError("pixels", "are none"), OSError()]
    )
    def test_what_is_no_engines_fault_is_raised_at_once(self, error: Exception) -> None:
        one, two, fleet = both()
        one.does = fail(error)
        with pytest.raises(type(error)):
            fleet.run(PIXELS, BLUR)
        one.does = lambda: None
        fleet.run(PIXELS, BLUR)
        assert (one.runs, two.runs) == (1, 0)

    def test_closing_one_that_failed_is_no_failure(self) -> None:
        one, two, fleet = both()
        one.does = fail(EngineError("gone"))
        fleet.run(PIXELS, BLUR)
        one.close = fail(EngineError("gone"))  # type: ignore[method-assign]
        fleet.close()
        assert two.closed

    def test_closing_one_that_works_tells_its_failure(self) -> None:
        one, two, fleet = both()
        two.close = fail(EngineError("a leak"))  # type: ignore[method-assign]
        with pytest.raises(EngineError, match="a leak"):
            fleet.close()
        assert one.closed


@dataclass
class Clock:
    """What tells the time to fleets."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("cudafilter.engines.fleet.perf_counter", clock)
    return clock


def settle(fleet: Engine) -> None:
    """Wait until the engine that is being opened is there."""
    assert isinstance(fleet, Fleet)
    if fleet._opener is not None:
        fleet._opener.join(timeout=10)


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
        done = JpegResult(b"", 4, 3, 3, "RGB", seconds={"kernel": 1.0})
        grown, opened = self.grown(StandIn(0, jpeg=lambda: done), StandIn(1, jpeg=lambda: done))
        assert grown.jpeg is not None
        clock.now = WINDOW
        grown.jpeg.filter(b"", BLUR, Border(), gray=False, quality=None)
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


class TestJpeg:
    @staticmethod
    def result(text: bytes) -> JpegResult:
        return JpegResult(text, 4, 3, 3, "RGB", notes=("a note",))

    def filter(self, fleet: Fleet) -> JpegResult:
        assert fleet.jpeg is not None
        return fleet.jpeg.filter(b"", BLUR, Border(), gray=False, quality=None)

    def test_there_is_none_where_no_member_has_one(self) -> None:
        assert both()[2].jpeg is None

    def test_goes_to_a_member_that_has_one(self) -> None:
        fleet = Fleet([StandIn(0), StandIn(1, jpeg=lambda: self.result(b"one"))])
        assert self.filter(fleet).data == b"one"
        assert fleet.jpeg is not None
        assert fleet.jpeg.parallel == 3

    def test_is_handed_over_as_other_work_is(self) -> None:
        first = StandIn(0, jpeg=fail(EngineError("gone")))
        fleet = Fleet([first, StandIn(1, jpeg=lambda: self.result(b"two"))])
        assert fleet.jpeg is not None
        assert fleet.jpeg.parallel == 6
        done = self.filter(fleet)
        assert done.data == b"two"
        assert done.notes == ("a note", "GPU 0 failed and is left out: gone")
        fleet.run(PIXELS, BLUR)
        assert first.runs == 0

    def test_a_file_that_is_not_taken_is_no_failure(self) -> None:
        first = StandIn(0, jpeg=fail(NotTaken("CMYK")))
        fleet = Fleet([first, StandIn(1, jpeg=lambda: self.result(b"two"))])
        with pytest.raises(NotTaken, match="CMYK"):
            self.filter(fleet)
        fleet.run(PIXELS, BLUR)
        assert first.runs == 1


@dataclass(frozen=True)
class Card:
    """What gpus() tells of a GPU."""

    index: int
    name: str = "H100"


@dataclass
class Host:
    """A host with stand-in GPUs."""

    cards: list[Card] = field(default_factory=list)
    refuse: set[int] = field(default_factory=set)
    opened: list[StandIn] = field(default_factory=list)

    def gpus(self) -> Sequence[Card]:
        if not self.cards:
            raise EngineUnavailable("the NVIDIA driver shows no GPU")
        return self.cards

    def open(self, gpu: int = 0, variant: str = "auto", *, codec: str = "auto") -> StandIn:
        self.gpus()
        if gpu >= len(self.cards) or gpu in self.refuse:
            raise EngineUnavailable(f"GPU {gpu} does not open")
        engine = StandIn(gpu)
        self.opened.append(engine)
        return engine


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host([Card(0), Card(1), Card(2)])
    monkeypatch.setattr("cudafilter.engines.cuda.device.gpus", host.gpus)
    monkeypatch.setattr("cudafilter.engines.cuda.engine.CudaEngine", host.open)
    return host


class TestOpening:
    def test_one_image_takes_the_first_gpu(self, host: Host) -> None:
        assert open_engine().title == "GPU 0"
        assert len(host.opened) == 1

    def test_all_that_were_asked_for_open_at_once(self, host: Host) -> None:
        engine = open_engine(gpu="all")
        assert engine.title == "cuda: 3 x H100 (GPUs 0, 1, 2)"
        assert engine.parallel == 6
        assert engine.note is None

    def test_several_images_take_one_and_the_others_as_needed(
        self, host: Host, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        woken: list[tuple[Sequence[int] | None, bool]] = []
        monkeypatch.setattr(wake, "wake", lambda gpus, *, jpeg: woken.append((gpus, jpeg)))
        engine = open_engine(several=True)
        assert engine.title == "cuda: 3 x H100 (GPU 0; 1, 2 as needed)"
        assert (len(host.opened), woken) == (1, [])
        host.opened[0].kernel = 1.0
        for opened in (2, 3, 3):
            clock.now += WINDOW
            engine.run(PIXELS, BLUR)
            settle(engine)
            assert len(host.opened) == opened
            for card in host.opened:
                card.kernel = float(opened)
        assert woken == [((1,), True), ((2,), True)]
        engine.close()
        assert all(card.closed for card in host.opened)

    def test_a_host_of_one_gpu_has_no_fleet(self, host: Host) -> None:
        host.cards = [Card(0)]
        assert open_engine(several=True).title == "GPU 0"
        assert open_engine(gpu="all").title == "GPU 0"

    @pytest.mark.parametrize("several", [False, True])
    def test_those_asked_for_are_taken(self, host: Host, several: bool) -> None:
        host.cards[2] = Card(2, "T4")
        engine = open_engine(gpu="2,0", several=several)
        assert engine.title == "cuda: 1 x T4 + 1 x H100 (GPUs 2, 0)"
        assert [opened.title for opened in host.opened] == ["GPU 2", "GPU 0"]
        assert open_engine(gpu=1, several=several).title == "GPU 1"
        assert open_engine(gpu="all", several=several).title.endswith("(GPUs 0, 1, 2)")

    def test_of_all_those_that_do_not_open_are_left_out_and_told(self, host: Host) -> None:
        host.refuse = {1}
        engine = open_engine(gpu="all")
        assert engine.title == "cuda: 2 x H100 (GPUs 0, 2)"
        assert engine.note == "GPU 1 is left out: GPU 1 does not open"
        host.refuse = {0}
        engine = open_engine(several=True)
        assert engine.title == "cuda: 2 x H100 (GPU 1; 2 as needed)"
        assert engine.note == "GPU 0 is left out: GPU 0 does not open"

    @pytest.mark.parametrize("gpu", ["all", None])
    def test_where_one_alone_opens_it_is_the_engine(self, host: Host, gpu: str | None) -> None:
        host.refuse = {0, 1}
        engine = open_engine(gpu=gpu, several=True)
        assert engine.title == "GPU 2"
        assert engine.note is not None
        assert "GPU 0 is left out" in engine.note
        assert "GPU 1 is left out" in engine.note

    def test_of_those_named_each_must_open(self, host: Host) -> None:
        host.refuse = {1}
        with pytest.raises(EngineUnavailable, match="GPU 1 does not open"):
            open_engine(gpu="0,1,2")
        assert len(host.opened) == 2
        assert all(engine.closed for engine in host.opened)
        with pytest.raises(EngineUnavailable, match="GPU 7"):
            open_engine(gpu="7")

    def test_where_none_opens_the_cpu_serves_unless_gpus_were_asked_for(self, host: Host) -> None:
        host.refuse = {0, 1, 2}
        engine = open_engine(several=True)
        assert engine.name == "cpu"
        assert engine.note == "no CUDA: GPU 0 does not open"
        engine.close()
        for choice in ({"name": "cuda"}, {"gpu": "all"}, {"variant": "stream"}):
            with pytest.raises(EngineUnavailable):
                open_engine(several=True, **choice)

    def test_a_host_without_a_gpu_says_so(self, host: Host) -> None:
        host.cards = []
        assert open_engine(several=True).note == "no CUDA: the NVIDIA driver shows no GPU"
        with pytest.raises(EngineUnavailable, match="no GPU"):
            open_engine(gpu="all")

    @pytest.mark.parametrize("gpu", ["all", "0,1", 0])
    def test_gpus_are_not_for_the_cpu_engine(self, gpu: str | int) -> None:
        with pytest.raises(ParameterError) as caught:
            open_engine("cpu", gpu=gpu)
        assert caught.value.parameter == "gpu"

    def test_the_cpu_engine_serves_several_images(self) -> None:
        engine = open_engine("cpu", several=True)
        assert engine.name == "cpu"
        engine.close()

    @pytest.mark.parametrize(
        ("text", "numbers"),
        [("all", None), ("0", (0,)), ("3,1", (3, 1)), ("0, 2", (0, 2)), (5, (5,))],
    )
    def test_gpus_are_named_by_number(
        self, text: str | int, numbers: tuple[int, ...] | None
    ) -> None:
        assert gpu_numbers(text) == numbers

    @pytest.mark.parametrize("text", ["", "x", "-1", "0,", "0;1", "1.5", "All", "0,0", -1])
    def test_other_names_are_refused(self, text: str | int) -> None:
        with pytest.raises(ParameterError) as caught:
            gpu_numbers(text)
        assert caught.value.parameter == "gpu"
        assert ALL in str(caught.value) or "twice" in str(caught.value)


@pytest.mark.gpu
def test_all_gpus_together_give_the_bits_of_one() -> None:
    from cudafilter.engines.cuda.device import gpus
    from cudafilter.engines.cuda.engine import CudaEngine

    alone = CudaEngine()
    # A host of one GPU has it twice, each time with streams and buffers of its own.
    numbers = range(len(gpus())) if len(gpus()) > 1 else (0, 0)
    fleet = Fleet([CudaEngine(number) for number in numbers])
    images = [random_pixels((300 + i, 410, 3), "uint8", seed=i) for i in range(32)]
    results: dict[int, Pixels] = {}
    timings: dict[int, dict[str, float]] = {}

    def work(i: int) -> None:
        for n in range(i, len(images), 8):
            done = fleet.run(images[n], BLUR)
            results[n], timings[n] = done.pixels, dict(done.seconds)
            assert done.notes == ()

    in_threads(8, work)
    for n, image in enumerate(images):
        assert np.array_equal(results[n], alone.run(image, BLUR).pixels)
    assert all({"upload", "kernel", "download"} == set(told) for told in timings.values())
    fleet.close()
    alone.close()


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


@pytest.mark.gpu
def test_the_gpus_of_the_host_open() -> None:
    from cudafilter.engines.cuda.device import gpus

    several = len(gpus()) > 1
    for options, title in (
        ({}, "(GPU 0, "),
        ({"several": True}, "(GPU 0; 1" if several else "(GPU 0, "),
        ({"gpu": "all"}, "(GPUs 0, 1" if several else "(GPU 0, "),
    ):
        engine = open_engine("cuda", **options)
        assert title in engine.title
        assert isinstance(engine, Fleet) == (several and bool(options))
        engine.close()
    with pytest.raises(EngineUnavailable, match="there is no GPU 99"):
        open_engine(gpu="0,99")
