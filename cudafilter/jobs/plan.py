"""Which file goes where. Everything that can stop a job is found here, before any work.

What cannot be done as asked raises ParameterError, which names the argument: ``src``, ``dest``,
``format``, ``existing``, ``in_place`` or ``shard``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cudafilter.errors import ParameterError
from cudafilter.formats.table import format_of, is_image_name
from cudafilter.jobs.places import Place, Places
from cudafilter.jobs.record import LEFT, Record
from cudafilter.jobs.sources import Found, Left, Source, find, inode, require_name
from cudafilter.jobs.target import Target, target_of, writable
from cudafilter.operations.choices import EXISTING
from cudafilter.start.words import STDIO
from cudafilter.stores.local import descriptor, is_stream

if TYPE_CHECKING:
    from cudafilter.jobs.shard import Shard

STDOUT = 1
"""The descriptor of standard output, which has names such as /dev/stdout, too."""


class Job(NamedTuple):
    """One image to do. A path of None is standard input or standard output."""

    source: Path | None
    destination: Path | None
    format: str | None
    """Output format. None from stream to stream: the input tells it when it is read."""
    skip: bool = False
    """The destination exists, and existing files are to stay."""
    named: bool = True
    """It was asked for by its name, not met in a folder."""

    @property
    def in_place(self) -> bool:
        """Whether the source is replaced."""
        return self.source is not None and self.source == self.destination


class Plan(NamedTuple):
    """What will be done, in order."""

    jobs: tuple[Job, ...]
    many: bool
    """Whether a folder or several files were asked for, even if they hold one image."""
    left_alone: int = 0
    """What is left alone in folders: hidden, no image by its name, or among left."""
    left: tuple[Left, ...] = ()
    """What is left alone in folders though somebody may miss it, and why."""
    refused: tuple[tuple[Path, str], ...] = ()
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
    existing: str = "overwrite",
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
    if existing not in EXISTING:
        raise ParameterError("existing", f"must be one of {', '.join(EXISTING)}, not {existing!r}")
    in_place = destination is None
    if in_place and format is not None:
        raise ParameterError("format", "an image changed in place keeps its format")
    if in_place and existing != "overwrite":
        raise ParameterError("existing", "has no meaning in place, where every output exists")
    target = target_of(format) if format is not None else None
    if destination is not None:
        _require_current_folder(destination)
        if descriptor(Path(destination)) == STDOUT:
            destination = STDIO
    if shard is not None and STDIO in (*sources, destination):
        raise ParameterError("shard", "shares out files, and '-' is a stream")
    if STDIO in sources:
        return _plan_stream(sources, destination, target, existing)

    if destination is not None:
        require_name("dest", destination)
    into = None if destination in (None, STDIO) else Path(str(destination))
    found = find(sources, recursive, into, follow=follow or not in_place, strict=strict)
    many = found.many or len(sources) > 1
    if not in_place:
        many = many or str(destination).endswith(os.sep) or (into is not None and into.is_dir())
    places = Places()
    _drop_repeats(found, in_place, places)

    if in_place:
        jobs = _each(found, lambda image: Job(image.path, image.path, writable(image.path)))
    elif into is None:
        if many:
            raise ParameterError("dest", "'-' (standard output) takes one image, not several")
        source = found.images[0].path
        jobs = [Job(source, None, target.format if target else writable(source))]
    elif many:
        _require_folder(into, named=str(destination).endswith(os.sep))
        jobs = _each(found, lambda image: _into_folder(image, into, target))
    else:
        jobs = [_to_file(found.images[0].path, into, target)]
    outputs = _outputs(jobs, places)
    if not in_place:
        _require_no_input_lost(outputs)
    if many and into is not None and not follow:
        _require_inside(outputs, into)
    _require_distinct(outputs, {})
    whole = len(jobs)
    if shard is not None:
        outputs = [output for output in outputs if shard.has(output.path)]
        jobs = [output.job for output in outputs]
        _share(found, shard)
    refused = tuple(dict.fromkeys(found.refused))
    if not in_place:
        jobs = _settle_existing(jobs, outputs, existing)
    return Plan(tuple(jobs), many, found.left_alone, tuple(found.left), refused, whole)


def plan_arrival(
    image: Source,
    destination: str,
    owners: dict[str, Job],
    *,
    format: str | None = None,
    existing: str = "overwrite",
    follow: bool = False,
) -> Job:
    """The job of one more *image* into the folder *destination*, beside those of *owners*.

    *owners* are the earlier jobs by output_owners(), and gets this one. Raises ParameterError where
    make_plan would.
    """
    target = target_of(format) if format is not None else None
    into = Path(destination)
    job = _into_folder(image, into, target)._replace(named=image.named)
    outputs = _outputs([job], Places())
    _require_no_input_lost(outputs)
    if not follow:
        _require_inside(outputs, into)
    (job,) = _settle_existing([job], outputs, existing)
    _require_distinct(outputs, owners)
    return job


def output_owners(jobs: Sequence[Job]) -> dict[str, Job]:
    """*jobs* by the keys of their outputs. Raises ParameterError where two share one."""
    owners: dict[str, Job] = {}
    _require_distinct(_outputs(jobs, Places()), owners)
    return owners


def _share(found: Found, shard: Shard) -> None:
    """Leave of *found* what *shard* tells of. The first one tells of what has no name there."""
    unnamed = found.left_alone - len(found.left)
    found.left = [left for left in found.left if shard.has(left.path)]
    found.refused = [refused for refused in found.refused if shard.has(refused[0])]
    found.left_alone = len(found.left) + (unnamed if shard.number == 1 else 0)


class _Output(NamedTuple):
    """A job that writes to a file, and where that really is."""

    job: Job
    path: Path
    place: Place


def _outputs(jobs: Sequence[Job], places: Places) -> list[_Output]:
    return [
        _Output(job, job.destination, places.of(job.destination))
        for job in jobs
        if job.destination is not None
    ]


def _each(found: Found, job: Callable[[Source], Job]) -> list[Job]:
    """The job of every image. One of a folder that has no job is refused, and the rest goes on."""
    jobs = []
    for image in found.images:
        try:
            jobs.append(job(image)._replace(named=image.named))
        except ParameterError as error:
            if image.named:
                raise
            reason = str(error).removeprefix(f"{image.path}: ")
            found.refused.append((image.path, f"{reason} ({error.hint})"))
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
    path = Path(destination)
    if path.is_dir() or destination.endswith(os.sep):
        raise ParameterError(
            "dest",
            f"{destination} is a folder, and standard input has no name to use in it",
            hint=f"name the file: {path / 'out.png'}",
        )
    jobs = [_to_file(None, path, target)]
    jobs = _settle_existing(jobs, _outputs(jobs, Places()), existing)
    return Plan(tuple(jobs), many=False)


def _to_file(source: Path | None, path: Path, target: Target | None) -> Job:
    if is_stream(path) and not is_image_name(path):  # what the shell names /dev/fd/63 says nothing
        if target is not None:
            return Job(source, path, target.format)
        return Job(source, path, None if source is None else writable(source))
    if descriptor(path) is not None and not is_stream(path):
        raise ParameterError("dest", f"{path}: nothing is open under that number")
    format = target.format if target else writable(path)
    if is_image_name(path) and format_of(path) != format:
        raise ParameterError("format", f"{format} does not go with the name {path}")
    if not path.parent.is_dir():
        raise ParameterError(
            "dest",
            f"{path}: the folder {path.parent} does not exist",
            hint=f"make it first: mkdir -p {path.parent}",
        )
    if not is_stream(path):
        _require_writable(path.parent)
    return Job(source, path, format)


def _into_folder(image: Source, into: Path, target: Target | None) -> Job:
    source, path = image.path, into / image.below
    if target is None:
        return Job(source, path, writable(source))
    if not (is_image_name(path) and format_of(path) == target.format):
        path = path.with_suffix(target.suffix)
    return Job(source, path, target.format)


def _require_folder(into: Path, named: bool) -> None:
    """Raise ParameterError unless *into* is a folder that can be written to, or made.

    *named* says that it was written as a folder's name, so it may look like an image's.
    """
    for place in (into, *into.parents):
        if place.is_dir():
            return _require_writable(place)
        if os.path.lexists(place):
            raise ParameterError(
                "dest", f"{place} is a file, and several images need a folder to go to"
            )
        if place is into and not named and is_image_name(into):
            raise ParameterError(
                "dest",
                f"{into} is the name of an image, and several need a folder to go to",
                hint=f"end it with '{os.sep}' if a folder of that name is what you want",
            )
    raise AssertionError("the root or the current folder exists")


def _require_current_folder(destination: str) -> None:
    """Raise ParameterError where *destination* counts from a current folder that is gone."""
    if destination == STDIO or os.path.isabs(destination):
        return
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ParameterError(
            "dest",
            f"{destination}: the current folder was removed, and nothing can be written there",
            hint="go to another folder, or give DEST from the root",
        ) from None


def _require_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ParameterError("dest", f"{folder}: you may not write there")


def _drop_repeats(found: Found, in_place: bool, places: Places) -> None:
    """Remove images that would bring the same file to the same place again."""
    seen: dict[tuple[str, str], Source] = {}
    for image in found.images:
        # Where a result goes in place depends on the file only, otherwise on `below` too.
        below = "" if in_place else image.below
        seen.setdefault((places.real(image.path, image.link), below), image)
    found.images = list(seen.values())


def _require_no_input_lost(outputs: Sequence[_Output]) -> None:
    """Raise ParameterError where an output is an input, by whatever name or link."""
    there = [output for output in outputs if output.place.there]
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


def _require_inside(outputs: Sequence[_Output], into: Path) -> None:
    """Raise ParameterError where links in the folder *into* lead an output out of it."""
    root = os.path.join(os.path.realpath(into), "")
    for output in outputs:
        if not output.place.real.startswith(root):
            raise ParameterError(
                "dest",
                f"{output.path} leads out of {into}, to {output.place.real}",
                hint="add --follow if the links there are to be written through",
            )


def _require_distinct(outputs: Sequence[_Output], owners: dict[str, Job]) -> None:
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


def _settle_existing(jobs: list[Job], outputs: Sequence[_Output], existing: str) -> list[Job]:
    """*jobs*, of which *outputs* are, with those to be skipped marked. Raises ParameterError."""
    there = []
    for _, path, place in outputs:
        if place.status is not None and stat.S_ISDIR(place.status.st_mode):
            raise ParameterError("dest", f"{path} is a folder, and an image would be written there")
        if place.there and not (len(jobs) == 1 and is_stream(path)):
            there.append(path)
    if there and existing == "error":
        more = f", and {len(there) - 1} more" if len(there) > 1 else ""
        raise ParameterError(
            "existing", f"{there[0]} exists{more}", hint="--existing skip does only what is missing"
        )
    if existing != "skip":
        return jobs
    done = set(there)
    return [job._replace(skip=True) if job.destination in done else job for job in jobs]
