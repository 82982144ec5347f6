"""Several engines as one: each call goes to the least busy, and those that fail are left out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from cudafilter.borders import Border
from cudafilter.engines.nvcodec import JpegPath, JpegResult
from cudafilter.errors import EngineError, LimitError
from cudafilter.filter import Filter
from cudafilter.pixels import Pixels

if TYPE_CHECKING:
    from cudafilter.engines import Engine

T = TypeVar("T")


@dataclass(eq=False)
class _Member:
    """An engine of the fleet. Changed under the fleet's lock alone."""

    engine: Engine
    busy: int = 0
    """Calls that it is at work on."""
    failed: bool = False
    """It is left out, unless all others fail."""

    @property
    def load(self) -> float:
        return self.busy / max(1, self.engine.parallel)


class Fleet:
    """One engine made of *engines*, of any number; made for the GPUs of a host.

    A call on which an engine fails (EngineError, but no LimitError) is made again on the others.
    Once one of them succeeds, those that failed are left out from then on, which last_notes()
    tells: they are asked again only for what fails on all the others. If all fail, it may be the
    image's fault: the first error is raised and nobody is left out. The bits are the same whichever
    engine does the work.

    *title* is for people, all engines' own unless given; *note* is Engine.note.
    """

    def __init__(
        self, engines: Sequence[Engine], title: str | None = None, note: str | None = None
    ) -> None:
        if not engines:
            raise ValueError("a fleet needs an engine")
        self._members = [_Member(engine) for engine in engines]
        self._lock = threading.Lock()
        self._local = threading.local()
        self.name = engines[0].name
        self.title = title or " + ".join(engine.title for engine in engines)
        self.note = note
        self.parallel = sum(engine.parallel for engine in engines)
        able = [member for member in self._members if member.engine.jpeg is not None]
        self.jpeg: JpegPath | None = _FleetJpeg(self, able) if able else None

    def run(
        self, pixels: Pixels, filter: Filter, border: Border = Border(), alpha: bool = False
    ) -> Pixels:
        """See Engine.run."""

        def work(engine: Engine) -> Pixels:
            self._local.engine = engine
            return engine.run(pixels, filter, border, alpha)

        out, notes = self.call(work, self._members)
        self._local.notes = notes
        return out

    def last_timings(self) -> dict[str, float]:
        """See Engine.last_timings."""
        engine: Engine | None = getattr(self._local, "engine", None)
        return {} if engine is None else engine.last_timings()

    def last_notes(self) -> tuple[str, ...]:
        """See Engine.last_notes."""
        notes: tuple[str, ...] = getattr(self._local, "notes", ())
        return notes

    def close(self) -> None:
        """See Engine.close."""
        with ExitStack() as each:  # all are closed, whichever fails
            for member in self._members:
                if member.failed:  # as was told then
                    each.enter_context(suppress(EngineError))
                each.callback(member.engine.close)

    def call(
        self, work: Callable[[Engine], T], members: Sequence[_Member]
    ) -> tuple[T, tuple[str, ...]]:
        """What *work* gives on the least busy of *members*, and what the user should know.

        Raises what *work* raised first, where it failed on all.
        """
        failures: dict[_Member, EngineError] = {}
        while member := self._take([m for m in members if m not in failures]):
            try:
                done = work(member.engine)
            except LimitError:
                raise
            except EngineError as error:
                failures[member] = error
            else:
                return done, self._leave_out(failures)
            finally:
                with self._lock:
                    member.busy -= 1
        raise next(iter(failures.values()))

    def _take(self, members: Sequence[_Member]) -> _Member | None:
        """The least busy of *members*, the first of equals; those left out come last."""
        with self._lock:
            member = min(members, key=lambda m: (m.failed, m.load), default=None)
            if member is not None:
                member.busy += 1
            return member

    def _leave_out(self, failures: Mapping[_Member, EngineError]) -> tuple[str, ...]:
        with self._lock:
            for member in failures:
                member.failed = True
        return tuple(
            f"{member.engine.title} failed and is left out: {error}"
            for member, error in failures.items()
        )


class _FleetJpeg:
    """Engine.jpeg of a fleet: that of the least busy member that has one."""

    def __init__(self, fleet: Fleet, members: Sequence[_Member]) -> None:
        self._fleet, self._members = fleet, members
        paths = [member.engine.jpeg for member in members]
        self.parallel = sum(path.parallel for path in paths if path is not None)

    def filter(
        self, data: bytes, filter: Filter, border: Border, *, gray: bool, quality: int | None
    ) -> JpegResult:
        """See JpegPath.filter."""

        def work(engine: Engine) -> JpegResult:
            assert engine.jpeg is not None
            return engine.jpeg.filter(data, filter, border, gray=gray, quality=quality)

        done, notes = self._fleet.call(work, self._members)
        return replace(done, notes=done.notes + notes)
