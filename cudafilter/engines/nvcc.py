"""Kernels compiled by nvcc once per specialisation and architecture, kept in the user's cache.

PyCUDA's own compile cache starts ``nvcc --version`` on every call and the preprocessor on every
source with an ``#include``; ours hashes the text instead and starts nothing on a later run.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from cudafilter.errors import EngineError, EngineUnavailable
from cudafilter.host.cores import each
from cudafilter.host.escape import escaped
from cudafilter.nvidia.toolkit import (
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

_ABANDONED = 3600
"""Seconds after which a temporary in the cache is that of a killed process."""

_TEMPORARY = re.compile(r"\.[0-9a-f]+-[0-9a-f]+\.part|tmp[a-z0-9_]{8}")

_OTHERS = stat.S_IWGRP | stat.S_IWOTH

_told: set[str] = set()
"""What was told of the cache already."""


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

    From the cache where it is there and whole, else from nvcc. A cache that others can write to is
    not used, which is told once. Raises EngineError with the compiler's log where it does not
    compile.
    """
    path = _path(variant, defines, arch, toolkit)
    if (unsafe := _unsafe(path.parent)) is not None:
        _tell(f"compiled kernels are not kept, so each run compiles anew: {unsafe}")
        return compile_cubin(variant, defines, arch, toolkit)
    kept = _read(path)
    if kept is None:
        kept = compile_cubin(variant, defines, arch, toolkit)
        try:
            _write(path, kept)
        except OSError as error:
            _tell(f"compiled kernels are not kept, so each run compiles anew: {error}")
    return kept


def _tell(text: str) -> None:
    """Tell *text* once."""
    if text not in _told:
        _told.add(text)
        logging.getLogger(__name__).warning("%s", escaped(text))


def compile_ahead(
    kernels: Iterable[tuple[str, Mapping[str, int]]],
    arch: str,
    toolkit: Toolkit,
    jobs: int,
    on_kernel: Callable[[], None] = lambda: None,
) -> tuple[int, int]:
    """Bring *kernels*, (variant, macros) each, into the cache, *jobs* compilers side by side.

    *on_kernel* is called as each one is there, from the thread that brought it. Returns how many
    were compiled and how many were there already. Raises EngineError for the first that does not
    compile and for a cache that others can write to, and OSError where it cannot be written; no
    further one is begun then.
    """
    _make_private(cache_dir())  # better known before the work than after
    if (unsafe := _unsafe(cache_dir())) is not None:
        what, _, mend = unsafe.partition("; ")
        raise EngineError(what, hint=mend)

    def bring(kernel: tuple[str, Mapping[str, int]]) -> bool:
        path = _path(*kernel, arch, toolkit)
        missing = _read(path) is None
        if missing:
            _write(path, compile_cubin(*kernel, arch, toolkit))
        on_kernel()
        return missing

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


def _unsafe(folder: Path) -> str | None:
    """Why the kernels in *folder* may be another's work, "; " and what to do; None if they are not.

    The digest in a kernel's file tells damage, not malice: who plants a kernel computes it.
    """
    with suppress(OSError):  # it is made, or cannot be used, which is told then
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
    """A kept kernel; None where there is none, it is damaged, or others may have written it.

    The digest leads the file.
    """
    try:
        # Not through a link, and judged by what was opened: so none can take its place meanwhile.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not _is_ours(status.st_uid) or status.st_mode & _OTHERS:
                return None
            content = file.read()
    except OSError:
        return None
    digest, kept = content[:_DIGEST], content[_DIGEST:]
    return kept if hashlib.sha256(kept).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    """Keep a kernel: written beside its place, then renamed, so that no one reads half of it."""
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
    """Make *folder*, and those above that are missing, for this user only, whatever the umask."""
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
