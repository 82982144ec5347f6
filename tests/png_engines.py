"""Engines that code every PNG on the device: compiled for the CPU, and a GPU's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cudafilter.engines.cuda import deflate
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.nvidia import nvjpeg
from fake_cuda import FakeCuda
from fake_nvjpeg import fake

__all__ = ["fake"]


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
