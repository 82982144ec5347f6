"""Non-local means: by hand, its properties, and every engine against the definition."""

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
from cudafilter.engines.cuda.variants.denoise import edge
from cudafilter.engines.cuda.variants.ladder import prepare
from cudafilter.engines.cuda.variants.task import SHARED_BYTES
from cudafilter.errors import ParameterError
from cudafilter.operations import reference
from cudafilter.operations.alike import MAX_PATCH, MAX_SEARCH
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.denoise import SPREAD_EXPONENT, Denoise, DenoiseTerms
from cudafilter.operations.make import make
from cudafilter.operations.pixels import DTYPES, Pixels, full_scale, quantise
from cudafilter.operations.weighed import mean_exponent
from cudafilter.proof.proof import Proof
from test_bilateral import odd_pixels
from test_host import LAYOUTS as KINDS
from test_host import HostEngine

SMALL = Denoise(0.4, 3, 5)
USUAL = Denoise(0.5, 7, 9)
POINTS = Denoise(0.3, 1, 7)
LARGE = Denoise(0.4, MAX_PATCH, 19)
"""Noise over the full scale differs by 0.4: with these strengths many pixels count. Of a search of
9 and more, sums are made by rows, and of the largest patch with four channels the kernel has chunks
of rows and columns."""

SHAPES = [(1, 1), (3, 41), (37, 2), (23, 150)]

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")


def noisy(shape: tuple[int, int, int], sigma: float) -> tuple[Pixels, Pixels]:
    """Waves and edges in 8 bits, and the same with Gaussian noise of *sigma* steps."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    waves = 108 + 30 * np.sin(x / 19) * np.cos(y / 17) + 60 * (x // 24 % 2)
    waves = np.rint(waves)[..., None].repeat(shape[2], axis=2)
    noise = np.random.default_rng(0).normal(0, sigma, shape)
    return quantise(waves, "uint8"), quantise(waves + noise, "uint8")


def test_by_hand_with_patches_of_a_pixel() -> None:
    # The four corners are far off; of the others one is 1 away, two are 0.5, one is the same.
    pixels = np.array([[9, 1, 9], [0.5, 0, 0], [9, 0.5, 9]], np.float32)[..., None]
    whole, half = math.exp(-1), math.exp(-0.25)
    expected = (whole * 1 + 2 * half * 0.5) / (1 + whole + 2 * half + 1)
    got = reference.exact(pixels, Denoise(1.0, 1, 3))[1, 1, 0]
    assert got == pytest.approx(expected, rel=1e-12)


def test_by_hand_with_patches_of_nine() -> None:
    # A column of 3 in 0: for a pixel beside it, others above and below have the same patch. Those
    # two to the right have one column that differs, by 3, in a third of the patch.
    pixels = np.zeros((9, 9, 1), np.float32)
    pixels[:, 4] = 3
    strength = 2.0
    at = {0: 1, -1: 1, 1: 2}  # columns of 3 that differ, of the patches 1 to the left and right
    weight = {0: 1.0} | {x: math.exp(-n * 3 * 9 / 9 / strength**2) for x, n in at.items() if x}
    total = 3 * sum(weight.values())
    expected = 3 * (3 * weight[1]) / total  # the neighbour to the right is the column itself
    got = reference.exact(pixels, Denoise(strength, 3, 3))[4, 3, 0]
    assert got == pytest.approx(expected, rel=1e-12)


def test_colours_of_a_pixel_count_together() -> None:
    # (3, 4) from the middle: the mean square is 25 / 2.
    pixels = np.array([[[0, 0], [3, 4]]], np.float32)
    weight = math.exp(-12.5 / 2**2)
    got = reference.exact(pixels, Denoise(2.0, 1, 3), Border("constant", 1e6))[0, 0]
    assert got == pytest.approx(np.array([3, 4]) * weight / (1 + weight), rel=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_equals_opencv(channels: int) -> None:
    _, pixels = noisy((60, 80, channels), 10)
    theirs = cv2.fastNlMeansDenoising(pixels, None, 10, 7, 21).reshape(pixels.shape)
    ours = reference.apply(pixels, Denoise(10 / 255, 7, 21), Border("reflect"))
    assert (np.abs(ours.astype(int) - theirs) <= 1).all()
    assert (ours == theirs).mean() > 0.95  # whose weights are of 8 bits, and 0 below a thousandth


def test_the_default_leaves_a_third_of_such_noise() -> None:
    clean, pixels = noisy((80, 120, 3), 10)
    done = reference.apply(pixels, make("denoise"))

    def error(of: Pixels) -> float:
        return float(np.sqrt(np.square(of.astype(float) - clean).mean()))

    assert error(done) < 0.36 * error(pixels)
    # A Gaussian blur blurs the edges.
    assert error(done) < 0.45 * error(reference.apply(pixels, make("blur", sigma=1)))


def test_a_large_strength_is_a_mean_of_the_square() -> None:
    pixels = random_pixels((20, 30, 3), "float32")
    np.testing.assert_allclose(
        reference.exact(pixels, Denoise(1000.0, 3, 7)),
        reference.exact(pixels, make("box", radius=3)),
        atol=1e-6,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_beyond_the_strength_stays(dtype: str) -> None:
    pixels = np.zeros((9, 30, 1), dtype)
    pixels[:, 15:] = full_scale(dtype)
    assert np.array_equal(reference.apply(pixels, Denoise(0.02, 5, 9)), pixels)


def test_results_move_and_scale_with_the_samples() -> None:
    pixels = random_pixels((15, 17, 3), "float32").astype(np.float64)
    near, far = SMALL, Denoise(2 * SMALL.strength, SMALL.patch, SMALL.search)
    once = reference.exact(pixels, near)
    np.testing.assert_allclose(reference.exact(2 * pixels, far), 2 * once, rtol=1e-12)
    np.testing.assert_allclose(reference.exact(pixels + 4, near), once + 4, rtol=1e-12)
    turned = np.ascontiguousarray(np.rot90(pixels))
    np.testing.assert_allclose(
        np.rot90(reference.exact(pixels, near)), reference.exact(turned, near), rtol=1e-12
    )


def test_results_lie_between_the_least_and_the_largest_around() -> None:
    pixels = random_pixels((30, 40, 1), "float32")
    exact = reference.exact(pixels, USUAL)
    least, most = (reference.exact(pixels, make(name, radius=4)) for name in ("erode", "dilate"))
    assert (exact >= least - 1e-12).all()
    assert (exact <= most + 1e-12).all()


def test_transparent_pixels_hide_what_they_are() -> None:
    pixels = random_pixels((9, 9, 4), "uint8")
    pixels[..., 3] = np.where(np.arange(9) % 2, 0, 255)
    other = pixels.copy()
    other[:, 1::2, :3] = 77  # which nobody sees
    first, second = (reference.exact(each, SMALL, alpha=True) for each in (pixels, other))
    assert np.array_equal(first[:, ::2], second[:, ::2])
    assert np.array_equal(first[..., 3], pixels[..., 3])


def test_opaque_pixels_are_as_without_alpha() -> None:
    opaque = random_pixels((9, 9, 3), "uint8")
    with_alpha = np.concatenate([opaque, np.full((9, 9, 1), 255, np.uint8)], axis=2)
    same = reference.exact(with_alpha, SMALL, alpha=True)[..., :3]
    np.testing.assert_allclose(same, reference.exact(opaque, SMALL), rtol=1e-12)


def test_the_edge_of_a_cut_out_makes_patches_differ() -> None:
    pixels = np.full((9, 20, 2), 100, np.uint8)
    pixels[..., 1] = np.where(np.arange(20) < 10, 255, 0)
    pixels[:, :10, 0] += np.arange(10, dtype=np.uint8)
    near = reference.exact(pixels, Denoise(0.02, 3, 5), alpha=True)[4, :, 0]
    alone = reference.exact(pixels[:, :10, :1], Denoise(0.02, 3, 5))[4, :, 0]
    assert near[:7] == pytest.approx(alone[:7], rel=1e-12)
    assert near[9] == pytest.approx(109, abs=0.1)  # none of the others has such an edge


@pytest.mark.parametrize("alpha", [False, True])
def test_the_cpu_by_blocks(cpu: Engine, alpha: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = random_pixels((67, 53, 4), "uint16")
    whole = cpu.run(pixels, USUAL, alpha=alpha).pixels
    monkeypatch.setattr("cudafilter.engines.weighed.BLOCK", (1, 1))
    again = cpu.run(pixels, USUAL, alpha=alpha).pixels
    assert np.abs(again.astype(int) - whole).max() <= 1
    assert compare(again, pixels, USUAL, alpha=alpha).ok


def test_rows_that_flow_past_have_the_same_bits(cpu: Engine) -> None:
    pixels = random_pixels((211, 30, 3), "uint8")
    step = cpu.step(pixels.shape, "uint8", USUAL, Border(), False)
    assert step < 100
    for border in ALL_BORDERS:
        whole = cpu.run(pixels, USUAL, border).pixels
        for first in range(0, len(pixels), step):
            rows = first, min(first + step, len(pixels))
            part = cpu.run(pixels, USUAL, border, rows=rows).pixels
            assert part.tobytes() == whole[slice(*rows)].tobytes()


@needs_compiler
@pytest.mark.parametrize(("dtype", "channels", "alpha"), [*KINDS, ("float32", 4, True)])
def test_the_kernel(dtype: str, channels: int, alpha: bool, built: Path) -> None:
    engine = HostEngine("denoise", built)
    for filter, border in zip((SMALL, USUAL, POINTS, SMALL, SMALL), ALL_BORDERS, strict=True):
        for shape in [(1, 1), (3, 41), (13, 130)]:
            assert_agrees(engine, random_pixels((*shape, channels), dtype), filter, border, alpha)
    if channels == 4:
        pixels = random_pixels((5, 9, channels), dtype)
        assert_agrees(engine, pixels, LARGE, Border("reflect"), alpha)
    if dtype == "float32":
        assert_agrees(engine, odd_pixels((25, 33, channels)), SMALL, Border(), alpha)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_bands_of_the_kernel_have_the_same_bits(dtype: str, built: Path) -> None:
    pixels = random_pixels((40, 70, 3), dtype)
    cut = prepare(USUAL, 3, dtype, Border(), False, "denoise").alignment
    for border in (Border(), Border("wrap")):
        whole = HostEngine("denoise", built).run(pixels, USUAL, border).pixels
        bands = HostEngine("denoise", built, cut=cut).run(pixels, USUAL, border).pixels
        assert whole.tobytes() == bands.tobytes(), border


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("patch", range(1, MAX_PATCH + 1, 2))
def test_launches_fit(patch: int, channels: int) -> None:
    # As denoise.cu lays things out. Here no compiler would say so.
    for search in (3, 21, MAX_SEARCH):
        launch = prepare(Denoise(0.1, patch, search), channels, "uint8", Border(), False, "denoise")
        macros = launch.defines
        rows = macros["DOWN"] * macros["WARPS"] + patch - 1
        other = (rows + macros["CHUNK"] - 1) * (128 + macros["COLUMNS"])
        assert 4 * channels * (128 * rows + other) <= SHARED_BYTES
        assert 1 <= macros["CHUNK"] <= search
        assert macros["COLUMNS"] % 4 == 0
        assert 1 <= macros["DOWN"] <= patch
        assert 4 * edge(patch) >= patch // 2
        assert launch.weights.size == 0


@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_check_has_the_definitions_values(dtype: str, channels: int, alpha: bool) -> None:
    random = np.random.default_rng(0)
    for shape in [(1, 1), (5, 7), (19, 270)]:
        source = random_pixels((*shape, channels), dtype)
        if dtype == "float32" and shape[0] > 1:
            source[::4, ::5] = np.nan
        places = random.integers(0, source.size, 60)
        y, x, c = np.unravel_index(places, source.shape)
        for border, filter in product(ALL_BORDERS, (SMALL, USUAL, POINTS, USUAL.terms)):
            exact = reference.exact(source, filter, border, alpha)
            proof = Proof(source, filter, border, alpha)
            found = proof.rows(0, len(source))
            away = np.abs(found.values - exact.transpose(0, 2, 1))
            assert np.array_equal(np.isnan(away), np.isnan(exact).transpose(0, 2, 1))
            assert np.nanmax(away) <= found.bound < 1e-8 * full_scale(dtype)
            assert proof.at(y, x, c).tobytes() == exact[y, x, c].tobytes()


def test_the_check_finds_a_single_wrong_sample() -> None:
    source = random_pixels((120, 90, 3), "uint8")
    right = reference.apply(source, SMALL)
    assert compare(right, source, SMALL).ok
    y, x, c = np.argwhere((right > 0) & (right < 255))[7777]
    for step in (1, -1):
        wrong = right.copy()
        wrong[y, x, c] = int(right[y, x, c]) + step
        agreement = compare(wrong, source, SMALL)
        assert not agreement.ok
        assert agreement.worst == (x, y, c)


def test_a_quick_check_looks_at_single_values() -> None:
    source = random_pixels((120, 90, 3), "uint8")
    right = reference.apply(source, SMALL)
    assert compare(right, source, SMALL, quick=True).ok
    right[:, ::3] ^= 1
    assert not compare(right, source, SMALL, quick=True).ok


def test_errors_of_exponents_add_up_to_no_more_than_is_said() -> None:
    for taps in (1, 2, 6, 8, 24, 440, MAX_SEARCH**2 - 1):
        x = np.linspace(0, 30, 300_001)
        share = np.exp(-x) / (1 + taps * np.exp(-x))
        assert math.sqrt(taps) * (x * share).max() <= SPREAD_EXPONENT
        # What slack() says of changes, which are no larger than the root of an exponent.
        most = mean_exponent(taps)
        assert taps * (x**1.5 * share).max() <= most * math.sqrt(most + 2)
    random = np.random.default_rng(0)
    for _ in range(500):
        x = random.exponential(random.uniform(0.1, 5), int(random.integers(1, 60)))
        share = np.exp(-x) / (1 + np.exp(-x).sum())
        assert math.sqrt(np.square(share * x).sum()) <= SPREAD_EXPONENT


def test_no_change_of_the_samples_counts_more_than_its_amplification() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        pixels = random.random((11, 11, 4))
        moved = pixels + 1e-7 * random.choice([-1, 1], pixels.shape)
        change = reference.exact(moved, SMALL) - reference.exact(pixels, SMALL)
        assert np.abs(change).max() <= 1e-7 * SMALL.amplification()


def test_terms_are_no_less_than_the_result() -> None:
    pixels = odd_pixels((20, 20, 3))
    finite = np.isfinite(pixels).all(axis=2)
    terms = reference.exact(pixels, SMALL.terms)[finite]
    assert (terms >= np.abs(reference.exact(pixels, SMALL)[finite])).all()
    assert SMALL.terms != SMALL
    assert isinstance(SMALL.terms, DenoiseTerms)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(("dtype", "most"), [("uint8", 2e-3), ("uint16", 0.31), ("float32", 1e-4)])
def test_the_tolerance_is_small(dtype: str, most: float, alpha: bool) -> None:
    pixels = random_pixels((30, 30, 4), dtype)
    assert tolerance(pixels, make("denoise"), alpha=alpha).max() <= most
    widest = Denoise(1000.0, MAX_PATCH, MAX_SEARCH).slack(dtype, alpha)
    assert widest is None or widest < 0.45  # no sample is unproven


def test_chains_take_it(cpu: Engine) -> None:
    for links in ((make("blur", sigma=1), SMALL), (SMALL, make("sobel", scale=0.2)),
                  (make("median"), SMALL), (make("levels", gamma=2), SMALL)):  # fmt: skip
        chain = Chain(tuple(Link(link) for link in links))
        for dtype in DTYPES:
            assert_agrees(cpu, random_pixels((30, 40, 3), dtype), chain)
        assert_agrees(cpu, random_pixels((30, 40, 4), "float32"), chain, alpha=True)
    pixels = random_pixels((30, 40, 3), "float32")
    parts = cpu.run(cpu.run(pixels, links[0]).pixels, SMALL)
    assert parts.pixels.tobytes() == cpu.run(pixels, chain).pixels.tobytes()


def test_parameters() -> None:
    made = make("denoise")
    assert made == Denoise(0.04, 7, 21)
    assert made.reach == (13, 13, 13, 13)
    assert make("denoise", strength=0.1, patch=5, search=35) == Denoise(0.1, 5, 35)
    assert pickle.loads(pickle.dumps(made)) == made
    assert len({made, USUAL, Denoise(0.04, 7, 21)}) == 2
    pixels = random_pixels((9, 8, 3), "uint8")
    same = api.apply(pixels, "denoise", search=1, engine="cpu")
    assert same.tobytes() == pixels.tobytes()


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ("patch", 4, "must be an odd number of pixels, 1 to 11, not 4"),
        ("search", 20, "must be an odd number of pixels, 1 to 51, not 20"),
        ("patch", 13, "must be >= 1 and <= 11, not 13"),
        ("search", 53, "must be >= 1 and <= 51, not 53"),
        ("strength", 0, "must be >= 1e-06 and <= 1000, not 0"),
    ],
)
def test_wrong_parameters_are_named(parameter: str, value: float, words: str) -> None:
    with pytest.raises(ParameterError, match=words) as refused:
        make("denoise", **{parameter: value})
    assert refused.value.parameter == parameter


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
        for border, filter in product(ALL_BORDERS, (SMALL, USUAL, POINTS)):
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
