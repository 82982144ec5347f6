"""Point operations: what becomes of a sample by itself, on every engine."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agreement import ALL_BORDERS, LAYOUTS, assert_agrees, random_pixels, tolerance
from cudafilter.check import compare
from cudafilter.engines import Engine
from cudafilter.engines.cpu import CpuEngine
from cudafilter.engines.cuda.variants.point import numbers_of
from cudafilter.errors import ParameterError
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import DTYPES, Pixels, full_scale
from cudafilter.operations.point import Levels, counted, otsu
from test_host import HostEngine

INVERT = make("invert")
BRIGHT = make("levels", black=0.1, white=0.8, gamma=2.2)
DARK = make("levels", black=1.2, white=-0.3, gamma=0.4)
HALF = make("threshold")
OTSU = make("threshold", otsu=True)
POINTS = [INVERT, BRIGHT, DARK, HALF, make("threshold", at=0.2), OTSU]


def chain(*operations: Operation) -> Chain:
    """All of them with the border of the run."""
    return Chain(tuple(map(Link, operations)))


CHAINS = [
    chain(BRIGHT, HALF),
    chain(make("blur", sigma=1), BRIGHT),
    chain(BRIGHT, make("sharpen"), INVERT, HALF, make("erode")),
    chain(make("blur", sigma=1), HALF, make("open"), make("box", radius=1), DARK),
    chain(make("median"), OTSU, make("dilate")),
    chain(OTSU, make("blur", sigma=1), BRIGHT),
    chain(make("outline"), BRIGHT),
    chain(INVERT, make("bilateral", sigma=1), BRIGHT),
]


KINDS = [
    "cpu",
    pytest.param("host", marks=pytest.mark.skipif(not shutil.which("g++"), reason="no g++ here")),
    pytest.param("cuda", marks=pytest.mark.gpu),
]


def opened(kind: str, built: Path) -> Engine:
    """The engine *kind*; host is the kernels of the GPU, compiled for the CPU."""
    if kind == "cpu":
        return CpuEngine()
    if kind == "host":
        return HostEngine("auto", built)
    from cudafilter.engines.cuda.engine import CudaEngine

    return CudaEngine()


def after(operation: Operation, values: list[float], dtype: str = "uint8") -> list[float]:
    """One row of gray samples after *operation*."""
    pixels = np.array(values, dtype).reshape(1, -1, 1)
    return reference.apply(pixels, operation).ravel().tolist()


def test_by_hand() -> None:
    assert after(INVERT, [0, 1, 128, 255]) == [255, 254, 127, 0]
    assert after(INVERT, [0, 40000, 65535], "uint16") == [65535, 25535, 0]
    assert after(INVERT, [0, 0.25, 1.5, -1], "float32") == [1, 0.75, -0.5, 2]
    apart = make("levels", black=0.2, white=0.6)
    assert after(apart, [50, 51, 102, 153, 154]) == [0, 0, 128, 255, 255]
    assert after(make("levels", gamma=2), [0, 64, 255]) == [0, 128, 255]  # sqrt(64 * 255) = 127.7
    assert after(make("levels", gamma=2), [0.25, 4, -0.25], "float32") == [0.5, 2, -0.5]
    assert after(make("levels", white=2), [1, 3, 5]) == [0, 2, 2]  # halves to even
    assert after(make("levels", black=1, white=0), [0, 99, 255]) == after(INVERT, [0, 99, 255])
    assert after(HALF, [127, 128]) == [0, 255]
    assert after(make("threshold", at=0.2), [50, 51]) == [0, 255]  # 0.2 of 255 is 51
    assert after(HALF, [0.49999, 0.5, np.nan], "float32") == [0, 1, 0]


def test_otsu_by_hand() -> None:
    # Of 1 1 2 | 8 9 the variance between the classes is largest: 3 * 2 * (8.5 - 4/3)^2.
    assert otsu(np.bincount([1, 1, 2, 8, 9])) == 2
    assert after(OTSU, [1, 1, 2, 8, 9]) == [0, 0, 0, 255, 255]
    assert otsu(np.bincount([0, 5, 10])) == 0  # both are as good: the lower one
    assert after(OTSU, [7, 7, 7]) == [0, 0, 0]  # no two levels
    assert after(OTSU, [0.1, np.nan, 0.9, 7], "float32") == [0, 0, 1, 1]
    assert after(OTSU, [np.nan, np.nan], "float32") == [0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_engines_settle_equal_thresholds_alike(kind: str, built: Path) -> None:
    engine = opened(kind, built)
    for dtype in DTYPES:
        for values in ([0, 5, 10], [3, 2, 1, 0], [9], [4, 4], [0, 1, 2, 253, 254, 255]):
            pixels = (np.array(values, np.float64) / 255 * full_scale(dtype)).astype(dtype)
            assert_agrees(engine, pixels.reshape(1, -1, 1), OTSU)
    engine.close()


def test_each_channel_has_a_threshold_of_its_own_and_alpha_none() -> None:
    pixels = np.array([[[0, 100, 9], [10, 200, 7]]], np.uint8)
    assert reference.apply(pixels, OTSU).tolist() == [[[0, 0, 255], [255, 255, 0]]]
    pixels = np.array([[[0, 100], [10, 200]]], np.uint8)
    assert reference.apply(pixels, OTSU, alpha=True).tolist() == [[[0, 100], [255, 200]]]


def test_alpha_is_kept_and_hidden_colour_changes() -> None:
    pixels = np.array([[[10, 0], [250, 77]]], np.uint8)
    assert reference.apply(pixels, INVERT, alpha=True).tolist() == [[[245, 0], [5, 77]]]


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40))
def test_otsu_is_the_best_of_all_thresholds(samples: list[int]) -> None:
    values = np.array(samples, np.float64)

    def variance(level: float) -> float:
        low, high = values[values <= level], values[values > level]
        if not (len(low) and len(high)):
            return 0.0
        return float(len(low) * len(high) * (low.mean() - high.mean()) ** 2)

    found = otsu(counted(values))
    if values.min() == values.max():
        assert found >= values.max()
    else:
        assert variance(found) >= max(map(variance, range(61))) * (1 - 1e-12)
        assert min(samples) <= found < max(samples)


@example([1092106334361, 12190460044, 17061190258, 1097336535642])
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=9))
def test_otsu_takes_the_first_of_thresholds_that_are_exactly_as_good(counts: list[int]) -> None:
    # Mirrored, so that the best one comes twice. The counts are far beyond what floats tell apart.
    counts = counts + counts[::-1]

    def variance(level: int) -> Fraction:
        low, high = sum(counts[: level + 1]), sum(counts[level + 1 :])
        if not (low and high):
            return Fraction(0)
        below, above = (
            Fraction(sum(n * counts[n] for n in part), size)
            for part, size in ((range(level + 1), low), (range(level + 1, len(counts)), high))
        )
        return low * high * (below - above) ** 2

    variances = [variance(level) for level in range(len(counts))]
    best = variances.index(max(variances)) if max(variances) else len(counts) - 1
    assert otsu(np.array(counts)) == best


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_otsu_is_that_of_opencv_and_scikit_image(dtype: str) -> None:
    import cv2

    pixels = random_pixels((60, 70, 1), dtype, seed=3) // 2
    pixels[:20] += int(full_scale(dtype) // 3)
    found = otsu(np.bincount(pixels.ravel()))
    assert cv2.threshold(pixels[..., 0], 0, 1, cv2.THRESH_OTSU)[0] == found
    filters = pytest.importorskip("skimage.filters", reason="scikit-image is not installed")
    assert filters.threshold_otsu(pixels[..., 0], nbins=int(full_scale(dtype)) + 1) == found


def test_inverted_twice_is_the_image(cpu: Engine) -> None:
    for dtype in ("uint8", "uint16"):
        pixels = random_pixels((9, 300, 3), dtype)
        once = cpu.run(pixels, INVERT).pixels
        assert np.array_equal(cpu.run(once, INVERT).pixels, pixels)
        assert np.array_equal(cpu.run(pixels, chain(INVERT, INVERT)).pixels, pixels)


@given(st.floats(-1, 0.4), st.floats(0.6, 2), st.floats(0.1, 9), st.integers(1, 254))
def test_a_threshold_after_levels_is_one_before(
    black: float, white: float, gamma: float, at: int
) -> None:
    curve = Levels(black, white, gamma)
    moved = float(curve(np.array([float(at)]), 255.0)[0]) / 255
    pixels = np.arange(256, dtype=np.uint8)[None, :, None]
    got = reference.apply(pixels, chain(make("levels", black=black, white=white, gamma=gamma),
                                        make("threshold", at=moved)))  # fmt: skip
    assert np.array_equal(got, reference.apply(pixels, make("threshold", at=at / 255)))


@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_engines_agree(kind: str, dtype: str, channels: int, alpha: bool, built: Path) -> None:
    engine = opened(kind, built)
    for shape in [(1, 1), (3, 41), (20, 1400 // channels)]:
        pixels = random_pixels((*shape, channels), dtype)
        for operation in POINTS:
            assert_agrees(engine, pixels, operation, alpha=alpha)
    small = random_pixels((5, 37, channels), dtype)
    for operation in CHAINS:
        for border in ALL_BORDERS[:: 3 if kind == "host" else 1]:
            assert_agrees(engine, small, operation, border, alpha)
    engine.close()


def wild(shape: tuple[int, int, int]) -> Pixels:
    """Floats of all sizes, some of them not finite."""
    random = np.random.default_rng(1)
    pixels = (random.standard_normal(shape) * 10.0 ** random.integers(-44, 39, shape)).astype("f4")
    some = random.random(shape)
    pixels[some < 0.05], pixels[some > 0.95] = np.nan, np.inf
    special = (some > 0.4) & (some < 0.6)
    pixels[special] = random.choice([0.0, -0.0, 0.1, 0.5, 1.0, 1.2, -np.inf], special.sum())
    return pixels


@pytest.mark.parametrize("kind", KINDS)
def test_any_float(kind: str, built: Path) -> None:
    engine = opened(kind, built)
    pixels = wild((30, 50, 3))
    steep = make("levels", black=0.1, white=0.1001, gamma=9)
    flat = make("levels", black=-900, white=1000, gamma=0.3)
    for operation in (*POINTS, steep, flat):
        assert_agrees(engine, pixels, operation)
    engine.close()


def test_integers_are_exact_and_floats_within_a_few_roundings(cpu: Engine) -> None:
    for dtype in ("uint8", "uint16"):
        pixels = random_pixels((20, 30, 1), dtype)
        for operation in POINTS:
            assert (tolerance(pixels, operation) == 0).all()
            assert compare(cpu.run(pixels, operation).pixels, pixels, operation).differing == 0
    pixels = random_pixels((20, 30, 1), "float32")
    assert (tolerance(pixels, HALF) == 0).all()
    assert (tolerance(pixels, INVERT) <= 6.01 * 2.0**-24).all()
    assert (tolerance(pixels, BRIGHT) <= 40 * 2.0**-24).all()


def test_a_threshold_in_a_chain_is_proven_but_for_samples_at_its_edge(cpu: Engine) -> None:
    pixels = random_pixels((50, 60, 1), "uint8")
    edges = chain(make("blur", sigma=1), HALF)
    result = cpu.run(pixels, edges).pixels
    found = compare(result, pixels, edges)
    assert found.ok
    assert found.unproven == 0  # no mean of these lies within 1e-6 of the threshold
    result[7, 9] = 255 - result[7, 9]
    assert not compare(result, pixels, edges).ok
    flat = np.full((20, 20, 1), 51, np.uint8)
    limit = chain(make("blur", sigma=1), make("threshold", at=0.2))
    assert compare(cpu.run(flat, limit).pixels, flat, limit).unproven == flat.size


def test_a_wrong_curve_is_found(cpu: Engine) -> None:
    for dtype in DTYPES:
        pixels = random_pixels((40, 50, 1), dtype)
        wrong = make("levels", black=0.1, white=0.8, gamma=2.201)
        assert not compare(cpu.run(pixels, wrong).pixels, pixels, BRIGHT).ok
        ending = (make("blur", sigma=1), BRIGHT), (make("blur", sigma=1), wrong)
        right, other = (chain(*links) for links in ending)
        assert not compare(cpu.run(pixels, other).pixels, pixels, right).ok


def test_points_side_by_side_are_one_stage() -> None:
    (stage,) = chain(INVERT, chain(BRIGHT, HALF)).unrolled(Border())
    assert stage.operation.name == "invert then levels then threshold"  # type: ignore[union-attr]
    assert make("levels").unrolled(Border()) == ()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ParameterError, match="another than black"):
        make("levels", black=0.5, white=0.5)
    with pytest.raises(ParameterError, match="give one of both"):
        make("threshold", at=0.5, otsu=True)
    with pytest.raises(ParameterError, match="threshold cannot follow blur"):
        chain(make("blur"), OTSU)
    with pytest.raises(ParameterError, match="threshold cannot follow a difference"):
        chain(make("tophat"), OTSU)


def test_a_scale_never_overflows_before_the_power() -> None:
    _, _, _, scale, power, after, _ = numbers_of(Levels(0.0, 1e-3, 2.0))
    assert (scale, power) == (1, 0.5)
    assert after == pytest.approx(1000**0.5)
