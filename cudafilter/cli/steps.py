"""The steps of a chain: from words on the command line, or from a recipe in a file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import click

from cudafilter.cli import options
from cudafilter.cli.command import Command
from cudafilter.operations.catalogue import CATALOGUE

BAR = "|"
"""Between two steps."""


class Step(NamedTuple):
    """A filter of a chain, its parameters checked."""

    name: str
    parameters: dict[str, Any]
    border: str | None
    """None: that of the whole chain."""
    border_value: float
    text: str
    """As it was written."""
    place: str
    """Where it stands, for errors."""


def parse_steps(text: str) -> list[Step]:
    """The steps of *text*, which ``|`` sets apart, each written as its own command is.

    Raises click.UsageError, which names the step.
    """
    texts = _texts(text, f"the steps {text!r}")
    return [_step(words, f"step {n}") for n, words in enumerate(texts, start=1)]


def recipe_steps(path: str, name: str | None, given: Mapping[str, str]) -> list[Step]:
    """The steps of the recipe *name* in the file *path*, its parameters replaced by *given*.

    Without a *name* the file must hold one recipe only. Raises click.UsageError, which names the
    file, and where a step is wrong its line.
    """
    steps: list[Step] = []
    for text, line in _recipe(path, name, given):
        place = f"{path}, line {line}"
        for words in _texts(text, place):
            steps.append(_step(words, f"{place}: step {len(steps) + 1}"))
    return steps


def _texts(text: str, place: str) -> list[list[str]]:
    """The words of each step of *text*, as a shell splits them; *place* names it in errors."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=BAR)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError as error:
        raise _wrong(f"{place}: {error}") from error
    texts: list[list[str]] = [[]]
    for word in words:
        if word == BAR:
            texts.append([])
        else:
            texts[-1].append(word)
    return texts


def _step(words: Sequence[str], place: str) -> Step:
    """The step of *words*; *place* says in errors where it stands."""
    if not words:
        raise _wrong(f"{place} is empty")
    name, *arguments = words
    if name not in CATALOGUE:
        from cudafilter.cli.suggest import command

        raise _wrong(f"{place}: no filter {name!r}", command(name, CATALOGUE))
    spec = CATALOGUE[name]
    parser = Command(
        name,
        sections={
            "Filter": [options.own(parameter) for parameter in spec.parameters],
            "Edges": options.borders(None),
        },
        example=spec.example,
        add_help_option=False,
    )
    try:
        values = parser.make_context(name, list(arguments)).params
    except click.UsageError as error:
        hint = getattr(error, "hint", None)
        if isinstance(error, click.NoSuchOption) and hint is None:
            hint = "options of the whole chain follow the steps"
        raise _wrong(f"{place} ({name}): {error.format_message()}", hint) from error
    border, value = values.pop("border"), values.pop("border_value")
    return Step(name, values, border, value, shlex.join(words), f"{place} ({name})")


def _wrong(what: str, hint: str | None = None) -> click.UsageError:
    error = click.UsageError(what, click.get_current_context(silent=True))
    error.hint = hint  # type: ignore[attr-defined]
    return error


def _recipe(path: str, name: str | None, given: Mapping[str, str]) -> list[tuple[str, int]]:
    """The texts of the steps of the recipe *name*, each with the number of its line."""
    import tomllib

    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        raise _wrong(f"cannot read the recipes {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _wrong(f"{path} is no text in UTF-8") from error
    try:
        recipes = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _wrong(f"{path} is no TOML: {error}") from error
    if name is None:
        if len(recipes) != 1:
            some = f"holds {', '.join(recipes)}" if recipes else "holds no recipe"
            raise _wrong(f"{path} {some}", "name one with --recipe" if recipes else None)
        (name,) = recipes
    if name not in recipes:
        raise _wrong(f"{path} holds no recipe {name!r}, but {', '.join(recipes) or 'none'}")
    lines = text.splitlines()
    head = next((n for n, line in enumerate(lines, 1) if _is_head(line, name)), 1)
    place = f"{path}, line {head}: the recipe {name}"
    table = recipes[name]
    if not isinstance(table, dict) or table.keys() - {"steps", "parameters", "about"}:
        raise _wrong(f"{place} takes steps, parameters and about")
    steps, parameters = table.get("steps"), table.get("parameters", {})
    if isinstance(steps, str):
        steps = [steps]
    if not isinstance(steps, list) or not steps or not all(isinstance(s, str) for s in steps):
        raise _wrong(f"{place} needs steps: a list of texts, such as 'blur --sigma 2'")
    if not isinstance(parameters, dict):
        raise _wrong(f"{place}: parameters is a table")
    if unknown := given.keys() - parameters:
        has = f"it has {', '.join(parameters)}" if parameters else "it has none"
        raise _wrong(f"{place} has no parameter {sorted(unknown)[0]!r} ({has})")
    values = {**parameters, **given}

    def filled(text: str, line: int) -> str:
        def value(found: re.Match[str]) -> str:
            if found[1] not in values:
                raise _wrong(f"{path}, line {line}: no parameter {found[1]!r} is given")
            return str(values[found[1]])

        return re.sub(r"\{(\w+)\}", value, text)

    places = _lines_of(steps, lines, head)
    return [(filled(text, line), line) for text, line in zip(steps, places, strict=True)]


def _is_head(line: str, name: str) -> bool:
    return re.match(rf"\s*\[\s*[\"']?{re.escape(name)}[\"']?\s*\]", line) is not None


def _lines_of(steps: Sequence[str], lines: Sequence[str], head: int) -> list[int]:
    """The line of each of *steps*, looked for from line *head* on.

    A step whose text stands nowhere, as one with escapes, has the line of the one before.
    """
    found: list[int] = []
    text, at, line = "\n".join(lines[head - 1 :]), 0, head
    for step in steps:
        if place := re.compile(rf"([\"']){re.escape(step)}\1").search(text, at):
            at, line = place.end(), head + text.count("\n", 0, place.start())
        found.append(line)
    return found
