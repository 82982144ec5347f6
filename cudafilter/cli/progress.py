"""A progress bar for images: one line of at most 80 columns on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

WIDTH = 80

_CLEAR = "\r\x1b[K"


class Progress:
    """How many of *total* images are done, how fast, and the time left at that speed."""

    EVERY = 0.1
    """Least seconds between two drawings."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self.total = total
        self.done = 0
        self._worked = 0
        self._stream = stream or sys.stderr
        self._started = time.monotonic()
        self._drawn = 0.0
        self._visible = False

    def advance(self, worked: bool) -> None:
        """One image more is done; *worked* says that it took work, so that the speed is true."""
        self.done += 1
        self._worked += worked
        now = time.monotonic()
        if now - self._drawn < self.EVERY and self._visible and self.done < self.total:
            return
        columns = min(WIDTH, shutil.get_terminal_size().columns) - 1
        self._stream.write(_CLEAR + self.line(now - self._started, columns))
        self._stream.flush()
        self._drawn = now
        self._visible = True

    def clear(self) -> None:
        """Remove the line, to write something else in its place."""
        if self._visible:
            self._stream.write(_CLEAR)
            self._stream.flush()
            self._visible = False

    def line(self, seconds: float, columns: int) -> str:
        """The line after *seconds*, at most *columns* wide."""
        text = f" {self.done}/{self.total}"
        if self._worked and seconds > 0:
            rate = self._worked / seconds
            text += f"  {rate:.3g} images/s  {_clock((self.total - self.done) / rate)} left"
        room = columns - len(text) - 2
        if room < 5:
            return text.strip()[:columns]
        filled = room * self.done // self.total
        return f"[{'=' * filled}{' ' * (room - filled)}]{text}"


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
