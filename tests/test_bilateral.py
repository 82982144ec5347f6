"""The bilateral filter: by hand, its properties, and every engine against the definition."""

from __future__ import annotations

import math
import pickle
import shutil
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest

from agreement import ALL_BORDERS, LAYOUTS, assert_agrees, random_pixels, tolerance
from cudafilter import api
from cudafilter.check import compare
from cudafilter.engines import Engine
from cudafilter.engines.cuda.variants.bilateral import MOST_RADIUS, exponents, fours
from cudafilter.engines.cuda.variants.ladder import prepare
from cudafilter.engines.cuda.variants.task import SHARED_BYTES
from cudafilter.errors import ParameterError
from cudafilter.operations import reference
from cudafilter.operations.bilateral import Bilateral, BilateralTerms
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make
from cudafilter.operations.pixels import DTYPES, Pixels, full_scale
from cudafilter.operations.weighed import mean_exponent
from cudafilter.proof.proof import Proof
from test_host import LAYOUTS as KINDS
from test_host import HostEngine

SMALL = Bilateral(1.0, 0.1, 2)
USUAL = Bilateral(2.0, 0.1, 6)
LARGE = Bilateral(6.0, 0.4, 18)
"""Of one sum a pixel, of sums by rows, and in chunks."""

SHAPES = [(1, 1), (3, 41), (37, 2), (23, 150)]

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")


def test_by_hand() -> None:
    # The four neighbours at 1, 0.5 away or not at all; exp(-1/2) = 0.60653 is what distance leaves.
    pixels = np.array([[9, 1, 9], [0.5, 0, 0], [9, 0.5, 9]], np.float32)[..., None]
    near = math.exp(-0.5)
    whole, half = near * math.exp(-0.5), near * math.exp(-0.125)
    expected = (whole * 1 + 2 * half * 0.5) / (1 + whole + 2 * half + near)
    got = reference.exact(pixels, Bilateral(1.0, 1.0, 1))[1, 1, 0]
    assert got == pytest.approx(expected, rel=1e-12)


def test_the_colours_of_a_pixel_have_one_distance() -> None:
    # (3, 4) from the middle is 5 away in both colours.
    pixels = np.array([[[0, 0], [3, 4]]], np.float32)
    weight = math.exp(-1 / 2 - 25 / (2 * 2**2))
    got = reference.exact(pixels, Bilateral(1.0, 2.0, 1), Border("constant", 1e6))[0, 0]
    assert got == pytest.approx(np.array([3, 4]) * weight / (1 + weight), rel=1e-6)


@pytest.mark.parametrize(("radius", "taps"), [(1, 4), (2, 12), (4, 48), (7, 148), (50, 7844)])
def test_the_window_is_round(radius: int, taps: int) -> None:
    assert len(Bilateral(1.0, 1.0, radius).taps) == taps
    assert all(tap.x**2 + tap.y**2 <= radius**2 for tap in Bilateral(1.0, 1.0, radius).taps)


def test_transparent_pixels_count_as_the_pixels_own_colour() -> None:
    pixels = random_pixels((9, 9, 4), "uint8")
    pixels[..., 3] = np.where(np.arange(9) % 2, 0, 255)
    other = pixels.copy()
    other[:, 1::2, :3] = 77  # which nobody sees
    first, second = (reference.exact(each, SMALL, alpha=True) for each in (pixels, other))
    assert np.array_equal(first[:, ::2], second[:, ::2])
    assert np.array_equal(first[..., 3], pixels[..., 3])
    # Seen through nothing, all others are alike: so weigh those that are opaque.
    opaque = random_pixels((9, 9, 3), "uint8")
    with_alpha = np.concatenate([opaque, np.full((9, 9, 1), 255, np.uint8)], axis=2)
    same = reference.exact(with_alpha, SMALL, alpha=True)[..., :3]
    np.testing.assert_allclose(same, reference.exact(opaque, SMALL), rtol=1e-12)


def test_equals_opencv_on_gray() -> None:
    pixels = random_pixels((60, 80, 1), "uint8")
    theirs = cv2.bilateralFilter(pixels, 9, 0.2 * 255, 3.0, borderType=cv2.BORDER_REFLECT_101)
    ours = reference.apply(pixels, Bilateral(3.0, 0.2, 4), Border("reflect"))[..., 0]
    assert (np.abs(ours.astype(int) - theirs) <= 1).all()
    assert (ours == theirs).mean() > 0.999


def test_a_wide_range_is_a_gaussian_blur_of_a_round_window() -> None:
    pixels = random_pixels((20, 30, 3), "float32")
    y, x = np.mgrid[-4:5, -4:5]
    weights = np.exp(-(x**2 + y**2) / (2 * 1.5**2)) * (x**2 + y**2 <= 16)
    blurred = reference.exact(pixels, make("kernel", weights=weights, normalize=True))
    np.testing.assert_allclose(
        reference.exact(pixels, Bilateral(1.5, 1000.0, 4)), blurred, atol=1e-6
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_beyond_the_range_stays(dtype: str) -> None:
    pixels = np.zeros((9, 20, 1), dtype)
    pixels[:, 10:] = full_scale(dtype)
    assert np.array_equal(reference.apply(pixels, Bilateral(2.0, 0.05, 4)), pixels)


def test_results_move_and_scale_with_the_samples() -> None:
    pixels = random_pixels((15, 17, 3), "float32").astype(np.float64)
    near, far = Bilateral(1.0, 0.2, 3), Bilateral(1.0, 0.4, 3)
    once = reference.exact(pixels, near)
    np.testing.assert_allclose(reference.exact(2 * pixels, far), 2 * once, rtol=1e-12)
    np.testing.assert_allclose(reference.exact(pixels + 4, near), once + 4, rtol=1e-12)
    turned = np.ascontiguousarray(np.rot90(pixels))
    np.testing.assert_allclose(
        np.rot90(reference.exact(pixels, near)), reference.exact(turned, near), rtol=1e-12
    )


def test_results_lie_between_the_least_and_the_largest_around() -> None:
    pixels = random_pixels((30, 40, 1), "float32")
    for filter in (SMALL, LARGE):
        exact = reference.exact(pixels, filter)
        for name, worse in (("erode", np.less), ("dilate", np.greater)):
            bound = reference.exact(pixels, make(name, radius=filter.radius))
            assert not worse(exact, bound + (1e-12 if worse is np.greater else -1e-12)).any()


def odd_pixels(shape: tuple[int, int, int]) -> Pixels:
    """Floats of both signs and all sizes, some NaN or infinite."""
    random = np.random.default_rng(3)
    pixels = (0.2 * random.standard_normal(shape)).astype(np.float32)
    for value in (np.nan, np.inf, -np.inf, 0.0, 3.4e38, -3.4e38, 1e-40, 1e25):
        pixels[random.random(shape) < 0.03] = value
    return pixels


@pytest.mark.parametrize("alpha", [False, True])
def test_the_cpu_by_blocks(cpu: Engine, alpha: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = random_pixels((67, 53, 4), "uint16")
    whole = cpu.run(pixels, USUAL, alpha=alpha).pixels
    monkeypatch.setattr("cudafilter.engines.weighed.BLOCK", (1, 1))
    assert cpu.run(pixels, USUAL, alpha=alpha).pixels.tobytes() == whole.tobytes()


@needs_compiler
@pytest.mark.parametrize(("dtype", "channels", "alpha"), [*KINDS, ("float32", 4, True)])
def test_the_kernel(dtype: str, channels: int, alpha: bool, built: Path) -> None:
    engine = HostEngine("bilateral", built)
    for shape in SHAPES:
        pixels = random_pixels((*shape, channels), dtype)
        for filter in (SMALL, USUAL, Bilateral(3.0, 0.3, MOST_RADIUS)):
            for border in ALL_BORDERS:
                assert_agrees(engine, pixels, filter, border, alpha)
    for border in ALL_BORDERS:
        assert_agrees(engine, pixels[:, :40], LARGE, border, alpha)
        if dtype == "float32":
            for filter in (SMALL, LARGE):
                assert_agrees(engine, odd_pixels((25, 33, channels)), filter, border, alpha)


@needs_compiler
def test_bands_of_the_kernel_have_the_same_bits(built: Path) -> None:
    pixels = random_pixels((50, 70, 3), "uint8")
    for filter, border in product((SMALL, LARGE), ALL_BORDERS):
        whole = HostEngine("bilateral", built).run(pixels, filter, border).pixels
        bands = HostEngine("bilateral", built, cut=7).run(pixels, filter, border).pixels
        assert whole.tobytes() == bands.tobytes(), (filter, border)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("radius", [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 50])
def test_launches_fit(radius: int, channels: int) -> None:
    # As bilateral.cu lays things out. Here no compiler would say so.
    filter = Bilateral(1.0, 0.1, radius)
    macros = prepare(filter, channels, "uint8", Border(), False, "bilateral").defines
    rows = macros["DOWN"] * macros["WARPS"] + macros["CHUNK"] - 1
    assert 4 * channels * rows * (128 + macros["COLUMNS"]) <= SHARED_BYTES
    assert macros["CHUNK"] >= 1
    assert macros["COLUMNS"] % 4 == 0
    if macros["RADIUS"]:
        assert macros["COLUMNS"] > fours(radius) + radius  # else there were chunks across
    if macros["DEPTH"] == 2:
        assert macros["CHUNK"] > 2 * radius
        assert macros["COLUMNS"] > fours(radius) + radius
    weights = exponents(filter)
    assert weights.size <= 512
    across = -(-(4 * radius + 2) // 4) * 4 + fours(radius)
    assert weights[across] == 0
    assert weights[across + 1] == weights[across - 1] == pytest.approx(-0.5 / math.log(2))


@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_single_values_are_those_of_the_image(dtype: str, channels: int, alpha: bool) -> None:
    source = random_pixels((23, 19, channels), dtype)
    if dtype == "float32":
        source[4, 5] = np.nan
    y, x, c = (index.ravel()[::7] for index in np.indices(source.shape))
    for border, operation in product(ALL_BORDERS, (SMALL, SMALL.terms)):
        exact = reference.exact(source, operation, border, alpha)
        found = Proof(source, operation, border, alpha).at(y, x, c)
        assert found.tobytes() == exact[y, x, c].tobytes()


def test_a_quick_check_looks_at_single_values() -> None:
    source = random_pixels((120, 90, 3), "uint8")
    right = reference.apply(source, USUAL)
    assert compare(right, source, USUAL, quick=True).ok
    right[:, ::3] ^= 1
    assert not compare(right, source, USUAL, quick=True).ok


def test_the_mean_exponent_is_the_largest_there_is() -> None:
    for taps in (4, 48, 148, 7844):
        x = np.linspace(0, 30, 300_001)
        weights = taps * np.exp(-x)
        assert mean_exponent(taps) == pytest.approx((weights * x / (1 + weights)).max(), rel=1e-6)
    random = np.random.default_rng(0)
    for _ in range(200):
        x = random.exponential(random.uniform(0.1, 20), 48)
        weights = np.exp(-x)
        assert weights @ x / (1 + weights.sum()) <= mean_exponent(48)


def test_no_change_of_the_samples_counts_more_than_its_amplification() -> None:
    random = np.random.default_rng(1)
    filter = Bilateral(1.5, 0.1, 3)
    for _ in range(20):
        pixels = 0.4 * random.random((9, 9, 4)).astype(np.float64)
        moved = pixels + 1e-7 * random.choice([-1, 1], pixels.shape)
        change = reference.exact(moved, filter) - reference.exact(pixels, filter)
        assert np.abs(change).max() <= 1e-7 * filter.amplification()


def test_terms_are_no_less_than_the_result() -> None:
    pixels = odd_pixels((20, 20, 3))
    finite = np.isfinite(pixels).all(axis=2)
    terms = reference.exact(pixels, SMALL.terms)[finite]
    assert (terms >= np.abs(reference.exact(pixels, SMALL)[finite])).all()
    assert SMALL.terms != SMALL
    assert isinstance(SMALL.terms, BilateralTerms)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(("dtype", "most"), [("uint8", 1e-3), ("uint16", 0.2), ("float32", 1e-4)])
def test_the_tolerance_is_small(dtype: str, most: float, alpha: bool) -> None:
    pixels = random_pixels((30, 30, 4), dtype)
    assert tolerance(pixels, USUAL, alpha=alpha).max() <= most
    widest = Bilateral(1000.0, 1000.0, 50).slack(dtype, alpha)
    assert widest is None or widest < 0.45  # no sample is unproven


def test_chains_take_it(cpu: Engine) -> None:
    for links in ((make("blur", sigma=1), SMALL), (SMALL, make("sobel", scale=0.2)),
                  (make("median"), SMALL), (make("unsharp"), SMALL)):  # fmt: skip
        chain = Chain(tuple(Link(link) for link in links))
        for dtype in DTYPES:
            assert_agrees(cpu, random_pixels((30, 40, 3), dtype), chain)
        assert_agrees(cpu, random_pixels((30, 40, 4), "float32"), chain, alpha=True)
    parts = cpu.run(
        cpu.run(pixels := random_pixels((30, 40, 3), "float32"), links[0]).pixels, SMALL
    )
    assert parts.pixels.tobytes() == cpu.run(pixels, chain).pixels.tobytes()


def test_parameters() -> None:
    made = make("bilateral")
    assert made == Bilateral(2.0, 0.1, 6)
    assert make("bilateral", sigma=1.2, range=0.3, radius=9) == Bilateral(1.2, 0.3, 9)
    assert pickle.loads(pickle.dumps(made)) == made
    assert len({made, USUAL, SMALL}) == 2
    pixels = random_pixels((9, 8, 3), "uint8")
    assert api.apply(pixels, "bilateral", radius=0, engine="cpu").tobytes() == pixels.tobytes()
    with pytest.raises(ParameterError, match="17 reaches 51 pixels; 50 are the most") as refused:
        make("bilateral", sigma=17)
    assert refused.value.parameter == "sigma"
    for wrong in ({"radius": 51}, {"range": 0}, {"sigma": 0}):
        with pytest.raises(ParameterError):
            Bilateral(**{"sigma": 1.0, "range": 0.1, "radius": 2} | wrong)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gpu(dtype: str, channels: int, alpha: bool) -> None:
    from cudafilter.engines.cuda.engine import CudaEngine

    whole = CudaEngine()
    for shape in [*SHAPES, (70, 300)]:
        pixels = random_pixels((*shape, channels), dtype)
        if dtype == "float32":
            pixels[::3, ::5] = np.nan
        for border, filter in product(ALL_BORDERS, (SMALL, USUAL, Bilateral(3.0, 0.3, 4))):
            assert_agrees(whole, pixels, filter, border, alpha)
    small = odd_pixels((45, 61, channels)) if dtype == "float32" else pixels[:45, :61]
    for border in ALL_BORDERS:
        assert_agrees(whole, np.ascontiguousarray(small), LARGE, border, alpha)
    pixels = random_pixels((131, 300, channels), dtype)
    pieces = CudaEngine(memory_limit=pixels.nbytes * 8 // 10)
    for filter in (USUAL, LARGE):
        bands = pieces.run(pixels, filter, Border("wrap"), alpha).pixels
        assert bands.tobytes() == whole.run(pixels, filter, Border("wrap"), alpha).pixels.tobytes()
    whole.close()
    pieces.close()
