"""A GPU: its context, its kernels, the memory an image passes through, and what runs a launch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread
from types import ModuleType
from typing import Protocol

from cudafilter.engines.cuda.kernels import Kernel, Kernels
from cudafilter.engines.cuda.slots import Pool, Slot
from cudafilter.engines.cuda.variants.task import Launch, Pass, Size, row_pitch
from cudafilter.engines.nvcc import require_cuda
from cudafilter.errors import DeviceLost, EngineError, EngineUnavailable
from cudafilter.nvidia.toolkit import missing

Place = tuple[int, int]
"""Where an image lies on the device: its address, and the bytes from row to row."""

SLOWEST = 64
"""How many times as fast as double float32 is on most GPUs."""


class Freed(Protocol):
    """What holds something of a device."""

    def free(self) -> None:
        """Give it back; with the context current()."""


@dataclass(frozen=True)
class Gpu:
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


def gpus() -> list[Gpu]:
    """The GPUs here. Raises EngineUnavailable where there are none or PyCUDA is missing."""
    cuda = driver()
    version = cuda.get_driver_version()
    found = []
    for index in range(cuda.Device.count()):
        device = cuda.Device(index)
        found.append(
            Gpu(
                index, device.name(), device.compute_capability(), device.total_memory(),
                f"{version // 1000}.{version % 1000 // 10}",
            )
        )  # fmt: skip
    return found


class Device:
    """The GPU *gpu*, opened, with *slots* for images in flight. Raises EngineUnavailable."""

    memory_limit: int | None
    """Most device memory, in bytes, that an image and its result may take; None: what is free."""
    lost: bool = False
    """Whether its context is dead: the driver answers each call with the error that killed it."""

    def __init__(self, gpu: int, slots: int, memory_limit: int | None = None) -> None:
        self.memory_limit = memory_limit
        self.cuda = driver()
        compiler = require_cuda()
        count = self.cuda.Device.count()
        if not 0 <= gpu < count:
            raise EngineUnavailable(
                f"there is no GPU {gpu}; the driver shows {count}",
                hint=f"--gpu takes 0 to {count - 1}; `cudafilter info` lists them",
            )
        device = self.cuda.Device(gpu)
        try:
            self._context = device.retain_primary_context()
        except self.cuda.Error as error:  # another program has it for itself, or memory is full
            raise EngineUnavailable(f"GPU {gpu} cannot be opened: {error}") from error
        self._kernels = Kernels(self.cuda, device, compiler)
        self.slots = Pool([Slot(self.cuda) for _ in range(slots)])
        major, minor = device.compute_capability()
        self.number = gpu
        self.residents: dict[str, Freed] = {}
        """By variant; see resident.py."""
        self.files: Freed | None = None
        """What files of PNGs pass through, beside the slots; see png_files.py."""
        ratio = getattr(self.cuda.device_attribute, "SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO", None)
        self.slowness = SLOWEST if ratio is None else int(device.get_attribute(ratio))
        """How many times as fast as double float32 is."""
        self.title = f"{device.name()} (GPU {gpu}, compute capability {major}.{minor})"

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device's context current in this thread, and the driver's errors ours.

        Raises DeviceLost for an error that stays, EngineError for one that passes.
        """
        self._require_alive()
        self._context.push()
        try:
            yield
        except self.cuda.Error as error:
            try:
                self.cuda.Context.synchronize()
            except self.cuda.Error:
                self.lost = True
                raise DeviceLost(f"the GPU failed: {error}") from error
            if isinstance(error, self.out_of_memory):
                raise self.full(str(error)) from error
            raise EngineError(f"the GPU failed: {error}") from error
        finally:
            self._leave()

    def _require_alive(self) -> None:
        if self.lost:
            raise DeviceLost("the GPU failed before", begun=False)

    def _leave(self) -> None:
        """Pop the context. A dead one is forgotten, so that PyCUDA frees nothing of it: each call
        for that would fail, and say so on stderr."""
        if not self.lost:
            self._context.pop()
            return
        with suppress(self.cuda.Error):  # another thread has forgotten it
            self._context.pop()

        def forget() -> None:
            with suppress(self.cuda.Error):
                self._context.detach()

        # In another thread than the one that retained it, detach() calls no driver.
        forgetting = Thread(target=forget, name="forget")
        forgetting.start()
        forgetting.join()

    @property
    def out_of_memory(self) -> type[Exception]:
        """The driver's error for device or pinned memory that is full."""
        error: type[Exception] = self.cuda.MemoryError
        return error

    def full(self, what: str) -> EngineError:
        """The error for *what* does not find memory; with the context current()."""
        free, total = self.cuda.mem_get_info()
        return EngineError(
            f"out of GPU memory: {what}; {free:,} of {total:,} bytes are free",
            hint="another program may be using the GPU; --engine cpu needs none of it",
        )

    @property
    def cuda_version(self) -> int:
        """Major version of CUDA that the driver serves."""
        return int(self.cuda.get_driver_version()) // 1000

    def apply(
        self,
        slot: Slot,
        launch: Launch,
        source_size: Size,
        out_size: Size,
        origin: tuple[int, int] = (0, 0),
        uses: tuple[str, str, str] = ("source", "out", "scratch"),
        places: tuple[Place | None, Place | None] = (None, None),
    ) -> Applied:
        """Place *launch* in the memory of *slot*, for a source and an output of these sizes.

        Output starts at *origin* (y, x) of the source. With the context current(). Memory that the
        slot holds already is used again; *uses* are the names of source, output and scratch there.
        *places* are those of source and output that lie elsewhere.
        """
        kernel = self._kernels.get(launch)
        source_pitch = row_pitch(source_size[1], launch.channels * launch.itemsize)
        out_pitch = row_pitch(out_size[1], launch.channels * launch.out_itemsize)
        source, out = places
        if source is None:
            source = slot.memory(uses[0], source_size[0] * source_pitch), source_pitch
        if out is None:
            out = slot.memory(uses[1], out_size[0] * out_pitch), out_pitch
        scratch = launch.scratch_bytes(source_size, out_size, origin, kernel.resident)
        return Applied(
            slot, launch, kernel, source_size, out_size, origin, *source, *out,
            slot.memory(uses[2], scratch),
        )  # fmt: skip

    def scratch_bytes(
        self, launch: Launch, source_size: Size, out_size: Size, origin: tuple[int, int] = (0, 0)
    ) -> int:
        """Device memory that apply() takes beside source and output."""
        resident = self._kernels.get(launch).resident
        return launch.scratch_bytes(source_size, out_size, origin, resident)

    def time(self, slot: Slot, work: Callable[[], None], warmup: int, repeats: int) -> list[float]:
        """Milliseconds of each of *repeats* calls of *work*, which queues on *slot*."""
        stream = slot.stream
        for _ in range(warmup):
            work()
        stream.synchronize()
        times = []
        for _ in range(repeats):
            start, stop = self.cuda.Event(), self.cuda.Event()
            start.record(stream)
            work()
            stop.record(stream)
            stop.synchronize()
            times.append(stop.time_since(start))
        return times

    def copy(self, slot: Slot, nbytes: int) -> Callable[[], None]:
        """A function that queues a copy of *nbytes* within the memory of *slot*."""
        source, out = slot.memory("source", nbytes), slot.memory("out", nbytes)
        return lambda: self.cuda.memcpy_dtod_async(out, source, nbytes, slot.stream)

    def free_bytes(self) -> int:
        """Bytes of device memory that are free. The context must be current()."""
        return int(self.cuda.mem_get_info()[0])

    def release(self) -> None:
        """Wait for the images in flight and free their memory. The context must be current()."""
        if self.files is not None:
            self.files.free()
        with self.slots.alone() as slots:
            for slot in slots:
                slot.free()

    def close(self) -> None:
        """Give everything back; of a lost device there is nothing to be had."""
        if self.lost:
            return
        with self.current():
            for resident in self.residents.values():
                resident.free()
            self.release()
            self._kernels.clear()
        self._context.detach()


@dataclass(frozen=True)
class Applied:
    """A launch with its memory. Fill the source, queue() rows, and take them from the output."""

    slot: Slot
    launch: Launch
    kernel: Kernel
    source_size: Size
    out_size: Size
    origin: tuple[int, int]
    source: int
    """Address of the source's rows, ..."""
    source_pitch: int
    """... which start so many bytes apart."""
    out: int
    out_pitch: int
    scratch: int

    def passes(self, first: int = 0, end: int | None = None) -> list[Pass]:
        """The passes for the rows *first* to *end* of the output. Raises LimitError."""
        (height, width), (y, x) = self.out_size, self.origin
        rows = (height if end is None else end) - first
        addresses = self.source, self.out + first * self.out_pitch, self.scratch
        return self.launch.place(
            addresses, self.source_size, (rows, width), (y + first, x), self.kernel.resident,
            (self.source_pitch, self.out_pitch),
        )  # fmt: skip

    def run(self, passes: list[Pass]) -> None:
        """Queue *passes*."""
        for one in passes:
            self.kernel.queue(one, self.slot.stream)

    def queue(self, first: int = 0, end: int | None = None) -> None:
        """Queue the rows *first* to *end* of the output, timed. The rows that they tap must be
        on their way to the device."""
        passes = self.passes(first, end)
        with self.slot.timed():
            self.run(passes)
