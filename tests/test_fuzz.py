"""A small share of tools/fuzz.py: damaged and hostile files, and proof that it finds faults."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import fuzz
import fuzz_worker as worker

from cudafilter import images
from cudafilter.errors import ImageError

SHARE = 150
"""Files of each format: every seed and every mutation are among them."""


def outcomes(
    tasks: list[tuple[str, int]],
    prepare: Callable[[], None] | None = None,
    limits: worker.Limits = worker.Limits(),  # noqa: B008 - it cannot be changed
) -> list[worker.Outcome]:
    return list(fuzz.run(tasks, 0, limits, prepare, workers=1))


def kinds(found: list[worker.Outcome]) -> set[str]:
    """The kinds of all findings."""
    return {kind for outcome in found for kind, _ in outcome.findings}


def told(found: list[worker.Outcome]) -> str:
    """The findings, a line each, for who has to mend them."""
    return "\n".join(
        f"--only {outcome.format}:{outcome.number}: {outcome.oracle}, {outcome.mutation}: {finding}"
        for outcome in found
        for finding in outcome.findings
    )


def of_class(format: str, oracle: str, count: int) -> list[tuple[str, int]]:
    """The first *count* files of *format* in the class *oracle*."""
    cases = worker.Cases(0)
    numbers = (n for n in range(2000) if cases.get(format, n).oracle == oracle)
    return [(format, next(numbers)) for _ in range(count)]


@pytest.mark.parametrize("format", worker.FORMATS)
def test_damaged_files_are_refused_in_plain_words_soon_and_in_little_memory(format: str) -> None:
    known = worker.FORMATS[format]
    assert len(known.seeds()) + len(known.mutations) <= SHARE
    found = outcomes([(format, number) for number in range(SHARE)])
    assert len(found) == SHARE
    assert not kinds(found), told(found)
    seeds = [outcome.verdict for outcome in found if outcome.oracle == "seed"]
    assert seeds.count(worker.SAME) > 0.9 * len(seeds), "most valid files must be read"


@pytest.mark.parametrize("format", worker.FORMATS)
def test_a_number_gives_the_same_file_again(format: str) -> None:
    one, other = worker.Cases(3), worker.Cases(3)
    for number in range(0, 400, 11):
        assert one.get(format, number)[:4] == other.get(format, number)[:4]
        assert one.get(format, number).data == other.get(format, number).data


@pytest.mark.parametrize("format", worker.FORMATS)
def test_a_mutation_changes_its_seed(format: str) -> None:
    cases = worker.Cases(0)
    known = {mutation.name: mutation.oracle for mutation in worker.FORMATS[format].mutations}
    first = len(cases.seeds(format))
    made = [cases.get(format, number) for number in range(first, first + len(known))]
    assert {case.mutation: case.oracle for case in made} == known
    assert all(case.data != case.seed.data for case in made)


def _read_as(read: Callable[[bytes], Any]) -> None:
    """Put *read* in place of images.load."""
    images.load = read  # type: ignore[assignment]


def _zeros(data: bytes) -> images.Image:
    return images.Image(np.zeros((48, 64, 1), np.uint8))


def accept_everything() -> None:
    _read_as(_zeros)


def write_to_the_terminal() -> None:
    def read(data: bytes) -> None:
        import os

        os.write(2, b"libfoo: warning")
        raise ImageError("it is damaged")

    _read_as(read)


def raise_a_key_error() -> None:
    nothing: dict[bytes, images.Image] = {}
    _read_as(lambda data: nothing[data])


def speak_foreign_words() -> None:
    def read(data: bytes) -> None:
        try:
            data.index(b"no such bytes")
        except ValueError as error:
            raise ImageError(f"it is damaged: {error}") from error

    _read_as(read)


def sleep() -> None:
    warm = iter([True])  # a child's first file tries no limit

    def read(data: bytes) -> None:
        if not next(warm, False):
            time.sleep(60)
        raise ImageError("it is damaged")

    _read_as(read)


def take_memory() -> None:
    def read(data: bytes) -> None:
        raise ImageError(f"it is damaged, as are {len(b'x' * (60 << 20))} bytes")

    _read_as(read)


def die() -> None:
    warm = iter([True])  # a child's first file tries no limit

    def read(data: bytes) -> None:
        if not next(warm, False):
            import os

            os.abort()

    _read_as(read)


FAULTS = [
    (accept_everything, "refuse", worker.ACCEPTED),
    (accept_everything, "seed", worker.WRONG),
    (write_to_the_terminal, "any", worker.TERMINAL),
    (raise_a_key_error, "any", worker.FOREIGN),
    (speak_foreign_words, "refuse", worker.WORDS),
    (sleep, "any", worker.TIME),
    (take_memory, "any", worker.MEMORY),
    (die, "any", worker.CRASH),
]


@pytest.mark.parametrize(
    ("prepare", "oracle", "kind"), FAULTS, ids=[f"{f.__name__}-{kind}" for f, _, kind in FAULTS]
)
def test_the_fuzzer_finds_a_reader_that(
    prepare: Callable[[], None], oracle: str, kind: str
) -> None:
    limits = worker.Limits()
    if kind == worker.TIME:
        limits = limits._replace(seconds=0.2)
    elif kind == worker.MEMORY:
        limits = limits._replace(bytes=50 << 20)
    assert kinds(outcomes(of_class("png", oracle, 1), prepare, limits)) == {kind}


def test_its_words_are_foreign_and_those_of_the_program_are_not() -> None:
    def found(message: str) -> Iterator[str]:
        return (kind for kind, _ in worker._told(ImageError(message)))

    for message in (
        "input: cannot be decoded: image file is truncated (3 bytes not processed)",
        "input: cannot be decoded: list index out of range",
        "input: cannot be decoded: OpenCV(5.0.0) /io/opencv/grfmt_tiff.cpp:433: error",
        "input: cannot be decoded: AssertionError",
        "input: cannot be decoded: ",
    ):
        assert list(found(message)) == [worker.WORDS], message
    for message in (
        "input: it is damaged: chunk IDAT fails its checksum",
        "input: 9 x 9 are 81 pixels, more than the 8 that are read of a file of 70 bytes",
        "input: it holds 2 frames, of which only one could be written",
    ):
        assert not list(found(message)), message
