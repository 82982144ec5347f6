"""The CUDA engine's transfers, threads and failures, on a stand-in for the driver."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from agreement import ALL_BORDERS, assert_agrees, random_pixels
from cudafilter.check import compare
from cudafilter.engines.cuda import bands, chains, kernels, slots, work
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.errors import EngineError
from cudafilter.operations.borders import Border, border_index
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.difference import opening, tophat
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation, stages_of
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.rank import median
from cudafilter.operations.window import square
from fake_cuda import FakeCuda

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")

BLUR = make("blur", sigma=1)
DOWNWARD = Correlation("down", (Kernel(np.full((4, 1), 0.25), (0, 0)),))
"""A kernel that taps only below its pixel."""

Opener = Callable[..., CudaEngine]


@pytest.fixture
def fake(built: Path) -> FakeCuda:
    return FakeCuda(built)


@pytest.fixture
def opened(fake: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Opens engines on the stand-in; at the end nothing is left on it."""
    engines = []
    fake.install(monkeypatch)

    def open(**options: object) -> CudaEngine:
        engines.append(CudaEngine(codec="cpu", **{"variant": "constant"} | options))  # type: ignore[arg-type]
        return engines[-1]

    yield open
    fake.failing.clear()
    for engine in engines:
        engine.close()
    assert fake.pinned == fake.in_use == 0


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two or three rows of the images here."""
    monkeypatch.setattr(slots, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(work, "LEAST_BAND", 1)


def test_a_small_image_costs_no_call_too_many(fake: FakeCuda, opened: Opener) -> None:
    engine = opened()
    pixels = random_pixels((64, 64, 3), "uint8")
    engine.run(pixels, BLUR)
    fake.calls.clear()
    assert_agrees(engine, pixels, BLUR)
    marks = fake.calls.pop("Event.record")
    assert fake.calls == {"upload": 1, "launch": 1, "download": 1, "Stream.synchronize": 1}
    assert marks == 3  # the kernel's two, and the download's


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize(
    "filter", [BLUR, DOWNWARD, make("blur", sigma=12)], ids=["blur", "down", "large"]
)
def test_chunks_have_the_bits_of_the_whole(
    filter: Correlation, border: Border, lazy: bool, fake: FakeCuda, opened: Opener, chunks: None
) -> None:
    fake.lazy = lazy
    engine = opened()
    pixels = random_pixels((33, 41, 3), "uint8")
    assert_agrees(engine, pixels, filter, border)
    assert fake.calls["upload"] > 5
    assert fake.calls["download"] > 5
    assert fake.calls["launch"] > (filter.size[0] < 10 and border.mode != "wrap")


@pytest.mark.parametrize(
    ("dtype", "channels", "alpha"), [("uint16", 4, True), ("float32", 1, False)]
)
def test_chunks_of_every_type(
    dtype: str, channels: int, alpha: bool, opened: Opener, chunks: None
) -> None:
    engine = opened()
    for width in (1, 50):
        assert_agrees(engine, random_pixels((40, width, channels), dtype), BLUR, alpha=alpha)


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_a_kernel_without_weights(
    border: Border, fake: FakeCuda, opened: Opener, chunks: None
) -> None:
    engine = opened(variant="auto")
    assert_agrees(engine, random_pixels((33, 41, 3), "uint8"), median(), border)
    assert fake.calls["launch"] > (border.mode != "wrap")
    assert not fake.weights


CHAIN = Chain(
    (Link(make("sharpen")), Link(make("blur", sigma=1), Border("wrap")), Link(make("sobel")))
)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_chain_stays_on_the_device(dtype: str, fake: FakeCuda, opened: Opener) -> None:
    engine = opened()
    pixels = random_pixels((64, 50, 3), dtype)
    engine.run(pixels, CHAIN)
    fake.calls.clear()
    assert_agrees(engine, pixels, CHAIN)
    del fake.calls["Event.record"]
    launches = 3 if dtype == "float32" else 5  # into floats and out of them, too
    assert fake.calls == {"upload": 1, "launch": launches, "download": 1, "Stream.synchronize": 1}


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("operation", [CHAIN, opening(square(1)), tophat(square(1))])
def test_a_chain_in_bands_has_the_bits_of_the_whole(
    operation: Operation, dtype: str, fake: FakeCuda, opened: Opener
) -> None:
    pixels = random_pixels((200, 60, 3), dtype)
    whole = opened(variant="auto").run(pixels, operation).pixels
    fake.calls.clear()
    pieces = opened(variant="auto", memory_limit=100_000)
    bands = pieces.run(pixels, operation).pixels
    assert fake.calls["launch"] > len(list(stages_of(operation.unrolled(Border()))))
    assert np.array_equal(whole, bands)
    for engine in (opened(variant="auto"), pieces):
        assert np.array_equal(engine.run(pixels, operation, rows=(33, 150)).pixels, whole[33:150])


def test_a_chain_for_which_memory_is_short_goes_stage_by_stage(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened()
    pixels = random_pixels((64, 50, 3), "float32")
    expected = engine.run(pixels, CHAIN).pixels

    def full(*_: object) -> bool:
        raise engine._device.out_of_memory

    monkeypatch.setattr(chains.Stretched, "run", full)
    assert np.array_equal(engine.run(pixels, CHAIN).pixels, expected)


def test_rows_leave_while_others_arrive(fake: FakeCuda, opened: Opener, chunks: None) -> None:
    opened().run(random_pixels((60, 60, 3), "uint8"), BLUR)
    copies = [call for call in fake.order if call in ("upload", "download")]
    assert copies.index("download") < len(copies) / 4
    assert fake.pinned <= 2 * slots.DEPTH * 1024


def test_under_wrap_no_row_is_filtered_before_the_last_one_arrived(
    fake: FakeCuda, opened: Opener, chunks: None
) -> None:
    opened().run(random_pixels((60, 60, 3), "uint8"), BLUR, Border("wrap"))
    launch = fake.order.index("launch")
    assert "upload" not in fake.order[launch:]
    assert fake.calls["launch"] == 1


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_last_taps(border: Border) -> None:
    for filter, source, first, rows in [(BLUR, 20, 0, 20), (DOWNWARD, 9, 0, 9), (BLUR, 12, 3, 6)]:
        above, below, _, _ = filter.reach
        expected = [
            max(border_index(first - above, first + y + 1 + below, source, border.mode))
            for y in range(rows)
        ]
        assert bands.last_taps(filter, border, source, first, rows).tolist() == expected


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_bands_of_little_memory_have_the_same_bits(
    border: Border, opened: Opener, chunks: None
) -> None:
    pixels = random_pixels((50, 90, 3), "uint8")
    for limit in (20_000, 4_000):  # bands of rows, then pieces of a row
        assert len(bands.cut(pixels, BLUR, limit)) > 1
        assert_agrees(opened(memory_limit=limit), pixels, BLUR, border)


def test_memory_is_shared_among_the_slots(fake: FakeCuda, opened: Opener) -> None:
    fake.memory = 600_000
    engine = opened(slots=3)
    pixels = random_pixels((300, 200, 3), "uint8")
    assert_agrees(engine, pixels, BLUR)
    assert fake.in_use < 0.31 * fake.memory


def test_what_grew_stays(fake: FakeCuda, opened: Opener) -> None:
    engine = opened()
    for side in (70, 20, 70, 50):
        engine.run(random_pixels((side, side, 3), "uint8"), BLUR)
    assert fake.calls["mem_alloc"] == 2
    assert fake.calls["pagelocked_empty"] == 2
    assert fake.calls["Stream"] == 1


def test_threads_overlap_and_keep_their_bits(fake: FakeCuda, opened: Opener, chunks: None) -> None:
    engine = opened(slots=3)
    assert engine.parallel == 3
    filters = [make("blur", sigma=1, radius=3), make("blur", sigma=2, radius=3), make("sharpen")]
    cases = [
        (random_pixels((20 + i % 7, 30 + i, 3), "uint8", seed=i), filters[i % 3]) for i in range(24)
    ]
    expected = [engine.run(pixels, filter).pixels for pixels, filter in cases]
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda case: engine.run(*case).pixels, cases))
    assert all(map(np.array_equal, got, expected))
    for (pixels, filter), result in zip(cases[:3], got, strict=False):
        assert right(result, pixels, filter)
    assert 2 <= fake.most_in_flight <= 3


def right(result: Pixels, pixels: Pixels, filter: Correlation) -> bool:
    """Whether *result* is that of *filter*, by the contract."""
    return compare(result, pixels, filter, Border(), False).ok


def test_each_set_of_weights_is_loaded_once(fake: FakeCuda, opened: Opener) -> None:
    engine = opened()
    pixels = random_pixels((9, 9, 3), "uint8")
    for _ in range(3):
        for sigma in (1.0, 2.0):
            assert_agrees(engine, pixels, make("blur", sigma=sigma, radius=3))
    assert fake.calls["module_from_buffer"] == 2


def test_a_kernel_long_unused_is_unloaded(
    fake: FakeCuda, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "MOST_KEPT", 2)
    engine = opened(variant="vanilla")
    pixels = random_pixels((9, 9, 3), "uint8")
    for sigma in (1, 2, 1, 3, 1):
        assert_agrees(engine, pixels, make("blur", sigma=sigma))
    assert fake.calls["module_from_buffer"] == 3


def test_a_full_device_is_emptied_and_tried_again_alone(fake: FakeCuda, opened: Opener) -> None:
    engine = opened(slots=2)
    engine._device.memory_limit = 1 << 20  # so bands do not make up for it
    pixels = random_pixels((90, 90, 3), "uint8")
    taken = threading.Event()

    def hold() -> None:
        with engine._device.current(), engine._device.slots.one() as slot:
            slot.memory("source", 40_000)
            taken.set()
            time.sleep(0.2)

    fake.memory = 80_000
    other = threading.Thread(target=hold)
    other.start()
    taken.wait()
    assert_agrees(engine, pixels, BLUR)  # needs 64 thousand
    other.join()
    assert fake.in_use < 70_000


def test_an_image_that_never_fits_fails_and_the_next_one_does_not(
    fake: FakeCuda, opened: Opener
) -> None:
    engine = opened()
    engine._device.memory_limit = 1 << 20
    fake.memory = 700
    with pytest.raises(EngineError, match=r"out of GPU memory: .*of 700 bytes are free"):
        engine.run(random_pixels((90, 90, 3), "uint8"), BLUR)
    fake.memory = 4000
    assert_agrees(engine, random_pixels((9, 9, 1), "uint8"), BLUR)


def test_two_that_run_out_of_memory_do_not_wait_for_each_other(
    fake: FakeCuda, opened: Opener
) -> None:
    engine = opened(slots=2)
    engine._device.memory_limit = 1 << 20
    fake.memory = 70_000
    pixels = random_pixels((90, 90, 3), "uint8")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: engine.run(pixels, BLUR).pixels, range(8), timeout=60))
    for result in results:
        assert right(result, pixels, BLUR)


@pytest.mark.parametrize("call", ["upload", "launch", "download", "Stream.synchronize"])
def test_after_a_failure_the_slot_is_whole(
    call: str, fake: FakeCuda, opened: Opener, chunks: None
) -> None:
    engine = opened(slots=1)
    pixels = random_pixels((30, 30, 3), "uint8")
    engine.run(pixels, BLUR)
    fake.failing.add(call)
    with pytest.raises(EngineError, match=f"the GPU failed: {call} failed"):
        engine.run(pixels, BLUR)
    assert call == "Stream.synchronize" or not any(stream.queue for stream in fake.streams)
    fake.failing.clear()
    assert_agrees(engine, random_pixels((31, 20, 3), "uint8"), BLUR)


def test_a_result_tells_where_its_seconds_went(opened: Opener) -> None:
    told = opened().run(random_pixels((30, 30, 3), "uint8"), BLUR).seconds
    assert list(told) == ["upload", "kernel", "download"]
    assert told["kernel"] == pytest.approx(1e-3)
    assert 0 < told["upload"] < 1


def test_timing_gives_the_result_too(fake: FakeCuda, opened: Opener, chunks: None) -> None:
    engine = opened()
    pixels = random_pixels((30, 30, 3), "uint8")
    result, times = engine.time_kernel(pixels, BLUR, warmup=1, repeats=4)
    assert right(result, pixels, BLUR)
    assert times == [1.0] * 4
    assert fake.calls["launch"] == 5
    assert engine.time_copy(1000, repeats=2) == [1.0] * 2


def test_two_passes_share_a_scratch_image(fake: FakeCuda, opened: Opener, chunks: None) -> None:
    engine = opened(variant="wide")
    assert_agrees(engine, random_pixels((40, 30, 3), "uint8"), make("blur", sigma=2))
    assert fake.calls["mem_alloc"] == 3
