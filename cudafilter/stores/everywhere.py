"""Files of this machine and objects of stores, each by its own store: the name tells which."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from cudafilter.stores import local
from cudafilter.stores.buffers import Source
from cudafilter.stores.store import Content, Identity, Store
from cudafilter.stores.url import AnyPath, Url


def of(path: AnyPath) -> Store[Any]:
    """The store that has *path*."""
    if not isinstance(path, Url):
        return local
    from cudafilter.stores import remote  # not before: most runs do without

    return remote


def exists(path: AnyPath) -> bool:
    """See Store.exists."""
    return of(path).exists(path)


def size(path: AnyPath) -> int | None:
    """See Store.size."""
    return of(path).size(path)


def stat(path: AnyPath) -> Identity | None:
    """See Store.stat."""
    return of(path).stat(path)


def tidy(path: AnyPath) -> None:
    """See Store.tidy."""
    of(path).tidy(path)


def read(path: AnyPath, look: Callable[[bytes], object], most: int) -> bytes:
    """See Store.read."""
    return of(path).read(path, look, most)


def open(path: AnyPath) -> AbstractContextManager[Source]:
    """See Store.open."""
    return of(path).open(path)


def resolve(path: AnyPath) -> Any:
    """See Store.resolve."""
    return of(path).resolve(path)


def write_whole(
    target: Any,
    content: Content,
    *,
    read: Identity | None = None,
    on_complete: Callable[[Identity], None] = lambda _: None,
    new: bool = False,
) -> tuple[str, ...]:
    """See Store.write_whole."""
    return of(target.path).write_whole(target, content, read=read, on_complete=on_complete, new=new)
