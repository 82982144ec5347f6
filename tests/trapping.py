"""cudafilter with CUDA kernels for gray pictures that trap: python tests/trapping.py ARGUMENTS.

A process of its own, since it loses the GPU for good. What it opens in another one is whole.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cudafilter.engines import nvcc
from cudafilter.engines.cuda import kernels
from cudafilter.engines.cuda.variants.task import Task
from cudafilter.nvidia.toolkit import Toolkit


def cubin(
    variant: str, defines: Mapping[str, int], arch: str, toolkit: Toolkit, **more: Any
) -> bytes:
    """As nvcc.cubin, but for gray pictures the kernel of trap.cu."""
    if defines["CHANNELS"] != 1:
        return nvcc.cubin(variant, defines, arch, toolkit, **more)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "trap.cubin"
        words = ctypes.sizeof(Task) // 8
        options = ["-cubin", f"-arch={arch}", f"-DTASK_WORDS={words}", "-o", str(out)]
        source = Path(__file__).with_name("trap.cu")
        subprocess.run([toolkit.nvcc, *options, source], check=True, timeout=60)
        return out.read_bytes()


def trap() -> None:
    """Have kernels for gray pictures trap in this process."""
    kernels.cubin = cubin  # type: ignore[attr-defined]


if __name__ == "__main__":
    from cudafilter.__main__ import main

    trap()
    main()
