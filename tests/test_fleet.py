"""Several engines as one: who does the work, and what happens when one of them fails."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from agreement import random_pixels
from cudafilter.engines import Engine
from cudafilter.engines.codecs import FileJob, FileResult, NotTaken
from cudafilter.engines.fleet import Fleet
from cudafilter.engines.open import open_engine
from cudafilter.errors import EngineError, LimitError, ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.pixels import Pixels
from stand_in_gpus import BLUR, PIXELS, StandIn, both, fail, in_threads


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


class TestJpeg:
    @staticmethod
    def result(text: bytes) -> FileResult:
        return FileResult(text, 4, 3, 3, "RGB", notes=("a note",))

    def filter(self, fleet: Fleet) -> FileResult:
        assert fleet.jpeg is not None
        return fleet.jpeg.filter(FileJob(b"", BLUR, Border()))

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
