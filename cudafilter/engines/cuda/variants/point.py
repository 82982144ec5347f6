"""Launches of point.cu: point operations, and the way from integers to floats and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.variants.task import (
    ALPHAS,
    Launch,
    Layout,
    Pass,
    Task,
    Weights,
    in_pairs,
    takes,
)
from cudafilter.operations.pixels import KINDS, full_scale
from cudafilter.operations.point import Curve, Levels, Points, Threshold, invert, least_float

THREADS = 256

COST = 1
"""A sample, in multiply-adds of ``stream``: an estimate. No other variant takes points."""

END = -1.0
LEVELS, THRESHOLD = 0.0, 1.0
"""KIND in curve.cuh."""

NOTHING = Points("nothing", ())


@dataclass(frozen=True, eq=False)
class Pointed(Launch):
    """Blocks of threads, each thread with 16 bytes of a row."""

    weights_in_constant_memory: ClassVar[bool] = False

    @property
    def block(self) -> tuple[int, int, int]:
        """See Launch.block."""
        return THREADS, 1, 1

    @property
    def out_dtype(self) -> np.dtype[Any]:
        """See Launch.out_dtype."""
        return np.dtype(KINDS[self.defines["TO"]])

    def _passes(self, task: Task, resident: int) -> list[Pass]:
        samples = THREADS * 16 // self.itemsize
        task.blocks_x = -(-task.width * self.channels // samples)
        return [self._pass(task, task.blocks_x * task.height)]


@dataclass(frozen=True, eq=False)
class PointedInDouble(Pointed):
    """From or to double."""

    @cached_property
    def weights(self) -> Weights:
        """The doubles that the kernel reads, each as two floats."""
        return in_pairs(self.make_weights())


@takes(Points)
def plan(points: Points, layout: Layout) -> Launch:
    """The launch of *points*."""
    return launch(points, layout, layout.dtype)


def launch(points: Points, layout: Layout, to: str) -> Launch:
    """The launch of *points* on pixels of *layout*, with results of the type *to*.

    One of both types is of floats where they differ; 1 means full scale there.
    """
    in_double = "float64" in (layout.dtype, to)

    def numbers() -> npt.NDArray[np.floating]:
        if layout.dtype.startswith("float"):
            numbers = [n for curve in points.curves for n in numbers_of(curve, in_double)]
            return np.array([*numbers, END])
        table = points.table(layout.dtype)
        if to.startswith("float"):
            return table / layout.full
        return np.clip(np.rint(table), 0, full_scale(to))

    macros = {
        "SAMPLE": layout.sample, "CHANNELS": layout.channels, "KERNELS": 1,
        "ALPHA": ALPHAS["keep" if layout.alpha else None],
        "TO": KINDS.index(to), "THREADS": THREADS,
    }  # fmt: skip
    kind = PointedInDouble if in_double else Pointed
    return kind("point", macros, numbers, Task(), COST)


def numbers_of(curve: Curve, in_double: bool = False) -> list[float]:
    """What curve.cuh wants of *curve*."""
    if isinstance(curve, Threshold):
        return [THRESHOLD, 0, 0, 0, 0, 0, curve.at if in_double else least_float(curve.at)]
    assert isinstance(curve, Levels)
    high = curve.black if in_double else float(np.float32(curve.black))
    power, scale = 1 / curve.gamma, 1 / (curve.white - curve.black)
    # A scale past 1 might make a large sample infinite before the power makes it small again.
    after = 1.0
    if power != 1 and abs(scale) > 1:
        scale, after = float(np.sign(scale)), abs(scale) ** power
    return [LEVELS, high, curve.black - high, scale, power, after, 0]


def hardest() -> list[Points]:
    """No curve takes more registers than another."""
    return [invert()]
