"""Edges by Canny: the same on every engine, and nearly those of other programs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from agreement import ALL_BORDERS, LAYOUTS, assert_agrees, random_pixels
from cudafilter.check import compare
from cudafilter.engines import Engine
from cudafilter.engines import canny as tiles
from cudafilter.errors import ParameterError
from cudafilter.images import load
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.canny import UNIT, Canny
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import DTYPES, Pixels, full_scale
from test_point import KINDS, chain, opened

SAMPLES = Path(__file__).parents[1] / "samples"
SHARP = make("canny", sigma=0, low=0.5, high=3)
CANNIES = [make("canny"), SHARP, make("canny", sigma=2.3, low=0.05, high=0.3)]
CHAINS = [chain(make("median"), make("canny"), make("dilate")), chain(SHARP, make("blur", sigma=1))]


def found(rows: list[str], operation: Operation = SHARP, border: Border = Border()) -> list[str]:
    """Edges as ``#`` in a picture of ``.``, black, and ``o``, white, and digits between."""
    values = {".": 0, "o": 255, **{str(n): 28 * n for n in range(10)}}
    pixels = np.array([[values[letter] for letter in row] for row in rows], np.uint8)
    edges = reference.apply(pixels[..., None], operation, border)[..., 0]
    return ["".join(".#"[value // 255] for value in row) for row in edges.tolist()]


def test_a_step_is_one_line_before_it() -> None:
    # Both pixels beside the step have the same gradient: the first one counts.
    assert found(["...ooo"] * 4) == ["..#..."] * 4
    down = ["....", "....", "oooo", "oooo"]
    assert found(down) == ["....", "####", "....", "...."]


def test_a_line_has_two_edges() -> None:
    assert found(["...o..."] * 3) == ["..#.#.."] * 3


def test_a_slanted_step_is_a_stair() -> None:
    edges = found(["oooooooo", ".ooooooo", "..oooooo", "...ooooo", "....oooo", ".....ooo"])
    assert edges[1:-1] == ["##......", ".##.....", "..##....", "...##..."]


def test_weak_edges_are_followed_from_strong_ones_only() -> None:
    # Steps of 255 and of 84, which are gradients of 4 and of 1.3 times full scale.
    picture = ["...ooo", "...ooo", "...333", "...333", "...333"]
    weak, strong = make("canny", sigma=0, low=1, high=3), make("canny", sigma=0, low=3, high=3)
    assert found(picture, strong) == ["..#...", "...#..", "......", "......", "......"]
    assert found(picture, weak) == ["..#...", "...###", "...#..", "..#...", "..#..."]
    alone = ["...333"] * 4
    assert found(alone, weak) == ["......"] * 4
    assert found(alone, make("canny", sigma=0, low=1, high=1)) == ["..#..."] * 4


def test_corners_touch() -> None:
    pixels = np.zeros((3, 4), np.bool_)
    pixels[[0, 1, 2], [0, 1, 2]] = True
    from cudafilter.operations.canny import _followed

    strong = np.zeros_like(pixels)
    strong[2, 2] = True
    assert np.array_equal(_followed(pixels, strong), pixels)


def test_the_border_goes_around_the_image() -> None:
    assert found(["oooo"] * 3) == ["...."] * 3
    assert found(["oooo"] * 3, border=Border("constant")) == ["####", "#..#", "####"]
    assert found(["...ooo"] * 2, border=Border("wrap")) == ["#.#..#"] * 2  # white lies left of it


def test_flat_images_have_no_edge_however_low_the_threshold() -> None:
    assert found(["3333"] * 3, make("canny", low=0, high=0)) == ["...."] * 3


def test_alpha_is_kept_and_channels_are_apart() -> None:
    pixels = np.zeros((4, 6, 2), np.uint8)
    pixels[:, 3:, 0], pixels[2:, :, 1] = 255, 255
    both = reference.apply(pixels, SHARP)
    assert (both[..., 0] == [0, 0, 255, 0, 0, 0]).all()
    assert (both[..., 1].T == [0, 255, 0, 0]).all()
    assert np.array_equal(reference.apply(pixels, SHARP, alpha=True)[..., 1], pixels[..., 1])


@pytest.mark.parametrize("sigma", [0, 0.1, 1, 2.3, 50, 100])
def test_weights_are_whole_and_a_gaussian(sigma: float) -> None:
    weights = np.array(Canny(sigma).weights)
    assert weights.sum() == UNIT
    assert (weights == weights[::-1]).all()
    assert (np.diff(weights[: len(weights) // 2]) >= 0).all()
    if sigma >= 1:
        variance = (weights * (np.arange(len(weights)) - len(weights) // 2) ** 2).sum() / UNIT
        assert variance == pytest.approx(sigma**2, rel=0.04)


@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_engines_agree(kind: str, dtype: str, channels: int, alpha: bool, built: Path) -> None:
    engine = opened(kind, built)
    for shape in [(1, 1), (1, 9), (8, 2), (33, 41)] + [(131, 300)] * (kind != "host"):
        pixels = smooth((*shape, channels), dtype)
        if dtype == "float32" and shape[0] > 9:
            pixels[3:5, 7] = np.nan
            pixels[9, 9], pixels[9, 10], pixels[9, 11] = np.inf, -np.inf, 9
        for border in ALL_BORDERS:
            for canny in CANNIES:
                assert_agrees(engine, pixels, canny, border, alpha)
        for chained in CHAINS:
            assert_agrees(engine, pixels, chained, alpha=alpha)
    engine.close()


@pytest.mark.parametrize("sides", [(1, 3), (64, 16)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tiles_of_the_cpu_engine_fit_together(
    dtype: str, sides: tuple[int, int], cpu: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "ROWS", sides[0])
    monkeypatch.setattr(tiles, "COLUMNS", sides[1])
    ties = np.where(smooth((33, 41, 3), dtype) > full_scale(dtype) / 2, full_scale(dtype), 0)
    for pixels in (smooth((33, 41, 3), dtype), ties.astype(dtype), ties.astype(dtype)[:, :1]):
        for border in ALL_BORDERS:
            for canny in (*CANNIES, make("canny", sigma=30, low=0, high=0.001)):
                assert_agrees(cpu, pixels, canny, border)


def test_halves_of_a_level_round_up_on_the_cpu() -> None:
    for first, expected in ((32767, 0), (32768, 1)):
        levels = np.array([first, 0, 0], np.uint32)
        assert tiles._blurred(levels, (1, UNIT - 2, 1), 1) == expected


def smooth(shape: tuple[int, int, int], dtype: str) -> Pixels:
    """Noise that is blurred a little: it has edges of many lengths."""
    return reference.apply(random_pixels(shape, dtype), make("blur", sigma=0.8))


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_thread_is_followed_to_its_end(kind: str, built: Path) -> None:
    # A spiral that is weak all along, but for one pixel at its inner end.
    pixels = np.zeros((61, 61, 1), np.uint8)
    y, x, way = 30, 30, 0
    for length in range(4, 58, 4):
        for _ in range(2):
            dy, dx = ((0, 1), (1, 0), (0, -1), (-1, 0))[way % 4]
            for _ in range(length):
                y, x = y + dy, x + dx
                if 0 <= y < 61 and 0 <= x < 61:
                    pixels[y, x] = 60
            way += 1
    pixels[30, 30:34] = 255
    engine = opened(kind, built)
    canny = make("canny", sigma=0, low=0.1, high=2)
    assert_agrees(engine, pixels, canny)
    edges = engine.run(pixels, canny).pixels
    assert (edges > 0).sum() > 1000
    engine.close()


def test_types_have_the_same_edges() -> None:
    pixels = smooth((40, 50, 1), "uint8")
    edges = reference.apply(pixels, CANNIES[0]) > 0
    assert edges.any()
    wide = pixels.astype(np.uint16) * 257
    assert np.array_equal(reference.apply(wide, CANNIES[0]) > 0, edges)
    floats = (pixels / 255).astype(np.float32)
    assert np.array_equal(reference.apply(floats, CANNIES[0]) > 0, edges)


def test_one_wrong_pixel_is_found(cpu: Engine) -> None:
    pixels = smooth((40, 50, 3), "uint8")
    result = cpu.run(pixels, CANNIES[0]).pixels
    assert compare(result, pixels, CANNIES[0]).unproven == 0
    for place in ((0, 0, 0), (20, 30, 1)):
        wrong = result.copy()
        wrong[place] = 255 - wrong[place]
        assert not compare(wrong, pixels, CANNIES[0]).ok
        assert not compare(np.where(result, 254, 0).astype("u1"), pixels, CANNIES[0]).ok


def grays() -> list[Pixels]:
    """The samples that show something, as 8-bit gray, (H, W)."""
    pictures = [load(SAMPLES / name).pixels for name in ("chart.png", "depth16.png", "odd.png")]
    return [
        np.rint(p[..., :3].mean(axis=2) / full_scale(p.dtype) * 255).astype(np.uint8)
        for p in pictures
    ]


def agreeing(ours: Pixels, theirs: Pixels) -> float:
    """The share of edge pixels of each that the other has within one pixel: the smaller one."""
    near = [
        cv2.dilate(edges.astype(np.uint8), np.ones((3, 3), np.uint8)) for edges in (ours, theirs)
    ]
    return min(
        float(near[1][ours > 0].mean()) if ours.any() else 1.0,
        float(near[0][theirs > 0].mean()) if theirs.any() else 1.0,
    )  # fmt: skip


def test_edges_are_nearly_those_of_opencv() -> None:
    for picture in grays():
        for sigma in (0, 1.5):
            blurred = cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture
            low, high = 0.401, 0.801
            theirs = cv2.Canny(blurred, low * 255, high * 255, L2gradient=True)
            canny = make("canny", sigma=0, low=low, high=high)
            ours = reference.apply(blurred[..., None], canny)[..., 0]
            assert agreeing(ours, theirs) > 0.995
            assert (ours != theirs).mean() < 0.001


def test_edges_are_nearly_those_of_scikit_image() -> None:
    feature = pytest.importorskip("skimage.feature", reason="scikit-image is not installed")
    for picture in grays():
        for sigma in (1, 2):
            theirs = feature.canny(
                picture / 255, sigma, low_threshold=0.4, high_threshold=0.8, mode="nearest"
            )
            canny = make("canny", sigma=sigma, low=0.4, high=0.8)
            ours = reference.apply(picture[..., None], canny)[..., 0]
            assert agreeing(ours, theirs.astype(np.uint8)) > 0.98


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ParameterError, match="at most high, which is 0"):
        make("canny", low=0.3)
    with pytest.raises(ParameterError, match="canny cannot follow blur"):
        Chain((Link(make("blur")), Link(make("canny"))))
