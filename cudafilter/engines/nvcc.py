"""Kernels compiled by nvcc once per specialisation and architecture, kept in the user's cache.

PyCUDA's own compile cache starts ``nvcc --version`` on every call and the preprocessor on every
source with an ``#include``; ours hashes the text instead and starts nothing on a later run.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from cudafilter.cores import each
from cudafilter.errors import EngineError, EngineUnavailable
from cudafilter.toolkit import (
    Missing,
    Toolkit,
    find_toolkit,
    kernel_sources,
    missing,
    missing_compiler,
)

FLAGS = ("-cubin", "-O3", "-std=c++17", "-Xptxas", "-v")
"""No fast math: division and square root round correctly, as the contract with the reference
needs; multiply-adds are fused, which only brings results nearer to it."""

FEWEST_BLOCKS = 4
"""One warp for each quarter of a multiprocessor: all registers that a thread can have."""

_SPILLS = re.compile(r"[1-9]\d* bytes stack frame")

_DIGEST = hashlib.sha256().digest_size


def cache_dir() -> Path:
    """Where compiled kernels are kept: $CUDAFILTER_CACHE, else the user's cache folder."""
    if given := os.environ.get("CUDAFILTER_CACHE"):
        return Path(given)
    from platformdirs import user_cache_path

    return user_cache_path("cudafilter")


def require_toolkit() -> Toolkit:
    """The CUDA toolkit that compiles kernels. Raises EngineUnavailable for what CUDA lacks here."""
    return _toolkit_unless(missing())


def require_compiler() -> Toolkit:
    """As require_toolkit(), on a machine that need not have a GPU."""
    return _toolkit_unless(missing_compiler())


def _toolkit_unless(lacking: list[Missing]) -> Toolkit:
    for lack in lacking:
        raise EngineUnavailable(lack.what, hint=lack.mend)
    toolkit = find_toolkit()
    assert toolkit is not None  # its absence is among what lacks
    return toolkit


def cubin(variant: str, defines: Mapping[str, int], arch: str, toolkit: Toolkit) -> bytes:
    """The machine code of ``cuda_src/VARIANT.cu`` under *defines* for *arch*, such as ``sm_90``.

    From the cache where it is there and whole, else from nvcc. Raises EngineError with the
    compiler's log where it does not compile.
    """
    path = _path(variant, defines, arch, toolkit)
    kept = _read(path)
    if kept is None:
        kept = compile_cubin(variant, defines, arch, toolkit)
        try:
            _write(path, kept)
        except OSError as error:
            logging.getLogger(__name__).warning(
                "compiled kernels are not kept, so each run compiles anew: %s", error
            )
    return kept


def compile_ahead(
    kernels: Iterable[tuple[str, Mapping[str, int]]], arch: str, toolkit: Toolkit, jobs: int
) -> tuple[int, int]:
    """Bring *kernels*, (variant, macros) each, into the cache, *jobs* compilers side by side.

    Returns how many were compiled and how many were there already. Raises EngineError for the
    first that does not compile and OSError where the cache cannot be written; no further one is
    begun then.
    """
    cache_dir().mkdir(parents=True, exist_ok=True)  # better known before the work than after

    def bring(kernel: tuple[str, Mapping[str, int]]) -> bool:
        path = _path(*kernel, arch, toolkit)
        if _read(path) is not None:
            return False
        _write(path, compile_cubin(*kernel, arch, toolkit))
        return True

    brought = each(bring, [*kernels], jobs)
    compiled = sum(brought)
    return compiled, len(brought) - compiled


def compile_cubin(
    variant: str,
    defines: Mapping[str, int],
    arch: str,
    toolkit: Toolkit,
    log: list[str] | None = None,
) -> bytes:
    """As cubin(), always by nvcc. *log* receives the compiler's resource report.

    BLOCKS, among *defines*, asks for registers so few that so many warps are resident. What a
    kernel needs depends on the compiler, so where registers spill it is compiled for fewer warps.
    """
    defines = dict(defines)
    while True:
        code, report = _run_nvcc(variant, defines, arch, toolkit)
        if defines.get("BLOCKS", 0) <= FEWEST_BLOCKS or not _SPILLS.search(report):
            break
        defines["BLOCKS"] -= FEWEST_BLOCKS
    if log is not None:
        log.append(report)
    return code


def _run_nvcc(
    variant: str, defines: Mapping[str, int], arch: str, toolkit: Toolkit
) -> tuple[bytes, str]:
    """The machine code, and what the compiler reports of it."""
    with tempfile.TemporaryDirectory(prefix="cudafilter-") as folder:
        out = Path(folder) / "kernel.cubin"
        command = [
            str(toolkit.nvcc), *FLAGS, f"-arch={arch}", f"-I{toolkit.include}",
            *(f"-D{name}={value}" for name, value in defines.items()),
            str(kernel_sources() / f"{variant}.cu"), "-o", str(out),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise EngineError(f"cannot start {command[0]}: {error}") from error
        if done.returncode != 0:
            raise EngineError(
                f"{variant}.cu does not compile for {arch}:\n{done.stdout}{done.stderr}".rstrip(),
                hint=f"compiler: {toolkit.nvcc}; a GPU newer than it needs a newer CUDA toolkit",
            )
        return out.read_bytes(), done.stderr


def _path(variant: str, defines: Mapping[str, int], arch: str, toolkit: Toolkit) -> Path:
    """Where the cache keeps a kernel."""
    return cache_dir() / f"{variant}-{arch}-{_key(variant, defines, arch, toolkit)}.cubin"


def _key(variant: str, defines: Mapping[str, int], arch: str, toolkit: Toolkit) -> str:
    """A hash of all that decides the machine code: source, defines, architecture, compiler."""
    digest = hashlib.sha256()
    sources = kernel_sources()
    for source in (sources / f"{variant}.cu", *sorted(sources.glob("*.cuh"))):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    digest.update(repr((sorted(defines.items()), arch, FLAGS, toolkit.identity)).encode())
    return digest.hexdigest()[:32]


def _read(path: Path) -> bytes | None:
    """A kept kernel; None where there is none or it is damaged (the digest leads the file)."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, kept = content[:_DIGEST], content[_DIGEST:]
    return kept if hashlib.sha256(kept).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    """Keep a kernel: written beside its place, then renamed, so that no one reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(hashlib.sha256(code).digest() + code)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
