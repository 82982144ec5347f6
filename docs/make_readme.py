"""Writes the parts of README.md that the program itself tells: python docs/make_readme.py.

Each stands between ``<!-- made by docs/make_readme.py: NAME -->`` and ``<!-- end -->``. With
``--check`` nothing is written, and 1 means that a part does not say what the program says.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cudafilter.catalogue import CATALOGUE, Parameter
from cudafilter.engines.cuda.variants import LADDER

README = Path(__file__).resolve().parents[1] / "README.md"

PART = re.compile(
    r"(?P<head><!-- made by docs/make_readme\.py: (?P<name>\w+) -->\n)"
    r"(?P<text>.*?)"
    r"(?P<tail><!-- end -->)",
    re.DOTALL,
)


def filters() -> str:
    """The table of filters."""
    lines = ["| filter | what it does | options |", "|---|---|---|"]
    for spec in CATALOGUE.values():
        options = "<br>".join(map(_option, spec.parameters))
        lines.append(f"| `{spec.name}` | {spec.summary} | {options} |")
    return "\n".join(lines) + "\n"


def _option(parameter: Parameter) -> str:
    facts = [parameter.limits] if parameter.limits else []
    if parameter.required:
        facts.append("required")
    elif parameter.kind is not bool and parameter.default is not None:
        facts.append(f"default {parameter.default:g}")
    limits = f" ({', '.join(facts)})" if facts else ""
    return f"`--{parameter.name.replace('_', '-')}`{limits}: {parameter.help}"


def help() -> str:
    """What ``cudafilter blur --help`` prints on 80 columns."""
    told = subprocess.run(
        [sys.executable, "-m", "cudafilter", "blur", "--help"],
        env={**os.environ, "COLUMNS": "80"}, cwd=README.parent,
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return f"```text\n{told}```\n"


def ladder() -> str:
    """The table of kernel variants: what the header of each .cu says it is."""
    lines = ["| step | file | what it is |", "|---|---|---|"]
    for name in LADDER:
        source = (README.parent / "cuda_src" / f"{name}.cu").read_text(encoding="utf-8")
        header = " ".join(re.sub(r"^//\s*", "", line) for line in source.splitlines()[:6])
        told = re.match(r"Step \d+, \w+: (.*?)\.\s", header)
        assert told is not None, f"{name}.cu does not begin with what it is"
        lines.append(f"| `{name}` | [`{name}.cu`](cuda_src/{name}.cu) | {told[1]} |")
    return "\n".join(lines) + "\n"


PARTS: dict[str, Callable[[], str]] = {"filters": filters, "help": help, "ladder": ladder}


def main(arguments: list[str]) -> int:
    """Write the parts, or with ``--check`` compare them; where lines break does not count."""
    old = README.read_text(encoding="utf-8")
    made = {found["name"]: PARTS[found["name"]]() for found in PART.finditer(old)}
    if lacking := PARTS.keys() - made.keys():
        print(f"README.md has no part {', '.join(sorted(lacking))}", file=sys.stderr)
        return 1
    if "--check" not in arguments:
        new = PART.sub(lambda found: found["head"] + made[found["name"]] + found["tail"], old)
        README.write_text(new, encoding="utf-8")
        return 0
    stale = [f["name"] for f in PART.finditer(old) if f["text"].split() != made[f["name"]].split()]
    for name in stale:
        print(
            f"README.md: the part {name!r} is out of date: run python docs/make_readme.py",
            file=sys.stderr,
        )
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
