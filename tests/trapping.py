"""cudafilter with CUDA kernels for gray pictures that trap: python tests/trapping.py ARGUMENTS.

A process of its own, since it loses the GPU for good. What it opens in another one is whole.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cudafilter.engines import nvcc
from cudafilter.engines.cuda import kernels
from cudafilter.engines.cuda.variants.task import Task


def cubin(
    variant: str, defines: Mapping[str, int], arch: str, compiler: nvcc.Compiler, **more: Any
) -> bytes:
    """As nvcc.cubin, but for gray pictures the kernel of trap.cu."""
    if defines["CHANNELS"] != 1:
        return nvcc.cubin(variant, defines, arch, compiler, **more)
    words = ctypes.sizeof(Task) // 8
    source = Path(__file__).with_name("trap.cu")
    return nvcc._compiled(source, {"TASK_WORDS": words}, arch, compiler, apart=False)[0]


def trap() -> None:
    """Have kernels for gray pictures trap in this process."""
    kernels.cubin = cubin  # type: ignore[attr-defined]


if __name__ == "__main__":
    from cudafilter.__main__ import main

    trap()
    main()
