"""The array that a filter leaves in the memory of a GPU, for other libraries to take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import finalize

import numpy as np

from cudafilter.engines.cuda import dlpack
from cudafilter.engines.cuda.views import Stream, View
from cudafilter.errors import EngineError
from cudafilter.nvidia.driver import LEGACY, Driver

ANY = -1
"""DLPack's stream of a consumer that waits for nothing."""


class DeviceArray:
    """(H, W) or (H, W, C) in the memory of a GPU, C-contiguous.

    CuPy, PyTorch and others take it without a copy, by ``__cuda_array_interface__`` or DLPack, and
    on their streams it is ready when they use it. Its memory is given back when neither it nor
    what they made of it is there any more, behind what is queued on ``stream`` by then.
    """

    def __init__(
        self, driver: Driver, device: int, shape: tuple[int, ...], dtype: np.dtype[Any],
        stream: Stream,
    ) -> None:  # fmt: skip
        self.shape = shape
        """(H, W) or (H, W, C)."""
        self.dtype = dtype
        """uint8, uint16 or float32."""
        self.device = device
        """The GPU's number."""
        self.stream = stream
        """The caller's stream, on which it is made."""
        self._memory = memory = _Memory(driver, device, self.nbytes, stream)
        self._freed = finalize(self, memory.free)
        self._freed.atexit = False  # the process gives all back

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def view(self) -> View:
        """Where it lies."""
        height, width, channels = (*self.shape, 1)[:3]
        row = width * channels * self.dtype.itemsize
        return View(
            self._memory.address, (height, width, channels), self.dtype, row, self.shape,
            self.device,
        )  # fmt: skip

    def made(self, stream: int) -> None:
        """It is ready once what is queued on *stream* by now is done."""
        self._memory.made(stream)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._memory.address, False),
            "strides": None,
            "stream": self.stream.handle,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Its capsule; what is queued on *stream* from now on finds it ready. See DLPack.

        Raises BufferError where a copy, or another device, is asked for.
        """
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"it is on GPU {self.device}, and gives no copies")
        if stream != ANY:
            self._memory.lend(LEGACY if stream is None else stream)
        strides = tuple(int(np.prod(self.shape[i + 1 :])) for i in range(len(self.shape)))
        kind = f"{self.dtype.kind}{self.dtype.itemsize}"
        array = dlpack.Array(
            self._memory.address, self.shape, strides, kind, self.__dlpack_device__()
        )
        return dlpack.capsule(array, self, max_version is not None and max_version[0] >= 1)

    def __repr__(self) -> str:
        return f"<DeviceArray {self.shape} {self.dtype} on GPU {self.device}>"


class _Memory:
    """Device memory of its own, in the device's primary context, which it keeps alive."""

    def __init__(self, driver: Driver, device: int, nbytes: int, stream: Stream) -> None:
        self._driver, self._device, self._stream = driver, device, stream
        self._alone = stream.stays
        """Whether the stream, which is there for as long, orders all that is done to it."""
        self._context = driver.retain(device)
        self._ready = self.address = 0
        try:
            with driver.current(self._context):
                self._ready = driver.event()
                self.address = driver.alloc(nbytes, stream.handle)
        except BaseException:
            self.free()
            raise

    def made(self, stream: int) -> None:
        """See DeviceArray.made."""
        self._driver.record(self._ready, stream)

    def lend(self, stream: int) -> None:
        """Have what is queued on *stream* from now on find it ready."""
        with self._driver.current(self._context):
            if stream == self._stream.handle:
                return
            if self._stream.stays:  # what others did to it on the caller's stream
                self._driver.record(self._ready, self._stream.handle)
            self._driver.wait(stream, self._ready)
        self._alone = False

    def free(self) -> None:
        """Give it back, behind what is queued. Raises nothing: a lost GPU has nothing to give."""
        with _forgiven():
            with self._driver.current(self._context):
                if self._ready:
                    self._driver.forget(self._ready)
                if self.address:
                    if not self._alone:  # on whatever streams it was used
                        self._driver.synchronize()
                    self._driver.free(self.address, self._stream.handle if self._alone else LEGACY)
            self._driver.release(self._device)


@contextmanager
def _forgiven() -> Iterator[None]:
    try:
        yield
    except EngineError:
        return
