"""Motion and lens blur, high pass, and the filters of both signs: weights worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import ndimage

from agreement import random_pixels
from cudafilter.engines import Engine
from cudafilter.errors import ParameterError
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.catalogue import MAX_DENSE_RADIUS
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Weights
from cudafilter.operations.make import make
from cudafilter.operations.pixels import Pixels, full_scale

BOTH_SIGNS = ("highpass", "dog", "log", "gabor")


def correlation(name: str, **parameters: Any) -> Correlation:
    """The filter *name*, as what it is."""
    filter = make(name, **parameters)
    assert isinstance(filter, Correlation)
    return filter


def weights_of(name: str, **parameters: Any) -> Weights:
    """The weights of all that the filter *name* adds up, but for its bias."""
    filter = correlation(name, **parameters)
    (kernel,) = filter.kernels
    weights: Weights = filter.gain * kernel.weights
    weights[kernel.anchor] += filter.source_gain
    return weights


# Of the line y = x, 1 to each side: a neighbour is sqrt(1/2) beside it, (1, 1) sqrt(2) - 1 past it.
BESIDE, PAST = 1 - math.sqrt(0.5), 1 - (math.sqrt(2) - 1)


class TestMotion:
    @pytest.mark.parametrize(
        ("length", "angle", "expected"),
        [
            (1, 0, [[1]]),
            (1, 77, [[1]]),
            (3, 0, [[1, 1, 1]]),
            (3, 180, [[1, 1, 1]]),
            (3, -90, [[1], [1], [1]]),
            (2, 0, [[0.5, 1, 0.5]]),
            (4.5, 0, [[0.75, 1, 1, 1, 0.75]]),
            (3, 45, [[0, BESIDE, PAST], [BESIDE, 1, BESIDE], [PAST, BESIDE, 0]]),
            (3, 135, [[PAST, BESIDE, 0], [BESIDE, 1, BESIDE], [0, BESIDE, PAST]]),
        ],
    )
    def test_weights(self, length: float, angle: float, expected: list[list[float]]) -> None:
        weights = weights_of("motion", length=length, angle=angle)
        given = np.array(expected, float)
        np.testing.assert_allclose(weights, given / given.sum(), atol=1e-9)
        assert ((weights > 0) == (given > 0)).all()

    def test_a_slanted_line_has_matlabs_size(self) -> None:
        assert make("motion", length=20, angle=45).kernels[0].shape == (15, 15)

    def test_runs_anticlockwise(self) -> None:
        weights = weights_of("motion", length=21, angle=30)
        rows, columns = weights.shape
        assert weights[: rows // 2, columns // 2 + 1 :].sum() > 0.4  # above and right

    @pytest.mark.parametrize("angle", [0, 90, 180, -270])
    def test_level_and_upright_lines_are_of_rank_1(self, angle: float) -> None:
        kernel = make("motion", length=1000, angle=angle).kernels[0]
        assert kernel.factors is not None
        assert sorted(kernel.shape) == [1, 1001]


class TestDisk:
    def test_weights(self) -> None:
        # Of the unit disk, a pixel beside the middle has twice the area under sqrt(1 - x^2) from
        # 1/2 to 1, no higher than 1/2: 1/2 up to sqrt(3)/2, a circle's segment from there on.
        side = math.sqrt(3) / 2 - 0.5 + math.pi / 2 - (math.sqrt(3) / 4 + math.pi / 3)
        corner = (math.pi - 1 - 4 * side) / 4
        expected = np.array([[corner, side, corner], [side, 1, side], [corner, side, corner]])
        np.testing.assert_allclose(weights_of("disk", radius=1), expected / math.pi, atol=1e-9)

    @pytest.mark.parametrize("radius", [0.01, 0.5])
    def test_a_pixel_holds_the_smallest(self, radius: float) -> None:
        assert weights_of("disk", radius=radius).tolist() == [[1]]

    @pytest.mark.parametrize("radius", [0.6, 1.5, 2.2, 5.0, 9.75])
    def test_weights_are_areas(self, radius: float) -> None:
        # Each pixel in 200 x 200 parts, counted where their middles lie in the disk.
        weights = weights_of("disk", radius=radius)
        n, parts = len(weights) // 2, 200
        at = (np.arange(len(weights) * parts) + 0.5) / parts - n - 0.5
        inside = at[:, None] ** 2 + at**2 <= radius**2
        areas = inside.reshape(len(weights), parts, len(weights), parts).mean(axis=(1, 3))
        np.testing.assert_allclose(weights * math.pi * radius**2, areas, atol=1e-3)
        near, far = (
            np.maximum(np.abs(np.arange(-n, n + 1)) - 0.5, 0),
            np.abs(np.arange(-n, n + 1)) + 0.5,
        )
        assert not weights[np.hypot(near[:, None], near) >= radius].any()
        assert np.ptp([weights.max(), *weights[np.hypot(far[:, None], far) <= radius]]) == 0

    @given(st.floats(0.5, 40))
    @example(16.071173617691876)  # whose square Python and NumPy round to different sides
    def test_is_round(self, radius: float) -> None:
        weights = weights_of("disk", radius=radius)
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        assert weights.max() == pytest.approx(1 / (math.pi * radius**2), rel=0.3)
        np.testing.assert_allclose(weights, np.rot90(weights), atol=1e-9)
        assert np.array_equal(weights, weights[::-1])


class TestHighpass:
    def test_weights(self) -> None:
        # exp(-1/2) and exp(-2) at sigma 1; of exp(-9/2) too, radius 3.
        row = np.exp([-4.5, -2, -0.5, 0, -0.5, -2, -4.5])
        row /= row.sum()
        expected = -2 * np.outer(row, row)
        expected[3, 3] += 2
        np.testing.assert_allclose(weights_of("highpass", sigma=1, scale=2), expected, rtol=1e-14)

    def test_with_the_blur_makes_the_image(self) -> None:
        pixels = random_pixels((30, 40, 3), "float32")
        blurred = reference.exact(pixels, make("blur", sigma=2.5))
        rest = reference.exact(pixels, make("highpass", sigma=2.5, bias=0))
        np.testing.assert_allclose(blurred + rest, pixels, atol=1e-14)


class TestDog:
    def test_is_one_blur_less_another(self) -> None:
        pixels = random_pixels((30, 40, 1), "float32")
        narrow, wide = (reference.exact(pixels, make("blur", sigma=s)) for s in (1.5, 3.0))
        dog = reference.exact(pixels, make("dog", sigma=1.5, ratio=2, scale=3, bias=0.25))
        np.testing.assert_allclose(dog, 3 * (narrow - wide) + 0.25, atol=1e-14)

    def test_is_scipys(self) -> None:
        pixels = random_pixels((30, 40, 1), "float32")
        plane = pixels[..., 0].astype(float)
        blurs = [ndimage.gaussian_filter(plane, s, truncate=3, mode="mirror") for s in (2, 4)]
        dog = reference.exact(pixels, make("dog", sigma=2, ratio=2, bias=0), Border("reflect"))
        np.testing.assert_allclose(dog[..., 0], blurs[0] - blurs[1], atol=1e-14)

    def test_a_bright_spot_is_positive(self) -> None:
        weights = weights_of("dog")
        assert weights[10, 10] == weights.max() > 0 > weights[10, 16]


class TestLog:
    def test_the_smallest_is_laplacian(self) -> None:
        expected = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
        np.testing.assert_allclose(weights_of("log", sigma=0.2) / 0.04, expected, atol=1e-4)

    @pytest.mark.parametrize("sigma", [0.2, 0.5, 1, 2, 7.3])
    def test_gives_the_laplacian_of_a_parabola(self, sigma: float) -> None:
        # That of a x^2 + b x y + c y^2 is 2 a + 2 c everywhere, and a blur changes it not.
        weights = weights_of("log", sigma=sigma) / sigma**2
        n = len(weights) // 2
        y, x = np.mgrid[-n : n + 1, -n : n + 1].astype(float)
        assert (weights * (1.5 * x * x + 7 * x * y + 2 * y * y)).sum() == pytest.approx(7)
        assert (weights * (3 + 2 * x - y)).sum() == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize("sigma", [1, 2, 5.5])
    def test_is_scipys_times_sigma_squared(self, sigma: float) -> None:
        pixels = random_pixels((50, 60, 1), "float32")
        log = reference.exact(pixels, make("log", sigma=sigma, bias=0), Border("wrap"))[..., 0]
        plane = pixels[..., 0].astype(float)
        scipys = ndimage.gaussian_laplace(plane, sigma, mode="wrap")
        # Cut at 4 sigma, SciPy's weights do not sum to 0, and of x^2 do not make 2.
        x = np.arange(-200.0, 201)
        slope, flat = (ndimage.gaussian_filter1d(of, sigma, order=2)[200] for of in (x * x, x**0))
        slope -= flat * ndimage.gaussian_filter1d(x * x, sigma)[200]
        assert (slope, flat) == pytest.approx((2, 0), abs=0.03)
        scipys -= 2 * flat * ndimage.gaussian_filter(plane, sigma, mode="wrap")
        np.testing.assert_allclose(log, scipys * sigma**2 * 2 / slope, atol=1e-12)

    def test_an_edge_has_the_same_height_at_every_sigma(self) -> None:
        # The largest slope change of a step's blur, times sigma^2: 1 / sqrt(2 pi e).
        step = np.zeros((1, 401, 1), np.float32)
        step[:, 200:] = 1
        for sigma in (2, 5, 20):
            log = reference.exact(step, make("log", sigma=sigma, bias=0))
            assert log.max() == pytest.approx(
                1 / math.sqrt(2 * math.pi * math.e), rel=0.05
            )  # of samples


class TestGabor:
    def test_weights(self) -> None:
        # cos of 0, 1/4, 1/2 and 3/4 of a turn under exp(-x^2 / 2), on level rows of one weight.
        given = np.array([0, -math.exp(-2), 0, 1, 0, -math.exp(-2), 0])
        hull = np.exp(-(np.arange(-3.0, 4) ** 2) / 2)
        row = given - hull * given.sum() / hull.sum()
        column = np.exp(-(np.arange(-3.0, 4) ** 2) / 2)
        expected = np.outer(column, row)
        weights = weights_of("gabor", sigma=1, wavelength=4, aspect=1)
        np.testing.assert_allclose(weights, expected / np.abs(expected).sum(), atol=1e-15)
        odd = weights_of("gabor", sigma=1, wavelength=4, aspect=1, phase=90)
        row = np.array([-math.exp(-4.5), 0, math.exp(-0.5), 0, -math.exp(-0.5), 0, math.exp(-4.5)])
        expected = np.outer(column, row)
        np.testing.assert_allclose(odd, expected / np.abs(expected).sum(), atol=1e-15)

    @pytest.mark.parametrize("angle", [0, 30, 90, -45, 137])
    @pytest.mark.parametrize("phase", [0, 90, 33])
    def test_is_opencvs_less_its_sum(self, angle: float, phase: float) -> None:
        sigma, wavelength, aspect = 2.5, 7.0, 0.6
        weights = weights_of(
            "gabor", sigma=sigma, wavelength=wavelength, angle=angle, phase=phase, aspect=aspect
        )
        size = weights.shape[1], weights.shape[0]
        # OpenCV's angle runs clockwise, and it turns the kernel by half a circle.
        theta, psi = math.radians(-angle), math.radians(-phase)
        wave, hull = (
            cv2.getGaborKernel(size, sigma, theta, length, aspect, at, cv2.CV_64F)
            for length, at in ((wavelength, psi), (1e12, 0.0))
        )
        expected = wave - hull * wave.sum() / hull.sum()
        np.testing.assert_allclose(weights, expected / np.abs(expected).sum(), atol=1e-12)

    def test_angle_is_that_of_the_wave(self) -> None:
        def stripes(angle: float) -> Pixels:
            y, x = np.mgrid[:80, :80]
            along = x * math.cos(math.radians(angle)) - y * math.sin(math.radians(angle))
            wave = 0.5 + 0.5 * np.cos(along * 2 * math.pi / 6)
            return np.asarray(wave[..., None], np.float32)

        heights = {
            angle: np.ptp(reference.exact(stripes(30), make("gabor", angle=angle))[20:60, 20:60])
            for angle in (0, 30, 60, 120, -30)
        }
        assert heights[30] > 0.5
        assert max(height for angle, height in heights.items() if angle != 30) < heights[30] / 4

    @pytest.mark.parametrize(
        "parameters", [{"wavelength": 2, "phase": 90}, {"wavelength": 1e4, "sigma": 0.5}]
    )
    def test_no_wave_is_told(self, parameters: dict[str, float]) -> None:
        with pytest.raises(ParameterError, match="show nothing"):
            make("gabor", **parameters)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("name", BOTH_SIGNS)
def test_a_flat_area_is_one_gray(cpu: Engine, name: str, dtype: str) -> None:
    gray = 128 * full_scale(dtype) // 255
    for value in (0, 77, 200, full_scale(dtype)):
        pixels = np.full((50, 60, 3), value, dtype)
        assert (cpu.run(pixels, make(name)).pixels == gray).all()
        assert (reference.apply(pixels, make(name)) == gray).all()
        assert (reference.apply(pixels, make(name, bias=0)) == 0).all()


@pytest.mark.parametrize("name", BOTH_SIGNS)
def test_numbers_of_floats_are_as_they_are_without_bias(name: str) -> None:
    pixels = random_pixels((20, 30, 1), "float32") * 1000
    plain = reference.exact(pixels, make(name, bias=0))
    assert plain.min() < 0 < plain.max()
    np.testing.assert_allclose(reference.exact(pixels, make(name)), plain + 128 / 255, atol=1e-9)
    np.testing.assert_allclose(
        reference.exact(pixels, make(name, bias=0, scale=3)), 3 * plain, rtol=1e-12, atol=1e-9
    )


@pytest.mark.parametrize("name", ["motion", "disk"])
def test_blurs_take_alpha_along(name: str) -> None:
    pixels = np.zeros((15, 15, 2), np.float32)
    pixels[7, 7] = 0.5, 1
    blurred = reference.apply(pixels, make(name), alpha=True)
    (kernel,) = correlation(name).kernels
    assert blurred[7, 7] == pytest.approx((0.5, kernel.weights.max()))


@pytest.mark.parametrize("name", BOTH_SIGNS)
def test_filters_of_both_signs_keep_alpha(name: str) -> None:
    pixels = random_pixels((15, 15, 2), "float32")
    assert np.array_equal(reference.apply(pixels, make(name), alpha=True)[..., 1], pixels[..., 1])


@pytest.mark.parametrize(
    ("name", "parameters", "named"),
    [
        ("motion", {"length": 0.5}, "length"),
        ("motion", {"angle": 361}, "angle"),
        ("disk", {"radius": 0}, "radius"),
        ("disk", {"radius": MAX_DENSE_RADIUS + 1}, "radius"),
        ("highpass", {"bias": math.inf}, "bias"),
        ("dog", {"ratio": 1}, "ratio"),
        ("dog", {"sigma": 100, "ratio": 2}, "ratio"),
        ("log", {"sigma": 0.1}, "sigma"),
        ("gabor", {"wavelength": 1}, "wavelength"),
        ("gabor", {"sigma": 100, "aspect": 0.5}, "aspect"),
        ("gabor", {"aspect": 0}, "aspect"),
    ],
)
def test_nonsense_names_its_parameter(name: str, parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(ParameterError) as caught:
        make(name, **parameters)
    assert caught.value.parameter == named


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("motion", {"length": 1000, "angle": 30}),
        ("disk", {"radius": MAX_DENSE_RADIUS}),
        ("dog", {"sigma": 100, "ratio": 1.7}),
        ("log", {"sigma": 128}),
        ("gabor", {"sigma": 85, "aspect": 0.5, "angle": 45}),
    ],
)
def test_the_largest_are_within_reach(name: str, parameters: dict[str, Any]) -> None:
    assert max(make(name, **parameters).reach) <= MAX_DENSE_RADIUS
