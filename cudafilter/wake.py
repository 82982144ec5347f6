"""A GPU's start while Python still imports: the driver, a device's context, nvJPEG.

A thread does by ctypes, without the interpreter's lock, what the engine would do later: the engine
then finds the device's primary context there, and nvJPEG. On an H100's host that takes 0.3 s, no
longer than the imports. A GPU that joins others at work starts in the same way.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ctypes import byref, c_int, c_void_p
from importlib.util import find_spec
from itertools import islice
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cudafilter.nvjpeg import NvJpeg

FEW = 16
"""Most images of a small job; more of them are worth a GPU's start, whatever their size."""

_JPEG = (".jpg", ".jpeg")
"""The usual ones; for the others nvJPEG starts when it is needed."""

_waking: dict[int, _Waking] = {}
"""By the GPU's number."""


def wake(gpus: Sequence[int] | None, *, jpeg: bool) -> None:
    """Begin to start *gpus*, or all where that is None, and nvJPEG on them if *jpeg*.

    Nothing is raised: what fails here fails again where the engine opens, which tells why.
    """
    if find_spec("pycuda") is None:
        return
    for gpu in (0,) if gpus is None else gpus:
        _begin(_Waking(gpu, jpeg, others=gpus is None))


def wake_driver() -> None:
    """Begin to start only the driver: half of what wake() does, and the same for all GPUs.

    Nothing is raised, as in wake(), which waits for it.
    """

    def start() -> None:
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libcuda.so.1").cuInit(0)

    Thread(target=start, name="driver", daemon=True).start()


def _begin(waking: _Waking) -> None:
    if _waking.setdefault(waking.gpu, waking) is waking:
        waking.start()


def wait(gpu: int) -> None:
    """Wait for what wake() began to start on *gpu*; for nothing where it did not."""
    if (waking := _waking.get(gpu)) is not None:
        waking.join()


def nvjpeg_of(gpu: int) -> NvJpeg | None:
    """The nvJPEG that wake() began to start on *gpu*, once it is there; given away once.

    None where there is none.
    """
    wait(gpu)
    waking = _waking.get(gpu)
    if waking is None:
        return None
    nvjpeg, waking.nvjpeg = waking.nvjpeg, None
    return nvjpeg


def first_files(sources: Sequence[str]) -> list[str]:
    """Names of up to FEW + 1 of the files that *sources* name, folders looked into."""
    return list(islice(_names(sources), FEW + 1))


def any_jpeg(names: Sequence[str]) -> bool:
    """Whether one of the files *names* is a JPEG by its name."""
    return any(name.lower().endswith(_JPEG) for name in names)


def _names(sources: Sequence[str]) -> Iterator[str]:
    waiting = list(reversed(sources))  # a list, not calls in calls, which a deep tree exhausts
    while waiting:
        source = waiting.pop()
        if not os.path.isdir(source):
            yield source
            continue
        # Entry by entry: a folder may hold a million, and the first few are enough.
        with suppress(OSError), os.scandir(source) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield entry.name


class _Waking(Thread):
    """Its context stays the primary one for as long as the process lives."""

    def __init__(self, gpu: int, jpeg: bool, others: bool = False) -> None:
        super().__init__(name="wake", daemon=True)
        self.gpu, self._jpeg, self._others = gpu, jpeg, others
        self.nvjpeg: NvJpeg | None = None

    def run(self) -> None:
        from cudafilter.nvjpeg import NvJpeg, NvJpegError, find

        with suppress(OSError, AttributeError, NvJpegError):
            driver = ctypes.CDLL("libcuda.so.1")
            version, count, device, context = c_int(), c_int(), c_int(), c_void_p()
            if driver.cuInit(0) or driver.cuDeviceGetCount(byref(count)):
                return
            for other in range(1, count.value) if self._others else ():
                _begin(_Waking(other, self._jpeg))
            if (
                driver.cuDriverGetVersion(byref(version)) == 0
                and driver.cuDeviceGet(byref(device), self.gpu) == 0
                and driver.cuDevicePrimaryCtxRetain(byref(context), device) == 0
                and self._jpeg
                and driver.cuCtxSetCurrent(context) == 0
            ):
                library = find(version.value // 1000)
                self.nvjpeg = NvJpeg(library) if library else None
