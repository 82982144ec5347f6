"""Kernels compiled by nvcc once per specialisation and architecture, kept in the user's cache.

PyCUDA's own compile cache starts ``nvcc --version`` on every call and the preprocessor on every
source with an ``#include``; ours hashes the text instead and starts nothing on a later run.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cudafilter.errors import EngineError, EngineUnavailable
from cudafilter.toolkit import Toolkit, find_toolkit, kernel_sources, missing

FLAGS = ("-cubin", "-O3", "-std=c++17")
"""No fast math: division and square root round correctly, as the contract with the reference
needs; multiply-adds are fused, which only brings results nearer to it."""

_DIGEST = hashlib.sha256().digest_size


def cache_dir() -> Path:
    """Where compiled kernels are kept: $CUDAFILTER_CACHE, else the user's cache folder."""
    if given := os.environ.get("CUDAFILTER_CACHE"):
        return Path(given)
    from platformdirs import user_cache_path

    return user_cache_path("cudafilter")


def require_toolkit() -> Toolkit:
    """The CUDA toolkit that compiles kernels. Raises EngineUnavailable for what it lacks."""
    for lack in missing():
        raise EngineUnavailable(lack.what, hint=lack.mend)
    toolkit = find_toolkit()
    assert toolkit is not None  # missing() names its absence
    return toolkit


def cubin(variant: str, defines: Mapping[str, int], arch: str, toolkit: Toolkit) -> bytes:
    """The machine code of ``cuda_src/VARIANT.cu`` under *defines* for *arch*, such as ``sm_90``.

    From the cache where it is there and whole, else from nvcc. Raises EngineError with the
    compiler's log where it does not compile.
    """
    path = cache_dir() / f"{variant}-{arch}-{_key(variant, defines, arch, toolkit)}.cubin"
    kept = _read(path)
    if kept is None:
        kept = compile_cubin(variant, defines, arch, toolkit)
        _write(path, kept)
    return kept


def compile_cubin(
    variant: str,
    defines: Mapping[str, int],
    arch: str,
    toolkit: Toolkit,
    log: list[str] | None = None,
) -> bytes:
    """As cubin(), always by nvcc. *log* receives the compiler's resource report."""
    with tempfile.TemporaryDirectory(prefix="cudafilter-") as folder:
        out = Path(folder) / "kernel.cubin"
        command = [
            str(toolkit.nvcc), *FLAGS, f"-arch={arch}", f"-I{toolkit.include}",
            *(f"-D{name}={value}" for name, value in defines.items()),
            *(["-Xptxas", "-v"] if log is not None else []),
            str(kernel_sources() / f"{variant}.cu"), "-o", str(out),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise EngineError(f"cannot start {command[0]}: {error}") from error
        if log is not None:
            log.append(done.stderr)
        if done.returncode != 0:
            raise EngineError(
                f"{variant}.cu does not compile for {arch}:\n{done.stdout}{done.stderr}".rstrip(),
                hint=f"compiler: {toolkit.nvcc}; a GPU newer than it needs a newer CUDA toolkit",
            )
        return out.read_bytes()


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(hashlib.sha256(code).digest() + code)
                file.close()
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        logging.getLogger(__name__).warning(
            "compiled kernels are not kept, so each run compiles anew: %s", error
        )
