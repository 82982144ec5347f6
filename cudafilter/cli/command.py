"""What all commands share: sections in their help, and how errors reach the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import click
from click.core import ParameterSource

from cudafilter.cli.terminal import tell, tell_error, tell_lines
from cudafilter.errors import EngineError, ParameterError, in_words
from cudafilter.start import interrupt

FAILURE, USAGE, INTERRUPTED = 1, 2, interrupt.CODE

COMPLETION = "_CUDAFILTER_COMPLETE"
"""The variable by which a shell asks for completion, as click names it."""

_HELP = {"-h", "--help"}
_PRESETS = "cudafilter.presets"
"""Where a context keeps the place of each preset."""

Sections = Mapping[str, Sequence[click.Option]]


class Failure(click.ClickException):
    """An error as people see it: ``error: what happened``, and ``hint: what to do``.

    *details* are further lines, such as a compiler's.
    """

    exit_code = FAILURE

    def __init__(self, message: str, hint: str | None = None, details: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.details = details


class ValuedFlag(click.Option):
    """A flag that may have a value, after '=' only: what follows it is no value.

    Command gives *bare* to one that stands by itself.
    """

    def __init__(self, *arguments: Any, bare: str, **others: Any) -> None:
        super().__init__(*arguments, **others)
        self.bare = bare

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """``--name[=a|b]`` and its help."""
        record = super().get_help_record(ctx)
        if record is None:
            return None
        values = self.type.get_metavar(self, ctx) or ""
        return f"{self.opts[0]}[={values.strip('[]')}]", record[1]


class Command(click.Command):
    """A command whose options stand in *sections* of its help and whose errors are one line.

    With *presets* its options have the user's own defaults. A flag is then switched off by
    ``--no-NAME``.
    """

    def __init__(
        self,
        name: str,
        *,
        arguments: Sequence[click.Argument] = (),
        sections: Sections,
        example: str,
        presets: bool = False,
        **extra: Any,
    ) -> None:
        super().__init__(
            name,
            params=[*arguments, *(option for options in sections.values() for option in options)],
            **extra,
        )
        self.sections = sections
        self.example = example
        self.presets = presets

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
            if not rows:
                continue
            with formatter.section(title):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example, not wrapped or indented, so that it can be copied."""
        formatter.write(f"\nExample:\n{self.example}\n")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read *args*. An unknown option gets a hint where other programs know it by that name."""
        end = args.index("--") if "--" in args else len(args)
        bare = {
            name: f"{name}={param.bare}"
            for param in self.params
            if isinstance(param, ValuedFlag)
            for name in param.opts
        }
        for word, after in pairwise(args[:end]):
            if word in bare:
                _require_no_value(ctx, self, word, after)
        args = [*(bare.get(word, word) for word in args[:end]), *args[end:]]
        if self.presets and not ctx.resilient_parsing and not _HELP & set(args):
            self._take_presets(ctx)
        try:
            return super().parse_args(ctx, list(args))  # which it takes apart
        except click.BadParameter as error:
            raise _placed(ctx, error) from None
        except ParameterError as error:  # a converter's, named as its option
            raise _usage_error(ctx, error) from error
        except click.NoSuchOption as error:
            from cudafilter.cli.suggest import option

            known = [name for param in self.params for name in param.opts]
            hint = _of_a_file(error.option_name, args[:end]) or option(error.option_name, known)
            if hint is None:
                raise
            # Without click's own guess, which goes by the letters.
            error = click.NoSuchOption(error.option_name, ctx=error.ctx)
            error.hint = hint  # type: ignore[attr-defined]
            raise error from None

    def _take_presets(self, ctx: click.Context) -> None:
        from cudafilter.cli.presets import presets

        assert self.name is not None
        found = presets(self.name, self.params)
        ctx.default_map = {name: preset.value for name, preset in found.items()}
        ctx.meta[_PRESETS] = found

    def make_parser(self, ctx: click.Context) -> Any:
        """Click's parser, which takes ``--no-NAME`` for what a preset may have switched on."""
        parser = super().make_parser(ctx)
        for param in self.params if self.presets else ():
            if isinstance(param, click.Option) and (param.is_flag or isinstance(param, ValuedFlag)):
                word = f"--no-{param.opts[-1].lstrip('-')}"
                off = False if param.is_flag else None
                parser.add_option(param, [word], param.name, action="store_const", const=off)
        return parser

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what it raises becomes a message, with a traceback under --debug."""
        if ctx.params.get("verbose"):
            for name, preset in ctx.meta.get(_PRESETS, {}).items():
                if name in preset_names(ctx):
                    tell(f"preset: --{name.replace('_', '-')} {preset.value} ({preset.place})")
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if isinstance(error.__cause__, KeyboardInterrupt):
                # An import or a class in the making may dress it up as its own failure.
                raise error.__cause__ from None
            if ctx.params.get("debug"):
                _tell_traceback(error)
            if isinstance(error, ParameterError):
                raise _usage_error(ctx, error) from error
            raise failure_of(error) from error


def _of_a_file(unknown: str, words: Sequence[str]) -> str | None:
    """A hint where the option *unknown* is how a file's name among *words* begins."""
    import os

    for word in words:
        if word.startswith(unknown) and os.path.lexists(word):
            return f"for the file of that name: .{os.sep}{word}"
    return None


def _require_no_value(ctx: click.Context, command: click.Command, flag: str, word: str) -> None:
    """Raise UsageError where *word* is a value of the ValuedFlag *flag* that it follows.

    It would be taken for a path: the image for DEST would be filtered into a folder of that name.
    """
    import os

    choice = next(param.type for param in command.params if flag in param.opts)
    if isinstance(choice, click.Choice) and word in choice.choices and not os.path.lexists(word):
        error = click.UsageError(f"{flag} takes its value after '=': {flag}={word}", ctx)
        error.hint = f"for a file or folder of that name: ./{word}"  # type: ignore[attr-defined]
        raise error


def failure_of(error: Exception) -> Failure:
    """*error* as it is told."""
    text, hint = in_words(error)
    if isinstance(error, EngineError):
        # What a compiler says stands in lines of its own; no name of a user's file is among it.
        text, _, details = text.partition("\n")
        return Failure(text, hint, details)
    return Failure(text, hint)


def _tell_traceback(error: Exception) -> None:
    import traceback

    tell_lines("".join(traceback.format_exception(error)))


def preset_names(ctx: click.Context) -> frozenset[str]:
    """The options whose values are the user's presets, and no words of the command line."""
    names = ctx.meta.get(_PRESETS, {})
    is_preset = ParameterSource.DEFAULT_MAP
    return frozenset(name for name in names if ctx.get_parameter_source(name) is is_preset)


def _placed(ctx: click.Context, error: click.BadParameter) -> click.BadParameter:
    """*error*, which tells where the wrong value is from if that is no word of the command line."""
    name = error.param.name if error.param is not None else None
    if name in preset_names(ctx):
        placed = click.BadParameter(
            f"{error.message} ({ctx.meta[_PRESETS][name].place})", ctx, error.param
        )
        placed.hint = getattr(error, "hint", None)  # type: ignore[attr-defined]
        return placed
    return error


def _usage_error(ctx: click.Context, error: ParameterError) -> click.UsageError:
    """*error* as click tells it, naming the option that its parameter is, if it is one."""
    for param in ctx.command.params:
        if isinstance(param, click.Option) and param.name == error.parameter:
            usage: click.UsageError = _placed(ctx, click.BadParameter(str(error), ctx, param))
            break
    else:
        usage = click.UsageError(str(error), ctx)
    usage.hint = error.hint  # type: ignore[attr-defined]
    return usage


def exit_code(invoke: Callable[[], Any]) -> int:
    """Run the command line *invoke*, tell its error on stderr, and return the exit code."""
    try:
        code = invoke()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
            click.echo(f"Try '{error.ctx.command_path} --help' for help.\n", err=True)
        hint, details = getattr(error, "hint", None), getattr(error, "details", "")
        tell_error(error.format_message(), hint, details)
        return error.exit_code
    except click.Abort as stopped:
        if not isinstance(stopped.__cause__, KeyboardInterrupt):
            raise
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        return FAILURE
    except OSError as error:
        # The help could not be written. All else is told by the command.
        tell_error(f"standard output: cannot be written: {error.strerror or error}")
        return FAILURE
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told in words
        if "--debug" in sys.argv:
            _tell_traceback(error)
        tell_error(*in_words(error))
        return FAILURE
    return code if isinstance(code, int) else 0
