"""Writes the parts of the documents that the program itself tells: python docs/make_docs.py.

Each stands between ``<!-- made by docs/make_docs.py: NAME -->`` and ``<!-- end -->``, in the README
or in a page beside this script. With ``--check`` nothing is written, and 1 means that a part does
not say what the program says.
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

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

PART = re.compile(
    r"(?P<head><!-- made by docs/make_docs\.py: (?P<name>\w+) -->\n)"
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
        env={**os.environ, "COLUMNS": "80"}, cwd=ROOT,
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return f"```text\n{told}```\n"


def ladder() -> str:
    """The table of kernel variants: what the header of each .cu says it is."""
    lines = ["| step | file | what it is |", "|---|---|---|"]
    for name in LADDER:
        source = (ROOT / "cuda_src" / f"{name}.cu").read_text(encoding="utf-8")
        header = " ".join(re.sub(r"^//\s*", "", line) for line in source.splitlines()[:6])
        told = re.match(r"Step \d+, \w+: (.*?)\.\s", header)
        assert told is not None, f"{name}.cu does not begin with what it is"
        lines.append(f"| `{name}` | [`{name}.cu`](../cuda_src/{name}.cu) | {told[1]} |")
    return "\n".join(lines) + "\n"


PARTS: dict[str, Callable[[], str]] = {"filters": filters, "help": help, "ladder": ladder}


def main(arguments: list[str]) -> int:
    """Write the parts, or with ``--check`` compare them; where lines break does not count."""
    texts = {path: path.read_text(encoding="utf-8") for path in DOCUMENTS}
    found = {part["name"] for text in texts.values() for part in PART.finditer(text)}
    if lacking := PARTS.keys() - found:
        print(f"no document has the part {', '.join(sorted(lacking))}", file=sys.stderr)
        return 1
    made = {name: PARTS[name]() for name in found}
    stale = 0
    for path, old in texts.items():
        new = PART.sub(lambda part: part["head"] + made[part["name"]] + part["tail"], old)
        if "--check" not in arguments:
            if new != old:
                path.write_text(new, encoding="utf-8")
        elif new.split() != old.split():
            print(f"{path.name} is out of date: run python docs/make_docs.py", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
