"""Which worker of a cluster gets which jobs: each job ends once, whoever is lost."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cudafilter.jobs.chunks import MOST_KILLS, PARTS, Chunks
from cudafilter.jobs.plan import Job
from cudafilter.jobs.workers import AHEAD


def jobs(count: int) -> list[Job]:
    return [Job(Path(f"in/{n}.png"), Path(f"out/{n}.png"), "png") for n in range(count)]


def name(job: Job) -> str:
    return str(job.destination)


@given(
    st.integers(1, 40),
    st.integers(1, 4),
    st.integers(1, 9),
    st.sets(st.integers(0, 39), max_size=3),
    st.randoms(use_true_random=False),
)
def test_each_job_ends_once_and_only_killers_are_given_up(
    count: int, workers: int, most: int, killers: set[int], chance: random.Random
) -> None:
    """Workers do their jobs in order, and are lost where one is a killer, or by chance a few
    times."""
    all_jobs = jobs(count)
    deadly = {name(all_jobs[n]) for n in killers if n < count}
    chunks = Chunks(all_jobs)
    numbers = list(range(workers))
    held: dict[int, list[str]] = {number: [] for number in numbers}
    ended: Counter[str] = Counter()
    given_up: set[str] = set()
    accidents = 5
    while chunks.left:
        number = chance.choice(numbers)
        got = [name(job) for job in chunks.give(number, most, workers)]
        others = {each for n, some in held.items() if n != number for each in some}
        assert not others & set(got)  # with one worker at a time
        held[number] += got
        accident = accidents > 0 and len(held[number]) > 1 and chance.random() < 0.1
        if accident or (held[number] and held[number][0] in deadly):
            accidents -= accident
            had, lost = chunks.lose(number)
            assert [name(job) for job in had] == held[number]
            given_up |= {name(job) for job in lost}
            ended.update(name(job) for job in lost)
            held[number] = []
            numbers[numbers.index(number)] = fresh = max(held) + 1
            held[fresh] = []
        elif held[number]:
            first = held[number].pop(0)
            assert chunks.done(number, first)
            assert not chunks.done(number, first)
            ended[first] += 1
    assert ended == Counter(name(job) for job in all_jobs)
    assert given_up == deadly


def test_what_a_lost_worker_had_comes_in_parts_then_one_by_one() -> None:
    chunks = Chunks(jobs(24))
    assert len(chunks.give(0, 24, 1)) == 24
    assert len(chunks.lose(0)[0]) == 24
    assert len(chunks.give(1, 24, 1)) == 24 // PARTS
    assert chunks.give(1, 24, 1) == []  # nothing beside it
    chunks.lose(1)
    sizes = [len(chunks.give(worker, 24, 1)) for worker in range(2, 12)]
    assert sizes == [6, 6, 6, 1, 1, 1, 1, 1, 1, 0]


def test_a_worker_at_work_gets_nothing_new_while_what_was_lost_waits() -> None:
    chunks = Chunks(jobs(20))
    assert len(chunks.give(0, 4, 1)) == len(chunks.give(1, 4, 1)) == 4
    chunks.lose(0)
    chunks.done(1, "out/4.png")
    assert chunks.give(1, 4, 1) == []
    for n in (5, 6, 7):
        chunks.done(1, f"out/{n}.png")
    assert [name(job) for job in chunks.give(1, 4, 1)] == ["out/0.png"]


def test_a_job_that_is_lost_alone_too_often_is_given_up() -> None:
    (job,) = jobs(1)
    chunks = Chunks([job])
    for worker in range(MOST_KILLS):
        assert chunks.left
        assert chunks.give(worker, 1, 1) == [job]
        assert chunks.lose(worker) == ([job], [job] if worker == MOST_KILLS - 1 else [])
    assert not chunks.left


@pytest.mark.parametrize(("count", "workers", "first"), [(10, 4, 3), (3, 8, 1), (100, 2, 9)])
def test_one_gets_its_share_only(count: int, workers: int, first: int) -> None:
    assert len(Chunks(jobs(count)).give(0, 9, workers)) == first


@pytest.mark.parametrize("count", [60, 200, 1000, 2048])
def test_jpeg_units_have_batches_ahead_until_the_end_which_comes_to_all_at_once(count: int) -> None:
    """Workers that have 56 pictures in work each, and end a batch of 28 at a time."""
    workers, most, batch = 4, AHEAD * 56, 28
    chunks = Chunks(jobs(count))
    held = {
        worker: [name(job) for job in chunks.give(worker, most, workers)] for worker in range(4)
    }
    even = -(-count // workers)
    assert all(len(some) >= min(even - 1, 4 * batch) for some in held.values())
    rounds = 0
    while chunks.left:
        rounds += 1
        for worker, some in held.items():
            ended, held[worker] = some[:batch], some[batch:]
            for each in ended:
                assert chunks.done(worker, each)
            held[worker] += [name(job) for job in chunks.give(worker, most, workers)]
    assert rounds == -(-even // batch)


def test_what_is_left_goes_to_who_has_least() -> None:
    chunks = Chunks(jobs(40))
    assert len(chunks.give(0, 9, 2)) == len(chunks.give(1, 9, 2)) == 9
    for n in range(8):
        chunks.done(0, f"out/{n}.png")
    assert len(chunks.give(0, 40, 2)) == 15  # 16 of the 32 that are left
    assert len(chunks.give(1, 40, 2)) == 7
    assert chunks.give(0, 40, 2) == []


def test_a_worker_is_kept_busy_while_others_that_are_counted_do_not_come() -> None:
    chunks = Chunks(jobs(100))
    held: list[Job] = []
    most = 0
    while chunks.left:
        held += chunks.give(0, 96, 8)
        most = max(most, len(held))
        for job in held[:4]:
            chunks.done(0, name(job))
        del held[:4]
    assert most > 3 * 100 / 8


def test_a_record_of_a_lost_worker_counts_no_more() -> None:
    chunks = Chunks(jobs(1))
    chunks.give(0, 1, 1)
    chunks.lose(0)
    assert not chunks.done(0, "out/0.png")
