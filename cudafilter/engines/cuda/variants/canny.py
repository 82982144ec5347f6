"""Launches of canny.cu: edges by Canny."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.variants.task import ALPHAS, Launch, Layout, Pass, Size, Task, takes
from cudafilter.errors import LimitError
from cudafilter.operations.canny import Canny
from cudafilter.operations.choices import BORDERS

THREADS = 256

COST = 60
"""A sample, in multiply-adds of ``stream``: an estimate. No other variant finds such edges."""

MOST_SAMPLES = 2**31
"""A sample's number has 31 bits."""


@dataclass(frozen=True, eq=False)
class Edges(Launch):
    """A pass for each step; always on the whole image."""

    functions: ClassVar[tuple[str, ...]] = ("mark", "down", "across", "merge", "reach", "filter")
    weights_in_constant_memory: ClassVar[bool] = False

    @property
    def block(self) -> tuple[int, int, int]:
        """See Launch.block."""
        return THREADS, 1, 1

    @property
    def _colours(self) -> int:
        return self.channels - (self.defines["ALPHA"] != 0)

    def scratch_bytes(self, source_size: Size, out_size: Size, origin: Size, resident: int) -> int:
        """See Launch.scratch_bytes."""
        height, width = out_size
        levels = (height + 2) * (2 * width + 2)
        return self._colours * (2 * levels + 4 * height * width) + 16

    def _passes(self, task: Task, resident: int) -> list[Pass]:
        height, width = task.height, task.width
        if height * width * self._colours >= MOST_SAMPLES:
            raise LimitError(
                f"{width}x{height} pixels of {self._colours} colours are too many for canny on a"
                f" GPU: {MOST_SAMPLES:,} samples",
                hint="use --engine cpu",
            )
        task.blocks_x = -(-(width + 2) * self._colours // THREADS)
        rows = {"down": height + 2, "across": height + 2}
        rows |= dict.fromkeys(("mark", "merge", "reach", "filter"), height)
        return [self._pass(task, task.blocks_x * count, name) for name, count in rows.items()]


@takes(Canny)
def plan(canny: Canny, layout: Layout) -> Launch:
    """The launch of *canny*."""

    def numbers() -> npt.NDArray[np.floating]:
        limits = [part for limit in canny.limits for part in divmod(limit, 1 << 20)]
        return np.array([*limits, len(canny.weights) // 2, *canny.weights], np.float64)

    macros = {
        "SAMPLE": layout.sample, "CHANNELS": layout.channels, "KERNELS": 1,
        "ALPHA": ALPHAS["keep" if layout.alpha else None], "THREADS": THREADS,
    }  # fmt: skip
    task = Task(
        border=BORDERS.index(layout.border.mode), border_value=layout.border.sample(layout.dtype)
    )
    return Edges("canny", macros, numbers, task, COST)


def hardest() -> list[Canny]:
    """There is but one."""
    return [Canny()]
