"""NVRTC: which one is taken, what it compiles, and that it needs no other program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cudafilter.engines import nvcc, shipped
from cudafilter.engines.cuda.ahead import every
from cudafilter.engines.cuda.variants import LADDER
from cudafilter.errors import EngineError
from cudafilter.nvidia import nvrtc, toolkit

Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def real() -> nvrtc.Nvrtc:
    """The one that is installed here, whatever the driver."""
    found = toolkit.find_nvrtc()
    if found is None:
        pytest.skip("NVRTC is not installed")
    return found


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: Patch) -> Path:
    """A machine with nothing of CUDA on it, and a driver for CUDA 13.0; its root is returned."""
    for variable in toolkit.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(toolkit, "DEFAULT_FOLDERS", tmp_path / "local")
    monkeypatch.setattr(toolkit, "_pypi_homes", lambda: [tmp_path / "site" / "nvidia"])
    monkeypatch.setattr(toolkit, "_SYSTEM_LIBRARIES", (str(tmp_path / "usr"),))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "conda"))
    monkeypatch.setattr(toolkit, "driver_version", lambda: (13, 0))
    return tmp_path


def library(folder: Path, version: str = "13") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"libnvrtc.so.{version}"
    path.touch()
    return path


class TestWhichOneIsTaken:
    def test_none_on_a_bare_machine(self, bare: Path) -> None:
        assert toolkit.find_nvrtc() is None

    @pytest.mark.parametrize(
        "place",
        ["site/nvidia/cu13/lib", "site/nvidia/cuda_nvrtc/lib", "local/cuda/lib64",
         "local/cuda-13.0/targets/x86_64-linux/lib", "usr", "conda/lib"],
    )  # fmt: skip
    def test_it_may_lie_in(self, bare: Path, place: str) -> None:
        here = library(bare / place)
        found = toolkit.find_nvrtc()
        assert found is not None
        assert (found.library, found.major) == (here, 13)

    def test_the_one_that_a_variable_names_goes_first_then_pypis(
        self, bare: Path, monkeypatch: Patch
    ) -> None:
        library(bare / "local/cuda/lib64")
        pypi, named = library(bare / "site/nvidia/cu13/lib"), library(bare / "mine/lib64")
        found = toolkit.find_nvrtc()
        assert found is not None
        assert (found.library, found.origin) == (pypi, toolkit.PYPI)
        monkeypatch.setenv("CUDA_HOME", str(bare / "mine"))
        found = toolkit.find_nvrtc()
        assert found is not None
        assert (found.library, found.origin) == (named, "CUDA_HOME")

    @pytest.mark.parametrize(
        ("driver", "taken"),
        [((12, 8), "12.4.1"), ((13, 0), "13.5.37"), ((14, 0), "14"), (None, "14"), ((11, 8), None)],
    )
    def test_the_newest_that_the_driver_runs(
        self, bare: Path, monkeypatch: Patch, driver: tuple[int, int] | None, taken: str | None
    ) -> None:
        for version in ("12.4.1", "13.5.37", "13.0.48", "14"):
            library(bare / "usr", version)
        for other in ("libnvrtc-builtins.so.14.2", "libnvrtc.so", "libnvrtc.so.alt.15"):
            (bare / "usr" / other).touch()
        monkeypatch.setattr(toolkit, "driver_version", lambda: driver)
        found = toolkit.find_nvrtc()
        assert (found and found.library.name) == (taken and f"libnvrtc.so.{taken}")

    def test_a_link_is_followed_so_that_an_update_is_seen(self, bare: Path) -> None:
        old = library(bare / "usr", "13.0.48")
        link = bare / "usr" / "libnvrtc.so.13"
        link.symlink_to(old.name)
        found = toolkit.find_nvrtc()
        assert found is not None
        before = found.identity
        old.write_text("another one")
        assert found.library == old
        assert found.identity != before

    def test_with_it_neither_nvcc_nor_a_c_compiler_is_missing(self, bare: Path) -> None:
        assert len(toolkit.missing_compiler()) == 2
        library(bare / "usr")
        assert toolkit.missing_compiler() == []


class TestWhatItCompiles:
    @pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90", "sm_120"])
    @pytest.mark.parametrize("variant", LADDER)
    def test_each_variant_without_any_program(
        self, real: nvrtc.Nvrtc, monkeypatch: Patch, variant: str, arch: str
    ) -> None:
        monkeypatch.setattr(subprocess, "run", None)
        log: list[str] = []
        code = nvcc.compile_cubin(variant, every(variant)[0], arch, real, log)
        assert code.startswith(b"\x7fELF")
        assert "registers" in log[0]
        assert " 0 bytes spill stores" in log[0]

    def test_many_at_a_time_are_the_same_code(
        self, real: nvrtc.Nvrtc, tmp_path: Path, monkeypatch: Patch
    ) -> None:
        monkeypatch.setenv("CUDAFILTER_CACHE", str(tmp_path))
        monkeypatch.setattr(shipped, "FOLDER", tmp_path / "none")
        kernels = [(name, every(name)[0]) for name in ("vanilla", "tiled", "rank")]
        assert nvcc.compile_ahead(kernels, "sm_90", real, jobs=2) == (3, 0)
        for kernel in kernels:
            assert nvcc._read(nvcc._path(*kernel, "sm_90", real)) == nvcc.compile_cubin(
                *kernel, "sm_90", real
            )

    @pytest.mark.parametrize("apart", [False, True])
    def test_what_is_wrong_is_told_with_its_line(
        self, real: nvrtc.Nvrtc, tmp_path: Path, monkeypatch: Patch, apart: bool
    ) -> None:
        (tmp_path / "broken.cu").write_text("\nvoid f() { nonsense; }\n")
        monkeypatch.setattr(nvcc, "kernel_sources", lambda: tmp_path)
        with pytest.raises(EngineError, match=r"broken\.cu\(2\): error:.*nonsense") as raised:
            nvcc.compile_cubin("broken", {}, "sm_90", real, apart=apart)
        assert str(real.library) in (raised.value.hint or "")

    @pytest.mark.parametrize("apart", [False, True])
    def test_a_gpu_that_it_does_not_know(self, real: nvrtc.Nvrtc, apart: bool) -> None:
        with pytest.raises(EngineError, match=r"does not compile for sm_999") as raised:
            nvcc.compile_cubin("vanilla", every("vanilla")[0], "sm_999", real, apart=apart)
        assert "needs a newer one" in (raised.value.hint or "")

    @pytest.mark.parametrize("apart", [False, True])
    def test_a_library_that_does_not_load(self, tmp_path: Path, apart: bool) -> None:
        broken = nvrtc.Nvrtc(library(tmp_path), 13, "a test")
        with pytest.raises(EngineError, match=r"libnvrtc\.so\.13"):
            nvcc.compile_cubin("vanilla", every("vanilla")[0], "sm_90", broken, apart=apart)


def spilling(most: int) -> Callable[..., tuple[bytes, str]]:
    """A compiler whose kernels spill where more than *most* warps are to be resident."""

    def compile(
        self: nvrtc.Nvrtc, name: str, source: bytes, headers: object, options: list[str]
    ) -> tuple[bytes, str]:
        (blocks,) = (int(each[9:]) for each in options if each.startswith("-DBLOCKS="))
        spilt = 8 if blocks > most else 0
        return b"%d" % blocks, f"{spilt} bytes stack frame, {spilt} bytes spill stores"

    return compile


def test_where_registers_spill_fewer_warps_are_resident(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(nvrtc.Nvrtc, "compile", spilling(most=9))
    compiler = nvrtc.Nvrtc(library(tmp_path), 13, "a test")
    assert nvcc.compile_cubin("stream", {"BLOCKS": 16}, "sm_90", compiler) == b"8"
