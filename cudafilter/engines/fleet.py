"""Several engines as one: each call goes to the least busy, and those that fail are left out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from cudafilter.engines.codecs import FileJob, FileResult, JpegPath, PngCodec
from cudafilter.engines.resident import Resident, resident_of
from cudafilter.errors import EngineError, EngineUnavailable, LimitError
from cudafilter.formats.png_path import Deflated, PngPath, Unfiltered
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Buffer

if TYPE_CHECKING:
    from cudafilter.engines import Engine, Result, Screening

T = TypeVar("T")
P = TypeVar("P", Deflated, Unfiltered)

BUSY = 0.7
"""Another device is opened where kernels run for more than this share of the time on each. Mostly
codecs and files take the time: a folder of 256 JPEGs took 18 % longer with two H100s from the
start than with one."""

WINDOW = 1.0
"""Seconds over which BUSY is measured."""


@dataclass(eq=False)
class _Member:
    """An engine of the fleet. Changed only under the fleet's lock."""

    engine: Engine
    busy: int = 0
    """Calls that it works on."""
    failed: bool = False
    """It is left out, unless all others fail."""

    @property
    def load(self) -> float:
        return self.busy / max(1, self.engine.parallel)


class Fleet:
    """One engine made of *engines*, of any number; made for the GPUs of a host.

    A call on which an engine fails (EngineError, but no LimitError) is made again on the others.
    Once one of them succeeds, those that failed are left out from then on, which Result.notes
    tells: they are asked again only for what fails on all the others. If all fail, it may be the
    image's fault: the first error is raised and nobody is left out. The bits are the same whichever
    engine does the work.

    *more* opens further engines, by their names. The next one is opened beside the work once those
    that there are have been BUSY for a WINDOW, or at once where all of them fail. Those that do not
    open (EngineUnavailable) are told by Result.notes.

    *title* is for people, all engines' own unless given; *note* is Engine.note.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        title: str | None = None,
        note: str | None = None,
        more: Mapping[str, Callable[[], Engine]] | None = None,
    ) -> None:
        if not engines:
            raise ValueError("a fleet needs an engine")
        self._members = [_Member(engine) for engine in engines]
        self._more = deque((more or {}).items())
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        """Held while an engine opens; taken before _lock."""
        self._opener: threading.Thread | None = None
        self._refusals: list[str] = []
        """Reasons of engines that did not open, until they are told."""
        self._since, self._worked = perf_counter(), 0.0
        """When the WINDOW began, and seconds of kernels since."""
        self.name = engines[0].name
        self.title = title or " + ".join(engine.title for engine in engines)
        self.note = note
        self.parallel = sum(engine.parallel for engine in engines)
        paths = [engine.jpeg.parallel for engine in engines if engine.jpeg is not None]
        self.jpeg: JpegPath | None = _FleetJpeg(self, sum(paths)) if paths else None
        able = any(map(_has_png, engines))
        self.png: PngCodec | None = _FleetPng(self) if able else None

    def run(
        self,
        pixels: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
        *,
        overwrite: bool = False,
        rows: tuple[int, int] | None = None,
    ) -> Result:
        """See Engine.run. *overwrite* is not passed on: another engine may need the pixels."""

        def work(engine: Engine) -> Result:
            return engine.run(pixels, filter, border, alpha, rows=rows)

        done, notes = self.call(work, _any)
        self.count(done.seconds.get("kernel", 0.0))
        return done._replace(notes=done.notes + notes)

    def screen(
        self,
        source: Pixels,
        result: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
    ) -> Screening:
        """See Engine.screen. Any engine proves what any has made."""

        def work(engine: Engine) -> Screening:
            return engine.screen(source, result, filter, border, alpha)

        done, notes = self.call(work, _any)
        return done._replace(notes=done.notes + notes)

    def resident(self, number: int) -> Resident | None:
        """See resident_of()."""
        found = (resident_of(member.engine, number) for member in self._members)
        return next((each for each in found if each is not None), None)

    def step(
        self, shape: tuple[int, ...], dtype: str, filter: Operation, border: Border, alpha: bool
    ) -> int:
        """See Engine.step."""
        return self._members[0].engine.step(shape, dtype, filter, border, alpha)

    def close(self) -> None:
        """See Engine.close."""
        self._more.clear()
        if self._opener is not None:
            self._opener.join()
        with ExitStack() as each:  # all are closed, whichever fails
            for member in self._members:
                if member.failed:  # as was told then
                    each.enter_context(suppress(EngineError))
                each.callback(member.engine.close)

    def call(
        self, work: Callable[[Engine], T], able: Callable[[Engine], bool]
    ) -> tuple[T, tuple[str, ...]]:
        """The result of *work* on the least busy of the *able* engines, and notes for the user.

        Where it failed on all, the first error is raised.
        """
        failures: dict[_Member, EngineError] = {}
        while member := self._take(failures, able):
            try:
                done = work(member.engine)
            except LimitError:
                raise
            except EngineError as error:
                failures[member] = error
            else:
                return done, self._told(failures)
            finally:
                with self._lock:
                    member.busy -= 1
        raise next(iter(failures.values()))

    def count(self, seconds: float) -> None:
        """Add *seconds* of kernels, and have another engine opened where that is needed."""
        with self._lock:
            self._worked += seconds
            elapsed = perf_counter() - self._since
            if elapsed < WINDOW:
                return
            working = sum(not member.failed for member in self._members)
            busy = self._worked >= BUSY * elapsed * working
            self._since, self._worked = perf_counter(), 0.0
            opening = self._opener is not None and self._opener.is_alive()
            if not busy or not self._more or opening:
                return
            self._opener = threading.Thread(target=self._open_next, name="opener", daemon=True)
            self._opener.start()

    def _take(
        self, failures: Mapping[_Member, EngineError], able: Callable[[Engine], bool]
    ) -> _Member | None:
        """The least busy engine of the *able* that is not among *failures*; of equals the first.

        Engines that were left out come last. Where none remains, the next one is opened."""
        while True:
            with self._lock:
                members = [m for m in self._members if m not in failures and able(m.engine)]
                member = min(members, key=lambda m: (m.failed, m.load), default=None)
                if member is not None:
                    member.busy += 1
                    return member
                known = len(self._members)
            if not self._open_next(known):
                return None

    def _open_next(self, known: int | None = None) -> bool:
        """Open the next engine, unless another thread did: more than *known* are there. True if so.

        Those that do not open are noted, and the one after them is opened.
        """
        with self._opening:
            if known is not None and len(self._members) > known:
                return True
            while self._more:
                name, opener = self._more.popleft()
                try:
                    member = _Member(opener())
                except EngineUnavailable as unavailable:
                    with self._lock:
                        self._refusals.append(f"{name} is left out: {unavailable}")
                else:
                    with self._lock:
                        self._members.append(member)
                    return True
        return False

    def _told(self, failures: Mapping[_Member, EngineError]) -> tuple[str, ...]:
        """Leave *failures* out. Returns notes on these, and on engines that did not open."""
        with self._lock:
            for member in failures:
                member.failed = True
            refusals, self._refusals = self._refusals, []
        return tuple(refusals) + tuple(
            f"{member.engine.title} failed and is left out: {error}"
            for member, error in failures.items()
        )


def _any(engine: Engine) -> bool:
    return True


def _codes(engine: Engine) -> bool:
    return engine.jpeg is not None


def _has_png(engine: Engine) -> bool:
    return engine.png is not None


class _FleetJpeg:
    """Engine.jpeg of a fleet: that of the least busy member that has one."""

    def __init__(self, fleet: Fleet, parallel: int) -> None:
        self._fleet = fleet
        self.parallel = parallel

    def filter(self, job: FileJob) -> FileResult:
        """See JpegPath.filter."""

        def work(engine: Engine) -> FileResult:
            assert engine.jpeg is not None
            return engine.jpeg.filter(job)

        done, notes = self._fleet.call(work, _codes)
        self._fleet.count(done.on_device)
        return replace(done, notes=done.notes + notes)


class _FleetPng:
    """Engine.png of a fleet: that of the least busy member that has one."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def deflate(self, pixels: Pixels) -> Deflated:
        """See PngPath.deflate."""
        return self._call(lambda png: png.deflate(pixels))

    def unfilter(self, raw: Buffer, shape: tuple[int, int, int], itemsize: int) -> Unfiltered:
        """See PngPath.unfilter."""
        return self._call(lambda png: png.unfilter(raw, shape, itemsize))

    def filter(self, job: FileJob) -> FileResult:
        """See PngCodec.filter."""

        def work(engine: Engine) -> FileResult:
            assert engine.png is not None
            return engine.png.filter(job)

        done, notes = self._fleet.call(work, _has_png)
        self._fleet.count(done.on_device)
        return replace(done, notes=done.notes + notes)

    def _call(self, work: Callable[[PngPath], P]) -> P:
        def on(engine: Engine) -> P:
            assert engine.png is not None
            return work(engine.png)

        done, notes = self._fleet.call(on, _has_png)
        self._fleet.count(done.seconds)
        return done._replace(notes=done.notes + notes)
