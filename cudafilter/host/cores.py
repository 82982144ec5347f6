"""How many cores and how much memory this process may use, and work on several cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TypeVar

from cudafilter.host import cgroup

T = TypeVar("T")
R = TypeVar("R")

_PROC = Path("/proc/meminfo")
_OWN = Path("/proc/self/statm")


_most: int | None = None


def limit(cores: int) -> None:
    """Have this process use at most so many *cores*, where others use the rest."""
    global _most
    _most = cores


def cores() -> int:
    """Cores that this process may use, by its affinity mask, its quota and limit()."""
    told = hasattr(os, "sched_getaffinity")
    here = len(os.sched_getaffinity(0)) if told else os.cpu_count() or 1
    return max(1, min(here, cgroup.cores() or here, _most or here))


_images = 1


def in_work(images: int) -> None:
    """Note that *images* images are in work at a time, each in a thread of its own."""
    global _images
    _images = max(1, images)


def share() -> int:
    """Cores for one image: all, or its part of them while others are in work."""
    return max(1, cores() // _images)


def each(work: Callable[[T], R], items: Sequence[T], threads: int | None = None) -> list[R]:
    """``work(item)`` of each item, in order, by share() or *threads* threads. This thread is one.

    It pays where *work* mostly runs without the interpreter's lock, as codecs, OpenCV and NumPy do.
    What it raises is raised, and no further item is begun. Not by a concurrent.futures pool: that
    imports logging and more, 7 ms of a command's start.
    """
    results: dict[int, R] = {}
    errors: list[BaseException] = []
    waiting = deque(enumerate(items))

    def serve() -> None:
        try:
            while True:
                try:
                    n, item = waiting.popleft()
                except IndexError:
                    return
                results[n] = work(item)
        except BaseException as error:  # noqa: BLE001 - raised on below
            errors.append(error)
            waiting.clear()

    count = min(len(items), threads or share())
    helpers = [Thread(target=serve, name="part", daemon=True) for _ in range(count - 1)]
    try:
        for helper in helpers:
            helper.start()
        serve()
        for helper in helpers:
            helper.join()
    finally:
        waiting.clear()  # an interruption begins nothing more
    if errors:
        raise errors[0]
    return [results[n] for n in range(len(items))]


def free_memory() -> int | None:
    """Bytes that are free without swapping; None where that is unknown.

    By system and container, and by the process's own limit (``ulimit -v``).
    """
    told = []
    with suppress(OSError, ValueError, ImportError):
        from resource import RLIM_INFINITY, RLIMIT_AS, getpagesize, getrlimit

        most, _ = getrlimit(RLIMIT_AS)
        if most != RLIM_INFINITY:
            pages = int(_OWN.read_text().split()[0])
            told.append(max(0, most - pages * getpagesize()))
    with suppress(OSError, ValueError):
        for line in _PROC.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                told.append(int(line.split()[1]) << 10)
    if (left := cgroup.free_memory()) is not None:
        told.append(left)
    return min(told, default=None)
