"""An image that flows past by rows becomes, bit for bit, what the whole image becomes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agreement import ALL_BORDERS, LAYOUTS, random_pixels
from cudafilter.engines import Engine, cpu, ranks
from cudafilter.engines.block import Block, filter_block
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.engines.flow import Flow, rereads
from cudafilter.operations.borders import Border
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.difference import tophat
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation, whole_of
from cudafilter.operations.pixels import DTYPES, Pixels
from cudafilter.operations.rank import median
from cudafilter.operations.window import square
from test_chain import CHAINS
from test_host import HostEngine

RANDOM = np.random.default_rng(7)

EACH = {
    name: make(name, **({"weights": RANDOM.random((5, 3))} if name == "kernel" else {}))
    for name in CATALOGUE
}

OPERATIONS: dict[str, Operation] = {
    **{name: each for name, each in EACH.items() if whole_of(each.unrolled(Border())) is None},
    "long": make("blur", sigma=25),
    "by Fourier": make("kernel", weights=RANDOM.standard_normal((13, 19))),
    "taller than its bands": make("kernel", weights=RANDOM.random((37, 2))),
    "off its centre": Correlation("off", (Kernel(RANDOM.random((23, 5)), (21, 0)),), gain=1 / 115),
    "fork in a chain": Chain(
        (Link(make("blur", sigma=1)), Link(tophat(square(2))), Link(make("sobel")))
    ),
    "of a large window": median(4),
    "points at both ends": Chain(
        (Link(make("levels", gamma=2)), Link(make("sharpen")), Link(make("levels", gamma=0.7)))
    ),
    "steep points": Chain((Link(make("levels", black=0.4, gamma=2)), Link(make("invert")))),
    **{f"chain {n}": chain for n, chain in enumerate(CHAINS)},
}


@pytest.fixture(autouse=True)
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of 16 rows in the CPU engine, where it would take megabytes."""
    monkeypatch.setattr(cpu, "BAND_BYTES", 1 << 10)
    monkeypatch.setattr(ranks, "BAND_BYTES", 1 << 10)


def flowed(
    engine: Engine,
    pixels: Pixels,
    filter: Operation,
    border: Border,
    alpha: bool = False,
    read: int = 11,
    asked: int = 19,
) -> Pixels:
    """*pixels* filtered, read *read* rows at a time and asked for by *asked*."""
    given = []

    def bands() -> Iterator[Pixels]:
        for first in range(0, len(pixels), read):
            given.append(first)
            yield pixels[first : first + read].copy()

    def reread(first: int, last: int) -> Pixels:
        assert rereads(filter, border)
        return pixels[first:last].copy()

    height = len(pixels)
    flow = Flow(
        engine, filter, border, alpha, pixels.shape, pixels.dtype, bands(), reread
    )  # fmt: skip
    found = [flow.rows(y, min(y + asked, height)) for y in range(0, height, asked)]
    assert given == list(range(0, height, read))
    return np.concatenate(found)


def differing(got: Pixels, expected: Pixels) -> str:
    """Where both are not the same bits; empty where they are."""
    bits = f"u{got.itemsize}"
    rows = np.flatnonzero((got.view(bits) != expected.view(bits)).any(axis=(1, 2)))
    return f"rows {rows.tolist()}" if len(rows) else ""


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_bits_are_those_of_one_piece(
    cpu: Engine, name: str, dtype: str, border: Border
) -> None:
    filter = OPERATIONS[name]
    for channels, alpha in [(1, False), (3, False), (2, True), (4, True)]:
        pixels = random_pixels((150, 33, channels), dtype)
        expected = cpu.run(pixels, filter, border, alpha).pixels
        assert not differing(flowed(cpu, pixels, filter, border, alpha), expected), channels


@pytest.mark.parametrize("filter", [make("threshold", otsu=True), make("canny")])
def test_what_needs_the_whole_image_gets_it(cpu: Engine, filter: Operation) -> None:
    pixels = random_pixels((50, 33, 1), "uint8")
    assert cpu.step(pixels.shape, "uint8", filter, Border(), False) == 50
    some = cpu.run(pixels, filter, rows=(7, 20)).pixels
    assert not differing(some, cpu.run(pixels, filter).pixels[7:20])
    with pytest.raises(AssertionError):
        flowed(cpu, pixels, filter, Border())


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("name", ["blur", "sobel", "long", "by Fourier", "off its centre"])
def test_opencv_gets_the_bands_of_one_piece(
    name: str, border: Border, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it may sum them as it likes: Fourier transforms and clamped means depend on all of one."""
    seen: list[bytes] = []

    def look(block: Block, *others: Any) -> Pixels:
        seen.append(block.pixels.tobytes() + repr(block.inner).encode())
        return filter_block(block, *others)

    monkeypatch.setattr(cpu, "filter_block", look)
    pixels = random_pixels((700, 33, 3), "float32")
    engine, filter = cpu.CpuEngine(), OPERATIONS[name]
    engine.run(pixels, filter, border)
    expected = sorted(seen)
    seen.clear()
    flowed(engine, pixels, filter, border)
    assert sorted(seen) == expected
    assert len(expected) > 3


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("height", [1, 2, 15, 16, 17, 40, 63, 64, 65])
def test_images_of_few_rows(cpu: Engine, height: int, border: Border) -> None:
    pixels = random_pixels((height, 21, 3), "float32")
    for name in ("blur", "long", "off its centre", "chain 3", "fork in a chain"):
        expected = cpu.run(pixels, OPERATIONS[name], border).pixels
        for read, asked in [(1, 1), (7, 30), (100, 16)]:
            got = flowed(cpu, pixels, OPERATIONS[name], border, read=read, asked=asked)
            assert not differing(got, expected), (name, read, asked)


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_nan_and_infinity_spread_no_further(cpu: Engine, border: Border) -> None:
    pixels = random_pixels((150, 33, 2), "float32")
    pixels[[3, 70, 149], [4, 20, 32], 0] = np.nan, np.inf, -np.inf
    pixels[40, 1] = 3e38
    for name in ("blur", "by Fourier", "sobel", "median", "chain 0"):
        for alpha in (False, True):
            expected = cpu.run(pixels, OPERATIONS[name], border, alpha).pixels
            got = flowed(cpu, pixels, OPERATIONS[name], border, alpha)
            assert not differing(got, expected), name


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
@pytest.mark.parametrize("variant", ["separable", "stream", "tiled", "network"])
def test_kernels_give_the_bits_of_one_piece(variant: str, built: Path) -> None:
    engine = HostEngine(variant, built)
    filter = median() if variant == "network" else make("blur", sigma=2)
    twice = Chain((Link(filter), Link(filter, Border("edge"))))
    for border in ALL_BORDERS:
        for channels, alpha in LAYOUTS[1:4]:
            pixels = random_pixels((90, 40, channels), "uint8")
            for each in (filter, twice):
                expected = engine.run(pixels, each, border, alpha).pixels
                got = flowed(engine, pixels, each, border, alpha)
                assert not differing(got, expected), (each.name, border, channels)


@pytest.mark.gpu
@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("limit", [None, 200_000])
def test_a_gpu_gives_the_bits_of_one_piece(border: Border, limit: int | None) -> None:
    engine = CudaEngine(memory_limit=limit)
    try:
        for name, filter in OPERATIONS.items():
            for dtype in DTYPES:
                for channels, alpha in [(3, False), (4, True)]:
                    pixels = random_pixels((150, 33, channels), dtype)
                    expected = engine.run(pixels, filter, border, alpha).pixels
                    got = flowed(engine, pixels, filter, border, alpha)
                    assert not differing(got, expected), (name, dtype, channels)
    finally:
        engine.close()
