"""--check holds on each route that an image may take, and is no other route.

Each is run as it is, and with a bit that is another one in the device's memory: that is caught.
"""

from __future__ import annotations

import ctypes
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agreement import random_pixels
from cudafilter.engines import Engine
from cudafilter.engines.codecs import FileJob, FileResult, NotTaken
from cudafilter.engines.cuda import screen
from cudafilter.engines.cuda.device import Applied
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.engines.fleet import Fleet
from cudafilter.engines.mended import Mended
from cudafilter.errors import DeviceLost, EngineError
from cudafilter.formats import jpeg as cpu_codec
from cudafilter.jobs.crew import run
from cudafilter.jobs.plan import Job
from cudafilter.jobs.record import Record
from cudafilter.jobs.worker import Settings
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.proof import screened
from cudafilter.proof.screened import Screened
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


@pytest.mark.parametrize("check", [None, "all", "quick"])
def test_a_check_decodes_no_picture_once_more(
    check: str | None, opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a check proves begins with the decoded pixels: a file takes the same way without one.
    judged: list[bytes] = []
    monkeypatch.setattr(cpu_codec, "require_undamaged", judged.append)
    (tmp_path / "a.jpg").write_bytes(coded(photo()))
    record = do(Job(tmp_path / "a.jpg", tmp_path / "b.jpg", "jpeg"), opened()[0], check=check)
    assert record.error is None
    assert not judged


class Screens:
    """Proves the smallest results on the device, and keeps count."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: list[Screened | None] = []
        monkeypatch.setattr(screen, "LEAST_SAMPLES", 0)
        prove = screen.prove

        def counted(*given: Any, **named: Any) -> Screened | None:
            self.found.append(self.change(prove(*given, **named)))
            return self.found[-1]

        self.change: Callable[[Screened | None], Screened | None] = lambda found: found
        monkeypatch.setattr(screen, "prove", counted)


@pytest.fixture
def screens(monkeypatch: pytest.MonkeyPatch) -> Screens:
    return Screens(monkeypatch)


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("route", [route for route in ROUTES if route != "bands"])
def test_by_the_device(
    route: str, kind: str, flipped: bool, opened: Opener, screens: Screens, tmp_path: Path
) -> None:
    (tmp_path / f"a.{kind}").write_bytes(coded(photo()) if kind == "jpg" else png())
    engine = ROUTES[route](opened()[0])
    format = {"jpg": "jpeg", "png": "png"}[kind]
    record = do(Job(tmp_path / f"a.{kind}", tmp_path / f"b.{kind}", format), engine)
    assert_told(record, flipped)
    assert record.agreement is not None
    (found,) = screens.found
    assert found is not None
    assert found.partial == (kind == "jpg")
    if not flipped:
        assert 0 < record.agreement.recomputed < record.agreement.samples // 5
        assert (record.notes == ()) == (route == "one GPU")
    elif kind == "jpg" and not any(
        first <= record.agreement.worst[1] < last for first, last in found.rows
    ):  # nothing is refused by the device's word only, but by the host's in its tenth
        assert record.agreement.recomputed == record.agreement.samples
        assert any("filtered again, and checked on the CPU" in note for note in record.notes)


def test_a_list_that_is_too_short_leaves_all_to_the_host(
    opened: Opener, screens: Screens, tmp_path: Path
) -> None:
    screens.change = lambda found: None
    (tmp_path / "a.jpg").write_bytes(coded(photo()))
    record = do(Job(tmp_path / "a.jpg", tmp_path / "b.jpg", "jpeg"), opened()[0])
    assert record.agreement is not None
    assert record.agreement.ok
    assert record.agreement.recomputed == record.agreement.samples == photo().size


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_a_device_that_is_not_believed_is_told_and_the_host_does_it_all(
    kind: str, opened: Opener, screens: Screens, tmp_path: Path
) -> None:
    screens.change = lambda found: found and found._replace(right=found.right - 1)
    (tmp_path / f"a.{kind}").write_bytes(coded(photo()) if kind == "jpg" else png())
    format = {"jpg": "jpeg", "png": "png"}[kind]
    record = do(Job(tmp_path / f"a.{kind}", tmp_path / f"b.{kind}", format), opened()[0])
    assert record.agreement is not None
    assert record.agreement.ok
    assert record.agreement.recomputed == record.agreement.samples
    (note,) = record.notes
    assert "checked on the CPU: the device looked at" in note


def test_a_picture_that_is_filtered_again_may_go_another_way_and_tells_each_thing_once(
    opened: Opener, screens: Screens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screens.change = lambda found: found and found._replace(right=found.right - 1)
    (tmp_path / "a.jpg").write_bytes(coded(photo()) + b"a video")
    engine, path, _ = opened()
    record = do(Job(tmp_path / "a.jpg", tmp_path / "b.jpg", "jpeg"), engine)
    assert [note[:14] for note in record.notes] == ["7 bytes after ", "filtered again"]
    once = path.filter

    def full(job: FileJob) -> FileResult:
        if not job.screen:
            raise NotTaken("the GPU's memory is full")
        return once(job)

    monkeypatch.setattr(path, "filter", full)
    record = do(Job(tmp_path / "a.jpg", tmp_path / "c.jpg", "jpeg"), engine)
    assert record.error is None
    assert record.agreement is not None
    assert record.agreement.ok
    assert "decoded and encoded on the CPU: the GPU's memory is full" in record.notes


def test_a_device_that_fails_to_prove_leaves_it_to_the_host(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = opened()[0]
    monkeypatch.setattr(engine, "screen", lambda *_: fail(EngineError("gone"))())
    Image.fromarray(random_pixels((90, 80, 3), "uint8")).save(tmp_path / "a.png")
    record = do(Job(tmp_path / "a.png", tmp_path / "b.png", "png"), engine)
    assert record.agreement is not None
    assert record.agreement.ok
    assert record.notes == ("checked on the CPU: gone",)


def test_proven_pictures_do_not_wait_for_each_other(
    opened: Opener, screens: Screens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2)
    settle = screened.settle

    def wait(*given: Any) -> Any:
        together.wait(timeout=20)
        return settle(*given)

    monkeypatch.setattr("cudafilter.check.settle", wait)
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(coded(photo()))
    jobs = [Job(tmp_path / f"{name}.jpg", tmp_path / f"{name}2.jpg", "jpeg") for name in "ab"]
    engine = opened()[0]
    records: list[Record] = []
    settings = Settings(engine_codec=True, check="all")
    run(jobs, lambda: engine, BLUR, Border(), settings, records.append, threads=2)
    assert [record.error for record in records] == [None, None]


def test_what_is_compared_is_what_was_decoded_and_what_is_encoded(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = opened()[1]
    data = coded(photo())
    kept = path.filter(FileJob(data, BLUR, Border(), quality=100, keep=True)).kept
    assert kept is not None
    source, result = kept
    assert np.array_equal(source, np.asarray(Image.open(io.BytesIO(data))))
    done = path.filter(FileJob(data, BLUR, Border(), quality=100))
    assert done.kept is None
    off = np.abs(result.astype(int) - np.asarray(Image.open(io.BytesIO(bytes(done.data)))))
    assert off.mean() < 2
    json.dumps({"samples": result.size})
