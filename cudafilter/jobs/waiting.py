"""What threads wait at: the engine's opening, memory for an image, and the run's end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Stopped(BaseException):
    """An image is dropped since the run was stopped. No Exception: it is nobody's failure."""


class Gift(Generic[T]):
    """A value that comes later."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._value: T | None = None
        self._withdrawn = False

    def give(self, value: T) -> None:
        """Let those go on who wait for *value*."""
        with self._changed:
            self._value = value
            self._changed.notify_all()

    def withdraw(self) -> None:
        """It will not come: those who wait for it are stopped."""
        with self._changed:
            self._withdrawn = True
            self._changed.notify_all()

    def get(self) -> T:
        """The value, once it is there. Raises Stopped if it will not come."""
        if self._value is None:
            with self._changed:
                self._changed.wait_for(lambda: self._value is not None or self._withdrawn)
        if self._value is None:
            raise Stopped
        return self._value


class Room:
    """*total* bytes of memory for images, or without bound where that is None.

    Whoever came first is served first, so that a large image does get its turn; one that is larger
    than all there is goes alone.
    """

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._used = 0
        self._line: deque[object] = deque()
        self._changed = Condition()

    @property
    def bounded(self) -> bool:
        """Whether anybody ever waits."""
        return self._total is not None

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Hold *size* bytes, waiting until they are free."""
        if self._total is None:
            yield
            return
        with self._changed:
            turn = object()
            self._line.append(turn)
            self._changed.wait_for(lambda: self._line[0] is turn and self._fits(size))
            self._line.popleft()
            self._used += size
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return self._total is None or not self._used or self._used + size <= self._total


class Saves:
    """Lets writes begin until it is shut; shutting it waits for those in progress."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._open = True
        self._writing = 0

    @property
    def closed(self) -> bool:
        """Whether it was shut."""
        return not self._open

    def require_open(self) -> None:
        """Raise Stopped once shut."""
        if self.closed:
            raise Stopped

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold while writing."""
        with self._changed:
            self.require_open()
            self._writing += 1
        try:
            yield
        finally:
            with self._changed:
                self._writing -= 1
                self._changed.notify_all()

    def shut(self) -> None:
        """Let no write begin any more, and wait for those in progress."""
        self._open = False
        for _ in range(2):  # a second Ctrl-C must cut no write short either; a third one may
            with suppress(KeyboardInterrupt), self._changed:
                self._changed.wait_for(lambda: self._writing == 0)
                return
