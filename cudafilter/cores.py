"""How many cores and how much memory there are to use."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_PROC, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_images = 1


def in_work(images: int) -> None:
    """Tell that so many images are in work at a time, in threads of their own."""
    global _images
    _images = max(1, images)


def share() -> int:
    """Cores for one image: all, or its part of them while others are in work."""
    return max(1, cores() // _images)


def free_memory() -> int | None:
    """Bytes that can be had without swapping, by the system or the container; None if untold."""
    told = []
    with suppress(OSError, ValueError):
        for line in _PROC.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                told.append(int(line.split()[1]) << 10)
    with suppress(OSError, ValueError):  # ValueError: no limit, which is the word "max"
        limit = int((_CGROUP / "memory.max").read_text())
        told.append(max(0, limit - int((_CGROUP / "memory.current").read_text())))
    return min(told, default=None)
