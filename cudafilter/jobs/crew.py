"""Many images side by side; a single image is a batch of one.

Each thread brings one image through all stages. So no stage has threads that idle while another
one is behind, and the images in memory are as many as there are threads: about one a core, or as
many as the engine keeps waiting where that is more. Decoders, engines and encoders work without the
interpreter's lock.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, suppress
from threading import Condition, Lock, Semaphore, Thread
from typing import TYPE_CHECKING, BinaryIO

from cudafilter.engines import Engine
from cudafilter.host.cores import cores, in_work
from cudafilter.jobs import sizing
from cudafilter.jobs.job import Job
from cudafilter.jobs.record import DONE, Record
from cudafilter.jobs.waiting import Channel, MemoryBudget, Stopped
from cudafilter.jobs.worker import Settings, Worker
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation, whole_of

if TYPE_CHECKING:
    from cudafilter.jobs.journal import Journal


def run(
    jobs: Iterable[Job],
    open_engine: Callable[[], Engine],
    filter: Operation,
    border: Border,
    settings: Settings,
    on_record: Callable[[Record], None],
    *,
    threads: int | None = None,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
    journal: Journal | None = None,
    on_rows: Callable[[int, int, int], None] = lambda done, of, size: None,
) -> None:
    """Do *jobs*, calling *on_record* as each one ends, from one thread at a time.

    *open_engine* is called once, in this thread, while the first images are read and decoded; what
    it raises is raised, and no record is delivered before it returns. The engine is not closed.

    At most *threads* images are in memory; unless given, as many as keep cores and engine busy, and
    fit into half of the free memory; an image that takes more than that is done by rows, and
    *on_rows* is told of these: rows done, all rows, bytes of all pixels. A job is taken from *jobs*
    when a thread is free for it, so these may be endless. An image that fails gets a record and the
    rest goes on. *stdin* and *stdout* serve the jobs that name them, sys's unless given. What is
    changed in place is written down in *journal*, and skipped where that has it already.

    KeyboardInterrupt stops it: images being written are finished, those not yet there are dropped,
    the records of what is done are still delivered, and KeyboardInterrupt is raised on, without
    waiting for work in progress. BrokenPipeError is raised if stdout's reader has gone.
    """
    worker = Worker(filter, border, settings, stdin, stdout, journal, on_rows=on_rows)
    crew = Crew(jobs, worker, on_record, threads, sizing.for_each_core(jobs))
    try:
        crew.begin(open_engine)
        crew.join()
    except BaseException:
        crew.dismiss()
        raise
    finally:
        in_work(1)


def records(
    jobs: Iterable[Job],
    open_engine: Callable[[], Engine],
    filter: Operation,
    border: Border,
    settings: Settings,
    *,
    threads: int | None = None,
) -> Generator[Record]:
    """Do *jobs* as run() does, but yield the record of each as it ends.

    It works ahead by one record and the images in work. Where it is closed early, images being
    written are finished and the others dropped; it returns once no thread is at work any more, so
    the engine may be closed then.
    """
    told: Channel[Record | None] = Channel()
    worker = Worker(filter, border, settings)
    crew = Crew(jobs, worker, told.put, threads, sizing.for_each_core(jobs))
    try:
        crew.begin(open_engine)
        Thread(target=_end, args=(crew, told), name="end", daemon=True).start()
        while (record := told.take()) is not None:
            yield record
    finally:
        told.fail(Stopped())  # before it is dismissed: who waits for room there holds the gate
        crew.dismiss()
        crew.leave()
        in_work(1)


def _end(crew: Crew, told: Channel[Record | None]) -> None:
    """Put None where all is done, or what stopped the *crew*."""
    with suppress(Stopped):  # nobody takes any more
        try:
            crew.join()
        except BaseException as error:  # noqa: BLE001 - raised by take()
            told.fail(error)
        else:
            told.put(None)


class Crew:
    """Threads that take one job after the other, and whatever stops them."""

    def __init__(
        self,
        jobs: Iterable[Job],
        worker: Worker,
        on_record: Callable[[Record], None],
        threads: int | None,
        for_each_core: int = 1,
    ) -> None:
        worker.room = sizing.memory_for_images()
        worker.memory = MemoryBudget(None if threads else worker.room)
        if whole_of(worker.filter.unrolled(worker.border)) is not None:
            # There are no rows, so it may take all.
            worker.room = sizing.memory_for_images(share=1.0)
        self._worker, self._threads = worker, threads
        self._most = operator.length_hint(jobs, sizing.MOST_THREADS)
        self._for_each_core = for_each_core
        self._jobs = iter(jobs)
        self._taking = Lock()
        self._on_record = on_record
        self._telling = Lock()
        self._changed = Condition()
        self._at_work = 0
        self._error: BaseException | None = None

    def begin(self, open_engine: Callable[[], Engine]) -> int:
        """Start the threads, and open the engine meanwhile. Returns how many threads there are."""
        worker = self._worker
        count = at_first = min(self._most, self._threads or cores() * self._for_each_core)
        worker.hosts = Semaphore(at_first)
        in_work(at_first)
        self._hire(at_first)
        engine = open_engine()
        worker.engine.set(engine)
        if self._threads is None:
            codec = engine.jpeg if worker.settings.offers_codec else None
            waiting = max(at_first, engine.parallel)
            if waiting > at_first:
                worker.hosts.release(waiting - at_first)
            count = max(at_first, min(self._most, max(waiting, codec.parallel if codec else 0)))
            self._hire(count - at_first)
        return count

    def _hire(self, count: int) -> None:
        """Start *count* more threads; none where that is 0 or less."""
        for _ in range(count):
            with self._changed:
                self._at_work += 1
            Thread(target=self._serve, name="image", daemon=True).start()

    def join(self) -> None:
        """Wait until all jobs are done. Raises what stopped a thread, whichever came first."""
        with self._changed:
            self._changed.wait_for(lambda: not self._at_work or self._error is not None)
        if self._error is not None:
            raise self._error

    def leave(self) -> None:
        """Wait until no thread is at work, after dismiss()."""
        with self._changed:
            self._changed.wait_for(lambda: not self._at_work)

    def dismiss(self) -> None:
        """Begin nothing more, and wait for the images being written."""
        self._worker.engine.cancel()
        self._worker.writing.close()

    def _serve(self) -> None:
        error: BaseException | None = None
        try:
            while (job := self._next()) is not None:
                self._do(job)
        except Stopped:
            pass
        except BaseException as raised:  # noqa: BLE001 - raised on by join()
            error = raised
        with self._changed:
            self._at_work -= 1
            self._error = self._error or error
            self._changed.notify_all()

    def _next(self) -> Job | None:
        with self._taking:
            self._worker.writing.require_open()
            return next(self._jobs, None)

    def _do(self, job: Job) -> None:
        # An image that is being written passes the gate until its record is delivered. An
        # interruption waits for that, so no image is left without a record.
        with ExitStack() as held:
            record = self._worker.do(job, held)
            self._worker.engine.get()
            with self._telling:
                if record.status == DONE or not self._worker.writing.closed:
                    self._on_record(record)
