"""``cudafilter filters``: the catalogue."""

from __future__ import annotations

from typing import Any

import click

from cudafilter.cli import options
from cudafilter.cli.command import Command
from cudafilter.cli.terminal import put
from cudafilter.operations.catalogue import CATALOGUE, grouped
from cudafilter.operations.parameter import FilterSpec, Parameter


def _default(parameter: Parameter) -> str:
    if parameter.required:
        return "required"
    if parameter.kind is bool:
        return "flag"
    if parameter.default is None:
        return "optional"
    return f"default {options.shown(parameter.default)}"


def _write(spec: FilterSpec, formatter: click.HelpFormatter) -> None:
    formatter.write(f"{spec.name}: {spec.summary}\n")
    with formatter.indentation():
        formatter.write_text(spec.description)
        rows = [
            (
                "--" + p.name.replace("_", "-"),
                f"{p.help}  [{'; '.join(filter(None, (p.limits, _default(p))))}]",
            )
            for p in spec.parameters
        ]
        if rows:
            formatter.write_dl(rows)
    formatter.write(f"{spec.example}\n\n")


def _plain(spec: FilterSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "group": spec.group,
        "summary": spec.summary,
        "description": spec.description,
        "parameters": [{**p._asdict(), "kind": p.kind.__name__} for p in spec.parameters],
        "example": spec.example,
    }


def _run(as_json: bool, debug: bool) -> None:
    if as_json:
        import json

        put(json.dumps([_plain(spec) for spec in CATALOGUE.values()], indent=2))
        return
    formatter = click.HelpFormatter()
    for group, specs in grouped():
        formatter.write(f"{group.upper()}\n\n")
        for spec in specs:
            _write(spec, formatter)
    put(formatter.getvalue().strip())


command = Command(
    "filters",
    sections={
        "Options": [
            options.as_json(),
            options.debug(),
        ]
    },
    example="cudafilter filters --json",
    help="List the filters with their parameters.",
    callback=_run,
)
