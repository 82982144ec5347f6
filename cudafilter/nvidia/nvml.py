"""How busy GPUs are, by NVML through ctypes: the library that nvidia-smi asks, from the driver."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import byref, c_char_p, c_uint, c_void_p
from threading import Event, Thread
from types import TracebackType
from typing import Any, NamedTuple, Self

from cudafilter.nvidia.nvrtc import WINDOWS

LIBRARY = "nvml.dll" if WINDOWS else "libnvidia-ml.so.1"

EVERY = 0.1
"""Seconds between two samples. One covers the last sixth of a second to a second, by the GPU."""


class NvmlError(Exception):
    """NVML is not here, or a call to it failed; ``str()`` says which."""


class Busy(NamedTuple):
    """Shares of the time, 0 to 1, in which parts of a GPU were at work, whoever for.

    None is what the GPU does not tell, as those of a slice of one (MIG).
    """

    kernels: float | None
    """Kernels ran."""
    memory: float | None
    """Its memory was read or written."""
    jpeg: float | None
    """Its JPEG units decoded."""
    decoder: float | None
    """Its video decoders worked."""
    encoder: float | None
    """Its video encoders worked."""


class _Rates(ctypes.Structure):
    """nvmlUtilization_t: percent."""

    _fields_ = (("gpu", c_uint), ("memory", c_uint))


_UNITS = ("Jpg", "Decoder", "Encoder")


class Nvml:
    """NVML, started. Raises NvmlError where it is not here or does not answer."""

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError:
            raise NvmlError(f"there is no {library}") from None
        self._call("Init_v2")

    def gpu(self, bus: str) -> c_void_p:
        """The GPU at the PCI address *bus*, such as ``0000:3B:00.0``."""
        handle = c_void_p()
        self._call("DeviceGetHandleByPciBusId_v2", c_char_p(bus.encode()), byref(handle))
        return handle

    def busy(self, gpu: c_void_p) -> Busy:
        """How busy *gpu* is now."""
        rates = _Rates()
        told = self._told("DeviceGetUtilizationRates", gpu, byref(rates))
        units: list[float | None] = []
        for unit in _UNITS:
            percent, period = c_uint(), c_uint()
            got = self._told(f"DeviceGet{unit}Utilization", gpu, byref(percent), byref(period))
            units.append(percent.value / 100 if got else None)
        of_all = (rates.gpu / 100, rates.memory / 100) if told else (None, None)
        return Busy(*of_all, *units)

    def close(self) -> None:
        """Give back what NVML holds."""
        self._call("Shutdown")

    def _told(self, name: str, *arguments: Any) -> bool:
        """Whether the call worked: not each GPU tells all, and an older NVML has not all calls."""
        try:
            self._call(name, *arguments)
        except NvmlError:
            return False
        return True

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, f"nvml{name}", None)
        if function is None:
            raise NvmlError(f"it has no nvml{name}")
        function.restype = ctypes.c_int
        if status := function(*arguments):
            raise NvmlError(f"nvml{name} failed with {status}")


class Watch:
    """Samples how busy the GPUs at the PCI addresses *buses* are, in a thread, while it is entered.

    Raises NvmlError where it is entered and there is no NVML, or a GPU that it does not know.
    """

    def __init__(
        self, buses: Sequence[str], open_nvml: Callable[[], Nvml] = Nvml, every: float = EVERY
    ) -> None:
        self._buses, self._open, self._every = buses, open_nvml, every
        self._ended = Event()
        self._samples: list[list[Busy]] = []

    def __enter__(self) -> Self:
        self._nvml = self._open()
        self._gpus = [self._nvml.gpu(bus) for bus in self._buses]
        self._thread = Thread(target=self._sample, name="nvml", daemon=True)
        self._thread.start()
        return self

    def _sample(self) -> None:
        ended = False
        while not ended:  # a last sample, so that a short run has one
            ended = self._ended.wait(self._every)
            self._samples.append([self._nvml.busy(gpu) for gpu in self._gpus])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._nvml.close()

    def means(self) -> list[Busy]:
        """The means of each GPU, once it is left."""
        return [_mean([sample[n] for sample in self._samples]) for n in range(len(self._buses))]


def _mean(samples: Sequence[Busy]) -> Busy:
    told = [
        [value for value in column if value is not None] for column in zip(*samples, strict=True)
    ]
    return Busy(*(sum(column) / len(column) if column else None for column in told))
