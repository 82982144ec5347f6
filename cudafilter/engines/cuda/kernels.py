"""Compiled kernels as they are loaded on a device, each with its weights."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from types import ModuleType
from typing import Any

from cudafilter.engines.cuda.variants.task import Launch, Pass
from cudafilter.engines.nvcc import Compiler, cubin
from cudafilter.errors import EngineError

MOST_KEPT = 64
"""Most kernels that stay loaded. The one that was unused for longest goes first."""


class Kernels:
    """The kernels of one device. May be called from any thread whose context is current.

    Weights in constant memory belong to a loaded module, so the same code is loaded once for each
    set of weights: then no thread waits for another's image to change them.
    """

    def __init__(self, cuda: ModuleType, device: Any, compiler: Compiler) -> None:
        self._cuda = cuda
        self._device = device
        self._compiler = compiler
        major, minor = device.compute_capability()
        self._arch = f"sm_{major}{minor}"
        self._lock = Lock()
        self._kept: OrderedDict[tuple[Any, ...], Kernel] = OrderedDict()

    def get(self, ready: Launch) -> Kernel:
        """The kernel of *ready* with its weights. The first call compiles and loads it.

        Keep a reference until the work is done: a kernel without one is unloaded.
        """
        key = ready.key
        with self._lock:
            if key not in self._kept:
                self._kept[key] = Kernel(self._cuda, self._device, self._load(ready), ready)
                if len(self._kept) > MOST_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def _load(self, ready: Launch) -> Any:
        """The module of *ready*, compiled anew if the driver does not load the one that is kept.

        Raises EngineError where it does not load that one either.
        """
        what = ready.variant, ready.defines, self._arch, self._compiler
        code = cubin(*what)
        try:
            return self._cuda.module_from_buffer(code)
        except self._cuda.MemoryError:
            raise
        except self._cuda.Error as error:
            self._cuda.Context.synchronize()  # raises where the device is lost
            code = cubin(*what, refused=error)
        try:
            return self._cuda.module_from_buffer(code)
        except self._cuda.MemoryError:
            raise
        except self._cuda.Error as error:
            version = self._cuda.get_driver_version()
            raise EngineError(
                f"the driver does not load {ready.variant}.cu, compiled for {self._arch}: {error}",
                hint=f"the driver runs CUDA up to {version // 1000}.{version % 1000 // 10}:"
                " update it, or set CUDA_ROOT to an older toolkit; `cudafilter info` shows both",
            ) from error

    def clear(self) -> None:
        """Unload all."""
        with self._lock:
            self._kept.clear()


class Kernel:
    """One loaded specialisation with its weights."""

    def __init__(self, cuda: ModuleType, device: Any, module: Any, ready: Launch) -> None:
        self._module = module
        address = None
        self._arguments: tuple[int, ...] = ()
        if ready.weights.size and ready.weights_in_constant_memory:
            address = self._module.get_global("weights")[0]
        elif ready.weights.size:
            self._weights = address = cuda.mem_alloc(ready.weights.nbytes)
            self._arguments = (int(address),)
        self._functions = {name: self._module.get_function(name) for name in ready.functions}
        for function in self._functions.values():
            function.prepare([ready.task_format, *"P" * len(self._arguments)])
        if address is not None:
            cuda.memcpy_htod(address, ready.weights)
        cuda.Context.synchronize()  # that copy may still be under way, and streams do not wait
        self.resident = _resident(cuda, device, self._functions[ready.functions[0]], ready.warps)

    def queue(self, one: Pass, stream: Any) -> None:
        """Queue the pass *one* on *stream*."""
        self._functions[one.function].prepared_async_call(
            (one.blocks, 1), one.threads, stream, one.task, *self._arguments
        )


def _resident(cuda: ModuleType, device: Any, function: Any, warps: int) -> int:
    """Blocks of *warps* warps that *device* runs at a time: by registers, memory and slots."""
    limit = cuda.device_attribute
    # A quarter of the registers belongs to each of the four schedulers.
    registers = 32 * -(-function.num_regs // 8) * 8
    resident = device.get_attribute(limit.MAX_REGISTERS_PER_MULTIPROCESSOR) // 4 // registers * 4
    shared = function.shared_size_bytes + 1024  # the driver keeps 1 KiB a block
    a_multiprocessor = min(
        resident // warps,
        device.get_attribute(limit.MAX_SHARED_MEMORY_PER_MULTIPROCESSOR) // shared,
        device.get_attribute(limit.MAX_BLOCKS_PER_MULTIPROCESSOR),
        device.get_attribute(limit.MAX_THREADS_PER_MULTIPROCESSOR) // 32 // warps,
    )
    return int(a_multiprocessor * device.multiprocessor_count)
