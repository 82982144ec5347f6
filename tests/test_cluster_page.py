"""Every command of the page about clusters is run, on clusters that the page itself starts."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from command_line import ENVIRONMENT, picture
from ray_nodes import HAS_RAY, NO_RAY
from test_docs import blocks

pytestmark = pytest.mark.skipif(not HAS_RAY, reason=NO_RAY)

SUBMITS = "ray job submit"
"""Needs what this package does not: Ray's own dashboard, and a network for the environment."""


class Machine:
    """A folder with pictures, a home of its own, and the programs of the page."""

    def __init__(self, folder: Path, short: str) -> None:
        self.folder, self.short = folder, short
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = str(free.getsockname()[1])
        for name in ("a.jpg", "trip/b.png"):
            picture(folder / "photos" / name)
        for name, module in {"ray": "ray.scripts.scripts", "cudafilter": "cudafilter"}.items():
            program = folder / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {module} "$@"\n')
            program.chmod(0o755)
        self.environment = {
            **{name: value for name, value in ENVIRONMENT.items() if not name.startswith("RAY_")},
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "RAY_TMPDIR": short,  # sockets there must have short names
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def run(self, block: str) -> str:
        """What *block* tells on stderr."""
        block = block.replace("6379", self.port)
        done = subprocess.run(
            ["sh", "-e", "-c", block], env=self.environment, cwd=self.folder,
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    def stop(self) -> None:
        """What `ray stop` does, to this machine's processes only."""
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                words = (entry / "environ").read_bytes()
                if f"RAY_TMPDIR={self.short}".encode() in words:
                    os.kill(int(entry.name), signal.SIGKILL)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    short = tempfile.mkdtemp(prefix="ray")
    made = Machine(tmp_path, short)
    yield made
    made.stop()
    shutil.rmtree(short, ignore_errors=True)


# The block with buckets is what test_cluster_stores.py does.
def test_from_a_laptop_to_two_nodes_and_to_a_token(machine: Machine) -> None:
    first, second, use, stop, _, token, submit = blocks("sh", "docs/cluster.md")
    told = machine.run(first)
    assert "cluster, cpu: 1 node, 1 worker, 1 core\n2 done, " in told
    machine.run(second)
    told = machine.run(use)
    assert told.count("cluster, cpu: 2 nodes, 2 workers, 2 cores\n") == 2
    assert "check: 2 of 2 images agree" in told
    assert "0 done, 2 skipped" in told
    assert re.sub("#.*", "", stop).split() == ["ray", "stop"]
    machine.stop()
    assert "2 done, " in machine.run(token)
    lines = [line for line in submit.splitlines() if not line.startswith("#")]
    assert all(line.startswith(SUBMITS) and " -- cudafilter blur " in line for line in lines)
