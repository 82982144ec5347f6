"""Kernels compiled once per specialisation and architecture, kept in the user's cache.

Those that the package brings along need no compiler. NVRTC compiles the others, or nvcc where NVRTC
is not here.

PyCUDA's own cache starts ``nvcc --version`` on every call, and the preprocessor for every source
with an ``#include``. This one hashes the sources instead, so a later run starts no process.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from cudafilter.engines import shipped
from cudafilter.errors import EngineError, EngineUnavailable
from cudafilter.host.cores import each
from cudafilter.host.escape import escaped
from cudafilter.nvidia import nvrtc
from cudafilter.nvidia.nvrtc import CompileError, Nvrtc
from cudafilter.nvidia.toolkit import (
    Missing,
    Toolkit,
    driver_version,
    find_compiler,
    kernel_sources,
    missing,
    missing_compiler,
)

NVRTC_FLAGS = ("--std=c++17", "--device-as-default-execution-space", "--ptxas-options=-v")
FLAGS = ("-cubin", "-O3", "-std=c++17", "-Xptxas", "-v")
"""No fast math: the contract needs division and square root to round correctly. Multiply-adds are
fused, which only brings results nearer to the reference."""

FEWEST_BLOCKS = 4
"""One warp for each quarter of a multiprocessor: a thread may have as many registers as it can."""

Compiler = Nvrtc | Toolkit

_SPILLS = re.compile(r"[1-9]\d* bytes stack frame")

_DIGEST = hashlib.sha256().digest_size

_ABANDONED = 3600
"""Seconds after which a temporary in the cache belongs to a killed process."""

_TEMPORARY = re.compile(r"\.[0-9a-f]+-[0-9a-f]+\.part|tmp[a-z0-9_]{8}")

_OTHERS = stat.S_IWGRP | stat.S_IWOTH

_told: set[str] = set()
"""What the user was told of the cache already."""


def cache_dir() -> Path:
    """Where compiled kernels are kept: $CUDAFILTER_CACHE, else the user's cache folder."""
    if given := os.environ.get("CUDAFILTER_CACHE"):
        return Path(given)
    from platformdirs import user_cache_path

    return user_cache_path("cudafilter")


def require_cuda() -> Compiler:
    """What compiles kernels. Raises EngineUnavailable for what CUDA lacks here."""
    return _compiler_unless(missing())


def require_compiler() -> Compiler:
    """As require_cuda(), but the machine needs no GPU."""
    return _compiler_unless(missing_compiler())


def _compiler_unless(lacking: list[Missing]) -> Compiler:
    for lack in lacking:
        raise EngineUnavailable(lack.what, hint=lack.mend)
    compiler = find_compiler()
    assert compiler is not None  # its absence is among what lacks
    return compiler


def cubin(
    variant: str,
    defines: Mapping[str, int],
    arch: str,
    compiler: Compiler,
    *,
    refused: object = None,
) -> bytes:
    """The machine code of ``cuda_src/VARIANT.cu`` under *defines* for *arch*, such as ``sm_90``.

    It comes from the cache where that has it undamaged, else from the package, else from the
    compiler. A damaged one is told, and so is one that the driver did not load: *refused* is its
    reason. A cache that others can write to is not used; the user is told once of what is compiled
    for that. Raises EngineError, with the compiler's log, where the kernel does not compile.
    """
    path = _path(variant, defines, arch, compiler)
    fault, code = cache_fault(path.parent), None
    if refused is not None:
        _tell(f"{path}: compiled anew, as the driver does not load it: {refused}")
    else:
        if fault is None and (kept := _read(path)) is not None:
            return kept
        code = _from_package(variant, defines, arch)
    compiled = code is None
    if code is None:
        code = compile_cubin(variant, defines, arch, compiler)
    if fault is None:
        try:
            _write(path, code)
        except OSError as error:
            fault = str(error)
    if compiled and fault is not None:
        _tell(f"compiled kernels are not kept, so each run compiles anew: {fault}")
    return code


def package_key(variant: str, defines: Mapping[str, int], arch: str) -> str:
    """What the package knows a kernel by: its variant, and a hash of source, macros and options."""
    return f"{variant}-{_key(variant, defines, arch, NVRTC_FLAGS)}"


def _from_package(variant: str, defines: Mapping[str, int], arch: str) -> bytes | None:
    """The kernel that the package brings; None if it brings none for these sources."""
    driver = driver_version()
    key = package_key(variant, defines, arch)
    try:
        return shipped.find(shipped.FOLDER, arch, key, driver and driver[0])
    except shipped.Damaged as damage:
        _tell(f"{damage}; its kernels are compiled")
        return None


def _tell(text: str) -> None:
    """Tell *text* once."""
    if text not in _told:
        _told.add(text)
        logging.getLogger(__name__).warning("%s", escaped(text))


def compile_ahead(
    kernels: Iterable[tuple[str, Mapping[str, int]]],
    arch: str,
    compiler: Compiler,
    jobs: int,
    on_kernel: Callable[[], None] = lambda: None,
) -> tuple[int, int]:
    """Compile *kernels*, each (variant, macros), into the cache with *jobs* compilers at a time.

    *on_kernel* is called after each kernel, from the thread that compiled it. Returns how many
    were compiled and how many were there already, in the cache or the package. Raises EngineError
    for the first one that does not compile and for a cache that others can write to, and OSError
    where the cache cannot be written. After an error no further kernel is begun.
    """
    _make_private(cache_dir())  # better known before the work than after
    if (unsafe := cache_fault(cache_dir())) is not None:
        what, _, mend = unsafe.partition("; ")
        raise EngineError(what, hint=mend)

    def bring(kernel: tuple[str, Mapping[str, int]]) -> bool:
        path = _path(*kernel, arch, compiler)
        missing = _read(path) is None and _from_package(*kernel, arch) is None
        if missing:
            _write(path, compile_cubin(*kernel, arch, compiler, apart=True))
        on_kernel()
        return missing

    brought = each(bring, [*kernels], jobs)
    compiled = sum(brought)
    return compiled, len(brought) - compiled


def compile_cubin(
    variant: str,
    defines: Mapping[str, int],
    arch: str,
    compiler: Compiler,
    log: list[str] | None = None,
    *,
    apart: bool = False,
) -> bytes:
    """As cubin(), but never from the cache. *log* receives the compiler's resource report.

    *apart* is for several at a time, each by a process of its own.

    The macro BLOCKS is the number of warps that are to be resident, which limits the registers of
    each. What a kernel needs depends on the compiler. So where registers spill, it is compiled
    again for fewer warps.
    """
    source, defines = kernel_sources() / f"{variant}.cu", dict(defines)
    while True:
        code, report = _compiled(source, defines, arch, compiler, apart)
        if defines.get("BLOCKS", 0) <= FEWEST_BLOCKS or not _SPILLS.search(report):
            break
        defines["BLOCKS"] -= FEWEST_BLOCKS
    if log is not None:
        log.append(report)
    return code


def _compiled(
    source: Path, defines: Mapping[str, int], arch: str, compiler: Compiler, apart: bool
) -> tuple[bytes, str]:
    """The machine code of *source*, and what *compiler* reports of it."""
    macros = [f"-D{name}={value}" for name, value in defines.items()]
    try:
        if isinstance(compiler, Toolkit):
            return _run_nvcc(source, [f"-arch={arch}", *macros], compiler)
        options = [f"--gpu-architecture={arch}", *_flags(compiler), *macros]
        if apart:
            return _run_nvrtc(source, options, compiler)
        headers = {header.name: header.read_bytes() for header in source.parent.glob("*.cuh")}
        return compiler.compile(source.name, source.read_bytes(), headers, options)
    except CompileError as error:
        raise EngineError(
            f"{source.name} does not compile for {arch}:\n{error}",
            hint=f"compiler: {compiler}; a GPU newer than it needs a newer one",
        ) from error
    except OSError as error:
        raise EngineError(f"cannot start {compiler}: {error}") from error


def _flags(compiler: Compiler) -> tuple[str, ...]:
    """What *compiler* is told beside architecture and macros."""
    return FLAGS if isinstance(compiler, Toolkit) else NVRTC_FLAGS


def _run_nvrtc(source: Path, options: list[str], compiler: Nvrtc) -> tuple[bytes, str]:
    """The machine code and the report, by a process of its own. Raises CompileError."""
    command = [sys.executable, nvrtc.__file__, str(compiler.library), str(source), *options]
    done = subprocess.run(command, capture_output=True)
    report = done.stderr.decode(errors="replace").rstrip()
    if done.returncode != 0:
        raise CompileError(report)
    return done.stdout, report


def _run_nvcc(source: Path, options: list[str], toolkit: Toolkit) -> tuple[bytes, str]:
    """The machine code and the report. Raises CompileError."""
    with tempfile.TemporaryDirectory(prefix="cudafilter-") as folder:
        out = Path(folder) / "kernel.cubin"
        command = [
            str(toolkit.nvcc), *_flags(toolkit), f"-I{toolkit.include}", *options,
            str(source), "-o", str(out),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode != 0:
            raise CompileError(f"{done.stdout}{done.stderr}".rstrip())
        return out.read_bytes(), done.stderr


def _path(variant: str, defines: Mapping[str, int], arch: str, compiler: Compiler) -> Path:
    """Where the cache keeps a kernel."""
    key = _key(variant, defines, arch, _flags(compiler), compiler.identity)
    return cache_dir() / f"{variant}-{arch}-{key}.cubin"


def _key(variant: str, defines: Mapping[str, int], *how: object) -> str:
    """A hash of all that decides the machine code: source, defines, and *how* it is compiled."""
    digest = hashlib.sha256()
    sources = kernel_sources()
    for source in (sources / f"{variant}.cu", *sorted(sources.glob("*.cuh"))):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    digest.update(repr((sorted(defines.items()), *how)).encode())
    return digest.hexdigest()[:32]


def cache_fault(folder: Path) -> str | None:
    """Why another user may have written the kernels in *folder*, and what to do; None if none can.

    A kernel's digest shows damage, not malice: whoever plants a kernel can compute it.
    """
    with suppress(OSError):  # _make_private() makes it, or says why it cannot
        status = os.stat(folder)
        if not _is_ours(status.st_uid):
            return (
                f"the cache {folder} belongs to another user;"
                " set CUDAFILTER_CACHE to a folder of your own"
            )
        if status.st_mode & _OTHERS:
            return f"others can write to the cache {folder}; forbid it: chmod go-w '{folder}'"
    for above in folder.resolve().parents:
        with suppress(OSError):
            mode = os.stat(above).st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                return f"all can put another cache into {above}; forbid it: chmod o-w '{above}'"
    return None


def _is_ours(owner: int) -> bool:
    """Whether files of *owner* are this user's or root's."""
    return not hasattr(os, "geteuid") or owner in (0, os.geteuid())


def _read(path: Path) -> bytes | None:
    """A kernel of the cache; None if it is missing, damaged, or may be another user's.

    The digest leads the file.
    """
    try:
        # No link is followed, and the open file is judged, so nobody can exchange it meanwhile.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not _is_ours(status.st_uid) or status.st_mode & _OTHERS:
                return None
            content = file.read()
    except OSError:
        return None
    digest, kept = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(kept).digest() != digest:
        _tell(f"{path}: not used, as it is damaged")
        return None
    return kept


def _write(path: Path, code: bytes) -> None:
    """Keep a kernel: write it beside its place and rename it, so that nobody reads half of it."""
    _make_private(path.parent)
    _sweep(path.parent)
    temporary = path.with_name(f".{os.getpid():x}-{time.monotonic_ns():x}.part")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _make_private(folder: Path) -> None:
    """Make *folder* and missing parents for this user only, whatever the umask."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(exist_ok=True)  # raises what is wrong with one that is there, but no folder


def _sweep(folder: Path) -> None:
    """Remove the temporaries of processes that were killed."""
    for entry in os.scandir(folder):
        if _TEMPORARY.fullmatch(entry.name):
            with suppress(OSError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED:
                    os.unlink(entry.path)
