"""Plans through a crew, told on stderr and in the report as they go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cudafilter.cli.command import FAILURE, INTERRUPTED, preset_names
from cudafilter.cli.options import Shared
from cudafilter.cli.report import JsonLines, Reporter, job_facts
from cudafilter.cli.terminal import tell
from cudafilter.cli.within import area_of
from cudafilter.engines import Engine
from cudafilter.engines import open as engines
from cudafilter.errors import CudafilterError
from cudafilter.host.memory import keep_freed_memory
from cudafilter.jobs import crew, sizing
from cudafilter.jobs.plan import Plan
from cudafilter.jobs.record import FAILED, LEFT, Record
from cudafilter.jobs.worker import Settings
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation
from cudafilter.start.garbage import collect_again
from cudafilter.start.words import are_worth_processes

if TYPE_CHECKING:
    from cudafilter.jobs.journal import Journal
    from cudafilter.jobs.processes import Processes
    from cudafilter.operations.area import Area


def run(
    plans: Iterable[Plan],
    filter: Operation,
    border: Border,
    shared: Shared,
    parameters: Mapping[str, Any],
    begun: Processes | None = None,
) -> None:
    """Do *plans*, one after the other, and exit with 1 where anything failed.

    *parameters* are those of *filter*; the report tells them. *begun* are processes that wait for
    what the first plan has.
    """
    area = area_of(shared.mask, shared.region, shared.feather, shared.max_pixels)
    keep_freed_memory()
    reporter = Reporter(shared)
    with ExitStack() as journals:
        _run(plans, filter, border, shared, area, parameters, reporter, journals, begun)
    if reporter.failed:
        click.get_current_context().exit(FAILURE)


def _run(
    plans: Iterable[Plan],
    filter: Operation,
    border: Border,
    shared: Shared,
    area: Area | None,
    parameters: Mapping[str, Any],
    reporter: Reporter,
    journals: ExitStack,
    begun: Processes | None,
) -> None:
    engine = journal = None
    failed = False
    with JsonLines(shared.report, job_facts(filter, parameters, border, shared)) as report:
        try:
            for plan in plans:
                one = _Run(plan, filter, shared, area, reporter, report, engine)
                reporter.add(plan)
                if shared.in_place:
                    journal = journals.enter_context(
                        _open_journal(plan, filter, border, shared, area)
                    )
                if shared.cluster is not None:
                    from cudafilter.cli.cluster import run_on

                    run_on(plan, filter, border, shared, one)
                    failed = one.failed
                    continue
                several = shared.processes or begun or are_worth_processes(len(plan.jobs))
                if shared.may_share_out and several:
                    from cudafilter.cli.processes import run_in

                    if run_in(plan, filter, border, shared, one, begun):
                        failed = one.failed
                        continue
                crew.run(
                    plan.jobs, one.opened, filter, border, one.settings, one.tell,
                    threads=shared.jobs, journal=journal, on_rows=reporter.rows,
                )  # fmt: skip
                engine, failed = one.engine, one.failed
        except KeyboardInterrupt:
            # The engine stays open: it may be at work, and the process ends at once.
            reporter.finish(interrupted=True)
            _close(journal, False, shared)
            click.get_current_context().exit(INTERRUPTED)
        finally:
            reporter.clear()
    if engine is not None:
        engine.close()
    reporter.finish()
    # Last: a run that is killed after that has nothing to be finished.
    _close(journal, not failed, shared)


def _open_journal(
    plan: Plan, filter: Operation, border: Border, shared: Shared, area: Area | None
) -> Journal:
    from platformdirs import user_state_path

    from cudafilter.jobs.journal import Journal, job_of

    journal = Journal(
        user_state_path("cudafilter") / "in-place",
        # The others change how fast a job is done, or how large its files are.
        job_of(filter, border, *_pixels(shared), area and area.told),
        filter.name,
        (job.source for job in plan.jobs if isinstance(job.source, Path)),
    )
    for note in journal.notes:
        _note(note, shared)
    return journal


def _pixels(shared: Shared) -> tuple[object, ...]:
    """The options that count for pixels, beside the filter's own, the border and the area."""
    return shared.gray, shared.quality, shared.dither, shared.linear, shared.background


def _close(journal: Journal | None, finished: bool, shared: Shared) -> None:
    if journal is not None and (kept := journal.close(finished)) is not None:
        _note(kept, shared)


def _note(text: str, shared: Shared) -> None:
    if not shared.quiet:
        tell(f"note: {text}")


class _Run:
    """One plan: which engine, opened when the crew asks for it, and where its records go."""

    def __init__(
        self,
        plan: Plan,
        filter: Operation,
        shared: Shared,
        area: Area | None,
        reporter: Reporter,
        report: JsonLines,
        engine: Engine | None,
    ) -> None:
        self._plan, self._shared = plan, shared
        self._reporter, self._report = reporter, report
        self.engine = engine
        self.failed = False
        """Whether an image failed that a second run might do."""
        self._name, self._note = shared.engine, None
        if engine is None and not shared.watch and _is_free_to_choose(shared):
            self._note = sizing.small(plan.jobs, filter)
        if self._note is not None:
            self._name = "cpu"
        self.settings = Settings(
            gray=shared.gray,
            area=area,
            linear=shared.linear,
            background=shared.background,
            check=shared.check,
            quality=shared.quality,
            compress_level=shared.compress_level,
            dither=shared.dither,
            frames=(range(1),) if shared.first_frame else shared.frames,
            max_pixels=shared.max_pixels,
            strict=shared.strict,
            engine_codec=self._name != "cpu" and shared.codec != "cpu",
            usual=preset_names(click.get_current_context()),
        )

    def opened(self) -> Engine:
        """The engine; the first call opens it and tells what the plan refuses."""
        if self.engine is None:
            engines.preload(self._name)
            self._reporter.imported()
            self.engine = engines.open_engine(
                self._name,
                gpu=self._shared.gpu,
                variant=self._shared.variant,
                codec=self._shared.codec,
                several=self._plan.many,
                on_gpu_failure=self._shared.on_gpu_failure,
            )
            if self._note is not None:
                self.engine.note = self._note
            opening = "context" if self.engine.name == "cuda" else "opening"
            self._reporter.start(self.engine.title, self.engine.note, opening)
            collect_again()
        self._tell_refused()
        return self.engine

    @property
    def engine_name(self) -> str:
        """The engine that was asked for, or that the job is small enough for."""
        return self._name

    def start(self, title: str, note: str | None = None) -> None:
        """Tell that workers begin, in place of an engine; *title* says which."""
        self._reporter.imported()
        self._reporter.start(title, self._note or note)
        collect_again()
        self._tell_refused()

    def note(self, text: str) -> None:
        """Tell what concerns no single image."""
        self._reporter.note(text)

    def _tell_refused(self) -> None:
        for record in self._plan.records():
            if record.status == LEFT:
                self._write(record)  # the totals tell the rest
            else:
                self.tell(record)

    def tell(self, record: Record) -> None:
        """Tell of one image."""
        if self._shared.watch:
            from cudafilter.jobs.watch import gone

            if gone(record):
                return
        self.failed = self.failed or (record.status == FAILED and record.destination != "")
        self._write(record)
        self._reporter.record(record)

    def _write(self, record: Record) -> None:
        try:
            self._report.write(record)
        except CudafilterError as error:
            self._reporter.report_lost(error)


def _is_free_to_choose(shared: Shared) -> bool:
    """Whether the user left the choice between GPU and CPU open."""
    free = shared.engine == "auto" and shared.gpu is None and shared.variant == "auto"
    return free and shared.cluster is None
