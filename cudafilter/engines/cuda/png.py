"""PNGs coded on the device, or parts of them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from cudafilter.engines.codecs import FileJob, FileResult
from cudafilter.engines.cuda import deflate
from cudafilter.engines.cuda.device import Device
from cudafilter.engines.cuda.slots import Slot
from cudafilter.engines.cuda.unfilter import takes, unfiltered
from cudafilter.formats.png_path import Deflated, Unfiltered
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Buffer

if TYPE_CHECKING:
    from cudafilter.engines.cuda.png_files import PngFiles

T = TypeVar("T")


class GpuPng:
    """Engine.png of the CUDA engine; see PngCodec."""

    def __init__(self, device: Device, variant: str) -> None:
        self._device, self._variant = device, variant
        self._lock = Lock()
        self._files: PngFiles | None = None

    def filter(self, job: FileJob) -> FileResult:
        """See PngCodec.filter."""
        with self._lock:
            if self._files is None:
                from cudafilter.engines.cuda.png_files import PngFiles  # most runs read no PNG

                self._files = self._device.files = PngFiles(self._device, self._variant)
        return self._files.filter(job)

    def free(self) -> None:
        """Wait for the files in flight and give back what is held for them; with current()."""
        if self._files is not None:
            self._files.free()

    def deflate(self, pixels: Pixels) -> Deflated:
        """See PngPath.deflate."""
        if pixels.nbytes < deflate.LEAST:
            return Deflated()
        return self._by_slot(lambda slot: deflate.deflated(self._device, slot, pixels))

    def unfilter(self, raw: Buffer, shape: tuple[int, int, int], itemsize: int) -> Unfiltered:
        """See PngPath.unfilter."""
        if len(raw) < deflate.LEAST or not takes(self._device, shape, itemsize):
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
                self.free()
                with device.slots.alone() as slots:
                    for slot in slots:
                        slot.free()
                    return work(slots[0])
        raise AssertionError
