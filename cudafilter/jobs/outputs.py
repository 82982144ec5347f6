"""The outputs of a plan: none is an input, none is another one's, none is in the way."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cudafilter.errors import ParameterError
from cudafilter.jobs.job import ERROR, OVERWRITE, SKIP, Job
from cudafilter.jobs.places import Place, Places
from cudafilter.jobs.sources import Found, Source, inode
from cudafilter.stores.local import is_stream
from cudafilter.stores.url import AnyPath, Url

if TYPE_CHECKING:
    from cudafilter.jobs.buckets import Listed


class Output(NamedTuple):
    """A job that writes to a file, and where that really is."""

    job: Job
    path: AnyPath
    place: Place


def outputs_of(jobs: Sequence[Job], places: Places) -> list[Output]:
    return [
        Output(job, job.destination, places.of(job.destination))
        for job in jobs
        if job.destination is not None
    ]


def drop_repeats(found: Found, in_place: bool, places: Places) -> None:
    """Remove images that would bring the same file to the same place again."""
    seen: dict[tuple[str, str], Source] = {}
    for image in found.images:
        # Where a result goes in place depends on the file only, otherwise on `below` too.
        below = "" if in_place else image.below
        seen.setdefault((places.real(image.path, image.link), below), image)
    found.images = list(seen.values())


def require_no_input_lost(outputs: Sequence[Output]) -> None:
    """Raise ParameterError where an output is an input, by whatever name or link."""
    there = [output for output in outputs if output.place.there]
    into_stores = [output for output in outputs if isinstance(output.path, Url)]
    objects = {job.source for job, _, _ in into_stores}
    for output in into_stores:
        if output.path in objects:
            raise ParameterError(
                "dest", f"{output.path} would overwrite the input", hint="give another folder"
            )
    inputs = {}
    for output in outputs if there else ():
        source = output.job.source
        if source is not None and (key := inode(source)) is not None:
            inputs[key] = source
    for output in there:
        status = output.place.status
        if status is None or (same := (status.st_dev, status.st_ino)) not in inputs:
            continue
        what = f"{output.path} would overwrite the input"
        if inputs[same] != output.path:
            what += f" {inputs[same]}"
        raise ParameterError("dest", what, hint="add --in-place to replace the inputs")


def require_inside(outputs: Sequence[Output], into: Path) -> None:
    """Raise ParameterError where links in the folder *into* lead an output out of it."""
    root = os.path.join(os.path.realpath(into), "")
    for output in outputs:
        if not output.place.real.startswith(root):
            raise ParameterError(
                "dest",
                f"{output.path} leads out of {into}, to {output.place.real}",
                hint="add --follow if the links there are to be written through",
            )


def require_distinct(outputs: Sequence[Output], owners: dict[str, Job]) -> None:
    """Add the jobs of *outputs* to *owners*. Raises ParameterError where two share an output."""
    for job, path, place in outputs:
        other = owners.setdefault(place.key, job)
        if other.source != job.source:
            raise ParameterError(
                "dest",
                f"{other.source} and {job.source} would both become {path}",
                hint="give them folders of their own, or other names",
            )
        owners[place.key] = job


def settle_existing(
    jobs: list[Job], outputs: Sequence[Output], existing: str, listed: Listed | None = None
) -> list[Job]:
    """*jobs*, of which *outputs* are, with those to be skipped marked. Raises ParameterError.

    *listed* is what is known of stores already.
    """
    there: list[AnyPath] = []
    if existing != OVERWRITE and any(isinstance(path, Url) for _, path, _ in outputs):
        from cudafilter.jobs.buckets import Listed  # not before: most runs do without

        listed = listed or Listed()
        there += [path for _, path, _ in outputs if isinstance(path, Url) and listed.has(path)]
        jobs = [job._replace(existing=existing) for job in jobs]
    for _, path, place in outputs:
        if not isinstance(path, Path):
            continue
        if place.status is not None and stat.S_ISDIR(place.status.st_mode):
            raise ParameterError("dest", f"{path} is a folder, and an image would be written there")
        if place.there and not (len(jobs) == 1 and is_stream(path)):
            there.append(path)
    if there and existing == ERROR:
        more = f", and {len(there) - 1} more" if len(there) > 1 else ""
        raise ParameterError(
            "existing", f"{there[0]} exists{more}", hint="--existing skip does only what is missing"
        )
    if existing != SKIP:
        return jobs
    done = set(there)
    return [job._replace(skip=True) if job.destination in done else job for job in jobs]
