"""A folder's run, measured: what a run takes of the machine, and where its pictures' time goes.

The run is that of any folder: its plan, its crew, its engine. Only its results go to a folder that
is removed.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from secrets import token_hex
from types import MappingProxyType

from cudafilter.engines import Engine
from cudafilter.errors import ImageError, ParameterError
from cudafilter.formats.table import format_of
from cudafilter.host.cores import cores, free_memory
from cudafilter.host.usage import Usage, used
from cudafilter.jobs import crew
from cudafilter.jobs.bound import Bound, Situation, bound
from cudafilter.jobs.job import Job
from cudafilter.jobs.plan import Plan, make_plan
from cudafilter.jobs.record import DONE, FAILED, Record
from cudafilter.jobs.settings import Settings
from cudafilter.nvidia.nvml import Busy, NvmlError, Watch
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation

WARM = 16
"""Pictures that are done before, so that libraries are loaded and kernels compiled."""

WARM_SECONDS = 5.0
"""No further one is begun after that."""

STAGES = ("read", "decode", "run", "check", "encode", "write")
WAIT = "wait"
"""The pictures' time between their stages."""

CODED = {"decode": True, "encode": False}
"""Stages that depend on a format, and whether on the source's. Else it is the result's."""


@dataclass
class Measured:
    """What was measured of a run. Times are in seconds, sizes in bytes, shares 0 to 1."""

    filter: str
    pictures: int = 0
    """How many were done. Speeds count these only."""
    of: int = 0
    """How many the folder has."""
    failed: int = 0
    seconds: float = 0.0
    """From the first one's begin to the last one's end."""
    bytes_in: int = 0
    """Of the files of those that were done."""
    bytes_out: int = 0
    cores: int = field(default_factory=cores)
    """That the process may use."""
    cores_busy: float = 0.0
    """That it kept busy, on average."""
    cores_others: float | None = None
    """That other programs kept busy; None where unknown."""
    cpu_seconds_each: float = 0.0
    """Seconds of cores for each picture."""
    in_work: float = 0.0
    """Pictures in work at a time, on average."""
    stages: dict[str, float] = field(default_factory=dict)
    """Shares of the pictures' time, of which "wait" is what is between the stages."""
    parts: dict[str, float] = field(default_factory=dict)
    """Shares of the pictures' time in each stage, codecs by format: ``decode (png)``. The largest
    comes first."""
    engine_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of the engine's own stages, all pictures together."""
    read_per_second: float | None = None
    """Bytes that were asked for; None where the system does not tell."""
    fetched_per_second: float | None = None
    """Bytes of these that came from devices, not from the system's cache."""
    written_per_second: float | None = None
    stored_per_second: float | None = None
    """Bytes of these that are for a device, at once or later."""
    memory: int | None = None
    """Most bytes of memory in use, since the process's start."""
    gpus: dict[int, Busy] = field(default_factory=dict)
    """How busy the GPUs were, by their numbers."""
    gpus_untold: str | None = None
    """Why there are none."""
    notes: dict[str, int] = field(default_factory=dict)
    """What was told of pictures, such as that the GPU's codec did not take them, and of how
    many."""
    bound: Bound | None = None


class Until:
    """*jobs*, none of which begins after *seconds* from the first one."""

    def __init__(self, jobs: Sequence[Job], seconds: float) -> None:
        self._jobs, self._seconds = jobs, seconds

    def __length_hint__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        end = time.monotonic() + self._seconds
        for job in self._jobs:
            if time.monotonic() > end:
                return
            yield job


class Tally:
    """The sums over records as they end."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.bytes_in = self.bytes_out = 0
        self.spent: dict[str, float] = defaultdict(float)
        """Seconds of pictures, by stage."""
        self.parts: dict[str, float] = defaultdict(float)
        self.engine: dict[str, float] = defaultdict(float)
        self.notes: Counter[str] = Counter()
        self.lives = 0.0

    def add(self, record: Record) -> None:
        """Take in *record*, which has just ended."""
        life = time.time() - record.started
        self.counts[record.status] += 1
        if record.status != DONE:
            return
        self.notes.update(record.notes)
        self.bytes_in += record.bytes_in or 0
        self.bytes_out += record.bytes_out or 0
        self.lives += life
        total = sum(record.seconds.values())
        # Those of a picture by rows or frames overlap: their shares count.
        scale = min(1.0, life / total) if total else 0.0
        for stage, seconds in record.seconds.items():
            self.spent[stage] += seconds * scale
            self.parts[_part(stage, record)] += seconds * scale
        self.spent[WAIT] += life - total * scale
        for stage, seconds in record.engine_seconds.items():
            self.engine[stage] += seconds


def _part(stage: str, record: Record) -> str:
    """*stage* with the format that it has to do with: ``decode (png)``."""
    if stage not in CODED:
        return stage
    with suppress(ImageError):
        return f"{stage} ({format_of(record.source if CODED[stage] else record.destination)})"
    return stage


def plan_of(folder: str) -> tuple[Plan, Path]:
    """The plan of *folder*, and where its results go: a folder that is not there yet.

    It is in the system's folder for temporaries. Raises ParameterError ("folder") for what is no
    folder, has no pictures, or has that folder in it.
    """
    if not os.path.isdir(folder):
        lacks = "it is no folder" if os.path.lexists(folder) else "there is no such folder"
        raise ParameterError("folder", f"{folder}: {lacks}")
    place = Path(tempfile.gettempdir()).resolve()
    if place.is_relative_to(Path(folder).resolve()):
        raise ParameterError(
            "folder",
            f"{place}, where results would go, is in {folder}",
            hint="name another folder for temporaries by TMPDIR",
        )
    into = place / f"cudafilter-bench-{token_hex(8)}"
    try:
        plan = make_plan([folder], str(into), recursive=True)
    except ParameterError as error:
        raise ParameterError("folder", str(error), hint=error.hint) from None
    if not plan.jobs:
        for path, reason in plan.refused:
            raise ParameterError("folder", f"{path}: {reason}")
        raise ParameterError("folder", f"{folder}: there are no images in it")
    return plan, into


@contextmanager
def removed(into: Path) -> Iterator[None]:
    """Make the folder *into*, for the user only; at the end remove it and all that is in it."""
    try:
        into.mkdir(mode=0o700)
        yield
    finally:
        for _ in range(2):  # a second Ctrl-C must not leave it
            with suppress(KeyboardInterrupt):
                shutil.rmtree(into, ignore_errors=True)
                break


class Results:
    """Files of results. They stay until they take more than *room* bytes: then the oldest go."""

    def __init__(self, room: int) -> None:
        self._room, self._taken = room, 0
        self._files: deque[tuple[str, int]] = deque()

    def add(self, record: Record) -> None:
        """Take in the result of *record*, if it has one."""
        if record.status != DONE:
            return
        size = record.bytes_out or 0
        self._files.append((record.destination, size))
        self._taken += size
        while self._taken > self._room:
            self._remove()

    def clear(self) -> None:
        """Remove all."""
        while self._files:
            self._remove()

    def _remove(self) -> None:
        path, size = self._files.popleft()
        self._taken -= size
        with suppress(OSError):
            os.unlink(path)


def room_for_results(place: Path) -> int:
    """Bytes that results in the folder *place* may take: half of the disk's free room, or a quarter
    of the free memory, since that may be where temporaries lie."""
    free, memory = shutil.disk_usage(place).free // 2, free_memory()
    return free if memory is None else min(free, memory // 4)


def measure(
    plan: Plan,
    filter: Operation,
    engine: Engine,
    settings: Settings,
    results: Results,
    tell: Callable[[Record], None],
    *,
    seconds: float,
    jobs: int | None = None,
    buses: Mapping[int, str] = MappingProxyType({}),
) -> Measured:
    """Run *plan* by *filter* and *engine*, and measure it.

    No picture begins after *seconds*. Their order is random, but the same each time. A few are done
    before, to warm up. *results* keeps what is written, and is cleared in the end. *tell* is told
    of the records that count. *jobs* is ``--jobs``. The GPUs at the PCI addresses *buses*, by their
    numbers, are watched. Raises KeyboardInterrupt as crew.run() does.
    """

    def run(some: Sequence[Job], limit: float, told: Callable[[Record], None]) -> None:
        crew.run(Until(some, limit), lambda: engine, filter, Border(), settings, told, threads=jobs)

    shuffled = list(plan.jobs)
    random.Random(0).shuffle(shuffled)  # those that find time stand for all
    run(shuffled[:WARM], WARM_SECONDS, Results(0).add)
    tally = Tally()

    def on_record(record: Record) -> None:
        tally.add(record)
        results.add(record)
        tell(record)

    measured = Measured(filter.name, of=len(plan.jobs))
    with ExitStack() as watched:
        watch: Watch | None = None
        if buses:
            try:
                watch = watched.enter_context(Watch([*buses.values()]))
            except NvmlError as error:
                measured.gpus_untold = f"NVML does not tell: {error}"
        else:
            measured.gpus_untold = "not used"
        before = used()
        run(shuffled, seconds, on_record)
        after = used()
    results.clear()
    if watch is not None:
        measured.gpus = dict(zip(buses, watch.means(), strict=True))
    _sum_up(measured, tally, before, after)
    measured.bound = bound(situation(measured, engine.name != "cpu", jobs))
    return measured


def _sum_up(measured: Measured, tally: Tally, before: Usage, after: Usage) -> None:
    wall = max(after.clock - before.clock, 1e-9)
    measured.seconds = wall
    measured.pictures, measured.failed = tally.counts[DONE], tally.counts[FAILED]
    measured.bytes_in, measured.bytes_out = tally.bytes_in, tally.bytes_out
    cpu = after.cpu - before.cpu
    measured.cores_busy = cpu / wall
    if after.all_cpu is not None and before.all_cpu is not None:
        measured.cores_others = max(0.0, (after.all_cpu - before.all_cpu - cpu) / wall)
    measured.cpu_seconds_each = cpu / max(1, measured.pictures)
    measured.in_work = tally.lives / wall
    lives = max(tally.lives, 1e-9)
    measured.stages = {
        stage: tally.spent[stage] / lives for stage in (*STAGES, WAIT) if stage in tally.spent
    }
    parts = sorted(tally.parts.items(), key=itemgetter(1), reverse=True)
    measured.parts = {part: spent / lives for part, spent in parts}
    measured.engine_seconds, measured.notes = dict(tally.engine), dict(tally.notes.most_common())

    def rate(name: str) -> float | None:
        first, last = getattr(before, name), getattr(after, name)
        return None if first is None or last is None else (last - first) / wall

    measured.read_per_second, measured.fetched_per_second = rate("asked"), rate("fetched")
    measured.written_per_second, measured.stored_per_second = rate("given"), rate("stored")
    measured.memory = after.peak


def buses_of(engine: Engine, gpu: int | None) -> dict[int, str]:
    """The GPUs that *engine* may use: number -> PCI address. *gpu* is the one asked for."""
    if engine.name == "cpu":
        return {}
    from cudafilter.engines.cuda.device import driver

    cuda = driver()
    numbers = range(cuda.Device.count()) if gpu is None else (gpu,)
    return {number: cuda.Device(number).pci_bus_id() for number in numbers}


def situation(measured: Measured, on_gpu: bool, jobs: int | None = None) -> Situation:
    """What of *measured* decides on its bound."""
    kernels = measured.engine_seconds.get("kernel", 0.0) / max(measured.seconds, 1e-9)
    busy = measured.gpus.values()
    told = [each.kernels for each in busy if each.kernels is not None]
    units = [each.jpeg for each in busy if each.jpeg is not None]
    return Situation(
        seconds=measured.seconds,
        cores=measured.cores,
        busy=measured.cores_busy,
        others=measured.cores_others,
        pictures=measured.pictures,
        in_work=measured.in_work,
        stages=measured.stages,
        mostly=next(iter(measured.parts), "run"),
        on_gpu=on_gpu,
        gpu=max(told, default=min(1.0, kernels) if on_gpu else None),
        units=max(units, default=None),
        jobs=jobs,
    )
