"""The command line for tests: with click's runner and as real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import cudafilter
from cudafilter.cli import app
from cudafilter.operations.catalogue import CATALOGUE

PROGRAM = [sys.executable, "-m", "cudafilter"]

HOME = str(Path(cudafilter.__file__).parents[1])
"""The folder that the package is in."""

ENVIRONMENT = {**os.environ, "PYTHONPATH": HOME, "CUDAFILTER_CACHE": os.devnull}
"""That of processes which are to find the package."""


def call(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the program as a process of its own."""
    return subprocess.run(
        [*PROGRAM, *arguments], input=stdin, capture_output=True, env=ENVIRONMENT, check=False,
        timeout=60,
    )  # fmt: skip


def signalled(
    by: signal.Signals, call: str, number: int, *words: object
) -> subprocess.CompletedProcess[str]:
    """Run the program, which gets the signal *by* at the *number*-th call of a function of os."""
    code = (
        "import os, itertools, time\n"
        f"numbers, original = itertools.count(1), os.{call}\n"
        "def signalled(*given, **named):\n"
        f"    if next(numbers) == {number}:\n"
        f"        os.kill(os.getpid(), {int(by)})\n"
        "        time.sleep(1)  # until the main thread has seen it\n"
        "    return original(*given, **named)\n"
        f"os.{call} = signalled\n"
        "from cudafilter.__main__ import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], env={**ENVIRONMENT, **os.environ},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def killed(call: str, number: int, *words: object) -> None:
    """Run the program, and kill it at the *number*-th call of a function of os."""
    done = signalled(signal.SIGKILL, call, number, *words)
    assert done.returncode == -signal.SIGKILL, done.stderr


def python(code: str, without: tuple[str, ...] = ()) -> str:
    """What *code* prints, in a process whose environment lacks *without*."""
    environment = {k: v for k, v in ENVIRONMENT.items() if k not in without}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def cli(*arguments: str) -> Result:
    """Run the program in this process, on the CPU unless *arguments* choose."""
    if arguments[0] in CATALOGUE and "--engine" not in arguments:
        arguments = (*arguments, "--engine", "cpu")
    return CliRunner().invoke(app, list(arguments), prog_name="cudafilter")


def picture(path: str | Path, size: tuple[int, int] = (32, 24), mode: str = "RGB") -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)))
    shape = (size[1], size[0]) + ((3,) if mode == "RGB" else ())
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def folder(here: Path) -> Path:
    """Three images in a tree, one broken image, and what is no image."""
    for name in ("a.png", "b.jpg", "s/c.png"):
        picture(Path("in") / name)
    Path("in/broken.png").write_bytes(Path("in/a.png").read_bytes()[:300])
    Path("in/desktop.ini").write_text("[x]")
    return Path("in")


def snapshot(folder: str | Path = ".") -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}
