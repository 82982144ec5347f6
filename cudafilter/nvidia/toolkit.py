"""Finds CUDA's compilers, their headers and the driver by looking at files; starts no process.

``python -m cudafilter.toolkit`` says what was found, or what is missing and what mends it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cudafilter.errors import EngineUnavailable
from cudafilter.nvidia.nvrtc import WINDOWS as WINDOWS
from cudafilter.nvidia.nvrtc import Nvrtc, in_folder

NVCC = "nvcc.exe" if WINDOWS else "nvcc"
DRIVER = "nvcuda.dll" if WINDOWS else "libcuda.so.1"

DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-gpu", "/dev/nvmap")
"""Where the system has an NVIDIA GPU, one of these files exists: on PCs, WSL, Jetson."""

VARIABLES = ("CUDA_ROOT", "CUDA_HOME", "CUDA_PATH")
"""Environment variables that name a toolkit, the first one first."""

HEADERS = ("cuda.h", "cuda_runtime.h", "crt/host_config.h")
"""Headers that kernels include. A folder without them is no toolkit, whatever else it holds."""

DEFAULT_FOLDERS = (
    Path(r"C:\Program Files\NVIDIA GPU Computing Toolkit\CUDA") if WINDOWS else Path("/usr/local")
)

PYPI = "PyPI packages"

_SYSTEM_LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib",
)  # fmt: skip

_NO_PYCUDA = "PyCUDA is not installed"

_WRAPPER_BYTES = 64 << 10
"""A larger file is the compiler itself, not a script that starts it."""


@dataclass(frozen=True)
class Toolkit:
    """A CUDA compiler with the headers that belong to it."""

    nvcc: Path
    """The compiler itself, links and wrapper scripts resolved. Start it by this path."""
    root: Path
    """The toolkit's folder, as PyCUDA's CUDA_ROOT wants it."""
    include: Path
    """The folder of ``cuda.h``."""
    origin: str
    """Where it was found, in words: ``CUDA_HOME``, ``nvcc on PATH``, ``PyPI packages``."""
    passed_over: tuple[str, ...] = ()
    """Places that were asked before this one and held no toolkit, in words."""

    @property
    def identity(self) -> str:
        """Changes when the compiler does: its path, size in bytes and time of change in ns."""
        stat = self.nvcc.stat()
        return f"{self.nvcc}:{stat.st_size}:{stat.st_mtime_ns}"

    @property
    def version(self) -> tuple[int, int] | None:
        """The toolkit's (major, minor), as ``cuda.h`` tells it; None if it does not."""
        found = re.search(
            r"^#define\s+CUDA_VERSION\s+(\d+)",
            (self.include / "cuda.h").read_text(errors="replace"),
            re.MULTILINE,
        )
        return _version(int(found[1])) if found else None

    def __str__(self) -> str:
        number = ".".join(map(str, self.version or ())) or "of unknown version"
        return f"CUDA {number} in {self.root} ({self.origin}), compiler {self.nvcc}"


class Missing(NamedTuple):
    """Something the CUDA engine lacks."""

    what: str
    mend: str
    """The command that mends it, or what to do where no command can."""


def kernel_sources() -> Path:
    """The folder of the CUDA C sources: inside an installed package, or beside it in a checkout.

    Raises EngineUnavailable if neither has it.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "cuda_src", package.parent / "cuda_src"):
        if folder.is_dir():
            return folder
    raise EngineUnavailable(
        f"the CUDA kernels are missing: no cuda_src folder in {package} nor beside it",
        hint="install cudafilter again, or run it from a complete checkout",
    )


def find_toolkit() -> Toolkit | None:
    """The CUDA toolkit to compile with, or None.

    In this order: the environment variables CUDA_ROOT, CUDA_HOME and CUDA_PATH, nvcc on PATH,
    the default folder, the newest of the numbered default folders, and the compiler that PyPI's
    packages bring. A place that lacks the compiler or its headers is passed over.
    """
    passed_over: list[str] = []
    for origin, nvcc in _candidates():
        found = _toolkit(origin, nvcc, tuple(passed_over))
        if found:
            return found
        if origin in VARIABLES:
            passed_over.append(f"{origin} ({nvcc.parent.parent}) has no nvcc with its headers")
        elif nvcc.is_file():
            passed_over.append(f"{nvcc} ({origin}) has no headers beside it")
    return None


def find_nvrtc() -> Nvrtc | None:
    """The NVRTC to compile with, no newer than the driver; None where there is none.

    In this order: where the environment variables CUDA_ROOT, CUDA_HOME and CUDA_PATH say, PyPI's
    package, the toolkit of the nvcc on PATH, the default folders, and the system's libraries.
    """
    driver = driver_version()
    for origin, folder in _library_folders():
        if found := in_folder(folder, origin, driver and driver[0]):
            return found
    return None


def find_compiler() -> Nvrtc | Toolkit | None:
    """What kernels are compiled with: NVRTC, or nvcc where that is not here."""
    return find_nvrtc() or find_toolkit()


def _library_folders() -> Iterator[tuple[str, Path]]:
    """(origin, folder that may hold NVRTC), the most wanted first."""
    for origin, root in _library_roots():
        for part in ("bin", "bin/x64") if WINDOWS else ("lib64", "lib", "targets/*/lib"):
            for folder in root.glob(part):
                yield origin, folder
    for place in (*_SYSTEM_LIBRARIES, f"{sys.prefix}/lib"):
        yield "the system's libraries", Path(place)


def _library_roots() -> Iterator[tuple[str, Path]]:
    """(origin, folder of a toolkit or package)."""
    for variable in VARIABLES:
        if named := os.environ.get(variable):
            yield variable, Path(named)
    for root in sorted(_pypi_folders(), key=_number, reverse=True):
        yield PYPI, root
    for home in _pypi_homes():
        yield PYPI, home / "cuda_nvrtc"
    for origin, nvcc in _candidates():
        yield origin, nvcc.parent.parent


def has_host_compiler() -> bool:
    """Whether nvcc will find the C++ compiler that it preprocesses with (gcc with g++, or cl)."""
    flags = os.environ.get("NVCC_PREPEND_FLAGS", "") + os.environ.get("NVCC_APPEND_FLAGS", "")
    if os.environ.get("NVCC_CCBIN") or "-ccbin" in flags or "--compiler-bindir" in flags:
        return True
    from shutil import which

    return all(which(program) for program in (("cl",) if WINDOWS else ("gcc", "g++")))


def driver_present() -> bool:
    """Whether NVIDIA's driver can be loaded. It is loaded for that, but no GPU is started."""
    return driver_version() is not None


def driver_version() -> tuple[int, int] | None:
    """The newest CUDA (major, minor) that the driver runs; None without a driver."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    number = ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(number))
    return _version(number.value)


def no_gpu() -> str | None:
    """Why no GPU can be used here; None where one may answer. Nothing is started for that.

    It checks less than missing() and takes less than a millisecond where there is a GPU.
    """
    if not WINDOWS and not any(map(os.path.exists, DEVICES)):
        return "the NVIDIA driver shows no GPU" if driver_present() else _no_driver().what
    return _NO_PYCUDA if importlib.util.find_spec("pycuda") is None else None


def _no_driver() -> Missing:
    if Path("/proc/driver/nvidia").exists():
        return Missing(
            f"the NVIDIA kernel driver runs, but its library {DRIVER} is not here",
            "in a container, start it with its GPUs (docker run --gpus all ...); else install"
            " the driver's libraries (Debian, Ubuntu: libcuda1 or libnvidia-compute)",
        )
    return Missing(
        f"no NVIDIA driver ({DRIVER} cannot be loaded)",
        "install NVIDIA's driver from your system's packages (Debian: apt install"
        " nvidia-driver; Ubuntu: ubuntu-drivers install), then restart",
    )


def missing() -> list[Missing]:
    """What the CUDA engine lacks on this machine, and what mends each; empty if nothing."""
    lacking = []
    driver = driver_version()
    if driver is None:
        lacking.append(_no_driver())
    if importlib.util.find_spec("pycuda") is None:
        lacking.append(Missing(_NO_PYCUDA, _install()))
    compiler = find_compiler()
    if isinstance(compiler, Toolkit) and (newer := newer_than(driver, compiler)) is not None:
        lacking.append(newer)
    return lacking + _missing_for(compiler)


def missing_compiler() -> list[Missing]:
    """The part of missing() that compiling kernels needs: neither a GPU nor its driver."""
    return _missing_for(find_compiler())


def _missing_for(compiler: Nvrtc | Toolkit | None) -> list[Missing]:
    """What *compiler*, the one that was found, lacks."""
    lacking = []
    if compiler is None:
        what = "no CUDA compiler (NVRTC, or nvcc with its headers)"
        lacking.append(Missing(what, _install()))
    if not isinstance(compiler, Nvrtc) and not has_host_compiler():
        lacking.append(no_host_compiler("nvcc"))
    return lacking


def no_host_compiler(needed_by: str) -> Missing:
    """That there is no C++ compiler, for what needs one."""
    return Missing(
        f"no C++ compiler, which {needed_by} needs",
        "install Visual Studio's C++ build tools and use its developer prompt"
        if WINDOWS
        else "apt install g++ (Fedora, RHEL: dnf install gcc-c++; Arch: pacman -S gcc)",
    )


def newer_than(driver: tuple[int, int] | None, toolkit: Toolkit) -> Missing | None:
    """That *driver* is too old for what *toolkit* compiles; None where it is not."""
    if not driver or not toolkit.version or toolkit.version[0] <= driver[0]:
        return None
    return Missing(
        f"the driver runs CUDA up to {driver[0]}.{driver[1]}, but the toolkit in"
        f" {toolkit.root} is CUDA {toolkit.version[0]}.{toolkit.version[1]}",
        f"update the driver, or set CUDA_ROOT to a CUDA {driver[0]} toolkit",
    )


def _install() -> str:
    """The command that installs PyCUDA and a compiler."""
    return f"{shlex.quote(sys.executable)} -m cudafilter.install_cuda"


def _candidates() -> Iterator[tuple[str, Path]]:
    """(origin, path of an nvcc that may not exist), the most wanted first."""
    for variable in VARIABLES:
        if named := os.environ.get(variable):
            yield variable, Path(named) / "bin" / NVCC
    from shutil import which  # imported here, since it brings the archivers along

    if on_path := which("nvcc"):
        yield "nvcc on PATH", Path(on_path)
    if not WINDOWS:
        yield str(DEFAULT_FOLDERS / "cuda"), DEFAULT_FOLDERS / "cuda" / "bin" / NVCC
    numbered = list(DEFAULT_FOLDERS.glob("v*" if WINDOWS else "cuda-*"))
    for root in sorted(numbered, key=_number, reverse=True):
        yield str(root), root / "bin" / NVCC
    for root in sorted(_pypi_folders(), key=_number, reverse=True):
        yield PYPI, root / "bin" / NVCC


def _pypi_homes() -> list[Path]:
    """The ``nvidia`` folders of PyPI's packages."""
    spec = importlib.util.find_spec("nvidia")
    return [Path(home) for home in (spec and spec.submodule_search_locations) or ()]


def _pypi_folders() -> list[Path]:
    """The ``nvidia/cu13`` and the like where PyPI's packages put one CUDA together."""
    return [root for home in _pypi_homes() for root in home.glob("cu[0-9]*")]


def _toolkit(origin: str, nvcc: Path, passed_over: tuple[str, ...]) -> Toolkit | None:
    """The toolkit of the compiler *nvcc*, or None if it is not there or has no headers."""
    if not nvcc.is_file():
        return None
    compiler = nvcc.resolve()
    # A link may lead out of the toolkit or into it; a script tells nothing by where it lies.
    for program in (compiler, nvcc.absolute(), _wrapped(compiler)):
        if program is None:
            continue
        root = program.parent.parent
        # PyPI's packages are installed one by one: nvcc without the others cannot compile.
        if origin == PYPI and not list(root.glob("nvvm/bin/cicc*")):
            continue
        for include in (root / "include", *sorted(root.glob("targets/*/include"))):
            if all((include / header).is_file() for header in HEADERS):
                return Toolkit(program, root, include, origin, passed_over)
    return None


def _wrapped(script: Path) -> Path | None:
    """The nvcc that *script* starts, if it is a script that names one by its full path."""
    if script.stat().st_size > _WRAPPER_BYTES:
        return None
    text = script.read_bytes()
    if not text.startswith(b"#!"):
        return None
    for name in re.findall(r"""(/[^\s"'$]*/nvcc)\b""", text.decode(errors="replace")):
        program = Path(name).resolve()
        if program.is_file():
            return program
    return None


def _number(folder: Path) -> tuple[int, ...]:
    """The version in a folder's name: cuda-12.10 -> (12, 10), above cuda-12.9."""
    return tuple(map(int, re.findall(r"\d+", folder.name)))


def _version(number: int) -> tuple[int, int]:
    """CUDA's version number in parts: 13010 -> (13, 1)."""
    return number // 1000, number % 1000 // 10


def main(arguments: list[str]) -> int:
    """Print the toolkit found, or what is missing; 0 if there is a toolkit.

    With ``--driver`` it prints nothing, and 0 means that there is an NVIDIA driver. Raises
    SystemExit for help, and with code 2 for unknown arguments.
    """
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m cudafilter.toolkit",
        description="Print the compiler of kernels and the CUDA toolkit, or what is missing.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--driver", action="store_true", help="print nothing; exit 0 if there is an NVIDIA driver"
    )
    if parser.parse_args(arguments).driver:
        return 0 if driver_present() else 1
    nvrtc, toolkit = find_nvrtc(), find_toolkit()
    if nvrtc:
        print(nvrtc)
    if toolkit:
        print(toolkit)
        for note in toolkit.passed_over:
            print(f"passed over: {note}", file=sys.stderr)
    if nvrtc or toolkit:
        return 0
    for lack in missing():
        print(f"{lack.what}\n    {lack.mend}", file=sys.stderr)
    return 1
