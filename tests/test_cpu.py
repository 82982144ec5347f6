"""The CPU engine's own: kernels larger than the image, long ones, and independence of the cores."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from agreement import ALL_BORDERS, LAYOUTS, assert_agrees, random_pixels
from cudafilter.engines import Engine
from cudafilter.engines import block as block_module
from cudafilter.engines import cpu as cpu_module
from cudafilter.engines.cpu import CpuEngine
from cudafilter.engines.fold import fold
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.make import make
from cudafilter.operations.pixels import DTYPES

_RANDOM = np.random.default_rng(5)

LARGE = {
    "blur": make("blur", sigma=25),
    "narrow blur of a large radius": make("blur", sigma=3, radius=80),
    "box": make("box", radius=66),
    "unsharp": make("unsharp", sigma=30, amount=0.7, threshold=0.01),
    "dense": make("kernel", weights=_RANDOM.random((41, 36)), normalize=True),
    "dense with negative weights": make("kernel", weights=_RANDOM.standard_normal((20, 45)) / 30),
    "row off its centre": Correlation(
        "row", (Kernel(_RANDOM.random((1, 150)), (0, 140)),), gain=1 / 75, alpha="filter"
    ),
    "two sizes": Correlation(
        "two sizes",
        (Kernel(np.full((2, 131), 1.0), (0, 7)), Kernel(_RANDOM.random((5, 3)), (4, 0))),
        combine="magnitude", gain=1 / 262,
    ),
}  # fmt: skip

OFF_CENTRE = [
    Correlation("off centre", (Kernel(_RANDOM.random((23, 5)), anchor),), gain=1 / 115)
    for anchor in ((21, 0), (1, 4))
]


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_larger_than_the_image(
    cpu: Engine, dtype: str, channels: int, alpha: bool, border: Border
) -> None:
    for shape in [(1, 1), (2, 3), (1, 90), (200, 2), (23, 37)]:
        pixels = random_pixels((*shape, channels), dtype)
        for filter in LARGE.values():
            assert_agrees(cpu, pixels, filter, border, alpha)


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("name", LARGE)
def test_folding_leaves_the_result(name: str, border: Border) -> None:
    for height, width in [(1, 1), (2, 3), (5, 31), (40, 7)]:
        pixels = random_pixels((height, width, 2), "float32")
        expected = reference.exact(pixels, LARGE[name], border)
        folded = reference.exact(pixels, fold(LARGE[name], height, width, border), border)
        np.testing.assert_allclose(folded, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_a_folded_kernel_reaches_one_image_past_the_image(border: Border) -> None:
    for filter in (make("blur", sigma=1000), LARGE["dense"], LARGE["row off its centre"]):
        above, below, left, right = fold(filter, 5, 1, border).reach
        assert max(above, below) <= 5
        assert max(left, right) <= 1
    small = make("blur", sigma=1)
    assert fold(small, 9, 7, border).kernels == small.kernels


# Seconds at most each; with the whole halo around, minutes and gigabytes.
@pytest.mark.parametrize(
    ("shape", "filter"),
    [
        ((1, 1, 3), make("blur", sigma=1000)),
        ((3000, 1, 1), make("blur", sigma=300)),
        ((1, 3000, 1), make("blur", sigma=300)),
        ((23, 37, 3), make("box", radius=4095)),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_kernels(
    cpu: Engine, dtype: str, shape: tuple[int, int, int], filter: Correlation
) -> None:
    # The reference takes the folded filter, which is the same: see above.
    pixels = random_pixels(shape, dtype)
    for border in (Border("reflect"), Border("constant", 1.0)):
        folded = fold(filter, *shape[:2], border)
        expected = reference.apply(pixels, folded, border)
        got = cpu.run(pixels, filter, border).pixels
        if dtype == "float32":
            np.testing.assert_allclose(got, expected, rtol=0, atol=4e-6)
        else:
            assert np.abs(got.astype(int) - expected.astype(int)).max() <= 1


def test_a_large_dense_kernel_on_a_small_image(cpu: Engine) -> None:
    rows = _RANDOM.random((2, 2001))
    filter = Correlation("rank 2", (Kernel(rows.T @ rows[::-1]),), gain=1e-6)
    pixels = random_pixels((9, 8, 3), "uint8")
    folded = fold(filter, 9, 8, Border("symmetric"))
    expected = reference.apply(pixels, folded, Border("symmetric")).astype(int)
    assert np.abs(cpu.run(pixels, filter, Border("symmetric")).pixels - expected).max() <= 1


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_far_from_all_colour_there_is_none(cpu: Engine, dtype: str, name: str) -> None:
    pixels = random_pixels((120, 260, 4), dtype)
    pixels[..., 3] = 0
    pixels[40:50, 40:50, 3] = random_pixels((10, 10, 1), dtype)[..., 0]
    for border in (Border(), Border("constant", 0.3)):
        assert_agrees(cpu, pixels, LARGE[name], border, alpha=True)


def test_thousands_of_taps_keep_float32s_contract_under_alpha(cpu: Engine) -> None:
    pixels, filter = np.full((4500, 1, 2), 0.9, np.float32), make("box", radius=2000)
    result = cpu.run(pixels, filter, alpha=True).pixels
    np.testing.assert_allclose(result, pixels, rtol=4e-6)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_many_bands(cpu: Engine, dtype: str, alpha: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_module, "BAND_BYTES", 1)
    pixels = random_pixels((331, 40, 4), dtype)
    for filter in (make("blur"), make("sobel"), make("blur", sigma=22), LARGE["dense"]):
        assert_agrees(cpu, pixels, filter, Border("wrap"), alpha)


def test_the_cores_leave_the_bits() -> None:
    pixels = random_pixels((700, 900, 4), "float32")
    filters = [make("blur"), make("unsharp"), *LARGE.values()]
    engines, before = [CpuEngine(threads=n) for n in (1, 5)], cv2.getNumThreads()
    try:
        for filter in filters:
            results = []
            for engine, inner in zip(engines, (1, 4), strict=True):
                cv2.setNumThreads(inner)
                results.append(engine.run(pixels, filter, alpha=True).pixels)
            assert np.array_equal(results[0], results[1]), filter.name
    finally:
        cv2.setNumThreads(before)
        for engine in engines:
            engine.close()


def test_a_sum_too_large_for_an_integer_is_white(cpu: Engine) -> None:
    pixels = random_pixels((20, 20, 1), "uint8")
    filter = Correlation("huge", (Kernel([[1e12]]),))
    assert np.array_equal(cpu.run(pixels, filter).pixels, np.where(pixels > 0, 255, 0))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    "weights", [[[1, 1]], [[1.001]], [[2, -1]], [[-0.5, 0.5]], [[0.5, 0.5]]], ids=str
)
def test_only_what_leaves_the_range_is_clamped(
    cpu: Engine, weights: list[list[float]], dtype: str
) -> None:
    pixels = random_pixels((40, 50, 3), dtype)
    pixels[:20] = np.iinfo(dtype).max
    for bias in (0.0, 0.2, -0.2):
        assert_agrees(cpu, pixels, make("kernel", weights=weights, bias=bias))


@pytest.mark.parametrize(
    ("column", "row", "gain"),
    [([1, 2, 1], [1, 2, 1], 1 / 16), ([0.25, 0.5, 0.25], [0.5, 0.5], 1.0), ([2], [0.5], 0.5),
     ([-1, -3, 0], [-0.125, 0, -0.125], 1.0), ([0, 0], [1], 1.0), ([1], [1], 0.0)],
    ids=str,
)  # fmt: skip
def test_means_of_bytes_round_half_to_even(
    cpu: Engine,
    column: list[float],
    row: list[float],
    gain: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Sums of these are exact in float32, and many end in one half.
    kernel = Kernel.outer(np.asarray(column, float), np.asarray(row, float))
    pixels, mean = random_pixels((40, 50, 3), "uint8"), Correlation("mean", (kernel,), gain=gain)
    for border in (Border(), Border("constant", 1.0)):
        expected = reference.apply(pixels, mean, border)
        assert np.array_equal(cpu.run(pixels, mean, border).pixels, expected)
    monkeypatch.delattr(block_module, "_quantise")
    cpu.run(pixels, mean)


@pytest.mark.parametrize("name", ["sharpen", "laplacian", "emboss"])
def test_small_kernels_on_bytes_take_one_pass(
    cpu: Engine, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(block_module, "_quantise")
    pixels = random_pixels((40, 50, 3), "uint8")
    for border in ALL_BORDERS:
        expected = reference.apply(pixels, make(name), border)
        assert np.array_equal(cpu.run(pixels, make(name), border).pixels, expected)


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric"])
def test_no_border_is_copied_that_opencv_makes(
    cpu: Engine, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(cpu_module, "extract")
    monkeypatch.setattr(cpu_module, "BAND_BYTES", 1)
    for dtype in DTYPES:
        for filter in (make("blur"), make("sobel"), make("unsharp"), LARGE["dense"], *OFF_CENTRE):
            assert_agrees(cpu, random_pixels((97, 40, 3), dtype), filter, Border(mode))


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_result_in_the_images_place_has_the_same_bits(
    cpu: Engine,
    dtype: str,
    channels: int,
    alpha: bool,
    border: Border,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu_module, "BAND_BYTES", 1)  # bands of 16 rows, or as high as the kernel
    filters = [*LARGE.values(), *OFF_CENTRE, make("blur"), make("sobel"), make("unsharp")]
    for height in (1, 16, 17, 95):
        pixels = random_pixels((height, 21, channels), dtype)
        for filter in filters:
            given = pixels.copy()
            expected = cpu.run(given, filter, border, alpha).pixels
            assert np.array_equal(given, pixels), "only what may be overwritten is"
            done = cpu.run(given, filter, border, alpha, overwrite=True).pixels
            assert np.array_equal(done, expected)


def test_a_result_takes_the_images_place(cpu: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_module, "BAND_BYTES", 1)
    pixels = random_pixels((95, 21, 3), "uint8")
    assert cpu.run(pixels, make("blur"), overwrite=True).pixels is pixels
    pixels.flags.writeable = False
    kept = pixels.copy()
    assert cpu.run(pixels, make("blur"), overwrite=True).pixels is not pixels
    assert np.array_equal(pixels, kept)
