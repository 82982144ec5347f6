"""--check holds on each route that an image may take, and is no other route.

Each is run as it is, and with a bit that is another one in the device's memory: that is caught.
"""

from __future__ import annotations

import ctypes
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agreement import random_pixels
from cudafilter.engines import Engine
from cudafilter.engines.cuda.device import Applied
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.engines.fleet import Fleet
from cudafilter.engines.mended import Mended
from cudafilter.errors import DeviceLost, EngineError
from cudafilter.jobs.crew import run
from cudafilter.jobs.plan import Job
from cudafilter.jobs.record import Record
from cudafilter.jobs.worker import Settings
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from fake_cuda import FakeCuda
from fake_nvjpeg import BLUR, Opener, fake, opened
from jpegs import coded, photo
from stand_in_gpus import StandIn, fail

__all__ = ["fake", "opened"]

CHAIN = Chain((Link(BLUR, Border()), Link(make("sobel"), Border("reflect"))))

Route = Callable[[CudaEngine], Engine]


def itself(engine: CudaEngine) -> Engine:
    return engine


def in_bands(engine: CudaEngine) -> Engine:
    engine._device.memory_limit = 30_000
    return engine


def beside_one_that_fails(engine: CudaEngine) -> Engine:
    gone = fail(EngineError("gone"))
    return Fleet([StandIn(1, jpeg=gone, does=gone), engine])


def opened_anew(engine: CudaEngine) -> Engine:
    lost = fail(DeviceLost("gone"))
    return Mended(StandIn(1, jpeg=lost, does=lost), lambda: engine)


ROUTES: dict[str, Route] = {
    "one GPU": itself,
    "bands": in_bands,
    "several GPUs": beside_one_that_fails,
    "a GPU opened anew": opened_anew,
}


@pytest.fixture(params=[False, True], ids=["whole", "flipped"])
def flipped(
    request: pytest.FixtureRequest, fake: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Whether a bit of each result is flipped in the device's memory."""
    if request.param:
        queue = Applied.queue

        def flipping(applied: Applied, *rows: int) -> None:
            queue(applied, *rows)

            def flip() -> None:
                byte = ctypes.c_ubyte.from_address(applied.out + applied.launch.itemsize - 1)
                byte.value ^= 4

            applied.slot.stream.put(flip)

        monkeypatch.setattr(Applied, "queue", flipping)
    return bool(request.param)


def do(
    job: Job,
    engine: Engine,
    filter: Operation = BLUR,
    check: str | None = "all",
    gray: bool = False,
    stdin: io.BytesIO | None = None,
    stdout: io.BytesIO | None = None,
) -> Record:
    """The record of *job*."""
    records: list[Record] = []
    settings = Settings(engine_codec=True, check=check, gray=gray)
    run(
        [job], lambda: engine, filter, Border(), settings, records.append,
        threads=1, stdin=stdin, stdout=stdout,
    )  # fmt: skip
    (record,) = records
    return record


def assert_told(record: Record, flipped: bool) -> None:
    """The check is in the record; what disagrees is an error."""
    assert record.agreement is not None, record.error
    assert record.agreement.ok == (not flipped)
    assert record.as_json()["agreement"]["violations"] == record.agreement.violations
    assert ("DISAGREES" in str(record.error)) == flipped
    assert (record.status == "failed") == flipped
    assert "check" in record.seconds


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("filter", [BLUR, CHAIN], ids=["filter", "chain"])
def test_of_pixels(
    filter: Operation, route: str, flipped: bool, opened: Opener, tmp_path: Path
) -> None:
    Image.fromarray(random_pixels((90, 80, 3), "uint8")).save(tmp_path / "a.png")
    engine = ROUTES[route](opened()[0])
    record = do(Job(tmp_path / "a.png", tmp_path / "b.png", "png"), engine, filter)
    assert_told(record, flipped)
    assert (tmp_path / "b.png").exists() == (not flipped)


@pytest.mark.parametrize("route", [route for route in ROUTES if route != "bands"])
@pytest.mark.parametrize("gray", [False, True])
def test_of_a_jpeg_by_the_gpus_codec(
    gray: bool, route: str, flipped: bool, opened: Opener, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(coded(photo()))
    plain, _, library = opened()
    engine = ROUTES[route](plain)
    job = Job(tmp_path / "a.jpg", tmp_path / "b.jpg", "jpeg")
    before = library.calls["DecodeJpegHost"]
    record = do(job, engine, gray=gray)
    assert_told(record, flipped)
    assert library.calls["DecodeJpegHost"] == before + 1
    assert list(record.seconds)[:3] == ["read", "run", "check"]
    assert (record.notes == ()) == (route == "one GPU")
    if flipped:
        assert not (tmp_path / "b.jpg").exists()
        return
    checked = (tmp_path / "b.jpg").read_bytes()
    assert do(job, engine, gray=gray, check=None).error is None
    assert (tmp_path / "b.jpg").read_bytes() == checked, "no other bits without the check"


def test_of_streams(flipped: bool, opened: Opener) -> None:
    for data in (coded(photo()), png()):
        out = io.BytesIO()
        job = Job(None, None, None)
        record = do(job, opened()[0], stdin=io.BytesIO(data), stdout=out)
        assert_told(record, flipped)
        assert bool(out.getvalue()) == (not flipped)


def png() -> bytes:
    data = io.BytesIO()
    Image.fromarray(random_pixels((33, 44, 3), "uint8")).save(data, "PNG")
    return data.getvalue()


def test_a_check_still_finds_damage_that_nvjpeg_passes_over(opened: Opener, tmp_path: Path) -> None:
    data = coded(photo())
    cut = data[: len(data) * 2 // 3] + data[-1500:]  # too few in the middle
    (tmp_path / "a.jpg").write_bytes(cut)
    record = do(Job(tmp_path / "a.jpg", tmp_path / "b.jpg", "jpeg"), opened()[0])
    assert record.status == "failed"
    assert not (tmp_path / "b.jpg").exists()


def test_what_is_compared_is_what_was_decoded_and_what_is_encoded(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = opened()[1]
    data = coded(photo())
    kept = path.filter(data, BLUR, Border(), gray=False, quality=100, keep=True).kept
    assert kept is not None
    source, result = kept
    assert np.array_equal(source, np.asarray(Image.open(io.BytesIO(data))))
    done = path.filter(data, BLUR, Border(), gray=False, quality=100)
    assert done.kept is None
    off = np.abs(result.astype(int) - np.asarray(Image.open(io.BytesIO(bytes(done.data)))))
    assert off.mean() < 2
    json.dumps({"samples": result.size})
