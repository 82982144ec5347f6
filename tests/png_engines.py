"""Engines that code every PNG on the device: compiled for the CPU, and a GPU's; and what they are
given."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from cudafilter import images
from cudafilter.engines import Engine
from cudafilter.engines.codecs import FileJob, FileResult, NotTaken
from cudafilter.engines.cuda import deflate
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.jobs.job import Job
from cudafilter.jobs.plan import make_plan
from cudafilter.jobs.record import Record
from cudafilter.jobs.worker import Settings, Worker
from cudafilter.nvidia import nvjpeg
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Pieces
from fake_cuda import FakeCuda
from fake_nvjpeg import fake
from image_files import chunk
from stand_in_gpus import BLUR

__all__ = ["BLUR", "fake"]


def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture is worth the device."""
    monkeypatch.setattr(deflate, "LEAST", 0)
    monkeypatch.setattr(deflate, "LOST", 9.0)


@pytest.fixture
def compiled(fake: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaEngine]:
    """An engine whose kernels are compiled for the CPU."""
    fake.install(monkeypatch)
    monkeypatch.setattr(nvjpeg, "find", lambda major: None)
    limits(monkeypatch)
    engine = CudaEngine()
    yield engine
    engine.close()
    assert fake.in_use == 0 or fake.dead is not None


@pytest.fixture(params=["compiled for the CPU", pytest.param("GPU", marks=pytest.mark.gpu)])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaEngine]:
    """The same on the CPU and on a GPU."""
    if request.param != "GPU":
        yield request.getfixturevalue("compiled")
        return
    limits(monkeypatch)
    engine = CudaEngine()
    yield engine
    engine.close()


def png_of(pixels: Pixels, **more: Any) -> bytes:
    alpha = pixels.shape[2] in (2, 4)
    return bytes(images.encode(images.Image(pixels, alpha), "png", **more))


def by_host(engine: Engine, data: bytes, filter: Operation, border: Border = Border()) -> bytes:
    """*data* filtered by the engine's other ways."""
    image = images.load(data)
    done = engine.run(image.pixels, filter, border, image.alpha)
    file = Pieces()
    output = images.Output("png", file, png=lambda: engine.png)
    output.add(image.with_pixels(done.pixels))
    output.close()
    return bytes(file.joined())


def through(
    engine: Engine, data: bytes, filter: Operation = BLUR, border: Border = Border(), **more: Any
) -> FileResult | None:
    """The result; None where it is left to the host."""
    assert engine.png is not None
    with suppress(NotTaken):
        return engine.png.filter(FileJob(data, filter, border, **more))
    return None


def raw_png(raw: bytes, interlaced: int = 0, more: bytes = b"", ancillary: bytes = b"") -> bytes:
    """An 8-bit gray picture of 8x8 with the filtered rows *raw*, and *more* behind their stream."""
    head = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, interlaced)
    packed = ancillary + chunk(b"IDAT", zlib.compress(raw) + more)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + packed + chunk(b"IEND", b"")


ROWS = bytes([0, *range(8)]) * 8


class Run:
    """One file by a worker whose engine is open."""

    def __init__(self, engine: Engine, filter: Operation = BLUR, border: Border = Border()) -> None:
        self.engine, self.filter, self.border = engine, filter, border

    def __call__(self, name: str = "a.png", **settings: Any) -> tuple[Record, bytes | None]:
        worker = Worker(self.filter, self.border, Settings(**{"engine_codec": True} | settings))
        worker.engine.set(self.engine)
        (job,) = make_plan([name], "out.png").jobs
        assert isinstance(job, Job)
        out = Path("out.png")
        out.unlink(missing_ok=True)
        with ExitStack() as held:
            record = worker.do(job, held)
        return record, out.read_bytes() if out.exists() else None
