"""The check itself: it must fail where a result is wrong, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from agreement import LAYOUTS, random_pixels
from cudafilter.check import compare, compare_all
from cudafilter.errors import ParameterError
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.operations.pixels import DTYPES, full_scale


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize(
    "name",
    [
        "blur",
        "box",
        "sharpen",
        "unsharp",
        "sobel",
        "emboss",
        "motion",
        "disk",
        "highpass",
        "dog",
        "log",
        "gabor",
    ],
)
def test_one_wrong_sample_is_found_and_named(
    name: str, channels: int, alpha: bool, dtype: str
) -> None:
    pixels = random_pixels((40, 30, channels), dtype)
    filter = make(name)
    right = reference.apply(pixels, filter, alpha=alpha)
    agreement = compare(right, pixels, filter, alpha=alpha)
    assert agreement.ok
    assert agreement.differing == 0
    assert agreement.exact_percent == "100"
    wrong = right.copy()
    step = 2 if dtype != "float32" else 0.01
    value = wrong[17, 23, channels - 1]
    wrong[17, 23, channels - 1] = value - step if value > full_scale(dtype) / 2 else value + step
    agreement = compare(wrong, pixels, filter, alpha=alpha)
    assert not agreement.ok
    assert agreement.worst == (23, 17, channels - 1)
    assert agreement.got == wrong[17, 23, channels - 1]
    assert agreement.expected == right[17, 23, channels - 1]
    assert (agreement.differing, agreement.violations) == (1, 1)
    assert agreement.exact_percent != "100"
    assert "x=23 y=17" in str(agreement)


def test_integers_may_differ_next_to_a_rounding_boundary_only() -> None:
    pixels = np.array([[[100], [101], [106]]], np.uint8)
    near = make("kernel", weights=[[0.5 / 101]], bias=100 / 255)  # ..., 100.5, ...
    right = reference.apply(pixels, near)
    assert right.ravel().tolist()[1] in (100, 101)
    either = right.copy()
    either[0, 1] = 100
    assert compare(either, pixels, near).ok
    either[0, 1] = 101
    assert compare(either, pixels, near).ok
    either[0, 0] += 1  # 100.495: within the slack too
    assert compare(either, pixels, near).ok
    either[0, 2] -= 1  # 100.525 rounds to 101, and no value within 0.01 of it to 100
    agreement = compare(either, pixels, near)
    assert not agreement.ok
    assert agreement.worst == (2, 0, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_agree_with_the_same_only(value: float) -> None:
    pixels = random_pixels((9, 9, 1), "float32")
    filter = make("blur", sigma=1)
    result = reference.apply(pixels, filter)
    result[4, 4] = value
    assert not compare(result, pixels, filter).ok
    pixels[2, 2] = value  # and in the source, where the reference itself has them
    right = reference.apply(pixels, filter)
    agreement = compare(right, pixels, filter)
    assert agreement.ok
    assert (agreement.differing, agreement.largest) == (0, 0)
    for other in {np.nan, np.inf, -np.inf, 0.5} - {value}:
        wrong = right.copy()
        wrong[2, 2] = other
        agreement = compare(wrong, pixels, filter)
        assert (agreement.violations, agreement.worst) == (1, (2, 2, 0))


def test_past_float32s_range_lies_infinity() -> None:
    pixels, twice = np.full((2, 2, 1), 3e38, np.float32), make("kernel", weights=[[2]])
    assert compare(np.full_like(pixels, np.inf), pixels, twice).ok
    assert not compare(np.full_like(pixels, -np.inf), pixels, twice).ok
    assert not compare(np.full_like(pixels, 3.4e38), pixels, twice).ok
    assert not compare(np.full_like(pixels, np.inf), pixels, make("kernel", weights=[[1]])).ok


def test_float_tolerance_follows_the_image_and_the_kernel() -> None:
    filter = make("kernel", weights=[[2.0, -3.0]])
    pixels = 10 * random_pixels((20, 20, 1), "float32")
    right = reference.exact(pixels, filter)
    bound = 4e-6 * 5 * float(pixels.max())
    assert compare((right + 0.8 * bound).astype(np.float32), pixels, filter).ok
    assert not compare((right + 1.2 * bound).astype(np.float32), pixels, filter).ok


def test_a_wrong_border_is_found() -> None:
    pixels = random_pixels((64, 64, 3), "uint8")
    result = reference.apply(pixels, make("blur"), Border("reflect"))
    assert compare(result, pixels, make("blur"), Border("reflect")).ok
    assert not compare(result, pixels, make("blur"), Border("edge")).ok


def test_bands_see_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cudafilter.proof.proof.BAND_SAMPLES", 100)
    pixels = random_pixels((83, 31, 2), "uint16")
    filter = make("blur", sigma=1)
    right = reference.apply(pixels, filter)
    assert compare(right, pixels, filter).differing == 0
    for y in (0, 41, 82):
        wrong = right.copy()
        wrong[y, 30, 1] ^= 0x80
        first, second = compare_all([right, wrong], pixels, filter)
        assert first.ok
        assert not second.ok
        assert second.worst == (30, y, 1)


def test_another_shape_or_type_is_refused() -> None:
    pixels = random_pixels((5, 5, 1), "uint8")
    for other in (pixels[:4], pixels.astype(np.uint16)):
        with pytest.raises(ParameterError, match="is not of the source's"):
            compare(other, pixels, make("blur"))
