"""What a node of a cluster has, asked by a function that is sent there whole.

Nothing of this package is imported before it is looked for: the node may not have it.
"""

from __future__ import annotations

import os
import platform
import socket
from contextlib import suppress
from importlib import import_module, metadata
from typing import NamedTuple


class Seen(NamedTuple):
    """What a node has."""

    host: str
    versions: dict[str, str]
    """Versions of Python and packages; of what is not installed, nothing."""
    hidden: str | None
    """The first file that is not the same there."""
    unwritable: bool
    """The folder of the outputs may not be written to."""


class Sought(NamedTuple):
    """What is looked for."""

    packages: tuple[str, ...]
    files: tuple[tuple[str, int, int], ...]
    """Path, size in bytes, time of the last change in ns."""
    folder: str | None
    """Where outputs go; None where that is a store."""


def look(sought: Sought) -> tuple[str, dict[str, str], str | None, bool]:
    """What this node has of what is *sought*: the fields of a Seen."""
    return (
        socket.gethostname(),
        versions(sought.packages),
        next((path for path, size, time in sought.files if not _is_same(path, size, time)), None),
        sought.folder is not None and not os.access(sought.folder, os.W_OK | os.X_OK),
    )


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """The versions of Python, of this package and of *packages*, of those that are here."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    with suppress(ImportError):
        found["cudafilter"] = import_module("cudafilter").__version__
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _is_same(path: str, size: int, time: int) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (size, time)
