"""JPEGs by the GPU's JPEG units: batches, and what becomes of a picture whose batch fails."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from cudafilter.engines.codecs import FileJob, FileResult, JpegPath, NotTaken
from cudafilter.engines.cuda import jpeg as gpu_jpeg
from cudafilter.engines.cuda import jpeg_units
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.errors import DeviceLost, EngineError
from cudafilter.nvidia.nvjpeg import NvJpegError
from cudafilter.operations.borders import Border
from fake_cuda import FakeCuda
from fake_nvjpeg import BLUR, Opener, StandIn, fake, opened, through
from jpegs import coded as coded_by_pillow
from jpegs import jpeg, photo, picture

__all__ = ["fake", "opened"]

Opened = tuple[CudaEngine, JpegPath, StandIn]


class Held:
    """Pictures that come while the units are at work on a first one, and so wait together."""

    def __init__(self, path: JpegPath, library: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.library, self._monkeypatch = path, library, monkeypatch

    def rooms(self) -> list[Any]:
        """Memory for coded pictures that no picture has."""
        units: Any = self.path._units  # type: ignore[attr-defined]
        return list(units._rooms)

    def together(
        self,
        files: Sequence[bytes],
        keep: bool = False,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> list[Future[FileResult]]:
        """The results of *files*, after that of one picture before them.

        Once they wait, *meanwhile* is called.
        """
        begun, go = threading.Event(), threading.Event()
        original = self.library.DecodeBatched

        def decode(*arguments: Any) -> None:
            if not begun.is_set():
                begun.set()
                assert go.wait(timeout=20)
            original(*arguments)

        self._monkeypatch.setattr(self.library, "DecodeBatched", decode)
        del self.library.batches[:]
        with ThreadPoolExecutor(len(files) + 1) as pool:
            first = pool.submit(through, self.path, jpeg())
            assert begun.wait(timeout=20)
            rest = [pool.submit(kept if keep else through, self.path, file) for file in files]
            units: Any = self.path._units  # type: ignore[attr-defined]
            for _ in range(1000):
                if len(units._line) == len(files):
                    break
                threading.Event().wait(0.01)
            assert len(units._line) == len(files)
            meanwhile()
            go.set()
            assert first.result().data
        return rest


@pytest.fixture
def units(opened: Opener) -> Opened:
    return opened(units=True)


@pytest.fixture
def held(units: Opened, monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(units[1], units[2], monkeypatch)


def test_pictures_that_wait_are_decoded_together(held: Held) -> None:
    done = held.together([jpeg()] * 5)
    assert held.library.batches == [1, 5]
    assert len({bytes(each.result().data) for each in done}) == 1


def test_a_batch_has_one_number_of_channels(held: Held) -> None:
    held.together([jpeg(), jpeg(1), jpeg(), jpeg(1), jpeg()])
    assert sorted(held.library.batches) == [1, 2, 3]


def test_a_batch_has_its_most_pictures(held: Held) -> None:
    held.together([jpeg()] * (jpeg_units.BATCH + 2))
    assert held.library.batches == [1, jpeg_units.BATCH, 2]


def test_a_batch_has_its_most_bytes(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    large = coded_by_pillow(photo(100, 140))  # 100 rows of 512 bytes
    monkeypatch.setattr(jpeg_units, "BATCH_BYTES", 2 * 100 * 512)
    held.together([large] * 5)
    assert held.library.batches == [1, 2, 2, 1]


def test_the_bytes_do_not_depend_on_the_batch(held: Held) -> None:
    files = [jpeg(), jpeg(1), jpeg(subsampling=0), coded_by_pillow(photo())]
    alone = [bytes(through(held.path, data).data) for data in files]
    done = held.together(files * 3)
    assert max(held.library.batches) > 1
    assert [bytes(each.result().data) for each in done] == alone * 3


def test_what_the_units_do_not_take_goes_the_hosts_way(units: Opened) -> None:
    _, path, library = units
    done = library.calls["DecodeJpegDevice"]
    assert through(path, jpeg(subsampling=1)).data
    assert library.calls["DecodeJpegDevice"] == done + 1


def test_of_a_batch_that_fails_each_picture_is_done_by_itself(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = coded_by_pillow(photo(50, 70))
    with failing(held.library, monkeypatch, lambda files: odd in files, 8):
        good, bad, other = held.together([jpeg(), odd, jpeg()])
        assert good.result().data == other.result().data
        with pytest.raises(NotTaken, match="refuses it: nvjpegDecodeBatched: internal error"):
            bad.result()
    assert held.library.batches == [1, 1, 1, 1]  # the one before it, too, is done again
    assert through(held.path, odd).data


def test_a_batch_that_finds_no_memory_is_done_one_by_one(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(held.library, monkeypatch, lambda files: len(files) > 1, 5):
        done = held.together([jpeg()] * 3)
        assert len({bytes(each.result().data) for each in done}) == 1
    assert held.library.batches == [1, 1, 1, 1, 1]


def test_a_picture_gets_the_memory_that_others_hold(units: Opened, fake: FakeCuda) -> None:
    engine, path, library = units
    engine.run(picture(300, 400), BLUR)
    fake.memory = fake.in_use + 1000
    assert through(path, coded_by_pillow(photo())).data
    assert library.batches[-1] == 1
    assert fake.in_use < 300_000


def test_a_picture_that_finds_no_memory_at_all_is_not_taken(units: Opened, fake: FakeCuda) -> None:
    fake.memory = 20_000
    with pytest.raises(NotTaken, match="the GPU's memory is full"):
        through(units[1], jpeg())
    fake.memory = 1 << 30
    assert through(units[1], jpeg()).data


@pytest.mark.parametrize(
    "call", ["DecodeBatchedInitialize", "DecodeBatched", "EncodeImage", "EncodeRetrieveBitstream"]
)
def test_after_a_failure_the_next_picture_goes_through(call: str, units: Opened) -> None:
    _, path, library = units
    library.failing[call] = 6
    with pytest.raises(NotTaken, match=f"refuses it: nvjpeg{call}: execution failed"):
        through(path, jpeg())
    library.failing.clear()
    assert through(path, jpeg()).data


def test_no_thread_waits_for_ever_where_something_else_fails(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise EngineError("on purpose")

    with monkeypatch.context() as patched, ThreadPoolExecutor(1) as pool:
        patched.setattr(jpeg_units, "Passing", fail)
        first = pool.submit(held.together, [jpeg()] * 3)
        with pytest.raises(EngineError, match="on purpose"):
            first.result(timeout=30)
    assert through(held.path, jpeg()).data


def test_who_wants_the_units_alone_comes_before_those_in_line(held: Held) -> None:
    units: Any = held.path._units  # type: ignore[attr-defined]
    done: list[int] = []

    def take() -> None:
        with units.alone():
            done.extend(held.library.batches)

    with ThreadPoolExecutor(1) as pool:

        def meanwhile() -> None:
            pool.submit(take)
            while not units._wanted:
                threading.Event().wait(0.01)

        held.together([jpeg()] * 3, meanwhile=meanwhile)
    assert done == [1]
    assert held.library.batches == [1, 3]


def test_no_thread_waits_for_ever_where_the_device_is_lost(units: Opened, held: Held) -> None:
    device = units[0]._device
    fed: Any = held.path._units  # type: ignore[attr-defined]

    def lose() -> None:
        device.lost = True
        fed._wanted = 1  # so that the next batch begins anew

    try:
        for each in held.together([jpeg()] * 3, meanwhile=lose):
            with pytest.raises(DeviceLost):
                each.result(timeout=20)
    finally:
        device.lost, fed._wanted = False, 0


def test_memory_is_given_back_and_got_again(units: Opened, fake: FakeCuda) -> None:
    engine, path, library = units
    expected = bytes(through(path, jpeg()).data)
    with engine._device.current():
        path.free()  # type: ignore[attr-defined]
    assert not library.alive
    assert bytes(through(path, jpeg()).data) == expected


@pytest.mark.parametrize(("status", "reason"), [(5, "memory is full"), (1, "not initialised")])
def test_where_nvjpeg_does_not_start_again_no_picture_is_taken(
    status: int, reason: str, units: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, path, _ = units
    with engine._device.current():
        path.free()  # type: ignore[attr-defined]

    def fail(_: str) -> None:
        raise NvJpegError("CreateEx", status)

    with monkeypatch.context() as patched:
        patched.setattr(gpu_jpeg, "NvJpeg", fail)
        with pytest.raises(NotTaken, match=reason):
            through(path, jpeg())
    assert through(path, jpeg()).data


def test_where_the_units_are_gone_pictures_go_the_hosts_way(
    units: Opened, fake: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, path, _ = units
    with engine._device.current():
        path.free()  # type: ignore[attr-defined]
        without = StandIn(fake)
    monkeypatch.setattr(gpu_jpeg, "NvJpeg", lambda _: without)
    assert through(path, jpeg()).data
    assert without.calls["DecodeJpegDevice"] == 1


def test_an_engine_opens_where_nvjpeg_does_not_start(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(units=True)

    def fail(_: str) -> None:
        raise NvJpegError("CreateEx", 5)

    monkeypatch.setattr(gpu_jpeg, "NvJpeg", fail)
    engine = CudaEngine(variant="constant", codec="units")
    assert engine.jpeg is not None
    with pytest.raises(NotTaken, match="memory is full"):
        through(engine.jpeg, jpeg())
    engine.close()


def test_pinned_memory_is_used_again(held: Held, fake: FakeCuda) -> None:
    """A picture takes some for its file, and some for what it becomes."""
    for _ in range(3):
        done = held.together([jpeg()] * 5)
        assert 5 <= len(held.rooms()) <= 12  # the picture before them has its own
    for each in done:  # who has a picture has it for good
        ours = np.frombuffer(each.result().data, np.uint8)
        assert not any(np.shares_memory(ours, room) for room in held.rooms())


@pytest.mark.parametrize("files", [1, 3])
def test_pictures_wait_for_pinned_memory(
    files: int, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jpeg_units, "PINNED", files)
    _, path, library = opened(units=True)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(through, path, jpeg()) for _ in range(30)]
        assert len({bytes(each.result(timeout=30).data) for each in waiting}) == 1
    assert max(library.batches) <= files


def test_large_files_are_not_copied(units: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path, _ = units
    asked: list[int] = []
    original = jpeg_units.Units._room

    def room(self: jpeg_units.Units, count: int) -> Any:
        asked.append(count)
        return original(self, count)

    monkeypatch.setattr(jpeg_units.Units, "_room", room)
    expected = through(path, jpeg()).data
    assert asked[0] == len(jpeg())
    monkeypatch.setattr(jpeg_units, "MOST_PINNED", len(jpeg()) - 1)
    assert bytes(through(path, jpeg()).data) == bytes(expected)
    assert len(asked) == 3  # two for what the files become


def test_a_check_gets_the_pixels_of_its_own_picture(held: Held) -> None:
    """Each of a batch has memory of its own name."""
    files = [coded_by_pillow(photo(40 + 8 * n, 60)) for n in range(6)]
    expected = [kept(held.path, file).kept for file in files]
    for done, pixels in zip(held.together(files, keep=True), expected, strict=True):
        got = done.result().kept
        assert got is not None
        assert pixels is not None
        for ours, theirs in zip(got, pixels, strict=True):
            assert ours.shape == theirs.shape
            assert (ours == theirs).all()
    assert held.library.batches == [1, 6]


def kept(path: JpegPath, data: bytes) -> FileResult:
    """*data*, blurred, with the pixels of both sides."""
    return path.filter(FileJob(data, BLUR, Border(), keep=True))


@contextmanager
def failing(
    library: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    fails: Callable[[list[bytes]], bool],
    status: int,
) -> Iterator[None]:
    """Have batches fail of whose files *fails* is true."""
    original = library.DecodeBatched

    def decode(handle: Any, state: Any, data: Any, lengths: Any, *rest: Any) -> None:
        addresses = ctypes.cast(data, ctypes.POINTER(ctypes.c_void_p))
        files = [ctypes.string_at(addresses[n], length) for n, length in enumerate(lengths)]
        if fails(files):
            raise NvJpegError("DecodeBatched", status)
        original(handle, state, data, lengths, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(library, "DecodeBatched", decode)
        yield
