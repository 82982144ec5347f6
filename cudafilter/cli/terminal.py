"""What reaches a person: lines on stderr and results on stdout. Each line told is escaped here."""

from __future__ import annotations

import os
import sys

import click

from cudafilter.errors import CudafilterError
from cudafilter.host.escape import escaped, escaped_lines

CLEAR = "\r\x1b[K"
"""Erases the line that the cursor is in, where the terminal erases()."""


def erases() -> bool:
    """Whether stderr is a terminal that can erase a line, as Emacs' shell (TERM=dumb) cannot."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return terminal and os.environ.get("TERM") != "dumb"


def tell(text: str) -> None:
    """Write *text* to stderr, as one line. Raises BrokenPipeError where its reader has gone."""
    _write(escaped(text))


def tell_lines(text: str) -> None:
    """Write *text* of several lines to stderr, such as a traceback, set in."""
    _write(escaped_lines(text.rstrip()))


def tell_error(message: str, hint: str | None = None, details: str = "") -> None:
    """Tell what went wrong: *message*, the lines of *details*, and what to do."""
    tell(f"error: {message}")
    if details:
        tell_lines(details)
    if hint:
        tell(f"hint: {hint}")


def put(text: str) -> None:
    """Write *text* to stdout as it is, and a line end.

    Raises CudafilterError where that cannot be, and BrokenPipeError where its reader has gone.
    """
    if sys.stdout is None:
        raise CudafilterError("standard output is closed")
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CudafilterError(f"standard output: cannot be written: {error.strerror}") from error


def _write(text: str) -> None:
    try:
        click.echo(text, err=True)
    except BrokenPipeError:
        raise
    except OSError:
        # Nobody can be told, and the work goes on: its exit code tells.
        return
