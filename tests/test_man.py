"""The manual pages: all of the help, without a warning of troff."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cudafilter.cli import app

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "docs" / "make_man.py"
PAGES: dict[str, str] = dict(runpy.run_path(str(SCRIPT))["pages"]())
COMMANDS = app.list_commands(click.Context(app))


def test_there_is_a_page_for_each_command() -> None:
    assert list(PAGES) == ["cudafilter", *(f"cudafilter-{name}" for name in COMMANDS)]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_tells_every_option_and_the_example(name: str) -> None:
    command = app.get_command(click.Context(app), name)
    assert command is not None
    told = PAGES[f"cudafilter-{name}"].replace("\\-", "-").replace("\\e", "\\")
    for option in command.params:
        if isinstance(option, click.Option):
            assert f".B {option.opts[0]}" in told
            assert " ".join((option.help or "").split()) in told
    assert f"\n.SH EXAMPLE\n.nf\n{command.example}\n.fi\n" in told  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PAGES)
def test_troff_takes_it_without_a_warning(name: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww"],
        input=PAGES[name].encode(), capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == b""
    assert b"Interrupted; what was done stays." in done.stdout


@pytest.mark.parametrize("text", [".TH like a request", "'also one", r"\fB an escape", "a -b --c"])
def test_text_is_taken_for_itself(text: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    page = f".TH A 1\n.SH NAME\n{runpy.run_path(str(SCRIPT))['_plain'](text)}\n"
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-ww", "-P-c"],
        input=page, text=True, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    assert text in done.stdout


def test_they_are_written_into_a_folder(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path / "man")], check=True, timeout=60)
    assert {path.stem for path in (tmp_path / "man").iterdir()} == set(PAGES)
    wrong = subprocess.run([sys.executable, str(SCRIPT)], check=False, capture_output=True)
    assert wrong.returncode == 2
