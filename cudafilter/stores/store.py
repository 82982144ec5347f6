"""What a store is: a place with files, which are read, and written whole or not at all.

``stores.local`` is one for paths and ``stores.remote`` one for URLs: the modules themselves have
these functions. ``stores.everywhere`` asks the one that a name belongs to.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from cudafilter.errors import ImageError
from cudafilter.stores.buffers import Buffer, Sink, Source

Content: TypeAlias = Buffer | Callable[[Sink], object]
"""What becomes a file: its bytes, or what writes them bit by bit."""


class Identity(NamedTuple):
    """What tells a file and its content from what it was or will be. Times are in ns."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int
    links: int

    def unchanged(self, now: Identity) -> bool:
        """Whether a file that was this is still the same *now*.

        Where a name of it is replaced, its count of links changes, and with that its last time.
        """
        return self[:4] == now[:4] and (self.changed == now.changed or self.links != now.links)

    def is_renamed(self, now: Identity) -> bool:
        """Whether *now* is the same file by another name, which changes its last time."""
        return self[:4] == now[:4]


class Exists(ImageError):
    """Another program put a file since the plan was made, and it stays."""


class Entry(Protocol):
    """Something in a folder, such as an os.DirEntry."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    def is_dir(self, *, follow_symlinks: bool = True) -> bool: ...

    def is_file(self, *, follow_symlinks: bool = True) -> bool: ...

    def is_symlink(self) -> bool: ...


Name = TypeVar("Name", contravariant=True)
"""What its files are called by: a Path or a Url."""


class Store(Protocol[Name]):
    """Where files are. What fails raises ImageError with the reason, or OSError where said."""

    def exists(self, path: Name, /) -> bool:
        """Whether there is something by that name, were it a link that leads nowhere."""
        ...

    def size(self, path: Name, /) -> int | None:
        """How many bytes a file has; None where it cannot be told."""
        ...

    def stat(self, path: Name, /) -> Identity | None:
        """The identity of a file, links followed; None where it cannot be told."""
        ...

    def tidy(self, path: Name, /) -> None:
        """Rid the folder of *path* of what killed runs left there. Raises OSError."""
        ...

    def read(self, path: Name, look: Callable[[bytes], object], most: int, /) -> bytes:
        """The bytes of a file.

        *look* is given the first bytes of what is long or does not tell its size, which is then
        read up to *most* bytes; it raises what ends the reading. Raises OSError, MemoryError too.
        """
        ...

    def open(self, path: Name, /) -> AbstractContextManager[Source]:
        """A file whose bytes are read as they are asked for. Raises OSError."""
        ...

    def resolve(self, path: Name, /) -> Any:
        """What is at *path*, for write_whole(); its ``stream`` is None where that is a file."""
        ...

    def write_whole(
        self,
        target: Any,
        content: Content,
        /,
        *,
        read: Identity | None = None,
        on_complete: Callable[[Identity], None] = ...,
        new: bool = False,
    ) -> tuple[str, ...]:
        """Write to what resolve() gave, so that the file appears whole or not at all.

        *read* is for a change in place: unless the file is still that, it stays. *on_complete* is
        told of the new one before it takes the old one's place. *new* is for a store that others
        write to: what is put there meanwhile stays, and a note tells where it cannot see to that.
        Returns notes that name what could not be kept.
        """
        ...
