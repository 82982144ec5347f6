"""A worker of a run: one engine, one crew of threads, and jobs that come a few at a time.

This is in a process of its own, on a node of a cluster or on this machine. Nothing here knows what
carries the calls.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from threading import Condition, Thread
from typing import TYPE_CHECKING, NamedTuple

from cudafilter.errors import in_words

if TYPE_CHECKING:
    from cudafilter.jobs.crew import Crew
    from cudafilter.jobs.job import Job
    from cudafilter.jobs.record import Record
    from cudafilter.jobs.settings import Settings
    from cudafilter.operations.borders import Border
    from cudafilter.operations.operation import Operation


HOLD = 0.25
"""Seconds that a record may wait for others. A call takes about 2 ms of the cores, here and there:
with one for each record, a tenth of a 2-megapixel JPEG's time."""


class Task(NamedTuple):
    """What all workers of a run do with each image, and how."""

    filter: Operation
    border: Border
    settings: Settings
    engine: str
    variant: str
    codec: str
    on_gpu_failure: str
    threads: int | None
    """Images in work at a time; None for as many as keep cores and engine busy."""
    for_each_core: int
    """How many of them are worth to be in work for each core."""
    folder: str
    """The current folder, which relative paths count from."""
    environment: Mapping[str, str]
    """Variables that libraries and this package read."""
    gpu: int | None = None
    """The number of the worker's GPU; None for the first that it sees."""


class Opened(NamedTuple):
    """What a worker tells once its engine is open, or could not be opened."""

    title: str = ""
    note: str | None = None
    parallel: int = 1
    """Images that it has in work at a time."""
    mark: str = ""
    """What the names of its temporaries begin with."""
    error: str | None = None
    hint: str | None = None


class Hand:
    """A worker, on so many *cores*, one of *beside* on its node."""

    def __init__(self, task: Task, cores: int | None, beside: int) -> None:
        os.environ.update(task.environment)
        with suppress(OSError):  # then all paths are absolute, as the driver has made sure
            os.chdir(task.folder)
        # Not before: libraries read the environment as they are loaded.
        from cudafilter.host import cores as machine
        from cudafilter.host.memory import keep_freed_memory
        from cudafilter.jobs import sizing

        if cores is not None:
            machine.limit(cores)
        keep_freed_memory()
        room = sizing.memory_for_images()
        if room is not None and beside > 1:
            os.environ[sizing.MEMORY] = str(max(1, room // beside))
        self._task = task
        self._crew: Crew | None = None
        self._jobs: deque[Job] = deque()
        self._records: list[Record] = []
        self._changed = Condition()
        self._threads = 1
        self._ended = False
        self._error: BaseException | None = None

    def open(self) -> Opened:
        """Open the engine and start the threads."""
        from cudafilter.engines.open import open_engine
        from cudafilter.jobs.crew import Crew
        from cudafilter.jobs.worker import Worker
        from cudafilter.stores.leftovers import own_mark

        task = self._task
        try:
            engine = open_engine(
                task.engine, gpu=task.gpu, variant=task.variant, codec=task.codec,
                on_gpu_failure=task.on_gpu_failure,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - the driver tells it
            text, hint = in_words(error)
            return Opened(error=text, hint=hint)
        worker = Worker(task.filter, task.border, task.settings)
        self._crew = Crew(self._given(), worker, self._tell, task.threads, task.for_each_core)
        self._threads = self._crew.begin(lambda: engine)
        Thread(target=self._watch, name="watch", daemon=True).start()
        return Opened(engine.title, engine.note, self._threads, own_mark())

    def step(self, jobs: list[Job]) -> list[Record]:
        """Take *jobs* beside those that there are, and wait until some are done: the records of all
        that are done by then. Each is told within HOLD seconds, and sooner where few jobs wait.
        After stop() it waits no more."""
        with self._changed:
            self._jobs.extend(jobs)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._records or self._ended)
            self._changed.wait_for(lambda: len(self._jobs) <= self._threads or self._ended, HOLD)
            if self._error is not None:
                raise self._error
            told, self._records = self._records, []
        return told

    def stop(self) -> list[Record]:
        """Begin nothing more, and wait for the images being written: the records not yet told."""
        if self._crew is not None:
            self._crew.dismiss()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            told, self._records = self._records, []
        return told

    def _given(self) -> Iterator[Job]:
        """The jobs, as they come."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._ended)
                if self._ended:
                    return
                job = self._jobs.popleft()
                self._changed.notify_all()
            yield job

    def _tell(self, record: Record) -> None:
        with self._changed:
            self._records.append(record)
            self._changed.notify_all()

    def _watch(self) -> None:
        """Have step() raise what stops the threads."""
        assert self._crew is not None
        try:
            self._crew.join()
        except BaseException as error:  # noqa: BLE001 - raised by step()
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()
