"""What the sources of a job name: images, and what is left alone or refused beside them."""

from __future__ import annotations

import fnmatch
import functools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cudafilter.errors import CudafilterError
from cudafilter.formats.table import is_image_name
from cudafilter.formats.unread import kind_of
from cudafilter.stores.url import AnyPath


class Source(NamedTuple):
    """An image that the sources of a job name."""

    path: AnyPath
    below: str
    """Its path below DEST."""
    named: bool
    """It was asked for by its name, not met in a folder."""
    link: bool
    """The path's last part is a link."""


class Left(NamedTuple):
    """What was met in a folder and is left alone, though somebody may miss it."""

    path: AnyPath
    why: str
    """A kind that is not read and what to do with it, or NO_FILE, LINK, ROUND or AGAIN."""


@dataclass
class Found:
    """What the sources name."""

    images: list[Source] = field(default_factory=list)
    left_alone: int = 0
    """What is left alone in folders: hidden, no image by its name, or among left."""
    left: list[Left] = field(default_factory=list)
    refused: list[tuple[AnyPath, str]] = field(default_factory=list)
    """What was met in folders and cannot be done, and why."""
    many: bool = False
    """Whether a folder or a glob was named, however many images that turned out."""

    def wants(self, path: AnyPath, name: str, strict: bool) -> bool:
        """Whether the file *path*, met by its *name*, is an image; else it is left alone here.

        *strict* refuses pictures and films of kinds that are not read.
        """
        if name.startswith("."):
            self.left_alone += 1
            return False
        if is_image_name(name):
            return True
        kind = kind_of(name)
        if kind is None:
            self.left_alone += 1
        elif strict:
            self.refused.append((path, str(kind)))
        else:
            self.leave(path, str(kind))
        return False

    def refuse(self, path: AnyPath, error: CudafilterError) -> None:
        """Refuse *path*, for the reason that *error* tells."""
        hint = f" ({error.hint})" if error.hint else ""
        self.refused.append((path, str(error).removeprefix(f"{path}: ") + hint))

    def add(self, more: Found) -> None:
        """Add what *more* has."""
        self.images += more.images
        self.left_alone += more.left_alone
        self.left += more.left
        self.refused += more.refused

    def leave(self, path: AnyPath, why: str) -> None:
        """Leave *path* alone, though somebody may miss it."""
        self.left_alone += 1
        self.left.append(Left(path, why))


def sort(images: list[Source], begun: int) -> None:
    """Bring the images from number *begun* on into the order of their folders and names."""
    images[begun:] = sorted(images[begun:], key=lambda image: image.below.split(os.sep))


@functools.cache
def matcher(part: str) -> Callable[[str], object]:
    """Tells the names that *part* of a pattern matches."""
    return re.compile(fnmatch.translate(part)).match


def stars(parts: Sequence[str]) -> str | None:
    """What to write instead of stars that stand for folders nowhere."""
    for part in parts:
        if "**" in part and part != "**":
            name = re.sub(r"\*+", "*", part)
            return f"folders in folders are a part of their own: **/{name}"
    return None
