"""Launches of otsu.cu: the threshold that is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cudafilter.engines.cuda.variants.task import ALPHAS, Launch, Layout, Pass, Size, Task, takes
from cudafilter.errors import LimitError
from cudafilter.operations.point import Otsu

THREADS = 512

COST = 4
"""A sample, in multiply-adds of ``stream``: an estimate. No other variant finds thresholds."""


@dataclass(frozen=True, eq=False)
class Found(Launch):
    """Counted, found and applied: always on the whole image."""

    functions: ClassVar[tuple[str, ...]] = ("count", "clear", "find", "filter")

    @property
    def block(self) -> tuple[int, int, int]:
        """See Launch.block."""
        return THREADS, 1, 1

    @property
    def _bins(self) -> int:
        return 256 if self.itemsize == 1 else 65536

    def scratch_bytes(self, source_size: Size, out_size: Size, origin: Size, resident: int) -> int:
        """See Launch.scratch_bytes."""
        return 4 * self.channels * (self._bins + 1)

    def _passes(self, task: Task, resident: int) -> list[Pass]:
        if task.height * task.width >= 2**32:
            raise LimitError(f"{task.width}x{task.height} pixels are more than can be counted")
        task.rows = blocks = min(task.height, resident)
        colours = self.channels - (self.defines["ALPHA"] != 0)
        return [
            self._pass(task, -(-self.channels * self._bins // THREADS), "clear"),
            self._pass(task, blocks, "count"),
            self._pass(task, colours, "find"),
            self._pass(task, blocks),
        ]


@takes(Otsu)
def plan(found: Otsu, layout: Layout) -> Launch:
    """The launch of *found*."""
    macros = {
        "SAMPLE": layout.sample, "CHANNELS": layout.channels, "KERNELS": 1,
        "ALPHA": ALPHAS["keep" if layout.alpha else None], "THREADS": THREADS,
    }  # fmt: skip
    return Found("otsu", macros, lambda: np.empty(0), Task(), COST)


def hardest() -> list[Otsu]:
    """There is but one."""
    return [Otsu()]
