"""The CUDA engine: PyCUDA, one primary context per device, kernels from cuda_src/."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from cudafilter.borders import Border, extract
from cudafilter.engines import launch
from cudafilter.engines.nvcc import cubin, require_toolkit
from cudafilter.errors import EngineError, EngineUnavailable, LimitError
from cudafilter.filter import Filter
from cudafilter.pixels import Pixels, require_pixels
from cudafilter.toolkit import missing

MEMORY_SHARE = 0.9
"""Share of the free device memory that an image and its result may take before bands are cut."""


@dataclass(frozen=True)
class Device:
    """A GPU that the driver shows."""

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    driver: str
    """Highest CUDA version the driver serves."""


def driver() -> ModuleType:
    """pycuda.driver, initialised. Raises EngineUnavailable that names what is missing."""
    try:
        import pycuda.driver as cuda
    except ImportError as error:
        for lack in missing():
            raise EngineUnavailable(lack.what, hint=lack.mend) from error
        raise EngineUnavailable(f"PyCUDA does not load: {error}") from error
    try:
        cuda.init()
        count = cuda.Device.count()
    except cuda.Error as error:
        raise EngineUnavailable(f"the NVIDIA driver does not answer: {error}") from error
    if count == 0:
        raise EngineUnavailable("the NVIDIA driver shows no GPU")
    return cuda  # type: ignore[no-any-return]


def devices() -> list[Device]:
    """The GPUs here. Raises EngineUnavailable where there are none or PyCUDA is missing."""
    cuda = driver()
    version = cuda.get_driver_version()
    found = []
    for index in range(cuda.Device.count()):
        device = cuda.Device(index)
        found.append(
            Device(
                index, device.name(), device.compute_capability(), device.total_memory(),
                f"{version // 1000}.{version % 1000 // 10}",
            )
        )  # fmt: skip
    return found


class CudaEngine:
    """Runs filters on one GPU.

    *memory_limit* caps the device memory in bytes that an image and its result may take; larger
    images are cut into bands with halos, with the same bits. Raises EngineUnavailable.
    """

    name = "cuda"
    note: str | None = None
    variant: str
    """The kernel to run filters with; may be changed between runs."""

    def __init__(
        self, gpu: int = 0, variant: str = "auto", memory_limit: int | None = None
    ) -> None:
        self._cuda = driver()
        self._toolkit = require_toolkit()
        count = self._cuda.Device.count()
        if not 0 <= gpu < count:
            raise EngineUnavailable(
                f"there is no GPU {gpu}; the driver shows {count}",
                hint=f"--gpu takes 0 to {count - 1}; `cudafilter info` lists them",
            )
        self.variant = variant
        self._memory_limit = memory_limit
        self._lock = threading.Lock()
        device = self._cuda.Device(gpu)
        self._context = device.retain_primary_context()
        major, minor = device.compute_capability()
        self._arch = f"sm_{major}{minor}"
        self._device = device
        self._kernels: dict[tuple[Any, ...], _Kernel] = {}
        self._buffers: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        self.title = f"cuda: {device.name()} (GPU {gpu}, compute capability {major}.{minor})"

    def run(
        self, pixels: Pixels, filter: Filter, border: Border = Border(), alpha: bool = False
    ) -> Pixels:
        """See Engine.run."""
        pixels = require_pixels(pixels, alpha)
        ready = self.prepare(pixels, filter, border, alpha)
        out = np.empty_like(pixels)
        with self._current():
            kernel = self._kernel(ready)
            bands = self._bands(pixels, filter)
            if len(bands) == 1:
                self._upload(kernel, ready, pixels, out.shape, (0, 0))()
                self._download(out)
                return out
            for rows, columns in bands:
                block, origin = block_of(pixels, filter, border, rows, columns)
                done = np.empty_like(out[slice(*rows), slice(*columns)], order="C")
                self._upload(kernel, ready, block, done.shape, origin)()
                self._download(done)
                out[slice(*rows), slice(*columns)] = done
        return out

    def prepare(
        self, pixels: Pixels, filter: Filter, border: Border = Border(), alpha: bool = False
    ) -> launch.Launch:
        """The launch that run() would make; its ``variant`` is what ``auto`` picked."""
        return launch.prepare(filter, pixels.shape[2], pixels.dtype, border, alpha, self.variant)

    def time_kernel(
        self,
        pixels: Pixels,
        filter: Filter,
        border: Border = Border(),
        alpha: bool = False,
        *,
        warmup: int = 3,
        repeats: int = 15,
    ) -> tuple[Pixels, list[float]]:
        """The result, and the milliseconds of each of *repeats* launches on resident pixels."""
        pixels = require_pixels(pixels, alpha)
        ready = self.prepare(pixels, filter, border, alpha)
        with self._current():
            kernel = self._kernel(ready)
            launch_kernel = self._upload(kernel, ready, pixels, pixels.shape, (0, 0))
            times = self._time(launch_kernel, warmup, repeats)
            out = np.empty_like(pixels)
            self._download(out)
        return out, times

    def time_copy(self, nbytes: int, *, warmup: int = 3, repeats: int = 15) -> list[float]:
        """The milliseconds of each of *repeats* device-to-device copies of *nbytes*.

        One read and one write of an image: the floor for a filter that is bound by memory.
        """
        with self._current():
            source, target = self._buffer("source", nbytes), self._buffer("out", nbytes)
            stream = self._cuda.Stream()
            return self._time(
                lambda: self._cuda.memcpy_dtod_async(int(target), int(source), nbytes, stream),
                warmup, repeats, stream,
            )  # fmt: skip

    def close(self) -> None:
        """See Engine.close."""
        with self._current():
            for buffer in self._buffers.values():
                buffer.free()
            self._buffers.clear()
            self._kernels.clear()
        self._context.detach()

    @contextmanager
    def _current(self) -> Iterator[None]:
        """The device's context current in this thread, one thread at a time; errors made ours."""
        with self._lock:
            self._context.push()
            try:
                yield
            except self._cuda.MemoryError as error:
                free, total = self._cuda.mem_get_info()
                raise EngineError(
                    f"out of GPU memory: {error}; {free:,} of {total:,} bytes are free",
                    hint="another program may be using the GPU; --engine cpu needs none of it",
                ) from error
            except self._cuda.Error as error:
                raise EngineError(f"the GPU failed: {error}") from error
            finally:
                self._context.pop()

    def _kernel(self, ready: launch.Launch) -> _Kernel:
        key = (ready.variant, *ready.defines.values())
        if key not in self._kernels:
            code = cubin(ready.variant, ready.defines, self._arch, self._toolkit)
            self._kernels[key] = _Kernel(self._cuda, self._device, code, ready)
        kernel = self._kernels[key]
        kernel.load_weights(ready.weights)
        return kernel

    def _buffer(self, use: str, nbytes: int) -> Any:
        """Device memory for *use*, kept between images and replaced only by a larger one."""
        if self._sizes.get(use, 0) < nbytes:
            if use in self._buffers:
                self._sizes.pop(use)
                self._buffers.pop(use).free()
            self._buffers[use] = self._cuda.mem_alloc(nbytes)
            self._sizes[use] = nbytes
        return self._buffers[use]

    def _bands(
        self, pixels: Pixels, filter: Filter
    ) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """(rows, columns) of the output, one whole image or as few bands as memory allows."""
        free = self._cuda.mem_get_info()[0] + sum(self._sizes.values())
        budget = self._memory_limit if self._memory_limit is not None else int(free * MEMORY_SHARE)
        return cut(pixels, filter, budget)

    def _upload(
        self,
        kernel: _Kernel,
        ready: launch.Launch,
        block: Pixels,
        shape: tuple[int, ...],
        origin: tuple[int, int],
    ) -> Callable[[], None]:
        """Bring *block* to the device; returns what queues the kernel for an output of *shape*."""
        height, width, _ = shape
        pixel = block.shape[2] * block.itemsize
        source = self._buffer("source", block.shape[0] * launch.pitch(block.shape[1], pixel))
        out = self._buffer("out", height * launch.pitch(width, pixel))
        copy = self._copy(block)
        copy.set_src_host(block)
        copy.set_dst_device(source)
        copy.dst_pitch = launch.pitch(block.shape[1], pixel)
        copy(aligned=False)
        grid, threads = ready.place(
            (int(source), int(out)), block.shape[:2], (height, width), origin, kernel.resident
        )
        task = bytes(ready.task)
        return lambda: kernel.launch(task, grid, threads)

    def _download(self, out: Pixels) -> None:
        """The result, once the kernel is done, into *out*."""
        copy = self._copy(out)
        copy.set_src_device(self._buffers["out"])
        copy.src_pitch = launch.pitch(out.shape[1], out.shape[2] * out.itemsize)
        copy.set_dst_host(out)
        copy(aligned=False)

    def _copy(self, pixels: Pixels) -> Any:
        """A 2-D copy of all rows of *pixels*; the device's end is still to be set."""
        copy = self._cuda.Memcpy2D()
        copy.width_in_bytes = copy.src_pitch = copy.dst_pitch = pixels[0].nbytes
        copy.height = pixels.shape[0]
        return copy

    def _time(
        self, work: Callable[[], None], warmup: int, repeats: int, stream: Any = None
    ) -> list[float]:
        for _ in range(warmup):
            work()
        self._context.synchronize()
        times = []
        for _ in range(repeats):
            start, stop = self._cuda.Event(), self._cuda.Event()
            start.record(stream)
            work()
            stop.record(stream)
            stop.synchronize()
            times.append(stop.time_since(start))
        return times


class _Kernel:
    """One loaded specialisation: its module's function and where its weights go."""

    def __init__(self, cuda: ModuleType, device: Any, code: bytes, ready: launch.Launch) -> None:
        self._cuda = cuda
        self._module = cuda.module_from_buffer(code)
        self._function = self._module.get_function("filter")
        self._constant = ready.weights_in_constant_memory
        if self._constant:
            self._function.prepare([ready.task_format])
            self._address: Any = self._module.get_global("weights")[0]
        else:
            self._function.prepare([ready.task_format, "P"])
            self._address = None
        self._loaded: bytes | None = None
        self.resident = self._resident(device, ready.warps)

    def _resident(self, device: Any, warps: int) -> int:
        """Blocks of *warps* warps that *device* runs at a time: by registers, memory and slots."""
        limit = self._cuda.device_attribute
        # A quarter of the registers belongs to each of the four schedulers.
        registers = 32 * -(-self._function.num_regs // 8) * 8
        resident = (
            device.get_attribute(limit.MAX_REGISTERS_PER_MULTIPROCESSOR) // 4 // registers * 4
        )
        shared = self._function.shared_size_bytes + 1024  # the driver keeps 1 KiB a block
        a_multiprocessor = min(
            resident // warps,
            device.get_attribute(limit.MAX_SHARED_MEMORY_PER_MULTIPROCESSOR) // shared,
            device.get_attribute(limit.MAX_BLOCKS_PER_MULTIPROCESSOR),
            device.get_attribute(limit.MAX_THREADS_PER_MULTIPROCESSOR) // 32 // warps,
        )
        return int(a_multiprocessor * device.multiprocessor_count)

    def load_weights(self, weights: Any) -> None:
        """Bring *weights* to the device unless they are there from the last launch."""
        content = weights.tobytes()
        if content == self._loaded:
            return
        if not self._constant:
            self._address = self._cuda.mem_alloc(weights.nbytes)
        self._cuda.memcpy_htod(self._address, weights)
        self._loaded = content

    def launch(self, task: bytes, blocks: int, threads: tuple[int, int, int]) -> None:
        """Queue the kernel on the default stream."""
        arguments = [task] if self._constant else [task, int(self._address)]
        self._function.prepared_call((blocks, 1), threads, *arguments)


def block_of(
    pixels: Pixels, filter: Filter, border: Border, rows: tuple[int, int], columns: tuple[int, int]
) -> tuple[Pixels, tuple[int, int]]:
    """The part of *pixels* that a band taps, borders included, and where (y, x) the band starts.

    Bordered here, the block's own border is never tapped. It starts a multiple of 32 columns
    before the band, as stream.cu wants it.
    """
    above, below, left, right = filter.reach
    left = -(-left // 32) * 32
    block = extract(
        pixels,
        (rows[0] - above, rows[1] + below),
        (columns[0] - left, columns[1] + right),
        border,
    )
    return np.ascontiguousarray(block), (above, left)


def cut(
    pixels: Pixels, filter: Filter, budget: int
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """(rows, columns) of output bands, each of which fits with its halo into *budget* bytes.

    The whole image in one where it fits; else bands of full rows; else, where not even one row
    with its halo fits, pieces of a row. Raises LimitError where not one pixel with its halo does.
    """
    height, width, channels = pixels.shape
    pixel = channels * pixels.itemsize
    out_row = launch.pitch(width, pixel)
    if 2 * height * out_row <= budget:
        return [((0, height), (0, width))]
    above, below, left, right = filter.reach
    halo = left + 31 + right  # see block_of
    source_row = launch.pitch(width + halo, pixel)
    rows = (budget - (above + below) * source_row) // (source_row + out_row)
    columns = width
    if rows < 1:
        rows, lines = 1, above + 1 + below + 1
        columns = (budget // lines - launch.pitch(0, pixel) - 127) // pixel - halo
    if columns < 1:
        one = (above + 1 + below) * launch.pitch(1 + halo, pixel) + launch.pitch(1, pixel)
        raise LimitError(
            f"one pixel with the halo of {filter.name}'s kernel needs {one:,} bytes of GPU memory;"
            f" {budget:,} are free"
        )
    return [
        ((y, min(y + rows, height)), (x, min(x + columns, width)))
        for y in range(0, height, rows)
        for x in range(0, width, columns)
    ]
