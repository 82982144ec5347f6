"""Watched files that others take the place of."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from test_watch import NOW, World, picture, watched

__all__ = ["watched"]


@pytest.mark.parametrize("how", ["renamed into place", "written over"])
def test_one_of_equal_size_and_time_that_takes_its_place_is_done(how: str) -> None:
    path = picture("in/a.bmp")
    world = World()
    world.next()

    def replace() -> None:
        time.sleep(0.02)  # more than the system's step of the clock
        other = picture("other.bmp", seed=1)
        if how == "renamed into place":
            other.rename(path)
        else:
            path.write_bytes(other.read_bytes())
            os.utime(path, (NOW - 3600, NOW - 3600))

    before = path.stat()
    world.meanwhile = [replace]
    assert world.next() == [("in/a.bmp", "out/a.bmp")]
    assert (path.stat().st_size, path.stat().st_mtime) == (before.st_size, before.st_mtime)
    assert world.quiet()


def test_inodes_that_change_by_themselves_are_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    picture("in/a.bmp")
    stat, inodes = os.stat, iter(range(1, 1_000_000))

    def made_up(path: Any, **options: Any) -> os.stat_result:
        found = stat(path, **options)
        if not str(path).endswith(".bmp"):
            return found
        exact = {name: getattr(found, name) for name in ("st_mtime_ns", "st_ctime_ns")}
        return os.stat_result((found[0], next(inodes), *found[2:]), exact)

    monkeypatch.setattr(os, "stat", made_up)
    world = World()
    world.next()
    assert world.quiet()
