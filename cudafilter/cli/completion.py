"""What the shell offers at Tab, beside the names of commands and options, which click offers.

``cudafilter completion SHELL`` prints the script by which a shell asks for it. Nothing here opens
an image or starts a GPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from cudafilter.cli.command import COMPLETION, Command
from cudafilter.cli.terminal import put
from cudafilter.operations.choices import ALL, CHECKS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

INSTALL = {
    "bash": "cudafilter completion bash > ~/.local/share/bash-completion/completions/cudafilter",
    "zsh": "cudafilter completion zsh > ~/.zfunc/_cudafilter;"
    " ~/.zshrc: fpath+=~/.zfunc; autoload -Uz compinit; compinit",
    "fish": "cudafilter completion fish > ~/.config/fish/completions/cudafilter.fish",
}
"""Shell -> how its script is installed. The folder must be there."""

_ASKED = r"(?:bash|zsh|fish|powershell)_(source|complete)"

Offer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def prepare(wanted: str) -> None:
    """Check what the shell asks for in *wanted*, before click answers.

    Raises UsageError for a request that does not come from a shell's completion script.
    """
    how = re.fullmatch(_ASKED, wanted)
    if how is None:
        raise click.UsageError(
            f"completion is asked for by bash_source, zsh_source or fish_source, not {wanted!r}"
        )
    if wanted == "fish_source":
        _mend_fish()
    if how[1] == "complete":
        words, at = os.environ.get("COMP_WORDS"), os.environ.get("COMP_CWORD")
        # fish has the word itself there in place of its number
        if words is None or at is None or not (wanted.startswith("fish") or at.isdecimal()):
            raise click.UsageError("COMP_WORDS and COMP_CWORD must hold the command line")
        if wanted.startswith("bash"):
            _join_values(int(at))
        # By itself it takes no value, so click must not offer one for the next word.
        # bash sets words apart by line ends, zsh and fish by spaces.
        given = os.environ["COMP_WORDS"]
        os.environ["COMP_WORDS"] = re.sub(r"(?<=\s)--check(?=\s)", f"--check={CHECKS[0]}", given)


def _join_values(at: int) -> None:
    """Take the '=' of ``--border=edge`` from the words of bash, which counts it as a word."""
    words = os.environ["COMP_WORDS"].split("\n")
    dropped = [
        i
        for i, word in enumerate(words)
        if i < at and word == "=" and words[i - 1].startswith("--")
    ]
    kept = [word for i, word in enumerate(words) if i not in dropped]
    os.environ["COMP_WORDS"] = "\n".join(kept)
    os.environ["COMP_CWORD"] = str(at - len(dropped))


def _item(value: str, type: str = "plain") -> CompletionItem:
    from click.shell_completion import CompletionItem

    return CompletionItem(value, type)


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files and folders, which the shell lists itself."""
    return [_item(incomplete, "file")]


def nothing(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer nothing: any number may be meant."""
    return []


def one_of(values: Sequence[str]) -> Offer:
    """A completion that offers the *values* that begin with the word."""

    def offer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [_item(value) for value in values if value.startswith(incomplete)]

    return offer


def some_of(values: Sequence[str]) -> Offer:
    """As one_of(), for a list with commas: it completes what follows the last comma."""

    def offer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        taken = before.split(",")
        return [
            _item(before + comma + value)
            for value in values
            if value.startswith(last) and value not in taken
        ]

    return offer


def filters(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of all filters."""
    from cudafilter.operations.catalogue import CATALOGUE

    return one_of(tuple(CATALOGUE))(ctx, param, incomplete)


def formats(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The formats that are written."""
    from cudafilter.formats.table import written

    return one_of(written())(ctx, param, incomplete)


def colours(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of colours."""
    from PIL import ImageColor

    return one_of(tuple(ImageColor.colormap))(ctx, param, incomplete)


def gpus(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Numbers of the GPUs here. They come from the driver's device files, so no GPU starts."""
    offered = some_of(gpu_numbers())(ctx, param, incomplete)
    return offered if "," in incomplete else [*offered, *one_of([ALL])(ctx, param, incomplete)]


def gpu_numbers() -> list[str]:
    """The numbers of the GPUs that the driver has made device files of."""
    names = (name.removeprefix("nvidia") for name in os.listdir("/dev"))
    return sorted((name for name in names if name.isdecimal()), key=int)


def _mend_fish() -> None:
    """Have click's script for fish keep the commas of a value: 0,1 is offered as it is."""
    from click.shell_completion import FishComplete, add_completion_class

    class Fish(FishComplete):
        source_template = FishComplete.source_template.replace(
            'string split "," ', 'string split -m 1 "," '
        )

    add_completion_class(Fish)


def script(shell: str) -> str:
    """What *shell* is to run so that it asks at Tab, with a line how to install it."""
    from click.shell_completion import get_completion_class

    _mend_fish()
    root = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    assert kind is not None
    first, rest = kind(root, {}, "cudafilter", COMPLETION).source().strip().split("\n", 1)
    install = f"# To install: {INSTALL[shell]}"
    # zsh knows a completion by its first line.
    lines = (first, install) if first.startswith("#") else (install, first)
    return "\n".join((*lines, rest))


class _Shell(click.Choice[str]):
    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        return f"Choose from {', '.join(self.choices)}."  # click's own stands in several lines


command = Command(
    "completion",
    arguments=[
        click.Argument(["shell"], type=_Shell(tuple(INSTALL)), metavar="SHELL"),
    ],
    sections={
        "Options": [click.Option(["--debug"], is_flag=True, help="Show the traceback of an error.")]
    },
    example='eval "$(cudafilter completion bash)"',
    help="Print the script for completion at Tab: bash, zsh or fish.\n\nIts head tells how to"
    " install it. It completes filters, options, their values, GPUs and files.",
    callback=lambda shell, debug: put(script(shell)),
)
