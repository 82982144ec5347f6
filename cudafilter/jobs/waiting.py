"""What threads wait for: the engine, memory for an image, and the end of the last writes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Stopped(BaseException):
    """The run was stopped, so an image is dropped. Not an Exception: nothing failed."""


class Future(Generic[T]):
    """A value that one thread sets and others wait for.

    concurrent.futures has one too, but its import takes 7 ms.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._value: T | None = None
        self._cancelled = False

    def set(self, value: T) -> None:
        """Give *value* to all who wait."""
        with self._changed:
            self._value = value
            self._changed.notify_all()

    def cancel(self) -> None:
        """No value will come: all who wait get Stopped."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    @property
    def is_set(self) -> bool:
        """Whether get() would not wait."""
        return self._value is not None

    def get(self) -> T:
        """The value, once it is set. Raises Stopped after cancel()."""
        if self._value is None:
            with self._changed:
                self._changed.wait_for(lambda: self._value is not None or self._cancelled)
        if self._value is None:
            raise Stopped
        return self._value


class MemoryBudget:
    """*total* bytes of memory for images; None means no limit.

    Threads are served in the order in which they came, so that a large image gets its turn. An
    image that is larger than *total* waits until no other one is in memory.
    """

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._used = 0
        self._line: deque[object] = deque()
        self._changed = Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Wait until *size* bytes are free, and hold them."""
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


class Gate:
    """What every write passes. Once it closes, none begins, and those in progress are finished."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._open = True
        self._writing = 0

    @property
    def closed(self) -> bool:
        """Whether it has closed."""
        return not self._open

    def require_open(self) -> None:
        """Raise Stopped once it has closed."""
        if self.closed:
            raise Stopped

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Write inside. Raises Stopped once it has closed."""
        with self._changed:
            self.require_open()
            self._writing += 1
        try:
            yield
        finally:
            with self._changed:
                self._writing -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Let no further write begin, and wait for those in progress."""
        self._open = False
        for _ in range(2):  # a second Ctrl-C must cut no write short either; a third one may
            with suppress(KeyboardInterrupt), self._changed:
                self._changed.wait_for(lambda: self._writing == 0)
                return


class Channel(Generic[T]):
    """Few items that one thread puts and another one takes, in order."""

    def __init__(self, most: int = 1) -> None:
        self._changed = Condition()
        self._items: deque[T] = deque()
        self._most = most
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Add *item* once there is room. Raises what fail() was given."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._most or self._error)
            if self._error is not None:
                raise self._error
            self._items.append(item)
            self._changed.notify_all()

    def take(self) -> T:
        """The next item, once it is there. Raises what fail() was given."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._error)
            if self._error is not None:
                raise self._error
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def fail(self, error: BaseException) -> None:
        """Let put() and take() raise *error* from now on; the first one stays."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()
