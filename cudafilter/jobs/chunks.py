"""Which jobs each worker gets, and what becomes of those that a lost worker had."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from cudafilter.jobs.job import Job

PARTS = 4
"""Parts in which the jobs of a lost worker are run again. Those of a lost part come one by one."""

MOST_KILLS = 2
"""Workers that may be lost with one job only in work; then that job is given up."""


@dataclass
class _Load:
    """What a worker has."""

    jobs: dict[str, Job] = field(default_factory=dict)
    again: bool = False
    """A worker was lost with them."""


class Chunks:
    """The *jobs* of a run, each with one worker at a time until it is done or given up.

    Workers are told apart by numbers. Jobs are known by their destinations, which are distinct.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._new = deque(jobs)
        self._again: deque[list[Job]] = deque()
        self._loads: dict[int, _Load] = {}
        self._kills: Counter[Job] = Counter()

    @property
    def left(self) -> bool:
        """Whether a job is neither done nor given up."""
        return self.waiting or any(load.jobs for load in self._loads.values())

    @property
    def waiting(self) -> bool:
        """Whether a job is with no worker."""
        return bool(self._new or self._again)

    def held(self, worker: int) -> int:
        """How many jobs *worker* has."""
        return len(self._loads[worker].jobs) if worker in self._loads else 0

    def give(self, worker: int, most: int, workers: int) -> list[Job]:
        """Further jobs for *worker*, one of so many *workers*, which may have *most* at a time.

        What was lost goes to a worker that has nothing else, and comes before what is new. Of what
        is new each gets so much that all have as many, and end at about the same time.
        """
        load = self._loads.setdefault(worker, _Load())
        if load.jobs and (load.again or self._again):
            return []
        load.again = bool(self._again)
        if load.again:
            given = self._again.popleft()
        else:
            # Not a share of the new ones only: a few at a time would be left for who comes last,
            # and a GPU's JPEG units need many at once.
            held, new = len(load.jobs), len(self._new)
            left = new + sum(len(each.jobs) for each in self._loads.values())
            even = max(-(-left // max(1, workers)) - held, -(-new // max(1, workers)))
            given = [self._new.popleft() for _ in range(min(most - held, even, new))]
        load.jobs.update((str(job.destination), job) for job in given)
        return given

    def done(self, worker: int, destination: str) -> bool:
        """Note that *worker* has done the job of *destination*; False if it does not have that."""
        load = self._loads.get(worker)
        return load is not None and load.jobs.pop(destination, None) is not None

    def lose(self, worker: int) -> tuple[list[Job], list[Job]]:
        """Take all from *worker*, which is lost: what it had, and which of it is given up."""
        load = self._loads.pop(worker, _Load())
        had = list(load.jobs.values())
        if len(had) == 1:
            self._kills[had[0]] += 1
            if self._kills[had[0]] >= MOST_KILLS:
                return had, had
        size = 1 if load.again else max(1, -(-len(had) // PARTS))
        self._again.extend(had[start : start + size] for start in range(0, len(had), size))
        return had, []
