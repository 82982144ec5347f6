"""The kernel cache: whose files are loaded, how it is made, what is removed from it."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cudafilter.cli import app
from cudafilter.cli import compile as command
from cudafilter.engines import nvcc
from cudafilter.engines.cuda.ahead import common
from cudafilter.errors import EngineError
from cudafilter.nvidia import toolkit

OTHER = 65534
"""Another user's number."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the cache is; it is not made. Compiling gives ``compiled``."""
    fake = toolkit.Toolkit(tmp_path / "nvcc", tmp_path, tmp_path, "a test")
    fake.nvcc.touch()
    (tmp_path / "cuda.h").write_text("#define CUDA_VERSION 13000\n")
    monkeypatch.setattr(toolkit, "find_compiler", lambda: fake)
    monkeypatch.setattr(nvcc, "find_compiler", lambda: fake)
    monkeypatch.setattr(toolkit, "has_host_compiler", lambda: True)
    monkeypatch.setattr(nvcc, "compile_cubin", lambda *_, **__: b"compiled")
    monkeypatch.setattr(nvcc, "_told", set())
    monkeypatch.setenv("CUDAFILTER_CACHE", str(tmp_path / "a" / "cache"))
    before = os.umask(0)  # the least careful
    yield tmp_path / "a" / "cache"
    os.umask(before)


def kernel() -> tuple[str, dict[str, int], str, nvcc.Compiler]:
    return "vanilla", {"X": 1}, "sm_90", nvcc.require_compiler()


def plant(code: bytes = b"planted", mode: int = 0o600) -> Path:
    """A kernel in the cache that holds its own right digest."""
    path = nvcc._path(*kernel())
    nvcc._make_private(path.parent)
    path.write_bytes(hashlib.sha256(code).digest() + code)
    path.chmod(mode)
    return path


def test_what_is_made_is_for_the_user_only(folder: Path) -> None:
    nvcc.cubin(*kernel())
    assert nvcc.cubin(*kernel()) == b"compiled"
    (kept,) = folder.iterdir()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, kept)]
    assert modes == [0o700, 0o700, 0o600]


@pytest.mark.parametrize(
    ("mode", "loaded"), [(0o600, True), (0o644, True), (0o664, False), (0o606, False)]
)
def test_a_file_that_others_can_write_is_compiled_anew(mode: int, loaded: bool) -> None:
    path = plant(mode=mode)
    assert nvcc.cubin(*kernel()) == (b"planted" if loaded else b"compiled")
    assert not path.stat().st_mode & 0o022, "and replaced"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_so_is_one_of_another_user() -> None:
    os.chown(plant(), OTHER, OTHER)
    assert nvcc.cubin(*kernel()) == b"compiled"


def test_roots_files_are_loaded_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    plant()
    monkeypatch.setattr(nvcc, "_is_ours", lambda owner: owner in (0, os.geteuid()))
    assert nvcc.cubin(*kernel()) == b"planted"
    assert nvcc._is_ours(0)


def test_a_link_is_not_gone_through(tmp_path: Path) -> None:
    path = plant()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert nvcc.cubin(*kernel()) == b"compiled"


@pytest.mark.parametrize("cut", [0, 5, 32, 38])
def test_a_damaged_one_is_compiled_anew_and_told(
    cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = plant()
    path.write_bytes(path.read_bytes()[:cut])
    assert nvcc.cubin(*kernel()) == b"compiled"
    assert nvcc._read(path) == b"compiled"
    (record,) = caplog.records
    assert record.getMessage() == f"{path}: not used, as it is damaged"


def test_one_that_the_driver_does_not_load_is_compiled_anew_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = plant()
    assert nvcc.cubin(*kernel(), refused="invalid image") == b"compiled"
    assert nvcc.cubin(*kernel()) == b"compiled", "and kept"
    (record,) = caplog.records
    assert "compiled anew, as the driver does not load it: invalid image" in record.getMessage()
    assert str(path) in record.getMessage()


@pytest.mark.parametrize(
    "how", ["written by all", "written by the group", "another user's", "replaced by all"]
)
def test_a_folder_of_others_is_not_used_and_told_once(
    how: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = plant()
    if how == "another user's":
        if os.geteuid() != 0:
            pytest.skip("only root can give folders away")
        os.chown(folder, OTHER, OTHER)
    elif how == "replaced by all":
        folder.parent.chmod(0o777)
    else:
        folder.chmod(0o777 if how == "written by all" else 0o770)
    before = path.read_bytes()
    with caplog.at_level(logging.WARNING):
        assert [nvcc.cubin(*kernel()) for _ in range(3)] == [b"compiled"] * 3
    assert path.read_bytes() == before
    (record,) = caplog.records
    assert str(folder.parent) in record.getMessage()
    assert ("CUDAFILTER_CACHE" if how == "another user's" else "chmod") in record.getMessage()
    with pytest.raises(EngineError, match=str(folder.parent)) as caught:
        nvcc.compile_ahead([kernel()[:2]], "sm_90", kernel()[3], jobs=1)
    assert caught.value.hint


def test_where_all_may_write_but_not_remove_it_is_used(folder: Path) -> None:
    plant()
    folder.parent.chmod(0o1777)  # as /tmp is
    assert nvcc.cubin(*kernel()) == b"planted"


def test_temporaries_of_killed_processes_are_removed(folder: Path) -> None:
    nvcc._make_private(folder)
    names = (".1a2b-3c4d.part", "tmpabcd_123", ".1a2b-ffff.part", "tmp notes", "kept.cubin")
    for name in names:
        (folder / name).touch()
        os.utime(folder / name, (1, 1))
    os.utime(folder / ".1a2b-ffff.part")  # somebody is writing it
    nvcc.cubin(*kernel())
    left = {path.name for path in folder.iterdir()} - {nvcc._path(*kernel()).name}
    assert left == {".1a2b-ffff.part", "tmp notes", "kept.cubin"}


def test_a_failed_write_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert nvcc.cubin(*kernel()) == b"compiled"
    assert list(folder.iterdir()) == []


class TestProgress:
    TOTAL = len(common("vanilla"))

    def shown(self, end: str = "\n", *words: str) -> list[str]:
        """What is told, split at *end*."""
        arguments = ["compile", "--arch", "sm_90", "--variant", "vanilla", "-j", "1", *words]
        result = CliRunner().invoke(app, arguments, prog_name="cudafilter")
        assert result.exit_code == 0, result.stderr
        return result.stderr.removesuffix("\n").split(end) if result.stderr else []

    def test_elsewhere_than_on_a_terminal_is_a_line_a_minute(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert len(self.shown()) == 1, "nothing took a minute"
        seconds = iter(range(0, 100_000, 25))
        monkeypatch.setattr(command, "monotonic", lambda: next(seconds))
        lines = [line for line in self.shown() if f" of {self.TOTAL} kernels" in line]
        assert lines[0] == f"sm_90: 3 of {self.TOTAL} kernels, 75 s"
        assert len(lines) == self.TOTAL // 3

    def test_on_a_terminal_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(command, "erases", lambda: True)
        drawn = self.shown("\r")[1:]
        assert len(drawn) == self.TOTAL + 1
        assert drawn[-2].startswith(f"sm_90: {self.TOTAL} of {self.TOTAL} kernels")
        assert drawn[-1] == "", "it is removed in the end"

    @pytest.mark.parametrize("terminal", [True, False])
    def test_quiet_has_none(self, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        seconds = iter(range(0, 1_000_000, 100))
        monkeypatch.setattr(command, "monotonic", lambda: next(seconds))
        monkeypatch.setattr(command, "erases", lambda: terminal)
        assert self.shown("\n", "-q") == []
