"""Kernels compiled ahead: which ones, what is compiled and kept, and ``cudafilter compile``."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cudafilter.cli import app
from cudafilter.engines import nvcc, shipped
from cudafilter.engines.cuda import device as cuda
from cudafilter.engines.cuda.ahead import common as common_kernels
from cudafilter.engines.cuda.variants import CHOICES
from cudafilter.engines.cuda.variants.ladder import prepare
from cudafilter.errors import EngineError, EngineUnavailable
from cudafilter.nvidia import toolkit
from cudafilter.operations.borders import Border
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation, stages_of

KERNELS = [("vanilla", {"SAMPLE": 0}), ("vanilla", {"SAMPLE": 1}), ("tiled", {"SAMPLE": 0})]


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> toolkit.Toolkit:
    """A toolkit that compiles nothing, found by all, and an empty cache in ``cache``.

    The package brings no kernels.
    """
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "none")
    nvcc_file = tmp_path / "nvcc"
    nvcc_file.write_text("no compiler")
    (tmp_path / "cuda.h").write_text("#define CUDA_VERSION 13000\n")
    fake = toolkit.Toolkit(nvcc_file, tmp_path, tmp_path, "a test")
    monkeypatch.setattr(toolkit, "find_compiler", lambda: fake)
    monkeypatch.setattr(nvcc, "find_compiler", lambda: fake)
    monkeypatch.setattr(toolkit, "has_host_compiler", lambda: True)
    monkeypatch.setenv("CUDAFILTER_CACHE", str(tmp_path / "cache"))
    return fake


@pytest.fixture
def started(compiler: toolkit.Toolkit, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(variant, architecture) of each compilation; that of ``broken`` fails."""
    log: list[tuple[str, str]] = []

    def compile_cubin(
        variant: str, defines: Mapping[str, int], arch: str, _: nvcc.Compiler, **apart: bool
    ) -> bytes:
        log.append((variant, arch))
        if variant == "broken":
            raise EngineError("broken.cu does not compile", hint="mend it")
        return f"{variant} {dict(defines)} {arch}".encode()

    monkeypatch.setattr(nvcc, "compile_cubin", compile_cubin)
    return log


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["compile", *arguments], prog_name="cudafilter")


class TestTheCommonKernels:
    @pytest.mark.parametrize("variant", CHOICES)
    def test_are_a_moderate_number_each_once(self, variant: str) -> None:
        found = [(name, tuple(defines.items())) for name, defines in common_kernels(variant)]
        assert 0 < len(set(found)) == len(found) < 400
        assert variant == "auto" or {name for name, _ in found} == {variant}

    @pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "kernel"])
    def test_are_what_a_filter_with_its_defaults_runs_with(self, name: str) -> None:
        common = common_kernels()
        for dtype in (np.uint8, np.uint16, np.float32):
            for channels, alpha in ((1, False), (2, True), (3, False), (4, True)):
                for stage in stages_of(make(name).unrolled(Border("wrap"))):
                    asked = prepare(stage.operation, channels, dtype, stage.border, alpha, "auto")
                    assert (asked.variant, asked.defines) in common

    @pytest.mark.parametrize(
        "filter",
        [make("blur", sigma=sigma) for sigma in (1, 2, 3, 5)]
        + [make("median", radius=radius) for radius in (2, 3)],
    )
    def test_have_common_blurs_and_medians(self, filter: Operation) -> None:
        asked = prepare(filter, 3, np.uint8, Border(), False, "auto")
        assert (asked.variant, asked.defines) in common_kernels()


class TestCompilingAhead:
    def test_fills_the_cache_that_a_run_looks_into(
        self, compiler: toolkit.Toolkit, started: list[tuple[str, str]]
    ) -> None:
        assert nvcc.compile_ahead(KERNELS, "sm_90", compiler, jobs=2) == (3, 0)
        assert len(started) == 3
        for variant, defines in KERNELS:
            code = nvcc.cubin(variant, defines, "sm_90", compiler)
            assert code == f"{variant} {defines} sm_90".encode()
        assert len(started) == 3

    def test_compiles_only_what_is_not_there(
        self, compiler: toolkit.Toolkit, started: list[tuple[str, str]]
    ) -> None:
        nvcc.cubin(*KERNELS[1], "sm_90", compiler)
        assert nvcc.compile_ahead(KERNELS, "sm_90", compiler, jobs=2) == (2, 1)
        assert nvcc.compile_ahead(KERNELS, "sm_90", compiler, jobs=2) == (0, 3)
        assert nvcc.compile_ahead(KERNELS, "sm_89", compiler, jobs=2) == (3, 0)

    def test_compiles_a_damaged_one_anew(
        self, compiler: toolkit.Toolkit, started: list[tuple[str, str]]
    ) -> None:
        nvcc.compile_ahead(KERNELS, "sm_90", compiler, jobs=1)
        kept = next(nvcc.cache_dir().glob("tiled-*.cubin"))
        kept.write_bytes(kept.read_bytes()[:-1])
        assert nvcc.compile_ahead(KERNELS, "sm_90", compiler, jobs=1) == (1, 2)

    def test_stops_at_the_first_that_does_not_compile(
        self,
        compiler: toolkit.Toolkit,
        started: list[tuple[str, str]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        sources = tmp_path / "cuda_src"
        sources.mkdir()
        for name in ("broken", "vanilla"):
            (sources / f"{name}.cu").touch()
        monkeypatch.setattr(nvcc, "kernel_sources", lambda: sources)
        many = [("broken", {}), *(("vanilla", {"ROWS": n}) for n in range(1000))]
        with pytest.raises(EngineError, match="broken"):
            nvcc.compile_ahead(many, "sm_90", compiler, jobs=1)
        assert len(started) < 1000

    def test_fails_where_the_cache_cannot_be_written_and_a_run_does_not(
        self,
        compiler: toolkit.Toolkit,
        started: list[tuple[str, str]],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setenv("CUDAFILTER_CACHE", str(compiler.nvcc / "cache"))
        with pytest.raises(OSError, match="nvcc"):
            nvcc.compile_ahead(KERNELS, "sm_90", compiler, jobs=1)
        assert started == []
        with caplog.at_level(logging.WARNING):
            assert nvcc.cubin(*KERNELS[0], "sm_90", compiler)
        assert "each run compiles anew" in caplog.text

    def test_with_the_compiler_that_is_here(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        try:
            real = nvcc.require_compiler()
        except EngineUnavailable as reason:
            pytest.skip(str(reason))
        monkeypatch.setenv("CUDAFILTER_CACHE", str(tmp_path))
        monkeypatch.setattr(shipped, "FOLDER", tmp_path / "none")
        kernels = common_kernels("vanilla")[:1] + common_kernels("stream")[:1]
        assert nvcc.compile_ahead(kernels, "sm_90", real, jobs=2) == (2, 0)
        assert nvcc.cubin(*kernels[1], "sm_90", real).startswith(b"\x7fELF")
        monkeypatch.setattr(subprocess, "run", None)  # no compiler may start any more
        assert nvcc.compile_ahead(kernels, "sm_90", real, jobs=2) == (0, 2)


class TestTheCommand:
    def test_compiles_for_the_architectures_named(self, started: list[tuple[str, str]]) -> None:
        first = cli("--arch", "sm_90, sm_89,sm_90", "--variant", "vanilla", "--jobs", "2")
        assert first.exit_code == 0, first.stderr
        number = len(common_kernels("vanilla"))
        lines = first.stdout.splitlines()
        assert [line.rpartition(", ")[0] for line in lines] == [
            f"{arch}: {number} compiled, 0 there already" for arch in ("sm_90", "sm_89")
        ]
        assert sorted(set(started)) == [("vanilla", "sm_89"), ("vanilla", "sm_90")]
        assert len(started) == 2 * number
        second = cli("--arch", "sm_90", "--variant", "vanilla")
        assert f"sm_90: 0 compiled, {number} there already" in second.stdout

    def test_compiles_for_the_gpus_here_each_kind_once(
        self, started: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = [
            cuda.Gpu(i, "Some GPU", capability, 80 << 30, "13.0")
            for i, capability in enumerate([(9, 0), (9, 0), (12, 0)])
        ]
        monkeypatch.setattr(cuda, "gpus", lambda: found)
        shown = cli().stdout
        number = len(common_kernels())
        assert [line.rpartition(", ")[0] for line in shown.splitlines()] == [
            f"{arch}: {number} compiled, 0 there already" for arch in ("sm_90", "sm_120")
        ]
        assert {arch for _, arch in started} == {"sm_90", "sm_120"}

    def test_quiet_says_nothing(self, started: list[tuple[str, str]]) -> None:
        result = cli("--arch", "sm_90", "--variant", "vanilla", "-q")
        assert (result.exit_code, result.output) == (0, "")
        assert started

    def test_without_a_gpu_tells_of_arch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def none() -> list[cuda.Gpu]:
            raise EngineUnavailable("the NVIDIA driver shows no GPU")

        monkeypatch.setattr(cuda, "gpus", none)
        result = cli()
        assert result.exit_code == 1
        assert "error: the NVIDIA driver shows no GPU" in result.stderr
        assert "--arch sm_90" in result.stderr

    def test_without_a_compiler_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(toolkit, "find_compiler", lambda: None)
        result = cli("--arch", "sm_90")
        assert result.exit_code == 1
        assert "error: no CUDA compiler" in result.stderr
        assert "install_cuda" in result.stderr

    def test_needs_neither_driver_nor_pycuda_where_the_architecture_is_named(
        self, started: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(toolkit, "driver_version", lambda: None)
        assert toolkit.missing() != []
        assert cli("--arch", "sm_90", "--variant", "vanilla").exit_code == 0

    def test_names_a_cache_that_cannot_be_written(
        self,
        compiler: toolkit.Toolkit,
        started: list[tuple[str, str]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("CUDAFILTER_CACHE", str(compiler.nvcc / "cache"))
        result = cli("--arch", "sm_90")
        assert result.exit_code == 1
        assert f"error: {compiler.nvcc / 'cache'}: " in result.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--arch", "90"),
            ("--arch", "sm_90,"),
            ("--arch", ""),
            ("--jobs", "0"),
            ("--variant", "x"),
        ],
    )
    def test_refuses_what_makes_no_sense(self, arguments: tuple[str, ...]) -> None:
        result = cli(*arguments)
        assert result.exit_code == 2
        assert f"Invalid value for '{arguments[0]}'" in result.stderr.replace("'-j' / ", "")
