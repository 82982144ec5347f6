"""Launches of the variants whose blocks cover the image in tiles of one size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.variants.task import Launch, Layout, Pass, Task, defines_of, task_of
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel


@dataclass(frozen=True, eq=False)
class Tiles(Launch):
    """A launch of one block a tile."""

    threads: tuple[int, int, int]
    tile: tuple[int, int]
    """Output pixels a block, width and height."""

    @property
    def block(self) -> tuple[int, int, int]:
        """See Launch.block."""
        return self.threads

    def _passes(self, task: Task, resident: int) -> list[Pass]:
        width, task.rows = self.tile
        task.blocks_x = -(-task.width // width)
        return [self._pass(task, task.blocks_x * -(-task.height // task.rows))]


def tiles(
    variant: str,
    filter: Correlation,
    layout: Layout,
    make_weights: Callable[[], npt.NDArray[np.floating]],
    cost: float,
    threads: tuple[int, int, int],
    tile: tuple[int, int],
    **own: int,
) -> Tiles:
    """The launch of *variant*; *own* are its macros beyond those of pixel.cuh and tile_macros."""
    defines = defines_of(filter, layout) | tile_macros(threads, tile) | own
    return Tiles(variant, defines, make_weights, task_of(filter, layout), cost, threads, tile)


def tile_macros(threads: tuple[int, int, int], tile: tuple[int, int]) -> dict[str, int]:
    """The macros that tell a kernel its geometry."""
    return {"TILE_WIDTH": tile[0], "TILE_HEIGHT": tile[1], "THREADS": threads[0] * threads[1]}


def every_kind(most_kernels: int = 2) -> list[Correlation]:
    """Filters of all that such a variant is compiled for: one kernel and two, alpha filtered and
    kept."""
    tap, found = Kernel([[1.0]]), []
    alphas: tuple[Literal["filter", "keep"], ...] = ("filter", "keep")
    for alpha in alphas:
        found.append(Correlation("one", (tap,), alpha=alpha))
        if most_kernels > 1:
            found.append(Correlation("two", (tap, tap), "magnitude", alpha=alpha))
    return found
