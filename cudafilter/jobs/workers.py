"""Many images by several workers, each a process of its own, some of which may be lost.

The plan, the records and the report stay here. A worker has few jobs at a time and tells their
records as they end. The jobs of a worker that is lost are run again; see chunks.py. What starts
workers and carries calls is a Carrier: Ray's cluster, or processes of this machine.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple, Protocol

from cudafilter.errors import EngineError, EngineUnavailable, ParameterError
from cudafilter.jobs.chunks import MOST_KILLS, Chunks
from cudafilter.jobs.hand import Opened, Task
from cudafilter.jobs.job import Job
from cudafilter.jobs.record import Record
from cudafilter.stores import leftovers
from cudafilter.stores.local import is_stream
from cudafilter.stores.url import Url

AHEAD = 6
"""Jobs of a worker, for each that it has in work: so it need not wait for the next ones, and tells
several records at a time."""

MOST_STARTS = 3
"""Workers that may be lost at one place before they are ready; then the place is left out."""

WAIT = 0.2
"""Seconds after which it is looked whether the run is interrupted, and places have come."""

STOP = 10.0
"""Seconds that an interruption waits for the images being written."""


class Lost(Exception):
    """A worker has ended, or cannot be reached any more."""


class Node(NamedTuple):
    """A machine with workers, or a part of this one."""

    key: str
    name: str
    cores: int
    gpus: int


class Place(NamedTuple):
    """Where one worker is to run."""

    node: Node
    number: int
    """Of those on the node."""
    beside: int
    """How many share the memory of its machine."""
    cores: int
    """What it may use; 0 where the node has none to give."""
    gpu: bool
    device: int | None = None
    """The number of its GPU; None where it sees no other."""


class Call(NamedTuple):
    """A call of a worker that is under way. The carrier's own reference to what it will return."""

    reference: Any


class Worker(Protocol):
    """A Hand in a process of its own. Each call returns at once."""

    def open(self) -> Call:
        """See Hand.open."""
        ...

    def step(self, jobs: list[Job]) -> Call:
        """See Hand.step."""
        ...

    def stop(self) -> Call:
        """See Hand.stop."""
        ...

    def end(self) -> None:
        """End its process at once."""
        ...


class Carrier(Protocol):
    """What starts workers and carries calls to them."""

    def start(self, place: Place, task: Task) -> Worker:
        """Begin to start a worker at *place*."""
        ...

    def wait(self, calls: Sequence[Call], seconds: float) -> list[Call]:
        """Those of *calls* that have ended, one at least unless the *seconds* are over."""
        ...

    def result(self, call: Call) -> Any:
        """What *call* returned. Raises Lost where it ended its worker, or failed there."""
        ...


def require_files(jobs: Sequence[Job], option: str) -> None:
    """Raise ParameterError (*option*) where one of *jobs* is of what only this process has."""
    for job in jobs:
        for path in (job.source, job.destination):
            if isinstance(path, Url):
                if path.scheme == "memory":
                    raise ParameterError(option, f"{path} is in this process's memory only")
            elif path is None or is_stream(path):
                name = "'-'" if path is None else path
                raise ParameterError(
                    option, f"{name} is a stream of this machine, which no worker sees"
                )


@dataclass
class _Member:
    """A worker, and what is known of it."""

    place: Place
    worker: Worker
    call: Call | None
    """What it is doing; None where it has nothing to do."""
    opened: Opened | None = None


class Run:
    """*jobs* at *places*, done as *task* says; *on_record* takes each record, *note* what people
    should know. Both are called from a thread of its own."""

    none_left = "no worker is left that can do the images"
    """What is told where all places are left out."""
    otherwise = "try it with --processes 1"
    """What is told of an image that workers were lost with."""

    def __init__(
        self,
        carrier: Carrier,
        places: Sequence[Place],
        jobs: Sequence[Job],
        task: Task,
        on_record: Callable[[Record], None],
        note: Callable[[str], None],
    ) -> None:
        self._carrier, self._places = carrier, places
        self._on_record, self._note = on_record, note
        self._on_open: Callable[[Opened], None] | None = None
        self._jobs, self._task = jobs, task
        self._chunks = Chunks(jobs)
        self._members: dict[int, _Member] = {}
        self._numbers = count()
        self._starts: Counter[Place] = Counter()
        """Workers that were lost at a place before they were ready."""
        self._refused: dict[Place, Opened] = {}
        """Places where the engine could not be opened."""
        self._untold: list[str] = []
        """Notes on these, until another place's has: else the error tells it."""
        self._left: set[tuple[str, str]] = set()
        """Folders and marks of temporaries that lost workers may have left."""
        self._stopping, self._ended = Event(), Event()
        self._error: BaseException | None = None

    def work(self, on_open: Callable[[Opened], None] = lambda opened: None) -> None:
        """Do all jobs. *on_open* is told of the first worker that is ready, before any record.

        KeyboardInterrupt lets images being written be finished first. Raises EngineUnavailable
        where the engine opens nowhere, EngineError where no worker is left.
        """
        self._on_open = on_open
        # Not in this thread, which an interruption would take away from a record.
        Thread(target=self._serve, name="workers", daemon=True).start()
        try:
            self._ended.wait()  # not join(), which takes an interruption for the end
        except KeyboardInterrupt:
            self._stopping.set()
            for _ in range(2):  # a second Ctrl-C must cut no write short either; a third one may
                with suppress(KeyboardInterrupt):
                    self._ended.wait()
                    break
            raise
        if self._error is not None:
            raise self._error

    @property
    def begun(self) -> bool:
        """Whether a worker has been ready."""
        return self._on_open is None

    def _serve(self) -> None:
        try:
            self._do_all()
        except BaseException as error:  # noqa: BLE001 - raised by work()
            self._error = error
        self._ended.set()

    def _do_all(self) -> None:
        try:
            while self._chunks.left and not self._stopping.is_set():
                self._staff()
                for call in self._carrier.wait(self._calls(), WAIT):
                    self._take(call)
            self._tell_refused()
            if self._chunks.left:
                self._stop()
        except BaseException:
            self._stop()
            raise
        finally:
            for number in list(self._members):
                self._drop(number)
            for folder, mark in self._left:
                leftovers.remove(folder, mark)

    def _calls(self) -> list[Call]:
        """What is waited for."""
        return [member.call for member in self._members.values() if member.call is not None]

    def _known_places(self) -> Sequence[Place]:
        """Where workers may be by now."""
        return self._places

    @property
    def _may_come(self) -> bool:
        """Whether further places are looked at."""
        return False

    def _staff(self) -> None:
        """Have a worker at each place that has none, and jobs at each worker."""
        taken = {member.place for member in self._members.values()}
        usable = [
            place
            for place in self._known_places()
            if place not in self._refused and self._starts[place] < MOST_STARTS
        ]
        for place in usable:
            if place not in taken and self._chunks.waiting and len(self._members) < len(self._jobs):
                worker = self._carrier.start(place, self._task)
                self._members[next(self._numbers)] = _Member(place, worker, worker.open())
        for number, member in self._members.items():
            if member.call is None:
                self._feed(number, member)
        self._require_workers(usable)

    def _require_workers(self, usable: Sequence[Place]) -> None:
        """Raise EngineUnavailable or EngineError where nothing can come any more."""
        if any(member.opened for member in self._members.values()):
            self._tell_refused()
        elif not usable and not self._members and not self._may_come:
            if self._refused:
                told = self._refused[min(self._refused, key=lambda place: place.number)]
                raise EngineUnavailable(str(told.error), hint=told.hint)
            if self._is_hopeless:
                raise EngineError(self.none_left)

    @property
    def _is_hopeless(self) -> bool:
        """Whether no place is to be expected any more, where none is left."""
        return True

    def _take(self, call: Call) -> None:
        """Take what *call* returned, and have its worker go on."""
        number, member = next(each for each in self._members.items() if each[1].call is call)
        try:
            told = self._carrier.result(call)
        except Lost:
            self._lose(number)
            return
        if member.opened is None:
            if told.error is not None:
                self._refuse(number, told)
                return
            member.opened = told
            self._starts[member.place] = 0
            if self._on_open is not None:
                self._on_open(told)
                self._on_open = None
        else:
            self._tell(number, told)
        self._feed(number, member)

    def _tell(self, number: int, records: list[Record]) -> None:
        for record in records:
            if self._chunks.done(number, record.destination):
                self._on_record(record)

    def _feed(self, number: int, member: _Member) -> None:
        """Give a worker what it may have, and have it go on."""
        assert member.opened is not None
        ready = sum(1 for each in self._members.values() if each.opened)
        most = AHEAD * member.opened.parallel
        jobs = self._chunks.give(number, most, max(ready, len(self._members)))
        busy = bool(jobs) or self._chunks.held(number)
        member.call = member.worker.step(jobs) if busy else None

    def _refuse(self, number: int, told: Opened) -> None:
        """Leave out the place of a worker whose engine could not be opened."""
        place = self._members[number].place
        self._refused[place] = told
        self._drop(number)
        self._untold.append(f"a worker on {place.node.name} is left out: {told.error}")

    def _tell_refused(self) -> None:
        untold, self._untold = self._untold, []
        for text in untold:
            self._note(text)

    def _lose(self, number: int) -> None:
        """Have the jobs of a lost worker run again, or tell that they cannot be done."""
        member = self._members[number]
        if member.opened is None:
            self._starts[member.place] += 1
        had, given_up = self._drop(number)  # it may only have failed at a call
        again = len(had) - len(given_up)
        what = f"; {many(again, 'image')} begun again" if again else ""
        self._note(f"a worker on {member.place.node.name} was lost{what}")
        for job in given_up:
            record = Record(str(job.source), str(job.destination))
            record.error = f"{MOST_KILLS} workers were lost while they did it"
            record.hint = self.otherwise
            self._on_record(record)

    def _sweep(self, job: Job, mark: str) -> None:
        """Remove what a lost worker left of *job*, now and at the end: it may not be gone yet."""
        if not isinstance(job.destination, Path):
            return  # a put that is cut off leaves no object
        folder = os.path.dirname(os.path.realpath(job.destination))
        self._left.add((folder, mark))
        leftovers.remove(folder, mark)

    def _stop(self) -> None:
        """Let workers finish what they write, and take the records of that."""
        waiting: dict[Any, int] = {}
        for number, member in self._members.items():
            if member.opened is not None:
                waiting[member.worker.stop()] = number
                if member.call is not None:
                    waiting[member.call] = number
        ends = time.monotonic() + STOP
        while waiting and (left := ends - time.monotonic()) > 0:
            for call in self._carrier.wait(list(waiting), left):
                number = waiting.pop(call)
                with suppress(Lost):
                    self._tell(number, self._carrier.result(call))

    def _drop(self, number: int) -> tuple[list[Job], list[Job]]:
        """End a worker. Returns what it had, and which of that is given up; nothing of it stays."""
        member = self._members.pop(number)
        member.worker.end()
        had, given_up = self._chunks.lose(number)
        if member.opened is not None:
            for job in had:
                self._sweep(job, member.opened.mark)
        return had, given_up


def many(number: int, what: str) -> str:
    """So many of *what*, in words."""
    return f"{number} {what}{'s' * (number != 1)}"
