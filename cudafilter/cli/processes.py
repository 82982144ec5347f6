"""--processes: what of a run goes to worker processes on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from cudafilter.cli.command import preset_names
from cudafilter.cli.options import Shared
from cudafilter.cli.tasks import Teller, task_of
from cudafilter.errors import EngineError, EngineUnavailable, ParameterError
from cudafilter.host.cores import cores
from cudafilter.jobs import sizing
from cudafilter.jobs.hand import Opened
from cudafilter.jobs.job import Job
from cudafilter.jobs.plan import Plan
from cudafilter.jobs.processes import Processes
from cudafilter.jobs.serving import Early
from cudafilter.jobs.target import target_of
from cudafilter.jobs.workers import Node, Place, Run, require_files
from cudafilter.nvidia.devices import Devices, devices, title_of
from cudafilter.nvidia.nvjpeg import find
from cudafilter.nvidia.toolkit import no_gpu
from cudafilter.operations.borders import Border
from cudafilter.operations.choices import CODECS, UNITS, gpu_numbers
from cudafilter.operations.operation import Operation, only_stage, whole_of
from cudafilter.start import words
from cudafilter.stores.url import is_url

MOST = 3
"""Processes for one GPU; for several, they have a share each, and two at least. Whole commands of
2,048 JPEGs did 432 a second by two processes on one H200, 479 by three and 438 by four. Two of
them, before pictures were encoded beside decoding, did 461 by four and 386 by eight."""

CORES = 4
"""Fewest cores of a process. A picture takes 2 ms of a core, and up to 20 where the units cannot
take it."""

MEMORY = 6 << 30
"""Bytes of a GPU's memory for each process on it: a context, and what its pictures take there."""


def begun(
    names: Sequence[str], destination: str, filter: Operation, shared: Shared
) -> Processes | None:
    """Processes that are likely to be needed, by the *names* of files that go to *destination*.

    They import and start their GPUs while the plan is made. None where one process is to do it, and
    where that is not yet clear.
    """
    if shared.format is not None and target_of(shared.format).format != "jpeg":
        return None
    if is_url(destination) or not _is_short(filter, Border(shared.border, shared.border_value)):
        return None
    places = _by_itself(sum(words.any_jpeg([name]) for name in names), shared)
    with suppress(EngineError):  # one process can do it, too
        return Processes(places, Early("cuda", None, jpeg=True, units=True)) if places else None
    return None


def run_in(
    plan: Plan,
    filter: Operation,
    border: Border,
    shared: Shared,
    told: Teller,
    begun: Processes | None,
) -> bool:
    """Do *plan* in processes, those that have *begun* or others; False where one is to do it."""
    asked = shared.processes is not None
    engine = told.engine_name
    if asked:
        engine, places = _asked_for(plan, shared, engine)
        if places:
            try:
                require_files(plan.jobs, "processes")
            except ParameterError:
                if not _is_preset():
                    raise
                places = []
    elif engine == "cpu" or not told.settings.offers_codec or not _is_short(filter, border):
        places = []
    else:
        engine, places = "cuda", _by_itself(sum(map(_is_jpeg, plan.jobs)), shared)
    if begun is not None and begun.places != places:
        begun.leave()
        begun = None
    if not places:
        return False
    jpeg = told.settings.offers_codec and any(map(_is_jpeg, plan.jobs))
    try:
        joined = begun or Processes(places, Early(engine, None, jpeg, jpeg and engine == "cuda"))
    except EngineError:
        if asked:
            raise
        return False

    def start(opened: Opened) -> None:
        told.start(f"{_title(opened, places)}, in {len(places)} processes", opened.note)

    try:
        task = task_of(plan, filter, border, shared, told.settings, engine, os.curdir, {})
        if engine == "cuda" and shared.codec == CODECS[0]:
            # Cores would have no more done by several processes than by one.
            task = task._replace(codec=UNITS)
        run = Run(joined, places, plan.jobs, task, told.tell, told.note)
        try:
            run.work(start)
        except (EngineError, EngineUnavailable) as error:
            unavailable = engine == "cuda" and isinstance(error, EngineUnavailable)
            if run.begun or (asked and (_insists(shared) or not unavailable)):
                raise
            return False  # one process does it, and says what is wrong
    finally:
        joined.leave()
    return True


def require_possible(shared: Shared) -> None:
    """Raise click.UsageError where the options do not go with several processes that were asked
    for in this run."""
    if (shared.processes or 0) < 2 or _is_preset():
        return
    if shared.cluster is not None:
        raise click.UsageError("--cluster has processes of its own, one for each GPU")
    if shared.in_place:
        raise click.UsageError("--in-place keeps a journal, which one process writes")
    if shared.watch:
        raise click.UsageError("--watch does not end, and --processes is for one job")


def _is_preset() -> bool:
    """Whether --processes is the user's preset: what it is not for is then for one process."""
    return "processes" in preset_names(click.get_current_context())


def _is_short(filter: Operation, border: Border) -> bool:
    """Whether a GPU's codec takes JPEGs for *filter*: it is one pass over their pixels.

    What needs a whole picture may take all memory, so it is for one process.
    """
    plan = filter.unrolled(border)
    return not plan or (only_stage(plan) is not None and whole_of(plan) is None)


def _is_jpeg(job: Job) -> bool:
    """Whether *job* has a file become a JPEG that is one by its name."""
    if job.skip or job.format != "jpeg" or not isinstance(job.source, Path):
        return False
    return isinstance(job.destination, Path) and words.any_jpeg([job.source.name])


def _title(opened: Opened, places: Sequence[Place]) -> str:
    """The engines at *places*, one of which has *opened*."""
    numbers = sorted({place.device for place in places if place.device is not None})
    if len(numbers) < 2:
        return opened.title
    every = devices().every
    return title_of({number: every[number].name for number in numbers})


def _insists(shared: Shared) -> bool:
    """Whether nothing but a GPU will do."""
    return shared.engine == "cuda" or shared.gpu is not None or shared.variant != "auto"


def _asked_for(plan: Plan, shared: Shared, engine: str) -> tuple[str, list[Place]]:
    """The engine, and the places of as many processes as were asked for."""
    assert shared.processes is not None
    count = min(shared.processes, len(plan.jobs), shared.jobs or shared.processes)
    if count < 2:
        return engine, []
    if engine == "auto" and no_gpu() is None and devices().every:
        engine = "cuda"
    if engine != "cuda":  # with auto they say why
        return engine, [] if _insists(shared) else placed([None] * count)
    numbers = _numbers(shared, devices())
    return engine, placed([numbers[n % len(numbers)] for n in range(count)] if numbers else [])


def _by_itself(jpegs: int, shared: Shared) -> list[Place]:
    """Places of the processes that pay for so many *jpegs*; none where one process is as fast."""
    if not words.are_worth_processes(jpegs) or no_gpu() is not None:
        return []
    found = devices()
    numbers = _numbers(shared, found)
    if not numbers or find(found.driver) is None:
        return []
    room = min(found.every[number].memory for number in numbers) // MEMORY
    each = min(max(2, MOST // len(numbers)), room)
    count = min(each * len(numbers), cores() // CORES, shared.jobs or sizing.MOST_THREADS)
    return placed([numbers[n % len(numbers)] for n in range(count)]) if count > 1 else []


def _numbers(shared: Shared, found: Devices) -> list[int]:
    """The GPUs to be used; none where one is asked for that is not there."""
    numbers = gpu_numbers(shared.gpu) if shared.gpu is not None else None
    if numbers is None:
        return list(range(len(found.every)))
    return list(numbers) if max(numbers) < len(found.every) else []


def placed(numbers: Sequence[int | None]) -> list[Place]:
    """A place for a process on each of the GPUs *numbers*; None is the CPU."""
    count, here = len(numbers), cores()
    return [
        Place(
            Node(str(number), "this machine" if number is None else f"GPU {number}", 0, 0),
            place, count, max(1, here // count + (place < here % count)),
            number is not None, number,
        )
        for place, number in enumerate(numbers)
    ]  # fmt: skip
