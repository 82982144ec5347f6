"""An engine that is opened anew where its GPU fails for good, and what stands in for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from cudafilter.engines import Engine, Result, Screening
from cudafilter.engines.codecs import FileJob, FileResult, JpegPath, NotTaken, PngCodec
from cudafilter.engines.resident import Resident, resident_of
from cudafilter.errors import DeviceLost, EngineError, EngineUnavailable
from cudafilter.formats.png_path import Deflated, Unfiltered
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Buffer

T = TypeVar("T")

MOST_LOSSES = 4
"""Engines lost one after the other, with no image done between, after which none is opened anew. A
picture that kills each one it meets loses two; a JPEG that is left to a spare then, four; a PNG
three, as an engine in a process of its own codes none."""


class Mended:
    """*engine*, and after a DeviceLost what *again* opens, which raises EngineUnavailable.

    An image that was at work then is done again, once; those that only waited are not counted. For
    what fails all the same, *spare* opens an engine, whose results say so in their notes; without
    one the error is raised.
    """

    def __init__(
        self, engine: Engine, again: Callable[[], Engine], spare: Callable[[], Engine] | None = None
    ) -> None:
        self._engine = engine
        self._again = again
        self._open_spare = spare
        self._spare: Engine | None = None
        self._lock = threading.Lock()
        self._losses = 0
        """Since an image was done."""
        self._untold: list[str] = []
        self.name = engine.name
        self.title = engine.title
        self.note = engine.note
        self.parallel = engine.parallel
        codec = engine.jpeg
        self.jpeg: JpegPath | None = _MendedJpeg(self, codec.parallel) if codec else None
        self.png: PngCodec | None = _MendedPng(self) if engine.png else None

    def run(
        self,
        pixels: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
        *,
        overwrite: bool = False,
        rows: tuple[int, int] | None = None,
    ) -> Result:
        """See Engine.run. *overwrite* is not passed on: another engine may need the pixels."""

        def work(engine: Engine) -> Result:
            return engine.run(pixels, filter, border, alpha, rows=rows)

        try:
            done, notes = self.call(work)
        except EngineError as error:
            if (spare := self._opened_spare()) is None:
                raise
            done = work(spare)
            notes = self.told(f"done by {spare.title}: {error}")
        return done._replace(notes=done.notes + notes)

    def screen(
        self,
        source: Pixels,
        result: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
    ) -> Screening:
        """See Engine.screen. A spare is not asked: the host does it then."""

        def work(engine: Engine) -> Screening:
            return engine.screen(source, result, filter, border, alpha)

        done, notes = self.call(work)
        return done._replace(notes=done.notes + notes)

    def call(self, work: Callable[[Engine], T]) -> tuple[T, tuple[str, ...]]:
        """What *work* gives, and what the user should know. Raises what it raises on the last."""
        tries = 0
        while True:
            engine = self._engine
            try:
                done = work(engine)
            except DeviceLost as lost:
                tries += lost.begun
                if not self._replace(engine, lost) or tries > 1:
                    raise
            else:
                self._losses = 0
                return done, self.told()

    def resident(self, number: int) -> Resident | None:
        """See resident_of(); of the engine that it is by now."""
        return resident_of(self._engine, number)

    @property
    def has_spare(self) -> bool:
        """Whether anything does what fails on the GPU."""
        return self._open_spare is not None

    def step(
        self, shape: tuple[int, ...], dtype: str, filter: Operation, border: Border, alpha: bool
    ) -> int:
        """See Engine.step."""
        return self._engine.step(shape, dtype, filter, border, alpha)

    def close(self) -> None:
        """See Engine.close."""
        for engine in (self._engine, self._spare):
            if engine is not None:
                engine.close()

    def _replace(self, engine: Engine, lost: DeviceLost) -> bool:
        """Have another engine in place of *engine*, which is lost; whether there is one."""
        with self._lock:
            if self._engine is not engine:
                return True
            self._losses += 1
            if self._losses > MOST_LOSSES:
                return False
            try:
                opened = self._again()
            except EngineUnavailable as unavailable:
                self._losses = MOST_LOSSES
                self._untold.append(f"{engine.title} does not open again: {unavailable}")
                return False
            self._engine, self.title = opened, opened.title
            self._untold.append(f"{engine.title} was lost: {lost}; now {opened.title}")
        with suppress(EngineError):  # it has failed, as is told
            engine.close()
        return True

    def told(self, *notes: str) -> tuple[str, ...]:
        """What is still to be told, and *notes*."""
        if not self._untold:
            return notes
        with self._lock:
            untold, self._untold = self._untold, []
        return (*untold, *notes)

    def _opened_spare(self) -> Engine | None:
        with self._lock:
            if self._spare is None and self._open_spare is not None:
                self._spare = self._open_spare()
            return self._spare


class _MendedJpeg:
    """Engine.jpeg of a mended engine: that of the engine it is by then."""

    def __init__(self, engine: Mended, parallel: int) -> None:
        self._engine = engine
        self.parallel = parallel

    def filter(self, job: FileJob) -> FileResult:
        """See JpegPath.filter. With a spare, what fails is left to Mended.run."""

        def work(engine: Engine) -> FileResult:
            if engine.jpeg is None:
                raise NotTaken("the GPU that is left has no codec")
            return engine.jpeg.filter(job)

        try:
            done, notes = self._engine.call(work)
        except EngineError as error:
            if not self._engine.has_spare:
                raise
            raise NotTaken(str(error)) from error
        return replace(done, notes=done.notes + notes)


class _MendedPng:
    """Engine.png of a mended engine."""

    def __init__(self, engine: Mended) -> None:
        self._engine = engine

    def deflate(self, pixels: Pixels) -> Deflated:
        """See PngPath.deflate. An engine without a path leaves it to the host."""
        try:
            done, notes = self._engine.call(lambda engine: _png_of(engine).deflate(pixels))
        except NotTaken:
            return Deflated(notes=self._engine.told())
        return done._replace(notes=done.notes + notes)

    def unfilter(self, raw: Buffer, shape: tuple[int, int, int], itemsize: int) -> Unfiltered:
        """See PngPath.unfilter."""

        def work(engine: Engine) -> Unfiltered:
            return _png_of(engine).unfilter(raw, shape, itemsize)

        try:
            done, notes = self._engine.call(work)
        except NotTaken:
            return Unfiltered(notes=self._engine.told())
        return done._replace(notes=done.notes + notes)

    def filter(self, job: FileJob) -> FileResult:
        """See PngCodec.filter. With a spare, what fails is left to Mended.run."""

        def work(engine: Engine) -> FileResult:
            return _png_of(engine).filter(job)

        try:
            done, notes = self._engine.call(work)
        except DeviceLost as lost:
            if not self._engine.has_spare:
                raise
            raise EngineError(str(lost)) from lost
        return replace(done, notes=done.notes + notes)


def _png_of(engine: Engine) -> PngCodec:
    """What codes PNGs. Raises NotTaken where that is the host: no image is done then, as
    Mended.call() would count, and what is to be told stays so."""
    if engine.png is None:
        raise NotTaken("the GPU that is left has no codec")
    return engine.png
