"""Many images: read, decode, run, check, encode and write, side by side. One is a batch of one.

Each thread brings one image through all stages. So no stage has threads that idle while another
one is behind, and the images in memory are as many as there are threads: about one a core, or as
many as the engine keeps waiting where that is more. Decoders, engines and encoders work without the
interpreter's lock.
"""

from __future__ import annotations

import operator
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Condition, Lock, Thread
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from cudafilter import images, workload
from cudafilter.borders import Border
from cudafilter.cores import cores, in_work
from cudafilter.engines import Engine
from cudafilter.errors import DisagreementError, EngineError, ImageError, in_words
from cudafilter.formats.buffers import Buffer
from cudafilter.gates import Gift, Room, Saves, Stopped
from cudafilter.operations.operation import Operation
from cudafilter.plan import STREAM, Job
from cudafilter.record import DONE, SKIPPED, Record
from cudafilter.stores import local

if TYPE_CHECKING:
    from cudafilter.journal import Journal


class Settings(NamedTuple):
    """How each image is treated."""

    gray: bool = False
    check: bool = False
    """Compare every result with the reference; one that disagrees is not written."""
    quality: int | None = None
    compress_level: int | None = None
    max_pixels: int | None = None
    """Most pixels of an image; None for what formats/limits.py says."""
    engine_codec: bool = False
    """Offer JPEGs that become JPEGs to the engine first, whose jpeg says what it takes. They wait
    until the engine is open, so that which way an image goes never depends on time."""


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
) -> None:
    """Do *jobs*, calling *on_record* as each one ends, from one thread at a time.

    *open_engine* is called once, in this thread, while the first images are read and decoded; what
    it raises is raised, and no record is delivered before it returns. The engine is not closed.

    At most *threads* images are in memory; unless given, as many as keep cores and engine busy, and
    fit into half of the free memory. A job is taken from *jobs* when a thread is free for
    it, so these may be endless. An image that fails gets a record and the rest goes on. *stdin*
    and *stdout* serve the jobs that name them, sys's unless given. What is changed in place is
    written down in *journal*, and skipped where that has it already.

    KeyboardInterrupt stops it: images being written are finished, those not yet there are dropped,
    the records of what is done are still delivered, and KeyboardInterrupt is raised on, without
    waiting for work in progress. BrokenPipeError is raised if stdout's reader has gone.
    """
    room = Room(None if threads else workload.memory_for_images())
    most = operator.length_hint(jobs, workload.MOST_THREADS)
    at_first = min(most, threads or cores())
    worker = _Worker(filter, border, settings, stdin, stdout, room, journal)
    crew = _Crew(jobs, worker, on_record)
    in_work(at_first)
    try:
        crew.hire(at_first)
        engine = open_engine()
        worker.engine.give(engine)
        if threads is None:
            codec = engine.jpeg if settings.engine_codec else None
            waiting = max(engine.parallel, codec.parallel if codec else 0)
            crew.hire(min(most, waiting) - at_first)
        crew.join()
    except BaseException:
        crew.dismiss()
        raise
    finally:
        in_work(1)


class _Crew:
    """Threads that take one job after the other, and whatever stops them."""

    def __init__(
        self, jobs: Iterable[Job], worker: _Worker, on_record: Callable[[Record], None]
    ) -> None:
        self._jobs = iter(jobs)
        self._taking = Lock()
        self._worker = worker
        self._on_record = on_record
        self._telling = Lock()
        self._changed = Condition()
        self._at_work = 0
        self._error: BaseException | None = None

    def hire(self, count: int) -> None:
        """Start *count* threads more, if that is more than none."""
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

    def dismiss(self) -> None:
        """Begin nothing more, and wait for the images being written."""
        self._worker.engine.withdraw()
        self._worker.saves.shut()

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
            self._worker.saves.require_open()
            return next(self._jobs, None)

    def _do(self, job: Job) -> None:
        # An image that is being written holds its place in `saves` until its record is delivered,
        # so that an interruption, which waits for that, finds no image without a record.
        with ExitStack() as held:
            record = self._worker.do(job, held)
            self._worker.engine.get()
            with self._telling:
                if record.status == DONE or not self._worker.saves.closed:
                    self._on_record(record)


@dataclass
class _Worker:
    """Does one image at a time; shared by all threads."""

    filter: Operation
    border: Border
    settings: Settings
    stdin: BinaryIO | None
    stdout: BinaryIO | None
    room: Room
    journal: Journal | None
    engine: Gift[Engine] = field(default_factory=Gift)
    saves: Saves = field(default_factory=Saves)
    checks: Lock = field(default_factory=Lock)
    """One check at a time: it uses all cores, and memory of its own on each."""

    def do(self, job: Job, held: ExitStack) -> Record:
        """The record of *job*, done; *held* keeps its place in saves, where it wrote."""
        record = Record(
            source=str(job.source) if job.source is not None else STREAM,
            destination=str(job.destination) if job.destination is not None else STREAM,
        )
        try:
            if (reason := self._skipped(job)) is not None:
                record.status, record.skipped = SKIPPED, reason
            else:
                self._do(job, record, held)
                record.status = DONE
        except Exception as error:  # whatever one image does, the rest goes on
            if isinstance(error, BrokenPipeError) and job.destination is None:
                raise
            import traceback

            record.error, record.hint = _reason(error, record.source)
            record.traceback = traceback.format_exc()
        return record

    def _skipped(self, job: Job) -> str | None:
        """Why there is nothing to do; None where there is."""
        reason = "it exists" if job.skip else None
        if self.journal is not None and job.source is not None and job.in_place:
            now = local.identity(job.source)
            if now is not None and self.journal.has_done(job.source, now):
                reason = "done by the unfinished run"
        if reason is not None and job.destination is not None:
            with suppress(OSError):  # a killed run may have left its temporary beside what it did
                local.enter(os.path.dirname(job.destination))
        return reason

    def _do(self, job: Job, record: Record, held: ExitStack) -> None:
        # Before it is read: a change from then on shows when it is written.
        read = local.identity(job.source) if job.source is not None and job.in_place else None
        with self._stage("read", record):
            data = self._read(job.source)
            record.bytes_in = len(data)
        format = job.format or images.format_of_bytes(data)
        with self.room.taken(workload.footprint(data) if self.room.bounded else 0):
            encoded = self._by_engine_codec(data, format, record)
            if encoded is None:
                encoded = self._by_host_codecs(data, format, record)
            del data
            with self._stage("write", record):
                self._write(job, encoded, read, record, held)
        record.bytes_out = len(encoded)

    def _by_engine_codec(self, data: bytes, format: str, record: Record) -> Buffer | None:
        """The JPEG filtered by the engine's own codec; None where the host's must do it."""
        if not self.settings.engine_codec or format != "jpeg":
            return None
        engine = self.engine.get()
        if engine.jpeg is None or images.format_of_bytes(data) != "jpeg":
            return None
        if self.settings.check:
            record.notes += ("checked as coded on the CPU; without --check the GPU may code it",)
            return None
        from cudafilter.engines.cuda.jpeg import NotTaken

        settings = self.settings
        workload.require_size(data, settings.max_pixels)
        with self._stage("run", record):
            try:
                done = engine.jpeg.filter(
                    data, self.filter, self.border, gray=settings.gray, quality=settings.quality
                )
            except NotTaken as reason:
                record.notes += (f"decoded and encoded on the CPU: {reason}",)
                return None
        record.engine, record.engine_seconds = engine.title, done.seconds
        record.width, record.height, record.channels = done.width, done.height, done.channels
        record.colour, record.dtype = done.colour, "uint8"
        record.notes += done.notes
        record.notes += images.unused_settings(format, compress_level=settings.compress_level)
        return done.data

    def _by_host_codecs(self, data: bytes, format: str, record: Record) -> Buffer:
        """The image of the file *data*, filtered, as the bytes of a file of *format*."""
        with self._stage("decode", record):
            image = images.load(data, record.source, max_pixels=self.settings.max_pixels)
            if self.settings.gray:
                image = images.to_gray(image)
        record.notes += image.notes
        record.height, record.width, record.channels = image.pixels.shape
        record.colour, record.dtype = image.colour, image.pixels.dtype.name
        engine = self.engine.get()
        record.engine = engine.title
        with self._stage("run", record):
            done = engine.run(
                image.pixels, self.filter, self.border, image.alpha,
                overwrite=not self.settings.check,
            )  # fmt: skip
        record.engine_seconds = dict(done.seconds)
        record.notes += done.notes
        if self.settings.check:
            from cudafilter.check import compare

            with self._stage("check", record), self.checks:
                self.saves.require_open()
                record.agreement = compare(
                    done.pixels, image.pixels, self.filter, self.border, image.alpha
                )
            if not record.agreement.ok:
                raise DisagreementError(
                    str(record.agreement), hint="nothing was written; please report this"
                )
        image = image.with_pixels(done.pixels)
        effort = {
            "quality": self.settings.quality,
            "compress_level": self.settings.compress_level,
        }
        with self._stage("encode", record):
            name = "standard output" if record.destination == STREAM else record.destination
            encoded = images.encode(image, format, name=name, **effort)
        record.notes += tuple(
            f"{format.upper()} does not hold {what}, which is left out"
            for what in images.lost_metadata(image, format)
        )
        record.notes += images.unused_settings(format, **effort)
        return encoded

    @contextmanager
    def _stage(self, name: str, record: Record) -> Iterator[None]:
        self.saves.require_open()
        started = time.perf_counter()
        try:
            yield
        finally:
            record.seconds[name] = time.perf_counter() - started

    def _read(self, source: Path | None) -> bytes:
        if source is None:
            return images.read_stream(self.stdin or sys.stdin.buffer, STREAM)
        return images.read_file(source)

    def _write(
        self,
        job: Job,
        data: Buffer,
        read: local.Identity | None,
        record: Record,
        held: ExitStack,
    ) -> None:
        if job.destination is None:
            _write_all(self.stdout or sys.stdout.buffer, data)
            return
        target = local.resolve(job.destination)
        if target.stream is not None:  # its reader may let an interruption wait for ever
            local.write(target, data)
            return
        held.enter_context(self.saves.one())
        if read is None or self.journal is None:
            record.notes += local.write(target, data, read=read)
        else:
            add = partial(self.journal.add, job.destination)
            record.notes += local.write(target, data, read=read, on_complete=add)


def _write_all(stream: BinaryIO, data: Buffer) -> None:
    """Write *data* to the end: under PYTHONUNBUFFERED a pipe takes only a part at a time.

    Raises ImageError, or BrokenPipeError where the reader has gone.
    """
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[stream.write(rest) :]
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ImageError(f"standard output: cannot be written: {error.strerror}") from error


def _reason(error: Exception, source: str) -> tuple[str, str | None]:
    """What went wrong, in words and without the name of *source*, and what to do about it."""
    if isinstance(error, MemoryError):
        return "not enough memory for this image", None
    text, hint = in_words(error)
    if isinstance(error, EngineError):
        text = " ".join(text.split())  # a compiler's lines
    return text.removeprefix(f"{source}: "), hint
