"""Stores: what the local one does of the protocol, and a worker with another one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cudafilter.engines.cpu import CpuEngine
from cudafilter.images import Image, encode, load
from cudafilter.jobs.plan import Job
from cudafilter.jobs.record import DONE
from cudafilter.jobs.worker import Settings, Worker
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.stores import local
from cudafilter.stores.buffers import Source
from cudafilter.stores.store import Content, Identity, Store
from image_files import random_pixels


def test_a_folder_is_listed_by_name(tmp_path: Path) -> None:
    for name in ("b", "A", "c.d"):
        (tmp_path / name).touch()
    assert [entry.name for entry in local.find(str(tmp_path))] == ["A", "b", "c.d"]
    with pytest.raises(FileNotFoundError):
        local.find(str(tmp_path / "none"))


def test_what_is_there_is_told(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(path)
    assert local.exists(link)
    assert not local.exists(path)
    assert local.stat(link) is None
    path.write_bytes(b"12345")
    found = local.stat(link)
    assert found is not None
    assert (found.size, found.inode) == (5, os.stat(path).st_ino)


def test_an_open_file_gives_the_bytes_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    original = os.pread
    monkeypatch.setattr(os, "pread", lambda file, count, at: original(file, min(count, 7), at))
    with local.open(path) as file:
        assert len(file) == 100
        for part in (slice(3), slice(40, 60), slice(-5, None), slice(90, 200), slice(9, 2)):
            assert file[part] == bytes(range(100))[part]
        os.truncate(path, 50)
        assert file[40:60] == bytes(range(40, 50))


def test_content_may_be_patched_but_for_what_was_sent(tmp_path: Path) -> None:
    def fill(target: Any) -> None:
        target.write(b"....")
        target.write(b" world")
        if target.can_patch:
            target.patch(0, b"good")

    local.write_whole(local.resolve(tmp_path / "file"), fill)
    assert (tmp_path / "file").read_bytes() == b"good world"
    reader, writer = os.pipe()
    try:
        local.write_whole(local.resolve(Path(f"/dev/fd/{writer}")), fill)
        assert os.read(reader, 100) == b".... world"
    finally:
        os.close(reader)
        os.close(writer)


class Memory:
    """A store of files in memory."""

    def __init__(self, files: dict[Path, bytes]) -> None:
        self.files = files

    def exists(self, path: Path) -> bool:
        return path in self.files

    def size(self, path: Path) -> int | None:
        return len(self.files[path])

    def stat(self, path: Path) -> Identity | None:
        return None

    def tidy(self, path: Path) -> None:
        raise NotImplementedError

    def read(self, path: Path, look: Callable[[bytes], object], most: int) -> bytes:
        return self.files[path]

    @contextmanager
    def open(self, path: Path) -> Iterator[Source]:
        yield self.files[path]

    def resolve(self, path: Path) -> Any:
        return SimpleNamespace(path=path, stream=None)

    def write_whole(
        self,
        target: Any,
        content: Content,
        *,
        read: Identity | None = None,
        on_complete: Callable[[Identity], None] = lambda _: None,
        new: bool = False,
    ) -> tuple[str, ...]:
        assert not callable(content)
        self.files[target.path] = bytes(content)
        return ()


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_a_worker_reads_and_writes_where_its_store_says(kind: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    data = encode(Image(random_pixels("uint8", 3)), "png")
    memory = Memory({source: bytes(data)})
    store: Store[Path] = memory if kind == "memory" else local
    if kind == "local":
        source.write_bytes(data)
    blur, border = make("box", radius=0), Border()
    worker = Worker(blur, border, Settings(), store=store)
    worker.engine.set(CpuEngine())
    with ExitStack() as held:
        record = worker.do(Job(source, target, "png"), held)
    assert record.status == DONE, record.traceback
    assert target.exists() == (kind == "local")
    written = memory.files[target] if kind == "memory" else target.read_bytes()
    np.testing.assert_array_equal(load(written).pixels, load(data).pixels)
