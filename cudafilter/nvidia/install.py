"""``python -m cudafilter.install_cuda``: PyCUDA into this environment, and what it works with.

PyCUDA comes only as source. Its build needs g++, Python's headers, and two headers of CUDA, which
PyPI carries. It needs no toolkit, and with ``--wheel`` no driver and no GPU either.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from cudafilter.errors import CudafilterError, EngineUnavailable
from cudafilter.host.escape import escaped
from cudafilter.nvidia.nvrtc import WINDOWS
from cudafilter.nvidia.toolkit import (
    DRIVER,
    driver_version,
    find_nvrtc,
    find_toolkit,
    no_host_compiler,
)

PYCUDA = "pycuda>=2025.1"

HEADERS = {"nvidia-cuda-runtime": "cuda.h", "nvidia-cuda-profiler-api": "cudaProfiler.h"}
"""PyPI's packages, and the headers of theirs that PyCUDA includes. They are not installed."""

OLDEST = 12
"""The oldest CUDA that cudafilter takes; before 13 the packages' names end in -cu12."""


def install() -> str:
    """Install PyCUDA and what it works with; returns what was done, in a line.

    Raises CudafilterError, which says what is missing or quotes the step that failed.
    """
    driver = driver_version()
    if driver is None:
        raise EngineUnavailable(
            f"there is no NVIDIA driver here ({DRIVER} cannot be loaded)",
            hint="install NVIDIA's driver first; without a GPU the cpu engine does the work,"
            " and for another machine --wheel FOLDER builds PyCUDA",
        )
    require_build_tools()
    with tempfile.TemporaryDirectory(prefix="cudafilter-") as folder:
        wheel = build_pycuda(driver, Path(folder))
        pip("install", "--force-reinstall", "--no-deps", str(wheel))
        pip("install", str(wheel))
    try_import()
    return f"PyCUDA is installed; {install_nvrtc(driver)}; {install_nvjpeg(driver)}"


def build_wheel(folder: Path) -> str:
    """Build PyCUDA's wheel into *folder*, for this Python; returns what was done, in a line.

    It runs with every driver for CUDA 13. Raises CudafilterError as install() does.
    """
    require_build_tools()
    with tempfile.TemporaryDirectory(prefix="cudafilter-") as work:
        wheel = build_pycuda((13, 0), Path(work))
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(wheel, folder)
    return f"{folder / wheel.name} is built"


def require_build_tools() -> None:
    """Raises CudafilterError for what PyCUDA's build lacks here. Python brings pip, if it must."""
    if shutil.which(cxx()[0]) is None:
        lack = no_host_compiler("PyCUDA's build")
        raise EngineUnavailable(lack.what, hint=lack.mend)
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        raise EngineUnavailable(
            f"building PyCUDA needs Python's own headers, and {header} is not here",
            hint="apt install python3-dev (Fedora, RHEL: dnf install python3-devel)",
        )
    if importlib.util.find_spec("pip") is None:  # as where pipx or uv made the environment
        command = [sys.executable, "-m", "ensurepip"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            raise CudafilterError(
                f"{sys.executable} has no pip to install with",
                hint="apt install python3-venv, which brings it (with uv: uv pip install pip)",
            )


def install_nvrtc(driver: tuple[int, int]) -> str:
    """Install the compiler of kernels for *driver*, where there is none; what came of it, in words.

    Without it nvcc compiles them. Raises CudafilterError where that is not here either.
    """
    if (there := find_nvrtc()) is not None:
        return f"kernels are compiled by {there}"
    package = "nvidia-cuda-nvrtc-cu12" if driver[0] == 12 else "nvidia-cuda-nvrtc>=13,<14"
    say(f"installing {package}, which compiles kernels")
    try:
        pip("install", package)
    except CudafilterError as error:
        if find_toolkit() is None:
            raise
        return f"{package} was not installed, so nvcc compiles kernels: {error}"
    importlib.invalidate_caches()
    return f"kernels are compiled by {find_nvrtc()}"


def install_nvjpeg(driver: tuple[int, int]) -> str:
    """Install the JPEG codec for *driver*; what came of it, in words. The engine does without."""
    package = "nvidia-nvjpeg-cu12>=12.3" if driver[0] == 12 else "nvidia-nvjpeg>=13"
    say(f"installing {package}, for JPEG on the GPU")
    try:
        pip("install", package)
    except CudafilterError as error:
        return f"{package} was not installed, so the CPU codes JPEGs: {error}"
    return "JPEGs are coded on the GPU too"


def cxx() -> list[str]:
    """The C++ compiler with its options, which $CXX may name."""
    return shlex.split(os.environ.get("CXX", "")) or ["cl" if WINDOWS else "g++"]


def header_packages(driver: tuple[int, int]) -> list[str]:
    """PyPI's packages with CUDA's headers, no newer than *driver* runs.

    Raises EngineUnavailable for a driver that is too old.
    """
    major, minor = driver
    if major < OLDEST:
        raise EngineUnavailable(
            f"the driver runs CUDA up to {major}.{minor}, and cudafilter needs CUDA {OLDEST}",
            hint="update the driver",
        )
    of, suffix = (12, "-cu12") if major == 12 else (13, "")
    return [f"{package}{suffix}>={of},<{major}.{minor + 1}" for package in HEADERS]


def build_pycuda(driver: tuple[int, int], folder: Path) -> Path:
    """Fetch PyCUDA and CUDA's headers for *driver* into *folder* and build it; its wheel."""
    packages = header_packages(driver)
    pip("install", "setuptools", "wheel", "numpy")
    say(f"fetching PyCUDA's source, and CUDA's headers from {' and '.join(packages)}")
    for package in packages:
        pip("download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), package)
    for wheel in [*folder.glob("*.whl")]:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "cuda")
        wheel.unlink()
    # No cache: pip would take a wheel that it once built in another way.
    pip(
        "download", "--no-cache-dir", "--no-deps", "--no-build-isolation",
        "--dest", str(folder), PYCUDA,
    )  # fmt: skip
    (fetched,) = (file for file in folder.iterdir() if file.is_file())
    if fetched.suffix == ".whl":
        return fetched
    shutil.unpack_archive(fetched, folder)
    (source,) = (setup.parent for setup in folder.glob("*/setup.py"))
    settings = {
        "CUDA_ROOT": None,  # else it takes the one of an nvcc on PATH
        "CUDA_INC_DIR": [str(found_in(folder, header).parent) for header in HEADERS.values()],
        "CUDA_ENABLE_CURAND": False,
        **driver_to_link_with(folder),
    }
    (source / "siteconf.py").write_text(
        "".join(f"{name} = {value!r}\n" for name, value in settings.items()), encoding="utf-8"
    )
    say("building PyCUDA (some minutes)")
    built = folder / "built"
    pip(
        "wheel", "--no-cache-dir", "--no-deps", "--no-build-isolation",
        "--wheel-dir", str(built), str(source),
    )  # fmt: skip
    return next(built.iterdir())


def driver_to_link_with(folder: Path) -> dict[str, list[str]]:
    """The settings of PyCUDA's build by which it asks for the driver when it is loaded.

    An empty library of the driver's name will do: which functions the driver has shows only then.
    The linker drops a library that nothing is found in, unless it is told not to.
    """
    if WINDOWS:
        return {"CUDADRV_LIB_DIR": [str(found_in(folder, "cuda.lib").parent)]}
    library, source = folder / "libcuda.so", folder / "empty.cpp"
    source.touch()
    command = [*cxx(), "-shared", f"-Wl,-soname,{DRIVER}", "-o", str(library), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise CudafilterError(f"{command[0]} makes no library:\n{done.stderr.strip()}")
    return {"CUDADRV_LIBNAME": [], "LDFLAGS": ["-Wl,--no-as-needed", str(library)]}


def found_in(folder: Path, name: str) -> Path:
    """The file *name* in *folder*. Raises CudafilterError without one."""
    for path in folder.rglob(name):
        return path
    raise CudafilterError(f"PyPI's packages of CUDA's headers lack {name}")


def try_import() -> None:
    """Import PyCUDA's driver module in a process of its own. Raises EngineUnavailable."""
    tried = subprocess.run(
        [sys.executable, "-c", "import pycuda.driver"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        reason = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EngineUnavailable(
            f"PyCUDA is installed but does not load: {reason}",
            hint="a driver that lacks what PyCUDA asks for does that: update the driver",
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
    """Install, unless *arguments* (the command line's) ask for something else; 0 if that is done.

    130 if interrupted. Raises SystemExit for help, and with code 2 for unknown arguments.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cudafilter.install_cuda",
        description="Install PyCUDA into this environment, with NVRTC and nvJPEG. Needs NVIDIA's"
        " driver, a C++ compiler (g++) and Python's headers, and no CUDA toolkit.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--wheel",
        type=Path,
        metavar="FOLDER",
        help="only build PyCUDA's wheel, into FOLDER; needs no driver",
    )
    folder: Path | None = parser.parse_args(arguments).wheel
    if WINDOWS and shutil.which("cl") is None:
        say("note: run this in Visual Studio's developer prompt")
    try:
        say(build_wheel(folder) if folder else install())
    except CudafilterError as error:
        say(f"cannot install PyCUDA: {error}")
        if error.hint:
            say(f"    {error.hint}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    return 0
