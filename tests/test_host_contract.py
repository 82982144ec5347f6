"""What the tight contract asks of the kernels, on the CPU: ties, long sums, terms past float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agreement import ALL_BORDERS, assert_agrees, random_pixels
from cudafilter.check import compare
from cudafilter.engines import Engine
from cudafilter.engines.cuda.variants.ladder import prepare
from cudafilter.errors import LimitError
from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.make import make
from cudafilter.operations.pixels import DTYPES
from test_host import HostEngine, pytestmark

__all__ = ["pytestmark"]

_RANDOM = np.random.default_rng(4)

BINOMIAL = np.array([1, 4, 6, 4, 1])

WHOLE = {
    "binomial": make("kernel", weights=np.outer(BINOMIAL, BINOMIAL), normalize=True),
    "box of 16": make("kernel", weights=np.ones((16, 16)), normalize=True),
    "emboss": make("emboss"),
    "halves": make("kernel", weights=_RANDOM.integers(-9, 9, (5, 5)) / 8, bias=0.5),
    "large": make("kernel", weights=_RANDOM.integers(0, 3, (23, 23)) / 512),
    "of rank 2": make("kernel", weights=(np.outer(range(9), range(9)) + 1) / 2048),
}
TAKEN = [
    (variant, name)
    for variant in ("vanilla", "tiled", "separable", "stream", "wide", "blocked", "tensor")
    for name, filter in WHOLE.items()
    if variant not in ("separable", "tensor", "wide") or filter.rank1
]  # fmt: skip


@pytest.mark.parametrize(("variant", "name"), TAKEN)
def test_ties_go_to_even_in_every_variant(variant: str, name: str, built: Path) -> None:
    filter, engine = WHOLE[name], HostEngine(variant, built)
    for dtype in ("uint8",) if variant == "tensor" else ("uint8", "uint16"):
        if not filter.is_whole(dtype):
            continue
        pixels = random_pixels((40, 70, 1), dtype) | 1
        try:
            got = engine.run(pixels, filter).pixels
        except LimitError:
            assert variant in ("stream", "tensor")
            continue
        agreement = compare(got, pixels, filter)
        assert agreement.differing == 0, agreement


def test_each_kind_of_whole_numbers_is_whole_on_bytes() -> None:
    assert all(filter.is_whole("uint8") for filter in WHOLE.values())


def test_terms_of_whole_numbers_are_none() -> None:
    filter = WHOLE["of rank 2"]
    uneven = make("kernel", weights=filter.kernels[0].weights * 0.3)
    assert prepare(uneven, 1, "uint8", Border(), False, "wide").defines["TERMS"] == 2
    with pytest.raises(LimitError, match="wide"):
        prepare(filter, 1, "uint8", Border(), False, "wide")


IN_DOUBLE = {
    "unsharp": make("unsharp", amount=50),
    "threshold": make("unsharp", amount=50, threshold=0.01),
    "dense": make("kernel", weights=_RANDOM.standard_normal((15, 12)), bias=0.3),
    "gradient": make("sobel", scale=40),
    "blur": make("blur", sigma=2),
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(("channels", "alpha"), [(1, False), (3, False), (2, True), (4, True)])
@pytest.mark.parametrize("name", IN_DOUBLE)
def test_double(name: str, channels: int, alpha: bool, dtype: str, built: Path) -> None:
    for border in ALL_BORDERS:
        pixels = random_pixels((23, 41, channels), dtype)
        assert_agrees(HostEngine("double", built), pixels, IN_DOUBLE[name], border, alpha)
    bands = HostEngine("double", built, cut=7).run(pixels, IN_DOUBLE[name], alpha=alpha).pixels
    whole = HostEngine("double", built).run(pixels, IN_DOUBLE[name], alpha=alpha).pixels
    assert np.array_equal(bands, whole)


def test_what_float32_cannot_tell_runs_in_double() -> None:
    for variant in ("auto", "double"):
        ready = prepare(IN_DOUBLE["unsharp"], 3, "uint16", Border(), False, variant)
        assert ready.variant == "double"
    with pytest.raises(LimitError, match="the stream kernel works in float32") as refused:
        prepare(IN_DOUBLE["unsharp"], 3, "uint16", Border(), False, "stream")
    assert refused.value.hint == "use --variant double or auto"
    assert prepare(IN_DOUBLE["unsharp"], 3, "uint8", Border(), False, "auto").variant == "stream"
    with pytest.raises(LimitError, match="the double kernel is for integers"):
        prepare(IN_DOUBLE["unsharp"], 3, "float32", Border(), False, "double")


@pytest.mark.parametrize("variant", ["vanilla", "constant", "separable", "stream", "blocked"])
def test_flat_areas_where_all_errors_go_to_one_side(variant: str, built: Path) -> None:
    engine = HostEngine(variant, built)
    uneven = np.ones((15, 15))
    uneven[0, 0] += 1e-3
    filters = [make("box", radius=15), make("kernel", weights=uneven, normalize=True)]
    if variant in ("vanilla", "separable"):
        filters.append(make("box", radius=100))
    for filter in filters:
        if variant == "separable" and not filter.rank1:
            continue
        for seed in range(6):
            assert_agrees(engine, random_pixels((1, 1, 1), "float32", seed), filter)


HUGE = [
    make("kernel", weights="1e39 -1e39 1e39"),
    make("kernel", weights="1e-41 3e-41", normalize=True),
    make("kernel", weights="1e36 3e36 2e36", normalize=True),
    make("kernel", weights=[[1e-300]]),
    make("kernel", weights=[[1e300, -1e300]]),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("filter", HUGE)
@pytest.mark.parametrize("where", ["cpu", "vanilla", "stream"])
def test_weights_past_float32(
    cpu: Engine, where: str, filter: Correlation, dtype: str, built: Path
) -> None:
    engine = cpu if where == "cpu" else HostEngine(where, built)
    pixels = random_pixels((9, 20, 3), dtype)
    pixels[3:6] = pixels[3, 0]
    assert_agrees(engine, pixels, filter)
