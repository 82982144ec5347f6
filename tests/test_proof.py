"""The check's fast routes: within their bounds of the definition, for all that there is."""

from __future__ import annotations

import tracemalloc
from itertools import product
from typing import Any

import numpy as np
import pytest

from agreement import ALL_BORDERS, LAYOUTS, random_pixels, tolerance
from cudafilter.operations import reference
from cudafilter.operations.bilateral import Bilateral
from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import DTYPES, Pixels
from cudafilter.operations.rank import erosion
from cudafilter.operations.window import square
from cudafilter.proof.alike import most
from cudafilter.proof.proof import Proof
from cudafilter.proof.ranks import MEDIAN_OF_9
from cudafilter.proof.sums import Banded, Taps, Transformed, route
from cudafilter.proof.tolerance import Tolerance
from cudafilter.proof.values import Values, suspect

random = np.random.default_rng(3)

DENSE = random.standard_normal((7, 9))

OPERATIONS: dict[str, Operation] = {
    "blur": make("blur"),
    "wide": make("blur", sigma=7),
    "box": make("box"),
    "large box": make("box", radius=20),
    "sobel": make("sobel"),
    "scharr": make("scharr", scale=0.3),
    "emboss": make("emboss"),
    "sharpen": make("sharpen", amount=0.7),
    "unsharp": make("unsharp", sigma=5, amount=2, threshold=0.02),
    "dense": make("kernel", weights=DENSE, bias=0.3),
    "dense mean": make("kernel", weights=np.abs(DENSE), normalize=True),
    "dense integers": make("kernel", weights=np.rint(9 * DENSE), bias=0.5),
    "dense halves": make("kernel", weights=np.rint(9 * DENSE) / 8),
    "even column": make("kernel", weights=random.random((14, 1))),
    "even row": make("kernel", weights=random.random((1, 26))),
    "zeros between": make("kernel", weights=np.outer([1, 0, 0, -2], np.r_[1.5, [0] * 40, 0.1])),
    "nothing": make("kernel", weights=np.zeros((3, 3))),
    "median": make("median"),
    "larger median": make("median", radius=2),
    "least": erosion(square(3)),
    "disk": make("dilate", radius=3, shape="disk"),
    "open": make("open", radius=2),
    "top hat": make("tophat"),
    "identity": make("sharpen", amount=0),
    "alike": make("bilateral", radius=3),
    "nearly all alike": Bilateral(sigma=40, range=3, radius=2),
    "none alike": Bilateral(sigma=1, range=1e-30, radius=2),
}

SHAPES = [(1, 1), (1, 37), (29, 1), (2, 3), (70, 53), (131, 40)]


def assert_held(
    pixels: Pixels, operation: Operation, border: Border = Border(), alpha: bool = False
) -> float:
    """Every value lies within its bound of the definition's, for a few rows at a time and for all
    at once. Returns the largest bound."""
    exact = reference.exact(pixels, operation, border, alpha)
    proof, height = Proof(pixels, operation, border, alpha), len(pixels)
    largest = 0.0
    spans = {(first, min(first + proof.step, height)) for first in range(0, height, proof.step)}
    for first, last in sorted(spans | {(0, height)}):
        values, bound, unproven = proof.rows(first, last)
        expected = exact[first:last].transpose(0, 2, 1)
        assert values.shape == expected.shape
        proven = np.ones(values.shape, bool) if unproven is None else ~unproven
        apart = np.abs(values.astype(np.float64)[proven] - expected[proven])
        assert (apart <= bound).all(), (apart.max(), bound)
        largest = max(largest, bound)
    return largest


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_values_lie_within_their_bound(name: str, channels: int, alpha: bool, dtype: str) -> None:
    for shape, border in product(SHAPES, ALL_BORDERS):
        assert_held(random_pixels((*shape, channels), dtype), OPERATIONS[name], border, alpha)


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_any_rows_come_at_once(border: Border) -> None:
    """Whole blocks of a banded product do, where the border does not reach them."""
    pixels, kernel = random_pixels((80, 700, 1), "uint8"), np.outer(*random.random((2, 13)))
    operation = make("kernel", weights=kernel)
    exact = reference.exact(pixels, operation, border, False).transpose(0, 2, 1)
    proof = Proof(pixels, operation, border, False)
    for first, last in product(range(30), (56, 73, 74, 75, 80)):
        values, bound, _ = proof.rows(first, last)
        assert np.abs(values - exact[first:last]).max() <= bound, (first, last)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_single_samples_have_the_definitions_bits(
    name: str, channels: int, alpha: bool, dtype: str
) -> None:
    for shape, border in product([(1, 1), (3, 2), (31, 43)], ALL_BORDERS):
        pixels = random_pixels((*shape, channels), dtype)
        exact = reference.exact(pixels, OPERATIONS[name], border, alpha)
        proof = Proof(pixels, OPERATIONS[name], border, alpha)
        for count in (1, 9):  # one by one, or in rows
            y, x, c = (random.integers(0, n, count) for n in pixels.shape)
            assert np.array_equal(proof.at(y, x, c), exact[y, x, c])


@pytest.mark.parametrize("name", ["blur", "wide", "box", "sobel", "unsharp", "dense", "median"])
@pytest.mark.parametrize(("channels", "alpha"), [(3, False), (4, True)])
@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_nan_and_infinity_are_left_to_the_definition(
    border: Border, channels: int, alpha: bool, name: str
) -> None:
    pixels = random_pixels((60, 50, channels), "float32")
    pixels[0, 49, 0], pixels[30, 20, 1], pixels[59, 3, channels - 1] = np.nan, np.inf, -np.inf
    with np.errstate(all="ignore"):
        assert_held(pixels, OPERATIONS[name], border, alpha)


@pytest.mark.parametrize("factor", [1e-45, 1e-38, 1e-30, 1e30, 3e38])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("name", ["blur", "wide", "sobel", "unsharp", "dense", "dense mean"])
def test_any_float_will_do(name: str, alpha: bool, factor: float) -> None:
    pixels = random_pixels((40, 41, 4), "float32")
    pixels[..., : 3 if alpha else 4] *= np.float32(factor)
    with np.errstate(all="ignore"):
        assert_held(pixels, OPERATIONS[name], alpha=alpha)
        if alpha:  # and little of it
            pixels[..., 3] *= np.float32(1e-30)
            assert_held(pixels, OPERATIONS[name], alpha=alpha)


@pytest.mark.parametrize("name", ["blur", "box", "wide", "dense mean"])
def test_transparent_parts_have_no_colour(name: str) -> None:
    pixels = random_pixels((90, 60, 4), "uint8")
    pixels[:70, :50, 3] = 0
    assert_held(pixels, OPERATIONS[name], alpha=True)
    pixels[..., 3] = 255  # and opaque ones are as without alpha
    assert_held(pixels, OPERATIONS[name], alpha=True)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    "name", ["box", "large box", "emboss", "sharpen", "dense integers", "dense halves", "nothing"]
)
def test_sums_of_integers_are_exact(name: str, dtype: str) -> None:
    assert assert_held(random_pixels((70, 53, 3), dtype), OPERATIONS[name]) == 0


@pytest.mark.parametrize(
    ("kernel", "largest", "whole", "kind"),
    [
        (Kernel(np.ones((3, 3))), 255, True, Taps),
        (Kernel(np.ones((3, 3)) / 3), 255, False, Taps),
        (Kernel(np.ones((99, 99))), 255, True, Banded),
        (Kernel(np.outer(random.random(20), random.random(20))), 1, False, Banded),
        (Kernel(DENSE), 255, True, Transformed),
        (Kernel(random.random((150, 70))), 255, True, Transformed),
    ],
)
def test_each_route_is_taken(kernel: Kernel, largest: float, whole: bool, kind: type) -> None:
    assert isinstance(route(kernel, largest, whole), kind)


@pytest.mark.parametrize("taps", [13, 61, 301])
def test_no_product_is_large_enough_for_threads_of_blas(
    taps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would spin beside the check's own, with no word from the user to limit them."""
    sizes: list[int] = []
    multiply = np.matmul

    def told(a: Any, b: Any, out: Any) -> Any:
        sizes.append(a.shape[-2] * a.shape[-1] * b.shape[-1])
        return multiply(a, b, out=out)

    monkeypatch.setattr(np, "matmul", told)
    kernel = np.outer(random.random(taps), random.random(taps))
    pixels = random_pixels((60, 1100, 3), "uint8")
    values = Proof(pixels, make("kernel", weights=kernel), Border(), alpha=False).rows(10, 50)
    assert 0 < max(sizes) <= 1 << 18
    expected = reference.exact(pixels, make("kernel", weights=kernel), Border(), False, (10, 50))
    assert np.abs(values.values - expected.transpose(0, 2, 1)).max() <= values.bound


@pytest.mark.parametrize("name", ["unsharp", "dense", "sharpen", "zeros between", "even row"])
@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_the_tolerance_of_floats_follows_each_samples_terms(border: Border, name: str) -> None:
    filter = OPERATIONS[name]
    assert isinstance(filter, Correlation)
    pixels = random_pixels((40, 50, 1), "float32") - np.float32(0.5)
    expected = np.zeros((40, 50))
    for sign in (1, -1):  # of the weights: the positive and the negative ones apart
        share = tuple(Kernel(np.maximum(sign * k.weights, 0), k.anchor) for k in filter.kernels)
        part = Correlation("part", share)
        expected += reference.exact(np.abs(pixels), part, border)[..., 0]
    expected = abs(filter.gain) * expected + abs(filter.bias)
    expected += abs(filter.source_gain) * np.abs(pixels[..., 0].astype(np.float64))
    if filter.threshold:
        expected += np.abs(pixels[..., 0])
    roundings = filter.roundings("float32", alpha=False)
    limit = tolerance(pixels, filter, border)[..., 0] * 2**24 / roundings
    np.testing.assert_allclose(limit, expected, rtol=1e-9)
    values = Proof(pixels, filter, border, alpha=False).rows(0, 40)
    told = (
        Tolerance(pixels, filter, border, alpha=False).rows(0, 40, values)[:, 0] * 2**24 / roundings
    )
    assert (told <= limit * (1 + 1e-12)).all()
    np.testing.assert_allclose(told, limit, atol=1e-9)


@pytest.mark.parametrize("side", [65, 150])
@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_large_dense_kernels_come_in_pieces(border: Border, side: int) -> None:
    weights = random.standard_normal((side, side + 9))
    assert_held(random_pixels((40, 33, 1), "uint8"), make("kernel", weights=weights), border)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_type_that_is_too_small_for_the_sums_is_not_taken(dtype: str) -> None:
    white = np.full((9, 9, 1), np.iinfo(dtype).max, dtype)
    for weight in (1, 2**6, 2**7, 2**14, 2**15, 2**23, 2**24, 2**37, 2.0**60, 3.0**40):
        for weights in ([[weight, -1, weight]], [[weight / 2, 0.5], [0.25, 0]]):
            assert_held(white, make("kernel", weights=weights))


def test_the_network_finds_the_middle_of_all_orders() -> None:
    """What sorts all zeros and ones sorts everything: the zero-one principle."""
    for samples in product((0, 1), repeat=9):
        at: list[Any] = list(samples)
        for a, b in MEDIAN_OF_9:
            at[a], at[b] = min(at[a], at[b]), max(at[a], at[b])
        assert at[4] == sorted(samples)[4]


@pytest.mark.parametrize(
    ("value", "bound", "got", "suspected"),
    [
        (100.4, 0.0, 100, False),
        (100.4, 0.0, 101, True),
        (100.5, 0.0, 100, False),  # a tie goes to the even one
        (100.5, 1e-12, 100, True),  # or is none
        (100.5 - 1e-11, 1e-12, 100, False),
        (100.5 - 1e-12, 1e-11, 100, True),
        (100.5 + 1e-12, 1e-11, 101, True),
        (-3.5, 1e-3, 0, False),  # past the clamps nothing depends on the bound
        (300.5, 1e-3, 255, False),
        (254.5, 1e-3, 254, True),
        (100.0, 0.6, 100, True),
    ],
)
def test_what_a_bound_leaves_open_is_suspect(
    value: float, bound: float, got: int, suspected: bool
) -> None:
    values = Values(np.full((1, 1, 1), value), bound)
    assert suspect(np.full((1, 1, 1), got, np.uint8), values).all() == suspected


@pytest.mark.parametrize("power", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("taps", [1, 8, 112, 5000])
def test_no_weights_have_a_larger_mean(power: float, taps: int) -> None:
    for scale in np.linspace(0.1, 20, 60):
        for x in (random.exponential(scale, taps), np.full(taps, scale)):
            weights = np.exp(-x)
            assert (weights * x**power).sum() / (1 + weights.sum()) <= most(power, taps)


def test_floats_are_suspect_where_a_bound_reaches_the_next_one() -> None:
    middle = 1 + 2.0**-24  # between two neighbours
    for offset, bound, suspected in ((1e-12, 1e-13, False), (1e-13, 1e-12, True)):
        values = Values(np.full((1, 1, 1), middle - offset), bound)
        assert suspect(np.ones((1, 1, 1), np.float32), values).all() == suspected


def test_a_kernel_that_reaches_all_rows_reads_few_columns_of_them_at_a_time() -> None:
    pixels = random_pixels((600, 5000, 4), "uint8")
    proof = Proof(pixels, make("blur", sigma=100), Border(), False)
    tracemalloc.start()
    proof.rows(0, proof.step)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * pixels.nbytes  # in float64 all rows are eight images


@pytest.mark.parametrize("width", [1, 40, 5000])
@pytest.mark.parametrize(
    "filter", [make("invert"), make("threshold"), make("levels", gamma=2)], ids=lambda f: f.name
)
def test_the_definition_is_asked_for_many_samples_at_a_time(filter: Operation, width: int) -> None:
    """A picture of 70,000 rows of one pixel took 70,000 calls, and 10 s."""
    pixels = np.zeros((70_000, width, 1), np.uint8)
    proof = Proof(pixels, filter, Border(), False)
    assert 20_000 < proof.step * width < 200_000
