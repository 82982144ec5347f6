"""A file whose pictures are larger than their share of memory: each goes through by rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from cudafilter import images
from cudafilter.errors import ImageError
from cudafilter.formats import rows
from cudafilter.formats.rows import Header, Reader, Writer
from cudafilter.formats.table import format_of_bytes, unused_settings
from cudafilter.host.cores import free_memory
from cudafilter.jobs import sizing
from cudafilter.jobs.banded import Banded
from cudafilter.jobs.frames import Counted, picked
from cudafilter.jobs.record import Record
from cudafilter.jobs.settings import Shared
from cudafilter.operations.operation import whole_of
from cudafilter.start.words import STDIO
from cudafilter.stores.buffers import Sink, Source


class ByRows:
    """The picture or pages of the file *data* on their way into one of *format*.

    Raises ImageError for what cannot be read, or goes by rows in no way.
    """

    def __init__(self, worker: Shared, data: Source, format: str, record: Record) -> None:
        self._worker, self._format, self._record = worker, format, record
        self._data = data
        settings, head = worker.settings, data[: rows.HEAD_OF_KIND]
        self._effort: dict[str, Any] = {
            "quality": settings.quality,
            "compress_level": settings.compress_level,
            "dither": settings.dither,
        }
        with images.decoding(record.source):
            self._kind, self._decoded = format_of_bytes(head), rows.is_decoded_whole(head)
            if self._decoded:
                sizing.require_size(data, settings.max_pixels, by_rows=True)
                samples, each = sizing.stored(data)
                takes = samples * each * sizing.decoded(self._kind)
                why = f"{self._kind.upper()} files of its kind are decoded as a whole"
                _require_free(takes, why)
        choose = partial(picked, settings.frames, format)
        with worker.stage("read", record):
            self._frames = images.Frames(
                data, record.source, choose, settings.max_pixels, by_rows=True
            )
        record.frames = len(self._frames.numbers)
        self._coming = zip(self._frames.numbers, self._frames.headers(), strict=False)
        first = self._first = self._taken(*next(self._coming))
        record.height, record.width = first.header.height, first.header.width
        record.channels = first.header.channels
        record.colour, record.dtype = first.header.colour, first.header.dtype

    @property
    def memory(self) -> int:
        """Bytes that it takes."""
        return self._first.bands.memory

    def _taken(self, number: int, header: Header) -> Banded:
        """The picture that has come. Raises ImageError where it cannot be done by rows."""
        where = f"frame {number}: " if self._record.frames > 1 else ""
        with images.decoding(self._record.source):
            picture = Banded(
                self._worker, self._record, header, self._frames.reader, self._reopened,
                self._format, sizing.decoded(self._kind) if self._decoded else 0, where,
            )  # fmt: skip
        self._refuse(picture, where)
        return picture

    def _reopened(self) -> Reader:
        """The reader of a file of one picture, once more."""
        return rows.open(self._data, self._worker.settings.max_pixels, by_rows=True)

    def _refuse(self, picture: Banded, where: str) -> None:
        """Raise ImageError for what cannot be done by rows."""
        worker = self._worker
        if (name := whole_of(worker.filter.unrolled(worker.border))) is not None:
            raise ImageError(
                f"{where}it would take about {self._whole} of memory, more than there is for"
                f" images: {name} needs the whole picture at once"
            )
        if picture.is_encoded_whole:
            why = f"{self._format.upper()} files are encoded as a whole"
        else:
            step = self._frames.reader.step
            why = f"{self._kind.upper()} files of its kind are decoded {step:,} rows at a time"
        _require_free(picture.bands.memory, why, where)
        if worker.settings.check:
            from cudafilter.proof.bands import not_by_bands

            if (reason := not_by_bands(worker.filter, worker.border)) is not None:
                raise ImageError(f"{where}it is too large to be checked in one piece: {reason}")

    def write(self, target: Sink) -> None:
        """Filter it into *target*. Raises whatever one of the threads meets first."""
        worker, record, first = self._worker, self._record, self._first
        started = time.perf_counter()
        record.seconds |= dict.fromkeys(("decode", "run"), 0.0)
        engine = worker.engine.get()
        record.engine = engine.title
        name = "standard output" if record.destination == STDIO else record.destination
        counted = Counted(target)
        writer: Writer | None = None
        height, size = first.header.height, first.header.pixel_bytes

        def tell(page: int, of: int, done: int) -> None:
            """Pages count as if all were as high as the first one."""
            told = page * height + done * height // of
            worker.on_rows(told, height * record.frames, size * record.frames)

        try:
            for page, picture in enumerate(self._pictures()):
                with worker.stage("encode", record), images.encoding(name):
                    if writer is None:
                        writer = rows.create(self._format, counted, picture.out, **self._effort)
                    else:
                        writer.next_frame(picture.out)
                picture.write(engine, writer, name, partial(tell, page, picture.header.height))
                record.add_notes(picture.notes)
            assert writer is not None
            with worker.stage("encode", record), images.encoding(name):
                writer.close()
        except ImageError as error:
            raise counted.error or error from None
        record.bytes_out = counted.bytes
        record.elapsed = time.perf_counter() - started

    def _pictures(self) -> Iterator[Banded]:
        yield self._first
        for number, header in self._coming:
            yield self._taken(number, header)

    def finish(self) -> None:
        """Tell what the user should know."""
        record, first = self._record, self._first
        record.add_notes(self._frames.notes)
        asked = self._worker.settings.asked(**self._effort)
        record.notes += unused_settings(self._format, **asked)
        pages = "its pages are " if record.frames > 1 else ""
        record.notes += (
            f"{pages}done by rows, {first.bands.rows:,} at a time: whole it would take about"
            f" {self._whole} of memory",
        )

    @property
    def _whole(self) -> str:
        """What it takes otherwise, in words."""
        extra = self._worker.settings.extra
        return _words(sizing.footprint(self._data, self._format, extra))


def _require_free(takes: int, why: str, where: str = "") -> None:
    """Raise ImageError, which tells *why*, where *takes* bytes of memory are not free."""
    free = free_memory()
    if free is not None and takes > free:
        raise ImageError(
            f"{where}it would take about {_words(takes)} of memory, and {_words(free)} are free:"
            f" {why}",
            hint="convert it to TIFF in small strips or tiles first, which is read and written by"
            " rows",
        )


def _words(size: int) -> str:
    if size < 1e9:
        return f"{size / 1e6:,.1f} MB" if size < 1e7 else f"{size / 1e6:,.0f} MB"
    return f"{size / 1e9:,.1f} GB"
