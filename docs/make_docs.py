"""Writes the parts of the documents that something else tells: python docs/make_docs.py.

Each stands between ``<!-- made by docs/make_docs.py: NAME -->`` and ``<!-- end -->``. The program
tells the filters, the formats, the help and the ladder, and report.schema.json the report's fields.
``figures/NAME`` is a table of measured figures, from figures/NAME.json beside this script. Charts
of figures become SVG files there. With ``--check`` nothing is written, and 1 means that a part or a
chart does not say what it should.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from make_charts import charts

from cudafilter.cli.options import shown
from cudafilter.engines.cuda.variants import LADDER
from cudafilter.formats.table import FORMATS
from cudafilter.operations.catalogue import CATALOGUE, grouped
from cudafilter.operations.parameter import FilterSpec, Parameter

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "figures"

PART = re.compile(
    r"(?P<head><!-- made by docs/make_docs\.py: (?P<name>[\w/]+) -->\n)"
    r"(?P<text>.*?)"
    r"(?P<tail><!-- end -->)",
    re.DOTALL,
)


def documents() -> list[Path]:
    """Every document that may have parts."""
    return [ROOT / "README.md", ROOT / "cuda_src" / "README.md", *sorted(ROOT.glob("docs/*.md"))]


def groups() -> str:
    """The names of the filters, group by group."""
    lines = ["| for | filters |", "|---|---|"]
    for group, specs in grouped():
        lines.append(f"| {group} | {' '.join(f'`{spec.name}`' for spec in specs)} |")
    return "\n".join(lines) + "\n"


def filters() -> str:
    """The table of filters."""
    lines = ["| filter | group | what it does | options |", "|---|---|---|---|"]
    for spec in CATALOGUE.values():
        options = "<br>".join(map(_option, option_rows(spec)))
        lines.append(f"| `{spec.name}` | {spec.group} | {spec.summary} | {options} |")
    return "\n".join(lines) + "\n"


def option_rows(spec: FilterSpec) -> list[tuple[str, str, str, str]]:
    """Of each option of a filter its name, what it is, its range and its default."""
    return [
        (f"`--{each.name.replace('_', '-')}`", each.help, each.limits, _default(each))
        for each in spec.parameters
    ]


def _default(parameter: Parameter) -> str:
    if parameter.required:
        return "required"
    told = parameter.kind is not bool and parameter.default is not None
    return shown(parameter.default) if told else ""


def _option(row: tuple[str, str, str, str]) -> str:
    name, what, limits, default = row
    if default and default != "required":
        default = f"default {default}"
    facts = ", ".join(filter(None, (limits, default)))
    return f"{name} ({facts}): {what}" if facts else f"{name}: {what}"


def formats() -> str:
    """The table of formats."""
    lines = ["| format | files | read | written |", "|---|---|---|---|"]
    for name, format in FORMATS.items():
        files = " ".join(f"`{end}`" for end in format.extensions)
        lines.append(f"| `{name}` | {files} | {format.can_read} | {format.can_write or 'no'} |")
    return "\n".join(lines) + "\n"


SURVIVE: dict[str, tuple[str, ...]] = {
    "colour profile": ("icc",),
    "EXIF": ("exif",),
    "XMP": ("xmp",),
    "resolution": ("resolution",),
    "text": ("comments", "png_chunks", "tiff_tags"),
    "frames": ("animation",),
}
"""What may survive in a file, and the fields of Metadata that are it."""


def survives() -> str:
    """What each written format holds of pixels and metadata."""
    lines = [
        "| format | samples | colours | " + " | ".join(SURVIVE) + " |",
        "|---" * (3 + len(SURVIVE)) + "|",
    ]
    for name, format in FORMATS.items():
        if format.writes is None:
            continue
        bits = {"uint8": "8", "uint16": f"{format.most_bits}", "float32": "float"}
        samples = ", ".join(bits[each] for each in format.samples)
        held = [any(field in format.keeps for field in fields) for fields in SURVIVE.values()]
        held[-1] |= bool(format.frames)
        told = ["yes" if each else "-" for each in held]
        if format.frames:
            told[-1] = format.frames
        cells = [f"`{name}`", samples, ", ".join(format.colours), *told]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def report() -> str:
    """The fields of a report's line, from its schema."""
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    lines = ["| field | type | what it tells |", "|---|---|---|"]
    for name, field in schema["properties"].items():
        lines.append(f"| `{name}` | {_type(field)} | {field['description']} |")
        for inner, told in field.get("properties", {}).items():
            lines.append(f"| `{name}.{inner}` | {_type(told)} | {told['description']} |")
    return "\n".join(lines) + "\n"


def _type(field: dict[str, Any]) -> str:
    """The type of a field in words."""
    if "enum" in field:
        return ", ".join("null" if value is None else f"`{value}`" for value in field["enum"])
    kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
    return " or ".join(kinds)


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
    lines = ["| variant | file | what it is |", "|---|---|---|"]
    for name in LADDER:
        source = (ROOT / "cuda_src" / f"{name}.cu").read_text(encoding="utf-8")
        header = " ".join(re.sub(r"^//\s*", "", line) for line in source.splitlines()[:6])
        told = re.match(r"Step \d+, \w+: (.*?)\.\s", header)
        assert told is not None, f"{name}.cu does not begin with what it is"
        lines.append(f"| `{name}` | [`{name}.cu`](../cuda_src/{name}.cu) | {told[1]} |")
    return "\n".join(lines) + "\n"


def figures(name: str) -> str:
    """A table of figures, and below it how they were measured.

    The JSON has "columns", "rows" with null where there is no figure, "bold" with the row and
    column of each bold figure, "machine", "command" and "conditions". "published" is the day on
    which the figures came into this repository. Numbers stay as written: 1.80 keeps its 0.
    """
    text = (FIGURES / f"{name}.json").read_text(encoding="utf-8")
    told = json.loads(text, parse_int=str, parse_float=str)
    bold = {tuple(map(int, place)) for place in told.get("bold", [])}
    lines = [f"| {' | '.join(told['columns'])} |", "|---" * len(told["columns"]) + "|"]
    for y, row in enumerate(told["rows"]):
        assert len(row) == len(told["columns"]), f"{name}.json: a row of another length: {row}"
        cells = ["-" if value is None else _cell(value) for value in row]
        cells = [f"**{cell}**" if (y, x) in bold else cell for x, cell in enumerate(cells)]
        lines.append(f"| {' | '.join(cells)} |")
    by = f" by `{told['command']}`" if "command" in told else ""
    measured = f"Measured on {told['machine']}{by}, published {told['published']}."
    conditions = told["conditions"][0].upper() + told["conditions"][1:]
    told_below = textwrap.fill(f"{measured} {conditions}.", 110, break_on_hyphens=False)
    return "\n".join([*lines, "", f"{told_below}\n"])


def _cell(value: str) -> str:
    """A cell; the names of kernel variants are code."""
    return f"`{value}`" if value in LADDER else value


PARTS: dict[str, Callable[[], str]] = {
    "filters": filters,
    "formats": formats,
    "groups": groups,
    "help": help,
    "ladder": ladder,
    "report": report,
    "survives": survives,
}


def parts() -> set[str]:
    """The name of every part that there is to tell."""
    return {*PARTS, *(f"figures/{path.stem}" for path in FIGURES.glob("*.json"))}


@cache
def made(name: str) -> str:
    """The part *name*, as it should stand."""
    return PARTS[name]() if name in PARTS else figures(name.removeprefix("figures/"))


def main(arguments: list[str]) -> int:
    """Write the parts, or with ``--check`` compare them; where lines break does not count."""
    texts = {path: path.read_text(encoding="utf-8") for path in documents()}
    found = {part["name"] for text in texts.values() for part in PART.finditer(text)}
    if wrong := found ^ parts():
        known = ", ".join(sorted(wrong))
        print(f"these parts stand in no document, or nothing tells them: {known}", file=sys.stderr)
        return 1
    stale = 0
    for path, old in texts.items():
        new = PART.sub(lambda part: part["head"] + made(part["name"]) + part["tail"], old)
        if "--check" not in arguments:
            if new != old:
                path.write_text(new, encoding="utf-8")
        elif new.split() != old.split():
            name = path.relative_to(ROOT)
            print(f"{name} is out of date: run python docs/make_docs.py", file=sys.stderr)
            stale = 1
    for name, drawn in charts().items():
        path = FIGURES / f"{name}.svg"
        if "--check" not in arguments:
            path.write_text(drawn, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != drawn:
            print(
                f"{path.relative_to(ROOT)} is out of date: run python docs/make_docs.py",
                file=sys.stderr,
            )
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
