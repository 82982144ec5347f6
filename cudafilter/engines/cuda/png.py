"""Parts of PNGs coded on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cudafilter.engines.cuda.deflate import deflated
from cudafilter.engines.cuda.device import Device
from cudafilter.engines.cuda.slots import Slot
from cudafilter.engines.cuda.unfilter import takes, unfiltered
from cudafilter.formats.png_path import Deflated, Unfiltered
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Buffer

LEAST = 1 << 20
"""Bytes of a picture that are worth the device: the host compresses so many in 5 ms."""

T = TypeVar("T")


class GpuPng:
    """Engine.png of the CUDA engine; see PngPath."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def deflate(self, pixels: Pixels) -> Deflated:
        """See PngPath.deflate."""
        if pixels.nbytes < LEAST:
            return Deflated()
        return self._by_slot(lambda slot: deflated(self._device, slot, pixels))

    def unfilter(self, raw: Buffer, shape: tuple[int, int, int], itemsize: int) -> Unfiltered:
        """See PngPath.unfilter."""
        if len(raw) < LEAST or not takes(self._device, shape, itemsize):
            return Unfiltered()
        return self._by_slot(lambda slot: unfiltered(self._device, slot, raw, shape, itemsize))

    def _by_slot(self, work: Callable[[Slot], T]) -> T:
        """*work* done in a slot. Raises EngineError where that fails."""
        device = self._device
        with device.current():
            try:
                with device.slots.one() as slot:
                    return work(slot)
            except device.out_of_memory:
                # The others' buffers may have taken what this image needs.
                with device.slots.alone() as slots:
                    for slot in slots:
                        slot.free()
                    return work(slots[0])
        raise AssertionError
