"""What this process and those that it started have used: cores, files, memory; by Linux's /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from cudafilter.host.cores import cores

PROC = "/proc"


class Usage(NamedTuple):
    """What was used until now, by this process and by those that it started.

    The difference of two tells of the time between them. What is None is not told by the system.
    """

    clock: float
    """Seconds, of a clock that never goes back."""
    cpu: float
    """Seconds of cores."""
    asked: int | None
    """Bytes that were asked for by reading, from files and pipes."""
    fetched: int | None
    """Bytes that devices were read for: what was asked for and no cache of the system had."""
    given: int | None
    """Bytes that were written, to files and pipes."""
    stored: int | None
    """Bytes of these that are for a device, now or when the system's cache is written out."""
    all_cpu: float | None
    """Seconds that the cores of this process were at work, whoever for. Not told where a quota
    leaves it fewer cores than it runs on, since others then need not be in its way."""
    peak: int | None
    """Most bytes of memory that were in use at a time; of several processes the sum of each one's
    most."""


def used() -> Usage:
    """What was used until now."""
    started = list(_started("self"))
    ended = os.times()
    cpu = time.process_time() + ended.children_user + ended.children_system
    return Usage(
        clock=time.monotonic(),
        cpu=cpu + sum(map(_cpu, started)),
        all_cpu=_all_cpu(),
        peak=sum(map(_peak, ["self", *started])) or None,
        **_bytes(["self", *started]),
    )


def _started(process: str) -> Iterator[str]:
    """The processes that *process* started, those that they started too, as far as they live."""
    folder = f"{PROC}/{process}/task"
    with suppress(OSError):
        for thread in os.listdir(folder):
            for child in _read(f"{folder}/{thread}/children").split():
                yield child
                yield from _started(child)


def _cpu(process: str) -> float:
    """Seconds of cores that *process* used, and those that it started and that have ended."""
    fields = _read(f"{PROC}/{process}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _all_cpu() -> float | None:
    """Seconds that the cores of this process were at work for any process; see Usage."""
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) != cores():
        return None
    names = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    rows = [line.split() for line in _read(f"{PROC}/stat").splitlines()]
    # user, nice, system, idle, iowait, irq, softirq, steal
    busy = [[*map(int, row[1:4]), *map(int, row[6:9])] for row in rows if row and row[0] in names]
    return sum(map(sum, busy)) / os.sysconf("SC_CLK_TCK") if busy else None


def _peak(process: str) -> int:
    for line in _read(f"{PROC}/{process}/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


_COUNTS = {
    "asked": "rchar:",
    "fetched": "read_bytes:",
    "given": "wchar:",
    "stored": "write_bytes:",
}
"""Fields of Usage, and what the file ``io`` calls them."""


def _bytes(processes: list[str]) -> dict[str, int | None]:
    """Sums of _COUNTS over *processes*; None where the system does not tell."""
    tables = [
        dict(line.split() for line in text.splitlines())
        for process in processes
        if (text := _read(f"{PROC}/{process}/io"))
    ]
    return {
        name: sum(int(table.get(word, 0)) for table in tables) if tables else None
        for name, word in _COUNTS.items()
    }


def _read(path: str) -> str:
    """The text of *path*; empty where there is none, as that of a process that has ended."""
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""
