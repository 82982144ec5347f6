"""What workers are told of a run, and where what they tell goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cudafilter.cli.options import Shared
from cudafilter.jobs import sizing
from cudafilter.jobs.hand import Task
from cudafilter.jobs.plan import Plan
from cudafilter.jobs.record import Record
from cudafilter.jobs.settings import Settings
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation


class Teller(Protocol):
    """Where a run's records go."""

    settings: Settings

    @property
    def engine_name(self) -> str:
        """The engine that was asked for, or that the job is small enough for."""
        ...

    def start(self, title: str, note: str | None = None) -> None:
        """Tell what begins."""
        ...

    def tell(self, record: Record) -> None:
        """Tell of one image."""
        ...

    def note(self, text: str) -> None:
        """Tell what concerns no single image."""
        ...


def task_of(
    plan: Plan,
    filter: Operation,
    border: Border,
    shared: Shared,
    settings: Settings,
    engine: str,
    folder: str,
    environment: Mapping[str, str],
) -> Task:
    """What workers do with each image of *plan*; *folder* is the one that relative paths count
    from."""
    return Task(
        filter, border, settings,
        engine=engine,
        variant=shared.variant,
        codec=shared.codec,
        on_gpu_failure=shared.on_gpu_failure,
        threads=shared.jobs,
        for_each_core=sizing.for_each_core(plan.jobs),
        folder=folder,
        environment=environment,
    )  # fmt: skip
