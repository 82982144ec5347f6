"""One image through all stages: read, decode, run, check, encode and write."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from cudafilter import images
from cudafilter.engines import Engine
from cudafilter.errors import DisagreementError, EngineError, ImageError, in_words
from cudafilter.formats.table import FORMATS, format_of_bytes, unused_settings
from cudafilter.jobs import sizing
from cudafilter.jobs.plan import Job
from cudafilter.jobs.record import DONE, SKIPPED, Record
from cudafilter.jobs.waiting import Future, Gate, MemoryBudget
from cudafilter.operations.borders import Border
from cudafilter.operations.choices import CHECKS
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels
from cudafilter.start.words import STDIO
from cudafilter.stores import local
from cudafilter.stores.buffers import Buffer
from cudafilter.stores.store import Identity, Store

if TYPE_CHECKING:
    from cudafilter.jobs.journal import Journal
    from cudafilter.proof.screened import Screened


class Settings(NamedTuple):
    """How each image is treated."""

    gray: bool = False
    check: str | None = None
    """One of catalogue.CHECKS."""
    """Compare every result with the reference; one that disagrees is not written."""
    quality: int | None = None
    compress_level: int | None = None
    max_pixels: int | None = None
    """Most pixels of an image; None for what formats/limits.py says."""
    engine_codec: bool = False
    """Offer JPEGs that become JPEGs to the engine's own codec first. They wait until the engine is
    open, so that the way of an image never depends on time."""


@dataclass
class Worker:
    """Does one image at a time; shared by all threads."""

    filter: Operation
    border: Border
    settings: Settings
    stdin: BinaryIO | None
    stdout: BinaryIO | None
    memory: MemoryBudget
    journal: Journal | None
    store: Store = local
    """Where sources and destinations are."""
    engine: Future[Engine] = field(default_factory=Future)
    writing: Gate = field(default_factory=Gate)
    checks: Lock = field(default_factory=Lock)
    """One whole check at a time: it uses all cores, and memory of its own on each."""

    def do(self, job: Job, held: ExitStack) -> Record:
        """The record of *job*, done; *held* keeps the gate from closing, once it writes."""
        record = Record(
            source=str(job.source) if job.source is not None else STDIO,
            destination=str(job.destination) if job.destination is not None else STDIO,
        )
        try:
            if (reason := self._skipped(job)) is not None:
                record.status, record.skipped = SKIPPED, reason
            else:
                self._do(job, record, held)
                record.status = DONE
        except Exception as error:  # one image that fails does not stop the others
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
            now = self.store.stat(job.source)
            if now is not None and self.journal.has_done(job.source, now):
                reason = "done by the unfinished run"
        if reason is not None and job.destination is not None:
            with suppress(OSError):  # a killed run may have left its temporary beside what it did
                local.enter(os.path.dirname(job.destination))
        return reason

    def _do(self, job: Job, record: Record, held: ExitStack) -> None:
        # Before it is read: a change from then on shows when it is written.
        read = self.store.stat(job.source) if job.source is not None and job.in_place else None
        with self._stage("read", record):
            data = self._read(job.source)
            record.bytes_in = len(data)
        format = job.format or format_of_bytes(data)
        with self.memory.taken(sizing.footprint(data) if self.memory.bounded else 0):
            encoded = self._by_engine_codec(data, format, record)
            if encoded is None:
                encoded = self._by_host_codecs(data, format, record)
            del data
            with self._stage("write", record):
                self._write(job, encoded, read, record, held)
        record.bytes_out = len(encoded)

    def _by_engine_codec(
        self, data: bytes, format: str, record: Record, screen: bool = True
    ) -> Buffer | None:
        """The JPEG filtered by the engine's own codec; None where the host's must do it.

        *screen* says that the device may prove the result.
        """
        if not (self.settings.engine_codec and FORMATS[format].engine_codec):
            return None
        engine = self.engine.get()
        if engine.jpeg is None or format_of_bytes(data) != format:
            return None
        from cudafilter.engines.jpeg import NotTaken

        settings = self.settings
        sizing.require_size(data, settings.max_pixels)
        with self._stage("run", record):
            try:
                done = engine.jpeg.filter(
                    data, self.filter, self.border,
                    gray=settings.gray, quality=settings.quality, keep=settings.check is not None,
                    screen=screen and settings.check == CHECKS[0],
                )  # fmt: skip
            except NotTaken as reason:
                record.notes += (f"decoded and encoded on the CPU: {reason}",)
                return None
        record.engine, record.engine_seconds = engine.title, done.seconds
        record.width, record.height, record.channels = done.width, done.height, done.channels
        record.colour, record.dtype = done.colour, "uint8"
        record.notes += tuple(note for note in done.notes if note not in record.notes)
        if settings.check:
            from cudafilter.proof.screened import Unsettled

            assert done.kept is not None
            source, result = done.kept
            try:
                self._check(result, source, False, record, done.screened)
            except Unsettled as why:
                record.notes += (f"filtered again, and checked on the CPU: {why}",)
                return self._by_engine_codec(data, format, record, screen=False)
        record.notes += unused_settings(format, compress_level=settings.compress_level)
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
                overwrite=self.settings.check is None,
            )  # fmt: skip
        record.engine_seconds = dict(done.seconds)
        record.notes += done.notes
        if self.settings.check:
            with self._stage("check", record):
                screened = self._screened(engine, done.pixels, image.pixels, image.alpha, record)
            self._check(done.pixels, image.pixels, image.alpha, record, screened)
        image = image.with_pixels(done.pixels)
        effort = {
            "quality": self.settings.quality,
            "compress_level": self.settings.compress_level,
        }
        with self._stage("encode", record):
            name = "standard output" if record.destination == STDIO else record.destination
            encoded = images.encode(image, format, name=name, **effort)
        record.notes += tuple(
            f"{format.upper()} does not hold {what}, which is left out"
            for what in images.lost_metadata(image, format)
        )
        record.notes += unused_settings(format, **effort)
        return encoded

    def _screened(
        self, engine: Engine, result: Pixels, source: Pixels, alpha: bool, record: Record
    ) -> Screened | None:
        """What *engine* proves of *result*; None where the host is to do it all."""
        if self.settings.check != CHECKS[0]:
            return None
        try:
            told = engine.screen(source, result, self.filter, self.border, alpha)
        except EngineError as error:
            record.notes += (f"checked on the CPU: {error}",)
            return None
        record.notes += told.notes
        return told.screened

    def _check(
        self,
        result: Pixels,
        source: Pixels,
        alpha: bool,
        record: Record,
        screened: Screened | None = None,
    ) -> None:
        """Raise DisagreementError unless *result* is what *source* is to become."""
        from cudafilter.check import compare

        # What a device has proven leaves little to do: each thread does its own.
        turn = nullcontext() if screened else self.checks
        with self._stage("check", record), turn:
            self.writing.require_open()
            record.agreement = compare(
                result, source, self.filter, self.border, alpha,
                quick=self.settings.check == "quick", screen=screened,
            )  # fmt: skip
        if record.agreement.note:
            record.notes += (record.agreement.note,)
        if not record.agreement.ok:
            raise DisagreementError(
                str(record.agreement), hint="nothing was written; please report this"
            )

    @contextmanager
    def _stage(self, name: str, record: Record) -> Iterator[None]:
        self.writing.require_open()
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            record.seconds[name] = record.seconds.get(name, 0.0) + spent

    def _read(self, source: Path | None) -> bytes:
        if source is None:
            return images.read_stream(self.stdin or sys.stdin.buffer, STDIO)
        return images.read_file(source, store=self.store)

    def _write(
        self,
        job: Job,
        data: Buffer,
        read: Identity | None,
        record: Record,
        held: ExitStack,
    ) -> None:
        if job.destination is None:
            _write_all(self.stdout or sys.stdout.buffer, data)
            return
        target = self.store.resolve(job.destination)
        if target.stream is not None:  # its reader may let an interruption wait for ever
            self.store.write_whole(target, data)
            return
        held.enter_context(self.writing.passing())
        if read is None or self.journal is None:
            record.notes += self.store.write_whole(target, data, read=read)
        else:
            add = partial(self.journal.add, job.destination)
            record.notes += self.store.write_whole(target, data, read=read, on_complete=add)


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
