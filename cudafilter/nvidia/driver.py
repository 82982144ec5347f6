"""The CUDA driver through ctypes: what PyCUDA has no words for, on streams that others have made.

Streams, events and contexts are handles. All calls but the first three of Driver want the device's
context to be current.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_int, c_size_t, c_uint, c_uint64, c_void_p
from functools import cache
from typing import Any

from cudafilter.errors import EngineError, EngineUnavailable
from cudafilter.nvidia.toolkit import DRIVER

LEGACY, PER_THREAD = 1, 2
"""Handles of the default streams; they are always there."""

_DISABLE_TIMING = 2
_ORDINAL, _MEMORY_TYPE = 9, 2
"""CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL and _MEMORY_TYPE."""
_ON_DEVICE = 2
_OUT_OF_MEMORY, _NOT_READY = 2, 600

_HANDLE = POINTER(c_void_p)
_SIGNATURES: dict[str, list[Any]] = {
    "cuInit": [c_uint],
    "cuGetErrorString": [c_int, POINTER(ctypes.c_char_p)],
    "cuPointerGetAttribute": [c_void_p, c_int, c_uint64],
    "cuDevicePrimaryCtxRetain": [_HANDLE, c_int],
    "cuDevicePrimaryCtxRelease_v2": [c_int],
    "cuCtxPushCurrent_v2": [c_void_p],
    "cuCtxPopCurrent_v2": [_HANDLE],
    "cuCtxSynchronize": [],
    "cuEventCreate": [_HANDLE, c_uint],
    "cuEventDestroy_v2": [c_void_p],
    "cuEventRecord": [c_void_p, c_void_p],
    "cuEventQuery": [c_void_p],
    "cuStreamWaitEvent": [c_void_p, c_void_p, c_uint],
    "cuMemAllocAsync": [POINTER(c_uint64), c_size_t, c_void_p],
    "cuMemFreeAsync": [c_uint64, c_void_p],
    "cuMemcpy2DAsync_v2": [c_void_p, c_void_p],
}


class _Copy(ctypes.Structure):
    """CUDA_MEMCPY2D."""

    _fields_ = (
        ("source_x", c_size_t), ("source_y", c_size_t), ("source_type", c_int),
        ("source_host", c_void_p), ("source", c_uint64), ("source_array", c_void_p),
        ("source_pitch", c_size_t),
        ("to_x", c_size_t), ("to_y", c_size_t), ("to_type", c_int),
        ("to_host", c_void_p), ("to", c_uint64), ("to_array", c_void_p), ("to_pitch", c_size_t),
        ("width", c_size_t), ("height", c_size_t),
    )  # fmt: skip


class Driver:
    """The driver's calls. Raises EngineUnavailable where there is none."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(DRIVER)
            for name, arguments in _SIGNATURES.items():
                function = getattr(self._library, name)
                function.argtypes, function.restype = arguments, c_int
        except (OSError, AttributeError) as error:
            raise EngineUnavailable("the NVIDIA driver cannot be loaded, or is too old") from error
        if self._library.cuInit(0):
            raise EngineUnavailable("the NVIDIA driver does not answer")

    def device_of(self, address: int) -> int | None:
        """The number of the GPU whose memory *address* is; None for none's."""
        kind, number = c_uint(), c_int(-1)
        get = self._library.cuPointerGetAttribute
        if get(byref(kind), _MEMORY_TYPE, address) or kind.value != _ON_DEVICE:
            return None
        return None if get(byref(number), _ORDINAL, address) else number.value

    def retain(self, device: int) -> int:
        """The primary context of the GPU *device*, which lives until it is released as often."""
        return self._made("cuDevicePrimaryCtxRetain", device)

    def release(self, device: int) -> None:
        """Give a retained context back."""
        self._call("cuDevicePrimaryCtxRelease_v2", device)

    @contextmanager
    def current(self, context: int) -> Iterator[None]:
        """Make *context* current in this thread."""
        self._call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", byref(c_void_p()))

    def synchronize(self) -> None:
        """Wait for all that is queued in the current context."""
        self._call("cuCtxSynchronize")

    def event(self) -> int:
        """A new event, without times."""
        return self._made("cuEventCreate", _DISABLE_TIMING)

    def forget(self, event: int) -> None:
        """Give *event* back, once what waits for it has done so."""
        self._call("cuEventDestroy_v2", event)

    def record(self, event: int, stream: int) -> None:
        """Have *event* come behind all that is queued on *stream*."""
        self._call("cuEventRecord", event, stream)

    def reached(self, event: int) -> bool:
        """Whether *event* has come."""
        status = int(self._library.cuEventQuery(event))
        if status not in (0, _NOT_READY):
            raise self._failure("cuEventQuery", status)
        return status == 0

    def wait(self, stream: int, event: int) -> None:
        """Have what is queued on *stream* from now on wait for *event*."""
        self._call("cuStreamWaitEvent", stream, event, 0)

    def alloc(self, nbytes: int, stream: int) -> int:
        """The address of *nbytes*, for what is queued on *stream* from now on."""
        address = c_uint64()
        self._call("cuMemAllocAsync", byref(address), nbytes, stream)
        return address.value

    def free(self, address: int, stream: int) -> None:
        """Give memory back behind all that is queued on *stream*."""
        self._call("cuMemFreeAsync", address, stream)

    def copy(
        self, to: tuple[int, int], source: tuple[int, int], row: int, rows: int, stream: int
    ) -> None:
        """Queue the copy of *rows* of *row* bytes; *to* and *source* are (address, pitch)."""
        copy = _Copy(
            source_type=_ON_DEVICE, source=source[0], source_pitch=source[1],
            to_type=_ON_DEVICE, to=to[0], to_pitch=to[1], width=row, height=rows,
        )  # fmt: skip
        self._call("cuMemcpy2DAsync_v2", byref(copy), stream)

    def _made(self, name: str, argument: int) -> int:
        handle = c_void_p()
        self._call(name, byref(handle), argument)
        return handle.value or 0

    def _call(self, name: str, *arguments: Any) -> None:
        if status := getattr(self._library, name)(*arguments):
            raise self._failure(name, status)

    def _failure(self, name: str, status: int) -> EngineError:
        if status == _OUT_OF_MEMORY:
            return EngineError(
                "out of GPU memory", hint="another program or library may hold what is missing"
            )
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(status, byref(text))
        words = (text.value or b"").decode() or f"error {status}"
        return EngineError(f"the GPU failed: {name.partition('_')[0]}: {words}")


@cache
def driver() -> Driver:
    """The driver of this process. Raises EngineUnavailable."""
    return Driver()
