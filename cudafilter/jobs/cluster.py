"""Many images on the nodes of a cluster: one worker for each GPU, or for some cores.

A node takes part where it has the versions and the files of this machine. Nodes come and go.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from cudafilter.errors import CudafilterError, EngineError, EngineUnavailable, ParameterError
from cudafilter.jobs import look, workers
from cudafilter.jobs.hand import Task
from cudafilter.jobs.job import Job
from cudafilter.jobs.look import Seen, Sought
from cudafilter.jobs.nodes import differences, places
from cudafilter.jobs.record import Record
from cudafilter.jobs.workers import Call, Carrier, Lost, Node, Place, many
from cudafilter.stores import leftovers

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

VARIABLES = ("CUDAFILTER_", "OPENCV_", "OPENBLAS_NUM", "CUDA_DEVICE_MAX")
"""What names of variables begin with that this package and its libraries read."""


class Nodes(Carrier, Protocol):
    """A cluster whose nodes are other machines, which can be asked what they have."""

    packages: tuple[str, ...]
    """Those whose versions must be the same."""
    here: str
    """The key of the node that this process is on."""

    def nodes(self) -> list[Node]:
        """The nodes that are there now."""
        ...

    def answers(self) -> bool:
        """Whether the head of the cluster answers."""
        ...

    def ask(self, node: Node, sought: Sought) -> Call:
        """Ask what *node* has of what is *sought*: a call that returns the fields of a Seen."""
        ...


def task_environment() -> dict[str, str]:
    """The variables that workers are to have as this process has them."""
    return {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}


class Run(workers.Run):
    """*jobs* on *cluster*, done as *task* says; *on_record* takes each record, *note* what people
    should know.

    Raises ParameterError ("cluster") where nodes do not see the files as this machine does, and
    EngineUnavailable where they have other versions, or nothing that the engine of *task* needs.
    """

    none_left = "no node of the cluster is left that can do the images"
    otherwise = "try it without --cluster"

    def __init__(
        self,
        cluster: Nodes,
        jobs: Sequence[Job],
        task: Task,
        on_record: Callable[[Record], None],
        note: Callable[[str], None],
    ) -> None:
        super().__init__(cluster, (), jobs, task, on_record, note)
        self._cluster = cluster
        self._gpus = task.engine == "cuda"
        self._asked: dict[Node, Call] = {}
        self._fits: dict[Node, bool] = {}
        """Whether a node has what is needed."""
        self._counted = self._answered = self._idle_since = time.monotonic()
        self._told_idle = False
        self._mine = look.versions(cluster.packages)
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
        workers = "" if self._gpus else f", {many(len(found), 'worker')}"
        return f"{kind}: {many(nodes, 'node')}{workers}, {unit}{'s' * (not unit.startswith('1 '))}"

    def _calls(self) -> list[Call]:
        return [*super()._calls(), *self._asked.values()]

    def _known_places(self) -> Sequence[Place]:
        now = time.monotonic()
        if now - self._counted > _COUNT:
            self._require_head(now)
            self._counted = now
            self._ask({node for node in self._nodes if node not in self._fits})
        found = places(self._nodes, self._gpus)
        return [place for place in found if self._fits.get(place.node)]

    @property
    def _may_come(self) -> bool:
        return bool(self._asked)

    def _require_head(self, now: float) -> None:
        """Count the nodes. Raises EngineError where the head, or the node here, is lost."""
        if self._cluster.answers():
            self._answered, self._nodes = now, self._cluster.nodes()
            if all(node.key != self._cluster.here for node in self._nodes):
                raise EngineError("this machine is a node of the cluster no more", hint=_AGAIN)
        elif now - self._answered > _HEAD:
            raise EngineError("the head of the cluster does not answer any more", hint=_AGAIN)

    def _require_workers(self, usable: Sequence[Place]) -> None:
        """Tell what the job waits for, too."""
        now = time.monotonic()
        if any(member.opened for member in self._members.values()):
            self._idle_since = now
        super()._require_workers(usable)
        if now - self._idle_since > _WAIT and not self._told_idle:
            self._told_idle = True
            self._note("the job waits for cores or GPUs of the cluster, which others use")

    @property
    def _is_hopeless(self) -> bool:
        return time.monotonic() - self._idle_since > _WAIT or bool(self._starts)

    def _ask(self, nodes: set[Node]) -> None:
        for node in nodes - self._asked.keys():
            self._asked[node] = self._cluster.ask(node, self._sought)

    def _take(self, call: Call) -> None:
        if call in self._asked.values():
            self._see(call, strict=False)
        else:
            super()._take(call)

    def _lose(self, number: int) -> None:
        super()._lose(number)
        self._counted = 0.0  # its node may be gone, too

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
