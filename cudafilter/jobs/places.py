"""Where paths really lead, each folder asked once."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from cudafilter.jobs.sources import same_file
from cudafilter.stores.url import AnyPath, Url


class _Folder(NamedTuple):
    real: str
    """Without links, ending in a separator."""
    there: bool
    blind: bool
    """It takes ``A`` and ``a`` for the same name."""


class Place(NamedTuple):
    """Where a path leads."""

    real: str
    """The path without links."""
    blind: bool
    """Its folder takes ``A`` and ``a`` for the same name."""
    there: bool
    """Something has that name, even if it is a broken link."""
    status: os.stat_result | None
    """That of the file that it leads to; None where there is none."""

    @property
    def key(self) -> str:
        """Equal for paths that lead to one file."""
        return self.real.casefold() if self.blind else self.real


class Places:
    """Tells where paths lead. What it learned of a folder it does not ask again."""

    def __init__(self) -> None:
        self._folders: dict[str, _Folder] = {}

    def real(self, path: AnyPath, link: bool) -> str:
        """*path* without links; *link* says whether its last part is one."""
        if isinstance(path, Url):
            return str(path)
        above, name = _split(path)
        if link or name in ("", ".", ".."):
            return os.path.realpath(path)
        return self._folder(above).real + name

    def of(self, path: AnyPath) -> Place:
        """Where *path*, which ends in a name, leads.

        Of an object nothing is asked: it leads nowhere else, and whether it is there is told by a
        listing where that counts.
        """
        if isinstance(path, Url):
            return Place(str(path), False, False, None)
        above, name = _split(path)
        folder = self._folder(above)
        real, there, status = folder.real + name, False, None
        if folder.there and (status := _status(path)) is not None:
            there = True
            if stat.S_ISLNK(status.st_mode):
                real = os.path.realpath(path)
                status = _status(real)
        return Place(real, folder.blind, there, status)

    def _folder(self, name: str) -> _Folder:
        known = self._folders.get(name)
        if known is None:
            real = os.path.join(os.path.realpath(name), "")
            known = _Folder(real, os.path.isdir(real), ignores_case(name))
            self._folders[name] = known
        return known


def _split(path: Path) -> tuple[str, str]:
    """The folder of *path*, ending in a separator unless it is the current one, and the name."""
    text = str(path)
    name = text[text.rfind(os.sep) + 1 :]
    return text[: len(text) - len(name)], name


def _status(path: str | Path) -> os.stat_result | None:
    """That of *path* itself; None where there is nothing."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def ignores_case(folder: str) -> bool:
    """Whether *folder*, or the nearest above it that tells, takes ``A`` and ``a`` for one."""
    place = os.path.abspath(folder)
    while True:
        above, name = os.path.split(place)
        if not name:
            return False
        swapped = name.swapcase()
        if swapped != name and os.path.exists(place):
            return same_file(place, os.path.join(above, swapped))
        place = above
