"""The user's own defaults of options: CUDAFILTER_* in the environment, before a file.

Only filters and the chain have some. Without a file and such variables nothing is imported or read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import click

from cudafilter.cli import toml
from cudafilter.operations.catalogue import CATALOGUE

PREFIX = "CUDAFILTER_"
FILE = f"{PREFIX}CONFIG"
"""The variable that names another file; empty, there is none."""

OTHERS = frozenset({FILE, f"{PREFIX}CACHE", f"{PREFIX}MEMORY"})
"""Variables that are no option's."""

COMMANDS = (*CATALOGUE, "chain")
"""What has presets."""

OF_A_RUN = frozenset(
    {
        "in_place",
        "watch",
        "dry_run",
        "frames",
        "first_frame",
        "mask",
        "region",
        "retry_failed",
        "shard",
        "recipe",
        "settings",
        "explain",
    }
)
"""Options that have none: they say what the words of one command line mean, or what it is for."""


class Preset(NamedTuple):
    """An option's value, which stands unless the command line has another."""

    value: str
    """As the command line would have it."""
    place: str
    """A variable, or a file with the line."""


def file_name() -> str | None:
    """The file that is read, whether it is there or not; None where the user wants none."""
    if (named := os.environ.get(FILE)) is not None:
        return named or None
    # As platformdirs has it, whose import takes longer than all else here.
    base = os.environ.get("XDG_CONFIG_HOME", "").strip() or os.path.expanduser("~/.config")
    return os.path.join(base, "cudafilter", "config.toml")


def presets(command: str, params: Sequence[click.Parameter]) -> dict[str, Preset]:
    """Name of an option -> its preset, for the *command* with *params*.

    Raises click.UsageError where the file is wrong, naming it and the line.
    """
    options = {
        str(param.name): param
        for param in params
        if isinstance(param, click.Option) and is_preset(param)
    }
    found = _of_file(command, options)
    given = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    for name in options if given else ():
        for variable in variables(command, name):
            if given.get(variable):
                found[name] = Preset(given[variable], variable)
                break
    return found


def own(command: str) -> set[str]:
    """The names of the parameters that are the *command*'s own."""
    return {p.name for p in CATALOGUE[command].parameters} if command in CATALOGUE else set()


def is_preset(param: click.Parameter) -> bool:
    """Whether *param* is an option that may have a preset."""
    return isinstance(param, click.Option) and param.name not in OF_A_RUN


def variables(command: str, option: str) -> list[str]:
    """The variables of an *option* of *command*, the strongest first.

    A parameter of the filter itself has one, and a shared option another for all filters.
    """
    names = [f"{PREFIX}{command}_{option}".upper()]
    return names if option in own(command) else [*names, f"{PREFIX}{option}".upper()]


def _of_file(command: str, options: dict[str, click.Option]) -> dict[str, Preset]:
    path = file_name()
    if path is None:
        return {}
    try:
        text, tables = toml.read(path)
    except FileNotFoundError:
        if FILE not in os.environ:
            return {}
        raise _wrong(f"{FILE}: there is no file {path}") from None
    except OSError as error:
        raise _wrong(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise _wrong(str(error)) from error
    for name, values in tables.items():
        if isinstance(values, dict) and name not in COMMANDS:
            from cudafilter.cli.suggest import command as meant

            where = place(path, text, None, name)
            raise _wrong(f"{where}: there is no filter {name!r}", meant(name, COMMANDS))
    general = {name: value for name, value in tables.items() if not isinstance(value, dict)}
    found: dict[str, Preset] = {}
    for section, values in ((None, general), (command, tables.get(command, {}))):
        for key, value in values.items():
            where = place(path, text, section, key)
            name = key.replace("-", "_")
            if name not in options or (section is None and name in own(command)):
                raise _unknown(where, key, section, options)
            found[name] = Preset(_as_word(value, where, options[name]), where)
    return found


def _unknown(
    where: str, key: str, section: str | None, options: dict[str, click.Option]
) -> click.UsageError:
    name = key.replace("-", "_")
    if name in OF_A_RUN:
        return _wrong(f"{where}: {key} cannot be set here", "it is for the command line")
    owners = [s.name for s in CATALOGUE.values() if name in {p.name for p in s.parameters}]
    if section is None and owners:
        hint = f"what only some filters have goes under their names: [{owners[0]}]"
        return _wrong(f"{where}: not all filters have an option {key!r}", hint)
    from difflib import get_close_matches

    near = [option.replace("_", "-") for option in get_close_matches(name, options, n=1)]
    meant = f"did you mean {near[0]}?" if near else None
    return _wrong(f"{where}: there is no option {key!r}", meant)


def _as_word(value: Any, where: str, option: click.Option) -> str:
    """*value* as it would be written on the command line. Raises click.UsageError."""
    bare = getattr(option, "bare", None)  # see ValuedFlag
    if bare is not None and value is True:
        return str(bare)
    if option.is_flag != isinstance(value, bool):
        wanted = "true or false" if option.is_flag else "a value, not true or false"
        raise _wrong(f"{where}: {option.opts[-1].lstrip('-')} takes {wanted}")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise _wrong(f"{where}: {option.opts[-1].lstrip('-')} takes a text or a number")


def place(path: str, text: str, section: str | None, key: str) -> str:
    """Where *key* of the *section* stands in *text*: the file *path*, and the line."""
    for number, at, line in _lines(text):
        head = re.match(rf"\s*\[\s*[\"']?{re.escape(key)}[\"']?\s*[\].]", line)
        if (section is None and head) or (
            at == section and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line)
        ):
            return f"{path}, line {number}"
    return path  # written in another of TOML's ways: {sigma = 2}


def _lines(text: str) -> Iterator[tuple[int, str | None, str]]:
    """Number, section and text of each line."""
    section = None
    for number, line in enumerate(text.splitlines(), start=1):
        if head := re.match(r"\s*\[\s*[\"']?([\w-]+)[\"']?\s*\]", line):
            section = head[1]
        yield number, section, line


def gather(app: click.Group, ctx: click.Context) -> list[dict[str, str | None]]:
    """All presets of the commands of *app*: command (None: all), option, value and place.

    Raises click.UsageError as presets() does, and for a value that the option does not take.
    """
    commands: dict[tuple[str, Preset], list[str]] = {}
    for name in COMMANDS:
        command = app.get_command(ctx, name)
        assert command is not None
        options = {param.name: param for param in command.params}
        with click.Context(command, ctx, name) as inner:
            for option, preset in presets(name, command.params).items():
                try:
                    options[option].process_value(inner, preset.value)
                except click.BadParameter as error:
                    raise _wrong(f"{error.format_message()} ({preset.place})") from None
                commands.setdefault((option, preset), []).append(name)
    return [
        {
            "command": names[0] if len(names) == 1 else None,
            "option": option.replace("_", "-"),
            "value": preset.value,
            "place": preset.place,
        }
        for (option, preset), names in commands.items()
    ]


def strays(app: click.Group, ctx: click.Context) -> list[str]:
    """The variables that begin as ours do, and are no option's."""
    known = set(OTHERS)
    for name in COMMANDS:
        command = app.get_command(ctx, name)
        assert command is not None
        for option in filter(is_preset, command.params):
            assert option.name is not None
            known.update(variables(name, option.name))
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def _wrong(what: str, hint: str | None = None) -> click.UsageError:
    error = click.UsageError(what, click.get_current_context(silent=True))
    error.hint = hint  # type: ignore[attr-defined]
    return error
