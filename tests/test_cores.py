"""Work on several cores."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from threading import Barrier, Thread, current_thread

import pytest

from cudafilter.host import cores
from cudafilter.host.cores import each, in_work, share


@pytest.fixture(autouse=True)
def one_image() -> Iterator[None]:
    yield
    in_work(1)


@pytest.mark.parametrize("threads", [None, 1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 200])
def test_results_are_in_the_order_of_the_items(count: int, threads: int | None) -> None:
    assert each(lambda n: n * n, range(count), threads) == [n * n for n in range(count)]


def test_as_many_are_at_work_as_was_asked_for() -> None:
    together = Barrier(3, timeout=30)
    each(lambda _: together.wait(), range(9), 3)  # fewer would break it
    assert len(set(each(lambda _: current_thread(), range(100), 3))) <= 3


@pytest.mark.parametrize(("images", "at_once"), [(1, 8), (2, 4), (3, 2), (8, 1), (20, 1)])
def test_an_image_gets_its_share_of_the_cores(
    images: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 8)
    in_work(images)
    assert share() == at_once
    together = Barrier(at_once, timeout=30)  # fewer would break it

    def work(_: int) -> Thread:
        together.wait()
        return current_thread()

    assert len(set(each(work, range(3 * at_once)))) <= at_once


def test_one_thread_is_this_one() -> None:
    assert each(lambda _: current_thread(), range(3), 1) == [current_thread()] * 3


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_is_raised_and_nothing_more_is_begun(
    error: type[BaseException], threads: int
) -> None:
    begun = []

    def work(n: int) -> None:
        begun.append(n)
        if n == 3:
            raise error("of the fourth")

    with pytest.raises(error, match="of the fourth"):
        each(work, range(100_000), threads)
    assert len(begun) < 50_000


def test_a_job_on_the_cpu_does_not_import_a_pool() -> None:
    code = (
        "import sys; import cudafilter.cli.run, cudafilter.engines.cpu, cudafilter.formats.jpeg;"
        "print(*{'concurrent.futures', 'logging', 'asyncio'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
