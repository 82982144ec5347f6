"""Floats that are not finite, or nearly too large: they reach what taps them, and nothing else."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from agreement import ALL_BORDERS, assert_agrees, random_pixels, runs
from cudafilter.engines import Engine
from cudafilter.engines.cuda.variants.floats import bounded
from cudafilter.errors import LimitError
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.make import make
from cudafilter.operations.pixels import DTYPES, Pixels

LARGEST = float(np.finfo(np.float32).max)

_RANDOM = np.random.default_rng(7)
_GAPS = np.zeros((1, 140))
_GAPS[0, ::7] = 1


def dense(side: int) -> np.ndarray:
    """Weights (side, side) from 1 to 3 that are of no rank 1."""
    return np.array([[1.0 + (i * j) % 3 for j in range(side)] for i in range(side)])


FILTERS = {
    "blur": make("blur"),
    "blur of 127 taps": make("blur", sigma=21),
    "blur of 181 taps": make("blur", sigma=30),
    "blur with weights of 0": make("blur", sigma=3, radius=80),
    "box": make("box"),
    "box of 141 taps": make("box", radius=70),
    "sharpen": make("sharpen"),
    "unsharp of 151 taps": make("unsharp", sigma=25),
    "unsharp with a threshold": make("unsharp", sigma=1, threshold=0.1),
    "sobel": make("sobel"),
    "scharr": make("scharr"),
    "laplacian": make("laplacian"),
    "emboss": make("emboss"),
    "motion": make("motion", angle=30),
    "disk": make("disk"),
    "highpass": make("highpass"),
    "dog": make("dog", sigma=1.2),
    "log": make("log"),
    "gabor": make("gabor", angle=30),
    "dense 12x12": make("kernel", weights=dense(12), normalize=True),
    "dense 21x21": make("kernel", weights=dense(21), normalize=True),
    "negative too": make("kernel", weights=_RANDOM.standard_normal((15, 14))),
    "gaps": make("kernel", weights=_GAPS),
    "two sizes": Correlation(
        "two sizes",
        (Kernel(_RANDOM.random((3, 5)), (0, 4)), Kernel(_RANDOM.random((4, 1)), (3, 0))),
        combine="magnitude", gain=0.1,
    ),
}  # fmt: skip

MEANS = ["blur", "blur of 127 taps", "blur of 181 taps", "blur with weights of 0", "box",
         "box of 141 taps", "motion", "disk", "dense 12x12", "dense 21x21"]  # fmt: skip

VALUES = {
    "NaN": [np.nan],
    "infinity": [np.inf],
    "negative infinity": [-np.inf],
    "all three": [np.nan, np.inf, -np.inf],
    "no data": [-LARGEST] * 40,
    "both ends": [LARGEST, -LARGEST] * 3,
    "NaN beside no data": [np.nan] + [-LARGEST] * 9,
}


def strewn(shape: tuple[int, int, int], values: list[float], channels: int | None = None) -> Pixels:
    """Noise of *shape* with *values* at random places of its first *channels*."""
    pixels = random_pixels(shape, "float32")
    random = np.random.default_rng(shape)
    for value in values:
        y, x = random.integers(0, shape[:2])
        pixels[y, x, random.integers(0, channels or shape[2])] = value
    return pixels


def check(engine: Engine, pixels: Pixels, name: str, border: Border, alpha: bool = False) -> None:
    """assert_agrees(), where *engine*'s variant takes the filter *name*."""
    try:
        engine.run(pixels[:1, :1], FILTERS[name], border, alpha)
    except LimitError:
        return
    assert_agrees(engine, pixels, FILTERS[name], border, alpha)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("name", FILTERS)
def test_agrees_with_the_reference(engine: Engine, name: str, values: str) -> None:
    borders = [Border(), Border("constant", 0.3), Border("wrap")]
    shapes = [(1, 1, 1), (1, 9, 2), (40, 47, 1), (23, 31, 3)]
    for shape, border in zip(shapes, [borders[2], *borders], strict=True):
        check(engine, strewn(shape, VALUES[values]), name, border)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("name", FILTERS)
def test_agrees_with_the_reference_beside_alpha(engine: Engine, name: str, values: str) -> None:
    pixels = strewn((24, 31, 4), VALUES[values], 3)
    pixels[:12, :, 3] = 1
    pixels[12:16, :, 3] = 0
    check(engine, pixels, name, Border(), alpha=True)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e30])
@pytest.mark.parametrize("name", FILTERS)
def test_a_sample_reaches_what_taps_it_and_no_more(cpu: Engine, name: str, value: float) -> None:
    filter = FILTERS[name]
    pixels = random_pixels((260, 250, 1), "float32")
    pixels[:90] = 0
    without = cpu.run(pixels, filter).pixels
    odd = pixels.copy()
    odd[130, 120] = value
    above, below, left, right = filter.reach
    tapped = np.zeros(pixels.shape, bool)
    tapped[max(0, 130 - below) : 131 + above, max(0, 120 - right) : 121 + left] = True
    result = cpu.run(odd, filter).pixels
    # Within float32's last digit: where a transform runs, what it taps may round otherwise.
    np.testing.assert_allclose(result[~tapped], without[~tapped], rtol=2e-7, atol=1e-15)
    tapped[max(0, 90 - below) :] = True  # above lie zeros only
    assert np.array_equal(result[~tapped], without[~tapped])
    assert np.isfinite(result).all() == np.isfinite(value)


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_stays_in_the_range_of_its_inputs(cpu: Engine, name: str) -> None:
    speck = np.zeros((200, 210, 1), np.float32)
    speck[150, 150] = 1e6
    step = np.full((40, 50, 1), 100, np.float32)
    step[10:30, 20:40] = -LARGEST
    flat = np.full((30, 30, 1), 0.7, np.float32)
    for pixels in (speck, step, flat, np.full_like(flat, LARGEST), -speck):
        result = cpu.run(pixels, FILTERS[name]).pixels
        assert result.min() >= pixels.min()
        assert result.max() <= pixels.max()


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_of_the_largest_floats_is_finite(engine: Engine, name: str) -> None:
    for value in (LARGEST, -LARGEST, -3e38):
        pixels = np.full((40, 50, 1), value, np.float32)
        check(engine, pixels, name, Border())
        pixels[10:30, 20:40] = 100
        check(engine, pixels, name, Border())


@pytest.mark.parametrize("layout", [(1, False), (3, False), (4, True)])
@pytest.mark.parametrize(
    "filter", [make("sharpen", amount=0), make("unsharp", amount=0, threshold=0.1)]
)
def test_amount_0_leaves_every_bit(
    engine: Engine, filter: Correlation, layout: tuple[int, bool]
) -> None:
    channels, alpha = layout
    values = [-0.0, np.nan, np.inf, -np.inf, LARGEST, -LARGEST, 1e-45]
    pixels = strewn((9, 11, channels), values)
    pixels.view(np.uint32)[3, 3, 0] = 0xFFC12345  # a NaN with something in it
    result = engine.run(pixels, filter, alpha=alpha).pixels
    assert result is not pixels
    assert result.tobytes() == pixels.tobytes()
    assert np.array_equal(reference.apply(pixels, filter, alpha=alpha), pixels, equal_nan=True)


def test_no_gain_is_no_term(engine: Engine) -> None:
    pixels = strewn((20, 20, 1), [np.nan, np.inf, LARGEST])
    gray = Correlation("gray", make("blur").kernels, gain=0.0, bias=0.25)
    if getattr(engine, "variant", "auto") in ("auto", "vanilla", "tiled"):
        assert (engine.run(pixels, gray).pixels == 0.25).all()
    assert (reference.apply(pixels, gray) == 0.25).all()


def test_gradients_by_hand() -> None:
    pixels = np.zeros((5, 5, 1), np.float32)
    pixels[2, 2] = np.inf
    result = reference.apply(pixels, make("sobel"))[..., 0]
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = np.inf
    expected[2, 2] = 0  # the middle of a gradient's kernel is no tap
    assert np.array_equal(result, expected)


@pytest.mark.parametrize("name", ["sobel", "scharr", "prewitt"])
def test_a_step_has_one_value_in_all_gradients(engine: Engine, name: str) -> None:
    if getattr(engine, "variant", "auto") in ("wide", "blocked"):
        return
    for dtype, one in (("uint8", 10), ("uint16", 1000), ("float32", 0.25)):
        pixels = np.zeros((5, 6, 1), dtype)
        pixels[:, 3:] = one
        across = engine.run(pixels, make(name)).pixels
        down = engine.run(np.ascontiguousarray(pixels.swapaxes(0, 1)), make(name)).pixels
        for result in (across, down.swapaxes(0, 1)):
            np.testing.assert_allclose(
                result[:, :, 0], [[0, 0, 4 * one, 4 * one, 0, 0]] * 5, rtol=1e-6
            )
    white = np.zeros((5, 6, 1), np.uint8)
    white[:, 3:] = 255
    assert engine.run(white, make(name, scale=0.25)).pixels.max() == 255
    assert engine.run(white - white // 255, make(name, scale=0.25)).pixels.max() == 254


@pytest.mark.parametrize("scale", [1e-320, 1e-40, 1e38, 1e300])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_normalising_takes_weights_of_any_size(engine: Engine, dtype: str, scale: float) -> None:
    pixels = random_pixels((30, 40, 3), dtype)
    filter = make("kernel", weights=scale * dense(3), normalize=True)
    if getattr(engine, "variant", "auto") not in ("separable", "wide"):
        assert_agrees(engine, pixels, filter)
    weights = filter.kernels[0].weights * filter.gain
    np.testing.assert_allclose(weights, dense(3) / dense(3).sum(), rtol=1e-3)


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_nothing_is_warned_of(cpu: Engine, border: Border) -> None:
    pixels = strewn((12, 14, 4), VALUES["all three"] + VALUES["both ends"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for filter in FILTERS.values():
            for alpha in (False, True):
                cpu.run(pixels, filter, border, alpha)
                reference.apply(pixels, filter, border, alpha)


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("name", FILTERS)
def test_scaled_weights_are_the_same_filter(name: str, mode: int) -> None:
    filter = FILTERS[name]
    scaled, unit = bounded(filter, mode)
    for before, after in zip(filter.kernels, scaled.kernels, strict=True):
        assert after.magnitude <= 0.5
        assert (after.anchor, after.shape) == (before.anchor, before.shape)
        if after.factors is not None:
            assert max(np.abs(factor).sum() for factor in after.factors) <= 0.5
        np.testing.assert_allclose(
            unit * scaled.gain * after.weights, filter.gain * before.weights, rtol=1e-12
        )
    assert abs(scaled.gain) * scaled.kernels[0].magnitude + abs(scaled.source_gain) <= 0.5


@pytest.mark.parametrize("least", [1e-45, 1e-41, 1e-38])
@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_dense_kernels_count_large_samples_beside_the_least_once(
    engine: Engine, border: Border, least: float
) -> None:
    pixels = random_pixels((23, 25, 2), "float32") * np.float32(least)
    pixels[3:8, 3:8] = 1
    filter = FILTERS["negative too"]
    if not runs(engine, filter):
        pytest.skip("a kernel that it does not take")
    for alpha in (False, True):
        assert_agrees(engine, pixels, filter, border, alpha)


CHAINS = [
    Chain((Link(make("median", radius=2)), Link(make("sobel")))),
    Chain((Link(make("blur", sigma=1)), Link(make("erode")), Link(make("unsharp")))),
    Chain((Link(make("bilateral", radius=2)), Link(make("sharpen")))),
]
"""Some of their links pass over what is not finite."""


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.name)
@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_what_a_chain_passes_over_leaves_a_tolerance(
    engine: Engine, chain: Chain, border: Border
) -> None:
    if not runs(engine, chain):
        pytest.skip("a step that it does not take")
    pixels = random_pixels((33, 41, 3), "float32")
    pixels[5, 5, 0], pixels[20, 20, 1], pixels[9, 30, 2] = np.nan, np.inf, -np.inf
    assert_agrees(engine, pixels, chain, border)


@pytest.mark.parametrize("name", ["tophat", "blackhat", "outline"])
def test_differences_of_what_is_not_finite_warn_of_nothing(cpu: Engine, name: str) -> None:
    pixels = random_pixels((9, 9, 1), "float32") - np.float32(0.5)
    pixels *= np.float32(LARGEST)
    pixels[2, 3], pixels[5, 5] = np.nan, np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_agrees(cpu, pixels, make(name))


_WIDE = np.random.default_rng(6)

TINY_TAPS = {
    "gabor": make("gabor", wavelength=8, phase=90, angle=45, bias=0),
    "log": make("log", bias=0),
    "taps of 1e-20 to 1": make(
        "kernel", weights=_WIDE.standard_normal((15, 15)) * 10 ** _WIDE.uniform(-20, 0, (15, 15))
    ),
}


@pytest.mark.parametrize("name", TINY_TAPS)
def test_a_large_sample_under_a_tiny_tap_leaves_no_noise(cpu: Engine, name: str) -> None:
    pixels = np.zeros((50, 60, 1), np.float32)
    pixels[25, 30] = 1
    for faint in (0, 1e-6):
        pixels[26, 40] = faint
        assert_agrees(cpu, pixels, TINY_TAPS[name])


@pytest.mark.parametrize("size", [1e-40, 1e35])
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_any_size(cpu: Engine, dtype: str, size: float) -> None:
    """Where a sum leaves the range, so does the definition's; no mean of colours leaves it."""
    pixels = random_pixels((20, 30, 4), dtype)
    pixels[4:9, 4:9, 3] = 0
    scales = (1, 1e19, 1e-19) if dtype == "float32" else (1,)
    for weights in (size * np.ones((3, 3)), size * dense(3), np.array([[size, 1.0]])):
        for scale in scales:
            for alpha in (False, True):
                assert_agrees(
                    cpu, pixels * pixels.dtype.type(scale), make("kernel", weights=weights),
                    alpha=alpha,
                )  # fmt: skip
