"""The start of GPUs while Python still imports: the driver, a device's context, nvJPEG.

A thread does by ctypes, without the interpreter's lock, what the engine would do later: the engine
then finds the device's primary context there, and nvJPEG. On an H100's host that takes 0.3 s, no
longer than the imports. A GPU that joins others at work starts in the same way.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from ctypes import byref, c_int, c_void_p
from functools import partial
from importlib.util import find_spec
from threading import Thread
from typing import TYPE_CHECKING

from cudafilter.start.begun import Gpu, begun

if TYPE_CHECKING:
    from cudafilter.nvidia.nvjpeg import NvJpeg
    from cudafilter.nvidia.nvjpeg_units import Batches


def start(gpus: Sequence[int] | None, *, jpeg: bool, units: bool = False) -> None:
    """Begin to start *gpus*, or all where that is None, and nvJPEG on them if *jpeg*.

    With *units* it is for the JPEG units, too.

    Raises nothing: whatever fails here is tried again where the engine opens.
    """
    if find_spec("pycuda") is None:
        return
    for number in (0,) if gpus is None else gpus:
        _begin(number, jpeg, units, others=gpus is None)


def start_driver() -> None:
    """Begin to start only the driver: half of what start() does, and the same for all GPUs.

    Raises nothing, as start(), which waits for it.
    """

    def init() -> None:
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libcuda.so.1").cuInit(0)

    Thread(target=init, name="driver", daemon=True).start()


def wait(number: int) -> None:
    """Wait until the GPU *number* has started, if start() began with it."""
    if (gpu := begun.gpus.get(number)) is not None:
        gpu.thread.join()


def nvjpeg_of(number: int) -> tuple[NvJpeg | None, Batches | None]:
    """The nvJPEG of the GPU *number*, and the batches of its JPEG units, if start() began with
    them. Waits for it.

    They are given away once; None afterwards, and where there is none.
    """
    wait(number)
    gpu = begun.gpus.get(number)
    if gpu is None:
        return None, None
    given = gpu.nvjpeg, gpu.batches
    gpu.nvjpeg = gpu.batches = None
    return given


def _begin(number: int, jpeg: bool, units: bool, others: bool = False) -> None:
    gpu = Gpu()
    work = partial(_run, gpu, number, jpeg, units, others)
    gpu.thread = Thread(target=work, name="gpu", daemon=True)
    if begun.gpus.setdefault(number, gpu) is gpu:
        gpu.thread.start()


def _run(gpu: Gpu, number: int, jpeg: bool, units: bool, others: bool) -> None:
    """Start it; its context stays the primary one for as long as the process lives."""
    from cudafilter.nvidia.nvjpeg import NvJpeg, NvJpegError, find
    from cudafilter.nvidia.nvjpeg_units import Batches

    with suppress(OSError, AttributeError, NvJpegError):
        driver = ctypes.CDLL("libcuda.so.1")
        version, count, device, context = c_int(), c_int(), c_int(), c_void_p()
        if driver.cuInit(0) or driver.cuDeviceGetCount(byref(count)):
            return
        for other in range(1, count.value) if others else ():
            _begin(other, jpeg, units)
        if (
            driver.cuDriverGetVersion(byref(version)) == 0
            and driver.cuDeviceGet(byref(device), number) == 0
            and driver.cuDevicePrimaryCtxRetain(byref(context), device) == 0
            and jpeg
            and driver.cuCtxSetCurrent(context) == 0
        ):
            library = find(version.value // 1000)
            gpu.nvjpeg = NvJpeg(library) if library else None
            if units and gpu.nvjpeg is not None and gpu.nvjpeg.units is not None:
                gpu.batches = Batches(gpu.nvjpeg)
