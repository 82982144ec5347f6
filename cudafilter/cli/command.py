"""What all commands share: sections in their help, and how errors reach the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from cudafilter.errors import CudafilterError, ParameterError

FAILED, USAGE, INTERRUPTED = 1, 2, 130

Sections = Mapping[str, Sequence[click.Option]]


class Failure(click.ClickException):
    """An error as it is told: ``error: what happened``, and ``hint: what to do``."""

    exit_code = FAILED

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Command(click.Command):
    """A command whose options stand in *sections* of its help and whose errors are one line."""

    def __init__(
        self,
        name: str,
        *,
        arguments: Sequence[click.Argument] = (),
        sections: Sections,
        example: str,
        **extra: Any,
    ) -> None:
        super().__init__(
            name,
            params=[*arguments, *(option for options in sections.values() for option in options)],
            **extra,
        )
        self.sections = sections
        self.example = example

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options by section, and ``--help`` in the last one."""
        records = {
            title: [record for o in options if (record := o.get_help_record(ctx))]
            for title, options in self.sections.items()
        }
        help_option = self.get_help_option(ctx)
        if help_option and (record := help_option.get_help_record(ctx)):
            records[list(records)[-1]].append(record)
        for title, rows in records.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example, not wrapped or indented, so that it can be copied."""
        formatter.write(f"\nExample:\n{self.example}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what it raises becomes a message, with a traceback under --debug."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if isinstance(error.__cause__, KeyboardInterrupt):
                # An import or a class in the making may dress it up as its own failure.
                raise error.__cause__ from None
            if ctx.params.get("debug"):
                import traceback

                traceback.print_exc()
            if isinstance(error, ParameterError):
                raise _usage_error(ctx, error) from error
            if isinstance(error, CudafilterError):
                raise Failure(str(error), error.hint) from error
            if isinstance(error, OSError) and error.filename is not None:
                raise Failure(f"{error.filename}: {error.strerror}") from error
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise Failure(text, "run again with --debug to see where this happened") from error


def _usage_error(ctx: click.Context, error: ParameterError) -> click.UsageError:
    """*error* as click tells it, naming the option that its parameter is, if it is one."""
    for param in ctx.command.params:
        if isinstance(param, click.Option) and param.name == error.parameter:
            usage: click.UsageError = click.BadParameter(str(error), ctx, param)
            break
    else:
        usage = click.UsageError(str(error), ctx)
    usage.hint = error.hint  # type: ignore[attr-defined]
    return usage


def exit_code(invoke: Callable[[], Any]) -> int:
    """Run the command line *invoke*, tell its error on stderr, and return the exit code."""
    try:
        code = invoke()
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
            click.echo(f"Try '{error.ctx.command_path} --help' for help.\n", err=True)
        click.echo(f"error: {error.format_message()}", err=True)
        if hint := getattr(error, "hint", None):
            click.echo(f"hint: {hint}", err=True)
        return error.exit_code
    except click.Abort as stopped:
        if not isinstance(stopped.__cause__, KeyboardInterrupt):
            raise
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        return FAILED
    return code if isinstance(code, int) else 0
