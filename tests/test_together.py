"""Chains as the GPU runs them: stages in one launch, integers turned into floats there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from agreement import ALL_BORDERS, LAYOUTS, assert_agrees, random_pixels
from cudafilter.engines import Engine, Result
from cudafilter.engines.chains import one_by_one, run_plan
from cudafilter.engines.cuda.chains import stretch_of
from cudafilter.engines.cuda.variants.ladder import prepare
from cudafilter.engines.cuda.variants.together import MOST_STAGES, Together
from cudafilter.errors import LimitError
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation, Stage
from cudafilter.operations.pixels import DTYPES, Pixels
from test_flow import differing, flowed
from test_host import HostEngine
from test_point import wild


class HostChains(HostEngine):
    """Runs chains as CudaEngine does, launch after launch; *cut* gives bands of so many rows."""

    def run(
        self,
        pixels: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
        *,
        overwrite: bool = False,
        rows: tuple[int, int] | None = None,
    ) -> Result:
        """As CudaEngine.run."""
        plan = filter.unrolled(border)
        stages = [each for each in plan if isinstance(each, Stage)]
        if len(stages) < len(plan):
            return run_plan(one_by_one(super().run), pixels, plan, alpha, rows)
        height, width, channels = pixels.shape
        stretch = stretch_of(stages, channels, pixels.dtype.name, alpha, self.variant)
        step = height if stretch.whole or not self._cut else self._cut
        top, bottom = rows or (0, height)
        bands = []
        for first in range(top, bottom, step):
            end = min(first + step, bottom)
            block, offset = (pixels, first) if step == height else stretch.block(pixels, first, end)
            for ready in stretch.launches:
                library = self.compiled(ready.variant, ready.defines)
                block = self._launch(library, ready, block, len(block), width, (0, 0))
            bands.append(block[offset : offset + end - first])
        return Result(np.concatenate(bands))


def chain(*operations: Operation, border: Border | None = None) -> Chain:
    """All of them, with the border of the run or their own."""
    return Chain(tuple(Link(operation, border) for operation in operations))


SKEW = make("kernel", weights=[[1, 0, -2], [3, 1, 0], [0.5, 0, 1]], bias=0.1)
DOWN = make("kernel", weights=[[1], [2]])
BRIGHT = make("levels", black=0.1, gamma=1.5)
CHAINS = [
    chain(make("box", radius=1), make("sobel"), BRIGHT),
    chain(SKEW, make("unsharp", sigma=0.3, threshold=0.1), DOWN),
    chain(BRIGHT, make("sharpen"), make("scharr"), make("invert"), make("threshold")),
    chain(SKEW, SKEW, SKEW, SKEW, SKEW),
    chain(make("median"), make("sharpen"), make("laplacian"), make("blur", sigma=1), BRIGHT),
    Chain((Link(SKEW, Border("constant", 0.7)), Link(SKEW, Border("reflect")), Link(DOWN))),
    chain(make("threshold", otsu=True), make("box", radius=1), make("sharpen")),
]
KINDS = [
    ("float32", 1, False), ("float32", 3, False), ("float32", 4, True), ("uint8", 3, False),
    ("uint16", 2, True),
]  # fmt: skip
SHAPES = [(1, 1), (1, 9), (2, 3), (8, 2), (3, 70), (9, 260)]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")


@pytest.mark.parametrize("number", range(len(CHAINS)))
@pytest.mark.parametrize(("dtype", "channels", "alpha"), KINDS)
def test_the_kernels(dtype: str, channels: int, alpha: bool, number: int, built: Path) -> None:
    engine = HostChains("auto", built)
    for shape in [(1, 1), (8, 2), (5, 140)]:
        pixels = random_pixels((*shape, channels), dtype)
        border = ALL_BORDERS[(number + channels) % len(ALL_BORDERS)]
        assert_agrees(engine, pixels, CHAINS[number], border, alpha)


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("channels", [1, 4])
def test_every_border(channels: int, border: Border, built: Path) -> None:
    engine = HostChains("auto", built)
    for shape in SHAPES:
        pixels = random_pixels((*shape, channels), "float32")
        assert_agrees(engine, pixels, CHAINS[1], border)


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_bands_have_the_bits_of_the_whole(dtype: str, border: Border, built: Path) -> None:
    pixels = random_pixels((13, 150, 1), dtype)
    for chained in CHAINS[:2]:
        whole = HostChains("auto", built).run(pixels, chained, border).pixels
        for cut in (1, 7):
            bands = HostChains("auto", built, cut).run(pixels, chained, border).pixels
            assert whole.tobytes() == bands.tobytes()
            some = HostChains("auto", built, cut).run(pixels, chained, border, rows=(2, 11)).pixels
            assert some.tobytes() == whole[2:11].tobytes()


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_rows_that_flow_past_have_the_bits_of_the_whole(
    dtype: str, border: Border, built: Path
) -> None:
    engine, pixels = HostChains("auto", built), random_pixels((61, 40, 1), dtype)
    own = Chain((Link(SKEW, Border("edge")), Link(BRIGHT)))
    for chained in (*CHAINS[:3], own):
        whole = engine.run(pixels, chained, border).pixels
        assert not differing(flowed(engine, pixels, chained, border), whole)


def test_floats_that_are_not_finite_reach_their_taps_only(built: Path) -> None:
    pixels = wild((30, 50, 1))
    pixels[np.abs(pixels) > 1e30] = np.nan  # no sum overflows between the steps
    assert_agrees(HostChains("auto", built), pixels, chain(make("laplacian"), SKEW))


def launched(chained: Chain, dtype: str = "float32", variant: str = "auto", alpha: bool = False,
             border: str = "edge") -> list[str]:  # fmt: skip
    stages = [each for each in chained.unrolled(Border(border)) if isinstance(each, Stage)]
    return [each.variant for each in stretch_of(stages, 4, dtype, alpha, variant).launches]


def test_what_is_launched_together() -> None:
    small = make("sharpen")
    assert launched(chain(small, small, small)) == ["together"]
    assert launched(chain(small, BRIGHT)) == ["together"]
    assert launched(chain(*[small] * (MOST_STAGES + 1))) == ["together", "stream"]
    assert launched(chain(small, make("blur"), small)) == ["stream"] * 3
    assert launched(chain(make("blur", sigma=25), small, small)) == ["wide", "stream", "stream"]
    assert launched(chain(small, small), alpha=True) == ["stream"] * 2
    assert launched(chain(small, small), variant="stream") == ["stream"] * 2
    assert launched(chain(small, small), "uint8") == ["point", "together", "point"]
    assert launched(chain(BRIGHT, small, small, BRIGHT), "uint8") == ["point", "together", "point"]
    assert launched(chain(make("median"), make("erode")), "uint8") == ["network", "extreme"]
    mixed = Chain((Link(small, Border("wrap")), Link(small)))
    assert launched(mixed) == ["stream"] * 2
    assert launched(mixed, border="wrap") == ["together"]


def test_together_refuses_what_it_cannot() -> None:
    both = Together(tuple(Stage(make("sharpen"), Border()) for _ in range(2)))
    with pytest.raises(LimitError, match="float32 without alpha"):
        prepare(both, 3, "uint8", Border(), False, "together")
    with pytest.raises(LimitError, match="runs a together, and blur is"):
        prepare(make("blur"), 3, "float32", Border(), False, "together")


@pytest.mark.gpu
@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gpu(dtype: str, channels: int, alpha: bool) -> None:
    from cudafilter.engines.cuda.engine import CudaEngine

    engine: Engine = CudaEngine()
    pieces = CudaEngine(memory_limit=400_000)
    for shape in [*SHAPES, (131, 300)]:
        pixels = random_pixels((*shape, channels), dtype)
        for border in ALL_BORDERS:
            for chained in CHAINS:
                assert_agrees(engine, pixels, chained, border, alpha)
    for chained in CHAINS[:5]:
        whole = engine.run(pixels, chained, alpha=alpha).pixels
        assert pieces.run(pixels, chained, alpha=alpha).pixels.tobytes() == whole.tobytes()
    pieces.close()
    engine.close()
