"""The command line: ``cudafilter FILTER [OPTIONS] SRC... DEST``.

Modules here import nothing heavy at their top, so that ``--help`` is instant.
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import Any, NoReturn

import click

from cudafilter import __version__
from cudafilter.cli.command import COMPLETION, FAILURE, exit_code
from cudafilter.cli.terminal import tell_error
from cudafilter.operations.catalogue import CATALOGUE, grouped
from cudafilter.start import interrupt

_OTHERS = ("chain", "preview", "filters", "info", "doctor", "bench", "compile", "completion")
"""The commands that are not filters. Each is ``command`` in the module of the same name."""

SWITCH_SECONDS = 0.0005
"""How long a thread may keep Python's lock from others that want it. Threads here mostly come back
from codecs, files and the GPU and want it for an instant; with the interpreter's 5 ms they spent
more time waiting for it than working."""


class App(click.Group):
    """The commands: a filter of the catalogue becomes one only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*CATALOGUE, *_OTHERS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in CATALOGUE:
            from cudafilter.cli.filter import filter_command

            return filter_command(CATALOGUE[name])
        if name in _OTHERS:
            command: click.Command = import_module(f"cudafilter.cli.{name}").command
            return command
        return None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read *args*. A filter's name with a dash, as ImageMagick has it, gets a hint."""
        try:
            return super().parse_args(ctx, list(args))  # which it takes apart
        except click.NoSuchOption as error:
            from cudafilter.cli.suggest import command

            unknown = error.option_name  # of -gaussian-blur click says only -g
            word = next((word for word in args if word.startswith(unknown)), unknown)
            hint = command(word, self.list_commands(ctx))
            if hint is None:
                from cudafilter.cli import options

                shared = (option for part in options.shared().values() for option in part)
                if not any(unknown in option.opts for option in shared):
                    raise
                word, hint = unknown, "options follow the command: cudafilter FILTER [OPTIONS] ..."
            error = click.NoSuchOption(word, ctx=error.ctx)
            error.hint = hint  # type: ignore[attr-defined]
            raise error from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchOption:
            raise
        except click.UsageError as error:
            from cudafilter.cli.suggest import command

            error.hint = command(args[0], self.list_commands(ctx))  # type: ignore[attr-defined]
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, CATALOGUE))
        with formatter.section("Filters"):
            for group, specs in grouped():
                with formatter.section(group.capitalize()):
                    formatter.write_dl([(spec.name.ljust(width), spec.summary) for spec in specs])
        with formatter.section("Other commands"):
            others = ((name, self.get_command(ctx, name)) for name in _OTHERS)
            formatter.write_dl([(name, c.get_short_help_str(60)) for name, c in others if c])

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run the command line and exit: 0 done, 1 something failed, 2 usage, 130 interrupted."""
        extra["standalone_mode"] = False
        click_main = super().main

        def run() -> Any:
            if asked := os.environ.get(COMPLETION):
                from cudafilter.cli import completion

                completion.prepare(asked)
            return click_main(*args, **extra)

        sys.exit(exit_code(run))


@click.group(
    cls=App,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""Exit codes: 0 all done, 1 an image failed, 2 usage, 130 interrupted.

    For completion at Tab, with bash, zsh or fish: cudafilter completion --help.
    """,
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def app() -> None:
    """2-D image filters on an NVIDIA GPU, or a CPU, proved right.

    \b
      cudafilter FILTER [OPTIONS] SRC... DEST
      cudafilter blur --sigma 3 photo.jpg soft.jpg
      cudafilter sobel -r photos/ edges/ --check

    A filter takes SRC... and DEST as cp does: files, folders, URLs such as s3://bucket/, or '-' for
    a stream. Each filter has its own options: cudafilter FILTER --help.
    """


def main() -> None:
    """Run the command line and end the process."""
    sys.setswitchinterval(SWITCH_SECONDS)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # what libraries say is for programmers
    interrupt.install_others()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A name may hold what the terminal's encoding lacks.
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="cudafilter")
    except SystemExit as end:
        _leave(int(end.code or 0))


def _leave(code: int) -> NoReturn:
    """End the process at once, with *code*, or 1 where the output's last bytes are lost.

    Taking the interpreter and its libraries down takes 50 ms, and after a failure threads may still
    be reading or computing what nobody wants any more, and would run into it.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            with suppress(AttributeError):  # closed by the shell
                stream.flush()
        except OSError as error:
            if stream is sys.stdout and not code:
                code = FAILURE
                if not isinstance(error, BrokenPipeError):
                    tell_error(f"standard output: cannot be written: {error.strerror}")
    os._exit(code)
