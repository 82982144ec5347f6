"""Operations are data: equal by value, picklable, and the reference takes them by rows."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from agreement import ALL_BORDERS, random_pixels
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation

FILTERS = [
    make(name)
    for name, spec in CATALOGUE.items()
    if not any(parameter.required for parameter in spec.parameters)
] + [make("kernel", weights=[[1, 2, 0], [3, 4, 5]], flip=True)]


@pytest.mark.parametrize("filter", FILTERS, ids=lambda filter: filter.name)
def test_a_filter_travels(filter: Operation) -> None:
    kernels = filter.kernels if isinstance(filter, Correlation) else ()
    for kernel in kernels:  # what was found out on the way does not travel
        assert kernel.factors is None or kernel.weights.shape == kernel.shape
    arrived = pickle.loads(pickle.dumps(filter))
    assert arrived == filter
    assert hash(arrived) == hash(filter)
    pixels = random_pixels((9, 8, 3), "float32")
    expected = reference.exact(pixels, filter)
    assert reference.exact(pixels, arrived).tobytes() == expected.tobytes()
    for kernel in arrived.kernels if kernels else ():
        with pytest.raises(ValueError, match="read-only"):
            kernel.weights[0] = 1


def test_filters_made_alike_are_equal_and_others_are_not() -> None:
    assert make("blur", sigma=2) == make("blur", sigma=2)
    others = {
        make("blur", sigma=2), make("blur", sigma=2.5), make("blur", sigma=2, radius=9),
        make("box"), make("sobel"), make("sobel", scale=2), make("unsharp", sigma=2),
        make("blur", sigma=2),
    }  # fmt: skip
    assert len(others) == 7


def test_kernels_differ_by_shape_anchor_and_every_bit() -> None:
    kernel = Kernel([[1.0, 2.0, 3.0]])
    assert kernel == Kernel(np.array([[1, 2, 3]]))
    assert kernel != Kernel([[1.0], [2.0], [3.0]])
    assert kernel != Kernel([[1.0, 2.0, 3.0]], anchor=(0, 0))
    assert kernel != Kernel([[1.0, 2.0, np.nextafter(3.0, 4.0)]])


def test_a_kernel_of_factors_is_none_of_weights() -> None:
    # Their sums differ in the last bits, and what is kept for one must not serve the other.
    column, row = [1.0, 2.0], [3.0, 0.1]
    outer, dense = Kernel.outer(column, row), Kernel(np.outer(column, row))
    assert np.array_equal(outer.weights, dense.weights)
    assert outer != dense
    assert outer == Kernel.outer(column, row)
    assert pickle.loads(pickle.dumps(outer)) == outer


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("height", [1, 2, 7])
def test_the_reference_by_rows_is_the_reference(border: Border, height: int) -> None:
    pixels = random_pixels((height, 5, 2), "uint8")
    for filter in (make("blur", sigma=3), make("kernel", weights=[[1, 2, 4], [3, 1, 1]])):
        whole = reference.exact(pixels, filter, border)
        for first in range(height):
            rows = reference.exact(pixels, filter, border, rows=(first, height))
            assert rows.tobytes() == whole[first:].tobytes()


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "kernel"])
class TestTheHelpSays:
    def test_whether_alpha_is_kept(self, name: str) -> None:
        pixels = random_pixels((9, 11, 4), "uint8")
        done = reference.apply(pixels, make(name), Border(), alpha=True)
        kept = np.array_equal(done[..., 3], pixels[..., 3])
        text = CATALOGUE[name].description
        assert ("Alpha is kept" in text) == kept
        assert not (kept and "alpha too" in text)

    def test_whether_floats_are_clamped(self, name: str) -> None:
        """They never are."""
        text = CATALOGUE[name].description
        if "clamp" in text:
            assert "Integers are clamped" in text or "Floats are not clamped" in text
