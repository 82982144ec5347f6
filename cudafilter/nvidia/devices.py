"""The GPUs here, as the driver tells them. No context is made, and PyCUDA is not imported."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from ctypes import byref, c_int, c_size_t
from typing import NamedTuple

from cudafilter.nvidia.toolkit import DRIVER

_NAME_BYTES = 256


class Device(NamedTuple):
    """A GPU."""

    name: str
    memory: int
    """Bytes, whoever uses them."""


class Devices(NamedTuple):
    """All GPUs, by their numbers."""

    every: tuple[Device, ...] = ()
    driver: int = 0
    """The CUDA version of the driver, by the first number."""


def devices() -> Devices:
    """The GPUs; none where the driver does not answer. It waits for the driver's start."""
    try:
        driver = ctypes.CDLL(DRIVER)
        version, count = c_int(), c_int()
        calls = (
            driver.cuInit(0),
            driver.cuDriverGetVersion(byref(version)),
            driver.cuDeviceGetCount(byref(count)),
        )
        if any(calls):
            return Devices()
        return Devices(
            tuple(_device(driver, number) for number in range(count.value)), version.value // 1000
        )
    except (OSError, AttributeError):
        return Devices()


def _device(driver: ctypes.CDLL, number: int) -> Device:
    device, memory = c_int(), c_size_t()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGet(byref(device), number)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    driver.cuDeviceTotalMem_v2(byref(memory), device)
    return Device(name.value.decode(errors="replace"), memory.value)


def title_of(models: Mapping[int, str], joining: Collection[int] = ()) -> str:
    """What is told of several GPUs as one engine: their *models*, by their numbers.

    Those of *joining* are opened as needed.
    """
    counts = Counter(models.values())
    names = " + ".join(f"{count} x {model}" for model, count in counts.items())
    first = [number for number in models if number not in joining]
    which = f"GPU{'s' * (len(first) > 1)} {_listed(first)}"
    if joining:
        which += f"; {_listed(joining)} as needed"
    return f"cuda: {names} ({which})"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
