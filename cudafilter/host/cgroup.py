"""The memory and cores that control groups of Linux (containers, services) leave to this process.

A process is in one group of each hierarchy: of version 2, or of version 1, which has one for memory
and one for the processor. The limits of a group hold for all groups in it too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import NamedTuple

PROC = "/proc/self"
"""Linux's folder on this process: ``cgroup`` tells its groups, and ``mountinfo`` their folders."""

_UNLIMITED = 1 << 60
"""Version 1 has no word for "no limit". It gives the largest number that it can hold."""


class _Groups(NamedTuple):
    """Folders of this process's groups and of those above them, the innermost first."""

    unified: tuple[str, ...]
    """Of version 2."""
    memory: tuple[str, ...]
    cpu: tuple[str, ...]


def free_memory() -> int | None:
    """Bytes that the tightest limit leaves; None where there is none.

    Cache of files counts as free, for the system gives it up when memory is wanted.
    """
    groups = _groups(PROC)
    told = [
        *_free(groups.unified, ("memory.max", "memory.high"), "memory.current", ""),
        *_free(groups.memory, ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_"),
    ]
    return min(told, default=None)


def cores() -> int | None:
    """Cores that the tightest quota is worth, rounded up; None where there is none."""
    return _cores(PROC)


@cache
def _cores(proc: str) -> int | None:
    groups = _groups(proc)
    told = []
    for folder in groups.unified:
        with suppress(OSError):
            told.append(_read(folder, "cpu.max").split())
    for folder in groups.cpu:
        with suppress(OSError):
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            told.append([_read(folder, name) for name in names])
    worth = []
    for words in told:
        with suppress(ValueError, ZeroDivisionError):  # "max", and version 1 says -1
            quota, period = map(int, words)
            if quota > 0:
                worth.append(max(1, math.ceil(quota / period)))
    return min(worth, default=None)


def _free(
    folders: tuple[str, ...], limits: tuple[str, ...], usage: str, prefix: str
) -> Iterator[int]:
    """Bytes left in each of *folders* that has a limit."""
    for folder in folders:
        known = []
        for name in limits:
            with suppress(OSError, ValueError):  # ValueError: no limit, which is the word "max"
                known.append(int(_read(folder, name)))
        if not known or min(known) >= _UNLIMITED:
            continue
        with suppress(OSError, ValueError):
            used = int(_read(folder, usage))
            with suppress(OSError, ValueError):
                used -= _cache(_read(folder, "memory.stat"), prefix)
            yield max(0, min(known) - max(0, used))


def _cache(statistics: str, prefix: str) -> int:
    """Bytes of cache that the system can free at once, by a group's memory *statistics*."""
    names = {f"{prefix}{name}" for name in ("inactive_file", "active_file", "slab_reclaimable")}
    rows = (line.split() for line in statistics.splitlines())
    return sum(int(row[1]) for row in rows if len(row) == 2 and row[0] in names)


@cache
def _groups(proc: str) -> _Groups:
    """The groups of this process, which rarely change while it runs."""
    within: dict[str, str] = {}
    chains: dict[str, list[tuple[str, ...]]] = {"": [()], "memory": [()], "cpu": [()]}
    with suppress(OSError, ValueError, IndexError):
        for line in _read(proc, "cgroup").splitlines():
            _, names, path = line.split(":", 2)
            within.update(dict.fromkeys(names.split(","), path))
        for line in _read(proc, "mountinfo").splitlines():
            before, _, after = line.partition(" - ")
            if not after.startswith("cgroup"):
                continue
            kind, _, options = after.split()[:3]
            root, mount = map(_unescaped, before.split()[3:5])
            for name in [""] if kind == "cgroup2" else options.split(","):
                if name in chains and name in within:
                    chains[name].append(_chain(mount, root, within[name]))
    return _Groups(*(max(found, key=len) for found in chains.values()))


def _chain(mount: str, root: str, path: str) -> tuple[str, ...]:
    """The folders of the group *path* and of those above it, where *mount* shows them from *root*.

    In a container, *path* may lie outside of what is mounted: that is the container's own group.
    """
    parts = os.path.relpath(path, root).split(os.sep)
    if parts[0] in (os.curdir, os.pardir):
        return (mount,)
    return tuple(os.path.join(mount, *parts[:n]) for n in range(len(parts), -1, -1))


def _read(folder: str, name: str) -> str:
    with open(os.path.join(folder, name), encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _unescaped(text: str) -> str:
    """*text*, in which mountinfo writes blanks and the like as octal digits."""
    for code, character in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        text = text.replace(f"\\{code}", character)
    return text
