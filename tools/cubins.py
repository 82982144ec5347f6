"""Compile the common kernels into the package, for a release: see cudafilter/engines/shipped.py.

python tools/cubins.py                       those of all architectures that users have
python tools/cubins.py --arch sm_90          of one
python tools/cubins.py --check dist/*.whl    whether a wheel has them all, undamaged and not old

What is there already is kept, if the same compiler made it from the same sources.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from time import monotonic

from cudafilter.engines import shipped
from cudafilter.engines.cuda.ahead import common
from cudafilter.engines.nvcc import compile_cubin, package_key
from cudafilter.host.cores import cores, each
from cudafilter.nvidia.nvrtc import Nvrtc
from cudafilter.nvidia.toolkit import find_nvrtc

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
"""Of the GPUs that people have: others compile their kernels when they first use them."""


def make(
    folder: Path, arch: str, compiler: Nvrtc, kernels: list[tuple[str, dict[str, int]]]
) -> int:
    """Put *kernels*, each (variant, macros), for *arch* into *folder*; how many were compiled."""
    made_by = f"NVRTC {compiler.version}"
    wanted = {package_key(*kernel, arch): kernel for kernel in kernels}
    kept: dict[str, bytes] = {}
    with suppress(shipped.Damaged):  # they are compiled again
        index = shipped.index_of(folder, arch)
        if index and index["compiler"] == made_by:
            kept = shipped.all_of(folder, arch)
    missing = [key for key in wanted if key not in kept]

    def one(key: str) -> bytes:
        return compile_cubin(*wanted[key], arch, compiler, apart=True)

    codes = each(one, missing, cores())
    if missing or kept.keys() != wanted.keys():
        found = kept | dict(zip(missing, codes, strict=True))
        shipped.write(folder, arch, {key: found[key] for key in wanted}, compiler.major, made_by)
    return len(missing)


def lacks(folder: Path) -> list[str]:
    """What *folder* lacks of what a release brings, in words."""
    found = []
    for arch in ARCHITECTURES:
        try:
            shipped.verified(folder, arch)
        except shipped.Damaged as damage:
            found.append(str(damage))
            continue
        index = shipped.index_of(folder, arch)
        there = index["kernels"] if index else {}
        missing = {package_key(*kernel, arch) for kernel in common()} - there.keys()
        if missing:
            found.append(f"{len(missing)} kernels of {arch} are missing, or of older sources")
    return found


def lacks_of_wheel(wheel: Path) -> list[str]:
    """As lacks(), of what *wheel* brings."""
    with tempfile.TemporaryDirectory(prefix="cudafilter-") as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        return lacks(Path(folder) / "cudafilter" / "cubins")


def main() -> int:
    """Compile them, or check a wheel; 1 where that fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES)
    parser.add_argument("--check", type=Path, metavar="WHEEL")
    asked = parser.parse_args()
    if asked.check:
        found = lacks_of_wheel(asked.check)
        print("\n".join(found) or f"{asked.check.name}: all kernels are there")
        return 1 if found else 0
    compiler = find_nvrtc()
    if compiler is None:
        print("there is no NVRTC here: pip install nvidia-cuda-nvrtc", file=sys.stderr)
        return 1
    kernels = common()
    print(f"{len(kernels)} kernels an architecture; {compiler}")
    for arch in asked.arch or ARCHITECTURES:
        started = monotonic()
        compiled = make(shipped.FOLDER, arch, compiler, kernels)
        size = (shipped.FOLDER / f"{arch}.xz").stat().st_size
        print(
            f"{arch}: {compiled} compiled, {len(kernels) - compiled} there already,"
            f" {size / 1e6:.2f} MB, {monotonic() - started:.0f} s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
