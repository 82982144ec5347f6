"""The oldest releases that pyproject.toml allows are all looked up by `make audit`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from bounds import pinned, requirements

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_each_dependency_has_a_bound_that_is_looked_up() -> None:
    command = [sys.executable, str(ROOT / "tools" / "bounds.py"), "--all"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    named = [line.split("==")[0] for line in done.stdout.splitlines()]
    listed = [each.split(">=")[0] for each in requirements(TEXT, True)]
    assert named == [name for name in listed if not name.startswith("cudafilter")]
    assert len(named) == len(set(named)) > 15


@pytest.mark.parametrize("requirement", ["numpy", "numpy==2.0", "numpy>2", "numpy>=2,<3"])
def test_one_without_a_lower_bound_is_an_error(requirement: str) -> None:
    with pytest.raises(ValueError, match="lower bound"):
        pinned(requirement)
