"""The one comparison: an engine's result against the float64 reference, by the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from cudafilter.check import compare
from cudafilter.engines import Engine, Screening
from cudafilter.errors import LimitError
from cudafilter.operations.borders import Border
from cudafilter.operations.choices import BORDERS
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.operation import Operation, only_stage, stages_of
from cudafilter.operations.pixels import Exact, Pixels
from cudafilter.operations.precision import between
from cudafilter.operations.rank import Rank
from cudafilter.proof.tolerance import Tolerance

if TYPE_CHECKING:
    from cudafilter.engines.codecs import JpegPath, PngCodec

ALL_BORDERS = [Border(mode, 0.3 if mode == "constant" else 0.0) for mode in BORDERS]

LAYOUTS = [(1, False), (2, False), (2, True), (3, False), (4, False), (4, True)]
"""(channels, whether the last is alpha)"""


def random_pixels(shape: tuple[int, int, int], dtype: str, seed: int = 0) -> Pixels:
    """Uniform noise over the full scale of *dtype*, a tenth of the samples at its two ends."""
    random = np.random.default_rng([seed, *shape])
    unit = np.clip(random.uniform(-0.05, 1.05, shape), 0, 1)
    if dtype == "float32":
        return unit.astype(np.float32)
    return np.rint(unit * np.iinfo(dtype).max).astype(dtype)


def tolerance(
    pixels: Pixels, filter: Operation, border: Border = Border(), alpha: bool = False
) -> Exact:
    """The tolerance of each sample, (H, W, C)."""
    told = Tolerance(pixels, filter, border, alpha)
    if told.fixed is not None:
        return np.full(pixels.shape, told.fixed)
    y, x, c = np.indices(pixels.shape)
    return told.at(y.ravel(), x.ravel(), c.ravel()).reshape(pixels.shape)


def needs_double(engine: Engine, filter: Operation, dtype: str, alpha: bool) -> bool:
    """Whether *engine* is a variant in float32, which refuses what only double can tell."""
    plan = filter.unrolled(Border())
    if not plan or getattr(engine, "variant", "auto") in ("auto", "double"):
        return False
    if (stage := only_stage(plan)) is None:
        return dtype != "float32" and between(plan, np.dtype(dtype), alpha) == np.float64
    operation = stage.operation
    return isinstance(operation, Correlation) and operation.in_double(dtype, alpha)


def runs(engine: Engine, filter: Operation) -> bool:
    """Whether *engine*'s variant takes *filter*: not every step of the ladder takes all."""
    variant = getattr(engine, "variant", "auto")
    plan = filter.unrolled(Border())
    return variant == "auto" or all(takes(variant, stage.operation) for stage in stages_of(plan))


def takes(variant: str, filter: Operation) -> bool:
    """Whether *variant* takes the operation *filter* of one stage."""
    if not isinstance(filter, Correlation):
        return isinstance(filter, Rank) and variant == "rank"
    if variant in ("separable", "wide") and not filter.rank1:
        return False
    if variant in ("wide", "blocked") and len(filter.kernels) > 1:
        return False
    rows, columns = filter.size
    return variant != "stream" or rows * columns <= 225 or (filter.rank1 and rows <= 31)


def assert_agrees(
    engine: Engine,
    pixels: Pixels,
    filter: Operation,
    border: Border = Border(),
    alpha: bool = False,
) -> None:
    """*engine*'s result keeps the contract with the reference, and the input is untouched.

    A variant in float32 refuses what only double can tell.
    """
    if needs_double(engine, filter, pixels.dtype.name, alpha):
        with pytest.raises(LimitError, match="works in float32"):
            engine.run(pixels, filter, border, alpha)
        return
    before = pixels.copy()
    result = engine.run(pixels, filter, border, alpha).pixels
    agreement = compare(result, pixels, filter, border, alpha)
    case = (
        f"{engine.title}: {filter.name} {filter.reach} {border} alpha={alpha}"
        f" {pixels.dtype} {pixels.shape}"
    )
    assert agreement.ok, f"{case}: {agreement}"
    assert before.tobytes() == pixels.tobytes(), f"{case}: the input was changed"


class StandIn:
    """What an Engine has beside run(), for engines of tests that have no more."""

    name = "stand-in"
    title = "a stand-in"
    note: str | None = None
    parallel = 0
    jpeg: JpegPath | None = None
    png: PngCodec | None = None

    def screen(
        self,
        source: Pixels,
        result: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
    ) -> Screening:
        """It proves nothing."""
        return Screening()

    def step(self, *_: object) -> int:
        """Cut anywhere."""
        return 1

    def close(self) -> None:
        """Nothing to give back."""
