"""The definition itself: against SciPy, hand-computed cases, and properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from agreement import ALL_BORDERS, random_pixels
from cudafilter.operations import reference
from cudafilter.operations.borders import Border, border_index, extract
from cudafilter.operations.choices import BORDERS
from cudafilter.operations.correlation import Correlation, correlate
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.make import make

SCIPY_MODES: dict[str, Any] = {
    "edge": "nearest", "reflect": "mirror", "symmetric": "reflect",
    "wrap": "wrap", "constant": "constant",
}  # fmt: skip


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 1), (13, 11), (40, 30)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 4), (5, 1), (1, 6), (9, 7), (31, 33)])
def test_equals_scipy(border: Border, shape: tuple[int, int], kernel: tuple[int, int]) -> None:
    weights = np.random.default_rng(0).standard_normal(kernel)
    pixels = random_pixels((*shape, 2), "float32")
    ours = reference.exact(pixels, Correlation("test", (Kernel(weights),)), border)
    for c in range(2):
        theirs = ndimage.correlate(
            pixels[..., c].astype(np.float64), weights, mode=SCIPY_MODES[border.mode],
            cval=border.sample(np.float32),
        )  # fmt: skip
        np.testing.assert_allclose(ours[..., c], theirs, rtol=0, atol=1e-12 * np.abs(weights).sum())


def test_separable_equals_dense() -> None:
    random = np.random.default_rng(1)
    column, row = random.standard_normal(9), random.standard_normal(6)
    padded = random.standard_normal((40, 50, 3))
    kernel, dense = Kernel(np.outer(column, row)), Kernel(np.outer(column, row))
    assert kernel.factors is not None
    dense.__dict__["factors"] = None
    np.testing.assert_allclose(
        correlate(padded, kernel),
        correlate(padded, dense),
        rtol=0, atol=1e-12,
    )  # fmt: skip


def column_of(filter: Correlation, values: list[int], border: str = "edge") -> list[int]:
    """One row of gray samples, filtered."""
    pixels = np.array(values, np.uint8).reshape(1, -1, 1)
    return reference.apply(pixels, filter, Border(border)).ravel().tolist()


def test_by_hand() -> None:
    # Correlation, not convolution: the right neighbour's weight is the last one.
    shift = make("kernel", weights=[[0, 0, 1]])
    assert column_of(shift, [1, 2, 3]) == [2, 3, 3]
    assert column_of(make("kernel", weights=[[0, 0, 1]], flip=True), [1, 2, 3]) == [1, 1, 2]
    # An even kernel is anchored right of its middle: (w0, w1) sits on (x-1, x).
    assert column_of(make("kernel", weights=[[1, 0]]), [1, 2, 3]) == [1, 1, 2]
    # Halves round to even: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2.
    assert column_of(make("kernel", weights=[[0.5]]), [1, 3, 5]) == [0, 2, 2]
    # Out of range clamps.
    assert column_of(make("kernel", weights=[[-1]]), [0, 9]) == [0, 0]
    assert column_of(make("kernel", weights=[[2]]), [127, 128, 255]) == [254, 255, 255]
    # sharpen at 1 is 0 -1 0; -1 5 -1; 0 -1 0: 5*4 - (3 + 4) - (4 + 4) = 5 on the row 3 4 4.
    assert column_of(make("sharpen"), [3, 4, 4]) == [2, 5, 4]
    # emboss of a flat image is mid-gray: 127.5 rounds to 128.
    assert column_of(make("emboss"), [7, 7]) == [128, 128]
    # sobel of a step of 10: 4 * 10 on both sides of it.
    assert column_of(make("sobel"), [0, 0, 10, 10]) == [0, 40, 40, 0]
    # unsharp's threshold takes its share of every change.
    pixels = np.array([[0.0, 1.0]], np.float32)[..., None]
    change = reference.exact(pixels, make("unsharp", sigma=1, amount=1)) - pixels
    shrunk = reference.exact(pixels, make("unsharp", sigma=1, amount=1, threshold=0.1)) - pixels
    np.testing.assert_allclose(shrunk, change - 0.1 * np.sign(change))


def test_alpha_by_hand() -> None:
    # (colour, alpha): a mean of an opaque 200 and a transparent 0 is a half-opaque 200.
    pixels = np.array([[[200, 255], [0, 0]]], np.uint8)
    mean = make("kernel", weights=[[0.5, 0.5]])
    assert reference.apply(pixels, mean, alpha=True).tolist() == [[[200, 255], [200, 128]]]
    # Kept alpha: a transparent neighbour counts as the pixel's own colour.
    right = make("kernel", weights=[[0, -1, 2]])
    assert reference.apply(pixels, right, alpha=True).tolist() == [[[200, 255], [0, 0]]]


@pytest.mark.parametrize("mode", BORDERS)
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_border_index_is_numpy_pad(mode: Any, n: int) -> None:
    values = np.arange(n)
    if mode == "constant":
        expected = np.pad(values, 25, constant_values=-1)
    else:
        expected = np.pad(values, 25, mode=mode)
    assert border_index(-25, n + 25, n, mode).tolist() == expected.tolist()


@given(
    st.sampled_from(ALL_BORDERS), st.integers(1, 6), st.integers(1, 6),
    st.tuples(st.integers(-15, 15), st.integers(0, 15)),
    st.tuples(st.integers(-15, 15), st.integers(0, 15)),
)  # fmt: skip
def test_extract_is_a_window_of_the_padded_image(
    border: Border, height: int, width: int, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    pixels = random_pixels((height, width, 2), "uint8")
    widths = ((40, 40), (40, 40), (0, 0))
    if border.mode == "constant":
        padded = np.pad(pixels, widths, constant_values=border.sample(np.uint8))
    else:
        mode: Any = border.mode
        padded = np.pad(pixels, widths, mode=mode)
    (y, h), (x, w) = rows, columns
    block = extract(pixels, (y, y + h), (x, x + w), border)
    assert np.array_equal(block, padded[40 + y : 40 + y + h, 40 + x : 40 + x + w])


images = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3)),
    elements=st.floats(0, 1, width=32),
)  # fmt: skip
kernels = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.floats(-2, 2)
).map(Kernel)


@given(images, kernels, st.sampled_from(ALL_BORDERS[:-1]), st.floats(-3, 3))
@settings(max_examples=60)
def test_linear(pixels: np.ndarray, kernel: Kernel, border: Border, factor: float) -> None:
    filter = Correlation("test", (kernel,))
    other = pixels[::-1, ::-1]
    together = reference.exact(
        (pixels + np.float32(factor) * other).astype(np.float32), filter, border
    )
    apart = reference.exact(pixels, filter, border) + float(np.float32(factor)) * reference.exact(
        np.ascontiguousarray(other), filter, border
    )
    np.testing.assert_allclose(together, apart, atol=1e-5 * (1 + kernel.magnitude))


@given(images, kernels, st.integers(0, 11), st.integers(0, 11))
@settings(max_examples=60)
def test_shift_under_wrap(pixels: np.ndarray, kernel: Kernel, dy: int, dx: int) -> None:
    filter, wrap = Correlation("test", (kernel,)), Border("wrap")
    shifted = reference.exact(np.roll(pixels, (dy, dx), (0, 1)), filter, wrap)
    expected = np.roll(reference.exact(pixels, filter, wrap), (dy, dx), (0, 1))
    np.testing.assert_allclose(shifted, expected, atol=1e-12)


@given(st.integers(0, 255), st.sampled_from(ALL_BORDERS[:-1]))
@settings(max_examples=30)
def test_flat_images_stay_flat(value: int, border: Border) -> None:
    flat = np.full((6, 7, 3), value, np.uint8)
    for filter in (
        make("blur"), make("box"), make("sharpen"), make("unsharp"),
        make("kernel", weights=[[1, 2], [3, 5]], normalize=True),
    ):  # fmt: skip
        assert (reference.apply(flat, filter, border) == value).all(), filter.name
    for name in ("sobel", "scharr", "prewitt", "laplacian"):
        assert (reference.apply(flat, make(name), border) == 0).all(), name
