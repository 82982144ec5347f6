"""Slots: a stream each, and the device and pinned memory that one image at a time passes through.

Rows reach the device through a ring of small pinned chunks: while one is on its way, the next one
is filled. So the first image pays for pinning a few MiB, not its own size, and results leave while
later rows still arrive. Buffers are kept between images and only grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Condition
from time import perf_counter
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from cudafilter.operations.pixels import Pixels

CHUNK_BYTES = 8 << 20
"""Pinned bytes of a chunk, or one row where that is more. A copy of so many takes 0.15 ms on
PCIe 5, so starting it costs little; pinning takes about 0.5 ms a MiB."""

DEPTH = 2
"""Chunks of a ring: one is filled or emptied while the other is on its way."""

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: the stream does not wait for the default stream, nor that for it."""


class Slot:
    """What one image needs on the device. For one thread at a time, with the context current.

    upload() and download() only put bytes on their way. finish() waits for them and brings results
    into their arrays.
    """

    def __init__(self, cuda: ModuleType) -> None:
        self._cuda = cuda
        self._stream: Any = None
        self._memory: dict[str, tuple[Any, int]] = {}
        self._up = [_Chunk(cuda) for _ in range(DEPTH)]
        self._down = [_Chunk(cuda) for _ in range(DEPTH)]
        self._downloads = 0
        self._uploading = 0.0
        self._marks: list[tuple[Any, Any]] = []
        self._marked: list[str] = []
        self.lost = False
        """Whether the device failed for good: nothing of it can be given back."""

    @property
    def stream(self) -> Any:
        """The slot's stream; made when first asked for."""
        if self._stream is None:
            self._stream = self._cuda.Stream(NON_BLOCKING)
        return self._stream

    @property
    def held(self) -> int:
        """Bytes of device memory that the slot keeps."""
        return sum(nbytes for _, nbytes in self._memory.values())

    def holds(self, **sizes: int) -> bool:
        """Whether the slot already has so many bytes for each use."""
        return all(self._memory.get(use, (None, 0))[1] >= size for use, size in sizes.items())

    def memory(self, use: str, nbytes: int) -> int:
        """The address of *nbytes* of device memory for *use*, kept till the next larger request."""
        if nbytes == 0:
            return 0
        if not self.holds(**{use: nbytes}):
            if use in self._memory:
                self._memory.pop(use)[0].free()
            self._memory[use] = self._cuda.mem_alloc(nbytes), nbytes
        return int(self._memory[use][0])

    def upload(self, pixels: Pixels, address: int, pitch: int) -> Iterator[int]:
        """Queue copies of *pixels* to *address*, one chunk of rows each time it is asked for one.

        Yields how many rows are on their way by then. On the device rows start *pitch* bytes apart.
        """
        height = len(pixels)
        step = max(1, CHUNK_BYTES // pitch)
        for i, first in enumerate(range(0, height, step)):
            started = perf_counter()
            part = pixels[first : first + step]
            chunk = self._up[i % DEPTH]
            if i >= DEPTH:
                chunk.event.synchronize()
            staged = chunk.staged(len(part) * pitch)
            rows_of(staged, part, pitch)[...] = part
            self._cuda.memcpy_htod_async(address + first * pitch, staged, self.stream)
            if first + DEPTH * step < height:  # it will be filled again
                chunk.event.record(self.stream)
            self._uploading += perf_counter() - started
            yield first + len(part)

    def download(self, out: Pixels, address: int, pitch: int) -> None:
        """Queue the copies of rows at *address*, *pitch* bytes apart, into *out*.

        *out* is complete after finish(); its first rows may be so earlier.
        """
        step = max(1, CHUNK_BYTES // pitch)
        for first in range(0, len(out), step):
            part = out[first : first + step]
            chunk = self._down[self._downloads % DEPTH]
            self._downloads += 1
            if chunk.waiting is not None:
                chunk.event.synchronize()
                chunk.empty()
            staged = chunk.staged(len(part) * pitch)
            self._cuda.memcpy_dtoh_async(staged, address + first * pitch, self.stream)
            chunk.event.record(self.stream)
            chunk.waiting = part, pitch

    def finish(self) -> None:
        """Wait for all that is queued and bring what was downloaded into its arrays."""
        self._wait()
        for chunk in self._down:
            chunk.empty()
        self._downloads = 0

    def _wait(self) -> None:
        self.stream.synchronize()

    @contextmanager
    def timed(self, stage: str = "kernel") -> Iterator[None]:
        """Count the time of what is queued inside as time of *stage*."""
        if len(self._marked) == len(self._marks):
            self._marks.append((self._cuda.Event(), self._cuda.Event()))
        start, stop = self._marks[len(self._marked)]
        self._marked.append(stage)
        start.record(self.stream)
        yield
        stop.record(self.stream)

    def seconds(self) -> dict[str, float]:
        """Where the seconds of the last image went; after finish().

        ``upload`` is time of the host, which fills chunks and waits for free ones. Stages that were
        timed() are times of the device.
        """
        spent = {"upload": self._uploading}
        for stage, (start, stop) in zip(self._marked, self._marks, strict=False):
            spent[stage] = spent.get(stage, 0.0) + 1e-3 * stop.time_since(start)
        self._forget()
        return spent

    def abandon(self) -> None:
        """Wait for what is still queued after a failure, and forget its results."""
        try:
            if self._stream is not None:
                self._stream.synchronize()
        except self._cuda.Error:  # the failure itself is told
            self.lost = True
        for chunk in self._down:
            chunk.waiting = None
        self._forget()

    def _forget(self) -> None:
        self._marked.clear()
        self._uploading, self._downloads = 0.0, 0

    def free(self) -> None:
        """Give all memory, and the stream, back."""
        for buffer, _ in self._memory.values():
            buffer.free()
        self._memory.clear()
        for chunk in (*self._up, *self._down):
            chunk.free()
        self._marks.clear()
        self._stream = None


class _Chunk:
    """Pinned bytes on their way to the device or from it."""

    def __init__(self, cuda: ModuleType) -> None:
        self._cuda = cuda
        self._pinned: Any = None
        self._event: Any = None
        self.waiting: tuple[Pixels, int] | None = None
        """The array that the bytes are for, and their pitch."""

    @property
    def event(self) -> Any:
        """Recorded behind the copy, so that it tells when the bytes have arrived."""
        if self._event is None:
            self._event = self._cuda.Event()
        return self._event

    def staged(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """The first *nbytes* of the pinned memory. It only grows, to a power of two."""
        if self._pinned is None or self._pinned.nbytes < nbytes:
            self.free()
            self._pinned = self._cuda.pagelocked_empty(1 << (nbytes - 1).bit_length(), np.uint8)
        pinned: npt.NDArray[np.uint8] = self._pinned[:nbytes]
        return pinned

    def empty(self) -> None:
        """Bring the bytes, which have arrived, into the array they are for."""
        if self.waiting is not None:
            out, pitch = self.waiting
            out[...] = rows_of(self.staged(len(out) * pitch), out, pitch)
            self.waiting = None

    def free(self) -> None:
        """Give the pinned memory back."""
        if self._pinned is not None:
            allocation, self._pinned = self._pinned.base, None
            allocation.free()


def rows_of(staged: npt.NDArray[np.uint8], like: Pixels, pitch: int) -> Pixels:
    """*staged* as rows of the shape and type of *like*, *pitch* bytes apart."""
    row = like[0].nbytes
    return staged.reshape(-1, pitch)[:, :row].view(like.dtype).reshape(like.shape)


class Lendable(Protocol):
    """What a Pool lends."""

    def abandon(self) -> None:
        """Make it ready for the next thread, after a failure."""


T = TypeVar("T", bound=Lendable)


class Pool(Generic[T]):
    """Lends *items* to threads, one each; a thread waits while none is free."""

    def __init__(self, items: Sequence[T]) -> None:
        self.count = len(items)
        self._free = [*items]
        self._changed = Condition()
        self._closed = False

    @contextmanager
    def one(self) -> Iterator[T]:
        """An item for this thread: the one that was used last, which has its buffers."""
        with self._changed:
            self._changed.wait_for(lambda: self._free and not self._closed)
            item = self._free.pop()
        try:
            yield item
        except BaseException:
            item.abandon()
            raise
        finally:
            with self._changed:
                self._free.append(item)
                if self._closed:  # the thread that waits in alone() may be anywhere in the line
                    self._changed.notify_all()
                else:  # whoever is woken for nothing takes the interpreter's lock from the others
                    self._changed.notify()

    @contextmanager
    def alone(self) -> Iterator[list[T]]:
        """All items, once no thread has one. Nobody else gets one meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._closed = True
        items: list[T] = []
        try:
            with self._changed:
                self._changed.wait_for(lambda: len(self._free) == self.count)
                items, self._free = self._free, []
            yield items
        except BaseException:
            for item in items:
                item.abandon()
            raise
        finally:
            with self._changed:
                self._free += items
                self._closed = False
                self._changed.notify_all()
