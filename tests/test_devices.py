"""The GPUs, as a driver tells them that is made up."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from cudafilter.nvidia import devices
from cudafilter.nvidia.devices import Device, Devices


class Driver:
    """libcuda with two GPUs."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails

    def __getattr__(self, name: str) -> Any:
        if name == "cuDeviceTotalMem_v2" and self.fails == "old":
            raise AttributeError(name)

        def call(*given: Any) -> int:
            target: Any = getattr(given[0], "_obj", None)
            if name == "cuDriverGetVersion":
                target.value = 12080
            elif name == "cuDeviceGetCount":
                target.value = 2
            elif name == "cuDeviceGet":
                target.value = 10 + given[1]
            elif name == "cuDeviceGetName":
                given[0].value = f"GPU {given[2].value}".encode()
            elif name == "cuDeviceTotalMem_v2":
                target.value = given[1].value << 30
            return int(name == self.fails)

        return call


def test_are_told_by_name_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    assert devices.devices() == Devices(
        (Device("GPU 10", 10 << 30), Device("GPU 11", 11 << 30)), 12
    )


@pytest.mark.parametrize("fails", ["cuInit", "cuDeviceGetCount", "cuDriverGetVersion", "old"])
def test_are_none_where_the_driver_fails(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(fails))
    assert devices.devices() == Devices()


def test_are_none_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert devices.devices() == Devices()
