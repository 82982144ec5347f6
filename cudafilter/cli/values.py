"""The values of options: what they are, and what the shell offers for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Choice(click.Choice[str]):
    """One of some words. A hint says which one was likely meant.

    *old* maps former words to the present ones. Neither help nor completion shows them.
    """

    def __init__(self, choices: Sequence[str], old: Mapping[str, str] | None = None) -> None:
        super().__init__(choices)
        self._old = old or {}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return super().convert(self._old.get(value, value), param, ctx)
        except click.UsageError as error:
            from cudafilter.cli.suggest import value as meant

            error.hint = meant(value, self.choices)  # type: ignore[attr-defined]
            raise


class Whole(click.IntRange):
    """A whole number from *min* to *max*, refused in our words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(super().convert(value, param, ctx))
        except click.UsageError:
            limits = f" from {self.min}" + (f" to {self.max}" if self.max is not None else "")
            raise _wrong_number(f"a whole number{limits}", value, param, ctx) from None


class Number(click.types.FloatParamType):
    """A number, refused in our words."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return float(super().convert(value, param, ctx))
        except click.UsageError:
            raise _wrong_number("a number", value, param, ctx) from None


class FileName(click.types.StringParamType):
    """The name of a file or folder, which is not empty, as that of an unset variable is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value:
            self.fail("a file name is empty", param, ctx)
        return str(super().convert(value, param, ctx))


def _wrong_number(
    wanted: str, value: Any, param: click.Parameter | None, ctx: click.Context | None
) -> click.BadParameter:
    from cudafilter.cli.suggest import number

    error = click.BadParameter(f"must be {wanted}, not {value!r}", ctx, param)
    error.hint = number(value)  # type: ignore[attr-defined]
    return error


def offered(
    what: str, words: Sequence[str] = ()
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """*words*, and what the function *what* of completion.py offers.

    That module is only imported when a shell asks.
    """

    def offer(ctx: click.Context, param: click.Parameter, word: str) -> list[CompletionItem]:
        from cudafilter.cli import completion

        offers: list[CompletionItem] = getattr(completion, what)(ctx, param, word)
        return [*completion.one_of(words)(ctx, param, word), *offers]

    return offer
