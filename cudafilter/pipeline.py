"""Many images: load, run, check and save, side by side. One image is a batch of one."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Condition, Lock
from typing import Any, BinaryIO

from cudafilter import images
from cudafilter.borders import Border
from cudafilter.check import Agreement, compare
from cudafilter.cores import cores
from cudafilter.engines import Engine
from cudafilter.errors import CudafilterError, DisagreementError, ImageError
from cudafilter.filter import Filter
from cudafilter.plan import STREAM, Job

DONE, SKIPPED, FAILED = "done", "skipped", "failed"


@dataclass(frozen=True)
class Settings:
    """How each image is treated."""

    gray: bool = False
    check: bool = False
    """Compare every result with the reference; one that disagrees is not written."""
    quality: int | None = None
    compress_level: int | None = None


@dataclass
class Record:
    """What became of one image. Sizes are in pixels and bytes, times in seconds."""

    source: str
    destination: str
    status: str = FAILED
    width: int | None = None
    height: int | None = None
    channels: int | None = None
    colour: str | None = None
    """What the channels are: gray, gray+alpha, RGB, RGBA or CMYK."""
    dtype: str | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    engine: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each stage begun: load, run (waiting for the engine included), check, save."""
    agreement: Agreement | None = None
    notes: tuple[str, ...] = ()
    """What the reader should know, such as metadata that the output's format cannot hold."""
    error: str | None = None
    hint: str | None = None
    traceback: str | None = None
    """Of an error, as text: the exception itself would hold the image's pixels in its frames."""

    def as_json(self) -> dict[str, Any]:
        """The record as plain data for a report: all fields but the traceback."""
        data = {name: value for name, value in vars(self).items() if name != "traceback"}
        data["seconds"] = {stage: round(spent, 6) for stage, spent in self.seconds.items()}
        data["agreement"] = None
        if (found := self.agreement) is not None:
            # JSON has no NaN: a figure that is none is null.
            figures = {"largest": found.largest, "got": found.got, "expected": found.expected}
            data["agreement"] = {
                "ok": found.ok,
                "samples": found.samples,
                "differing": found.differing,
                "exact_share": found.exact_share,
                "violations": found.violations,
                "worst": list(found.worst),
                **{name: v if abs(v) < float("inf") else None for name, v in figures.items()},
            }
        return data


def run(
    jobs: Sequence[Job],
    engine: Engine,
    filter: Filter,
    border: Border,
    settings: Settings,
    on_record: Callable[[Record], None],
    *,
    threads: int | None = None,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> None:
    """Do *jobs*, calling *on_record* as each one ends, from one thread at a time.

    Each of *threads* (one a core unless given) holds one image at a time, so memory does
    not grow with the number of jobs. An image that fails gets a record and the rest goes on.
    *stdin* and *stdout* serve the jobs that name them, sys's unless given.

    KeyboardInterrupt stops it: images being written are finished, those not yet there are dropped,
    the records of what is done are still delivered, and KeyboardInterrupt is raised on, without
    waiting for work in progress. BrokenPipeError is raised if stdout's reader has gone.
    """
    worker = _Worker(engine, filter, border, settings, stdin, stdout)
    count = max(1, min(threads or cores(), len(jobs)))
    pool = ThreadPoolExecutor(count, thread_name_prefix="image")
    telling = Lock()

    def work(job: Job) -> None:
        # An image that is being written holds its place in `saves` until its record is delivered,
        # so that an interruption, which waits for that, finds no image without a record.
        with ExitStack() as held:
            record = worker.do(job, held)
            with telling:
                if record.status == DONE or not worker.saves.closed:
                    on_record(record)

    try:
        for done in as_completed([pool.submit(work, job) for job in jobs]):
            done.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        worker.saves.shut()
        raise
    pool.shutdown()


class _Stopped(BaseException):
    """An image is dropped since the run was stopped. No Exception: it is nobody's failure."""


class _Saves:
    """Lets writes begin until it is shut; shutting it waits for those in progress."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._open = True
        self._writing = 0

    @property
    def closed(self) -> bool:
        """Whether it was shut."""
        return not self._open

    def require_open(self) -> None:
        """Raise _Stopped once shut."""
        if self.closed:
            raise _Stopped

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold while writing."""
        with self._changed:
            self.require_open()
            self._writing += 1
        try:
            yield
        finally:
            with self._changed:
                self._writing -= 1
                self._changed.notify_all()

    def shut(self) -> None:
        self._open = False
        for _ in range(2):  # a second Ctrl-C must cut no write short either; a third one may
            with suppress(KeyboardInterrupt), self._changed:
                self._changed.wait_for(lambda: self._writing == 0)
                return


@dataclass
class _Worker:
    """Does one image at a time; shared by all threads."""

    engine: Engine
    filter: Filter
    border: Border
    settings: Settings
    stdin: BinaryIO | None
    stdout: BinaryIO | None
    saves: _Saves = field(default_factory=_Saves)
    checks: Lock = field(default_factory=Lock)
    """One check at a time: it uses all cores, and memory of its own on each."""

    def do(self, job: Job, held: ExitStack) -> Record:
        """The record of *job*, done; *held* keeps its place in saves, where it wrote."""
        record = Record(
            source=str(job.source) if job.source is not None else STREAM,
            destination=str(job.destination) if job.destination is not None else STREAM,
        )
        if job.skip:
            record.status = SKIPPED
            return record
        try:
            self._do(job, record, held)
            record.status = DONE
        except Exception as error:  # whatever one image does, the rest goes on
            if isinstance(error, BrokenPipeError) and job.destination is None:
                raise
            record.error = _reason(error, record.source)
            record.hint = getattr(error, "hint", None)
            record.traceback = traceback.format_exc()
        return record

    def _do(self, job: Job, record: Record, held: ExitStack) -> None:
        with self._stage("load", record):
            image, format = self._load(job, record)
        pixels = image.pixels
        record.height, record.width, record.channels = pixels.shape
        record.colour, record.dtype = image.colour, pixels.dtype.name
        record.engine = self.engine.title
        with self._stage("run", record):
            result = self.engine.run(pixels, self.filter, self.border, image.alpha)
        if self.settings.check:
            with self._stage("check", record), self.checks:
                self.saves.require_open()
                record.agreement = compare(result, pixels, self.filter, self.border, image.alpha)
            if not record.agreement.ok:
                raise DisagreementError(
                    str(record.agreement), hint="nothing was written; please report this"
                )
        with self._stage("save", record):
            self._save(job, image.with_pixels(result), format, record, held)

    @contextmanager
    def _stage(self, name: str, record: Record) -> Iterator[None]:
        self.saves.require_open()
        started = time.perf_counter()
        try:
            yield
        finally:
            record.seconds[name] = time.perf_counter() - started

    def _load(self, job: Job, record: Record) -> tuple[images.Image, str]:
        """The image, and the format it is to be written in."""
        if job.source is None:
            data = (self.stdin or sys.stdin.buffer).read()
            record.bytes_in = len(data)
            image = images.load(data, record.source)
            format = job.format or images.format_of_bytes(data)
        else:
            assert job.format is not None
            image, format = images.load(job.source), job.format
            record.bytes_in = job.source.stat().st_size
        if self.settings.gray:
            image = images.to_gray(image)
        record.notes = image.notes
        return image, format

    def _save(
        self, job: Job, image: images.Image, format: str, record: Record, held: ExitStack
    ) -> None:
        effort = {
            "quality": self.settings.quality,
            "compress_level": self.settings.compress_level,
        }
        name = "standard output" if job.destination is None else record.destination
        data = images.encode(image, format, name=name, **effort)
        if job.destination is None:
            _write_all(self.stdout or sys.stdout.buffer, data)
        else:
            held.enter_context(self.saves.one())
            job.destination.parent.mkdir(parents=True, exist_ok=True)
            images.write_atomically(job.destination, data)
        record.bytes_out = len(data)
        record.notes += tuple(
            f"{format.upper()} does not hold {what}, which is left out"
            for what in images.lost_metadata(image, format)
        )
        record.notes += images.unused_settings(format, **effort)


def _write_all(stream: BinaryIO, data: bytes) -> None:
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


def _reason(error: Exception, source: str) -> str:
    """What went wrong in one line, with the type of an error that nobody raised on purpose."""
    if isinstance(error, MemoryError):
        return "not enough memory for this image"
    text = " ".join(str(error).split()).removeprefix(f"{source}: ")
    return text if isinstance(error, CudafilterError) else f"{type(error).__name__}: {text}"
