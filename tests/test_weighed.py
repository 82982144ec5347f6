"""What bilateral and denoise share as means of what is alike around."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

import test_bilateral
import test_denoise
from agreement import ALL_BORDERS, LAYOUTS, assert_agrees, random_pixels
from cudafilter.engines import Engine
from cudafilter.engines.cuda.variants import LADDER
from cudafilter.engines.cuda.variants.ladder import prepare
from cudafilter.errors import LimitError
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import DTYPES, full_scale
from test_bilateral import SHAPES, odd_pixels


class Kind(NamedTuple):
    """Some filters of a kind."""

    small: Operation
    usual: Operation
    large: Operation
    others: tuple[Operation, ...] = ()


KINDS = [
    Kind(test_bilateral.SMALL, test_bilateral.USUAL, test_bilateral.LARGE),
    Kind(test_denoise.SMALL, test_denoise.USUAL, test_denoise.LARGE, (test_denoise.POINTS,)),
]

pytestmark = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.small.name)


def test_what_is_not_finite_stays_and_reaches_nothing(kind: Kind) -> None:
    pixels = random_pixels((21, 23, 3), "float32")
    clean = reference.exact(pixels, kind.small)
    pixels[5, 6, 1] = np.nan
    pixels[2, 2] = np.inf
    got = reference.exact(pixels, kind.small)
    for y, x in ((5, 6), (2, 2)):
        assert got[y, x].astype(np.float32).tobytes() == pixels[y, x].tobytes()
    others = np.ones((21, 23), np.bool_)
    others[5, 6] = others[2, 2] = False
    assert np.isfinite(got[others]).all()
    assert np.array_equal(got[9:, 10:], clean[9:, 10:])


def test_a_flat_area_keeps_every_bit(kind: Kind, cpu: Engine) -> None:
    for dtype in DTYPES:
        pixels = np.full((40, 50, 3), 0.3 * full_scale(dtype), dtype)
        assert cpu.run(pixels, kind.usual).pixels.tobytes() == pixels.tobytes()


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_cpu(
    kind: Kind, cpu: Engine, dtype: str, channels: int, alpha: bool, border: Border
) -> None:
    for shape in SHAPES:
        pixels = random_pixels((*shape, channels), dtype)
        for filter in (kind.small, kind.usual, *kind.others):
            assert_agrees(cpu, pixels, filter, border, alpha)
    assert_agrees(cpu, pixels[:, :40], kind.large, border, alpha)
    if dtype == "float32":
        for filter in (kind.small, kind.usual):
            assert_agrees(cpu, odd_pixels((25, 33, channels)), filter, border, alpha)


def test_it_has_one_variant(kind: Kind) -> None:
    name = kind.small.name
    for other in LADDER:
        if other != name:
            with pytest.raises(LimitError, match=f"and {name} is a {name}"):
                prepare(kind.small, 3, "uint8", Border(), False, other)
    assert prepare(kind.small, 3, "uint8", Border(), False, "auto").variant == name
    with pytest.raises(LimitError, match=f"{name} kernel runs a {name}, and blur is a corr"):
        prepare(make("blur"), 3, "uint8", Border(), False, name)
