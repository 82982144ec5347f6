"""The CPU's medians of wide windows, which are made of medians of bytes: held to the definition."""

from __future__ import annotations

import numpy as np
import pytest

from agreement import ALL_BORDERS, assert_agrees, random_pixels
from cudafilter.engines import Engine
from cudafilter.engines import medians as medians_module
from cudafilter.engines.medians import medians
from cudafilter.operations.borders import Border
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.rank import median, percentile, ranked


def assert_defined(block: Pixels, side: int) -> None:
    got, expected = medians(block, side), ranked(block, median(side // 2))
    assert got.dtype == block.dtype
    assert np.array_equal(got, expected, equal_nan=block.dtype.kind == "f")


@pytest.mark.parametrize("shape", [(7, 7, 1), (8, 30, 2), (95, 71, 3)])
@pytest.mark.parametrize("levels", [1, 2, 256, 257, 65536])
def test_of_few_levels_and_of_many(levels: int, shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(levels).integers(0, levels, shape)
    for dtype in ("uint16", "float32", "float64"):
        assert_defined(pixels.astype(dtype), 7)


def test_of_slopes_and_edges() -> None:
    # Windows whose medians are far apart, and all the levels that a tile may have.
    y, x = np.ogrid[:90, :100]
    slope = (y * 700 + x * 7).astype(np.uint16)[..., None]
    assert_defined(slope, 13)
    assert_defined(np.where(slope > 30000, slope, slope // 256).astype(np.uint16), 13)


def test_of_more_samples_than_16_bits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medians_module, "LEAST_TILE", 300)
    pixels = np.random.default_rng(0).permutation(300 * 300).astype(np.float32)
    assert_defined(pixels.reshape(300, 300, 1), 7)


def test_nan_sorts_last_and_infinity_before_it() -> None:
    random = np.random.default_rng(3)
    pixels = random.standard_normal((80, 70, 1)).astype(np.float32)
    for value in (np.nan, np.inf, -np.inf, -np.nan, 0.0, -0.0):
        pixels[random.random(pixels.shape) < 0.13] = value
    pixels[:40, :40][random.random((40, 40, 1)) < 0.4] = np.nan  # where it is the median
    assert_defined(pixels, 9)
    assert np.isnan(medians(pixels, 9)).any()


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_by_the_engine(
    cpu: Engine, dtype: str, border: Border, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cudafilter.engines.ranks.BAND_BYTES", 1)
    for filter in (median(10), median(20), percentile(10, 50)):
        assert_agrees(cpu, random_pixels((67, 13, 3), dtype), filter, border)


def test_of_windows_too_large_for_it(cpu: Engine) -> None:
    assert_agrees(cpu, random_pixels((3, 5, 1), "uint16"), median(128))
