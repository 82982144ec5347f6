"""The GPU's JPEG units: pictures that wait are decoded together.

Threads bring one picture each, and wait. One thread feeds the units: it takes all that wait by
then, has the units decode them, and once that is done it filters and encodes each picture. The
others read, parse and write while the units decode the next batch.

So decoding and encoding take turns. On an H100, nvJPEG's encoder does 2,100 pictures of 12
megapixels a second by itself, but 99 to 474 beside a thread that waits for the units.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread
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

BATCH = 28
"""Most pictures of a batch: four for each of the seven units."""

BATCH_BYTES = 2 << 30
"""Most bytes of a batch's decoded pixels, unless it is one picture."""

THREADS = 2 * BATCH
"""Threads that keep the units busy: half of them wait while the others read and write."""

ENCODERS = 2
"""Pictures that are filtered and encoded at a time. Four or eight of them were no faster, and each
takes 40 ms to make."""


class _Waiting:
    """A picture that waits, and what becomes of it."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
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
        """Held while a batch is in work."""
        self._lock = Lock()
        self._line: list[_Waiting] = []
        self._fed = False
        """Whether a thread feeds the units."""
        self._done: list[tuple[_Waiting, Coded]] = []
        """What is coded, and not yet given to its thread."""
        self._rooms: list[npt.NDArray[Any]] = []
        """Pinned memory for coded pictures, where the driver copies at once. To other memory it
        took 1.3 ms a MB."""

    def takes(self, data: bytes) -> bool:
        """Whether the units decode files with the head of *data*. With the context current()."""
        with self._making:
            return self._made().takes(data)

    @contextmanager
    def coded(self, picture: Picture) -> Iterator[Coded]:
        """*picture* decoded, filtered and encoded; its bytes are the caller's until the end.

        Raises what it raises by itself: NvJpegError, the driver's errors, or EngineError.
        """
        mine = _Waiting(picture)
        with self._lock:
            self._line.append(mine)
            start, self._fed = not self._fed, True
        if start:
            Thread(target=self._feed, name="units", daemon=True).start()
        coded = mine.result()
        try:
            yield coded
        finally:
            assert coded.data.base is not None
            with self._lock:
                self._rooms.append(coded.data.base)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No picture is in work meanwhile, and no head is asked for."""
        with self._turn, self._making:
            yield

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

    def _feed(self) -> None:
        """Do what is in line, until nothing is."""
        while batch := self._next():
            try:
                with self._turn, self._device.current():
                    self._lead(batch)
            except BaseException as error:  # noqa: BLE001 - raised by the thread of each picture
                for each in batch:
                    each.fail(error)
            if not self._line:
                self._deliver()

    def _next(self) -> list[_Waiting]:
        """Take the next batch out of the line: pictures of the same channels. None ends it."""
        most = BATCH_BYTES
        if (limit := self._device.memory_limit) is not None:
            most = min(most, limit // 2)
        batch: list[_Waiting] = []
        with self._lock:
            line, self._line = self._line, []
            for each in line:
                same = not batch or each.picture.channels == batch[0].picture.channels
                fits = not batch or sum(other.pixels for other in batch) + each.pixels <= most
                (batch if same and fits and len(batch) < BATCH else self._line).append(each)
            self._fed = bool(batch)
        return batch

    def _lead(self, batch: list[_Waiting]) -> None:
        """Do *batch*. Where that fails, do each of its pictures by itself, the last time with all
        memory: what becomes of a picture must not depend on those beside it."""
        try:
            self._done += self._do(batch)
        except (NvJpegError, self._device.out_of_memory) as error:
            self._abandon()
            if len(batch) > 1:
                for each in batch:
                    self._lead([each])
            elif isinstance(error, NvJpegError) and not error.full:
                batch[0].fail(error)
            else:
                self._lead_alone(batch[0])
        except BaseException:
            self._abandon()
            raise

    def _lead_alone(self, waiting: _Waiting) -> None:
        """Do a picture that found no memory, with all that there is."""
        self._make_room()
        with self._making:
            self.free()
        try:
            self._done += self._do([waiting])
        except (NvJpegError, self._device.out_of_memory) as error:
            self._abandon()
            waiting.fail(error)

    def _do(self, batch: list[_Waiting]) -> list[tuple[_Waiting, Coded]]:
        """Decode *batch*, then filter and encode one picture after the other."""
        started = perf_counter()
        library = self._load()
        with self._making:
            batches = self._made()
        files = []
        for number, each in enumerate(batch):
            slot, use = self._place(number)
            files.append(
                nvjpeg_units.Coded(each.picture.data, slot.memory(use, each.pixels), each.pitch)
            )
        stream = self._decoding.stream
        self._deliver()
        batches.decode(files, batch[0].picture.channels, stream.handle)
        stream.synchronize()
        decoding = (perf_counter() - started) / len(batch)
        passing: deque[Passing] = deque()
        coded: list[Coded] = []
        for number, each in enumerate(batch):
            if number >= ENCODERS:  # its slot is in use until then
                coded.append(passing.popleft().coded(decoding, self._room))
            slot, use = self._place(number)
            codec = slot.codec_of(library)
            passing.append(Passing(self._device, slot, codec, each.picture, use))
        coded += [each.coded(decoding, self._room) for each in passing]
        return list(zip(batch, coded, strict=True))

    def _room(self, count: int) -> Bytes:
        """Pinned memory for *count* bytes at least."""
        with self._lock:
            for place, room in enumerate(self._rooms):
                if room.nbytes >= count:
                    return self._rooms.pop(place)
        pinned: Bytes = self._device.cuda.pagelocked_empty(1 << (count - 1).bit_length(), np.uint8)
        return pinned

    def _deliver(self) -> None:
        """Let the threads of what is done go on. They then take the interpreter's lock: the best
        time is while the units decode."""
        done, self._done = self._done, []
        for each, coded in done:
            each.end(coded)

    def _place(self, number: int) -> tuple[JpegSlot, str]:
        """The slot of a batch's picture, and the name of its pixels there."""
        return self._slots[number % ENCODERS], f"source {number // ENCODERS}"

    def _abandon(self) -> None:
        for slot in (self._decoding, *self._slots):
            slot.abandon()
