"""Which images the sources of a job name: files, folders and globs."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from cudafilter.errors import ParameterError
from cudafilter.formats.table import is_image_name
from cudafilter.formats.unread import kind_of
from cudafilter.jobs.found import Found as Found
from cudafilter.jobs.found import Left as Left
from cudafilter.jobs.found import Source as Source
from cudafilter.jobs.found import matcher, sort, stars
from cudafilter.stores import local
from cudafilter.stores.store import Entry
from cudafilter.stores.url import AnyPath, Url, is_url, require_known

NO_FILE = "no file, but a pipe or a device"
LINK = "a link, which is not followed in place unless asked (--follow)"
ROUND = "a link to a folder that it lies in"
AGAIN = "a folder that is done already, by another name"

Key = tuple[int, int]
"""The identity of a file or folder: its device and its inode."""


def find(
    sources: Sequence[str],
    recursive: bool,
    into: AnyPath | None,
    follow: bool = True,
    strict: bool = False,
) -> Found:
    """The images that *sources* name; a folder *into* met inside one of them is left out.

    *follow* says that links met in folders are followed; one that is named itself always is. A
    folder that several paths lead to is visited once in each source: by the path with the fewest
    links, of several the first by name. *strict* says that pictures and films of kinds that are not
    read are refused, not left alone. Raises ParameterError ("src") for what does not exist, and
    for a folder unless *recursive*.
    """
    found = Found()
    skip = inode(into) if isinstance(into, Path) else None
    for text in sources:
        require_name("src", text)
        if is_url(text):
            from cudafilter.jobs import objects  # not before: most runs do without

            objects.find(text, found, recursive, into, strict)
            continue
        require_known("src", text)
        path = Path(text)
        name = str(path)
        if os.path.isdir(name):
            if not recursive:
                raise ParameterError("src", f"{text} is a folder: add -r to take the images in it")
            found.many = True
            _Finder(found, follow, strict, name, skip).walk()
        elif os.path.lexists(name):
            found.images.append(Source(path, path.name, True, os.path.islink(name)))
        elif glob.has_magic(text):
            found.many = True
            _expand(text, found, follow, strict, skip)
        else:
            raise ParameterError("src", f"{text}: {_absence(name)}")
    return found


def require_name(parameter: str, text: str) -> None:
    """Raise ParameterError (*parameter*) for what no file can be called."""
    if not text:
        raise ParameterError(parameter, "a file name is empty")
    if "\0" in text:
        raise ParameterError(parameter, f"{text!r}: a file name cannot hold a NUL character")


def _expand(pattern: str, found: Found, follow: bool, strict: bool, skip: Key | None) -> None:
    """Add what *pattern* matches, each file with its path below the pattern's fixed prefix.

    ``**`` as a part of its own stands for folders in each other, those behind links not among them;
    anywhere else it is a ``*``, as in a shell. Raises ParameterError where nothing matches.
    """
    parts = Path(pattern).parts
    first = next(n for n, part in enumerate(parts) if glob.has_magic(part))
    finder = _Finder(found, follow, strict, str(Path(*parts[:first])), skip)
    if not finder.expand(parts[first:]):
        what = f"{pattern}: no such file, and as a pattern it matches none"
        raise ParameterError("src", what, hint=stars(parts))


def _absence(name: str) -> str:
    """Why nothing is found at *name*."""
    try:
        os.lstat(name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        return error.strerror or str(error)
    return "no such file or folder"


class _Finder:
    """Looks into folders on behalf of one source."""

    def __init__(
        self, found: Found, follow: bool, strict: bool, top: str, skip: Key | None
    ) -> None:
        self._found, self._follow, self._strict, self._top = found, follow, strict, top
        # Links may lead to DEST from anywhere; but it may also be the folder itself.
        self._skip = skip if skip != inode(top) else None
        self._folder = Path(top), top

    def walk(self) -> None:
        """Add the images of the tree, in order of name."""
        found, top, seen = self._found, self._top, set[Key]()
        prefix, begun = os.path.join(top, ""), len(found.images)
        # A tree without its links, then those that the links lead to: so the path with the fewest
        # links comes first. Without recursion, which a deep tree would exhaust.
        trees = deque([top])
        while trees:
            stack = self._visit(trees.popleft(), seen)
            while stack:
                entry = stack.pop()
                if entry.name.startswith("."):
                    found.left_alone += 1
                elif not _is_folder(entry):
                    self._file(entry, entry.path[len(prefix) :])
                elif not entry.is_symlink():
                    stack += self._visit(entry.path, seen)
                elif not self._follow:
                    self._leave(entry.path, LINK)
                elif _leads_round(entry.path, top):
                    self._leave(entry.path, ROUND)
                else:
                    trees.append(entry.path)
        sort(found.images, begun)

    def _visit(self, folder: str, seen: set[Key]) -> list[Entry]:
        """What is in *folder*, the last by name first, unless it is among *seen*."""
        entries = self._entries(folder, seen)
        if entries is None:
            self._leave(folder, AGAIN)
            return []
        return list(reversed(entries))

    def expand(self, parts: Sequence[str]) -> bool:
        """Add what *parts* of a pattern match below the folder, each file with its path below it.

        Returns whether they match anything; a folder that cannot be listed counts as a match.
        """
        found, top, seen = self._found, self._top, set[Key]()
        *middle, last = parts
        if last == "**":
            middle, last = [*middle, "**"], "*"
        begun, matches = len(found.images), matcher(last)
        prefix, refused, matched = os.path.join(top, ""), len(found.refused), False
        folders = [(0, top)] if os.path.isdir(top) else []
        for part in middle:
            folders = self._below(folders) if part == "**" else self._matching(folders, part)
        for _, folder in folders:
            for entry in self._entries(folder, seen) or ():
                if not matches(entry.name) or _is_folder(entry):
                    continue
                matched = True
                if entry.name.startswith("."):
                    found.left_alone += 1
                else:
                    self._file(entry, entry.path[len(prefix) :])
        sort(found.images, begun)
        return matched or len(found.refused) > refused

    def _matching(self, folders: list[tuple[int, str]], part: str) -> list[tuple[int, str]]:
        """The folders in *folders* that *part* of a pattern matches, each once.

        A folder goes in and out as (links on its path, path), those of few links first.
        """
        matches, seen = matcher(part), set[Key]()
        inner = []
        for links, folder in folders:
            for entry in self._entries(folder, seen) or ():
                if entry.name.startswith(".") or not matches(entry.name) or not _is_folder(entry):
                    continue
                if entry.is_symlink() and not self._follow:
                    self._leave(entry.path, LINK)
                else:
                    inner.append((links + entry.is_symlink(), entry.path))
        unique: dict[Key | None, tuple[int, str]] = {}
        for at in sorted(inner):
            if unique.setdefault(inode(at[1]), at) is not at:
                self._leave(at[1], AGAIN)
        return list(unique.values())

    def _below(self, folders: list[tuple[int, str]]) -> list[tuple[int, str]]:
        """*folders* and all below them, each once; as _matching()."""
        seen = set[Key]()
        inner = []
        stack = folders[::-1]
        while stack:
            links, folder = stack.pop()
            entries = self._entries(folder, seen)
            if entries is None:
                continue
            inner.append((links, folder))
            stack += [
                (links, entry.path)
                for entry in reversed(entries)
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            ]
        return sorted(inner)

    def _entries(self, folder: str, seen: set[Key]) -> Sequence[Entry] | None:
        """What is in *folder* by name, which is then added to *seen*; None where it is there.

        What cannot be listed is refused, and has nothing in it.
        """
        try:
            status = os.stat(folder)
            key = status.st_dev, status.st_ino
            if key == self._skip:
                return []
            if key in seen:
                return None
            seen.add(key)
            return local.find(folder)
        except OSError as error:
            self._found.refused.append((Path(folder), error.strerror or str(error)))
            return []

    def _file(self, entry: Entry, below: str) -> None:
        """Add an image, or leave *entry* alone, which is no folder."""
        name, link = entry.name, entry.is_symlink()
        if link and not self._follow and (is_image_name(name) or kind_of(name)):
            self._leave(entry.path, LINK)
        elif not self._found.wants(self._path(entry), name, self._strict):
            pass
        elif not _is_file(entry):
            self._leave(entry.path, NO_FILE)
        else:
            self._found.images.append(Source(self._path(entry), below, False, link))

    def _path(self, entry: Entry) -> Path:
        """The path of *entry*, made from its folder's: that takes half the time."""
        name = entry.path[: -len(entry.name)]
        folder, known = self._folder
        if known != name:
            folder = Path(name)
            self._folder = folder, name
        return folder / entry.name

    def _leave(self, path: str, why: str) -> None:
        self._found.leave(Path(path), why)


def _is_folder(entry: Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: loading it says what is wrong
        return False


def _is_file(entry: Entry) -> bool:
    """Whether *entry* is a file, or a broken link, which loading reports."""
    try:
        return entry.is_file() or not os.path.exists(entry.path)
    except OSError:
        return True


def _leads_round(link: str, top: str) -> bool:
    """Whether *link* leads to a folder that the link itself or the tree *top* lies in."""
    target = os.path.join(os.path.realpath(link), "")
    places = (os.path.dirname(link), top)
    return any(os.path.join(os.path.realpath(at), "").startswith(target) for at in places)


def inode(path: str | AnyPath) -> Key | None:
    """What tells the file behind *path* from all others, links followed; None if there is none."""
    found = None if isinstance(path, Url) else local.stat(path)
    return (found.device, found.inode) if found else None


def same_file(one: str | Path, other: str | Path) -> bool:
    """Whether two paths lead to one existing file or folder."""
    key = inode(one)
    return key is not None and key == inode(other)
