"""Which images the sources of a job name: files, folders and globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cudafilter.errors import ParameterError
from cudafilter.images import is_image_name


class Source(NamedTuple):
    """An image that the sources name."""

    path: Path
    below: Path
    """Its path below DEST."""
    named: bool
    """It was asked for by its name, not met in a folder."""


@dataclass
class Found:
    """What the sources name."""

    images: list[Source] = field(default_factory=list)
    left_alone: int = 0
    """Files in folders that are hidden or not images by their name."""
    refused: list[tuple[Path, str]] = field(default_factory=list)
    """What was met in folders and cannot be done, and why."""
    many: bool = False
    """Whether a folder or a glob was named, however many images that turned out."""


def find(sources: Sequence[str], recursive: bool, into: Path | None) -> Found:
    """The images that *sources* name; a folder *into* met inside one of them is left out.

    Raises ParameterError ("src") for what does not exist, and for a folder unless *recursive*.
    """
    found = Found()
    for text in sources:
        path = Path(text)
        if path.is_dir():
            if not recursive:
                raise ParameterError("src", f"{text} is a folder: add -r to take the images in it")
            found.many = True
            # Links may lead there from anywhere; but DEST may also be the folder itself.
            skip = None if into is None or same_file(into, path) else into
            for image in _walk(path, skip, found):
                found.images.append(Source(image, image.relative_to(path), named=False))
        elif os.path.lexists(path):
            found.images.append(Source(path, Path(path.name), named=True))
        elif glob.has_magic(text):
            found.many = True
            _expand(text, found)
        else:
            raise ParameterError("src", f"{text}: no such file or folder")
    return found


def _walk(folder: Path, skip: Path | None, found: Found) -> Iterator[Path]:
    """The images of a tree in order of name, less the folder *skip*.

    Links to folders are followed, but never into a folder that is being walked.
    """

    def walk(folder: Path, inside: tuple[tuple[int, int], ...]) -> Iterator[Path]:
        try:
            status = folder.stat()
            here = (status.st_dev, status.st_ino)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            found.refused.append((folder, error.strerror or str(error)))
            return
        if here in inside or (skip is not None and same_file(folder, skip)):
            return
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                found.left_alone += 1
            elif _is_folder(entry):
                yield from walk(path, (*inside, here))
            elif _is_image(path):
                yield path
            else:
                found.left_alone += 1

    return walk(folder, ())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: loading it says what is wrong
        return False


def _is_image(path: Path) -> bool:
    """Whether *path* is an image by name: a file, or a broken link, which loading reports."""
    return is_image_name(path) and (path.is_file() or not path.exists())


def _expand(pattern: str, found: Found) -> None:
    """Add what *pattern* matches, each file with its path below the pattern's fixed prefix."""
    parts = Path(pattern).parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    prefix = Path(*parts[:first])
    matched = False
    for path in sorted(prefix.glob(str(Path(*parts[first:])))):
        if path.is_dir():
            continue
        matched = True
        below = path.relative_to(prefix)
        if _is_image(path) and not any(part.startswith(".") for part in below.parts):
            found.images.append(Source(path, below, named=False))
        else:
            found.left_alone += 1
    if not matched:
        raise ParameterError("src", f"{pattern}: no such file, and as a pattern it matches none")


def inode(path: Path) -> tuple[int, int] | None:
    """What tells the file behind *path* from all others, links followed; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one existing file or folder."""
    key = inode(one)
    return key is not None and key == inode(other)
