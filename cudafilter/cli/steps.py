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


class Recipe(NamedTuple):
    """Steps of a file, as they are written there."""

    steps: list[str]
    lines: list[int]
    """Of each step, counted from 1."""
    path: str


def parse_steps(text: str) -> list[Step]:
    """The steps of *text*, which ``|`` sets apart, each written as its own command is.

    Raises click.UsageError, which names the step.
    """
    words = _words(text)
    texts: list[list[str]] = [[]]
    for word in words:
        if word == BAR:
            texts.append([])
        else:
            texts[-1].append(word)
    return [_step(step, f"step {n}") for n, step in enumerate(texts, start=1)]


def recipe_steps(path: str, name: str | None, given: Mapping[str, str]) -> list[Step]:
    """The steps of the recipe *name* in the file *path*, its parameters replaced by *given*.

    Without a *name* the file must hold one recipe only. Raises click.UsageError, which names the
    file, and where a step is wrong its line.
    """
    recipe = _recipe(path, name, given)
    return [
        _step(_words(text), f"{path}, line {line}: step {n}")
        for n, (text, line) in enumerate(zip(recipe.steps, recipe.lines, strict=True), start=1)
    ]


def _words(text: str) -> list[str]:
    """The words of *text* as a shell splits them, with each ``|`` for itself."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=BAR)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError as error:
        raise click.UsageError(f"the steps {text!r}: {error}") from error


def _step(words: Sequence[str], place: str) -> Step:
    """The step of *words*; *place* says in errors where it stands."""
    if not words:
        raise click.UsageError(f"{place} is empty", click.get_current_context(silent=True))
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
    return Step(name, values, border, value, shlex.join(words))


def _wrong(what: str, hint: str | None = None) -> click.UsageError:
    error = click.UsageError(what, click.get_current_context(silent=True))
    error.hint = hint  # type: ignore[attr-defined]
    return error


def _recipe(path: str, name: str | None, given: Mapping[str, str]) -> Recipe:
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
    return _filled(Recipe(steps, _lines_of(steps, lines, head), path), {**parameters, **given})


def _is_head(line: str, name: str) -> bool:
    return re.match(rf"\s*\[\s*[\"']?{re.escape(name)}[\"']?\s*\]", line) is not None


def _lines_of(steps: Sequence[str], lines: Sequence[str], head: int) -> list[int]:
    """The line of each of *steps*, looked for from line *head* on, the last found where it has
    none of its own, as with escapes in its text."""
    found, at = [], head
    for step in steps:
        at = next((n for n in range(at, len(lines) + 1) if step in lines[n - 1]), at)
        found.append(at)
    return found


def _filled(recipe: Recipe, parameters: Mapping[str, object]) -> Recipe:
    """*recipe* with each ``{name}`` replaced, and steps that ``|`` sets apart for themselves."""
    steps: list[str] = []
    lines: list[int] = []
    for text, line in zip(recipe.steps, recipe.lines, strict=True):

        def value(found: re.Match[str], line: int = line) -> str:
            if found[1] not in parameters:
                raise _wrong(f"{recipe.path}, line {line}: no parameter {found[1]!r} is given")
            return str(parameters[found[1]])

        for part in re.sub(r"\{(\w+)\}", value, text).split(BAR):
            steps.append(part)
            lines.append(line)
    return Recipe(steps, lines, recipe.path)
