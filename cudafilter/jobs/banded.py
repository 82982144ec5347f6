"""A picture that goes through in bands: its rows are read, filtered and written side by side.

One thread reads bands and one filters and checks them; the worker's own writes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Lock, Thread
from typing import TYPE_CHECKING

import numpy as np

from cudafilter import images
from cudafilter.engines import Engine
from cudafilter.engines.flow import Flow, rereads
from cudafilter.formats import rows
from cudafilter.formats.metadata import split
from cudafilter.formats.rows import Header, Reader, Writer
from cudafilter.formats.table import Ways
from cudafilter.jobs import sizing
from cudafilter.jobs.checking import disagree, require_proven
from cudafilter.jobs.frames import both
from cudafilter.jobs.record import Record
from cudafilter.jobs.settings import Shared
from cudafilter.jobs.waiting import Channel
from cudafilter.operations.borders import border_index
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.region import Rectangle

if TYPE_CHECKING:
    from cudafilter.engines.within import Within
    from cudafilter.proof.agreement import Agreement
    from cudafilter.proof.bands import BandCheck


class Banded:
    """The picture *header*, at which *reader* is, on its way into a file of *format*.

    *reopened* gives the reader once more. *decoded* is how many times its pixels the picture takes
    in memory because it is decoded as a whole, 0 where it is not; *where* begins what a check
    says. Raises ImageError where it cannot be treated as the settings say.
    """

    def __init__(
        self,
        worker: Shared,
        record: Record,
        header: Header,
        reader: Reader,
        reopened: Callable[[], Reader],
        format: str,
        decoded: int,
        where: str,
    ) -> None:
        self._worker, self._record, self._where = worker, record, where
        self._reader, self._reopened = reader, reopened
        settings = worker.settings
        self._told = tuple[str, ...]()
        if settings.gray:
            settings.require_gray(header.channels)
            header, self._told = images.gray_header(header)
        self._within: Within | None = None
        filtered = header
        if settings.within:
            from cudafilter.jobs.within import within_of  # not before: most runs do without

            self._within, told = within_of(settings, header)
            self._told += told
            if self._within.light is not None:
                filtered = replace(header, dtype="float32")
        self.header = header
        """Of the picture that is filtered."""
        self.out = header
        """Of the picture that is written."""
        if settings.background is not None:
            self.out, told = images.flat_header(header, settings.background)
            self._told += told
        metadata, lost = split(self.out.metadata, format, self.out.channels)
        self.out = replace(self.out, metadata=metadata)
        self._told += tuple(
            f"{format.upper()} does not hold {what}, which is left out" for what in lost
        )
        effort = Ways(settings.quality, settings.compress_level, settings.dither)
        self.is_encoded_whole = rows.is_encoded_whole(format, self.out, effort)
        self._dtype = np.dtype(filtered.dtype)
        self._size = header.height, header.width, header.channels
        encoded = sizing.encoded(format) if self.is_encoded_whole else 0
        self.bands = sizing.bands(filtered, reader.step, worker.filter, decoded, encoded)
        self._reading = Lock()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was converted; complete when the picture is written."""
        return (*self._reader.notes, *self._told)

    def write(
        self, engine: Engine, writer: Writer, name: str, on_rows: Callable[[int], None]
    ) -> None:
        """Filter it with *engine* into *writer* of the file *name*.

        *on_rows* is told how many rows are written. Raises whatever one of the threads meets first.
        """
        worker, record, header = self._worker, self._record, self.header
        read: Channel[Pixels] = Channel()
        done: Channel[Pixels] = Channel()
        flow = Flow(
            engine, worker.filter, worker.border, header.alpha, self._size,
            self._dtype, self._taken(read), self._reread,
            looked_at=worker.settings.check is not None or worker.settings.area is not None,
        )  # fmt: skip

        def reading() -> None:
            for first, last in self._spans():
                read.put(self._rows(first, last))

        def filtering() -> None:
            check, before = self._checking(), record.agreement
            for first, last in self._spans():
                with worker.stage("run", record):
                    result = flow.rows(first, last)
                own = None
                if worker.settings.area is not None:  # before the check lets go of these rows
                    halo = max(worker.filter.reach[:2])
                    own = flow.source(first, last, max(0, first - halo) if check else last)
                if check is not None:
                    found = self._check(check, flow, result, first)
                    record.agreement = both(before, found)
                    if last == header.height:
                        require_proven(check.agreement, self._where)
                done.put(self._ended(own, result, first))

        threads = [_begun(work, (read, done)) for work in (reading, filtering)]
        try:
            for _, last in self._spans():
                result = done.take()
                with worker.stage("encode", record), images.encoding(name):
                    writer.write(result)
                on_rows(last)
        except BaseException as error:  # the others wait
            for channel in (read, done):
                channel.fail(error)
            raise
        finally:
            for thread in threads:
                thread.join()
        record.took(flow.seconds, flow.notes)

    def _spans(self, end: int | None = None) -> Iterator[tuple[int, int]]:
        """The bands to row *end*, or of all rows."""
        step, height = self.bands.rows, self.header.height if end is None else end
        for first in range(0, height, step):
            yield first, min(first + step, height)

    def _rows(self, first: int, last: int, reader: Reader | None = None) -> Pixels:
        """Rows of the image by its reader or another one, gray if that is asked for."""
        reader = reader or self._reader
        with self._reading, images.decoding(self._record.source):
            with self._worker.stage("decode", self._record):
                found = reader.rows(first, last)
            if self._worker.settings.gray:
                found = images.gray_pixels(found, self.header.alpha)
            return found if self._within is None else self._within.begin(found)

    def _ended(self, own: Pixels | None, filtered: Pixels, first: int) -> Pixels:
        """The *filtered* rows from row *first* on as they are written; *own* are the source's."""
        settings, within, result = self._worker.settings, self._within, filtered
        if within is not None:
            source = filtered if own is None else own
            box = Rectangle(0, first, self.header.width, first + len(filtered))
            blended = within.blended(source, filtered, box)
            result = within.end(blended)
            if settings.check is not None:
                from cudafilter.jobs.within import CHECKED_LIGHT, require_ends

                if within.light is not None:
                    self._record.add_notes((CHECKED_LIGHT,))
                require_ends(within, source, filtered, blended, result, box, self._where)
        if settings.background is not None and self.header.alpha:
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
        reader = self._reopened()
        for top, bottom in self._spans(first):
            self._rows(top, bottom, reader)
        return self._rows(first, last, reader)

    def _checking(self) -> BandCheck | None:
        worker = self._worker
        if worker.settings.check is None:
            return None
        from cudafilter.proof.bands import BandCheck

        return BandCheck(
            worker.filter, worker.border, self.header.alpha, self._size,
            worker.settings.check == "quick",
        )  # fmt: skip

    def _check(self, check: BandCheck, flow: Flow, result: Pixels, first: int) -> Agreement:
        """What the bands show with *result*, which begins at row *first*.

        Raises DisagreementError unless it is what it should be.
        """
        worker, height = self._worker, self.header.height
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
        with worker.checks, worker.stage("check", self._record):
            found = check.add(result, first, source, first - top)
        if not found.ok:
            self._record.agreement = found
            disagree(f"{self._where}{found}")
        return found


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
