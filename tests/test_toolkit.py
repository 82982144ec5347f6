"""The CUDA toolkit is found by its files, in the documented order, and without a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cudafilter.nvidia import toolkit

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="lays POSIX folders and links")


def make_toolkit(root: Path, include: str = "include", version: int = 13000) -> Path:
    """A folder that looks like a CUDA toolkit; returns its nvcc."""
    for header in toolkit.HEADERS:
        (root / include / header).parent.mkdir(parents=True, exist_ok=True)
        (root / include / header).touch()
    (root / include / "cuda.h").write_text(f"#ifndef A\n#define CUDA_VERSION {version}\n")
    nvcc = root / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_bytes(b"\x7fELF the compiler")
    nvcc.chmod(0o755)
    return nvcc


def make_script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing of CUDA on it, whose folder of defaults is returned."""
    for variable in (*toolkit.VARIABLES, "NVCC_CCBIN", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"):
        monkeypatch.delenv(variable, raising=False)
    for folder in ("path", "local", "site"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(toolkit, "DEFAULT_FOLDERS", tmp_path / "local")
    monkeypatch.setattr(toolkit, "_pypi_homes", list)
    monkeypatch.setattr(toolkit, "_SYSTEM_LIBRARIES", ())
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    return tmp_path / "local"


def found() -> toolkit.Toolkit:
    answer = toolkit.find_toolkit()
    assert answer is not None
    return answer


def test_a_bare_machine_has_none() -> None:
    assert toolkit.find_toolkit() is None


@pytest.mark.parametrize("variable", toolkit.VARIABLES)
def test_a_variable_names_it(
    variable: str, tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc = make_toolkit(tmp_path / "mine", version=12040)
    make_toolkit(machine / "cuda")
    monkeypatch.setenv(variable, str(tmp_path / "mine"))

    assert found() == toolkit.Toolkit(
        nvcc, tmp_path / "mine", tmp_path / "mine" / "include", variable
    )
    assert found().version == (12, 4)
    assert "CUDA 12.4" in str(found())


def test_variables_are_asked_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in reversed(toolkit.VARIABLES):
        make_toolkit(tmp_path / variable)
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert found().origin == variable


def test_a_variable_that_names_none_is_passed_over_and_told(
    tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_toolkit(machine / "cuda")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nowhere"))
    assert found().root == machine / "cuda"
    assert any("CUDA_HOME" in note and "nowhere" in note for note in found().passed_over)


def test_nvcc_on_path_comes_before_the_default_folder(
    tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_toolkit(machine / "cuda")
    nvcc = make_toolkit(tmp_path / "opt")
    monkeypatch.setenv("PATH", str(nvcc.parent))
    assert (found().root, found().origin) == (tmp_path / "opt", "nvcc on PATH")


def test_a_link_on_path_leads_to_the_toolkit(tmp_path: Path) -> None:
    nvcc = make_toolkit(tmp_path / "opt")
    (tmp_path / "path" / "nvcc").symlink_to(nvcc)
    assert (found().nvcc, found().root) == (nvcc, tmp_path / "opt")


def test_a_toolkit_made_of_links_keeps_its_own_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc = make_toolkit(tmp_path / "opt")
    store = tmp_path / "store" / "bin" / "nvcc"
    store.parent.mkdir(parents=True)
    nvcc.rename(store)
    nvcc.symlink_to(store)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "opt"))
    assert (found().nvcc, found().root) == (nvcc, tmp_path / "opt")


def test_a_script_on_path_leads_to_the_toolkit_it_starts(tmp_path: Path, machine: Path) -> None:
    make_toolkit(machine / "cuda")
    nvcc = make_toolkit(tmp_path / "opt")
    make_script(tmp_path / "path" / "nvcc", f'#!/bin/sh\nexec {nvcc} "$@"\n')
    assert (found().nvcc, found().root) == (nvcc, tmp_path / "opt")


def test_a_script_beside_its_headers_is_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Debian packs it: /usr/bin/nvcc is a script, /usr/include has the headers."""
    nvcc = make_toolkit(tmp_path / "usr")
    inner = make_script(tmp_path / "usr" / "lib" / "cuda" / "bin" / "nvcc", "\x7fELF")
    make_script(nvcc, f'#!/bin/sh\nexec {inner} "$@"\n')
    monkeypatch.setenv("PATH", str(nvcc.parent))
    assert (found().nvcc, found().root) == (nvcc, tmp_path / "usr")


@pytest.mark.parametrize(
    "text",
    ["#!/bin/sh\nexec $CUDA/bin/nvcc\n", "#!/bin/sh\nexec /nowhere/bin/nvcc\n", "\x7fELF"],
)
def test_an_nvcc_without_headers_is_passed_over(text: str, tmp_path: Path, machine: Path) -> None:
    lone = make_script(tmp_path / "path" / "nvcc", text)
    assert toolkit.find_toolkit() is None
    make_toolkit(machine / "cuda")
    assert found().root == machine / "cuda"
    assert str(lone) in found().passed_over[0]


def test_a_script_that_starts_itself_ends_the_search(tmp_path: Path) -> None:
    script = tmp_path / "path" / "nvcc"
    make_script(script, f"#!/bin/sh\nexec {script}\n")
    assert toolkit.find_toolkit() is None


def test_the_newest_numbered_folder_is_taken(machine: Path) -> None:
    for name in ("cuda-12.9", "cuda-12.10", "cuda-11.8"):
        make_toolkit(machine / name)
    assert found().root == machine / "cuda-12.10"


def test_the_default_link_comes_before_numbered_folders(machine: Path) -> None:
    make_toolkit(machine / "cuda-13.0")
    make_toolkit(machine / "cuda-12.4")
    (machine / "cuda").symlink_to(machine / "cuda-12.4")
    assert (found().root, found().origin) == (machine / "cuda-12.4", str(machine / "cuda"))


def test_headers_by_target_are_found(machine: Path) -> None:
    """As conda packs it."""
    make_toolkit(machine / "cuda", include="targets/x86_64-linux/include")
    assert found().include == machine / "cuda" / "targets" / "x86_64-linux" / "include"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on sys.path that holds PyPI's nvidia/cu13, complete."""
    monkeypatch.undo()
    for variable in toolkit.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(toolkit, "DEFAULT_FOLDERS", tmp_path / "local")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    root = tmp_path / "site" / "nvidia" / "cu13"
    make_toolkit(root)
    (root / "nvvm" / "bin").mkdir(parents=True)
    (root / "nvvm" / "bin" / "cicc").touch()
    return root


def test_pypi_packages_are_a_toolkit(site: Path) -> None:
    assert (found().root, found().origin) == (site, toolkit.PYPI)


def test_pypi_packages_come_after_an_installed_toolkit(site: Path, tmp_path: Path) -> None:
    make_toolkit(tmp_path / "local" / "cuda")
    assert found().root == tmp_path / "local" / "cuda"


@pytest.mark.parametrize("part", ["bin/nvcc", "include/cuda.h", "nvvm/bin/cicc"])
def test_some_pypi_packages_are_no_toolkit(part: str, site: Path) -> None:
    """PyTorch brings a few of them, without a compiler."""
    (site / part).unlink()
    assert toolkit.find_toolkit() is None


def test_identity_changes_with_the_compiler(machine: Path) -> None:
    nvcc = make_toolkit(machine / "cuda")
    before = found().identity
    assert found().identity == before
    stat = nvcc.stat()
    os.utime(nvcc, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    touched = found().identity
    nvcc.write_bytes(b"\x7fELF another compiler")
    os.utime(nvcc, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert len({before, touched, found().identity}) == 3


def test_finding_starts_no_process(
    tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    nvcc = make_toolkit(machine / "cuda")
    make_script(tmp_path / "path" / "nvcc", f'#!/bin/sh\nexec {nvcc} "$@"\n')
    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "posix_spawn", refuse)
    assert found().identity
    toolkit.missing()


def lacks() -> dict[str, str]:
    return dict(toolkit.missing())


def test_what_is_missing_comes_with_what_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit, "DRIVER", "libno-such-driver.so.1")
    monkeypatch.setattr(sys, "executable", "/my tools/python")
    told = lacks()
    assert any("driver" in what for what in told)
    (mend,) = (mend for what, mend in told.items() if "nvcc with its headers" in what)
    assert mend == "'/my tools/python' -m cudafilter.install_cuda"  # as it can be pasted
    (mend,) = (mend for what, mend in told.items() if "C++" in what)
    assert "apt install g++" in mend


@pytest.mark.parametrize(("driver", "told"), [((12, 8), True), ((13, 0), False), ((14, 1), False)])
def test_a_toolkit_newer_than_the_driver_is_told(
    driver: tuple[int, int], told: bool, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_toolkit(machine / "cuda", version=13010)
    monkeypatch.setattr(toolkit, "driver_version", lambda: driver)
    assert any("CUDA 13.1" in what for what in lacks()) is told


def test_a_host_compiler_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not toolkit.has_host_compiler()
    make_script(tmp_path / "path" / "gcc", "#!/bin/sh\n")
    assert not toolkit.has_host_compiler(), "gcc without g++ compiles no C++"
    make_script(tmp_path / "path" / "g++", "#!/bin/sh\n")
    assert toolkit.has_host_compiler()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("NVCC_PREPEND_FLAGS", "-ccbin /opt/gcc-13/bin/g++")
    assert toolkit.has_host_compiler()


def test_the_command_prints_one_line(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_toolkit(machine / "cuda")
    assert toolkit.main([]) == 0
    out, err = capsys.readouterr()
    assert (len(out.splitlines()), err) == (1, "")
    assert str(machine / "cuda") in out


def test_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert toolkit.main([]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "nvcc" in err
    assert "install_cuda" in err


class TestNoGpu:
    """Why no GPU can be used, without looking further than needed."""

    @pytest.fixture(autouse=True)
    def whole(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "device").touch()
        monkeypatch.setattr(toolkit, "DEVICES", (str(tmp_path / "device"),))
        monkeypatch.setattr(toolkit, "driver_version", lambda: (13, 0))
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)

    def test_one_may_answer(self) -> None:
        assert toolkit.no_gpu() is None

    def test_the_system_has_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(toolkit, "DEVICES", ())
        assert toolkit.no_gpu() == "the NVIDIA driver shows no GPU"
        monkeypatch.setattr(toolkit, "driver_version", lambda: None)
        assert str(toolkit.no_gpu()).startswith("no NVIDIA driver")
        assert toolkit.missing()[0].what == toolkit.no_gpu()

    def test_pycuda_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert toolkit.no_gpu() == "PyCUDA is not installed"
