"""The frames of a file: which are taken, and their stages side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

from cudafilter.errors import ImageError
from cudafilter.formats.holds import require_frames
from cudafilter.host.cores import each
from cudafilter.operations.choices import LAST
from cudafilter.stores.buffers import Buffer, Sink

if TYPE_CHECKING:
    from cudafilter.check import Agreement

Taken = TypeVar("Taken")
Made = TypeVar("Made")


def picked(asked: Sequence[range] | None, format: str, count: int, timed: bool) -> Sequence[int]:
    """The numbers of the frames that are taken of a file with *count*, for one of *format*.

    *asked* are those that the user wants, None for all; *timed* tells an animation. Raises
    ImageError where one is not there, and FramesError where the format does not hold so many.
    """
    numbers: Sequence[int] = range(count)
    for part in asked or ():
        if part.start >= count or count < part.stop <= LAST:
            has = f"{count} frames, 0 to {count - 1}" if count > 1 else "one frame, which is 0"
            raise ImageError(f"it has {has}, and {max(count, part.start)} was asked for")
    if asked is not None:
        numbers = list(chain.from_iterable(numbers[part.start : part.stop] for part in asked))
    if len(numbers) > 1:
        require_frames(format, len(numbers), timed)
    return numbers


def side_by_side(
    coming: Iterator[Taken], make: Callable[[Taken], Made], put: Callable[[Made], object]
) -> None:
    """*put* what *make* makes of all that is *coming*, in order.

    While one is put, the next one is made and the next but one taken, each in a thread. So at most
    three are in memory.
    """
    taken: list[Taken] = []
    made: list[Made] = []

    def take() -> list[Any]:
        return list(islice(coming, 1))

    def make_next() -> list[Any]:
        return [make(item) for item in taken]

    def put_last() -> list[Any]:
        return [put(item) for item in made]

    def do(step: Callable[[], list[Any]]) -> list[Any]:
        return step()

    while True:
        taken, made, _ = each(do, (take, make_next, put_last), 3)
        if not taken and not made:
            return


def both(one: Agreement | None, other: Agreement) -> Agreement:
    """What the checks of two frames found together."""
    if one is None:
        return other
    from cudafilter.proof.agreement import joined

    return replace(joined(one, other), of=one.of + other.of)


class Counted:
    """A Sink that counts what goes to *target*."""

    def __init__(self, target: Sink) -> None:
        self._target = target
        self.bytes = 0
        self.error: OSError | None = None
        """What went wrong, which is no fault of the encoder."""
        self.can_patch = target.can_patch

    def write(self, piece: Buffer) -> None:
        """See Sink."""
        self.bytes += len(piece)
        try:
            self._target.write(piece)
        except OSError as error:
            self.error = error
            raise

    def patch(self, at: int, piece: bytes) -> None:
        """See Sink."""
        self._target.patch(at, piece)
