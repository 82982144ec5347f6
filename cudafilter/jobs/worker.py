"""One image through all stages: read, decode, run, check, encode and write."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock, Semaphore
from typing import TYPE_CHECKING, Any, BinaryIO

from cudafilter import images
from cudafilter.engines import Engine
from cudafilter.errors import EngineError, FramesError, ImageError, in_words
from cudafilter.formats.table import (
    FORMATS,
    HEAD,
    PAGES,
    format_of_bytes,
    is_image_name,
    unused_settings,
)
from cudafilter.formats.unread import kind_of
from cudafilter.images import Image
from cudafilter.jobs import sizing
from cudafilter.jobs.checking import check, screen
from cudafilter.jobs.coded import by_engine, png_of
from cudafilter.jobs.frames import Counted, picked, side_by_side
from cudafilter.jobs.job import OVERWRITE, SKIP, Job
from cudafilter.jobs.record import DONE, LEFT, SKIPPED, Record
from cudafilter.jobs.settings import Settings as Settings
from cudafilter.jobs.stream import Stream, write_all
from cudafilter.jobs.waiting import Future, Gate, MemoryBudget
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation
from cudafilter.start.words import STDIO
from cudafilter.stores import everywhere
from cudafilter.stores.buffers import Pieces, Sink, Source
from cudafilter.stores.store import Content, Exists, Identity, Store

if TYPE_CHECKING:
    from cudafilter.jobs.journal import Journal

EXISTS = "it exists"
"""Why a job is skipped whose output is there."""


@dataclass
class Worker:
    """Does one image at a time; shared by all threads."""

    filter: Operation
    border: Border
    settings: Settings
    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None
    journal: Journal | None = None
    memory: MemoryBudget = field(default_factory=lambda: MemoryBudget(None))
    store: Store[Any] = everywhere
    """Where sources and destinations are."""
    room: int | None = None
    """Bytes of memory beyond which an image is done by rows; None for none."""
    on_rows: Callable[[int, int, int], None] = lambda done, of, size: None
    """Told of an image that is done by rows: how many rows are written, of how many, and how
    many bytes of pixels these all are."""
    engine: Future[Engine] = field(default_factory=Future)
    writing: Gate = field(default_factory=Gate)
    hosts: Semaphore = field(default_factory=lambda: Semaphore(sizing.MOST_THREADS))
    """Images that the host codes at a time. The engine's codec may be worth more threads."""
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
            if isinstance(error, Exists) and job.existing == SKIP:
                record.status, record.skipped = SKIPPED, EXISTS
                return record
            if isinstance(error, FramesError) and not (job.named or self.settings.strict):
                record.status, record.notes = LEFT, (f"of several frames ({error.hint})",)
                return record
            import traceback

            record.error, record.hint = _reason(error, record.source)
            record.traceback = traceback.format_exc()
        return record

    def _skipped(self, job: Job) -> str | None:
        """Why there is nothing to do; None where there is."""
        reason = EXISTS if job.skip else None
        if self.journal is not None and isinstance(job.source, Path) and job.in_place:
            now = self.store.stat(job.source)
            if now is not None and self.journal.has_done(job.source, now):
                reason = "done by the unfinished run"
        if reason is not None and job.destination is not None:
            with suppress(OSError):  # a killed run may have left its temporary beside what it did
                self.store.tidy(job.destination)
        return reason

    def _do(self, job: Job, record: Record, held: ExitStack) -> None:
        # Before it is read: a change from then on shows when it is written.
        read = self.store.stat(job.source) if job.source is not None and job.in_place else None
        with ExitStack() as opened:
            data = self._source(job, record, opened)
            record.bytes_in = len(data)
            format = job.format or format_of_bytes(data[:HEAD])
            takes = self._footprint(data, format)
            if self._is_large(data, takes):
                self._by_rows(job, data, format, read, record, held)
                return
            opened.enter_context(self.memory.taken(takes))
            encoded: Content | None = None
            if isinstance(data, bytes):
                encoded = by_engine(self, data, format, record)
            if encoded is None:
                with self.hosts:
                    encoded = self._by_host_codecs(data, format, record)
            del data
            if callable(encoded):
                self._write(job, encoded, read, record, held)
                return
            with self.stage("write", record):
                self._write(job, encoded, read, record, held)
            record.bytes_out = len(encoded)

    def _is_large(self, data: Source, takes: int) -> bool:
        """Whether an image of the file *data* *takes* more bytes than its share of memory.

        One of an animation is not done by rows: it is laid over the last one, which is kept.
        """
        if self.room is None or takes <= self.room:
            return False
        pages = FORMATS[format_of_bytes(data[:HEAD])].frames == PAGES
        return pages or sizing.frames(data) == 1

    def _footprint(self, data: Source, format: str | None) -> int:
        return sizing.footprint(data, format, self.settings.extra)

    def _by_rows(
        self,
        job: Job,
        data: Source,
        format: str,
        read: Identity | None,
        record: Record,
        held: ExitStack,
    ) -> None:
        """Filter the images of the file *data*, of which few rows are in memory at a time."""
        from cudafilter.jobs.by_rows import ByRows  # not before: most images fit into memory

        one = ByRows(self, data, format, record)
        with self.memory.taken(min(one.memory, self.room or one.memory)):
            self._write(job, one.write, read, record, held)
        one.finish()

    def _by_host_codecs(self, data: Source, format: str, record: Record) -> Content:
        """The image of the file *data*, filtered, as a file of *format*.

        Of several frames it is what filters them while it writes the file.
        """
        with self.stage("decode", record):
            choose = partial(picked, self.settings.frames, format)
            frames = images.Frames(
                data, record.source, choose, self.settings.max_pixels, png=partial(png_of, self)
            )
        record.frames = len(frames.numbers)
        if record.frames > 1:

            def write(target: Sink) -> None:
                started = time.perf_counter()
                counted, pieces = Counted(target), Pieces()
                try:
                    self._transfer(frames, format, counted if target.can_patch else pieces, record)
                except ImageError as error:
                    raise counted.error or error from None
                if not target.can_patch:  # what was sent stays as it is
                    counted.write(pieces.joined())
                record.bytes_out = counted.bytes
                record.elapsed = time.perf_counter() - started

            return write
        file = Pieces()
        self._transfer(frames, format, file, record)
        return file.joined()

    def _transfer(self, frames: images.Frames, format: str, target: Sink, record: Record) -> None:
        """Filter *frames* on their way into a file of *format*."""
        name = "standard output" if record.destination == STDIO else record.destination
        effort = self.settings.effort
        output = images.Output(
            format, target, record.frames, name=name, png=partial(png_of, self), **effort
        )
        coming, numbers = iter(frames), iter(frames.numbers)
        lost: tuple[str, ...] = ()

        def take() -> Image | None:
            with self.stage("decode", record):
                image = next(coming, None)
                if image is None or not self.settings.gray:
                    return image
                self.settings.require_gray(image.pixels.shape[2])
                return images.to_gray(image)

        def make(image: Image) -> Image:
            made = self._filtered(image, next(numbers), record)
            if self.settings.background is not None:
                made = images.flattened(made, self.settings.background)
                record.add_notes(made.notes)
            return made

        def put(image: Image) -> None:
            nonlocal lost
            with self.stage("encode", record):
                output.add(image)
            lost = lost or images.lost_metadata(image, format)

        if record.frames > 1:
            side_by_side(iter(take, None), make, put)
        else:
            for made in map(make, iter(take, None)):
                put(made)
        with self.stage("encode", record):
            record.notes += output.close()
        record.notes += tuple(
            f"{format.upper()} does not hold {what}, which is left out" for what in lost
        )
        record.notes += unused_settings(format, **self.settings.asked(**effort))

    def _filtered(self, image: Image, number: int, record: Record) -> Image:
        """Frame *number* of a file, filtered and checked."""
        if record.width is None:
            record.height, record.width, record.channels = image.pixels.shape
            record.colour, record.dtype = image.colour, image.pixels.dtype.name
        engine = self.engine.get()
        record.engine = engine.title
        record.add_notes(image.notes)
        where = f"frame {number}: " if record.frames > 1 else ""
        if self.settings.within:
            from cudafilter.jobs.within import filter_within  # not before: most runs do without

            return filter_within(self, engine, image, record, where)
        with self.stage("run", record):
            done = engine.run(
                image.pixels, self.filter, self.border, image.alpha,
                overwrite=self.settings.check is None,
            )  # fmt: skip
        record.took(done.seconds, done.notes)
        if self.settings.check:
            with self.stage("check", record):
                screened = screen(self, engine, done.pixels, image.pixels, image.alpha, record)
                check(self, done.pixels, image.pixels, image.alpha, record, screened, where)
        return image.with_pixels(done.pixels)

    @contextmanager
    def stage(self, name: str, record: Record) -> Iterator[None]:
        """Do a stage inside, unless all work has ended, and have *record* tell its time."""
        self.writing.require_open()
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            record.seconds[name] = record.seconds.get(name, 0.0) + spent

    def _source(self, job: Job, record: Record, opened: ExitStack) -> Source:
        """The bytes of a file. One that is done by rows or pages stays *opened* instead."""
        source = job.source
        size = self.store.size(source) if source is not None else None
        large = sizing.LARGE if self.room is None else min(sizing.LARGE, self.room)
        if source is not None and size is not None and size > large:
            with images.naming(record.source, "cannot be read", "it cannot be opened"):
                file = opened.enter_context(self.store.open(source))
            with suppress(ImageError):  # to read it tells what is wrong
                pages = FORMATS[format_of_bytes(file[:HEAD])].frames == PAGES
                if pages or self._is_large(file, self._footprint(file, job.format)):
                    return file
        with self.stage("read", record):
            if source is None:
                return images.read_stream(self.stdin or sys.stdin.buffer, STDIO)
            return images.read_file(source, store=self.store)

    def _write(
        self,
        job: Job,
        content: Content,
        read: Identity | None,
        record: Record,
        held: ExitStack,
    ) -> None:
        if job.destination is None:
            if callable(content):
                content(Stream(self.stdout or sys.stdout.buffer))
            else:
                write_all(self.stdout or sys.stdout.buffer, content)
            return
        target = self.store.resolve(job.destination)
        if target.stream is not None:  # its reader may let an interruption wait for ever
            self.store.write_whole(target, content)
            return
        # Frames that are filtered inside look at the gate themselves, and remove what they wrote.
        held.enter_context(self.writing.passing())
        if read is None or self.journal is None:
            notes = self.store.write_whole(
                target, content, read=read, new=job.existing != OVERWRITE
            )
        else:
            assert isinstance(job.destination, Path)  # nothing else is changed in place
            add = partial(self.journal.add, job.destination)
            notes = self.store.write_whole(target, content, read=read, on_complete=add)
        record.notes += notes  # only now: frames that are filtered inside add their own


def _reason(error: Exception, source: str) -> tuple[str, str | None]:
    """What went wrong, in words and without the name of *source*, and what to do about it."""
    if isinstance(error, MemoryError):
        return "not enough memory for this image", None
    text, hint = in_words(error)
    kind = None if is_image_name(source) else kind_of(source)
    if isinstance(error, ImageError) and kind is not None:
        hint = kind.advice
    if isinstance(error, EngineError):
        text = " ".join(text.split())  # a compiler's lines
    return text.removeprefix(f"{source}: "), hint
