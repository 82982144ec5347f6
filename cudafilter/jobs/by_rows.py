"""An image larger than its share of memory: read, filtered and written by rows, side by side.

One thread reads bands and one filters and checks them; the worker's own writes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Lock, Thread
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from cudafilter import images
from cudafilter.engines.flow import Flow, rereads
from cudafilter.errors import DisagreementError, ImageError
from cudafilter.formats import rows
from cudafilter.formats.metadata import split
from cudafilter.formats.rows import Reader
from cudafilter.formats.table import Ways, format_of_bytes, unused_settings
from cudafilter.host.cores import free_memory
from cudafilter.jobs import sizing
from cudafilter.jobs.checking import require_proven
from cudafilter.jobs.frames import Counted
from cudafilter.jobs.record import Record
from cudafilter.jobs.settings import Shared
from cudafilter.jobs.waiting import Channel
from cudafilter.operations.borders import border_index
from cudafilter.operations.operation import whole_of
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.region import Rectangle
from cudafilter.start.words import STDIO
from cudafilter.stores.buffers import Sink, Source

if TYPE_CHECKING:
    from cudafilter.engines.within import Within
    from cudafilter.proof.bands import BandCheck

T = TypeVar("T")


class ByRows:
    """The image of the file *data* on its way into one of *format*.

    Raises ImageError for what cannot be read, or goes by rows in no way.
    """

    def __init__(self, worker: Shared, data: Source, format: str, record: Record) -> None:
        self._worker, self._format, self._record = worker, format, record
        self._data = data
        settings = worker.settings
        source_format, head = format_of_bytes(data[: rows.HEAD_OF_KIND]), data[: rows.HEAD_OF_KIND]
        with images.decoding(record.source):
            decoded = rows.is_decoded_whole(head)
            if decoded:
                self._require_memory(data, source_format)
            self._reader = self._timed("read", rows.open, data, settings.max_pixels, True)
            header, self._notes = self._reader.header, tuple[str, ...]()
            if settings.gray:
                settings.require_gray(header.channels)
                header, self._notes = images.gray_header(header)
            self._within: Within | None = None
            filtered = header
            if settings.within:
                from cudafilter.jobs.within import within_of  # not before: most runs do without

                self._within, told = within_of(settings, header)
                self._notes += told
                if self._within.light is not None:
                    filtered = replace(header, dtype="float32")
            self._out = header
            if settings.background is not None:
                self._out, told = images.flat_header(header, settings.background)
                self._notes += told
            self._effort = Ways(settings.quality, settings.compress_level, settings.dither)
            encoded = rows.is_encoded_whole(format, self._out, self._effort)
        self._header = header
        self._dtype = np.dtype(filtered.dtype)
        self._size = header.height, header.width, header.channels
        self._bands = sizing.bands(filtered, self._reader.step, worker.filter, decoded, encoded)
        self._reading = Lock()
        self._fill_in()
        self._refuse(source_format, encoded)

    @property
    def memory(self) -> int:
        """Bytes that it takes."""
        return self._bands.memory

    def _require_memory(self, data: Source, source: str) -> None:
        """Raise ImageError where all pixels at once do not fit."""
        takes = sizing.footprint(data) // sizing.COPIES * sizing.DECODED
        _require_free(takes, f"{source.upper()} files of its kind are decoded as a whole")

    def _refuse(self, source: str, encoded: bool) -> None:
        """Raise ImageError for what cannot be done by rows."""
        worker = self._worker
        if (name := whole_of(worker.filter.unrolled(worker.border))) is not None:
            takes = _words(self._header.pixel_bytes * sizing.COPIES)
            raise ImageError(
                f"it would take about {takes} of memory, more than there is for images:"
                f" {name} needs the whole picture at once"
            )
        if encoded:
            why = f"{self._format.upper()} files are encoded as a whole"
        else:
            step = self._reader.step
            why = f"{source.upper()} files of its kind are decoded {step:,} rows at a time"
        _require_free(self._bands.memory, why)
        if worker.settings.check:
            from cudafilter.proof.bands import not_by_bands

            if (reason := not_by_bands(worker.filter, worker.border)) is not None:
                raise ImageError(f"it is too large to be checked in one piece: {reason}")

    def _fill_in(self) -> None:
        header, record = self._header, self._record
        record.height, record.width, record.channels = self._size
        record.colour, record.dtype = header.colour, header.dtype

    def write(self, target: Sink) -> None:
        """Filter it into *target*. Raises whatever one of the threads meets first."""
        worker, record, header = self._worker, self._record, self._header
        started = time.perf_counter()
        record.seconds |= dict.fromkeys(("decode", "run"), 0.0)
        engine = worker.engine.get()
        record.engine = engine.title
        name = "standard output" if record.destination == STDIO else record.destination
        read: Channel[Pixels] = Channel()
        done: Channel[Pixels] = Channel()
        flow = Flow(
            engine, worker.filter, worker.border, header.alpha, self._size,
            self._dtype, self._taken(read), self._reread,
            looked_at=worker.settings.check is not None or worker.settings.area is not None,
        )  # fmt: skip
        counted = Counted(target)

        def reading() -> None:
            for first, last in self._spans():
                read.put(self._rows(first, last))

        def filtering() -> None:
            check = self._checking()
            for first, last in self._spans():
                result = self._timed("run", flow.rows, first, last)
                own = None
                if worker.settings.area is not None:  # before the check lets go of these rows
                    halo = max(worker.filter.reach[:2])
                    own = flow.source(first, last, max(0, first - halo) if check else last)
                if check is not None:
                    self._check(check, flow, result, first)
                    if last == header.height:
                        require_proven(check.agreement)
                done.put(self._ended(own, result, first))

        threads = [_begun(work, (read, done)) for work in (reading, filtering)]
        try:
            with images.encoding(name):
                writer = rows.create(self._format, counted, self._out, **self._effort._asdict())
            for _, last in self._spans():
                result = done.take()
                worker.writing.require_open()
                with images.encoding(name):
                    self._timed("encode", writer.write, result)
                worker.on_rows(last, header.height, header.pixel_bytes)
            with images.encoding(name):
                self._timed("encode", writer.close)
        except BaseException as error:  # noqa: BLE001 - raised on, and the others wait
            for channel in (read, done):
                channel.fail(error)
            raise counted.error or error from None
        finally:
            for thread in threads:
                thread.join()
        record.bytes_out = counted.bytes
        record.engine_seconds = dict(flow.seconds)
        record.notes += tuple(flow.notes)
        record.elapsed = time.perf_counter() - started

    def finish(self) -> None:
        """Tell what the user should know."""
        record, header = self._record, self._header
        record.notes += (*self._reader.notes, *self._notes)
        _, lost = split(self._out.metadata, self._format, self._out.channels)
        record.notes += tuple(
            f"{self._format.upper()} does not hold {what}, which is left out" for what in lost
        )
        asked = self._worker.settings.asked(**self._effort._asdict())
        record.notes += unused_settings(self._format, **asked)
        whole = header.pixel_bytes * sizing.COPIES
        record.notes += (
            f"done by rows, {self._bands.rows:,} at a time: whole it would take about"
            f" {_words(whole)} of memory",
        )

    def _spans(self, end: int | None = None) -> Iterator[tuple[int, int]]:
        """The bands to row *end*, or of all rows."""
        step, height = self._bands.rows, self._header.height if end is None else end
        for first in range(0, height, step):
            yield first, min(first + step, height)

    def _rows(self, first: int, last: int, reader: Reader | None = None) -> Pixels:
        """Rows of the image by its reader or another one, gray if that is asked for."""
        reader = reader or self._reader
        with self._reading, images.decoding(self._record.source):
            found = self._timed("decode", reader.rows, first, last)
            if self._worker.settings.gray:
                found = images.gray_pixels(found, self._header.alpha)
            return found if self._within is None else self._within.begin(found)

    def _ended(self, own: Pixels | None, filtered: Pixels, first: int) -> Pixels:
        """The *filtered* rows from row *first* on as they are written; *own* are the source's."""
        settings, within, result = self._worker.settings, self._within, filtered
        if within is not None:
            source = filtered if own is None else own
            box = Rectangle(0, first, self._header.width, first + len(filtered))
            blended = within.blended(source, filtered, box)
            result = within.end(blended)
            if settings.check is not None:
                from cudafilter.jobs.within import require_ends

                require_ends(within, source, filtered, blended, result, box)
        if settings.background is not None and self._header.alpha:
            result = images.flat_pixels(result, settings.background)
        return result

    def _taken(self, channel: Channel[Pixels]) -> Iterator[Pixels]:
        """What comes from *channel*. The time that it takes is not the filter's."""
        while True:
            started = time.perf_counter()
            found = channel.take()
            self._record.seconds["run"] -= time.perf_counter() - started
            yield found

    def _reread(self, first: int, last: int) -> Pixels:
        """Rows from the other end, which a wrap border needs."""
        if not self._reader.in_order:
            return self._rows(first, last)
        reader = rows.open(self._data, self._worker.settings.max_pixels, by_rows=True)
        for top, bottom in self._spans(first):
            self._rows(top, bottom, reader)
        return self._rows(first, last, reader)

    def _timed(self, stage: str, work: Callable[..., T], *given: object) -> T:
        started = time.perf_counter()
        try:
            return work(*given)
        finally:
            seconds = self._record.seconds
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started

    def _checking(self) -> BandCheck | None:
        worker = self._worker
        if worker.settings.check is None:
            return None
        from cudafilter.proof.bands import BandCheck

        return BandCheck(
            worker.filter, worker.border, self._header.alpha, self._size,
            worker.settings.check == "quick",
        )  # fmt: skip

    def _check(self, check: BandCheck, flow: Flow, result: Pixels, first: int) -> None:
        """Raise DisagreementError unless *result*, from row *first* on, is what it should be."""
        worker, height = self._worker, self._header.height
        above, below, *_ = worker.filter.reach
        halo, last = max(above, below), first + len(result)
        top, bottom = first - halo, last + halo
        if not rereads(worker.filter, worker.border):
            top, bottom = max(0, top), min(height, bottom)
        index = border_index(top, bottom, height, "wrap")
        starts = np.flatnonzero(np.diff(index, prepend=index[0] - 2) != 1)
        keep = max(0, last - halo)
        parts = [
            flow.source(int(index[a]), int(index[b - 1]) + 1, keep)
            for a, b in zip(starts, (*starts[1:], len(index)), strict=True)
        ]
        source = parts[0] if len(parts) == 1 else np.concatenate(parts)
        with worker.checks:
            found = self._timed("check", check.add, result, first, source, first - top)
        self._record.agreement = found
        if not found.ok:
            raise DisagreementError(str(found), hint="nothing was written; please report this")


def _begun(work: Callable[[], None], channels: tuple[Channel[Pixels], ...]) -> Thread:
    """A thread that does *work*; what that raises, all *channels* raise."""

    def serve() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised on by the channels
            for channel in channels:
                channel.fail(error)

    thread = Thread(target=serve, name="rows", daemon=True)
    thread.start()
    return thread


def _require_free(takes: int, why: str) -> None:
    """Raise ImageError, which tells *why*, where *takes* bytes of memory are not free."""
    free = free_memory()
    if free is not None and takes > free:
        raise ImageError(
            f"it would take about {_words(takes)} of memory, and {_words(free)} are free: {why}",
            hint="convert it to TIFF in small strips or tiles first, which is read and written by"
            " rows",
        )


def _words(size: int) -> str:
    if size < 1e9:
        return f"{size / 1e6:,.1f} MB" if size < 1e7 else f"{size / 1e6:,.0f} MB"
    return f"{size / 1e9:,.1f} GB"
