"""A stand-in for pycuda.driver, as far as the engine calls it; device memory is host memory.

Kernels are those of cuda_src/ compiled for the CPU, see test_host.py. A *lazy* one does what is
queued on a stream only when somebody waits for it: whatever is read, changed or freed too early
shows as a wrong result or an AssertionError.
"""

from __future__ import annotations

import ctypes
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import pytest

from cudafilter.engines.cuda import device, kernels
from cudafilter.engines.cuda.variants.task import Task
from test_host import HostEngine

_LIMITS = {
    "MAX_REGISTERS_PER_MULTIPROCESSOR": 65536,
    "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR": 200 << 10,
    "MAX_BLOCKS_PER_MULTIPROCESSOR": 32,
    "MAX_THREADS_PER_MULTIPROCESSOR": 2048,
    "SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO": 2,
}


class Error(Exception):
    """pycuda.driver.Error."""


class MemoryError(Error):
    """pycuda.driver.MemoryError."""


class LaunchError(Error):
    """pycuda.driver.LaunchError."""


@dataclass
class Fault:
    """What the driver answers to *call* from the *at*-th one on, *times* times."""

    call: str
    error: type[Error] = Error
    text: str = "unspecified launch failure"
    at: int = 1
    times: int = 1
    lasting: bool = False
    """Whether every call is answered so from then on, as after a kernel that trapped."""
    met: int = 0

    def strikes(self, call: str) -> bool:
        """Whether this call is answered so."""
        self.met += call == self.call
        return call == self.call and self.at <= self.met < self.at + self.times


class FakeCuda:
    """The module. *folder* keeps the kernels that were compiled for the CPU."""

    Error = Error
    MemoryError = MemoryError
    _launching = threading.Lock()
    """The compiled kernels' shared memory is static."""

    def __init__(self, folder: Path, *, lazy: bool = True, memory: int = 1 << 30) -> None:
        self.lazy = lazy
        self.memory = memory
        self.calls: Counter[str] = Counter()
        self.order: list[str] = []
        self.used: WeakValueDictionary[int, _Allocation] = WeakValueDictionary()
        self.weights: dict[int, int] = {}
        """How many were brought to an address."""
        self.failing: set[str] = set()
        """Calls that raise Error."""
        self.faults: list[Fault] = []
        """The seam for injected faults: each call to the driver asks them."""
        self.dead: Error | None = None
        """What every call is answered after a lasting fault."""
        self.flips = False
        """Whether a bit of each download is another one."""
        self.streams: list[_Stream] = []
        self.in_flight, self.most_in_flight = 0, 0
        self._current = threading.local()
        self._kernels = HostEngine("auto", folder)
        self._counting = threading.Lock()
        self.device_attribute = SimpleNamespace(**_LIMITS)
        self.Context = SimpleNamespace(synchronize=self._synchronize)
        self.Device = type("Device", (_Device,), {"cuda": self})

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be what engines open from now on."""
        monkeypatch.setattr(device, "driver", lambda: self)
        monkeypatch.setattr(device, "require_cuda", lambda: None)
        monkeypatch.setattr(kernels, "cubin", self.cubin)

    def init(self) -> None:
        """cuInit."""

    def get_driver_version(self) -> int:
        """CUDA 13.0."""
        return 13000

    def mem_get_info(self) -> tuple[int, int]:
        """(free, total) bytes."""
        self.called("mem_get_info")
        return self.memory - self.in_use, self.memory

    def living(self) -> list[_Allocation]:
        """All that is allocated; other threads may allocate meanwhile."""
        return [kept for ref in self.used.valuerefs() if (kept := ref()) is not None]

    @property
    def in_use(self) -> int:
        """Bytes of device memory that are allocated."""
        return sum(kept.nbytes for kept in self.living() if not kept.pinned)

    @property
    def pinned(self) -> int:
        """Bytes of pinned memory that are allocated."""
        return sum(kept.nbytes for kept in self.living() if kept.pinned)

    def mem_alloc(self, nbytes: int) -> _Allocation:
        """Device memory on a multiple of 256, full of what nobody wrote."""
        self.called("mem_alloc")
        if self.in_use + nbytes > self.memory:
            raise MemoryError("cuMemAlloc failed: out of memory")
        return _Allocation(self, nbytes, pinned=False)

    def pagelocked_empty(self, nbytes: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Pinned memory as an array, whose base frees it."""
        self.called("pagelocked_empty")
        assert np.dtype(dtype) == np.uint8
        array = np.asarray(_Allocation(self, nbytes, pinned=True))
        assert hasattr(array.base, "free")
        return array

    def memcpy_htod(self, to: Any, source: npt.NDArray[Any]) -> None:
        """A plain copy, which only weights take."""
        self.called("memcpy_htod")
        ctypes.memmove(int(to), source.ctypes.data, source.nbytes)
        self.weights[int(to)] = source.size

    def memcpy_htod_async(self, to: int, source: npt.NDArray[Any], stream: _Stream) -> None:
        """Upload."""
        self.called("upload")
        self._copy(stream, to, source.ctypes.data, source.nbytes)

    def memcpy_dtoh_async(self, to: npt.NDArray[Any], source: int, stream: _Stream) -> None:
        """Download."""
        self.called("download")
        self._copy(stream, to.ctypes.data, source, to.nbytes)
        if self.flips:

            def flip() -> None:
                to[0] ^= 128

            stream.put(flip)

    def memcpy_dtod_async(self, to: int, source: int, nbytes: int, stream: _Stream) -> None:
        """A copy on the device."""
        self.called("memcpy_dtod_async")
        self._copy(stream, to, source, nbytes)

    def Stream(self, flags: int = 0) -> _Stream:
        """A stream; it must not block the default one."""
        self.called("Stream")
        assert flags == 1
        return _Stream(self)

    def Event(self) -> _Event:
        """An event."""
        self.called("Event")
        return _Event(self)

    def module_from_buffer(self, code: bytes) -> _Module:
        """The kernel that cubin() named."""
        self.called("module_from_buffer")
        variant, *macros = code.decode().split(",")
        defines = {key: int(value) for key, value in (macro.split("=") for macro in macros)}
        return _Module(self, self._kernels.compiled(variant, defines))

    def cubin(
        self, variant: str, defines: Mapping[str, int], *_: Any, refused: object = None
    ) -> bytes:
        """Stands in for nvcc.cubin: the name of the kernel."""
        return ",".join([variant, *(f"{key}={value}" for key, value in defines.items())]).encode()

    def called(self, name: str) -> None:
        """Count a call that needs the context."""
        assert getattr(self._current, "depth", 0) > 0, f"{name}: no context is current"
        self.calls[name] += 1
        self.order.append(name)
        if name in self.failing:
            raise Error(f"{name} failed")
        if self.dead is not None:
            raise self.dead
        for fault in self.faults:
            if fault.strikes(name):
                error = fault.error(f"{name} failed: {fault.text}")
                if fault.lasting:
                    self.dead = error
                    for stream in list(self.streams):
                        stream.drop()
                raise error

    def count_in_flight(self, change: int) -> None:
        """A stream got its first work, or did its last."""
        with self._counting:
            self.in_flight += change
            self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def require_unused(self, allocation: _Allocation) -> None:
        """Nothing that is queued reads or writes *allocation*."""
        for stream in self.streams:
            for _, touched in stream.queue:
                for address in touched:
                    start = allocation.address
                    assert not start <= address < start + allocation.nbytes, "freed too early"

    def _copy(self, stream: _Stream, to: int, source: int, nbytes: int) -> None:
        for address in (to, source):
            assert any(kept.holds(address, nbytes) for kept in self.living()), "outside"
        stream.put(lambda: ctypes.memmove(to, source, nbytes), to, source)

    def _synchronize(self) -> None:
        self.called("Context.synchronize")
        for stream in list(self.streams):
            stream.run()

    def push(self) -> None:
        """Context.push."""
        self._current.depth = getattr(self._current, "depth", 0) + 1

    def pop(self) -> None:
        """Context.pop."""
        self._current.depth -= 1
        assert self._current.depth >= 0

    def detach(self) -> None:
        """Context.detach."""


class _Device:
    cuda: FakeCuda
    multiprocessor_count = 4

    def __init__(self, index: int) -> None:
        assert index == 0

    @staticmethod
    def count() -> int:
        return 1

    def name(self) -> str:
        return "Fake GPU"

    def compute_capability(self) -> tuple[int, int]:
        return 9, 0

    def total_memory(self) -> int:
        return self.cuda.memory

    def get_attribute(self, value: int) -> int:
        return value

    def retain_primary_context(self) -> FakeCuda:
        if self.cuda.dead is not None:  # so do new contexts of the same process
            raise self.cuda.dead
        return self.cuda


class _Allocation:
    def __init__(self, cuda: FakeCuda, nbytes: int, *, pinned: bool) -> None:
        self._cuda = cuda
        self._bytes = np.full(nbytes + 256, 0xA5, np.uint8)
        self.nbytes, self.pinned = nbytes, pinned
        self.address = -(-self._bytes.ctypes.data // 256) * 256
        cuda.used[self.address] = self

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {
            "shape": (self.nbytes,),
            "typestr": "|u1",
            "data": (self.address, False),
            "version": 3,
        }

    def __int__(self) -> int:
        return self.address

    def holds(self, address: int, nbytes: int) -> bool:
        return self.address <= address and address + nbytes <= self.address + self.nbytes

    def free(self) -> None:
        self._cuda.called("free")
        self._cuda.require_unused(self)
        del self._cuda.used[self.address]


class _Stream:
    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda
        self.queue: list[tuple[Callable[[], Any], tuple[int, ...]]] = []
        self.handle = id(self)
        self._lock = threading.RLock()
        cuda.streams.append(self)

    def put(self, work: Callable[[], Any], *touched: int) -> None:
        with self._lock:
            if not self.queue:
                self._cuda.count_in_flight(1)
            self.queue.append((work, touched))
        if not self._cuda.lazy:
            self.run()

    def drop(self) -> None:
        """Do nothing of what is queued, ever."""
        with self._lock:
            if self.queue:
                self._cuda.count_in_flight(-1)
            self.queue.clear()

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        with self._lock:
            while self.queue and not until():
                self.queue[0][0]()
                self.queue.pop(0)
                if not self.queue:
                    self._cuda.count_in_flight(-1)

    def is_done(self) -> bool:
        self._cuda.called("Stream.is_done")
        return not self.queue

    def synchronize(self) -> None:
        self._cuda.called("Stream.synchronize")
        self.run()


class _Event:
    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda
        self._stream: _Stream | None = None
        self._pending = 0

    def record(self, stream: _Stream) -> None:
        self._cuda.called("Event.record")
        self._stream = stream
        self._pending += 1
        stream.put(self._reach)

    def _reach(self) -> None:
        self._pending -= 1

    def synchronize(self) -> None:
        self._cuda.called("Event.synchronize")
        assert self._stream is not None, "never recorded"
        self._stream.run(lambda: self._pending == 0)

    def time_since(self, other: _Event) -> float:
        assert self._pending == other._pending == 0, "not reached yet"
        return 1.0


class _Module:
    def __init__(self, cuda: FakeCuda, library: ctypes.CDLL) -> None:
        self.cuda = cuda
        self.library = library
        self.weights = np.zeros(65536 // 4, np.float32)

    def get_global(self, name: str) -> tuple[int, int]:
        assert name == "weights"
        return self.weights.ctypes.data, self.weights.nbytes

    def get_function(self, name: str) -> _Function:
        return _Function(self, name)


class _Function:
    num_regs, shared_size_bytes = 40, 1024

    def __init__(self, module: _Module, name: str) -> None:
        self._module = module
        self._launch = getattr(module.library, f"launch_{name}")
        self._format: list[str] = []

    def prepare(self, formats: list[str]) -> None:
        assert formats[1:] in ([], ["P"])
        self._format = formats

    def prepared_async_call(
        self, grid: tuple[int, int], block: tuple[int, int, int], stream: _Stream, *arguments: Any
    ) -> None:
        cuda, module = self._module.cuda, self._module
        cuda.called("launch")
        task, *addresses = arguments
        assert self._format[0] == f"{len(task)}s"
        assert len(addresses) == len(self._format) - 1
        values = addresses[0] if addresses else module.weights.ctypes.data
        count = cuda.weights.get(values, 0)  # not all kernels have weights

        def work() -> None:
            with cuda._launching:
                self._launch(
                    task, ctypes.c_void_p(values), ctypes.c_size_t(count), grid[0], *block[:2]
                )

        used = Task.from_buffer_copy(task)
        stream.put(work, used.source, used.out, used.scratch)
