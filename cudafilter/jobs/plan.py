"""Which file goes where. Everything that can stop a job is found here, before any work.

What cannot be done as asked raises ParameterError, which names the argument: ``src``, ``dest``,
``format``, ``existing``, ``in_place`` or ``shard``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cudafilter.errors import ParameterError
from cudafilter.jobs.destinations import (
    into_folder,
    named,
    require_current_folder,
    require_folder,
    takes_several,
    to_file,
)
from cudafilter.jobs.job import OVERWRITE
from cudafilter.jobs.job import Job as Job
from cudafilter.jobs.outputs import (
    drop_repeats,
    outputs_of,
    require_distinct,
    require_inside,
    require_no_input_lost,
    settle_existing,
)
from cudafilter.jobs.places import Places
from cudafilter.jobs.record import LEFT, Record
from cudafilter.jobs.sources import Found, Left, Source, find, require_name
from cudafilter.jobs.target import Target, target_of, writable
from cudafilter.operations.choices import EXISTING
from cudafilter.start.words import STDIO
from cudafilter.stores.local import descriptor
from cudafilter.stores.url import AnyPath, is_url

if TYPE_CHECKING:
    from cudafilter.jobs.shard import Shard

STDOUT = 1
"""The descriptor of standard output, which has names such as /dev/stdout, too."""


class Plan(NamedTuple):
    """What will be done, in order."""

    jobs: tuple[Job, ...]
    many: bool
    """Whether a folder or several files were asked for, even if they hold one image."""
    left_alone: int = 0
    """What is left alone in folders: hidden, no image by its name, or among left."""
    left: tuple[Left, ...] = ()
    """What is left alone in folders though somebody may miss it, and why."""
    refused: tuple[tuple[AnyPath, str], ...] = ()
    """What was met in folders and cannot be done, and why. The rest goes on without it."""
    whole: int = 0
    """How many jobs there are with those of the other shards."""

    def records(self) -> Iterator[Record]:
        """The records of what is refused, and then of what is left alone."""
        for path, reason in self.refused:
            yield Record(str(path), "", error=reason)
        for left in self.left:
            yield Record(str(left.path), "", status=LEFT, notes=(left.why,))


def make_plan(
    sources: Sequence[str],
    destination: str | None,
    *,
    recursive: bool = False,
    format: str | None = None,
    existing: str = OVERWRITE,
    follow: bool = False,
    strict: bool = False,
    shard: Shard | None = None,
) -> Plan:
    """Plan *sources* into *destination*, or in place where that is None.

    A source is a file, a folder (with *recursive*), a glob or ``-``. *existing* is one of EXISTING
    and says what to do about destinations that are there already. *follow* allows to write through
    links: in place to what links in folders lead to, else out of the folder *destination*. *strict*
    refuses pictures and films in folders that are not read. Of a *shard* only the share is planned:
    what makes the whole impossible stops it too, but *existing* outputs of others do not count.
    Nothing is written. Raises ParameterError for what cannot be done as asked.
    """
    _require_possible(sources, destination, format, existing)
    in_place = destination is None
    target = target_of(format) if format is not None else None
    if destination is not None and not is_url(destination):
        require_current_folder(destination)
        if descriptor(Path(destination)) == STDOUT:
            destination = STDIO
    if shard is not None and STDIO in (*sources, destination):
        raise ParameterError("shard", "shares out files, and '-' is a stream")
    if STDIO in sources:
        return _plan_stream(sources, destination, target, existing)

    if destination is not None:
        require_name("dest", destination)
    into = named(destination)
    found = find(sources, recursive, into, follow=follow or not in_place, strict=strict)
    many = found.many or len(sources) > 1
    if not in_place:
        many = many or (into is not None and takes_several(str(destination), into))
    places = Places()
    drop_repeats(found, in_place, places)

    jobs = _jobs(found, many, destination, into, target)
    found.images.clear()  # a million take 160 MB
    outputs = outputs_of(jobs, places)
    if not in_place:
        require_no_input_lost(outputs)
    if many and isinstance(into, Path) and not follow:
        require_inside(outputs, into)
    require_distinct(outputs, {})
    whole = len(jobs)
    if shard is not None:
        outputs = [output for output in outputs if shard.has(output.path)]
        jobs = [output.job for output in outputs]
        _share(found, shard)
    refused = tuple(dict.fromkeys(found.refused))
    if not in_place:
        jobs = settle_existing(jobs, outputs, existing)
    return Plan(tuple(jobs), many, found.left_alone, tuple(found.left), refused, whole)


def _require_possible(
    sources: Sequence[str], destination: str | None, format: str | None, existing: str
) -> None:
    """Raise ParameterError unless these go together."""
    if existing not in EXISTING:
        raise ParameterError("existing", f"must be one of {', '.join(EXISTING)}, not {existing!r}")
    if destination is not None:
        return
    if format is not None:
        raise ParameterError("format", "an image changed in place keeps its format")
    if existing != OVERWRITE:
        raise ParameterError("existing", "has no meaning in place, where every output exists")
    if (url := next(filter(is_url, sources), None)) is not None:
        raise ParameterError(
            "in_place",
            f"{url}: nothing in a store is changed in place, where an interrupted job could not be"
            " told from a finished one",
            hint="give a DEST, in the same store or elsewhere",
        )


def plan_arrival(
    image: Source,
    destination: str,
    owners: dict[str, Job],
    *,
    format: str | None = None,
    existing: str = OVERWRITE,
    follow: bool = False,
) -> Job:
    """The job of one more *image* into the folder *destination*, beside those of *owners*.

    *owners* are the earlier jobs by output_owners(), and gets this one. Raises ParameterError where
    make_plan would.
    """
    target = target_of(format) if format is not None else None
    into = Path(destination)
    job = into_folder(image, into, target)._replace(named=image.named)
    outputs = outputs_of([job], Places())
    require_no_input_lost(outputs)
    if not follow:
        require_inside(outputs, into)
    (job,) = settle_existing([job], outputs, existing)
    require_distinct(outputs, owners)
    return job


def output_owners(jobs: Sequence[Job]) -> dict[str, Job]:
    """*jobs* by the keys of their outputs. Raises ParameterError where two share one."""
    owners: dict[str, Job] = {}
    require_distinct(outputs_of(jobs, Places()), owners)
    return owners


def _share(found: Found, shard: Shard) -> None:
    """Leave of *found* what *shard* tells of. The first one tells of what has no name there."""
    unnamed = found.left_alone - len(found.left)
    found.left = [left for left in found.left if shard.has(left.path)]
    found.refused = [refused for refused in found.refused if shard.has(refused[0])]
    found.left_alone = len(found.left) + (unnamed if shard.number == 1 else 0)


def _jobs(
    found: Found,
    many: bool,
    destination: str | None,
    into: AnyPath | None,
    target: Target | None,
) -> list[Job]:
    """The job of each image *found*: in place, or to *destination*, which is the path *into*."""
    if destination is None:
        return _each(found, lambda image: Job(image.path, image.path, writable(image.path)))
    if into is None:
        if many:
            raise ParameterError("dest", "'-' (standard output) takes one image, not several")
        source = found.images[0].path
        return [Job(source, None, target.format if target else writable(source))]
    if many:
        require_folder(into, destination)
        return _each(found, lambda image: into_folder(image, into, target))
    return [to_file(found.images[0].path, into, target)]


def _each(found: Found, job: Callable[[Source], Job]) -> list[Job]:
    """The job of every image. One of a folder that has no job is refused, and the rest goes on."""
    jobs = []
    for image in found.images:
        try:
            jobs.append(job(image)._replace(named=image.named))
        except ParameterError as error:
            if image.named:
                raise
            found.refuse(image.path, error)
    return jobs


def _plan_stream(
    sources: Sequence[str], destination: str | None, target: Target | None, existing: str
) -> Plan:
    """The plan for standard input."""
    if len(sources) > 1:
        raise ParameterError("src", "'-' (standard input) goes alone, not with other images")
    if destination is None:
        raise ParameterError("in_place", "standard input cannot be changed in place")
    if destination == STDIO:
        return Plan((Job(None, None, target.format if target else None),), many=False)
    path = named(destination)
    assert path is not None
    if takes_several(destination, path):
        raise ParameterError(
            "dest",
            f"{destination} is a folder, and standard input has no name to use in it",
            hint=f"name the file: {path / 'out.png'}",
        )
    jobs = [to_file(None, path, target)]
    jobs = settle_existing(jobs, outputs_of(jobs, Places()), existing)
    return Plan(tuple(jobs), many=False)
