"""GPUs that a test makes work, wait or fail, and what tells the time to fleets of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import agreement
from agreement import random_pixels
from cudafilter.engines import Engine, Result
from cudafilter.engines.codecs import FileJob, FileResult, JpegPath, PngCodec
from cudafilter.engines.fleet import Fleet
from cudafilter.engines.mended import Mended
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels

BLUR = make("blur", sigma=1)

PIXELS = random_pixels((9, 11, 3), "uint8")


class StandIn(agreement.StandIn):
    """A GPU that the test makes work, wait or fail."""

    name = "cuda"
    note: str | None = None
    png: PngCodec | None = None

    def __init__(
        self,
        number: int = 0,
        parallel: int = 2,
        jpeg: Callable[[], FileResult] | None = None,
        does: Callable[[], object] = lambda: None,
        kernel: float | None = None,
    ) -> None:
        self.title = f"GPU {number}"
        self.parallel = parallel
        self.jpeg: JpegPath | None = StandInJpeg(jpeg) if jpeg else None
        self.does = does
        self.kernel = kernel
        """Seconds that its kernels take for an image, where it tells."""
        self.runs = 0
        self.closed = False

    def run(
        self,
        pixels: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
        *,
        overwrite: bool = False,
        rows: tuple[int, int] | None = None,
    ) -> Result:
        assert not overwrite, "another may need the pixels"
        self.does()
        self.runs += 1
        kernel = {} if self.kernel is None else {"kernel": self.kernel}
        return Result(pixels + np.uint8(1), {self.title: float(self.runs), **kernel})

    def close(self) -> None:
        self.closed = True


@dataclass
class StandInJpeg:
    does: Callable[[], FileResult]
    parallel: int = 3

    def filter(self, job: FileJob) -> FileResult:
        return self.does()


def fail(error: Exception) -> Callable[[], Any]:
    def raising() -> object:
        raise error

    return raising


def in_threads(count: int, work: Callable[[int], object]) -> None:
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()


def both(**options: Any) -> tuple[StandIn, StandIn, Fleet]:
    one, two = StandIn(0, **options), StandIn(1, **options)
    return one, two, Fleet([one, two])


@dataclass
class Clock:
    """What tells the time to fleets."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("cudafilter.engines.fleet.perf_counter", clock)
    return clock


def within(engine: Engine) -> Engine:
    """What is opened anew where it fails for good; *engine* itself where nothing is."""
    return engine._engine if isinstance(engine, Mended) else engine


def settle(engine: Engine) -> None:
    """Wait until the engine that is being opened is there."""
    fleet = within(engine)
    assert isinstance(fleet, Fleet)
    if fleet._opener is not None:
        fleet._opener.join(timeout=10)
