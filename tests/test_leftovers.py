"""Temporaries of killed runs go; those of runs at work, here or elsewhere, stay."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command_line import ENVIRONMENT
from cudafilter.stores import leftovers, local

NAME = "from cudafilter.stores.leftovers import temporary_name as name; print(name(), flush=True)"


def name_of(code: str = "") -> tuple[str, subprocess.Popen[str]]:
    """A temporary's name by another process, which then goes on with *code*."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{NAME}\n{code}"], env=ENVIRONMENT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    return process.stdout.readline().strip(), process


def name_of_the_dead() -> str:
    name, process = name_of()
    process.communicate()
    return name


def left(folder: Path, *names: str, age: float = 0.0) -> list[str]:
    """Which of the files *names* in *folder*, *age* seconds old, a sweep leaves."""
    for name in names:
        (folder / name).write_bytes(b"")
        os.utime(folder / name, (time.time() - age,) * 2)
    leftovers.sweep(str(folder))
    return sorted(path.name for path in folder.iterdir())


def changed(name: str, **parts: str) -> str:
    """*name* with other *parts*: host, boot, space, process or start."""
    first, *fields = name.split("-")
    for part, value in parts.items():
        fields[["host", "boot", "space", "process", "start"].index(part)] = value
    return "-".join([first, *fields])


def test_names_differ() -> None:
    assert len({leftovers.temporary_name() for _ in range(100)}) == 100


def test_those_of_a_process_that_is_gone_go(tmp_path: Path) -> None:
    assert left(tmp_path, name_of_the_dead(), "photo.png") == ["photo.png"]


def test_those_of_a_process_at_work_stay(tmp_path: Path) -> None:
    name, process = name_of("input()")
    own = leftovers.temporary_name()
    try:
        assert left(tmp_path, name, own, age=1e6) == sorted([name, own])
    finally:
        process.communicate("\n")


def test_a_process_of_the_same_number_is_another_one(tmp_path: Path) -> None:
    assert left(tmp_path, changed(leftovers.temporary_name(), start="1")) == []


def test_those_of_other_hosts_and_containers_stay(tmp_path: Path) -> None:
    dead = name_of_the_dead()
    others = [changed(dead, host="0badcafe"), changed(dead, space="1")]
    assert left(tmp_path, *others, age=1e9) == sorted(others)


def test_those_of_an_earlier_boot_go(tmp_path: Path) -> None:
    name = changed(leftovers.temporary_name(), boot="0badcafe")
    assert left(tmp_path, name) == [name], "younger than this boot: another host of the same name"
    assert left(tmp_path, name, age=1e9) == []


@pytest.mark.parametrize(("age", "stays"), [(60.0, True), (2 * 86400.0, False)])
def test_those_of_the_old_naming_go_after_a_day(tmp_path: Path, age: float, stays: bool) -> None:
    name = ".cudafilter-3ffffff-1-2.tmp"
    assert left(tmp_path, name, age=age) == ([name] if stays else [])


@pytest.mark.parametrize("name", [".cudafilter-notes.tmp", ".cudafilter", "x.tmp"])
def test_other_files_stay(tmp_path: Path, name: str) -> None:
    assert left(tmp_path, name, age=1e9) == [name]


def test_a_folder_is_swept_when_it_is_first_written_to(tmp_path: Path) -> None:
    dead = name_of_the_dead()
    (tmp_path / dead).write_bytes(b"half")
    local.write_atomically(tmp_path / "a.png", b"a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    (tmp_path / dead).write_bytes(b"half")
    local.write_atomically(tmp_path / "b.png", b"b")
    assert (tmp_path / dead).exists(), "looked at once, not for each image"


def test_where_all_is_done_already_they_go_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for name in ("in/a.png", "out/a.png", f"out/{name_of_the_dead()}"):
        (tmp_path / name).write_bytes(b"")
    command = [sys.executable, "-m", "cudafilter", "blur", "in/a.png", "out/", "--existing", "skip"]
    subprocess.run([*command, "--engine", "cpu"], env=ENVIRONMENT, cwd=tmp_path, check=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
