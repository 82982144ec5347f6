"""The filter commands, one of each entry of the catalogue."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import chain
from stat import S_ISCHR
from typing import TYPE_CHECKING, Any

import click

from cudafilter.cli import options
from cudafilter.cli.command import FAILURE, Command
from cudafilter.cli.options import Shared
from cudafilter.cli.terminal import put, tell
from cudafilter.errors import ParameterError
from cudafilter.host.escape import escaped_name
from cudafilter.operations.choices import EXISTING, UNITS, gpu_numbers
from cudafilter.operations.parameter import FilterSpec
from cudafilter.start.garbage import uncollected
from cudafilter.start.words import FEW, STDIO, any_jpeg, are_worth_processes, first_files

if TYPE_CHECKING:
    from cudafilter.jobs.plan import Plan
    from cudafilter.jobs.processes import Processes
    from cudafilter.operations.operation import Operation
    from cudafilter.stores.url import AnyPath


MOST_LOOKED = 8192
"""Most names of files that are looked at before the plan is made: that takes 5 ms."""


def filter_command(spec: FilterSpec) -> Command:
    """The command of *spec*: its parameters as options, and the shared ones."""

    @uncollected()
    def callback(paths: tuple[str, ...], **values: Any) -> None:
        parameters = {p.name: values.pop(p.name) for p in spec.parameters}

        def made() -> Operation:
            from cudafilter.operations.make import make

            return make(spec.name, **parameters)

        perform(made, parameters, paths, Shared(**values))

    return Command(
        spec.name,
        arguments=[options.paths("SRC... DEST")],
        sections={"Filter": [options.own(p) for p in spec.parameters], **options.shared()},
        example=spec.example,
        presets=True,
        help=f"{spec.summary}\n\n{spec.description}",
        callback=callback,
    )


def perform(
    make_filter: Callable[[], Operation],
    parameters: Mapping[str, Any],
    paths: tuple[str, ...],
    shared: Shared,
) -> None:
    """Do what a command line asks for: plan, then filter or only print the plan.

    *make_filter* is called once a GPU's start has begun, since it imports NumPy; processes begin
    after that, by what the filter is. *parameters* are those that it is made of, for the report.
    """
    if shared.quiet and shared.verbose:
        raise click.UsageError("--quiet and --verbose contradict each other")
    if shared.frames is not None and shared.first_frame:
        raise click.UsageError("--frames and --first-frame contradict each other")
    if shared.in_place and (shared.first_frame or shared.frames is not None):
        raise click.UsageError("in place, the frames that are not taken would be lost")
    if shared.watch and shared.retry_failed is not None:
        raise click.UsageError("--watch does not end, and --retry-failed does what is known")
    if shared.watch and shared.shard is not None:
        raise click.UsageError("--watch does not end, and --shard shares out what is known")
    if shared.watch and shared.dry_run:
        raise click.UsageError("--watch does not end, and --dry-run writes nothing")
    if shared.cluster is not None:
        from cudafilter.cli.cluster import require_possible

        require_possible(shared)
    if shared.processes is not None:
        from cudafilter.cli import processes

        processes.require_possible(shared)
    make_filter = cache(make_filter)
    begun = _start_gpus(make_filter, paths, shared)
    try:
        _perform(make_filter, parameters, paths, shared, begun)
    finally:
        if begun is not None:
            begun.leave()


def _perform(
    make_filter: Callable[[], Operation],
    parameters: Mapping[str, Any],
    paths: tuple[str, ...],
    shared: Shared,
    begun: Processes | None,
) -> None:
    """The same, while processes may have *begun*."""
    from cudafilter.operations.borders import Border

    filter = make_filter()
    border = Border(shared.border, shared.border_value)
    plans = _plans(paths, shared)
    plan = next(plans)
    if shared.retry_failed is not None:
        from cudafilter.cli.report import job_facts
        from cudafilter.cli.retry import only_failed

        facts = job_facts(filter, parameters, border, shared)
        plan, missing = only_failed(plan, shared.retry_failed, facts, shared.shard)
        _tell_retried(plan, missing, shared)
        if not plan.jobs and not plan.refused:
            return None
    if shared.shard is not None and not shared.quiet:
        tell(f"shard {shared.shard}: {len(plan.jobs):,} of {plan.whole:,} images")
    if shared.cluster is not None:
        from cudafilter.jobs.workers import require_files

        require_files(plan.jobs, "cluster")
    if shared.dry_run:
        return _print(plan)
    if shared.shard is not None and not (plan.jobs or plan.refused or plan.left):
        return None  # nothing to start an engine for
    _require_streams(plan, shared)
    from cudafilter.cli.run import run

    return run(chain([plan], plans), filter, border, shared, parameters, begun)


def _start_gpus(
    make_filter: Callable[[], Operation], paths: tuple[str, ...], shared: Shared
) -> Processes | None:
    """Begin to start a GPU where the command line is sure to need one: here, or in the processes
    that are returned.

    For other jobs the images' sizes decide, and these are known later.
    """
    if shared.dry_run or shared.engine == "cpu" or shared.cluster is not None:
        return None
    if shared.may_share_out and shared.processes:
        return None  # they start theirs
    from cudafilter.start import gpus

    names = first_files(paths if shared.in_place else paths[:-1])
    named = shared.engine == "cuda" or shared.gpu is not None or shared.variant != "auto"
    part = shared.shard is not None or shared.retry_failed is not None  # maybe a few of them
    many = len(names) > FEW and not part
    if named or shared.watch or many:
        numbers = gpu_numbers(shared.gpu if shared.gpu is not None else 0)
        within = shared.linear or shared.mask is not None or shared.region
        jpeg = shared.codec != "cpu" and not within and any_jpeg(names)
        if many and not within and shared.existing == EXISTING[0] and shared.may_share_out:
            names = first_files(paths[:-1], MOST_LOOKED)
            if are_worth_processes(len(names)):
                from cudafilter.cli.processes import begun

                processes = begun(names, paths[-1], make_filter(), shared)
                if processes is not None:
                    return processes
        gpus.start(numbers, jpeg=jpeg, units=jpeg and shared.codec == UNITS)
    return None


def _plans(paths: tuple[str, ...], shared: Shared) -> Iterator[Plan]:
    """The plan of *paths*. Further ones follow from a store, and with --watch endlessly."""
    if "" in paths:
        raise ParameterError("src", "a file name is empty")
    *sources, destination = (*paths, None) if shared.in_place else paths
    if not sources:
        raise ParameterError(
            "dest",
            f"only {destination} is given: SRC and DEST are needed",
            hint="add --in-place to replace the image",
        )
    given = [source for source in sources if source is not None]
    if shared.watch:
        from cudafilter.jobs.watch import watch

        return watch(
            given, destination, recursive=shared.recursive, format=shared.format,
            existing=shared.existing, follow=shared.follow, strict=shared.strict,
        )  # fmt: skip
    from cudafilter.jobs.paged import make_plans

    # A cluster is joined once, for all, and processes are started once.
    known = shared.dry_run or shared.retry_failed is not None or shared.cluster is not None
    known = known or (shared.processes or 0) > 1
    return make_plans(
        given, destination, recursive=shared.recursive, format=shared.format,
        existing=shared.existing, follow=shared.follow, strict=shared.strict, shard=shared.shard,
        whole=known,
    )  # fmt: skip


def _tell_retried(plan: Plan, missing: int, shared: Shared) -> None:
    """Tell what of a report is left to do."""
    if shared.quiet:
        return
    if not plan.jobs and not plan.refused:
        share = f" of shard {shared.shard}" if shared.shard is not None else ""
        tell(f"nothing failed in {shared.retry_failed}{share}")
    elif missing:
        tell(f"note: {missing} more failed in {shared.retry_failed}, and are not among these")


def _print(plan: Plan) -> None:
    """Print *plan*: what would be written on stdout, totals on stderr."""
    from cudafilter.cli.left import left_lines
    from cudafilter.cli.report import tell_refused

    todo = [job for job in plan.jobs if not job.skip]
    if todo:
        put("\n".join(f"{_shown(job.source)} -> {_shown(job.destination)}" for job in todo))
    tell_refused(plan)
    for line in left_lines(plan.left):
        tell(line)
    tell(
        f"{len(todo)} to do, {len(plan.jobs) - len(todo)} skipped, {plan.left_alone} left alone;"
        " nothing was written"
    )
    if plan.refused:
        click.get_current_context().exit(FAILURE)


def _shown(path: AnyPath | None) -> str:
    return STDIO if path is None else escaped_name(str(path))


def _require_streams(plan: Plan, shared: Shared) -> None:
    """Raise ParameterError where a stream or the report cannot be used as asked."""
    reads = any(job.source is None for job in plan.jobs)
    writes = any(job.destination is None for job in plan.jobs)
    # Python has no stream where the shell closed it.
    if reads and sys.stdin is None:
        raise ParameterError("src", "'-': standard input is closed")
    if writes and sys.stdout is None:
        raise ParameterError("dest", "'-': standard output is closed")
    if reads and sys.stdin.isatty():
        raise ParameterError(
            "src",
            "'-' reads an image from standard input, which is the terminal",
            hint="send one in: cudafilter ... - out.png < in.png",
        )
    if writes and sys.stdout.isatty():
        raise ParameterError(
            "dest",
            "'-' would write the image's bytes to the terminal",
            hint="send them on: cudafilter ... - > out.png",
        )
    if shared.mask is not None:
        _require_no_image(plan, "mask", shared.mask, sources=False)
    if shared.report is None:
        return
    if writes and _is_standard_output(shared.report):
        raise ParameterError("report", "standard output is taken by the image")
    if shared.report == STDIO:
        if sys.stdout is None:
            raise ParameterError("report", "'-': standard output is closed")
        return
    _require_no_image(plan, "report", shared.report)


def _require_no_image(plan: Plan, option: str, name: str, sources: bool = True) -> None:
    """Raise ParameterError (*option*) where the file *name* is an image of *plan*.

    Its *sources* may be allowed.
    """
    from cudafilter.jobs.sources import inode

    real, there = os.path.realpath(name), inode(name)
    for job in plan.jobs:
        for path in (job.source if sources else None, job.destination):
            # Without a file there, only the name can be the same.
            if path is None or (there is None and os.path.basename(path) != os.path.basename(real)):
                continue
            if inode(path) == there if there else os.path.realpath(path) == real:
                what = "is an image of this job" if sources else "would be overwritten"
                raise ParameterError(option, f"{path} {what}")


def _is_standard_output(name: str) -> bool:
    """Whether the report called *name* would go where standard output goes."""
    if name == STDIO:
        return True
    try:
        there = os.stat(name)
        # Terminals and /dev/null have no order that two writers could spoil.
        return not S_ISCHR(there.st_mode) and os.path.samestat(there, os.fstat(1))
    except OSError:  # it is not there yet, or closed
        return False
