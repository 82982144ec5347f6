"""The kernels that find ranks, compiled for the CPU, against the definition."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from agreement import ALL_BORDERS, LAYOUTS, assert_agrees, random_pixels
from cudafilter.engines.cuda.variants import LADDER
from cudafilter.engines.cuda.variants.extreme import MOST_ROWS, joins
from cudafilter.engines.cuda.variants.histogram import MOST_ROWS as MOST_COUNTED
from cudafilter.engines.cuda.variants.histogram import most_warps
from cudafilter.engines.cuda.variants.ladder import prepare
from cudafilter.engines.cuda.variants.network import RADII
from cudafilter.engines.cuda.variants.rank import runs
from cudafilter.engines.cuda.variants.task import Task, row_pitch
from cudafilter.errors import LimitError
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.operations.pixels import DTYPES
from cudafilter.operations.rank import Rank, dilation, erosion, median, percentile
from cudafilter.operations.window import Window, cross, disk, masked, square
from test_host import LAYOUTS as KINDS
from test_host import HostEngine
from test_rank import odd_pixels

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")

RANKS = {
    "rank": [
        median(2),
        erosion(disk(4)),
        dilation(cross(2)),
        Rank("of a mask", masked(np.random.default_rng(0).random((5, 8)) < 0.4), 3),
        Rank("off its middle", Window((3, 7), (0, 6)), 4),
    ],
    "extreme": [
        dilation(square(1)),
        erosion(square(10)),
        erosion(Window((1, 9), (0, 8))),
        dilation(Window((6, 2), (5, 0))),
        dilation(Window((2, 130), (0, 100))),  # joined across
        erosion(Window((99, 3), (90, 1))),  # joined down
    ],
    "network": [median(1), median(2), median(3), percentile(1, 0)],
    "network, long columns": [median(4), percentile(5, 10)],
    "histogram": [
        median(1),
        median(7),
        percentile(10, 90),
        Rank("wide", Window((2, 60), (0, 59)), 7),  # of fewer warps
        Rank("tall", Window((201, 2), (100, 1)), 77),
    ],
}
SHAPES = [(1, 1), (3, 41), (37, 2), (23, 150)]


def host(name: str, built: Path, cut: int | None = None) -> HostEngine:
    return HostEngine(name.partition(",")[0], built, cut)


@pytest.mark.parametrize(("dtype", "channels", "alpha"), KINDS)
@pytest.mark.parametrize("name", [name for name in RANKS if name != "histogram"])
def test_kernels_agree_with_the_reference(
    name: str, dtype: str, channels: int, alpha: bool, built: Path
) -> None:
    engine = host(name, built)
    for shape in SHAPES:
        pixels = random_pixels((*shape, channels), dtype)
        for rank in RANKS[name]:
            for border in ALL_BORDERS:
                assert_agrees(engine, pixels, rank, border, alpha)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("rank", RANKS["histogram"], ids=lambda rank: str(rank.window.shape))
def test_histograms(rank: Rank, channels: int, built: Path) -> None:
    # Each output takes a barrier or ten, and a barrier here is a hundred switches of fibres.
    engine = host("histogram", built)
    for shape, border in zip([(1, 1), (2, 41), (9, 2), (5, 90), (7, 30)], ALL_BORDERS, strict=True):
        pixels = random_pixels((*shape, channels), "uint8")
        pixels[:2] = 7
        assert_agrees(engine, pixels, rank, border)


def test_a_histogram_goes_down_many_rows(built: Path) -> None:
    pixels = random_pixels((130, 20, 1), "uint8")
    assert_agrees(host("histogram", built), pixels, median(6), Border("reflect"))


@pytest.mark.parametrize("name", [name for name in RANKS if name != "histogram"])
def test_floats_that_are_not_finite(name: str, built: Path) -> None:
    engine = host(name, built)
    for rank in RANKS[name]:
        for border in ALL_BORDERS:
            assert_agrees(engine, odd_pixels((30, 21, 3)), rank, border)


def test_every_rank_of_nine(built: Path) -> None:
    pixels = random_pixels((20, 37, 1), "uint8")
    for rank in range(9):
        assert_agrees(host("rank", built), pixels, Rank("any", square(1), rank))
        if rank % 2:
            assert_agrees(host("network", built), pixels, Rank("any", square(1), rank))


@pytest.mark.parametrize("name", RANKS)
def test_bands_have_the_same_bits(name: str, built: Path) -> None:
    pixels = random_pixels((50, 70, 3) if name != "histogram" else (15, 9, 1), "uint8")
    if name == "rank":
        pixels = odd_pixels((50, 70, 3))
    for rank in RANKS[name][:3]:
        for border in ALL_BORDERS[: 1 if name == "histogram" else None]:
            whole = host(name, built).run(pixels, rank, border).pixels
            bands = host(name, built, cut=7).run(pixels, rank, border).pixels
            assert whole.tobytes() == bands.tobytes(), (rank, border)


def test_a_window_larger_than_any_image(built: Path) -> None:
    pixels = random_pixels((5, 7, 1), "uint8")
    for border in ALL_BORDERS:
        assert_agrees(host("auto", built), pixels, erosion(square(300)), border)
        assert_agrees(host("auto", built), pixels, percentile(80, 75), border)


TAKEN = [
    (median(1), "uint8", "network"),
    (median(5), "float32", "network"),
    (percentile(2, 30), "uint16", "network"),
    (median(7), "uint8", "histogram"),
    (median(15), "uint8", "histogram"),
    (median(7), "uint16", "rank"),
    (median(300), "uint8", "rank"),
    (erosion(square(1)), "uint8", "extreme"),
    (dilation(square(500)), "float32", "extreme"),
    (percentile(4, 100), "uint16", "extreme"),
    (erosion(disk(5)), "uint8", "rank"),
    (Rank("a row", Window((1, 3), (0, 1)), 1), "uint8", "rank"),
]


@pytest.mark.parametrize(("rank", "dtype", "variant"), TAKEN)
def test_what_auto_takes(rank: Rank, dtype: str, variant: str) -> None:
    assert prepare(rank, 3, dtype, Border(), False, "auto").variant == variant


@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_rank_is_refused(dtype: str, channels: int, alpha: bool) -> None:
    for window in (square(1), square(40), square(400), disk(9), cross(30), Window((1, 2), (0, 1))):
        for rank in {0, window.count // 2, window.count - 1}:
            prepare(Rank("any", window, rank), channels, dtype, Border(), alpha, "auto")


def test_others_say_what_they_are_for() -> None:
    own = {"rank", "extreme", "network", "histogram"}
    for name in LADDER:
        if name not in own:
            with pytest.raises(LimitError, match=f"{name} kernel runs .*, and median is a rank"):
                prepare(median(), 3, "uint8", Border(), False, name)
        else:
            with pytest.raises(LimitError, match=f"{name} kernel runs a rank, and blur is a corr"):
                prepare(make("blur"), 3, "uint8", Border(), False, name)
    for rank, name, why in [
        (median(), "extreme", "a rectangle; median is another rank"),
        (erosion(disk(2)), "extreme", "a rectangle; erode is of a window with a mask"),
        (median(6), "network", "3x3 to 11x11; median's window is 13x13"),
        (erosion(disk(2)), "network", "erode's window is 5x5 with a mask"),
        (median(100), "histogram", "median's window is 201x201 and"),
    ]:
        with pytest.raises(LimitError, match=why):
            prepare(rank, 3, "uint8", Border(), False, name)
    with pytest.raises(LimitError, match="the samples are uint16"):
        prepare(median(7), 3, "uint16", Border(), False, "histogram")


def test_a_window_is_its_runs() -> None:
    mask = [[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert runs(masked(mask)).tolist() == [0, 1, 3, 0, 4, 5, 2, 0, 5, -1]
    assert runs(square(1)).tolist() == [0, 0, 3, 1, 0, 3, 2, 0, 3, -1]


@pytest.mark.parametrize("whole", [(1, 1), (2, 300), (41, 41), (99, 1), (8191, 8191)])
def test_joined_windows_leave_no_gap(whole: tuple[int, int]) -> None:
    rows, columns = min(whole[0], MOST_ROWS), min(whole[1], 30)
    for down, across in joins((rows, columns), whole):
        assert down <= rows
        assert across <= columns
        rows, columns = rows + down, columns + across
    assert (rows, columns) == whole


@pytest.mark.parametrize("radius", [3, 40, 200, 4000])
def test_images_between_launches_fit_into_their_memory(radius: int) -> None:
    for dtype, channels in (("uint8", 1), ("float32", 3)):
        ready = prepare(erosion(square(radius)), channels, dtype, Border(), False, "extreme")
        sizes = (70, 90), (50, 60)
        room = ready.scratch_bytes(*sizes, (0, 0), 8)
        steps = ready.place((1 << 40, 2 << 40, 0), *sizes, (0, 0), 8)
        tasks = [Task.from_buffer_copy(step.task) for step in steps]
        assert (room > 0) == (len(steps) > 1)
        for before, task in pairwise(tasks):
            assert task.source == before.out
            assert before.out != task.out
            pitch = row_pitch(before.width, channels * ready.itemsize)
            assert before.out + before.height * pitch <= room
            assert task.height + task.rows == before.height
            assert task.width + task.columns == before.width
        assert (tasks[-1].out, tasks[-1].height, tasks[-1].width) == (2 << 40, 50, 60)


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tiles_fit_into_shared_memory(dtype: str, channels: int, radius: int) -> None:
    # As network.cu lays them out. Here no compiler would say so.
    ready = prepare(median(radius), channels, dtype, Border(), False, "network")
    piece = 16 // ready.itemsize
    row = -radius % piece + ready.defines["TILE_WIDTH"] + 2 * radius
    row = -(-row // piece) * 16
    assert channels * (ready.defines["TILE_HEIGHT"] + 2 * radius) * row <= 48 << 10
    halves = 1 if dtype == "float32" else 2
    assert ready.defines["TILE_HEIGHT"] % (halves * ready.defines["DOWN"] * ready.warps) == 0


def test_counts_do_not_overflow() -> None:
    widest = max(columns for columns in range(1, 400) if most_warps(columns))
    assert MOST_COUNTED * widest < 1 << 16
    assert MOST_COUNTED < 1 << 8
    assert widest > 2 * max(RADII) + 1
    told = (Path(__file__).parents[1] / "docs" / "ladder.md").read_text(encoding="utf-8")
    assert f"{MOST_COUNTED} rows and {widest} columns" in told


@pytest.mark.gpu
@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gpu(dtype: str, channels: int, alpha: bool) -> None:
    from cudafilter.engines.cuda.engine import CudaEngine

    pieces = CudaEngine(memory_limit=250_000)
    for name, ranks in RANKS.items():
        if name == "histogram" and dtype != "uint8":
            continue
        whole = CudaEngine(variant=name.partition(",")[0])
        for shape in [*SHAPES, (131, 300)]:
            pixels = random_pixels((*shape, channels), dtype)
            if dtype == "float32":
                pixels[::3, ::5] = np.nan
            for border in ALL_BORDERS:
                for rank in ranks:
                    assert_agrees(whole, pixels, rank, border, alpha)
        assert_agrees(pieces, random_pixels((131, 300, channels), dtype), ranks[1])
        whole.close()
    pieces.close()
