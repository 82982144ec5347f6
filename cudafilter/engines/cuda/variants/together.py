"""Launches of together.cu: correlations of 3x3 on floats, and the points after them, in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.variants.floats import bounded
from cudafilter.engines.cuda.variants.point import numbers_of
from cudafilter.engines.cuda.variants.stream import rows_a_block
from cudafilter.engines.cuda.variants.task import (
    LARGEST,
    NEARLY,
    Launch,
    Layout,
    Pass,
    Task,
    takes,
)
from cudafilter.errors import LimitError
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.choices import BORDERS
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.make import make
from cudafilter.operations.operation import Planned, Reach, Stage, WholeImage
from cudafilter.operations.pixels import Exact
from cudafilter.operations.point import Points, levels

MOST_STAGES = 4
"""Correlations in one launch: each keeps two rows of sums, and a strip reads more around it."""

MOST_CURVES = 4
"""Curves behind each of them."""

STRIP = 128
"""Samples that a warp reads of a row."""

NUMBERS = 26
"""Of a stage, before its curves: GAIN and so on in together.cu."""

CURVE = 7
"""Numbers of a curve: numbers_of()."""

COST = 9
"""A stage, in multiply-adds of ``stream``: an estimate. No other variant takes several."""

WRAP = "wrap"


@dataclass(frozen=True)
class Together(WholeImage):
    """*stages*, correlations that reach a pixel at most and point operations, in one launch.

    It needs to know where the image ends: there each stage has the border of what it gets.
    """

    stages: tuple[Stage, ...]

    alpha: ClassVar[Literal["filter", "keep"]] = "keep"
    picks: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The stages' own names."""
        return " then ".join(stage.operation.name for stage in self.stages)

    @property
    def reach(self) -> Reach:
        """A pixel for each correlation."""
        count = len(self.parts)
        return count, count, count, count

    @property
    def parts(self) -> list[tuple[Stage, Points]]:
        """Each correlation, and the points behind it."""
        found: list[tuple[Stage, Points]] = []
        for stage in self.stages:
            if isinstance(stage.operation, Points):
                found[-1] = found[-1][0], stage.operation
            else:
                found.append((stage, Points("nothing", ())))
        return found

    def exact(self, padded: Exact, source: Exact, full: float, alpha: bool) -> Exact:
        """See Windowed.exact."""
        planned = Planned(self.stages, self.reach, self.name)
        return reference.exact(source.astype(np.float32), planned, alpha=alpha)


def grouped(stages: Sequence[Stage], alpha: bool) -> list[Stage]:
    """*stages* on floats, of which those that one launch can do are one: see Together."""
    found: list[Stage] = []
    group: list[Stage] = []

    def end() -> None:
        if len(group) > 1:
            found.append(Stage(Together(tuple(group)), group[0].border))
        else:
            found.extend(group)
        group.clear()

    for stage in stages:
        operation = stage.operation
        curves = isinstance(operation, Points) and len(operation.curves) <= MOST_CURVES
        small = isinstance(operation, Correlation) and max(operation.reach) <= 1
        if alpha or not (small or (curves and group)):
            end()
            found.append(stage)
            continue
        if small and group:
            full = sum(isinstance(each.operation, Correlation) for each in group) == MOST_STAGES
            if full or (stage.border.mode == WRAP) != (group[0].border.mode == WRAP):
                end()
        group.append(stage)
    end()
    return found


@dataclass(frozen=True, eq=False)
class Joint(Launch):
    """One warp a walk."""

    def _passes(self, task: Task, resident: int) -> list[Pass]:
        stages = self.defines["STAGES"]
        halo = -(-self.channels * (stages + 1) // 4) * 4
        task.blocks_x = -(-task.width * self.channels // (STRIP - 2 * halo))
        task.rows = rows_a_block(2 * stages + 1, task.height, task.blocks_x, resident)
        return [self._pass(task, task.blocks_x * -(-task.height // task.rows))]


@takes(Together)
def plan(together: Together, layout: Layout) -> Launch | LimitError:
    """The launch of *together*, or why there is none."""
    if layout.dtype != "float32" or layout.alpha:
        return LimitError(
            "the together kernel is for float32 without alpha",
            hint="run the steps one after the other",
        )
    parts = together.parts
    macros = {"SAMPLE": 2, "CHANNELS": layout.channels, "ALPHA": 0, "KERNELS": 1}
    macros |= {"STAGES": len(parts), "EACH": NUMBERS + CURVE * MOST_CURVES}
    numbers = np.zeros((len(parts), macros["EACH"]))
    for n in range(MOST_STAGES):
        own = dict.fromkeys(("A", "B", "MODE", "SOURCE", "CURVES"), 0)
        if n < len(parts):
            own |= _macros(*parts[n])
            _fill(numbers[n], *parts[n])
        macros |= {f"{name}{n}": value for name, value in own.items()}
    return Joint("together", macros, lambda: numbers.ravel(), Task(), COST * len(parts))


def _macros(stage: Stage, points: Points) -> dict[str, int]:
    """What together.cu is compiled for."""
    filter = stage.operation
    assert isinstance(filter, Correlation)
    masks = [sum(1 << int(i) for i in np.flatnonzero(_nine(k))) for k in filter.kernels]
    return {
        "A": masks[0], "B": masks[1] if len(masks) > 1 else 0,
        "MODE": BORDERS.index(stage.border.mode),
        "SOURCE": int(filter.source_gain != 0 or filter.threshold > 0),
        "CURVES": len(points.curves),
    }  # fmt: skip


def _fill(numbers: npt.NDArray[np.float64], stage: Stage, points: Points) -> None:
    """The numbers of a stage, as together.cu's enum names them."""
    given = stage.operation
    assert isinstance(given, Correlation)
    filter, unit = bounded(given, 0)
    for n, kernel in enumerate(filter.kernels):
        numbers[9 * n : 9 * n + 9] = _nine(kernel)
    numbers[18:NUMBERS] = (
        filter.gain, filter.source_gain, filter.bias, filter.threshold,
        unit, 1 / unit, NEARLY * LARGEST / unit, stage.border.sample("float32"),
    )  # fmt: skip
    for n, curve in enumerate(points.curves):
        at = NUMBERS + CURVE * n
        numbers[at : at + CURVE] = numbers_of(curve)


def _nine(kernel: Kernel) -> npt.NDArray[np.float64]:
    """The weights of *kernel* in a square of 3x3 around the pixel, row by row."""
    above, below, left, right = kernel.reach
    return np.pad(kernel.weights, ((1 - above, 1 - below), (1 - left, 1 - right))).ravel()


def hardest() -> list[Together]:
    """Four stages of two kernels each, and four that want their source."""
    two = Stage(make("sobel"), Border("reflect"))
    source = Stage(make("unsharp", sigma=0.3, threshold=0.1), Border("constant"))
    bright = Stage(levels(0.0, 1.0, 2.0), Border())
    plain = Stage(make("sharpen"), Border())
    return [
        Together((two,) * 4),
        Together((source, bright) * 4),
        Together((plain,) * 3),
        Together((Stage(make("laplacian"), Border(WRAP)),) * 2),
    ]
