"""Temporary files: their names tell which process made them, so those of killed runs can go."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from functools import cache
from itertools import count
from typing import NamedTuple
from zlib import crc32

# Compiled when one is met: most folders have none.
_OLD_NAME = r"\.cudafilter-([0-9a-f]+)-[0-9a-f]+-[0-9a-f]+\.tmp"
_NAME = (
    r"\.cudafilter-([0-9a-f]{8})-([0-9a-f]{8})-([0-9a-f]+)-([0-9a-f]+)-([0-9a-f]+)-[0-9a-f]+\.tmp"
)
_OLD_AGE = 86400.0
"""Age in seconds at which a temporary of an earlier version, whose name has no host, is left."""
_numbers = count()


class _Owner(NamedTuple):
    """The process that made a temporary, as the file's name tells it."""

    host: str
    boot: str
    space: int
    """The namespace of its process number: containers have their own."""
    process: int
    start: int
    """Ticks from the boot to its start, as process numbers are used again; 0 where unknown."""


def temporary_name() -> str:
    """A unique name for a file that is not complete yet."""
    return f"{_prefix(os.getpid())}{next(_numbers):x}.tmp"


def sweep(folder: str) -> None:
    """Remove the temporaries in *folder* whose processes are gone.

    Those of other hosts and containers stay, since nobody here knows whether their processes run.
    Raises nothing: a file that cannot be removed does no harm.
    """
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(".cudafilter-") and _is_left(folder, name):
                with suppress(OSError):
                    os.unlink(os.path.join(folder, name))


def own_mark() -> str:
    """What the names of this process's temporaries begin with."""
    return _prefix(os.getpid())


def remove(folder: str, mark: str) -> None:
    """Remove from *folder* the temporaries of a process that has ended, by its own_mark().

    It may have been on another host. Raises nothing.
    """
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(mark) and re.fullmatch(_NAME, name):
                with suppress(OSError):
                    os.unlink(os.path.join(folder, name))


@cache
def _prefix(process: int) -> str:
    owner = _own(process)
    return (
        f".cudafilter-{owner.host}-{owner.boot}-{owner.space:x}-{owner.process:x}-{owner.start:x}-"
    )


@cache
def _own(process: int) -> _Owner:
    # Machines of one image may share a name or an id, but seldom both.
    host = f"{crc32((os.uname().nodename + _text('/etc/machine-id')).encode()):08x}"
    boot = f"{crc32(_text('/proc/sys/kernel/random/boot_id').encode()):08x}"
    space = 0
    with suppress(OSError):
        space = os.stat("/proc/self/ns/pid").st_ino
    return _Owner(host, boot, space, process, _start_of(process) or 0)


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _start_of(process: int | str) -> int | None:
    """Ticks from the boot to the start of *process*; None where the system does not tell."""
    fields = _text(f"/proc/{process}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else None


def _is_left(folder: str, name: str) -> bool:
    """Whether the file is a temporary whose process is gone."""
    if old := re.fullmatch(_OLD_NAME, name):
        age = time.time() - os.lstat(os.path.join(folder, name)).st_mtime
        return age > _OLD_AGE and not _is_alive(int(old[1], 16), 0)
    if not (parts := re.fullmatch(_NAME, name)):
        return False
    space, process, start = (int(part, 16) for part in parts.groups()[2:])
    own = _own(os.getpid())
    if parts[1] != own.host:
        return False
    if parts[2] != own.boot:
        # Another boot of this host, unless it is younger than this one: then it is a twin's.
        return os.lstat(os.path.join(folder, name)).st_mtime < _boot_time()
    return space == own.space and not _is_alive(process, start)


def _is_alive(process: int, start: int) -> bool:
    """Whether *process* runs, and is the one that began at *start*, where both are known."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    now = _start_of(process)
    return not start or now is None or now == start


def _boot_time() -> float:
    """When the system started, in seconds since 1970; 0 where it does not tell."""
    try:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    except (AttributeError, OSError):
        return 0.0
