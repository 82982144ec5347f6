"""Kernels compiled ahead, all cores at it: a tool that runs hundreds would wait for each one."""

from __future__ import annotations

from collections.abc import Iterable

from cudafilter.engines.cuda.chains import stretch_for
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.engines.cuda.variants.ladder import prepare
from cudafilter.engines.cuda.variants.task import Launch
from cudafilter.engines.nvcc import compile_ahead, require_cuda
from cudafilter.errors import LimitError
from cudafilter.host.cores import cores
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Fork, Operation, stages_of


def launches(
    operation: Operation, channels: int, dtype: str, border: Border, alpha: bool, variant: str
) -> list[Launch]:
    """What *variant* launches for *operation*; none where it refuses one."""
    plan = operation.unrolled(border)
    try:
        if any(isinstance(each, Fork) for each in plan):
            return [
                prepare(stage.operation, channels, dtype, stage.border, alpha, variant)
                for stage in stages_of(plan)
            ]
        stretch = stretch_for(operation, border, channels, dtype, alpha, variant)
    except LimitError:
        return []
    return [*stretch.launches] if stretch else []


def compile_for(engine: CudaEngine, wanted: Iterable[Launch]) -> None:
    """Bring the kernels of *wanted* into the cache, for the GPU of *engine*."""
    kernels = {
        (each.variant, *each.defines.items()): (each.variant, each.defines) for each in wanted
    }
    compile_ahead(kernels.values(), engine._device._kernels._arch, require_cuda(), cores())
