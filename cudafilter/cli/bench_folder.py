"""``cudafilter bench --folder``: what a run over a folder takes, and what bounds it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import click

from cudafilter.cli.command import FAILURE
from cudafilter.cli.left import left_lines
from cudafilter.cli.progress import progress
from cudafilter.cli.report import tell_refused
from cudafilter.cli.terminal import put, tell
from cudafilter.engines import open as engines
from cudafilter.engines.bench import bench_filter
from cudafilter.errors import CudafilterError
from cudafilter.host.escape import escaped_name
from cudafilter.host.memory import keep_freed_memory
from cudafilter.jobs import sizing
from cudafilter.jobs.bound import percent
from cudafilter.jobs.measure import (
    Measured,
    Results,
    buses_of,
    measure,
    plan_of,
    removed,
    room_for_results,
)  # fmt: skip
from cudafilter.jobs.record import FAILED, Record
from cudafilter.jobs.settings import Settings

FILTER = "blur"
"""What is measured where no filter is named."""

WIDTH = 80

PARTS = 4
"""Parts of the pictures' time that are told, the largest first."""


def run(
    folder: str,
    names: Sequence[str],
    *,
    seconds: float,
    engine: str,
    variant: str,
    gpu: int | None,
    codec: str,
    check: str | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Measure each of the filters *names* over *folder*, and print what was found.

    Exits with 1 where a picture failed, as a run does.
    """
    filters = [bench_filter(name) for name in names or [FILTER]]
    plan, into = plan_of(folder)
    tell_refused(plan)
    for line in left_lines(plan.left):
        tell(line)
    note = None
    if engine == "auto" and variant == "auto" and gpu is None:
        note = sizing.small(plan.jobs, filters[0])
    if note is not None:
        engine = "cpu"
    opened = engines.open_engine(engine, gpu=gpu, variant=variant, codec=codec, several=plan.many)
    note = note or opened.note
    tell(opened.title + (f"; {note}" if note else ""))
    settings = Settings(check=check, engine_codec=engine != "cpu" and codec != "cpu")
    keep_freed_memory()
    results, buses = Results(room_for_results(into.parent)), buses_of(opened, gpu)
    found = []
    # All is imported by now, for an interruption of an import ends the process at once.
    with removed(into):
        for filter in filters:
            bar = progress(len(plan.jobs))

            def told(record: Record, bar: Any = bar) -> None:
                if record.status == FAILED:
                    bar.clear()
                    hint = f" ({record.hint})" if record.hint else ""
                    tell(f"error: {record.source}: {record.error}{hint}")
                bar.advance(worked=True)

            try:
                found.append(
                    measure(
                        plan, filter, opened, settings, results, told,
                        seconds=seconds, jobs=jobs, buses=buses,
                    )
                )  # fmt: skip
            finally:
                bar.close()
            for text, count in found[-1].notes.items():
                tell(f"note: {text} ({count:,} image{'s' * (count > 1)})")
            if not as_json:
                put("\n".join(lines(found[-1], folder)))
    opened.close()
    if as_json:
        put(_json(folder, opened.title, note, found))
    if not any(each.pictures for each in found):
        raise CudafilterError(f"{folder}: no image could be done")
    if plan.refused or any(each.failed for each in found):
        click.get_current_context().exit(FAILURE)


def _json(folder: str, title: str, note: str | None, found: Sequence[Measured]) -> str:
    import json

    runs = []
    for measured in found:
        data = asdict(measured)
        data["gpus"] = [{"number": n, **busy._asdict()} for n, busy in measured.gpus.items()]
        data["bound"] = measured.bound._asdict() if measured.bound else None
        runs.append(data)
    return json.dumps({"folder": folder, "engine": title, "note": note, "runs": runs}, indent=2)


def lines(measured: Measured, folder: str) -> Iterator[str]:
    """*measured* as lines of WIDTH columns at most, but for long names of folders."""
    yield ""
    failed = f", {measured.failed} failed" if measured.failed else ""
    yield (
        f"{measured.filter} of {escaped_name(folder)}: {measured.pictures:,} of {measured.of:,}"
        f" pictures in {measured.seconds:.2f} s{failed}"
    )
    if not measured.pictures:
        return
    wall = measured.seconds
    yield _row(
        "speed",
        f"{_figure(measured.pictures / wall)} pictures/s",
        f"{_mb(measured.bytes_in / wall)} in",
        f"{_mb(measured.bytes_out / wall)} out",
    )
    yield from _listed("stages", measured.stages)
    yield from _listed("mostly", dict(islice(measured.parts.items(), PARTS)))
    if measured.engine_seconds:
        of_wall = {name: spent / wall for name, spent in measured.engine_seconds.items()}
        yield from _listed("engine", of_wall)
    yield _row(
        "in work",
        f"{measured.in_work:.1f} pictures at a time",
        f"{_figure(1e3 * measured.cpu_seconds_each)} ms of cores for each",
    )
    others = measured.cores_others
    yield _row(
        "cores",
        f"{measured.cores_busy:.1f} of {measured.cores} busy",
        "" if others is None else f"other programs {others:.1f}",
    )
    yield _row("disk", *_disk(measured))
    for number, busy in measured.gpus.items():
        told = {"kernels": busy.kernels, "memory": busy.memory, "JPEG units": busy.jpeg}
        shares = {name: share for name, share in told.items() if share is not None}
        yield from _listed(f"GPU {number}", shares)
    if measured.gpus_untold:
        yield _row("GPU", measured.gpus_untold)
    if measured.memory is not None:
        yield _row("memory", f"{measured.memory / 2**20:,.0f} MiB at most")
    if measured.bound is not None:
        yield f"bound: {measured.bound.told}"
        yield f"hint: {measured.bound.hint}"


def _disk(measured: Measured) -> Iterator[str]:
    if measured.read_per_second is None or measured.fetched_per_second is None:
        yield "the system does not tell"
        return
    yield f"read {_mb(measured.fetched_per_second)}"
    cached = max(0.0, measured.read_per_second - measured.fetched_per_second)
    yield f"{_mb(cached)} more from the cache"
    if measured.stored_per_second is not None:
        yield f"written {_mb(measured.stored_per_second)}"


def _mb(per_second: float) -> str:
    return f"{_figure(per_second / 1e6)} MB/s"


def _figure(value: float) -> str:
    """*value* to three digits, or to one place where it is small."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value >= 1 else f"{value:.1f}"


def _row(name: str, *facts: str) -> str:
    return f"  {name:8}" + ", ".join(filter(None, facts))


def _listed(name: str, shares: dict[str, float]) -> Iterator[str]:
    """*shares* in percent, in as few lines as hold them."""
    facts = [f"{part} {percent(share)}" for part, share in shares.items()] or ["tells nothing"]
    row: list[str] = []
    for fact in facts:
        if row and len(_row(name, *row, fact)) > WIDTH - 1:
            yield _row(name, *row) + ","
            name, row = "", []
        row.append(fact)
    yield _row(name, *row)
