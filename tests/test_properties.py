"""What must hold of filters whatever the image: found by Hypothesis on small images."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cudafilter.engines.cpu import CpuEngine
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.choices import BORDERS
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels, full_scale
from cudafilter.operations.point import Points

CPU = CpuEngine(threads=1)

RADII = st.integers(0, 3)
SHAPES = st.sampled_from(["square", "disk", "cross"])
REPEATED = st.sampled_from([mode for mode in BORDERS if mode != "constant"])


def images(*dtypes: str) -> st.SearchStrategy[Pixels]:
    """Images of any of *dtypes*, up to 9 by 9, one or two channels."""
    sides = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 2))

    def of(dtype: str) -> st.SearchStrategy[Any]:
        samples = st.floats(-4, 4, width=32) if dtype == "float32" else None
        return arrays(dtype, sides, elements=samples)

    return st.sampled_from(dtypes).flatmap(of)


def run(pixels: Pixels, filter: Operation, mode: str = "edge") -> Pixels:
    return CPU.run(pixels, filter, Border(mode)).pixels


@given(images("uint8", "uint16"), RADII, REPEATED, st.data())
def test_a_median_commutes_with_what_keeps_the_order(
    pixels: Pixels, radius: int, mode: str, data: st.DataObject
) -> None:
    # A map that never falls: sums of steps, over at most the full scale.
    full = int(full_scale(pixels.dtype))
    places = data.draw(st.lists(st.integers(1, full), max_size=20))
    table = np.zeros(full + 1, np.int64)
    np.add.at(table, places, full // 20)
    table = np.cumsum(table).astype(pixels.dtype)
    for filter in (make("median", radius=radius), make("percentile", radius=radius, rank=30)):
        assert np.array_equal(table[run(pixels, filter, mode)], run(table[pixels], filter, mode))


@given(images("uint8", "uint16", "float32"), RADII, SHAPES, REPEATED)
def test_erosion_and_dilation_are_dual(pixels: Pixels, radius: int, shape: str, mode: str) -> None:
    # What lies below the image, turned over, is what lies above it: windows are symmetric.
    def turned(of: Pixels) -> Pixels:
        return -of if of.dtype.kind == "f" else ~of

    for one, other in (("erode", "dilate"), ("open", "close")):
        first, second = (make(name, radius=radius, shape=shape) for name in (one, other))
        assert np.array_equal(turned(run(pixels, first, mode)), run(turned(pixels), second, mode))


@given(images("uint8", "uint16", "float32"), RADII, SHAPES)
def test_opening_twice_is_opening_once(pixels: Pixels, radius: int, shape: str) -> None:
    # Under the borders that add no samples of other pixels to a window.
    for name in ("open", "close"):
        filter = make(name, radius=radius, shape=shape)
        once = run(pixels, filter, "wrap")
        assert np.array_equal(run(once, filter, "wrap"), once)


@given(images("uint8", "uint16"), RADII, SHAPES, REPEATED)
def test_opening_takes_away_and_closing_adds(
    pixels: Pixels, radius: int, shape: str, mode: str
) -> None:
    opened, closed = (
        run(pixels, make(name, radius=radius, shape=shape), mode) for name in ("open", "close")
    )
    if mode in ("edge", "wrap"):
        assert (opened <= pixels).all()
        assert (closed >= pixels).all()
    eroded, dilated = (
        run(pixels, make(name, radius=radius, shape=shape), mode) for name in ("erode", "dilate")
    )
    assert (eroded <= opened).all()
    assert (closed <= dilated).all()


LINKS = [
    make("median"), make("erode", shape="disk", radius=2), make("blur", sigma=1),
    make("sobel", scale=0.25), make("bilateral", sigma=1), make("denoise", patch=3, search=5),
    make("levels", black=0.1, gamma=2), make("invert"),
]  # fmt: skip


@given(images("float32"), st.lists(st.sampled_from(LINKS), min_size=2, max_size=3))
def test_a_chain_is_its_links_one_after_the_other(pixels: Pixels, links: list[Operation]) -> None:
    done = pixels
    for link in links:
        done = run(done, link)
    whole = run(pixels, Chain(tuple(Link(link) for link in links)))
    if any(isinstance(one, Points) and isinstance(two, Points) for one, two in pairwise(links)):
        np.testing.assert_allclose(whole, done, rtol=1e-5, atol=1e-5)  # rounded once for both
    else:
        assert whole.tobytes() == done.tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_inverting_twice_is_nothing(dtype: str) -> None:
    pixels = np.arange(int(full_scale(dtype)) + 1, dtype=dtype).reshape(1, -1, 1)
    assert np.array_equal(run(run(pixels, make("invert")), make("invert")), pixels)
