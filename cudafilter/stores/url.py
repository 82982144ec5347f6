"""Names of objects in stores, which stand beside paths of files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Self, TypeAlias
from urllib.parse import unquote

from cudafilter.errors import ParameterError

SCHEMES = ("s3", "gs", "az", "http", "https", "memory")
WEB = ("http", "https")
"""Schemes of web servers, which are only read."""


class Url:
    """The name of an object or a folder in a store, used as a Path is. It holds no credentials."""

    __slots__ = ("key", "root", "size")

    def __init__(self, root: str, key: str, size: int | None = None) -> None:
        self.root = root
        """What one client reaches: ``s3://bucket``."""
        self.key = key
        """The rest, without a slash before or after it; empty for all of *root*."""
        self.size = size
        """Bytes of the object where a listing has told them."""

    @classmethod
    def parsed(cls, parameter: str, text: str) -> Self:
        """The name that *text* is, which is_url(). Raises ParameterError (*parameter*)."""
        scheme, _, rest = text.partition("://")
        place, _, key = rest.partition("/")
        shown = f"{scheme}://..."
        if "@" in place:
            raise ParameterError(
                parameter,
                f"{shown}: a user or password before '@' is not taken from the command line",
                hint="see docs/stores.md for where credentials come from",
            )
        if scheme in WEB and ("?" in rest or "#" in rest):
            raise ParameterError(
                parameter,
                f"{shown}: what follows '?' or '#' is not sent, for it may hold credentials",
                hint="download the file, and give its path",
            )
        if not place and scheme != "memory":
            raise ParameterError(parameter, f"{text}: names no bucket, as {scheme}://NAME/ does")
        key = key.rstrip("/")
        if scheme in WEB:
            key = unquote(key)
        if key and not {"", ".", ".."}.isdisjoint(key.split("/")):
            raise ParameterError(
                parameter, f"{text}: a part of the name is empty, or '.' or '..', which is not read"
            )
        return cls(f"{scheme}://{place}", key)

    @property
    def scheme(self) -> str:
        """``s3``, ``gs`` or another of SCHEMES."""
        return self.root.partition("://")[0]

    @property
    def name(self) -> str:
        """The last part of the key; empty for all of the root."""
        return self.key[self.key.rfind("/") + 1 :]

    @property
    def parent(self) -> Url:
        """The folder that it is in."""
        return Url(self.root, self.key[: max(0, self.key.rfind("/"))])

    @property
    def prefix(self) -> str:
        """What the keys of all that is in it begin with."""
        return f"{self.key}/" if self.key else ""

    def with_suffix(self, suffix: str) -> Url:
        """It with another extension."""
        return Url(self.root, os.path.splitext(self.key)[0] + suffix)

    def __truediv__(self, below: str) -> Url:
        return Url(self.root, self.prefix + below)

    def __str__(self) -> str:
        return f"{self.root}/{self.key}"

    __fspath__ = __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Url):
            return NotImplemented
        return (self.root, self.key) == (other.root, other.key)

    def __hash__(self) -> int:
        return hash((self.root, self.key))


AnyPath: TypeAlias = Path | Url


def is_url(text: str) -> bool:
    """Whether *text* names something in a store, not a file."""
    scheme, mark, _ = text.partition("://")
    return bool(mark) and scheme in SCHEMES


def require_known(parameter: str, text: str) -> None:
    """Raise ParameterError (*parameter*) for a URL of no store that is known.

    It would be taken for a file, and folders of that name be made.
    """
    found = re.match(r"([A-Za-z][\w+.-]*)://", text)
    if found is None or found[1] in SCHEMES:
        return
    scheme, rest = found[1].lower(), text[found.end() :]
    hint = f"for a file of that name: .{os.sep}{Path(text)}"
    if scheme in SCHEMES:
        hint = f"did you mean {scheme}://{rest}?"
    elif scheme == "file":
        hint = f"did you mean {unquote(rest)}?"
    known = ", ".join(f"{each}://" for each in SCHEMES[:-1])
    raise ParameterError(parameter, f"{text}: no store is named so, but by {known}", hint=hint)


def path_of(name: str) -> AnyPath:
    """The file or object that is called *name*, as a record or a report has it."""
    if not is_url(name):
        return Path(name)
    scheme, _, rest = name.partition("://")
    place, _, key = rest.partition("/")
    return Url(f"{scheme}://{place}", key)
