"""Files that the engine decodes and encodes itself."""

from __future__ import annotations

from cudafilter.engines.codecs import FileJob, FileResult, NotTaken, PngCodec
from cudafilter.errors import DeviceLost, EngineError, ImageError
from cudafilter.formats.table import format_of_bytes, unused_settings
from cudafilter.jobs import sizing
from cudafilter.jobs.checking import check
from cudafilter.jobs.record import Record
from cudafilter.jobs.settings import Shared
from cudafilter.operations.choices import CHECKS
from cudafilter.stores.buffers import Buffer


def png_of(run: Shared) -> PngCodec | None:
    """Engine.png, if the engine is open: nothing is read later for it."""
    return run.engine.get().png if run.engine.is_set else None


def by_engine(
    run: Shared, data: bytes, format: str, record: Record, screen: bool = True
) -> Buffer | None:
    """The file filtered by the engine's own codec; None where the host's must do it.

    *screen* says that the device may prove the result.
    """
    settings = run.settings
    if not settings.offers_codec or format_of_bytes(data) != format:
        return None
    by = {"jpeg": _jpeg, "png": _png}.get(format)
    proving = screen and settings.check == CHECKS[0]
    if by is None or (done := by(run, data, record, proving)) is None:
        return None
    record.engine, record.engine_seconds = run.engine.get().title, done.seconds
    record.width, record.height, record.channels = done.width, done.height, done.channels
    record.colour, record.dtype = done.colour, done.dtype
    record.add_notes(done.notes)
    if settings.check:
        from cudafilter.proof.screened import Unsettled

        assert done.kept is not None
        source, result = done.kept
        try:
            with run.stage("check", record):
                check(run, result, source, done.alpha, record, done.screened)
        except Unsettled as why:
            record.notes += (f"filtered again, and checked on the CPU: {why}",)
            return by_engine(run, data, format, record, screen=False)
    record.notes += unused_settings(format, **settings.asked(**settings.effort))
    return done.data


def _job(run: Shared, data: bytes, proving: bool) -> FileJob:
    """What *run* asks of the file *data*; *proving* says that the device may prove the result."""
    settings = run.settings
    kept = settings.check is not None
    return FileJob(data, run.filter, run.border, settings.gray, settings.quality, kept, proving)


def _jpeg(run: Shared, data: bytes, record: Record, proving: bool) -> FileResult | None:
    settings, engine = run.settings, run.engine.get()
    if engine.jpeg is None:
        return None
    sizing.require_size(data, settings.max_pixels)
    with run.stage("run", record):
        try:
            return engine.jpeg.filter(_job(run, data, proving))
        except NotTaken as reason:
            record.notes += (f"decoded and encoded on the CPU: {reason}",)
            return None


def _png(run: Shared, data: bytes, record: Record, proving: bool) -> FileResult | None:
    settings, png = run.settings, png_of(run)
    plain = settings.compress_level is None and settings.background is None
    if png is None or not plain or settings.frames is not None:
        return None
    with run.stage("run", record):
        try:
            sizing.require_size(data, settings.max_pixels)
            return png.filter(_job(run, data, proving))
        except (ImageError, NotTaken):  # the host tells what is wrong
            return None
        except DeviceLost:
            raise
        except EngineError as error:
            record.notes += (f"filtered again by way of the host: {error}",)
            return None
