"""Ranks under a shape: erosion, dilation, and what is made of the two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from agreement import ALL_BORDERS, LAYOUTS, assert_agrees, random_pixels
from cudafilter.engines.cpu import CpuEngine
from cudafilter.errors import ParameterError
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.difference import (
    Difference,
    blackhat,
    closing,
    opening,
    outline,
    tophat,
)
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import DTYPES, Pixels, full_scale
from cudafilter.operations.rank import Rank, dilation, erosion, median, percentile
from cudafilter.operations.window import Window, cross, disk, masked, square

HOOK = masked([[1, 1, 0], [0, 1, 0], [0, 0, 0]])
"""A shape that is not its own mirror image."""
WINDOWS = {
    "square": square(1), "large square": square(4), "disk": disk(3), "cross": cross(2),
    "hook": HOOK, "even": masked(np.ones((2, 4))), "dot": square(0),
}  # fmt: skip
MAKERS = (erosion, dilation, opening, closing, tophat, blackhat, outline)
SCIPY: dict[Any, Any] = {
    erosion: ndimage.grey_erosion, dilation: ndimage.grey_dilation,
    opening: ndimage.grey_opening, closing: ndimage.grey_closing,
    tophat: ndimage.white_tophat, blackhat: ndimage.black_tophat,
    outline: ndimage.morphological_gradient,
}  # fmt: skip


@pytest.fixture(scope="module")
def cpu() -> CpuEngine:
    return CpuEngine()


def gray(rows: list[list[int]]) -> Pixels:
    """*rows* of samples as a gray image."""
    return np.array(rows, np.uint8)[..., None]


def result(pixels: Pixels, operation: Operation) -> list[list[int]]:
    """What the reference makes of the gray image *pixels*, as rows of samples."""
    rows: list[list[int]] = reference.apply(pixels, operation)[..., 0].tolist()
    return rows


DOT = gray([[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 9, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])


def test_a_dot_grows_to_the_shape() -> None:
    assert result(DOT, dilation(cross(1))) == [
        [0, 0, 0, 0, 0],
        [0, 0, 9, 0, 0],
        [0, 9, 9, 9, 0],
        [0, 0, 9, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    assert result(DOT, dilation(HOOK)) == [
        [0, 0, 0, 0, 0],
        [0, 9, 9, 0, 0],
        [0, 0, 9, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_by_hand() -> None:
    step = gray([[1, 1, 7, 7, 7, 1, 9, 1]])
    row = masked([[1, 1, 1]])
    assert result(step, erosion(row)) == [[1, 1, 1, 7, 1, 1, 1, 1]]
    assert result(step, dilation(row)) == [[1, 7, 7, 7, 7, 9, 9, 9]]
    assert result(step, opening(row)) == [[1, 1, 7, 7, 7, 1, 1, 1]]
    assert result(step, closing(row)) == [[1, 1, 7, 7, 7, 7, 9, 9]]
    assert result(step, tophat(row)) == [[0, 0, 0, 0, 0, 0, 8, 0]]
    assert result(step, blackhat(row)) == [[0, 0, 0, 0, 0, 6, 0, 8]]
    assert result(step, outline(row)) == [[0, 6, 6, 0, 6, 8, 8, 8]]


def test_shapes_by_hand() -> None:
    assert disk(2).mask.astype(int).tolist() == [
        [0, 0, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
        [0, 1, 1, 1, 0],
        [0, 0, 1, 0, 0],
    ]
    assert disk(1) == cross(1)
    assert cross(2).count == 9
    assert masked(np.ones((5, 5))) == square(2)
    assert Window((2, 2), (1, 1), bytes([1, 1, 0, 1])) == HOOK
    assert HOOK.mirrored == Window((2, 2), (0, 0), bytes([1, 0, 1, 1]))
    assert masked([[0, 0, 0, 0, 1]]).reach == (0, 0, 0, 2)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("maker", MAKERS)
def test_equals_scipy(maker: Any, window: Window) -> None:
    pixels = random_pixels((23, 31, 1), "uint8").astype(np.float32)
    origin = [a - side // 2 for a, side in zip(window.anchor, window.shape, strict=True)]
    theirs = SCIPY[maker](
        pixels[..., 0].astype(np.float64), footprint=window.mask, origin=origin, mode="nearest"
    )
    assert np.array_equal(reference.exact(pixels, maker(window))[..., 0], theirs)


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_cpu_engine_is_exact(
    cpu: CpuEngine, dtype: str, channels: int, alpha: bool, border: Border
) -> None:
    for window in (disk(2), HOOK, square(1)):
        for maker in MAKERS:
            for shape in ((1, 1), (3, 40), (37, 5)):
                pixels = random_pixels((*shape, channels), dtype)
                got = cpu.run(pixels, maker(window), border, alpha).pixels
                expected = reference.apply(pixels, maker(window), border, alpha)
                assert np.array_equal(got, expected), (maker.__name__, window.shape, shape)


@pytest.mark.parametrize("maker", MAKERS)
def test_nan_comes_last(cpu: CpuEngine, maker: Any) -> None:
    pixels = random_pixels((20, 20, 3), "float32")
    pixels[5:8, 9] = np.nan
    assert_agrees(cpu, pixels, maker(disk(1)))


def test_erosion_and_dilation_are_dual(cpu: CpuEngine) -> None:
    pixels = random_pixels((40, 50, 3), "uint8")
    for window in WINDOWS.values():
        mirror = Rank("mirror", window.mirrored, 0)  # the dilation's own window
        dual = 255 - cpu.run(255 - pixels, mirror).pixels
        assert np.array_equal(cpu.run(pixels, dilation(window)).pixels, dual)


@pytest.mark.parametrize("maker", [opening, closing])
def test_what_is_opened_or_closed_stays_so(cpu: CpuEngine, maker: Any) -> None:
    pixels = random_pixels((60, 50, 1), "uint16")
    inner = np.s_[16:-16, 16:-16]  # where no border reaches
    for window in WINDOWS.values():
        once = cpu.run(pixels, maker(window)).pixels
        assert np.array_equal(cpu.run(once, maker(window)).pixels[inner], once[inner])


def test_opening_takes_away_and_closing_adds(cpu: CpuEngine) -> None:
    pixels = random_pixels((60, 50, 2), "uint8")
    opened = cpu.run(pixels, opening(square(2))).pixels
    closed = cpu.run(pixels, closing(square(2))).pixels
    assert (opened <= pixels).all()
    assert (closed >= pixels).all()
    assert np.array_equal(cpu.run(pixels, tophat(square(2))).pixels, pixels - opened)
    assert np.array_equal(cpu.run(pixels, blackhat(square(2))).pixels, closed - pixels)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_median_goes_with_every_monotone_map(cpu: CpuEngine, dtype: str) -> None:
    pixels = random_pixels((30, 40, 1), dtype)
    full = full_scale(dtype)

    def darker(samples: Pixels) -> Pixels:
        return np.asarray(full * (samples / full) ** 2).astype(dtype)

    for rank in (median(1), median(3), percentile(2, 30)):
        ours = cpu.run(darker(pixels), rank).pixels
        assert np.array_equal(ours, darker(cpu.run(pixels, rank).pixels))


@pytest.mark.parametrize(
    ("percent", "rank"), [(0, 0), (100, 8), (50, 4), (6.25, 0), (6.26, 1), (18.75, 1), (99, 8)]
)
def test_percents_are_ranks(percent: float, rank: int) -> None:
    assert percentile(1, percent).rank == rank


def test_alpha_is_ranked_along_and_differences_keep_it(cpu: CpuEngine) -> None:
    pixels = random_pixels((12, 9, 4), "uint8")
    eroded = cpu.run(pixels, erosion(square(1)), alpha=True).pixels
    plane = cpu.run(pixels[..., 3:].copy(), erosion(square(1))).pixels
    assert np.array_equal(eroded[..., 3:], plane)
    outlined = cpu.run(pixels, outline(square(1)), alpha=True).pixels
    assert np.array_equal(outlined[..., 3], pixels[..., 3])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_difference_within_a_chain(cpu: CpuEngine, dtype: str) -> None:
    below = Difference("below", None, median(2))  # negative in places, and not clamped
    chained = Chain((Link(make("blur", sigma=1)), Link(below), Link(make("box", radius=1))))
    assert chained.reach == (6, 6, 6, 6)
    for border in ALL_BORDERS:
        assert_agrees(cpu, random_pixels((30, 20, 3), dtype), chained, border)


def test_a_mask_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "hook.txt").write_text("1 1 0\n0 1 0\n0 0 0\n")
    assert make("erode", shape=str(tmp_path / "hook.txt")) == erosion(HOOK)
    assert make("dilate", shape="disk", radius=3) == dilation(disk(3))
    assert make("open") == opening(square(1))


@pytest.mark.parametrize(
    ("name", "parameters", "named"),
    [
        ("erode", {"shape": "circle"}, "shape"),
        ("erode", {"shape": "0 0; 0 0"}, "shape"),
        ("erode", {"shape": "1 1; 1 1", "radius": 2}, "radius"),
        ("median", {"radius": -1}, "radius"),
        ("percentile", {"rank": 101}, "rank"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(ParameterError) as refused:
        make(name, **parameters)
    assert refused.value.parameter == named
