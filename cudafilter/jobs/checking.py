"""A result held to the reference, by the host or by the device that has it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, NoReturn

from cudafilter.engines import Engine
from cudafilter.errors import DisagreementError, EngineError, UnprovenError
from cudafilter.jobs.frames import both
from cudafilter.jobs.record import Record
from cudafilter.jobs.settings import Shared
from cudafilter.operations.choices import CHECKS
from cudafilter.operations.pixels import Pixels

if TYPE_CHECKING:
    from cudafilter.proof.agreement import Agreement
    from cudafilter.proof.screened import Screened


def screen(
    run: Shared, engine: Engine, result: Pixels, source: Pixels, alpha: bool, record: Record
) -> Screened | None:
    """What *engine* proves of *result*; None where the host is to do it all."""
    if run.settings.check != CHECKS[0]:
        return None
    try:
        told = engine.screen(source, result, run.filter, run.border, alpha)
    except EngineError as error:
        record.notes += (f"checked on the CPU: {error}",)
        return None
    record.notes += told.notes
    return told.screened


def check(
    run: Shared,
    result: Pixels,
    source: Pixels,
    alpha: bool,
    record: Record,
    screened: Screened | None = None,
    where: str = "",
) -> None:
    """Raise DisagreementError unless *result* is what *source* is to become, and UnprovenError
    where of none of its samples that can be told.

    *where* begins what it says, such as the number of a frame.
    """
    from cudafilter.check import compare

    quick = run.settings.check == CHECKS[1]
    # Some samples, or what a device has proven, leave little to do: each thread does its own.
    with nullcontext() if quick or screened else run.checks:
        run.writing.require_open()
        found = compare(result, source, run.filter, run.border, alpha, quick=quick, screen=screened)
    _settle(found, record, where)


def check_rows(
    run: Shared, result: Pixels, first: int, source: Pixels, alpha: bool, record: Record, where: str
) -> None:
    """check() for *result*, rows from row *first* on of what *source* is to become."""
    from cudafilter.check import QUICK, at_random, compare_rows

    quick = run.settings.check == CHECKS[1]
    places = at_random(result.size) if quick and result.size > QUICK else None
    with nullcontext() if quick else run.checks:
        run.writing.require_open()
        found = compare_rows(result, first, source, run.filter, run.border, alpha, places)
    _settle(found, record, where)


def _settle(found: Agreement, record: Record, where: str) -> None:
    if found.note:
        record.add_notes((found.note,))
    told = found.ok and found.proves
    record.agreement = both(record.agreement, found) if told else found
    if not found.ok:
        disagree(f"{where}{found}")
    require_proven(found, where)


def disagree(what: str) -> NoReturn:
    """Raise DisagreementError."""
    raise DisagreementError(what, hint="nothing was written; please report this")


def require_proven(found: Agreement, where: str = "") -> None:
    """Raise UnprovenError where *found* proves no sample."""
    if not found.proves:
        raise UnprovenError(
            f"{where}{found}",
            hint="nothing was written; each step of a chain can be proven by itself",
        )
