"""Completion at Tab: what the shells are told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click.shell_completion as shells
import pytest

from command_line import ENVIRONMENT, PROGRAM, call
from cudafilter.cli import _OTHERS, app, completion
from cudafilter.cli.command import COMPLETION
from cudafilter.engines.cuda.variants import CHOICES
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.choices import BORDERS, CODECS, ENGINES


def offered(line: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What bash is offered for the last word of *line*, as ``type,value``."""
    words = line.split(" ")
    monkeypatch.setenv("COMP_WORDS", "\n".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    completion.prepare("bash_complete")
    return shells.BashComplete(app, {}, "cudafilter", COMPLETION).complete().splitlines()


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("cudafilter so", ["sobel"]),
        ("cudafilter ", [*CATALOGUE, *_OTHERS]),
        ("cudafilter blur --si", ["--sigma"]),
        ("cudafilter box --border ", list(BORDERS)),
        ("cudafilter box --border=re", ["reflect"]),
        ("cudafilter box --border = re", ["reflect"]),
        ("cudafilter box --border = edge --engine = c", ["cuda", "cpu"]),
        ("cudafilter box --engine ", list(ENGINES)),
        ("cudafilter box --codec ", list(CODECS)),
        ("cudafilter box --variant ", list(CHOICES)),
        ("cudafilter box --existing s", ["skip"]),
        ("cudafilter box --format p", ["png", "ppm", "pgm"]),
        ("cudafilter box --background toma", ["tomato"]),
        ("cudafilter bench so", ["sobel"]),
        ("cudafilter completion ", ["bash", "zsh", "fish"]),
        ("cudafilter bench --dtypes uint8,", ["uint8,uint16", "uint8,float32"]),
    ],
)
def test_commands_options_and_values_are_offered(
    line: str, some: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert offered(line, monkeypatch) == [f"plain,{word}" for word in some]


@pytest.mark.parametrize(
    "line",
    [
        "cudafilter blur ",
        "cudafilter blur pho",
        "cudafilter blur a.png ",
        "cudafilter blur --sigma 2 a.png b",
        "cudafilter kernel -w ker",
        "cudafilter kernel --weights ",
        "cudafilter box --report r",
        "cudafilter box --retry-failed r",
        "cudafilter box --mask m",
        "cudafilter bench --plot p",
    ],
)
def test_files_are_left_to_the_shell(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered(line, monkeypatch) == [f"file,{line.split(' ')[-1]}"]


def test_a_check_has_a_value_after_the_sign_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered("cudafilter blur --check=", monkeypatch) == ["plain,all", "plain,quick"]
    assert offered("cudafilter blur --check a", monkeypatch) == ["file,a"]


def test_a_number_is_not_taken_for_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in ("--sigma", "--feather", "--region"):
        assert offered(f"cudafilter blur {option} ", monkeypatch) == []


def test_gpus_are_offered_by_the_files_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = ["nvidia1", "nvidia0", "nvidia-uvm", "nvidiactl", "null", "nvidia10"]
    monkeypatch.setattr(os, "listdir", lambda path: devices if path == "/dev" else [])
    line = "cudafilter blur --gpu "
    assert offered(line, monkeypatch) == ["plain,0", "plain,1", "plain,10", "plain,all"]
    assert offered(line + "0,", monkeypatch) == ["plain,0,1", "plain,0,10"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script_and_its_answers(shell: str) -> None:
    def ask(**asked: str) -> str:
        done = subprocess.run(
            PROGRAM, env={**ENVIRONMENT, **asked}, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    script = ask(**{COMPLETION: f"{shell}_source"})
    assert f"{COMPLETION}={shell}_complete" in script
    at = "so" if shell == "fish" else "1"
    line = {"COMP_WORDS": "cudafilter so", "COMP_CWORD": at}
    assert "sobel" in ask(**{COMPLETION: f"{shell}_complete"}, **line)


def test_a_shape_is_a_word_or_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "cudafilter erode --shape "
    assert offered(line, monkeypatch) == ["plain,square", "plain,disk", "plain,cross", "file,"]
    assert offered(line + "di", monkeypatch) == ["plain,disk", "file,di"]


ASK = {
    "bash": """
COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_cudafilter_completion cudafilter; printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    # zsh's own completion runs at a terminal only; these take its place and print what it is given.
    "zsh": """
compadd() {{ print -l -- ${{(P)@[-1]}}; }}
_describe() {{ print -l -- ${{${{(P)3}}%%:*}}; }}
_path_files() {{ print -l -- *; }}
words=({line}); CURRENT=$#words; _cudafilter_completion
""",
    "fish": """complete -C '{line}' | string replace -r '\\t.*' ''; true""",
}
"""Shell -> what prints the words that it offers for the last one of a line."""

READ = {"bash": "", "zsh": "compdef() {};", "fish": ""}
"""Shell -> what goes before its script is read."""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cudafilter so", ["sobel"]),
        ("cudafilter completion fi", ["fish"]),
        ("cudafilter box --border sym", ["symmetric"]),
        ("cudafilter box --bord", ["--border", "--border-value"]),
        ("cudafilter bench --dtypes uint8,f", ["uint8,float32"]),
        ("cudafilter kernel --weights ker", ["kernel.csv"]),
        ("cudafilter box --check ker", ["kernel.csv"]),
    ],
)
@pytest.mark.parametrize("shell", list(ASK))
def test_the_shell_itself_offers_it(
    shell: str, line: str, words: list[str], program: str, here: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    Path("kernel.csv").touch()
    Path("script").write_text(call("completion", shell).stdout.decode())
    code = f"{READ[shell]} source ./script\n{ASK[shell].format(line=line)}"
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [shell, *options, "-c", code], env={**ENVIRONMENT, "PATH": program, "HOME": str(here)},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    # A file is what bash looks up itself, so its script offers nothing.
    expected = [word for word in words if shell != "bash" or not word.endswith(".csv")]
    assert sorted(set(done.stdout.split()) - {"script", "bin"}) == sorted(expected), done.stderr


@pytest.fixture
def program(here: Path) -> str:
    """The path for commands, with ``cudafilter`` in it."""
    path = here / "bin" / "cudafilter"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m cudafilter "$@"\n')
    path.chmod(0o755)
    return f"{path.parent}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_tells_how_it_is_installed(shell: str) -> None:
    first, second, *_ = call("completion", shell).stdout.decode().splitlines()
    assert f"cudafilter completion {shell} > " in f"{first}{second}"
    assert (first == "#compdef cudafilter") == (shell == "zsh")


def test_another_shell_is_a_usage_error() -> None:
    done = call("completion", "tcsh")
    assert done.returncode == 2
    assert b"'tcsh' is not one of 'bash', 'zsh', 'fish'" in done.stderr


@pytest.mark.parametrize("asked", ["1", "bash", "tcsh_source", "bash_complete", "zsh_complete"])
def test_what_no_shell_asks_is_a_usage_error(asked: str) -> None:
    done = subprocess.run(
        PROGRAM, env={**ENVIRONMENT, COMPLETION: asked}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_completion_imports_nothing_heavy() -> None:
    code = (
        "import os, sys, cudafilter.cli as c\n"
        "try: c.app(prog_name='cudafilter')\n"
        "finally: print({'numpy', 'PIL', 'cv2', 'pycuda', 'ctypes'} & set(sys.modules))"
    )
    line = {"COMP_WORDS": "cudafilter blur --gpu all a.png ", "COMP_CWORD": "5"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**ENVIRONMENT, COMPLETION: "bash_complete", **line},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["file,", "set()"]
