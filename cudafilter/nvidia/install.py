"""``python -m cudafilter.install_cuda``: PyCUDA into this environment, built for its toolkit.

PyCUDA comes only as source, takes its toolkit from the first nvcc on PATH and asks for cuRAND.
Here it is told the toolkit that ``toolkit.py`` finds, or, where there is none, the compiler and
headers that PyPI carries, and the driver's own library to link with.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cudafilter.errors import CudafilterError, EngineUnavailable
from cudafilter.host.escape import escaped
from cudafilter.nvidia.nvrtc import WINDOWS
from cudafilter.nvidia.toolkit import (
    DRIVER,
    Toolkit,
    driver_version,
    find_nvrtc,
    find_toolkit,
    has_host_compiler,
    newer_than,
    no_host_compiler,
)

PYCUDA = "pycuda>=2025.1"

PIECES = (
    "nvidia-cuda-nvcc",
    "nvidia-cuda-runtime",
    "nvidia-cuda-crt",
    "nvidia-nvvm",
    "nvidia-cuda-cccl",
    "nvidia-cuda-profiler-api",
)
"""The toolkit in PyPI's packages; the last one is for PyCUDA's build, the others are for nvcc."""

PIECES_MAJOR = 13
"""The oldest CUDA whose compiler is on PyPI as a whole."""


def install() -> str:
    """Install PyCUDA, and a toolkit where there is none; returns what was done, in a line.

    Raises CudafilterError, which says what is missing or quotes the step that failed.
    """
    driver = driver_version()
    if importlib.util.find_spec("pip") is None:
        raise CudafilterError(
            f"{sys.executable} has no pip to install with",
            hint=f"{sys.executable} -m ensurepip",
        )
    if not has_host_compiler():
        lack = no_host_compiler("PyCUDA's build")
        raise EngineUnavailable(lack.what, hint=lack.mend)
    toolkit = find_toolkit()
    if driver is None and not (toolkit and stubs(toolkit)):
        raise EngineUnavailable(
            f"there is no NVIDIA driver here ({DRIVER} cannot be loaded) to link PyCUDA with",
            hint="install NVIDIA's driver first; without a GPU the cpu engine does the work",
        )
    if toolkit is None:
        say("no CUDA toolkit here: installing the compiler and headers from PyPI")
        pip("install", *(piece + pieces_bound(driver) for piece in PIECES))
        importlib.invalidate_caches()
        toolkit = find_toolkit()
        if toolkit is None:
            raise EngineUnavailable(
                "PyPI's CUDA packages are installed, but hold no complete compiler",
                hint="install NVIDIA's CUDA toolkit and set CUDA_ROOT to its folder",
            )
    elif (newer := newer_than(driver, toolkit)) is not None:
        raise EngineUnavailable(newer.what, hint=newer.mend)
    say(f"toolkit: {toolkit}")
    with tempfile.TemporaryDirectory(prefix="cudafilter-") as folder:
        build_pycuda(toolkit, Path(folder))
    try_import()
    return f"PyCUDA is installed, with {toolkit}; {install_nvrtc(driver)}; {install_nvjpeg(driver)}"


def install_nvrtc(driver: tuple[int, int] | None) -> str:
    """Install the compiler of kernels for *driver*, where there is none; what came of it, in words.

    Without it nvcc compiles them.
    """
    if (there := find_nvrtc()) is not None:
        return f"kernels are compiled by {there}"
    of_12 = driver is not None and driver[0] == 12
    package = "nvidia-cuda-nvrtc-cu12" if of_12 else "nvidia-cuda-nvrtc>=13,<14"
    say(f"installing {package}, which compiles kernels")
    try:
        pip("install", package)
    except CudafilterError as error:
        return f"{package} was not installed, so nvcc compiles kernels: {error}"
    importlib.invalidate_caches()
    return f"kernels are compiled by {find_nvrtc() or find_toolkit()}"


def install_nvjpeg(driver: tuple[int, int] | None) -> str:
    """Install the JPEG codec for *driver*; what came of it, in words. The engine does without."""
    package = "nvidia-nvjpeg-cu12>=12.3" if driver and driver[0] == 12 else "nvidia-nvjpeg>=13"
    say(f"installing {package}, for JPEG on the GPU")
    try:
        pip("install", package)
    except CudafilterError as error:
        return f"{package} was not installed, so the CPU codes JPEGs: {error}"
    return "JPEGs are coded on the GPU too"


def pieces_bound(driver: tuple[int, int] | None) -> str:
    """The version bound for PIECES: no newer than the driver runs (unknown: any of the major).

    Raises EngineUnavailable for a driver older than any compiler on PyPI.
    """
    if driver and driver[0] < PIECES_MAJOR:
        raise EngineUnavailable(
            f"the driver runs CUDA up to {driver[0]}.{driver[1]}, and PyPI carries a compiler for"
            f" CUDA {PIECES_MAJOR} and newer only",
            hint=f"update the driver, or install a CUDA {driver[0]} toolkit and set CUDA_ROOT",
        )
    if driver and driver[0] == PIECES_MAJOR:
        return f">={PIECES_MAJOR},<{PIECES_MAJOR}.{driver[1] + 1}"
    return f">={PIECES_MAJOR},<{PIECES_MAJOR + 1}"


def build_pycuda(toolkit: Toolkit, folder: Path) -> None:
    """Fetch PyCUDA into *folder*; build it there with *toolkit*, unless it came as a wheel."""
    # No cache: pip would take a wheel that it once built for another toolkit.
    pip("install", "setuptools", "wheel")
    say("fetching PyCUDA")
    pip(
        "download", "--no-cache-dir", "--no-deps", "--no-build-isolation",
        "--dest", str(folder), PYCUDA,
    )  # fmt: skip
    (fetched,) = folder.iterdir()
    if fetched.suffix == ".whl":
        pip("install", "--force-reinstall", "--no-deps", str(fetched))
        pip("install", str(fetched))
        return
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        raise EngineUnavailable(
            f"building PyCUDA needs Python's own headers, and {header} is not here",
            hint="apt install python3-dev (Fedora, RHEL: dnf install python3-devel)",
        )
    shutil.unpack_archive(fetched, folder)
    (source,) = (setup.parent for setup in folder.glob("*/setup.py"))
    settings = {
        "CUDA_ROOT": str(toolkit.root),
        "CUDA_INC_DIR": [str(toolkit.include)],
        "CUDADRV_LIB_DIR": driver_folders(toolkit, folder),
        "CUDA_ENABLE_CURAND": False,
    }
    (source / "siteconf.py").write_text(
        "".join(f"{name} = {value!r}\n" for name, value in settings.items()), encoding="utf-8"
    )
    say("building PyCUDA (a few minutes)")
    pip("install", "--force-reinstall", "--no-deps", "--no-build-isolation", str(source))
    pip("install", PYCUDA)


def driver_folders(toolkit: Toolkit, folder: Path) -> list[str]:
    """Where the linker finds libcuda: the driver's, else the toolkit's stand-in for it.

    A driver brings libcuda.so.1, but not the libcuda.so that a linker looks for. So a link of that
    name is made in *folder*.
    """
    folders = stubs(toolkit)
    if library := driver_library():
        links = folder / "driver"
        links.mkdir()
        (links / "libcuda.so").symlink_to(library)
        folders.insert(0, links)
    return [str(each) for each in folders]


def stubs(toolkit: Toolkit) -> list[Path]:
    """The toolkit's folders of stand-ins for the driver, to link with where there is none."""
    if WINDOWS:
        return [toolkit.root / "lib" / "x64"]
    libraries = (
        *toolkit.root.glob("lib*/stubs/libcuda.so"),
        *toolkit.root.glob("targets/*/lib/stubs/libcuda.so"),
    )
    return [library.parent for library in libraries]


def driver_library() -> Path | None:
    """The file that the system loads as libcuda.so.1; None without a driver, and on Windows."""
    if WINDOWS:
        return None
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return None
    maps = Path("/proc/self/maps").read_text()
    found = re.search(r"(/\S*/libcuda\.so[.\d]*)$", maps, re.MULTILINE)
    return Path(found[1]) if found else None


def try_import() -> None:
    """Import PyCUDA's driver module in a process of its own. Raises EngineUnavailable."""
    tried = subprocess.run(
        [sys.executable, "-c", "import pycuda.driver"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        reason = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EngineUnavailable(
            f"PyCUDA is installed but does not load: {reason}",
            hint="a toolkit newer than the driver does that: update the driver, or set CUDA_ROOT"
            " to an older toolkit and try again",
        )


def pip(command: str, *arguments: str) -> None:
    """Run pip in this environment. Raises CudafilterError with the end of what it said."""
    line: Sequence[str] = (
        sys.executable, "-m", "pip", command, "--disable-pip-version-check", *arguments,
    )  # fmt: skip
    done = subprocess.run(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        told = "\n".join(done.stdout.strip().splitlines()[-30:])
        raise CudafilterError(f"pip {command} failed:\n{told}")


def say(message: str) -> None:
    """Tell the person at the terminal what is going on."""
    print("\n".join(map(escaped, message.split("\n"))), file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Install, unless *arguments* (the command line's) ask for help; 0 if PyCUDA loads afterwards.

    130 if interrupted. Raises SystemExit for help, and with code 2 for unknown arguments.
    """
    argparse.ArgumentParser(
        prog="python -m cudafilter.install_cuda",
        description="Install PyCUDA into this environment, built for the CUDA toolkit found here."
        " Where there is none, a compiler and headers from PyPI are installed too. Needs NVIDIA's"
        " driver, a C++ compiler and Python's headers.",
        allow_abbrev=False,
    ).parse_args(arguments)
    if WINDOWS and shutil.which("cl") is None:
        say("note: run this in Visual Studio's developer prompt")
    try:
        say(install())
    except CudafilterError as error:
        say(f"cannot install PyCUDA: {error}")
        if error.hint:
            say(f"    {error.hint}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    return 0
