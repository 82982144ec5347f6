"""A result proven in float64 on the device: cuda_src/proof.cu, compiled for the CPU.

Its values are to be the definition's, bit for bit; of magnitudes within the bound.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from agreement import ALL_BORDERS, random_pixels
from cudafilter.check import compare
from cudafilter.engines.codecs import FileJob
from cudafilter.engines.cuda import screen
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.nvidia import nvjpeg
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation, only_stage
from cudafilter.operations.pixels import Exact, Pixels, full_scale, quantise
from cudafilter.proof.screened import Screened
from fake_cuda import FakeCuda
from fake_nvjpeg import fake

__all__ = ["fake"]

_RANDOM = np.random.default_rng(5)

FILTERS: dict[str, Correlation] = {
    "blur": make("blur", sigma=1.3),
    "blur, wider than the image": make("blur", sigma=15),
    "box": make("box", radius=2),
    "dense": make("kernel", weights=_RANDOM.standard_normal((5, 4)) / 5, bias=0.4),
    "emboss": make("emboss"),
    "sharpen": make("sharpen", amount=0.3),
    "unsharp, with a threshold": make("unsharp", sigma=1, threshold=0.02, amount=2),
    "sobel": make("sobel"),
    "scharr": make("scharr", scale=20),
    "two of other sizes": Correlation(
        "two",
        (Kernel.outer([1.0, 2, 3], [0.3]), Kernel.outer([0.7], [1.0, 0, -1, 2])),
        "magnitude",
        gain=0.3,
        source_gain=0.2,
        bias=0.1,
    ),
    "off its centre": Correlation("off", (Kernel(_RANDOM.random((4, 3)) / 9, (3, 0)),), gain=1.3),
    "nothing but bias": Correlation("gray", (Kernel([[1.0]]),), gain=0.0, bias=0.3),
}

SHAPES = [(1, 1), (1, 37), (19, 1), (9, 35)]

LAYOUTS = [(2, True), (3, False), (4, True), (4, False)]


@pytest.fixture
def engine(fake: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaEngine]:
    """An engine that proves the smallest results too, all samples of which may be wrong."""
    fake.install(monkeypatch)
    monkeypatch.setattr(nvjpeg, "find", lambda major: None)
    monkeypatch.setattr(screen, "LEAST_SAMPLES", 0)
    monkeypatch.setattr(screen, "LISTED", 1)
    engine = CudaEngine()
    yield engine
    engine.close()
    assert fake.in_use == 0


@pytest.fixture(params=["compiled for the CPU", pytest.param("GPU", marks=pytest.mark.gpu)])
def prover(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaEngine]:
    """The same on the CPU and on a GPU."""
    if request.param != "GPU":
        yield request.getfixturevalue("engine")
        return
    monkeypatch.setattr(screen, "LEAST_SAMPLES", 0)
    monkeypatch.setattr(screen, "LISTED", 1)
    engine = CudaEngine(codec="cpu")
    yield engine
    engine.close()


def screened(
    engine: CudaEngine,
    source: Pixels,
    result: Pixels,
    filter: Operation,
    border: Border = Border(),
    alpha: bool = False,
) -> Screened:
    told = engine.screen(source, result, filter, border, alpha)
    assert told.notes == ()
    assert told.screened is not None
    return told.screened


def all_wrong(exact: Exact, dtype: str) -> Pixels:
    """A result of which no sample is right, nor is near it."""
    half = full_scale(dtype) / 2
    return np.where(exact > half, 0, full_scale(dtype)).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("name", FILTERS)
def test_values_have_the_definitions_bits(name: str, dtype: str, prover: CudaEngine) -> None:
    filter = FILTERS[name]
    for channels, alpha in LAYOUTS:
        for shape in SHAPES:
            source = random_pixels((*shape, channels), dtype)
            for border in ALL_BORDERS:
                exact = reference.exact(source, filter, border, alpha)
                found = screened(prover, source, all_wrong(exact, dtype), filter, border, alpha)
                case = f"{channels} {alpha} {shape} {border}"
                assert np.array_equal(found.places, np.arange(source.size)), case
                off = np.abs(found.values - exact.ravel()).max()
                assert off <= found.bound, case
                assert (found.bound > 0) == (filter.combine == "magnitude")
                assert found.bound < 1e-6


@pytest.mark.parametrize("name", FILTERS)
def test_only_what_is_not_right_is_listed(name: str, prover: CudaEngine) -> None:
    filter = FILTERS[name]
    for channels, alpha in LAYOUTS:
        source = random_pixels((23, 40, channels), "uint8")
        right = reference.apply(source, filter, Border("reflect"), alpha)
        found = screened(prover, source, right, filter, Border("reflect"), alpha)
        assert len(found.places) == 0
        assert found.right == 23 * 40
        wrong = right.copy()
        wrong[2, 3, 0] ^= 1
        wrong[22, 39, channels - 1] ^= 128
        found = screened(prover, source, wrong, filter, Border("reflect"), alpha)
        assert found.places.tolist() == [(2 * 40 + 3) * channels, source.size - 1]
        assert found.got.tolist() == [wrong[2, 3, 0], wrong[-1, -1, -1]]
        assert found.right == 23 * 40 - 2


def test_bands_change_nothing(engine: CudaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "SUMS_BYTES", 0)
    source = random_pixels((50, 33, 3), "uint8")
    for border in ALL_BORDERS:
        exact = reference.exact(source, FILTERS["blur"], border)
        found = screened(engine, source, all_wrong(exact, "uint8"), FILTERS["blur"], border)
        assert np.array_equal(found.values, exact.ravel())
    assert engine._device.cuda.calls["launch"] == 5 * (1 + 2 * 7)


def test_ties_are_what_the_definition_makes_of_them(prover: CudaEngine) -> None:
    filter = make("kernel", weights=[[0.5, 0.5]])
    source = random_pixels((20, 30, 1), "uint8")
    exact = reference.exact(source, filter)
    right = quantise(exact, "uint8")
    assert len(screened(prover, source, right, filter).places) == 0
    ties = exact % 1 == 0.5
    other = np.where(ties, 2 * np.floor(exact) + 1 - right, right).astype(np.uint8)
    found = screened(prover, source, other, filter)
    assert np.array_equal(found.places, np.flatnonzero(ties))


WIDE = make("kernel", weights=_RANDOM.random((70, 70)), normalize=True)


@pytest.mark.parametrize(
    ("filter", "dtype", "alpha"),
    [
        (make("blur"), "float32", False),
        (make("median"), "uint8", False),
        (Chain((Link(make("blur")), Link(make("sobel")))), "uint8", False),
        (make("sharpen", amount=0), "uint8", False),
        (WIDE, "uint8", False),
        (Correlation("negative", (Kernel([[1.0, -0.2]]),), alpha="filter"), "uint8", True),
        (Correlation("roots", make("sobel").kernels, "magnitude", alpha="filter"), "uint8", True),
        (Correlation("huge", (Kernel([[1e200]]),)), "uint8", False),
    ],
    ids=["float32", "rank", "chain", "identity", "wide", "alpha cancels", "roots", "huge"],
)
def test_what_is_not_for_the_device_is_left_to_the_host(
    filter: Operation, dtype: str, alpha: bool, engine: CudaEngine
) -> None:
    source = random_pixels((20, 30, 4), dtype)
    assert engine.screen(source, source, filter, alpha=alpha).screened is None


def test_a_slow_device_proves_small_kernels_only(
    engine: CudaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random_pixels((20, 30, 1), "uint8")
    for slowness, most in ((2, 2000), (64, 60)):
        engine._device.slowness = slowness
        for sigma in (2, 8, 200):
            filter = make("blur", sigma=sigma)
            told = engine.screen(source, source, filter).screened
            assert (told is not None) == (sum(filter.size) < most)


@pytest.mark.parametrize(("side", "proven"), [(100, False), (1000, True)])
def test_a_small_image_is_left_to_the_host(side: int, proven: bool) -> None:
    stage = only_stage(FILTERS["blur"].unrolled(Border()))
    assert (screen.planned(stage, (side, side, 1), "uint8", False, 2) is not None) == proven


def test_where_the_list_is_too_short_the_host_does_it_all(
    engine: CudaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "LISTED", 100)
    monkeypatch.setattr(screen, "LEAST_LISTED", 0)
    source = random_pixels((20, 30, 1), "uint8")
    right = reference.apply(source, FILTERS["blur"])
    wrong = right.copy()
    wrong[0, :6] ^= 128
    assert len(screened(engine, source, wrong, FILTERS["blur"]).places) == 6
    wrong[0, 6] ^= 128
    assert engine.screen(source, wrong, FILTERS["blur"]).screened is None
    assert len(screened(engine, source, right, FILTERS["blur"]).places) == 0


@pytest.mark.parametrize("lacks", ["source", "list"])
def test_where_memory_lacks_the_host_does_it_all(
    lacks: str, engine: CudaEngine, fake: FakeCuda
) -> None:
    source = random_pixels((60, 70, 3), "uint8")
    right = reference.apply(source, FILTERS["blur"])
    fake.memory = 5000 if lacks == "source" else 60_000
    assert engine.screen(source, right, FILTERS["blur"]).screened is None
    fake.memory = 1 << 30
    assert len(screened(engine, source, right, FILTERS["blur"]).places) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("name", ["blur", "dense", "sobel"])
def test_on_the_gpu_a_large_image_is_proven_and_a_flipped_bit_found(name: str, dtype: str) -> None:
    engine, filter = CudaEngine(codec="cpu"), FILTERS[name]
    source = random_pixels((1500, 2000, 3), dtype)
    for border in ALL_BORDERS:
        result = engine.run(source, filter, border).pixels
        found = screened(engine, source, result, filter, border)
        agreement = compare(result, source, filter, border, screen=found)
        assert agreement.ok
        assert not agreement.note
        assert agreement.recomputed == source.size // 10
        assert agreement.differing == compare(result, source, filter, border).differing
        result[1234, 567, 1] ^= 2
        found = screened(engine, source, result, filter, border)
        agreement = compare(result, source, filter, border, screen=found)
        assert (agreement.ok, agreement.worst, agreement.note) == (False, (567, 1234, 1), "")
    engine.close()


@pytest.mark.gpu
def test_on_the_gpu_a_jpeg_is_proven_where_it_is() -> None:
    engine = CudaEngine()
    if engine.jpeg is None:
        pytest.skip(str(engine.jpeg_reason))
    data = io.BytesIO()
    Image.fromarray(random_pixels((1001, 1203, 3), "uint8")).save(data, "JPEG", quality=95)
    for filter in (make("blur"), make("sobel"), make("sharpen")):
        job = FileJob(data.getvalue(), filter, Border(), keep=True)
        done, plain = engine.jpeg.filter(job._replace(screen=True)), engine.jpeg.filter(job)
        assert done.screened is not None
        assert done.screened.partial
        assert done.kept is not None
        assert plain.kept is not None
        assert bytes(done.data) == bytes(plain.data)
        assert "prove" in done.seconds
        by_device = compare(done.kept[1], done.kept[0], filter, screen=done.screened)
        by_host = compare(plain.kept[1], plain.kept[0], filter)
        assert by_device.ok
        assert by_device.differing == by_host.differing
        assert by_device.samples == by_host.samples == 1001 * 1203 * 3
    engine.close()
