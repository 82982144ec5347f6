"""What needs the whole image, as the check finds it by bands: with the definition's bits."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from agreement import ALL_BORDERS, LAYOUTS, random_pixels
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.canny import UNIT
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import DTYPES, Pixels, full_scale
from cudafilter.proof import edges, whole
from test_point import chain

OTSU = make("threshold", otsu=True)
CANNIES = {
    f"sigma {sigma}, {low} to {high}": make("canny", sigma=sigma, low=low, high=high)
    for sigma, low, high in (
        (1, 0.1, 0.2),
        (0, 0.3, 2),
        (0.3, 0, 0),
        (2.3, 0.05, 0.3),
        (20, 0, 0.01),
    )
}
OPERATIONS: dict[str, Operation] = {
    **CANNIES,
    "otsu": OTSU,
    "canny of otsu": chain(OTSU, make("canny", low=0.5, high=3)),
    "canny of a median": chain(make("median"), make("canny"), make("dilate"), make("threshold")),
    "otsu, eroded, twice": chain(OTSU, make("erode"), OTSU, make("blur")),
}


TILES = [10, 4000]
"""Samples of a band, and rows of a tile: many to an image, or one."""


def held(
    pixels: Pixels, operation: Operation, border: Border = Border(), alpha: bool = False
) -> Pixels:
    """*pixels* after *operation* by the definition; the check's way gives it, too."""
    expected = reference.exact(pixels, operation, border, alpha)
    for side in TILES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(edges, "ROWS", side)
            patch.setattr(edges, "COLUMNS", side // 2)
            patch.setattr(edges, "ROUNDS", side // 2000)
            patch.setattr(whole, "BAND_SAMPLES", side)
            image, rest = whole.begun(pixels, operation, border, alpha)
        found = reference.exact(image, rest, border, alpha)
        assert np.array_equal(found, expected, equal_nan=True), f"tiles of {side}"
    return image


def pictures(shape: tuple[int, int, int], dtype: str) -> list[Pixels]:
    """Noise, levels that tie, and ramps."""
    noise = random_pixels(shape, dtype)
    white = noise.dtype.type(full_scale(dtype))
    y, x = np.indices(shape[:2])
    ramps = np.repeat(((x // 3 + y // 2) % 9)[..., None], shape[2], 2) * (white / 9)
    return [noise, np.where(noise > white / 2, white, 0).astype(dtype), ramps.astype(dtype)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_it_is_the_definitions(name: str, channels: int, alpha: bool, dtype: str) -> None:
    for shape, (n, border) in product([(1, 1), (8, 2), (37, 23)], enumerate(ALL_BORDERS)):
        # Every border meets every picture, at one number of channels or another.
        picture = pictures((*shape, channels), dtype)[(n + channels) % 3]
        held(picture, OPERATIONS[name], border, alpha)


@pytest.mark.parametrize("name", OPERATIONS)
def test_floats_may_be_anything(name: str) -> None:
    pixels = random_pixels((40, 30, 2), "float32") * np.float32(3) - np.float32(1)
    pixels[3:5, 7], pixels[20:30, 10] = np.nan, 1e-40
    pixels[9, 9], pixels[9, 10], pixels[9, 11] = np.inf, -np.inf, 1e30
    held(pixels, OPERATIONS[name])


def test_edges_are_followed_through_all_bands() -> None:
    # Weak all along a line that winds from band to band, but for its one end.
    pixels = np.zeros((64, 64, 1), np.uint8)
    pixels[2:62, 4::8] = 60
    pixels[2, 4:12], pixels[2, 20:28], pixels[2, 36:44], pixels[2, 52:60] = 60, 60, 60, 60
    pixels[61, 12:20], pixels[61, 28:36], pixels[61, 44:52] = 60, 60, 60
    far = pixels.copy()
    far[61, 60] = 255
    canny = make("canny", sigma=0, low=0.1, high=2)
    assert not held(pixels, canny).any()
    assert (held(far, canny) > 0).sum() > 800


def test_levels_up_to_white_do_not_overflow() -> None:
    for dtype in DTYPES:
        white = np.full((20, 30, 1), full_scale(dtype), dtype)
        white[5:9, 7:] = 0
        for canny in (*CANNIES.values(), make("canny", sigma=100, low=0, high=0)):
            held(white, canny)


@pytest.mark.parametrize("axis", [0, 1])
def test_halves_of_a_level_round_up(axis: int) -> None:
    for first, expected in ((32767, 0), (32768, 1)):
        levels = np.array([first, 0, 0], np.uint32).reshape((3, 1) if axis == 0 else (1, 3))
        assert edges._blurred(levels, (1, UNIT - 2, 1), axis) == expected
