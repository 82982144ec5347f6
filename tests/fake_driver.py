"""A stand-in for nvidia/driver.py beside that for PyCUDA, and arrays of other libraries on it.

Memory that is given back in the wrong order, or used before what fills it, shows as an
AssertionError or a wrong result: what is queued on a stream is done when somebody waits for it.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from cudafilter.engines import open as opening
from cudafilter.engines.cuda import dlpack
from cudafilter.nvidia import driver as nvidia
from fake_cuda import FakeCuda, _Allocation, _Stream


class _Event:
    def __init__(self) -> None:
        self.recorded = self.reached = 0
        self.streams: list[_Stream] = []


class FakeDriver:
    """nvidia.driver.Driver on the memory and the streams of *cuda*."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.retained: Counter[int] = Counter()
        self.synchronized = 0
        self.calls: list[str] = []
        self.theirs: set[int] = set()
        """Addresses of what the caller has allocated."""
        self._held: dict[int, _Allocation] = {}
        self._events: dict[int, _Event] = {}
        self._streams = {nvidia.LEGACY: _Stream(cuda)}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be the driver from now on."""
        monkeypatch.setattr(nvidia, "driver", lambda: self)
        monkeypatch.setattr(opening, "_kept", {})

    def stream(self) -> int:
        """A stream of the caller's."""
        made = _Stream(self.cuda)
        self._streams[made.handle] = made
        return made.handle

    def of(self, handle: int) -> _Stream:
        """The stream of that handle; one that has ended fails."""
        ours = {stream.handle: stream for stream in self.cuda.streams}
        return self._streams.get(handle) or ours[handle]

    def end(self, handle: int) -> None:
        """Destroy a caller's stream once its work is done."""
        stream = self._streams.pop(handle)
        stream.run()
        self.cuda.streams.remove(stream)

    @property
    def left(self) -> int:
        """Bytes of device memory that are allocated, but for the caller's."""
        return self.cuda.in_use - sum(self._held[each].nbytes for each in self.theirs)

    @property
    def events(self) -> int:
        """Events that nobody gave back."""
        return len(self._events)

    def device_of(self, address: int) -> int | None:
        """0 for what is allocated here."""
        return 0 if any(kept.holds(address, 1) for kept in self.cuda.living()) else None

    def retain(self, device: int) -> int:
        """The context, counted."""
        self.retained[device] += 1
        return 77

    def release(self, device: int) -> None:
        """Give it back."""
        self.retained[device] -= 1
        assert self.retained[device] >= 0

    @contextmanager
    def current(self, context: int) -> Iterator[None]:
        """Make the context current."""
        assert context == 77
        self.cuda.push()
        try:
            yield
        finally:
            self.cuda.pop()

    def synchronize(self) -> None:
        """Do all that is queued."""
        self._called("synchronize")
        self.synchronized += 1
        for stream in list(self.cuda.streams):
            stream.run()

    def event(self) -> int:
        """A new event."""
        made = _Event()
        self._events[id(made)] = made
        return id(made)

    def forget(self, event: int) -> None:
        """Destroy it; what waits for it still does."""
        del self._events[event]

    def record(self, event: int, stream: int) -> None:
        """See Driver.record."""
        self._called("record")
        made, on = self._events[event], self.of(stream)
        made.recorded += 1
        number = made.recorded
        made.streams.append(on)
        on.put(lambda: setattr(made, "reached", max(made.reached, number)))

    def reached(self, event: int) -> bool:
        """See Driver.reached."""
        return self._events[event].reached == self._events[event].recorded

    def wait(self, stream: int, event: int) -> None:
        """See Driver.wait."""
        self._called("wait")
        made = self._events[event]
        number = made.recorded
        assert number, "never recorded"
        from_stream = made.streams[number - 1]
        self.of(stream).put(lambda: from_stream.run(lambda: made.reached >= number))

    def alloc(self, nbytes: int, stream: int) -> int:
        """Memory full of what nobody wrote."""
        self._called("alloc")
        self.of(stream)
        made = self.cuda.mem_alloc(nbytes)
        self._held[made.address] = made
        return made.address

    def free(self, address: int, stream: int) -> None:
        """Give it back behind what is queued there."""
        self._called("free")

        def free() -> None:
            made = self._held.pop(address)
            for other in self.cuda.streams:
                for _, touched in other.queue:
                    assert not any(made.holds(each, 1) for each in touched), "freed too early"
            del self.cuda.used[address]

        self.of(stream).put(free)

    def copy(
        self, to: tuple[int, int], source: tuple[int, int], row: int, rows: int, stream: int
    ) -> None:
        """See Driver.copy."""
        self._called("copy")

        def copy() -> None:
            for y in range(rows):
                ctypes.memmove(to[0] + y * to[1], source[0] + y * source[1], row)

        self.of(stream).put(copy, to[0], source[0])

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self.cuda.called(name)


class Theirs:
    """An array of another library: *pixels*, in rows *pitch* bytes apart, on the stream *stream*.

    It is filled when that stream comes to it, not before.
    """

    def __init__(
        self, driver: FakeDriver, pixels: np.ndarray[Any, Any], stream: int = nvidia.LEGACY,
        pitch: int | None = None, skip: int = 0,
    ) -> None:  # fmt: skip
        self.shape: tuple[int, ...] = pixels.shape
        self.dtype: np.dtype[Any] = pixels.dtype
        self._driver = driver
        row = pixels[0].nbytes
        self._pitch = pitch or row
        with driver.current(77):
            start = driver.alloc(len(pixels) * self._pitch + skip, stream)
        driver.theirs.add(start)
        self.address = start + skip
        rows = np.ascontiguousarray(pixels)

        def fill() -> None:
            for y in range(len(rows)):
                ctypes.memmove(self.address + y * self._pitch, rows[y].ctypes.data, row)

        driver.of(stream).put(fill, self.address)
        self.on = stream

    @property
    def pixels(self) -> np.ndarray[Any, Any]:
        """What lies there by now; the host looks without waiting."""
        return self._rows()[:, : self._row].copy().view(self.dtype).reshape(self.shape)

    @property
    def padding(self) -> np.ndarray[Any, Any]:
        """What lies between the rows."""
        return self._rows()[:-1, self._row :]

    @property
    def _row(self) -> int:
        return int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def _rows(self) -> np.ndarray[Any, Any]:
        count = self.shape[0]
        raw = (ctypes.c_uint8 * (count * self._pitch)).from_address(self.address)
        rows: np.ndarray[Any, Any] = np.ctypeslib.as_array(raw).reshape(count, self._pitch)
        return rows

    @property
    def strides(self) -> tuple[int, ...]:
        """In bytes."""
        inner = [int(np.prod(self.shape[i + 1 :])) for i in range(1, len(self.shape))]
        return (self._pitch, *(each * self.dtype.itemsize for each in inner))

    def __hash__(self) -> int:
        return id(self)


class WithInterface(Theirs):
    """As CuPy's and Numba's are."""

    read_only = False

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape, "typestr": self.dtype.str, "data": (self.address, self.read_only),
            "strides": self.strides, "stream": self.on, "version": 3,
        }  # fmt: skip


class WithCapsule(Theirs):
    """As PyTorch's and JAX's are; *versions* as since DLPack 1.0."""

    versions = True
    number = 0
    asked: int | None = None

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.number

    def __dlpack__(self, *, stream: int | None = None, **more: Any) -> Any:
        if more and not self.versions:
            raise TypeError("no max_version is known")
        self.asked = stream
        if stream not in (None, self.on):
            event = self._driver.event()
            with self._driver.current(77):
                self._driver.record(event, self.on)
                self._driver.wait(stream, event)
            self._driver.forget(event)
        strides = tuple(each // self.dtype.itemsize for each in self.strides)
        kind = f"{self.dtype.kind}{self.dtype.itemsize}"
        array = dlpack.Array(self.address, self.shape, strides, kind, self.__dlpack_device__())
        return dlpack.capsule(array, self, self.versions)
