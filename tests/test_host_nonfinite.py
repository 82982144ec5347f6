"""Floats that are not finite, or nearly too large, in the CUDA kernels compiled for the CPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from agreement import assert_agrees
from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.make import make
from cudafilter.operations.pixels import Pixels
from test_host import HostEngine
from test_nonfinite import FILTERS, LARGEST, VALUES, dense, strewn

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")


def _sparse(rows: int, columns: int) -> Correlation:
    weights = np.zeros((rows, columns))
    weights[::4, ::2] = np.arange(1, weights[::4, ::2].size + 1).reshape(weights[::4, ::2].shape)
    return make("kernel", weights=weights, bias=0.1)


SMALL = [
    FILTERS[name] for name in ("blur", "sharpen", "unsharp with a threshold", "sobel", "two sizes")
]
SMALL += [make("kernel", weights=dense(5), normalize=True), _sparse(9, 9)]
LONG = [make("blur", sigma=1, radius=30), make("box", radius=20), make("unsharp", sigma=9)]
LONG += [FILTERS["gaps"]]
CASES = {
    "vanilla": SMALL,
    "constant": SMALL,
    "tiled": [*SMALL, make("box", radius=9)],
    "separable": [filter for filter in [*SMALL, *LONG] if filter.rank1],
    "stream": SMALL,
    "wide": [make("blur"), *LONG],
    "blocked": [_sparse(9, 9), make("kernel", weights=dense(21), normalize=True)],
}


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("variant", CASES)
def test_agrees_with_the_reference(variant: str, values: str, built: Path) -> None:
    engine = HostEngine(variant, built)
    beside = strewn((12, 20, 4), VALUES[values], 3)
    beside[:6, :, 3] = 1
    images: list[tuple[Pixels, bool]] = [
        (strewn((23, 30, 1), VALUES[values]), False),
        (strewn((1, 1, 1), VALUES[values]), False),
        (beside, True),
    ]
    for pixels, alpha in images:
        for filter in CASES[variant]:
            assert_agrees(engine, pixels, filter, Border(), alpha)


@pytest.mark.parametrize("variant", CASES)
def test_the_largest_floats_do_not_overflow(variant: str, built: Path) -> None:
    for value in (LARGEST, -LARGEST):
        pixels = np.full((20, 30, 1), value, np.float32)
        for filter in CASES[variant]:
            assert_agrees(HostEngine(variant, built), pixels, filter)


@pytest.mark.parametrize("variant", ["vanilla", "separable", "stream"])
@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e15, 1e30])
def test_gradients_of_any_size(variant: str, size: float, built: Path) -> None:
    pixels = np.zeros((5, 6, 1), np.float32)
    pixels[:, 3:] = size
    for name in ("sobel", "scharr", "prewitt"):
        result = HostEngine(variant, built).run(pixels, make(name)).pixels[:, :, 0]
        np.testing.assert_allclose(result / size, [[0, 0, 4, 4, 0, 0]] * 5, atol=1e-6)
