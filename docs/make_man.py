"""Writes the manual pages into a folder: python docs/make_man.py FOLDER. `make man` does so.

One page for the program and one for each command, from the same data as their help: click-man, the
usual generator, leaves out the sections of options, the arguments, the examples and the exit codes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from cudafilter import __version__
from cudafilter.cli import app
from cudafilter.cli.command import Command
from cudafilter.operations.catalogue import CATALOGUE, grouped

EXIT_CODES = (
    ("0", "All was done."),
    ("1", "An image failed, a check did not hold, or the engine cannot run."),
    ("2", "Wrong usage; nothing was done."),
    ("130", "Interrupted; what was done stays."),
)
OTHERS = "Other commands"
"""What stands above the commands that are no filters."""


def pages() -> Iterator[tuple[str, str]]:
    """The name of each page and its text."""
    top = click.Context(app, info_name="cudafilter", **app.context_settings)
    yield "cudafilter", _page("cudafilter", "filter images, and prove the results", _program(top))
    for name in app.list_commands(top):
        command = app.get_command(top, name)
        assert isinstance(command, Command)
        ctx = click.Context(command, info_name=name, parent=top)
        summary, *more = (command.help or "").split("\n\n")
        about = summary.strip().rstrip(".")
        yield f"cudafilter-{name}", _page(f"cudafilter {name}", about, _command(ctx, more))


def _page(title: str, about: str, body: Iterator[str]) -> str:
    name = title.replace(" ", "-")
    head = f'.TH "{name.upper()}" "1" "" "cudafilter {__version__}" "cudafilter"'
    return "\n".join([head, ".SH NAME", f"{_plain(name)} \\- {_plain(about)}", *body, ""])


def _program(ctx: click.Context) -> Iterator[str]:
    yield ".SH SYNOPSIS"
    yield ".B cudafilter"
    yield _plain("FILTER [OPTIONS] SRC... DEST")
    yield ".SH DESCRIPTION"
    yield _plain(
        "A filter takes SRC... and DEST as cp(1) does: files, folders, or - for a stream."
        " Each filter and command has a page of its own, such as cudafilter-blur(1)."
    )
    rows = {
        **{group: [(spec.name, spec.summary) for spec in specs] for group, specs in grouped()},
        OTHERS: [
            (name, command.get_short_help_str(200))
            for name in app.list_commands(ctx)
            if name not in CATALOGUE and (command := app.get_command(ctx, name))
        ],
    }
    yield ".SH COMMANDS"
    for title, listed in rows.items():
        yield f".SS {_plain(title[0].upper() + title[1:])}"
        for name, told in listed:
            yield from _entry(f"cudafilter-{name}(1)", told)
    yield from _ending("cudafilter-filters(1), cudafilter-doctor(1)")


def _command(ctx: click.Context, paragraphs: list[str]) -> Iterator[str]:
    command = ctx.command
    assert isinstance(command, Command)
    yield ".SH SYNOPSIS"
    yield f".B {_plain(ctx.command_path)}"
    yield _plain(" ".join(command.collect_usage_pieces(ctx)))
    if paragraphs:
        yield ".SH DESCRIPTION"
        for paragraph in paragraphs:
            yield ".PP"
            yield _plain(" ".join(paragraph.replace("\b", "").split()))
    yield ".SH OPTIONS"
    for title, options in command.sections.items():
        yield f".SS {_plain(title)}"
        for option in options:
            if record := option.get_help_record(ctx):
                yield from _entry(*record)
    yield from (".SH EXAMPLE", ".nf", _plain(command.example), ".fi")
    yield from _ending("cudafilter(1)")


def _ending(also: str) -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, told in EXIT_CODES:
        yield from _entry(code, told)
    yield from (".SH SEE ALSO", _plain(also))


def _entry(name: str, told: str) -> Iterator[str]:
    yield from (".TP", f".B {_plain(name)}", _plain(" ".join(told.split())))


def _plain(text: str) -> str:
    """*text* as troff takes it for itself: no escape, no request, no dash that breaks a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Write the pages into the folder that is named."""
    if len(arguments) != 1:
        print("usage: python docs/make_man.py FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / f"{name}.1").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
