"""Many images on the nodes of a cluster: one worker for each GPU, or for some cores.

The plan, the records and the report stay here. A worker has few jobs at a time and tells their
records as they end. The jobs of a worker that is lost are run again; see chunks.py.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from cudafilter.errors import CudafilterError, EngineError, EngineUnavailable, ParameterError
from cudafilter.jobs import look
from cudafilter.jobs.chunks import MOST_KILLS, Chunks
from cudafilter.jobs.hand import Opened, Task
from cudafilter.jobs.job import Job
from cudafilter.jobs.look import Seen, Sought
from cudafilter.jobs.nodes import Call, Cluster, Lost, Node, Place, Worker, differences, places
from cudafilter.jobs.record import Record
from cudafilter.stores import leftovers
from cudafilter.stores.local import is_stream
from cudafilter.stores.url import Url

AHEAD = 6
"""Jobs of a worker, for each that it has in work: so it need not wait for the next ones, and tells
several records at a time."""

MOST_STARTS = 3
"""Workers that may be lost at one place before they are ready; then the place is left out."""

_MOST_SOURCES = 64
"""Sources that each node looks for, each from another folder."""

_LOOK = 60.0
"""Seconds in which a node says what it has. It may have to install a runtime environment."""

_COUNT = 2.0
"""Seconds after which the nodes are counted again."""

_WAIT = 60.0
"""Seconds in which a worker must be there; then people are told what the job waits for."""

_HEAD = 15.0
"""Seconds without an answer after which the head is lost. After 60 Ray ends the process."""

_AGAIN = "once the cluster is whole, --existing skip does what is missing"

_STOP = 10.0
"""Seconds that an interruption waits for the images being written."""

VARIABLES = ("CUDAFILTER_", "OPENCV_", "OPENBLAS_NUM", "CUDA_DEVICE_MAX")
"""What names of variables begin with that this package and its libraries read."""


def require_files(jobs: Sequence[Job]) -> None:
    """Raise ParameterError ("cluster") where one of *jobs* is of what only this process has."""
    for job in jobs:
        for path in (job.source, job.destination):
            if isinstance(path, Url):
                if path.scheme == "memory":
                    raise ParameterError("cluster", f"{path} is in this process's memory only")
            elif path is None or is_stream(path):
                name = "'-'" if path is None else path
                raise ParameterError(
                    "cluster", f"{name} is a stream of this machine, which no worker sees"
                )


def task_environment() -> dict[str, str]:
    """The variables that workers are to have as this process has them."""
    return {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}


@dataclass
class _Member:
    """A worker, and what is known of it."""

    place: Place
    worker: Worker
    call: Call | None
    """What it is doing; None where it has nothing to do."""
    opened: Opened | None = None


class Run:
    """*jobs* on *cluster*, done as *task* says; *on_record* takes each record, *note* what people
    should know.

    Raises ParameterError ("cluster") where nodes do not see the files as this machine does, and
    EngineUnavailable where they have other versions, or nothing that the engine of *task* needs.
    """

    def __init__(
        self,
        cluster: Cluster,
        jobs: Sequence[Job],
        task: Task,
        on_record: Callable[[Record], None],
        note: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._on_record, self._note = on_record, note
        self._gpus = task.engine == "cuda"
        self._chunks = Chunks(jobs)
        self._members: dict[int, _Member] = {}
        self._numbers = count()
        self._asked: dict[Node, Call] = {}
        self._fits: dict[Node, bool] = {}
        """Whether a node has what is needed."""
        self._starts: Counter[Place] = Counter()
        """Workers that were lost at a place before they were ready."""
        self._refused: dict[Place, Opened] = {}
        """Places where the engine could not be opened."""
        self._left: set[tuple[str, str]] = set()
        """Folders and marks of temporaries that lost workers may have left."""
        self._counted = self._answered = self._idle_since = time.monotonic()
        self._told_idle = False
        self._jobs = jobs
        self._mine = look.versions(cluster.packages)
        self._task = task
        self._sought = Sought(cluster.packages, (), None)
        self._nodes = cluster.nodes()

    def prepare(self) -> str:
        """Ask all nodes whether they fit. Returns in words where the images will be done."""
        found = places(self._nodes, self._gpus)
        kind = "cuda" if self._gpus else "cpu"
        if not found:
            what = "GPU" if self._gpus else "core"
            raise EngineUnavailable(f"the cluster has no {what} to give")
        with self._probe() as sought:
            self._sought = sought
            needed = {place.node for place in found}
            self._ask(needed)
            ends = time.monotonic() + _LOOK
            while self._asked and (left := ends - time.monotonic()) > 0:
                for call in self._cluster.wait(list(self._asked.values()), left):
                    self._see(call, strict=True)
        for node in self._asked:
            raise EngineUnavailable(f"the node {node.name} did not answer in {_LOOK:.0f} s")
        # Later nodes look for the sources only: the probe is gone.
        self._sought = sought._replace(files=sought.files[sought.folder is not None :])
        nodes, cores = len(needed), sum(place.cores for place in found)
        unit = f"{len(found)} GPU" if self._gpus else f"{cores} core"
        workers = "" if self._gpus else f", {_many(len(found), 'worker')}"
        return f"{kind}: {_many(nodes, 'node')}{workers}, {unit}{'s' * (not unit.startswith('1 '))}"

    def work(self) -> None:
        """Do all jobs. KeyboardInterrupt lets images being written be finished first."""
        try:
            while self._chunks.left:
                self._staff()
                for call in self._cluster.wait(self._calls(), 1.0):
                    self._take(call)
        except BaseException:
            self._stop()
            raise
        finally:
            for number in list(self._members):
                self._drop(number)
            for folder, mark in self._left:
                leftovers.remove(folder, mark)

    def _calls(self) -> list[Call]:
        calls = [member.call for member in self._members.values() if member.call is not None]
        return [*calls, *self._asked.values()]

    def _staff(self) -> None:
        """Have a worker at each place that has none, and jobs at each worker."""
        now = time.monotonic()
        if now - self._counted > _COUNT:
            self._require_head(now)
            self._counted = now
            self._ask({node for node in self._nodes if node not in self._fits})
        taken = {member.place for member in self._members.values()}
        usable = [
            place
            for place in places(self._nodes, self._gpus)
            if self._fits.get(place.node)
            and place not in self._refused
            and self._starts[place] < MOST_STARTS
        ]
        for place in usable:
            if place not in taken and self._chunks.waiting and len(self._members) < len(self._jobs):
                worker = self._cluster.start(place, self._task)
                self._members[next(self._numbers)] = _Member(place, worker, worker.open())
        for number, member in self._members.items():
            if member.call is None:
                self._feed(number, member)
        self._require_workers(usable, now)

    def _require_head(self, now: float) -> None:
        """Count the nodes. Raises EngineError where the head, or the node here, is lost."""
        if self._cluster.answers():
            self._answered, self._nodes = now, self._cluster.nodes()
            if all(node.key != self._cluster.here for node in self._nodes):
                raise EngineError("this machine is a node of the cluster no more", hint=_AGAIN)
        elif now - self._answered > _HEAD:
            raise EngineError("the head of the cluster does not answer any more", hint=_AGAIN)

    def _require_workers(self, usable: list[Place], now: float) -> None:
        """Tell what the job waits for. Raises EngineError where nothing can come any more."""
        if any(member.opened for member in self._members.values()):
            self._idle_since = now
            return
        if not usable and not self._asked and not self._members:
            if self._refused:
                told = next(iter(self._refused.values()))
                raise EngineUnavailable(str(told.error), hint=told.hint)
            if now - self._idle_since > _WAIT or self._starts:
                raise EngineError("no node of the cluster is left that can do the images")
        if now - self._idle_since > _WAIT and not self._told_idle:
            self._told_idle = True
            self._note("the job waits for cores or GPUs of the cluster, which others use")

    def _ask(self, nodes: set[Node]) -> None:
        for node in nodes - self._asked.keys():
            self._asked[node] = self._cluster.ask(node, self._sought)

    def _take(self, call: Call) -> None:
        """Take what *call* returned, and have its worker go on."""
        if call in self._asked.values():
            self._see(call, strict=False)
            return
        number, member = next(each for each in self._members.items() if each[1].call is call)
        try:
            told = self._cluster.result(call)
        except Lost:
            self._lose(number)
            return
        if member.opened is None:
            if told.error is not None:
                self._refuse(number, told)
                return
            member.opened = told
            self._starts[member.place] = 0
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

    def _see(self, call: Call, strict: bool) -> None:
        """Take what a node has. One that does not fit is refused, or left out unless *strict*."""
        node = next(node for node, asked in self._asked.items() if asked is call)
        del self._asked[node]
        try:
            self._require_fit(node, Seen(*self._cluster.result(call)))
        except (CudafilterError, Lost) as error:
            if strict and isinstance(error, CudafilterError):
                raise
            self._fits[node] = False
            why = "it cannot run anything" if isinstance(error, Lost) else error
            self._note(f"the node {node.name} is left out: {why}")
        else:
            self._fits[node] = True

    def _require_fit(self, node: Node, seen: Seen) -> None:
        if told := differences(self._mine, seen.versions):
            raise EngineUnavailable(
                f"the node {node.name} has {told}", hint="install the same versions on all nodes"
            )
        if seen.hidden is not None:
            raise ParameterError(
                "cluster",
                f"the node {node.name} does not see {seen.hidden}, or another file there",
                hint="put SRC and DEST where all nodes have them under the same path",
            )
        if seen.unwritable:
            raise ParameterError(
                "cluster", f"the node {node.name} may not write to {self._sought.folder}"
            )

    @contextmanager
    def _probe(self) -> Iterator[Sought]:
        """What nodes look for while inside: a file where the outputs go, and some sources."""
        sources: dict[Path, Path] = {}
        for job in self._jobs:
            if isinstance(job.source, Path) and len(sources) < _MOST_SOURCES:
                sources.setdefault(job.source.parent, job.source)
        outputs = [job.destination for job in self._jobs if isinstance(job.destination, Path)]
        if not outputs:  # they go to a store
            yield Sought(self._cluster.packages, _told(sources.values()), None)
            return
        folder = _nearest(outputs)
        probe = os.path.join(folder, leftovers.temporary_name())
        try:
            try:
                with open(probe, "xb") as file:
                    file.write(os.urandom(16))
            except OSError as error:
                raise ParameterError("cluster", f"{folder}: {error.strerror}") from None
            files = _told((Path(probe), *sources.values()))
            yield Sought(self._cluster.packages, files, folder)
        finally:
            with suppress(OSError):
                os.unlink(probe)

    def _refuse(self, number: int, told: Opened) -> None:
        """Leave out the place of a worker whose engine could not be opened."""
        place = self._members[number].place
        self._refused[place] = told
        self._drop(number)
        self._note(f"a worker on {place.node.name} is left out: {told.error}")

    def _lose(self, number: int) -> None:
        """Have the jobs of a lost worker run again, or tell that they cannot be done."""
        member = self._members.pop(number)
        member.worker.end()  # it may only have failed at a call
        if member.opened is None:
            self._starts[member.place] += 1
        had, given_up = self._chunks.lose(number)
        if member.opened is not None:
            for job in had:
                self._sweep(job, member.opened.mark)
        self._counted = 0.0  # its node may be gone, too
        again = len(had) - len(given_up)
        what = f"; {_many(again, 'image')} begun again" if again else ""
        self._note(f"a worker on {member.place.node.name} was lost{what}")
        for job in given_up:
            record = Record(str(job.source), str(job.destination))
            record.error = f"{MOST_KILLS} workers were lost while they did it"
            record.hint = "try it without --cluster"
            self._on_record(record)

    def _sweep(self, job: Job, mark: str) -> None:
        """Remove what a lost worker left of *job*, now and at the end: it may not be gone yet."""
        if not isinstance(job.destination, Path):
            return  # a put that is cut off leaves no object
        folder = os.path.dirname(os.path.realpath(job.destination))
        self._left.add((folder, mark))
        leftovers.remove(folder, mark)

    def _stop(self) -> None:
        """Let workers finish what they write, take the records of that, and drop the rest."""
        waiting: dict[Any, int] = {}
        for number, member in self._members.items():
            if member.opened is not None:
                waiting[member.worker.stop()] = number
                if member.call is not None:
                    waiting[member.call] = number
        ends = time.monotonic() + _STOP
        while waiting and (left := ends - time.monotonic()) > 0:
            for call in self._cluster.wait(list(waiting), left):
                number = waiting.pop(call)
                with suppress(Lost):
                    self._tell(number, self._cluster.result(call))
        for number, member in self._members.items():
            had, _ = self._chunks.lose(number)
            for job in had:
                if member.opened is not None:
                    self._sweep(job, member.opened.mark)

    def _drop(self, number: int) -> None:
        self._members.pop(number).worker.end()


def _told(paths: Iterable[Path]) -> tuple[tuple[str, int, int], ...]:
    """What tells the files *paths*; see Sought.files. What is not there its record will tell."""
    files = []
    for path in paths:
        with suppress(OSError):
            status = os.stat(path)
            files.append((os.path.abspath(path), status.st_size, status.st_mtime_ns))
    return tuple(files)


def _nearest(paths: Sequence[Path]) -> str:
    """The folder that *paths* have in common, or the nearest above it that is there."""
    folder = os.path.commonpath([os.path.abspath(path.parent) for path in paths])
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
