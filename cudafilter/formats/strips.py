"""Strips of one image, worked on side by side.

Strips depend on the image alone, so a file's bytes do not depend on the core count.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from cudafilter.cores import cores, share

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")
R = TypeVar("R")


def each(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``work`` of each item, in order. It must not call ``each`` itself.

    Worth it where *work* does most without the interpreter's lock, as codecs and NumPy do.
    """
    if len(items) == 1 or share() == 1:
        return [work(item) for item in items]
    return list(_threads().map(work, items))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(cores(), thread_name_prefix="strip")


if hasattr(os, "register_at_fork"):  # a forked child has the pool but not its threads
    os.register_at_fork(after_in_child=_threads.cache_clear)
