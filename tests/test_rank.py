"""Ranks: the definition against SciPy and by hand, and every engine against the definition."""

from __future__ import annotations

import pickle
import shutil
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from agreement import ALL_BORDERS, LAYOUTS, assert_agrees, random_pixels
from cudafilter import api
from cudafilter.check import compare
from cudafilter.engines import Engine, ranks
from cudafilter.errors import ParameterError
from cudafilter.operations import rank as rank_module
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.pixels import DTYPES
from cudafilter.operations.rank import Rank, dilation, erosion, median
from cudafilter.operations.window import disk, square
from test_reference import SCIPY_MODES

SHAPES = [(1, 1), (1, 9), (8, 1), (2, 3), (33, 70)]
NINE = np.arange(1, 10, dtype=np.uint8).reshape(3, 3, 1)
SECOND = Rank("second", square(1), 1)
SMALL = [median(), erosion(square(1)), dilation(square(1)), SECOND]
LARGE = [
    median(2),
    median(5),
    erosion(square(3)),
    dilation(square(2)),
    Rank("a quarter", square(2), 6),
]

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("shape", SHAPES[:-1])
def test_equals_scipy(border: Border, shape: tuple[int, int]) -> None:
    pixels = random_pixels((*shape, 2), "float32")
    mode: Any = SCIPY_MODES[border.mode]
    outside = border.sample(np.float32)
    for rank in SMALL + LARGE:
        ours = reference.exact(pixels, rank, border)
        for c in range(2):
            theirs = ndimage.rank_filter(
                pixels[..., c].astype(np.float64), rank.rank, rank.window.shape, mode=mode,
                cval=outside,
            )  # fmt: skip
            assert np.array_equal(ours[..., c], theirs), rank


@pytest.mark.parametrize(
    ("mode", "corner", "middle"),
    [
        ("edge", 2, 5),  # 1 1 2; 1 1 2; 4 4 5
        ("symmetric", 2, 5),
        ("reflect", 4, 5),  # 5 4 5; 2 1 2; 5 4 5
        ("wrap", 5, 5),  # all nine
        ("constant", 0, 5),  # five zeros, 1 2; 4 5
    ],
)
def test_medians_by_hand(mode: str, corner: int, middle: int) -> None:
    result = reference.apply(NINE, median(), Border(mode))
    assert (result[0, 0, 0], result[1, 1, 0]) == (corner, middle)


def test_least_and_largest_by_hand() -> None:
    least, largest = erosion(square(1)), dilation(square(1))
    assert reference.apply(NINE, least).ravel().tolist() == [1, 1, 2, 1, 1, 2, 4, 4, 5]
    assert reference.apply(NINE, largest).ravel().tolist() == [
        5,
        6,
        6,
        8,
        9,
        9,
        8,
        9,
        9,
    ]
    ones = Border("constant", 1.0)
    assert reference.apply(NINE, largest, ones).ravel().tolist() == [255] * 4 + [9] + [255] * 4


def test_nan_sorts_last() -> None:
    pixels = np.arange(1, 10, dtype=np.float32).reshape(3, 3, 1)
    pixels.ravel()[[0, 2, 6, 8]] = np.nan
    assert reference.exact(pixels, median())[1, 1, 0] == 8  # 2 4 5 6 8 and four NaN
    assert reference.exact(pixels, erosion(square(1)))[1, 1, 0] == 2
    assert np.isnan(reference.exact(pixels, dilation(square(1)))[1, 1, 0])
    pixels[1, 1] = np.nan
    assert np.isnan(reference.exact(pixels, median())[1, 1, 0])  # 2 4 6 8 and five


def test_alpha_is_a_channel_like_the_others() -> None:
    pixels = random_pixels((9, 9, 4), "uint8")
    both = [reference.exact(pixels, median(), alpha=alpha).tobytes() for alpha in (False, True)]
    assert both[0] == both[1]


def test_a_sample_that_is_off_by_one_is_found() -> None:
    pixels = random_pixels((12, 9, 1), "uint16")
    right = reference.apply(pixels, median())
    assert compare(right, pixels, median()).ok
    right[5, 7] ^= 1
    agreement = compare(right, pixels, median())
    assert (agreement.violations, agreement.worst) == (1, (7, 5, 0))


def test_memory_of_windows_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = random_pixels((23, 31, 3), "uint8")
    whole = reference.exact(pixels, Rank("any", square(3), 11))
    monkeypatch.setattr(rank_module, "WINDOW_BYTES", 50_000)  # some columns of one row
    assert reference.exact(pixels, Rank("any", square(3), 11)).tobytes() == whole.tobytes()


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_cpu(cpu: Engine, dtype: str, channels: int, alpha: bool, border: Border) -> None:
    for shape in SHAPES:
        pixels = random_pixels((*shape, channels), dtype)
        for rank in SMALL + LARGE:
            assert_agrees(cpu, pixels, rank, border, alpha)


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_the_cpu_by_bands(cpu: Engine, border: Border, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cudafilter.engines.ranks.BAND_BYTES", 1)
    for rank in (median(), median(9), dilation(square(2)), SECOND):
        assert_agrees(cpu, random_pixels((67, 13, 3), "uint8"), rank, border)


def odd_pixels(shape: tuple[int, int, int]) -> np.ndarray:
    """Floats of both signs, many of them NaN or infinite."""
    random = np.random.default_rng(3)
    pixels = random.standard_normal(shape).astype(np.float32)
    for value in (np.nan, np.inf, -np.inf, -np.nan, 0.0, -0.0):
        pixels[random.random(shape) < 0.12] = value
    return pixels


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_floats_that_are_not_finite(cpu: Engine, border: Border) -> None:
    for rank in SMALL + LARGE:
        assert_agrees(cpu, odd_pixels((30, 21, 2)), rank, border)


def test_nan_of_the_other_end_is_seen(cpu: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cudafilter.engines.ranks.BAND_BYTES", 1)
    pixels = random_pixels((70, 23, 1), "float32")
    pixels[-2:, 5:9] = np.nan  # in the windows of the first band, and not in its rows
    for rank in (median(), erosion(disk(2)), dilation(square(1))):
        assert_agrees(cpu, pixels, rank, Border("wrap"))


def test_the_api_takes_a_rank() -> None:
    pixels = random_pixels((9, 8, 1), "uint8")[..., 0]
    expected = reference.apply(pixels[..., None], median(), Border("wrap"))[..., 0]
    got = api.apply(pixels, median(), border="wrap", engine="cpu")
    assert np.array_equal(got, expected)


def test_a_window_of_one_is_the_image(cpu: Engine) -> None:
    pixels = odd_pixels((5, 6, 2))
    assert cpu.run(pixels, median(0)).pixels.tobytes() == pixels.tobytes()
    assert compare(pixels, pixels, median(0)).differing == 0


def test_ranks_are_values() -> None:
    assert median(2) == median(2) != median(3)
    assert (
        len({median(), erosion(square(1)), dilation(square(1)), Rank("median", square(1), 4)}) == 3
    )
    assert pickle.loads(pickle.dumps(median(3))) == median(3)


@pytest.mark.parametrize(("radius", "rank", "name"), [(-1, 0, "radius"), (5000, 0, "radius"),
                                                      (1, 9, "rank"), (1, -1, "rank")])  # fmt: skip
def test_what_makes_no_sense_is_refused(radius: int, rank: int, name: str) -> None:
    with pytest.raises(ParameterError) as refused:
        Rank("any", square(radius), rank)
    assert refused.value.parameter == name


@pytest.mark.parametrize(
    ("rank", "dtype", "size", "bands"),
    [
        (median(3), "uint8", (1000, 500), 4),  # one for each core
        (median(1), "uint8", (1000, 500), 1),  # done before a thread starts
        (erosion(square(9)), "uint8", (1000, 500), 1),
        (erosion(disk(9)), "uint16", (1000, 500), 4),
        (median(3), "uint8", (100, 500), 1),  # too few
        (median(90), "uint8", (500, 500), 2),  # of a smaller part, most would be halo
        (median(3), "uint8", (5000, 1000), 4),  # two of 4 MB, and one for each core
        (median(3), "uint8", (9000, 2000), 8),  # two rounds
        (median(3), "float32", (1000, 500), 1),  # the same bands however many cores there are
    ],
)
def test_bands_are_even_where_they_take_long(
    rank: Rank, dtype: str, size: tuple[int, int], bands: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut: list[Any] = []
    monkeypatch.setattr(ranks, "each", lambda work, items, threads: cut.extend(items))
    ranks.rank_of(np.zeros((*size, 1), dtype), rank, Border(), 4)
    assert max(1, len(cut)) == bands  # one is the result itself
