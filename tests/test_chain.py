"""Chains: links on what the link before them gives, one rounding at the end, on every engine."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agreement import ALL_BORDERS, LAYOUTS, assert_agrees, random_pixels, tolerance
from cudafilter import api
from cudafilter.check import compare
from cudafilter.engines import Engine
from cudafilter.engines.cuda.variants.ladder import prepare
from cudafilter.errors import LimitError, ParameterError
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make
from cudafilter.operations.operation import ROUNDING, Operation, stages_of
from cudafilter.operations.pixels import DTYPES, Pixels, full_scale
from cudafilter.operations.rank import dilation, erosion, median
from cudafilter.operations.window import square
from test_host import HostEngine

SHAPES = [(1, 1), (1, 9), (8, 2), (33, 41)]


def chain(*operations: Operation) -> Chain:
    """All of them with the border of the run."""
    return Chain(tuple(map(Link, operations)))


EDGES = chain(make("blur", sigma=1), make("sobel"))
CLEANED = chain(median(), make("unsharp", sigma=1, threshold=0.02))
OPENED = chain(erosion(square(1)), dilation(square(1)))
OWN_BORDERS = Chain(
    (
        Link(make("emboss"), Border("wrap")),
        Link(median(), Border("constant", 0.3)),
        Link(make("box", radius=2)),
    )
)
CHAINS = [EDGES, CLEANED, OPENED, OWN_BORDERS]


def weights(*rows: list[float]) -> Operation:
    """The correlation with these weights."""
    return make("kernel", weights=list(rows))


def row_of(operation: Operation, values: list[int], border: Border = Border()) -> list[int]:
    """One row of gray samples after *operation*."""
    pixels = np.array(values, np.uint8).reshape(1, -1, 1)
    return reference.apply(pixels, operation, border).ravel().tolist()


def test_nothing_is_rounded_or_clamped_between_links() -> None:
    mean = make("kernel", weights=[[1, 1, 1]], normalize=True)
    assert row_of(chain(mean, weights([3])), [0, 1, 0]) == [1, 1, 1]  # thirds between
    assert row_of(chain(weights([2]), weights([0.5])), [200, 7]) == [200, 7]  # 400 between
    assert row_of(chain(weights([-1]), weights([-1])), [200, 7]) == [200, 7]
    assert row_of(chain(weights([0.5]), weights([3])), [1]) == [2]  # 1.5, half to even


def test_each_border_is_that_of_the_image_that_its_link_gets() -> None:
    right = weights([0, 0, 1])  # [1, 2, 3] becomes [2, 3, and what lies outside]
    assert row_of(chain(right, right), [1, 2, 3], Border("edge")) == [3, 3, 3]
    assert row_of(chain(right, right), [1, 2, 3], Border("wrap")) == [3, 1, 2]
    mixed = Chain((Link(right, Border("wrap")), Link(right, Border("constant", 1.0))))
    assert row_of(mixed, [1, 2, 3], Border("reflect")) == [3, 1, 255]
    doubled = chain(weights([2]), right)  # a border repeats what the first link gave
    assert row_of(doubled, [1, 2, 3]) == [4, 6, 6]


def in_full(pixels: Pixels, chained: Chain, border: Border, alpha: bool) -> np.ndarray:
    """The definition once more: each link on the whole image, padded by NumPy."""
    values, full = pixels.astype(np.float64), full_scale(pixels.dtype)
    for operation, own in stages_of(chained.unrolled(border)):
        above, below, left, right = operation.reach
        widths = ((above, below), (left, right), (0, 0))
        mode: Any = own.mode
        if mode == "constant":
            padded = np.pad(values, widths, constant_values=own.sample(pixels.dtype))
        else:
            padded = np.pad(values, widths, mode=mode)
        values = operation.exact(padded, values, full, alpha)
    return values


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_a_chain_are_those_of_the_whole(border: Border, shape: tuple[int, int]) -> None:
    pixels = random_pixels((*shape, 2), "uint8")
    for chained in CHAINS:
        for alpha in (False, True):
            expected = in_full(pixels, chained, border, alpha)
            assert reference.exact(pixels, chained, border, alpha).tobytes() == expected.tobytes()
            for rows in {(0, 1), (shape[0] // 2, shape[0])}:
                part = reference.exact(pixels, chained, border, alpha, rows)
                assert part.tobytes() == expected[slice(*rows)].tobytes()


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_cpu(cpu: Engine, dtype: str, channels: int, alpha: bool, border: Border) -> None:
    for shape in SHAPES:
        pixels = random_pixels((*shape, channels), dtype)
        for chained in CHAINS:
            assert_agrees(cpu, pixels, chained, border, alpha)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
@pytest.mark.parametrize(("channels", "alpha"), [(1, False), (4, True)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernels(dtype: str, channels: int, alpha: bool, built: Path) -> None:
    engine = HostEngine("auto", built)
    for shape in SHAPES:
        pixels = random_pixels((*shape, channels), dtype)
        for chained in CHAINS:
            for border in ALL_BORDERS:
                assert_agrees(engine, pixels, chained, border, alpha)


@pytest.mark.gpu
@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gpu(dtype: str, channels: int, alpha: bool) -> None:
    from cudafilter.engines.cuda.engine import CudaEngine

    engine = CudaEngine()
    for shape in [*SHAPES, (131, 300)]:
        pixels = random_pixels((*shape, channels), dtype)
        for chained in CHAINS:
            for border in ALL_BORDERS:
                assert_agrees(engine, pixels, chained, border, alpha)
    engine.close()


def test_the_tolerance_is_what_the_links_make_of_each_other() -> None:
    two, three = weights([2.0]), make("kernel", weights=[[-3.0]], bias=0.5)
    pixels = random_pixels((4, 5, 1), "uint8")
    # Roundings: two of scaling, and in each link three, and the root of two additions twice.
    roundings = 2 + 2 * (3 + 2 * 2**0.5)
    told = tolerance(pixels, chain(two, three))
    expected = roundings * ROUNDING * (6.0 * pixels + 0.5 * 255)
    np.testing.assert_allclose(told, expected, rtol=1e-12)
    floats = pixels / np.float32(99) - np.float32(1)
    told = tolerance(floats, chain(two, three))
    expected = 2 * (3 + 2) * ROUNDING * (6 * np.abs(floats.astype(np.float64)) + 0.5)
    np.testing.assert_allclose(told, expected, rtol=1e-12)


def test_ranks_in_a_row_are_exact() -> None:
    for dtype in DTYPES:
        assert (tolerance(random_pixels((9, 9, 1), dtype), OPENED) == 0).all()


def test_rounding_between_links_is_found() -> None:
    # Of uint8: float32 leaves a chain on uint16 a tolerance of about a step.
    pixels = random_pixels((40, 30, 1), "uint8")
    rounded = reference.apply(reference.apply(pixels, make("blur", sigma=1)), weights([1, -1]))
    assert not compare(rounded, pixels, chain(make("blur", sigma=1), weights([1, -1]))).ok


def test_a_wrong_inner_border_is_found(cpu: Engine) -> None:
    pixels = random_pixels((20, 20, 1), "uint8")
    wrong = Chain((Link(make("blur", sigma=1)), Link(make("sobel"), Border("wrap"))))
    assert not compare(cpu.run(pixels, wrong).pixels, pixels, EDGES).ok


def test_a_chain_of_one_is_its_link_bit_for_bit(cpu: Engine) -> None:
    pixels, blur = random_pixels((20, 30, 3), "uint16"), make("blur", sigma=2)
    for one in (chain(blur), chain(chain(blur)), chain(make("sharpen", amount=0), blur)):
        assert np.array_equal(cpu.run(pixels, one).pixels, cpu.run(pixels, blur).pixels)
        assert np.array_equal(tolerance(pixels, one), tolerance(pixels, blur))


def test_a_chain_that_changes_nothing_is_the_image(cpu: Engine) -> None:
    nothing = chain(make("sharpen", amount=0), median(0))
    pixels = random_pixels((5, 6, 1), "float32")
    pixels[2, 3] = np.nan
    assert cpu.run(pixels, nothing).pixels.tobytes() == pixels.tobytes()
    assert compare(pixels, pixels, nothing).differing == 0


def test_a_chain_reaches_as_far_as_its_links_together() -> None:
    down = weights([1], [0], [0], [0])  # reaches two rows up and one down
    assert chain(down, median(3)).reach == (5, 4, 3, 3)
    assert chain(EDGES, OPENED).reach == (6, 6, 6, 6)


def test_alpha_is_filtered_where_a_link_does() -> None:
    assert EDGES.alpha == CLEANED.alpha == "filter"
    assert chain(make("sobel"), make("sharpen")).alpha == "keep"


def test_chains_are_values() -> None:
    again = chain(make("blur", sigma=1), make("sobel"))
    assert again == EDGES != chain(make("sobel"), make("blur", sigma=1))
    assert hash(again) == hash(EDGES)
    assert pickle.loads(pickle.dumps(OWN_BORDERS)) == OWN_BORDERS
    assert EDGES.name == "blur then sobel"


def test_the_api_takes_a_chain() -> None:
    pixels = random_pixels((9, 8, 3), "uint8")
    got = api.apply(pixels, OPENED, border="wrap", engine="cpu")
    assert np.array_equal(got, reference.apply(pixels, OPENED, Border("wrap")))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ParameterError, match="a chain needs a link"):
        Chain(())
    with pytest.raises(LimitError, match="blur then sobel is a chain"):
        prepare(EDGES, 3, "uint8", Border(), False, "auto")
