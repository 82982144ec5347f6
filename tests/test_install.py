"""``python -m cudafilter.install_cuda``: what it needs and fetches, and how PyCUDA is built."""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cudafilter.errors import CudafilterError, EngineUnavailable
from cudafilter.nvidia import install
from cudafilter.nvidia.nvrtc import Nvrtc

Patch = pytest.MonkeyPatch
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="builds with g++")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: Patch) -> None:
    """A driver for CUDA 13.0 and a C++ compiler; no toolkit, no NVRTC."""
    monkeypatch.setattr(install, "driver_version", lambda: (13, 0))
    monkeypatch.setattr(install, "find_nvrtc", lambda: None)
    monkeypatch.setattr(install, "find_toolkit", lambda: None)
    monkeypatch.setattr(install, "try_import", lambda: None)
    monkeypatch.delenv("CXX", raising=False)
    gxx = tmp_path / "bin" / "g++"
    gxx.parent.mkdir()
    gxx.write_text("#!/bin/sh\ntouch made; while [ $# -gt 1 ]; do shift; done\n")
    gxx.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gxx.parent}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pip(monkeypatch: Patch) -> list[tuple[str, ...]]:
    """The commands that pip gets; it brings small packages of the names that it is asked for."""
    commands: list[tuple[str, ...]] = []

    def run(*arguments: str) -> None:
        commands.append(arguments)
        command, asked = arguments[0], arguments[-1]
        if command == "download":
            folder = Path(arguments[arguments.index("--dest") + 1])
            if asked == install.PYCUDA:
                with tarfile.open(folder / "pycuda-1.tar.gz", "w:gz") as archive:
                    archive.addfile(tarfile.TarInfo("pycuda-1/setup.py"), io.BytesIO())
                return
            name = asked.partition(">")[0]
            header = install.HEADERS[name.removesuffix("-cu12")]
            with zipfile.ZipFile(folder / f"{name}.whl", "w") as wheel:
                wheel.writestr(f"nvidia/{name}/include/{header}", "")
        if command == "wheel":
            settings: dict[str, Any] = {}
            exec((Path(asked) / "siteconf.py").read_text(), settings)
            folders = {Path(each) for each in settings["CUDA_INC_DIR"]}
            assert all(
                any((folder / header).is_file() for folder in folders)
                for header in install.HEADERS.values()
            )
            assert settings["CUDA_ROOT"] is None
            assert settings["CUDA_ENABLE_CURAND"] is False
            folder = Path(arguments[arguments.index("--wheel-dir") + 1])
            folder.mkdir()
            (folder / "pycuda-1-cp399.whl").touch()

    monkeypatch.setattr(install, "pip", run)
    return commands


def asked_for(commands: list[tuple[str, ...]]) -> str:
    return " ".join(word for command in commands for word in command)


def test_it_brings_headers_for_the_build_nvrtc_and_nvjpeg_but_no_nvcc(
    pip: list[tuple[str, ...]], monkeypatch: Patch
) -> None:
    there = Nvrtc(Path("libnvrtc.so.13"), 13, "PyPI packages")
    monkeypatch.setattr(
        install, "find_nvrtc", lambda: there if "cuda-nvrtc" in asked_for(pip) else None
    )
    told = install.install()
    assert "kernels are compiled by NVRTC libnvrtc.so.13" in told
    assert "nvcc" not in asked_for(pip)
    kept = {command[-1].rpartition("/")[2] for command in pip if command[0] == "install"}
    assert kept == {"numpy", "pycuda-1-cp399.whl", "nvidia-cuda-nvrtc>=13,<14", "nvidia-nvjpeg>=13"}


def test_nvrtc_that_is_here_is_kept(pip: list[tuple[str, ...]], monkeypatch: Patch) -> None:
    there = Nvrtc(Path("libnvrtc.so.13"), 13, "CUDA_HOME")
    monkeypatch.setattr(install, "find_nvrtc", lambda: there)
    assert "(CUDA_HOME)" in install.install()
    assert "nvrtc" not in asked_for(pip)


@pytest.mark.parametrize("with_nvcc", [True, False])
def test_without_nvrtc_there_must_be_an_nvcc(
    with_nvcc: bool, pip: list[tuple[str, ...]], monkeypatch: Patch
) -> None:
    run: Callable[..., None] = install.pip

    def no_network(*arguments: str) -> None:
        run(*arguments)
        if "nvrtc" in arguments[-1]:
            raise CudafilterError("pip install failed")

    monkeypatch.setattr(install, "pip", no_network)
    monkeypatch.setattr(install, "find_toolkit", lambda: object() if with_nvcc else None)
    if with_nvcc:
        assert "nvcc compiles kernels" in install.install()
    else:
        with pytest.raises(CudafilterError, match="pip install failed"):
            install.install()


@pytest.mark.parametrize(
    ("driver", "bounds"),
    [((12, 4), "-cu12>=12,<12.5"), ((13, 0), ">=13,<13.1"), ((14, 2), ">=13,<14.3")],
)
def test_headers_are_no_newer_than_the_driver(driver: tuple[int, int], bounds: str) -> None:
    assert install.header_packages(driver) == [package + bounds for package in install.HEADERS]


def test_an_old_driver_is_told() -> None:
    with pytest.raises(EngineUnavailable, match=r"up to 11\.8") as raised:
        install.header_packages((11, 8))
    assert raised.value.hint == "update the driver"


@pytest.mark.parametrize("lack", ["driver", "g++", "Python.h"])
def test_what_is_missing_is_told_in_a_line_before_anything_is_fetched(
    lack: str,
    pip: list[tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: Patch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if lack == "driver":
        monkeypatch.setattr(install, "driver_version", lambda: None)
    elif lack == "g++":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert install.main([]) == 1
    told, mend = capsys.readouterr().err.splitlines()
    assert pip == []
    assert (
        told
        == {
            "driver": "cannot install PyCUDA: there is no NVIDIA driver here"
            " (libcuda.so.1 cannot be loaded)",
            "g++": "cannot install PyCUDA: no C++ compiler, which PyCUDA's build needs",
            "Python.h": "cannot install PyCUDA: building PyCUDA needs Python's own headers,"
            f" and {tmp_path}/Python.h is not here",
        }[lack]
    )
    expected = {"driver": "--wheel FOLDER", "g++": "apt install g++", "Python.h": "python3-dev"}
    assert expected[lack] in mend


@pytest.mark.parametrize("works", [True, False])
def test_pip_is_brought_where_there_is_none(works: bool, monkeypatch: Patch) -> None:
    """As in the environments of pipx and uv."""
    commands = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0 if works else 1)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", run)
    if works:
        install.require_build_tools()
    else:
        with pytest.raises(CudafilterError, match="has no pip to install with"):
            install.require_build_tools()
    assert commands == [[sys.executable, "-m", "ensurepip"]]


def test_cxx_names_another_compiler(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", f"{sys.executable} -O1")
    install.require_build_tools()


def test_a_wheel_is_built_without_a_driver(
    pip: list[tuple[str, ...]], tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(install, "driver_version", lambda: None)
    assert install.main(["--wheel", str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pycuda-1-cp399.whl"]
    assert "nvidia-cuda-runtime>=13,<13.1" in asked_for(pip), "so that any driver for 13 runs it"


def test_what_is_linked_asks_for_the_driver(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.undo()
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ here")
    settings = install.driver_to_link_with(tmp_path)
    (tmp_path / "f.cpp").write_text("void f() {}")
    subprocess.run(
        ["g++", "-shared", "-Wl,--as-needed", "-o", tmp_path / "f.so", tmp_path / "f.cpp",
         *settings["LDFLAGS"]],
        check=True,
    )  # fmt: skip
    assert b"\0libcuda.so.1\0" in (tmp_path / "f.so").read_bytes()
