"""Folders that are watched: what arrives in them, planned batch by batch."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cudafilter import images
from cudafilter.errors import CudafilterError, ImageError, ParameterError
from cudafilter.formats.table import FORMATS, HEAD, format_of_bytes
from cudafilter.jobs.plan import Job, Plan, make_plan, output_owners, plan_arrival
from cudafilter.jobs.record import FAILED, Record
from cudafilter.jobs.sources import Found, Left, Source, find
from cudafilter.start.words import STDIO
from cudafilter.stores import everywhere, local
from cudafilter.stores.url import AnyPath, is_url

INTERVAL = 1.0
"""Seconds from one look to the next."""
LOOKING_SHARE = 0.1
"""Largest share of the time that looks may take, so a large tree is looked at less often."""
PATIENCE = 30.0
"""Seconds without a change after which a file is taken even if it does not look whole. Loading it
then says what is wrong."""


Refusal = tuple[AnyPath, str]
"""What cannot be done, and why."""


class _Signature(NamedTuple):
    """What changes when a file is written to or another one takes its place.

    A replacement may have the size and, after cp -p or rsync -t, the time of its predecessor, but
    the time of its last change of any kind (ctime) cannot be set. No inode: some network shares
    make up new ones.
    """

    size: int
    modified: int
    changed: int


_Name = tuple[AnyPath, str]
"""An image's path, and its path below DEST. The rest of a Source may change: a link may take a
file's place."""


def _name(image: Source) -> _Name:
    return image.path, image.below


@dataclass
class _Seen:
    """A file as it was at the last look."""

    signature: _Signature
    since: float
    """When it was first seen so, by the clock."""
    looks: int = 1
    """How many looks have seen it so."""
    taken: bool = False
    """Whether a plan has it so."""


def watch(
    sources: Sequence[str],
    destination: str | None,
    *,
    recursive: bool = False,
    format: str | None = None,
    existing: str = "overwrite",
    follow: bool = False,
    strict: bool = False,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Plan]:
    """Plans of what is in the folders *sources* and arrives there, until it is interrupted.

    Arguments and refusals are those of make_plan, and found before the first plan is asked for:
    ParameterError, also for what cannot be watched ("watch"). The first plan has all that is there
    already and may be empty. Each later one is of files that arrived or changed; such a file goes
    where make_plan would put it; only the file itself is refused. A file is taken once two looks
    see it the same and whole, or after PATIENCE seconds without a change. *existing* holds for new
    files; one that changes is done again in any case.

    Do the jobs of one plan before asking for the next. Then no two jobs write one output at a time,
    and a file that changes meanwhile is met at the next look. KeyboardInterrupt during a wait is
    the regular end: nothing is left undone. CudafilterError is raised when a
    watched folder is gone.
    """
    _require_watchable(sources, destination)
    assert destination is not None
    first = make_plan(
        sources, destination, recursive=recursive, format=format, existing=existing,
        follow=follow, strict=strict,
    )  # fmt: skip
    watcher = _Watcher(sources, destination, recursive, format, existing, follow, strict, clock)
    return watcher.plans(first, sleep)


def gone(record: Record) -> bool:
    """Whether *record* failed since its image was removed, which is no error when watching."""
    return record.status == FAILED and not local.exists(Path(record.source))


def _require_watchable(sources: Sequence[str], destination: str | None) -> None:
    if destination is None:
        raise ParameterError("watch", "in place, each result would be filtered again")
    if STDIO in (*sources, destination):
        raise ParameterError("watch", "watches folders, and '-' is a stream")
    for name in filter(is_url, (*sources, destination)):
        raise ParameterError(
            "watch",
            f"{name}: stores are not watched, since they would be listed and paid for all the time",
            hint="run the same command again with --existing skip",
        )
    into = Path(os.path.realpath(destination))
    for source in sources:
        if not os.path.isdir(source) and (os.path.lexists(source) or glob.has_magic(source)):
            raise ParameterError("watch", f"watches folders, and {source} is none")
        real = Path(os.path.realpath(source))
        if into == real or into in real.parents:
            raise ParameterError(
                "watch",
                f"results in {destination} would arrive in {source} and be filtered again",
                hint=f"choose a folder beside it, or one in it: {Path(source) / 'out'}",
            )


class _Watcher:
    """Remembers the files of the last look."""

    def __init__(
        self,
        sources: Sequence[str],
        destination: str,
        recursive: bool,
        format: str | None,
        existing: str,
        follow: bool,
        strict: bool,
        clock: Callable[[], float],
    ) -> None:
        self._sources, self._destination = sources, destination
        self._recursive, self._format, self._existing = recursive, format, existing
        self._follow, self._strict, self._clock = follow, strict, clock
        self._seen: dict[_Name, _Seen] = {}
        self._taken: set[_Name] = set()
        """All that was ever taken. Outputs of these that exist are their own."""
        self._owners: dict[str, Job] = {}
        self._told: set[Refusal | Left] = set()
        self._left_alone = 0

    def plans(self, first: Plan, sleep: Callable[[float], None]) -> Iterator[Plan]:
        """See watch(). *first* is the plan of all that is there, whole or not."""
        self._owners = output_owners(first.jobs)
        ready, found, spent = self._look(first=True)
        self._taken.update(map(_name, ready))
        whole = {image.path for image in ready}
        jobs = [job for job in first.jobs if job.source in whole]
        yield self._tell(self._plan(jobs, found, first.refused))
        while True:
            try:
                sleep(max(INTERVAL, spent / LOOKING_SHARE))
                ready, found, spent = self._look()
            except KeyboardInterrupt:
                return  # all that had arrived is done
            jobs, refused = self._arrivals(ready)
            plan = self._plan(jobs, found, refused)
            if plan.jobs or plan.refused:
                yield self._tell(plan)

    def _find(self) -> Found:
        try:
            return find(
                self._sources, self._recursive, Path(self._destination), strict=self._strict
            )
        except ParameterError as error:
            raise CudafilterError(f"the watched folder is gone: {error}") from error

    def _look(self, first: bool = False) -> tuple[list[Source], Found, float]:
        """What is to be taken, all that was found, and how many seconds it took to look.

        What is no longer there is forgotten.
        """
        now = self._clock()
        found = self._find()
        before, self._seen = self._seen, {}
        ready = []
        for image in found.images:
            signature = _signature(image.path)
            if signature is None:
                continue
            seen = before.get(_name(image))
            if seen is None or seen.signature != signature:
                # What was there before the watch may have been whole for long.
                since = min(now, signature.modified / 1e9) if first else now
                seen = _Seen(signature, since)
            else:
                seen.looks += 1
            self._seen[_name(image)] = seen
            if not seen.taken and _settled(image.path, seen, now):
                seen.taken = True
                ready.append(image)
        return ready, found, self._clock() - now

    def _arrivals(self, ready: Sequence[Source]) -> tuple[list[Job], list[Refusal]]:
        """The jobs of *ready*, and what has no place to go."""
        there = {path for path, _ in self._seen}
        self._owners = {key: job for key, job in self._owners.items() if job.source in there}
        jobs: list[Job] = []
        refused: list[Refusal] = []
        for image in ready:
            existing = "overwrite" if _name(image) in self._taken else self._existing
            try:
                job = plan_arrival(
                    image, self._destination, self._owners,
                    format=self._format, existing=existing, follow=self._follow,
                )  # fmt: skip
            except ParameterError as error:
                reason = str(error).removeprefix(f"{image.path}: ")
                refused.append((image.path, f"{reason} ({error.hint})" if error.hint else reason))
            else:
                jobs.append(job)
        self._taken.update(map(_name, ready))
        return jobs, refused

    def _plan(self, jobs: Sequence[Job], found: Found, refused: Sequence[Refusal]) -> Plan:
        """*jobs*, and of the rest what was not told before."""
        new = dict.fromkeys(told for told in (*found.refused, *refused) if told not in self._told)
        left = tuple(left for left in found.left if left not in self._told)
        left_alone = max(0, found.left_alone - self._left_alone)
        return Plan(tuple(jobs), True, left_alone, left, tuple(new))

    def _tell(self, plan: Plan) -> Plan:
        """*plan*. What it refuses and leaves alone will not be told again."""
        self._told.update(plan.refused, plan.left)
        self._left_alone += plan.left_alone
        return plan


def _signature(path: AnyPath) -> _Signature | None:
    """The signature; None where the file is gone. A broken link has one: loading reports it."""
    for look in (os.stat, os.lstat):
        try:
            status = look(path)
        except OSError:
            continue
        return _Signature(status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return None


def _settled(path: AnyPath, seen: _Seen, now: float) -> bool:
    """Whether nobody seems to be writing to the file any more."""
    return now - seen.since >= PATIENCE or (seen.looks > 1 and _whole(path))


def _whole(path: AnyPath) -> bool:
    """Whether a file holds all of an image: by its end, or else by decoding it."""
    try:
        with everywhere.open(path) as file:
            end = FORMATS[format_of_bytes(file[:HEAD])].ends
            if end and file[-len(end) :] == end:
                return True
        for _ in images.Frames(images.read_file(path), str(path)):
            pass
    except (OSError, ImageError):
        return False
    return True
