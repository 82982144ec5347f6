"""How far a job is: a bar of at most 80 columns on a terminal, elsewhere a line every minute."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from threading import Lock
from typing import TextIO

from cudafilter.cli.terminal import CLEAR, erases, tell

WIDTH = 80


def progress(total: int, what: str = "images", size: int = 0) -> Lines:
    """What shows the progress of *total* images, or of *what*, of *size* bytes, on stderr."""
    kind = Progress if erases() else Lines
    return kind(total, what=what, size=size)


class Lines:
    """How many of *total* images are done, how fast, and the time left at that speed: in lines.

    Threads may call it. Where *size* is not 0, *total* of something has so many bytes, and bytes
    are told.
    """

    EVERY = 60.0
    """Seconds that pass at least between two lines."""

    def __init__(
        self,
        total: int,
        clock: Callable[[], float] = time.monotonic,
        what: str = "images",
        size: int = 0,
    ) -> None:
        self.total = total
        self.what = what
        self.size = size
        self.done = 0
        self._worked = 0
        self._clock = clock
        self._started = self._told = clock()
        self._lock = Lock()
        self._closed = False

    def advance(self, worked: bool, by: int = 1) -> None:
        """Count one more image, or *by*. Only those that took work (*worked*) count for the
        speed."""
        with self._lock:
            self.done += by
            self._worked += by * worked
            if not self._closed:
                self._show(self._clock())

    def clear(self) -> None:
        """Make room for something else to be written."""
        with self._lock:
            self._clear()

    def close(self) -> None:
        """Show nothing from now on, whatever threads that are still at work say."""
        with self._lock:
            self._closed = True
            self._clear()

    def _clear(self) -> None:
        """Do nothing: lines stay."""

    def _show(self, now: float) -> None:
        if now - self._told >= self.EVERY and self.done < self.total:
            self._told = now
            tell(self.text(now - self._started))

    def text(self, seconds: float) -> str:
        """The line after *seconds*."""
        facts = [f"{self.done:,} of {self.total:,} {self.what}"]
        if self.size:
            facts.append(f"{_bytes(self.size * self.done // self.total, self.size)} of pixels")
        return ", ".join(facts + self._speed(seconds))

    def _speed(self, seconds: float) -> list[str]:
        """The speed and the time left after *seconds*, once there is any."""
        if not self._worked or seconds <= 0:
            return []
        rate = self._worked / seconds
        told = f"{_rate(rate)} {self.what}/s"
        if self.size:
            told = f"{_rate(rate * self.size / self.total / 1e6)} MB/s"
        return [told, f"{_clock((self.total - self.done) / rate)} left"]


class Progress(Lines):
    """The same as Lines, in one line that is drawn again and again."""

    EVERY = 0.1

    def __init__(
        self,
        total: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        what: str = "images",
        size: int = 0,
    ) -> None:
        super().__init__(total, clock, what, size)
        self._stream = stream or sys.stderr
        self._visible = False

    def _show(self, now: float) -> None:
        if now - self._told < self.EVERY and self._visible and self.done < self.total:
            return
        columns = min(WIDTH, shutil.get_terminal_size().columns) - 1
        self._stream.write(CLEAR + self.line(now - self._started, columns))
        self._stream.flush()
        self._told = now
        self._visible = True

    def _clear(self) -> None:
        """Remove the line, so that something else can be written in its place."""
        if self._visible:
            self._stream.write(CLEAR)
            self._stream.flush()
            self._visible = False

    def line(self, seconds: float, columns: int) -> str:
        """The line after *seconds*, at most *columns* wide."""
        text = f" {self.done}/{self.total}"
        if self.size:
            text += f" {self.what}  {_bytes(self.size * self.done // self.total, self.size)}"
        text = "  ".join([text, *self._speed(seconds)])
        room = columns - len(text) - 2
        if room < 5:
            return text.strip()[:columns]
        filled = room * self.done // self.total
        return f"[{'=' * filled}{' ' * (room - filled)}]{text}"


def _bytes(done: int, size: int) -> str:
    unit, name = (1e9, "GB") if size >= 1e9 else (1e6, "MB")
    return f"{done / unit:,.1f}/{size / unit:,.1f} {name}"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 1000 else f"{rate:.3g}"


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
