"""Kernels that the package brings along: found by what decides their code, verified, never old."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cudafilter.engines import nvcc, shipped
from cudafilter.nvidia import toolkit
from cudafilter.nvidia.nvrtc import Nvrtc

Patch = pytest.MonkeyPatch
ROOT = Path(__file__).resolve().parents[1]
ARCH = "sm_90"
KERNELS = [("vanilla", {"X": n}) for n in range(20)] + [("tiled", {"X": 1})]
"""More than a block holds."""


def code_of(variant: str, macros: dict[str, int]) -> bytes:
    return f"{variant} {macros} of the package ".encode() * 50


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The package's kernels, on a machine for CUDA 13 with an empty cache; compiling is told."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "cubins")
    monkeypatch.setattr(nvcc, "driver_version", lambda: (13, 0))
    monkeypatch.setattr(nvcc, "compile_cubin", lambda *_, **__: b"compiled")
    monkeypatch.setattr(nvcc, "_told", set())
    monkeypatch.setenv("CUDAFILTER_CACHE", str(tmp_path / "cache"))
    codes = {nvcc.package_key(*kernel, ARCH): code_of(*kernel) for kernel in KERNELS}
    shipped.write(shipped.FOLDER, ARCH, codes, 13, "NVRTC 13.0")
    return shipped.FOLDER


@pytest.fixture
def compiler(tmp_path: Path) -> nvcc.Compiler:
    (tmp_path / "nvcc").touch()
    return toolkit.Toolkit(tmp_path / "nvcc", tmp_path, tmp_path, "a test")


@pytest.mark.parametrize("kernel", KERNELS[::5])
def test_the_first_use_compiles_nothing(
    kernel: tuple[str, dict[str, int]], compiler: nvcc.Compiler, caplog: pytest.LogCaptureFixture
) -> None:
    assert nvcc.cubin(*kernel, ARCH, compiler) == code_of(*kernel)
    assert not caplog.records


def test_the_second_use_is_the_caches(compiler: nvcc.Compiler, folder: Path) -> None:
    nvcc.cubin(*KERNELS[0], ARCH, compiler)
    shutil.rmtree(folder)
    assert nvcc.cubin(*KERNELS[0], ARCH, compiler) == code_of(*KERNELS[0])


def test_a_cache_that_keeps_nothing_is_not_worth_a_note(
    compiler: nvcc.Compiler, tmp_path: Path, monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    for unusable in (tmp_path / "file" / "cache", tmp_path / "open"):
        monkeypatch.setenv("CUDAFILTER_CACHE", str(unusable))
        if unusable.name == "open":
            unusable.mkdir()
            unusable.chmod(0o777)
        assert nvcc.cubin(*KERNELS[0], ARCH, compiler) == code_of(*KERNELS[0])
    assert not caplog.records
    assert nvcc.cubin("vanilla", {"X": 99}, ARCH, compiler) == b"compiled"
    assert "each run compiles anew" in caplog.text


def edited(suffix: str) -> Callable[[Path], None]:
    """Change the first source of that suffix."""

    def edit(sources: Path) -> None:
        path = min(sources.glob(f"*{suffix}"))
        path.write_text(path.read_text() + "// another\n")

    return edit


@pytest.mark.parametrize("change", [edited("vanilla.cu"), edited(".cuh")])
def test_edited_sources_are_compiled(
    change: Callable[[Path], None], compiler: nvcc.Compiler, tmp_path: Path, monkeypatch: Patch
) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(toolkit.kernel_sources(), sources)
    monkeypatch.setattr(nvcc, "kernel_sources", lambda: sources)
    assert nvcc.cubin(*KERNELS[0], ARCH, compiler) == code_of(*KERNELS[0])
    change(sources)
    assert nvcc.cubin(*KERNELS[0], ARCH, compiler) == b"compiled"


def test_other_macros_options_and_architectures_are_compiled(
    compiler: nvcc.Compiler, monkeypatch: Patch
) -> None:
    assert nvcc.cubin("vanilla", {"X": 99}, ARCH, compiler) == b"compiled"
    assert nvcc.cubin(*KERNELS[0], "sm_89", compiler) == b"compiled"
    monkeypatch.setattr(nvcc, "NVRTC_FLAGS", (*nvcc.NVRTC_FLAGS, "--fmad=false"))
    assert nvcc.cubin(*KERNELS[0], ARCH, compiler) == b"compiled"


@pytest.mark.parametrize(("driver", "taken"), [((12, 9), False), ((14, 0), True), (None, True)])
def test_a_driver_gets_no_kernels_that_are_newer(
    driver: tuple[int, int] | None, taken: bool, compiler: nvcc.Compiler, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(nvcc, "driver_version", lambda: driver)
    code = nvcc.cubin(*KERNELS[0], ARCH, compiler)
    assert code == (code_of(*KERNELS[0]) if taken else b"compiled")


def test_one_that_the_driver_does_not_load_is_compiled(compiler: nvcc.Compiler) -> None:
    assert nvcc.cubin(*KERNELS[0], ARCH, compiler, refused="invalid image") == b"compiled"
    assert nvcc.cubin(*KERNELS[0], ARCH, compiler) == b"compiled", "and kept"


def test_ahead_of_their_use_they_are_there_already(compiler: nvcc.Compiler) -> None:
    wanted = [*KERNELS, ("vanilla", {"X": 99})]
    assert nvcc.compile_ahead(wanted, ARCH, compiler, jobs=2) == (1, len(KERNELS))


def flipped(folder: Path) -> None:
    path = folder / f"{ARCH}.xz"
    data = bytearray(path.read_bytes())
    for at in range(40, len(data), 100):
        data[at] ^= 1
    path.write_bytes(data)


def cut(folder: Path) -> None:
    path = folder / f"{ARCH}.xz"
    path.write_bytes(path.read_bytes()[:100])


def gone(folder: Path) -> None:
    (folder / f"{ARCH}.xz").unlink()


def another(folder: Path) -> None:
    """Whole, and not what the digests say."""
    index = json.loads((folder / f"{ARCH}.json").read_text())
    for place in index["kernels"].values():
        place[2] += 1
    (folder / f"{ARCH}.json").write_text(json.dumps(index))


def nonsense(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / f"{ARCH}.json").write_text(text)

    return write


def places(place: Any) -> Callable[[Path], None]:
    """An index that tells *place* of each kernel."""
    keys = dict.fromkeys((nvcc.package_key(*kernel, ARCH) for kernel in KERNELS), place)
    return nonsense(json.dumps({"cuda": 13, "compiler": "", "kernels": keys}))


@pytest.mark.parametrize(
    "harm",
    [flipped, cut, gone, another, nonsense("{"), nonsense("[]"), nonsense("{}"),
     nonsense('{"cuda": 13, "compiler": "", "kernels": []}'), places([]),
     places(None), places(["a", 1, 1, 1, ""]), places([-1, 1, 1, 1, ""]), places([0] * 5)],
)  # fmt: skip
def test_what_is_damaged_is_told_and_compiled(
    harm: Callable[[Path], None],
    folder: Path,
    compiler: nvcc.Compiler,
    caplog: pytest.LogCaptureFixture,
) -> None:
    harm(folder)
    assert nvcc.cubin(*KERNELS[0], ARCH, compiler) == b"compiled"
    (record,) = caplog.records
    assert str(folder / ARCH) in record.getMessage()
    assert " is damaged: " in record.getMessage()
    with pytest.raises(shipped.Damaged, match=ARCH):
        shipped.verified(folder, ARCH)


def test_all_are_verified(folder: Path) -> None:
    assert shipped.architectures(folder) == [ARCH]
    assert shipped.verified(folder, ARCH) == len(KERNELS)
    assert shipped.verified(folder, "sm_89") == 0


class TestARelease:
    """tools/cubins.py."""

    @pytest.fixture
    def tool(self, monkeypatch: Patch) -> dict[str, Any]:
        tool = runpy.run_path(str(ROOT / "tools" / "cubins.py"))
        for function in ("make", "lacks"):
            names = tool[function].__globals__
            monkeypatch.setitem(names, "compile_cubin", lambda *_, **__: b"compiled")
            monkeypatch.setitem(names, "common", lambda: KERNELS)
        return tool

    @pytest.mark.parametrize(("version", "compiled"), [("13.0", 1), ("13.1", len(KERNELS) + 1)])
    def test_compiles_what_is_not_there_by_the_same_compiler(
        self, tool: dict[str, Any], folder: Path, monkeypatch: Patch, version: str, compiled: int
    ) -> None:
        monkeypatch.setattr(Nvrtc, "version", version)
        wanted = [*KERNELS, ("vanilla", {"X": 99})]
        compiler = Nvrtc(Path("libnvrtc.so.13"), 13, "a test")
        assert tool["make"](folder, ARCH, compiler, wanted) == compiled
        assert shipped.verified(folder, ARCH) == len(wanted)
        kept = shipped.find(folder, ARCH, nvcc.package_key(*KERNELS[0], ARCH), 13)
        assert kept == (code_of(*KERNELS[0]) if compiled == 1 else b"compiled")

    def test_what_is_damaged_is_compiled_again_and_what_is_whole_stays(
        self, tool: dict[str, Any], folder: Path, monkeypatch: Patch
    ) -> None:
        monkeypatch.setattr(Nvrtc, "version", "13.0")
        compiler = Nvrtc(Path("libnvrtc.so.13"), 13, "a test")
        written = (folder / f"{ARCH}.xz").stat().st_mtime_ns
        assert tool["make"](folder, ARCH, compiler, KERNELS) == 0
        assert (folder / f"{ARCH}.xz").stat().st_mtime_ns == written
        cut(folder)
        assert tool["make"](folder, ARCH, compiler, KERNELS) == len(KERNELS)
        assert shipped.verified(folder, ARCH) == len(KERNELS)
        assert tool["make"](folder, ARCH, compiler, KERNELS[1:]) == 0
        assert shipped.verified(folder, ARCH) == len(KERNELS) - 1

    def test_is_told_to_lack_what_is_missing_old_or_damaged(
        self, tool: dict[str, Any], folder: Path, monkeypatch: Patch
    ) -> None:
        monkeypatch.setitem(tool["lacks"].__globals__, "ARCHITECTURES", (ARCH, "sm_89"))
        told = f"{len(KERNELS)} kernels of sm_89 are missing, or of older sources"
        assert tool["lacks"](folder) == [told]
        cut(folder)
        assert [f"{folder / ARCH}.xz is damaged" in each for each in tool["lacks"](folder)] == [
            True, False
        ]  # fmt: skip
