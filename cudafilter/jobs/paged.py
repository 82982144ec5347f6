"""Plans of a folder in a store, page by page: the first image begins before all are listed.

What can stop a job is found before any work, as make_plan() has it. So a job comes page by page
only where no later page could stop it; any other one is planned as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cudafilter.errors import ParameterError
from cudafilter.jobs.destinations import into_folder, named, require_folder
from cudafilter.jobs.found import Found, Source
from cudafilter.jobs.job import ERROR, OVERWRITE, Job
from cudafilter.jobs.outputs import outputs_of, require_inside, settle_existing
from cudafilter.jobs.places import Places, ignores_case
from cudafilter.jobs.plan import Plan, make_plan
from cudafilter.start.words import STDIO
from cudafilter.stores.url import AnyPath, Url, is_url

if TYPE_CHECKING:
    from cudafilter.jobs.buckets import Listed
    from cudafilter.jobs.shard import Shard


def make_plans(
    sources: Sequence[str],
    destination: str | None,
    *,
    recursive: bool = False,
    format: str | None = None,
    existing: str = OVERWRITE,
    follow: bool = False,
    strict: bool = False,
    shard: Shard | None = None,
    whole: bool = False,
) -> Iterator[Plan]:
    """What make_plan() plans, in one plan, or in several where a store lists a folder.

    *whole* says that one is wanted. Raises ParameterError as make_plan() does, at the call or with
    the first plan.
    """
    folders: tuple[Url, AnyPath] | None = None
    # With a format two images may become one output, and the last output may be in the way.
    simple = format is None and existing != ERROR and shard is None and not whole
    if simple and len(sources) == 1 and is_url(sources[0]) and destination not in (None, STDIO):
        folders = _folders(sources[0], str(destination), recursive)
    if folders is not None:
        return _paged(*folders, existing, follow, strict)
    plan = make_plan(
        sources, destination, recursive=recursive, format=format, existing=existing,
        follow=follow, strict=strict, shard=shard,
    )  # fmt: skip
    return iter([plan])


def _folders(source: str, destination: str, recursive: bool) -> tuple[Url, AnyPath] | None:
    """The folder *source* of a store and that of its results; None where a later page of it could
    stop the job."""
    from cudafilter.jobs import objects  # not before: most runs do without

    top = objects.folder(source, recursive)
    into = named(destination) if top is not None else None
    if top is None or into is None:
        return None
    if isinstance(into, Path) and ignores_case(str(into)):  # two outputs may be one
        return None
    if top == into or (isinstance(into, Url) and objects.is_in(top, into)):
        # An output may be a later input.
        return None
    require_folder(into, destination)
    return top, into


def _paged(top: Url, into: AnyPath, existing: str, follow: bool, strict: bool) -> Iterator[Plan]:
    from cudafilter.jobs import objects

    places = Places()
    listed: Listed | None = None
    if isinstance(into, Url):
        from cudafilter.jobs.buckets import Listed

        listed = Listed()

    def settled(images: Sequence[Source]) -> list[Job]:
        jobs = [into_folder(image, into, None)._replace(named=False) for image in images]
        outputs = outputs_of(jobs, places)
        if isinstance(into, Path) and not follow:
            require_inside(outputs, into)
        return settle_existing(jobs, outputs, existing, listed)

    begun = False
    waiting = Found()
    for found in objects.pages(top, into, strict):
        waiting.add(found)
        if not waiting.images:  # nothing to start an engine for, yet
            continue
        try:
            jobs = settled(waiting.images)
        except ParameterError as error:
            if error.parameter == "existing":  # the store does not tell what is there
                raise
            jobs = []  # it is about one image: the others go on without it
            for image in waiting.images:
                try:
                    jobs += settled([image])
                except ParameterError as error:
                    waiting.refuse(image.path, error)
        begun = True
        yield _plan(jobs, waiting)
        waiting = Found()
    if waiting.left_alone or waiting.refused or not begun:
        yield _plan([], waiting)


def _plan(jobs: list[Job], found: Found) -> Plan:
    refused = tuple(dict.fromkeys(found.refused))
    return Plan(tuple(jobs), True, found.left_alone, tuple(found.left), refused, len(jobs))
