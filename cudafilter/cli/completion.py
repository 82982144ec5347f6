"""What the shell offers at Tab, beside the names of commands and options, which click offers.

Nothing here opens an image or starts a GPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from cudafilter.operations.choices import ALL, CHECKS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

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
    if how[1] == "complete":
        words, at = os.environ.get("COMP_WORDS"), os.environ.get("COMP_CWORD")
        # fish has the word itself there in place of its number
        if words is None or at is None or not (wanted.startswith("fish") or at.isdecimal()):
            raise click.UsageError("COMP_WORDS and COMP_CWORD must hold the command line")
        if wanted.startswith("bash"):
            _join_values(int(at))
        # By itself it takes no value, so click must not offer one for the next word.
        *before, last = os.environ["COMP_WORDS"].split("\n")
        before = [f"--check={CHECKS[0]}" if word == "--check" else word for word in before]
        os.environ["COMP_WORDS"] = "\n".join([*before, last])


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
