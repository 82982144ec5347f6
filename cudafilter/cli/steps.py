"""The steps of a chain: from words on the command line, or from a recipe in a file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any, NamedTuple

import click

from cudafilter.cli import options, toml
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
    return [_step(words, f"step {n}") for n, (words, _) in enumerate(texts, start=1)]


def recipe_steps(path: str, name: str | None, given: Mapping[str, str]) -> list[Step]:
    """The steps of the recipe *name* in the file *path*, its parameters replaced by *given*.

    Without a *name* the file must hold one recipe only. Raises click.UsageError, which names the
    file, and where a step is wrong its line.
    """
    steps: list[Step] = []
    for text, line in _recipe(path, name, given):
        for words, below in _texts(text, f"{path}, line {line}"):
            place = f"{path}, line {line + below}"
            steps.append(_step(words, f"{place}: step {len(steps) + 1}"))
    return steps


def _texts(text: str, place: str) -> list[tuple[list[str], int]]:
    """The words of each step of *text*, as a shell splits them, and how many lines it is down.

    *place* names the text in errors.
    """
    source = StringIO(text)
    lexer = shlex.shlex(source, posix=True, punctuation_chars=BAR)
    lexer.whitespace_split = True
    lexer.commenters = ""

    def below() -> int:
        """How many lines down the next word is."""
        rest = text[source.tell() :]
        return text.count("\n", 0, len(text) - len(rest.lstrip()))

    texts: list[tuple[list[str], int]] = [([], below())]
    try:
        for word in lexer:
            if word == BAR:
                texts.append(([], below()))
            else:
                texts[-1][0].append(word)
    except ValueError as error:
        raise _wrong(f"{place}: a quotation mark is never closed") from error
    return texts


def _step(words: Sequence[str], place: str) -> Step:
    """The step of *words*; *place* says in errors where it stands."""
    if not words:
        raise _wrong(f"{place} is empty")
    name, *arguments = words
    if name not in CATALOGUE:
        raise _wrong(f"{place}: no filter {name!r}", _instead(name))
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
        told, hint = error.format_message(), getattr(error, "hint", None)
        if isinstance(error, click.NoSuchOption):
            word = error.option_name
            hint = hint or f"cudafilter {name} --help lists its options"
            if any(word in each.opts for part in options.shared().values() for each in part):
                told = f"No such option {word!r}."  # without click's guess, which goes by letters
                hint = "options of the whole chain follow the steps"
        elif "extra argument" in told:
            hint = f"{BAR!r} stands between two steps"
        raise _wrong(f"{place} ({name}): {told}", hint) from error
    border, value = values.pop("border"), values.pop("border_value")
    return Step(name, values, border, value, shlex.join(words), f"{place} ({name})")


def _instead(name: str) -> str:
    """What to write in place of *name*, which is no filter."""
    from cudafilter.cli.suggest import command

    if name.endswith(".toml"):
        return f"@{name} takes the recipe in that file"
    if "." in name or "/" in name:
        return 'the first word is the chain: cudafilter chain "blur | sobel" SRC... DEST'
    return command(name, CATALOGUE) or "cudafilter filters lists them"


def _wrong(what: str, hint: str | None = None) -> click.UsageError:
    error = click.UsageError(what, click.get_current_context(silent=True))
    error.hint = hint  # type: ignore[attr-defined]
    return error


def _recipe(path: str, name: str | None, given: Mapping[str, str]) -> list[tuple[str, int]]:
    """The texts of the steps of the recipe *name*, each with the number of its line."""
    try:
        text, recipes = toml.read(path)
    except OSError as error:
        raise _wrong(f"cannot read the recipes {path}: {error.strerror}") from error
    except ValueError as error:
        raise _wrong(str(error)) from error
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
    if not isinstance(table, dict):
        raise _wrong(f"{place} is no table", f"begin it with a line [{name}]")
    if strange := table.keys() - {"steps", "parameters", "about"}:
        has = repr(sorted(strange)[0])
        raise _wrong(f"{place} has {has}; it takes steps, parameters and about")
    steps, parameters = table.get("steps"), table.get("parameters", {})
    if isinstance(steps, str):
        steps = [steps]
    if not isinstance(steps, list) or not steps or not all(isinstance(s, str) for s in steps):
        raise _wrong(f"{place} needs steps: a list of texts, such as 'blur --sigma 2'")
    if not isinstance(parameters, dict):
        raise _wrong(
            f"{path}, line {head}: the parameters of the recipe {name} are no table",
            f"begin them with a line [{name}.parameters]",
        )
    if unknown := given.keys() - parameters:
        has = f"it has {', '.join(parameters)}" if parameters else "it has none"
        raise _wrong(f"{place} has no parameter {sorted(unknown)[0]!r} ({has})")
    values = {**parameters, **given}

    def filled(text: str, line: int) -> str:
        def value(found: re.Match[str]) -> str:
            if found[1] not in values:
                at = line + text.count("\n", 0, found.start())
                what = f"{path}, line {at}: no parameter {found[1]!r} is given"
                raise _wrong(what, f"a line {found[1]} = VALUE under [{name}.parameters]")
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
        # A line break at once after three marks does not count.
        if place := re.compile(rf"([\"'])(\1\1\r?\n?)?({re.escape(step)})\1").search(text, at):
            at, line = place.end(), head + text.count("\n", 0, place.start(3))
        found.append(line)
    return found
