"""The CUDA engine: PyCUDA, one primary context per device, kernels from cuda_src/."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from types import ModuleType
from typing import Any

import numpy as np

from cudafilter import nvjpeg
from cudafilter.borders import Border
from cudafilter.engines import launch
from cudafilter.engines.bands import Band, block_of, cut, last_taps
from cudafilter.engines.modules import Kernel, Kernels
from cudafilter.engines.nvcc import require_toolkit
from cudafilter.engines.nvcodec import GpuJpeg, JpegPath
from cudafilter.engines.slots import Pool, Slot
from cudafilter.errors import EngineError, EngineUnavailable
from cudafilter.filter import Filter
from cudafilter.pixels import Pixels, require_pixels
from cudafilter.toolkit import missing

__all__ = ["CudaEngine", "Device", "block_of", "cut", "devices", "driver"]

MEMORY_SHARE = 0.9
"""Share of the free device memory that all slots together may take."""

SLOTS = 4
"""Images in flight. Filling and emptying pinned memory is the host's work and takes longest: on an
H100, 54 12-megapixel images/s with one slot, 147 with three, 183 with four, 204 with six."""

LEAST_BAND = 4
"""Rows of output, in kernel heights, that are worth a launch while more rows arrive: each launch
also walks over its halo."""


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
    """Runs filters on one GPU; calls from several threads overlap, *slots* of them at a time.

    *memory_limit* caps the device memory in bytes that an image and its result may take; larger
    images are cut into bands with halos, with the same bits. *codec* ``pillow`` keeps JPEG files
    off the GPU's codec. Raises EngineUnavailable.
    """

    name = "cuda"
    note: str | None = None
    variant: str
    """The kernel to run filters with; may be changed between runs."""
    jpeg: JpegPath | None
    """See Engine.jpeg."""
    jpeg_reason: str | None
    """Why there is no ``jpeg``."""

    def __init__(
        self,
        gpu: int = 0,
        variant: str = "auto",
        memory_limit: int | None = None,
        *,
        slots: int = SLOTS,
        codec: str = "auto",
    ) -> None:
        self._cuda = driver()
        toolkit = require_toolkit()
        count = self._cuda.Device.count()
        if not 0 <= gpu < count:
            raise EngineUnavailable(
                f"there is no GPU {gpu}; the driver shows {count}",
                hint=f"--gpu takes 0 to {count - 1}; `cudafilter info` lists them",
            )
        self.variant = variant
        self.parallel = slots
        self.memory_limit = memory_limit
        device = self._cuda.Device(gpu)
        try:
            self._context = device.retain_primary_context()
        except self._cuda.Error as error:  # taken by another program alone, out of memory
            raise EngineUnavailable(f"GPU {gpu} cannot be opened: {error}") from error
        self._kernels = Kernels(self._cuda, device, toolkit)
        self._slots = Pool([Slot(self._cuda) for _ in range(slots)])
        self._local = threading.local()
        self._jpeg: GpuJpeg | None = None
        self.jpeg_reason = "--codec pillow was asked for" if codec == "pillow" else None
        if self.jpeg_reason is None:
            library = nvjpeg.find(self._cuda.get_driver_version() // 1000)
            if library is not None:
                self._jpeg = GpuJpeg(self, self._cuda, library, gpu)
            else:
                self.jpeg_reason = "nvJPEG is not installed (the extra nvcodec)"
        self.jpeg = self._jpeg
        major, minor = device.compute_capability()
        self.title = f"cuda: {device.name()} (GPU {gpu}, compute capability {major}.{minor})"

    def run(
        self,
        pixels: Pixels,
        filter: Filter,
        border: Border = Border(),
        alpha: bool = False,
        *,
        overwrite: bool = False,
    ) -> Pixels:
        """See Engine.run. *overwrite* is not made use of: after a failure the pixels are needed.

        An image of up to slots.CHUNK_BYTES costs one upload, the filter's launches (one of most
        kernels), one download and one wait; a larger one as many of each as it has chunks.
        """
        started = perf_counter()
        pixels = require_pixels(pixels, alpha)
        if filter.is_identity:
            self._local.timings = {}
            return pixels.copy()
        ready = self.prepare(pixels, filter, border, alpha)
        out = np.empty_like(pixels)
        with self.current():
            kernel = self._kernels.get(ready)
            work = _Work(kernel, ready, filter, border)
            try:
                with self._slots.one() as slot:
                    self._filter(slot, work, pixels, out)
                    spent = slot.seconds()
            except self.out_of_memory:
                # The others' buffers may have taken what this image needs.
                if self._jpeg is not None:
                    self._jpeg.free()
                with self._slots.alone() as slots:
                    for slot in slots:
                        slot.free()
                    self._filter(slots[0], work, pixels, out)
                    spent = slots[0].seconds()
        rest = perf_counter() - started - sum(spent.values())
        self._local.timings = spent | {"download": max(0.0, rest)}
        return out

    def last_timings(self) -> dict[str, float]:
        """See Engine.last_timings."""
        return dict(getattr(self._local, "timings", {}))

    def last_notes(self) -> tuple[str, ...]:
        """See Engine.last_notes."""
        return ()

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
        size, pitch = pixels.shape[:2], launch.pitch(pixels.shape[1], pixels[0, 0].nbytes)
        out = np.empty_like(pixels)
        with self.current(), self._slots.one() as slot:
            kernel = self._kernels.get(ready)
            source = slot.memory("source", size[0] * pitch)
            target = slot.memory("out", size[0] * pitch)
            scratch = slot.memory(
                "scratch", ready.scratch_bytes(size, size, (0, 0), kernel.resident)
            )
            for _ in slot.upload(pixels, source, pitch):
                pass
            steps = ready.place((source, target, scratch), size, size, (0, 0), kernel.resident)

            def work() -> None:
                for step in steps:
                    kernel.queue(step, slot.stream)

            times = self._time(work, warmup, repeats, slot.stream)
            slot.download(out, target, pitch)
            slot.finish()
        return out, times

    def time_copy(self, nbytes: int, *, warmup: int = 3, repeats: int = 15) -> list[float]:
        """The milliseconds of each of *repeats* device-to-device copies of *nbytes*.

        One read and one write of an image: the floor for a filter that is bound by memory.
        """
        with self.current(), self._slots.one() as slot:
            source, target = slot.memory("source", nbytes), slot.memory("out", nbytes)
            return self._time(
                lambda: self._cuda.memcpy_dtod_async(target, source, nbytes, slot.stream),
                warmup, repeats, slot.stream,
            )  # fmt: skip

    def release(self) -> None:
        """Wait for run()'s images in flight and give their memory back; with current()."""
        with self._slots.alone() as slots:
            for slot in slots:
                slot.free()

    def close(self) -> None:
        """See Engine.close."""
        with self.current():
            if self._jpeg is not None:
                self._jpeg.free()
            self.release()
            self._kernels.clear()
        self._context.detach()

    @contextmanager
    def current(self) -> Iterator[None]:
        """The device's context current in this thread; the driver's errors made ours."""
        self._context.push()
        try:
            yield
        except self.out_of_memory as error:
            free, total = self._cuda.mem_get_info()
            raise EngineError(
                f"out of GPU memory: {error}; {free:,} of {total:,} bytes are free",
                hint="another program may be using the GPU; --engine cpu needs none of it",
            ) from error
        except self._cuda.Error as error:
            raise EngineError(f"the GPU failed: {error}") from error
        finally:
            self._context.pop()

    @property
    def out_of_memory(self) -> type[Exception]:
        """What the driver raises where the device's or the pinned memory is full."""
        error: type[Exception] = self._cuda.MemoryError
        return error

    def kernel(self, ready: launch.Launch) -> Kernel:
        """The loaded kernel of *ready*; with the context current()."""
        return self._kernels.get(ready)

    def _filter(self, slot: Slot, work: _Work, pixels: Pixels, out: Pixels) -> None:
        """*pixels* into *out*, in as few bands as memory allows."""
        for rows, columns in self._bands(slot, work, pixels):
            part = out[slice(*rows), slice(*columns)]
            if part.shape == out.shape:
                work.stream(slot, pixels, part, (0, 0))
            else:
                block, origin = block_of(pixels, work.filter, work.border, rows, columns)
                work.stream(slot, block, part, origin)

    def _bands(self, slot: Slot, work: _Work, pixels: Pixels) -> list[Band]:
        """The whole image, or bands of it that leave the other slots their share of the memory."""
        if self.memory_limit is not None:
            return cut(pixels, work.filter, self.memory_limit, work.ready.step)
        height, width, _ = pixels.shape
        whole = height * launch.pitch(width, pixels[0, 0].nbytes)
        scratch = work.ready.scratch_bytes(
            (height, width), (height, width), (0, 0), work.kernel.resident
        )
        if slot.holds(source=whole, out=whole, scratch=scratch):
            return [((0, height), (0, width))]
        free = self._cuda.mem_get_info()[0] + slot.held
        share = int(free * MEMORY_SHARE / self._slots.count) - scratch
        return cut(pixels, work.filter, share, work.ready.step)

    def _time(
        self, work: Callable[[], None], warmup: int, repeats: int, stream: Any
    ) -> list[float]:
        for _ in range(warmup):
            work()
        stream.synchronize()
        times = []
        for _ in range(repeats):
            start, stop = self._cuda.Event(), self._cuda.Event()
            start.record(stream)
            work()
            stop.record(stream)
            stop.synchronize()
            times.append(stop.time_since(start))
        return times


@dataclass(frozen=True)
class _Work:
    """What becomes of an image, whatever its size."""

    kernel: Kernel
    ready: launch.Launch
    filter: Filter
    border: Border

    def stream(self, slot: Slot, block: Pixels, out: Pixels, origin: tuple[int, int]) -> None:
        """*block* through *slot* into *out*, which starts at *origin* (y, x) of it.

        Rows of output are filtered and leave as soon as the rows that they tap have arrived.
        """
        (height, width, _), size = out.shape, block.shape[:2]
        arriving, leaving = (launch.pitch(n, out[0, 0].nbytes) for n in (size[1], width))
        source = slot.memory("source", size[0] * arriving)
        target = slot.memory("out", height * leaving)
        wanted = self.ready.scratch_bytes(size, (height, width), origin, self.kernel.resident)
        scratch = slot.memory("scratch", wanted)  # the same for all rows of output
        needed, least = None, LEAST_BAND * self.filter.size[0]
        done = 0
        for arrived in slot.upload(block, source, arriving):
            end = height
            if arrived < size[0]:
                if needed is None:
                    needed = last_taps(self.filter, self.border, size[0], origin[0], height)
                end = int(np.searchsorted(needed, arrived)) // self.ready.step * self.ready.step
                if end - done < least:
                    continue
            addresses = source, target + done * leaving, scratch
            steps = self.ready.place(
                addresses, size, (end - done, width), (origin[0] + done, origin[1]),
                self.kernel.resident,
            )  # fmt: skip
            with slot.timed():
                for step in steps:
                    self.kernel.queue(step, slot.stream)
            slot.download(out[done:end], target + done * leaving, leaving)
            done = end
        slot.finish()
