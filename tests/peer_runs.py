"""Tests run by pytest with the plugin that puts cudafilter in the place of a library's filters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def met(peer: str, tests: str, folder: Path) -> tuple[dict[str, Any], str]:
    """What the plugin's figures tell of *tests*, a module's source, and what pytest printed.

    *peer* is the library's name. The module is written into *folder*.
    """
    (folder / "test_toy.py").write_text(tests)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tools")])}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "peer_plugin", "--peer", peer,
         "--figures", "met.json", "test_toy.py"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return json.loads((folder / "met.json").read_text()), done.stdout
