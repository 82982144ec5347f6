"""A text that is named by mistake, endless or nested without end, is refused by its name: soon, and
in bounded memory."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest

from command_line import ENVIRONMENT, PROGRAM, cli, picture
from cudafilter.cli import presets

ENDLESS = "/dev/zero"
NESTED = {"arrays": "a = " + "[" * 100_000, "tables": "a = " + "{b = " * 100_000}


def bounded(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program in an address space of 2 GiB."""
    return subprocess.run(
        [*PROGRAM, *words], env={**ENVIRONMENT, **environment}, capture_output=True, text=True,
        check=False, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        (["blur"], {presets.FILE: ENDLESS}, "/dev/zero is no TOML: it is longer than 1,048,576"),
        (["chain", f"@{ENDLESS}"], {}, "/dev/zero is no TOML: it is longer than 1,048,576"),
        (["kernel", "-w", ENDLESS], {}, "'--weights': /dev/zero is longer than 67,108,864"),
        (["blur", "--retry-failed", ENDLESS], {}, "line 1 of /dev/zero is damaged"),
    ],
    ids=["presets", "recipes", "weights", "report"],
)
def test_a_text_without_end(
    here: Path, words: list[str], environment: dict[str, str], told: str
) -> None:
    picture("in.png")
    done = bounded(*words, "in.png", "out.png", **environment)
    assert told in done.stderr
    assert done.returncode == 2
    assert not Path("out.png").exists()


@pytest.mark.parametrize("nested", NESTED)
def test_a_text_nested_without_end(
    here: Path, monkeypatch: pytest.MonkeyPatch, nested: str
) -> None:
    picture("in.png")
    Path("deep.toml").write_text(NESTED[nested])
    for words, name in ((["chain", "@deep.toml"], "none"), (["blur"], "deep.toml")):
        Path(name).touch()
        monkeypatch.setenv(presets.FILE, name)
        done = cli(*words, "in.png", "out.png")
        assert done.exit_code == 2, done.stderr
        assert "error: deep.toml is no TOML: " in done.stderr
