"""Compile every kernel for every architecture and print what it takes; fail on a spill.

make kernels            all specialisations for one architecture, a choice for the others
python tools/kernels.py --all   all specialisations for all architectures

A variant that is compiled for each kernel size: those for common filters and for large ones.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from cudafilter.engines.cuda.ahead import EVERY, PNG, every, proofs
from cudafilter.engines.cuda.variants import LADDER
from cudafilter.engines.nvcc import Compiler, compile_cubin, require_compiler
from cudafilter.errors import EngineUnavailable
from cudafilter.host.cores import cores

COMPLETE = "sm_90"
"""The architecture that every specialisation is compiled for; others get every STRIDE-th one."""

ARCHITECTURES = (COMPLETE, "sm_75", "sm_80", "sm_86", "sm_89", "sm_100", "sm_120")

STRIDE = 5
"""No divisor of the sample types times the layouts, so that every one of them is met. Each
architecture begins with another one, so that each specialisation is compiled for some of them."""


KERNELS = (*LADDER, "proof", "deflate", "unfilter")
"""The variants, what proves their results, and what codes PNGs."""


class Usage(NamedTuple):
    """What ptxas says of one kernel."""

    variant: str
    arch: str
    defines: dict[str, int]
    registers: int
    shared_bytes: int
    spill_bytes: int
    stack_bytes: int


def work(everywhere: bool) -> Iterator[tuple[str, str, dict[str, int]]]:
    for variant in KERNELS:
        apart = {"proof": proofs(EVERY), "deflate": PNG[:1], "unfilter": PNG[1:]}
        every_one = every(variant) if variant in LADDER else [one[1] for one in apart[variant]]
        for first, arch in enumerate(ARCHITECTURES):
            for i, defines in enumerate(every_one):
                if everywhere or arch == COMPLETE or i % STRIDE == first % STRIDE:
                    yield variant, arch, defines


def measure(compiler: Compiler, variant: str, arch: str, defines: dict[str, int]) -> Usage:
    log: list[str] = []
    compile_cubin(variant, defines, arch, compiler, log, apart=True)

    def numbers(pattern: str) -> list[int]:  # of each kernel in the file
        return [int(found) for found in re.findall(pattern, log[0])]

    return Usage(
        variant, arch, defines,
        registers=max(numbers(r"Used (\d+) registers")),
        shared_bytes=max(numbers(r"(\d+) bytes smem"), default=0),
        spill_bytes=sum(numbers(r"(\d+) bytes spill")),
        stack_bytes=sum(numbers(r"(\d+) bytes stack frame")),
    )  # fmt: skip


def main() -> int:
    try:
        compiler = require_compiler()
    except EngineUnavailable as lack:
        print(f"kernels: skipped, {lack}")
        return 0
    print(compiler)
    with ThreadPoolExecutor(cores()) as pool:
        jobs = [pool.submit(measure, compiler, *item) for item in work("--all" in sys.argv)]
        usages = [job.result() for job in jobs]
    print(
        f"{'variant':12}{'arch':8}{'kernels':>8}{'registers':>12}{'shared bytes':>16}{'spills':>8}"
    )
    for variant in KERNELS:
        for arch in ARCHITECTURES:
            group = [u for u in usages if (u.variant, u.arch) == (variant, arch)]
            registers = [u.registers for u in group]
            shared = [u.shared_bytes for u in group]
            spills = sum(u.spill_bytes > 0 for u in group)
            print(
                f"{variant:12}{arch:8}{len(group):8}{min(registers):8} ..{max(registers)}"
                f"{min(shared):10} ..{max(shared)}{spills:8}"
            )
    bad = [u for u in usages if u.spill_bytes or u.stack_bytes]
    for usage in bad:
        print(f"spills: {usage}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
