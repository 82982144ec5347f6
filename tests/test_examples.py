"""Every example of the documents and the help is run, or says visibly that it is not."""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

import cudafilter.api
from cudafilter.cli import app
from cudafilter.operations.catalogue import CATALOGUE
from test_docs import DOCUMENTS, NO_GPU, PAGES, ROOT, TEXTS, blocks

READ = [*PAGES, "samples/README.md", "SECURITY.md", "CHANGELOG.md"]
"""What users read. CONTRIBUTING's commands are those of the Makefile and of tools."""

MARK = re.compile(r"# (?:needs|takes) ")
"""In the comment of a line, or in the first line of a block for all of it: why it is not run."""


def lines_of(page: str) -> Iterator[tuple[str, str, bool]]:
    """The page, each line of its shell blocks, and whether it is marked."""
    for block in blocks("sh", page):
        whole = MARK.match(block) is not None
        for line in block.splitlines():
            if line and not line.startswith("#"):
                yield page, line, whole or MARK.search(line) is not None


LINES = [line for page in READ for line in lines_of(page)]
UNMARKED = list(dict.fromkeys(line for _, line, marked in LINES if not marked))
EVALUATED = re.compile(r'eval "\$\((cudafilter completion \w+)\)"')
"""What the shell does with it is the shell's, which need not be here."""
OTHERS = [line for line in UNMARKED if not re.match(rf"cudafilter |{EVALUATED.pattern}", line)]
EXAMPLES = [line for line in UNMARKED if line not in OTHERS]
HELP = {
    name: command.example
    for name in app.list_commands(click.Context(app))
    if (command := app.get_command(click.Context(app), name)) and hasattr(command, "example")
}
"""The example of each command's help."""
MOST_MARKED = 40
"""Lines that are not run; most of them install something."""
LONG = {"compile": "takes minutes; tests/test_compile.py compiles fewer kernels"}
"""Commands whose example is not run."""
SPOKEN = sorted(
    span
    for text in TEXTS.values()
    for span in set(re.findall(r"`(cudafilter [^`\n]+)`", text))
    if "FILTER" not in span  # a place for a name
)
"""Commands within sentences."""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A folder with samples/ and the files that the examples name, and ``cudafilter`` in bin/."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    for name in (
        "photo.jpg", "in.png", "a.png", "b.png", "photos/a.jpg", "photos/trip/b.png", "scan.png",
        "page.png", "stars.png", "negative.tif",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "mask.png")
    for name in ("cat.gif", "stack.tif"):
        frames = [Image.fromarray(np.roll(pixels, n, axis=0)) for n in range(6)]
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "weights.csv").write_text("1,2,1\n2,4,2\n1,2,1\n")
    failed = {"source": "a.png", "status": "failed", "error": "it is cut short"}
    (tmp_path / "report.jsonl").write_text(f"{json.dumps(failed)}\n")
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    program = tmp_path / "bin" / "cudafilter"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cudafilter "$@"\n')
    program.chmod(0o755)
    return tmp_path


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run *line* by a shell, where no GPU is."""
    environment = {
        **NO_GPU,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "CUDAFILTER_CACHE": f"{folder}-cache",
        "XDG_STATE_HOME": f"{folder}-state",
    }
    return subprocess.run(
        ["sh", "-c", line], env=environment, cwd=folder,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def arguments_of(line: str) -> list[str]:
    """What the shell gives to cudafilter: *line* less its name, redirections and comment."""
    words = shlex.split(re.sub(r"\s[<>]\s*\S+", "", line), comments=True)
    return words[1:]


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def does(line: str, folder: Path) -> None:
    """Run an example. It must write a file where it is to, or print something."""
    before = files(folder)
    if completion := EVALUATED.search(line):
        line = completion[1]
    done = run(line, folder)
    assert done.returncode == 0, done.stderr
    words = shlex.split(line, comments=True)
    writes = words[1] in (*CATALOGUE, "chain", "preview") or "--html" in words
    if not writes or {"--dry-run", "--explain", "--help"} & set(words):
        assert files(folder) == before
        assert done.stdout
    elif "--in-place" not in words:
        assert files(folder) > before
    if "--check" in words:
        assert "agree" in done.stderr


@pytest.mark.parametrize("line", EXAMPLES)
def test_of_the_documents(line: str, example: Path) -> None:
    does(line, example)


@pytest.mark.parametrize("name", [name for name in HELP if name not in LONG])
def test_of_the_help(name: str, example: Path) -> None:
    does(HELP[name], example)


def test_those_that_are_not_run_say_why_and_are_few() -> None:
    not_run = [line for _, line, marked in LINES if marked]
    assert 0 < len(not_run) <= MOST_MARKED, not_run
    assert set(LONG) <= set(HELP)


def test_no_other_program_is_run() -> None:
    assert OTHERS == [], "such lines need a mark: they may install what is not wanted here"


@pytest.mark.parametrize(
    "line",
    dict.fromkeys([*(line for _, line, _ in LINES if line.startswith("cudafilter ")), *SPOKEN]),
)
def test_each_command_parses(line: str) -> None:
    name, *arguments = arguments_of(line)
    command = app.get_command(click.Context(app), name)
    assert command is not None, f"there is no command {name}"
    with suppress(click.exceptions.Exit):  # of --help
        command.make_context(name, arguments)  # raises click.UsageError for what does not parse


CODE = [(page, code) for page in DOCUMENTS for code in blocks("python", page)]
ON_A_GPU = [(page, code) for page, code in CODE if code.startswith("# needs a GPU and ")]


@pytest.mark.gpu
@pytest.mark.parametrize(("page", "code"), ON_A_GPU)
def test_python_on_a_gpu(page: str, code: str) -> None:
    (library,) = re.findall(r"^import (cupy|torch)$", code, re.MULTILINE)
    pytest.importorskip(library, reason=f"{library} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(("page", "code"), [each for each in CODE if each not in ON_A_GPU])
def test_python_of_the_documents(page: str, code: str, example: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], env=NO_GPU, cwd=example,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "compare" not in code or done.stdout.startswith("agrees with the reference: proven: ")


DIALOGUES = [page for page in DOCUMENTS if blocks("pycon", page)]


@pytest.mark.parametrize("page", DIALOGUES)
def test_dialogues_of_the_documents(
    page: str, example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(example)
    result = doctest.testfile(str(ROOT / page), module_relative=False)
    assert result.failed == 0
    assert result.attempted >= TEXTS[page].count("\n>>> ") > 0


def test_dialogues_of_the_api() -> None:
    result = doctest.testmod(cudafilter.api)
    assert result.failed == 0
    assert result.attempted > 0
