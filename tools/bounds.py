"""The oldest releases that pyproject.toml allows, pinned: what `make audit` looks up.

python tools/bounds.py               the packages that users install, and their extras
python tools/bounds.py --all         those for tests and development too
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
OURS = ("test", "docs", "dev")
"""Extras that no user needs."""


def requirements(text: str, everything: bool = False) -> Iterator[str]:
    """The requirements of a pyproject.toml's *text*; the build's and *OURS* with *everything*."""
    project = tomllib.loads(text)
    extras = project["project"]["optional-dependencies"]
    parts: Iterable[list[str]] = [
        project["project"]["dependencies"],
        *(listed for name, listed in extras.items() if everything or name not in OURS),
        *([project["build-system"]["requires"]] if everything else []),
    ]
    yield from dict.fromkeys(chain.from_iterable(parts))


def pinned(requirement: str) -> str:
    """*requirement* at its lower bound. Raises ValueError where that is not all there is to it."""
    found = re.fullmatch(r"([\w-]+)>=([\w.]+)", requirement)
    if not found:
        raise ValueError(f"{requirement!r} is no package with a lower bound only")
    return f"{found[1]}=={found[2]}"


def main() -> int:
    """Print them."""
    text = PROJECT.read_text(encoding="utf-8")
    for requirement in requirements(text, "--all" in sys.argv):
        if not requirement.startswith("cudafilter["):
            print(pinned(requirement))
    return 0


if __name__ == "__main__":
    sys.exit(main())
