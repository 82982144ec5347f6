"""The GPU's JPEG units: pictures that wait are decoded together.

Threads bring one picture each, and wait. One thread feeds the units: it takes all that wait by
then and has the units decode them. Meanwhile it filters and encodes those that are decoded. The
others read, parse and write.

It is one thread that does both. On an H100, nvJPEG's encoder does 2,100 pictures of 12 megapixels a
second by itself, but 99 to 474 beside a thread that waits in a call for the units.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Semaphore, Thread
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.device import Device
from cudafilter.engines.cuda.jpeg_pictures import Bytes, Coded, JpegSlot, Passing, Picture, close
from cudafilter.engines.cuda.slots import Slot
from cudafilter.engines.cuda.variants.task import row_pitch
from cudafilter.nvidia import nvjpeg_units
from cudafilter.nvidia.nvjpeg import NvJpeg, NvJpegError
from cudafilter.nvidia.nvjpeg_units import Batches

BATCH = 14
"""Most pictures of a batch: two for each of the seven units. A call with more of them waits, and
spins, until the units have begun with the last ones."""

BATCH_BYTES = 1 << 30
"""Most bytes of a batch's decoded pixels, unless it is one picture."""

THREADS = 4 * BATCH
"""Threads that keep the units busy: half of them wait while the others read and write."""

PINNED = 2 * BATCH
"""Files in pinned memory: of a batch in work and the next one. To get 4 MB of it takes 10 ms."""

MOST_PINNED = 32 << 20
"""Bytes of the largest file that is copied to pinned memory. From there, 14 files of 3.4 MB are
handed over in 0.6 ms, and from other memory in 5 to 9."""

ENCODERS = 2
"""Pictures that are filtered and encoded at a time. Four or eight of them were no faster, and each
takes 40 ms to make."""


class _Waiting:
    """A picture that waits, and what becomes of it."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.source: Bytes = np.frombuffer(picture.data, np.uint8)
        """Its file, pinned or not."""
        self.room: Bytes | None = None
        """The pinned memory that it is in."""
        self.decoding = 0.0
        """Seconds that its share of decoding took."""
        height, width = picture.size
        self.pitch = row_pitch(width, picture.channels)
        """Bytes from row to row of its decoded pixels on the device."""
        self.pixels = height * self.pitch
        self._ending = Lock()
        """Held until it has ended. An Event takes so long to be set that the threads that were
        woken first take the interpreter's lock before the last one is."""
        self._ending.acquire()
        self._coded: Coded | None = None
        self._error: BaseException | None = None

    def end(self, coded: Coded) -> None:
        """Give its thread the result."""
        self._coded = coded
        self._end()

    def fail(self, error: BaseException) -> None:
        """Have its thread raise *error*."""
        self._error = error
        self._end()

    def _end(self) -> None:
        if self._ending.locked():  # for the first time, or its thread has gone on
            self._ending.release()

    def result(self) -> Coded:
        """The result, once it is there. Raises what it failed for."""
        self._ending.acquire()
        if self._error is not None:
            raise self._error
        assert self._coded is not None
        return self._coded


class Units:
    """The JPEG units of *device*. *load* gives nvJPEG; *make_room* gives memory of others back.

    *batches* may be there already.
    """

    def __init__(
        self,
        device: Device,
        load: Callable[[], NvJpeg],
        make_room: Callable[[], None],
        batches: Batches | None,
    ) -> None:
        self._device, self._load, self._make_room = device, load, make_room
        self._batches = batches
        self._making = Lock()
        """Held while the batches are made, asked or closed. Taken after _turn."""
        self._decoding = Slot(device.cuda)
        """For its stream."""
        self._slots = [JpegSlot(device.cuda, alone=True) for _ in range(ENCODERS)]
        self._turn = Lock()
        """Held while batches are in work."""
        self._next_turn = Lock()
        """Held by the one that waits for _turn, so that turns come in order."""
        self._wanted = 0
        """Threads that wait to be alone()."""
        self._lock = Lock()
        self._line: list[_Waiting] = []
        self._fed = False
        """Whether a thread feeds the units."""
        self._at_work: list[_Waiting] = []
        """What the thread that feeds them has not yet ended."""
        self._rooms: list[npt.NDArray[Any]] = []
        """Pinned memory for files and coded pictures, where the driver copies at once. To other
        memory it took 1.3 ms a MB."""
        self._pinned = Semaphore(PINNED)

    def takes(self, data: bytes) -> bool:
        """Whether the units decode files with the head of *data*. With the context current()."""
        with self._making:
            return self._load().units is not None and self._made().takes(data)

    @contextmanager
    def coded(self, picture: Picture) -> Iterator[Coded]:
        """*picture* decoded, filtered and encoded; its bytes are the caller's until the end.

        Raises what it raises by itself: NvJpegError, the driver's errors, or EngineError.
        """
        mine, lent = _Waiting(picture), []
        self._pin(mine)
        try:
            with self._lock:
                self._line.append(mine)
                start, self._fed = not self._fed, True
            if start:
                Thread(target=self._feed, name="units", daemon=True).start()
            coded = mine.result()
            assert coded.data.base is not None
            lent.append(coded.data.base)
            yield coded
        finally:
            self._unpin(mine)
            with self._lock:
                self._rooms += lent

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No picture is in work meanwhile, and no head is asked for."""
        with self._lock:
            self._wanted += 1
        with self._own_turn(), self._making:
            with self._lock:
                self._wanted -= 1
            yield

    @contextmanager
    def _own_turn(self) -> Iterator[None]:
        with self._next_turn:
            self._turn.acquire()
        try:
            yield
        finally:
            self._turn.release()

    def free(self) -> None:
        """Give back all memory; with the context current(), while alone()."""
        close(self._batches)
        self._batches = None
        for slot in (self._decoding, *self._slots):
            slot.free()
        with self._lock:
            rooms, self._rooms = self._rooms, []
        for room in rooms:
            allocation: Any = room.base
            allocation.free()

    def _made(self) -> Batches:
        self._batches = self._batches or Batches(self._load())
        return self._batches

    def _pin(self, waiting: _Waiting) -> None:
        """Copy its file to pinned memory, once there is some."""
        size = waiting.source.nbytes
        if size > MOST_PINNED:
            return
        self._pinned.acquire()
        try:
            waiting.room = self._room(size)
        except BaseException:
            self._pinned.release()
            raise
        pinned = waiting.room[:size]
        pinned[:] = waiting.source
        waiting.source = pinned

    def _unpin(self, waiting: _Waiting) -> None:
        """Give its file's pinned memory to others, if it has some."""
        with self._lock:
            room, waiting.room = waiting.room, None
            if room is None:
                return
            waiting.source = np.frombuffer(waiting.picture.data, np.uint8)
            self._rooms.append(room)
        self._pinned.release()

    def _feed(self) -> None:
        """Do what is in line, until nothing is."""
        while batch := self._next():
            self._at_work = batch
            try:
                with self._own_turn(), self._device.current():
                    try:
                        self._flow(batch)
                    except BaseException:
                        self._abandon()
                        raise
            except BaseException as error:  # noqa: BLE001 - raised by the thread of each picture
                for each in self._at_work:
                    each.fail(error)

    def _next(self, more: bool = False) -> list[_Waiting]:
        """Take the next batch out of the line: pictures of the same channels.

        Where there is none, the thread that feeds the units ends, unless it has *more* to do.
        """
        most = BATCH_BYTES
        if (limit := self._device.memory_limit) is not None:
            most = min(most, limit // 4)
        batch: list[_Waiting] = []
        with self._lock:
            if more and self._wanted:
                return batch
            line, self._line = self._line, []
            for each in line:
                same = not batch or each.picture.channels == batch[0].picture.channels
                fits = not batch or sum(other.pixels for other in batch) + each.pixels <= most
                (batch if same and fits and len(batch) < BATCH else self._line).append(each)
            self._fed = more or bool(batch)
        return batch

    def _flow(self, batch: list[_Waiting]) -> None:
        """Do *batch* and those after it. While the units decode one, the one before is encoded.

        It ends where none is in line, or others wait to be alone().
        """
        before: list[_Waiting] = []
        turn = 0
        while batch or before:
            self._at_work = [*before, *batch]
            try:
                self._start(batch, turn)
                self._encode(before, 1 - turn)
                self._finish(batch)
            except (NvJpegError, self._device.out_of_memory):
                self._abandon()
                for each in [*self._at_work]:
                    self._do_again(each)
                batch = []
            before, turn = batch, 1 - turn
            batch = self._next(more=True)

    def _do_again(self, waiting: _Waiting) -> None:
        """Do a picture by itself whose batch failed, the last time with all memory: what becomes of
        it must not depend on those beside it."""
        try:
            self._do(waiting)
        except (NvJpegError, self._device.out_of_memory) as error:
            self._abandon()
            if isinstance(error, NvJpegError) and not error.full:
                waiting.fail(error)
                return
            self._make_room()
            with self._making:
                self.free()
            try:
                self._do(waiting)
            except (NvJpegError, self._device.out_of_memory) as again:
                self._abandon()
                waiting.fail(again)

    def _do(self, waiting: _Waiting) -> None:
        """Decode, filter and encode one picture, with nothing beside it."""
        self._start([waiting], 0)
        self._finish([waiting])
        self._encode([waiting], 0)

    def _start(self, batch: list[_Waiting], turn: int) -> None:
        """Have the units decode *batch* to the memory of its *turn*."""
        if not batch:
            return
        started = perf_counter()
        with self._making:
            batches = self._made()
        files = []
        for number, each in enumerate(batch):
            slot, use = self._place(number, turn)
            address = slot.memory(use, each.pixels)
            files.append(nvjpeg_units.Coded(each.source, address, each.pitch))
        batches.decode(files, batch[0].picture.channels, self._decoding.stream.handle)
        for each in batch:
            each.decoding = (perf_counter() - started) / len(batch)

    def _finish(self, batch: list[_Waiting]) -> None:
        """Wait until *batch*, if there is any, is decoded."""
        if batch:
            started = perf_counter()
            self._decoding.stream.synchronize()
            for each in batch:
                each.decoding += (perf_counter() - started) / len(batch)
                self._unpin(each)

    def _encode(self, batch: list[_Waiting], turn: int) -> None:
        """Filter and encode *batch*, which is decoded, and let its threads go on.

        They then take the interpreter's lock. So none is let go before all are encoded.
        """
        library = self._load()
        passing: deque[Passing] = deque()
        coded: list[Coded] = []

        def take() -> None:
            coded.append(passing.popleft().coded(batch[len(coded)].decoding, self._room))

        for number, each in enumerate(batch):
            if number >= ENCODERS:  # its slot is in use until then
                take()
            slot, use = self._place(number, turn)
            codec = slot.codec_of(library)
            passing.append(Passing(self._device, slot, codec, each.picture, use))
        while passing:
            take()
        for each, one in zip(batch, coded, strict=True):
            self._at_work.remove(each)
            each.end(one)

    def _room(self, count: int) -> Bytes:
        """Pinned memory for *count* bytes at least."""
        with self._lock:
            fitting = [room for room in self._rooms if room.nbytes >= count]
            if fitting:
                least = min(fitting, key=lambda room: room.nbytes)
                self._rooms = [room for room in self._rooms if room is not least]
                return least
        size = 1 << (count - 1).bit_length()
        pinned: Bytes = self._device.cuda.pagelocked_empty(size, np.uint8)
        return pinned

    def _place(self, number: int, turn: int) -> tuple[JpegSlot, str]:
        """The slot of a batch's picture, and the name of its pixels there."""
        return self._slots[number % ENCODERS], f"source {turn} {number // ENCODERS}"

    def _abandon(self) -> None:
        for slot in (self._decoding, *self._slots):
            slot.abandon()
