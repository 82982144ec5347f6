"""Measure what an installation takes, by package: figures for docs/install.md.

Run it by the Python of an environment that has nothing but cudafilter with its extras:

    python3 -m venv build/sizes
    build/sizes/bin/python -m pip install pycuda-*.whl "$(echo dist/*.whl)[cuda,nvcodec]"
    build/sizes/bin/python tools/sizes.py docs/figures/sizes.json
"""

from __future__ import annotations

import json
import platform
import re
import sys
from datetime import date
from importlib import metadata
from pathlib import Path

ALWAYS = ""
"""In place of an extra: what every installation has."""

REST = "the rest"

EXTRAS = ("cuda", "nvcodec", "heic", "cloud", "cluster")


def size(package: str) -> int:
    """The bytes of the files of *package*, without what Python compiles of them."""
    files = metadata.files(package) or []
    real = (Path(str(file.locate())) for file in files if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in real if path.is_file())


def needed(package: str, extra: str = ALWAYS) -> set[str]:
    """What *package* needs and is here, itself left out; with *extra* only what that adds."""
    found: set[str] = set()
    for line in metadata.requires(package) or []:
        requirement, _, marker = line.partition(";")
        named = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", marker)
        match = re.match(r"[\w.-]+", requirement)
        if match is None or (named[1] if named else ALWAYS) != extra:
            continue
        name = match[0].lower()
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        found |= {name} | needed(name)
    return found


def table(extras: list[str]) -> list[list[object]]:
    """Rows of package, megabytes, and with which extra it comes; the largest first, then all."""
    by_extra = {ALWAYS: {"cudafilter"} | needed("cudafilter")}
    for extra in extras:
        by_extra[extra] = needed("cudafilter", extra) - by_extra[ALWAYS]
    rows: list[list[object]] = []
    for extra, packages in by_extra.items():
        sizes = {package: size(package) / 1e6 for package in packages}
        small = sum(each for each in sizes.values() if each < 1)
        listed = sorted(((mb, name) for name, mb in sizes.items() if mb >= 1), reverse=True)
        told = f"extra `{extra}`" if extra else "always"
        rows += [[name, round(mb, 1), told] for mb, name in listed]
        if small:
            rows.append([REST, round(small, 1), told])
        rows.append([f"all that comes {told}" if not extra else f"all of {told}",
                     round(sum(sizes.values()), 1), told])  # fmt: skip
    return rows


def main() -> int:
    """Write the figures into the file that is named."""
    rows = table([extra for extra in EXTRAS if needed("cudafilter", extra)])
    figures = {
        "published": date.today().isoformat(),
        "machine": f"Linux {platform.machine()}, Python {platform.python_version()}",
        "command": "python tools/sizes.py",
        "conditions": "files as installed, less bytecode; the rest is packages of less than 1 MB",
        "columns": ["package", "MB", "comes with"],
        "bold": [[y, 1] for y, row in enumerate(rows) if str(row[0]).startswith("all ")],
        "rows": rows,
    }
    Path(sys.argv[1]).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
