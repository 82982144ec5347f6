"""The check itself: it must fail where a result is wrong, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from agreement import LAYOUTS, assert_agrees, random_pixels, tolerance
from cudafilter import api
from cudafilter.check import compare, compare_all
from cudafilter.engines import Engine
from cudafilter.errors import ParameterError
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
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
    for x in (0, 2):  # 100.495 and 100.525: the slack is 0.001
        wrong = right.copy()
        wrong[0, x] = 201 - wrong[0, x]
        agreement = compare(wrong, pixels, near)
        assert not agreement.ok
        assert agreement.worst == (x, 0, 0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    "filter",
    [
        make("emboss"),
        make("emboss", scale=0.5),
        make("sharpen"),
        make("laplacian", scale=0.25),
        make("kernel", weights="1 4 6 4 1", normalize=True),
    ],
)
def test_whole_numbers_have_no_tolerance_and_ties_are_even(filter: Operation, dtype: str) -> None:
    pixels = random_pixels((30, 40, 3), dtype)
    exact = reference.exact(pixels, filter)
    assert (tolerance(pixels, filter) == 0).all()
    right = reference.apply(pixels, filter)
    agreement = compare(right, pixels, filter)
    assert (agreement.ok, agreement.unproven) == (True, 0)
    inside = (exact > 0) & (exact < full_scale(dtype))
    tie = np.argwhere(inside & (exact % 1 == 0.5))
    for y, x, c in tie[:3]:
        wrong = right.copy()
        wrong[y, x, c] = 2 * exact[y, x, c] - right[y, x, c]  # the odd one
        assert not compare(wrong, pixels, filter).ok


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("filter", "most"),
    [
        (make("sobel"), 0.04),
        (make("scharr", scale=20), 0.04),
        (make("blur", sigma=50), 0.08),
        (make("unsharp", amount=50), 0.2),
        (make("kernel", weights=np.random.default_rng(1).standard_normal((15, 15))), 0.2),
    ],
)
def test_no_integer_may_be_off_by_as_much_as_a_step(
    filter: Correlation, most: float, dtype: str
) -> None:
    slack = filter.slack(dtype, False)
    assert slack is not None
    assert 0 < slack < most


def test_how_many_samples_are_proven_is_told() -> None:
    pixels = random_pixels((20, 30, 3), "uint16")
    agreement = compare(reference.apply(pixels, make("blur")), pixels, make("blur"))
    assert str(agreement).startswith(
        "agrees with the reference: proven: 1,800 samples, 0 unproven; largest difference 0,"
    )
    assert agreement.figures()["unproven"] == 0
    steep = Chain((Link(make("bilateral", radius=2)), Link(make("sobel"))))
    agreement = compare(reference.apply(pixels, steep), pixels, steep)
    assert 0 < agreement.unproven <= 1800
    told = (tolerance(pixels, steep) >= 0.5).sum()
    assert agreement.unproven == pytest.approx(int(told), abs=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("links", ["sobel median unsharp", "sharpen tophat"])
def test_alpha_that_is_only_picked_may_not_be_off(links: str, dtype: str) -> None:
    pixels = random_pixels((12, 15, 4), dtype)
    filter = Chain(tuple(Link(make(name)) for name in links.split()))
    result = reference.apply(pixels, filter, alpha=True)
    assert compare(result, pixels, filter, alpha=True).ok
    result[5, 7, 3] = np.nextafter(result[5, 7, 3], np.float32(0)) if dtype == "float32" else 9
    found = compare(result, pixels, filter, alpha=True)
    assert (found.violations, found.worst) == (1, (7, 5, 3))


@pytest.mark.parametrize("border", ["wrap", Border("wrap")])
def test_it_takes_what_apply_takes(border: str | Border) -> None:
    gray = random_pixels((20, 30, 1), "uint8")[..., 0]
    right = api.apply(gray, "blur", sigma=2, border=border, engine="cpu")
    assert compare(right, gray, make("blur"), border).ok
    assert not compare(right, gray, make("blur")).ok


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


def test_float_tolerance_follows_each_samples_terms() -> None:
    filter = make("kernel", weights=[[2.0, -3.0]])
    pixels = 10 * random_pixels((20, 20, 1), "float32")
    pixels[3, 3] = 1e30
    right = reference.exact(pixels, filter)
    terms = reference.exact(pixels, make("kernel", weights=[[2.0, 3.0]]))
    bound = (3 + 1 + 2) * 2.0**-24 * terms
    assert compare((right + 0.8 * bound).astype(np.float32), pixels, filter).ok
    wrong = compare((right + 1.2 * bound + 1e-6).astype(np.float32), pixels, filter)
    assert wrong.violations == 400


@pytest.mark.parametrize("name", ["blur", "sobel", "sharpen", "unsharp", "median"])
@pytest.mark.parametrize("size", [1e-44, 1e-40, 1e-38, 1e-25, 1e18, 1e25, 1e37])
def test_floats_of_every_size(cpu: Engine, name: str, size: float) -> None:
    pixels = (random_pixels((20, 30, 3), "float32") * size).astype(np.float32)
    pixels[:, 20:] = 0
    assert_agrees(cpu, pixels, make(name))
    if size > 1e-42:  # of fewer digits than that, none is sure
        far = reference.apply(pixels, make(name))
        far[:3] = 0
        assert not compare(far, pixels, make(name)).ok


@pytest.mark.parametrize("name", ["blur", "box", "sharpen", "sobel"])
@pytest.mark.parametrize("value", [-0.5, -2.0])
def test_negative_borders_beside_alpha(cpu: Engine, name: str, value: float) -> None:
    pixels = random_pixels((20, 30, 4), "float32")
    assert_agrees(cpu, pixels, make(name), Border("constant", value), alpha=True)


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


def test_of_several_wrong_samples_the_one_furthest_off_is_named() -> None:
    source = np.full((200, 700, 3), 100, np.uint8)
    wrong = source.copy()
    wrong[3, 5, 0], wrong[3, 6, 1], wrong[190, 7, 2], wrong[195, 0, 0] = 110, 120, 140, 130
    agreement = compare(wrong, source, make("box", radius=0))
    assert agreement.worst == (7, 190, 2)
    assert (agreement.got, agreement.expected, agreement.violations) == (140, 100, 4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("filter", [make("blur"), make("laplacian", scale=0.2)])
@pytest.mark.parametrize("first", [make("threshold", otsu=True), make("sharpen", amount=0)])
def test_what_is_left_of_a_chain_is_checked_with_its_alpha(
    first: Operation, filter: Operation, dtype: str
) -> None:
    """One link is left: the others need the whole image, or change nothing."""
    pixels = random_pixels((60, 50, 4), dtype)
    chain = Chain((Link(first), Link(filter)))
    right = reference.apply(pixels, chain, alpha=True)
    assert compare(right, pixels, chain, alpha=True, quick=True).verdict == "proven"
    before = reference.apply(pixels, first, alpha=True)
    opaque = np.where(np.arange(4) < 3, reference.apply(before, filter), right)
    differs = np.argwhere(np.abs(opaque.astype(float) - right) > 0.05 * full_scale(dtype))
    y, x, c = differs[0]
    wrong = right.copy()
    wrong[y, x, c] = opaque[y, x, c]
    assert compare(wrong, pixels, chain, alpha=True).verdict == "wrong"


@pytest.mark.parametrize("name", ["tophat", "blackhat", "outline"])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_difference_of_two_floats_is_proven_to_its_last_bit(name: str, alpha: bool) -> None:
    pixels = random_pixels((40, 30, 4), "float32") - np.float32(0.5)  # alphas below 0 too
    filter = make(name)
    right = reference.apply(pixels, filter, alpha=alpha)
    assert compare(right, pixels, filter, alpha=alpha).verdict == "proven"
    for value in right[20, 10, 0], right[..., 0].min():
        y, x, c = np.argwhere(right == value)[0]
        wrong = right.copy()
        wrong[y, x, c] = np.nextafter(value, np.float32(9))
        agreement = compare(wrong, pixels, filter, alpha=alpha)
        assert (agreement.violations, agreement.worst) == (1, (x, y, c))


def test_where_no_alpha_is_there_is_no_colour_at_all() -> None:
    pixels = random_pixels((40, 60, 4), "float32")
    pixels[:, 20:, 3] = 0
    filter = make("blur", sigma=5)
    wrong = reference.apply(pixels, filter, alpha=True)
    wrong[20, 50, 1] = 1e-40
    agreement = compare(wrong, pixels, filter, alpha=True)
    assert (agreement.violations, agreement.worst) == (1, (50, 20, 1))
