"""Ctrl-C, from the first moment on: exit code 130 and a word, never a traceback.

It imports as little as possible: until it is loaded, Python prints its traceback.
"""

from __future__ import annotations

import os
import signal

from cudafilter.start.begun import begun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

CODE = 130
"""The exit code of an interrupted command."""

_IMPORTING = "<frozen importlib._bootstrap>"


def install() -> None:
    """Answer Ctrl-C, unless it is ignored, as in a shell's background jobs."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, answer)


def install_others() -> None:
    """Answer other signals that ask for an end, but none that are ignored (nohup) or answered."""
    for stop in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(stop) == signal.SIG_DFL:
            signal.signal(stop, answer)


def is_caught() -> None:
    """Say that KeyboardInterrupt is caught from now on, wherever it is raised."""
    begun.caught = True


def answer(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt. Until it is caught, and in an import, end the process instead.

    An import may print the exception, make another one of it, or leave a module half made.
    """
    if not begun.caught:
        leave()
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            leave()
        frame = frame.f_back
    raise KeyboardInterrupt


def leave() -> NoReturn:
    """Say that it was interrupted and end the process."""
    try:
        # What a terminal shows of the keys stands in a line of its own.
        os.write(2, b"\ninterrupted\n" if os.isatty(2) else b"interrupted\n")
    finally:  # whether or not anybody can be told
        os._exit(CODE)
