"""PNG's row filters undone on the device: launches of unfilter.cu, which is no variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cudafilter.engines.cuda.device import Device
from cudafilter.engines.cuda.slots import Slot
from cudafilter.engines.cuda.variants.task import Launch, Pass, Size, Task
from cudafilter.formats.png_path import Unfiltered
from cudafilter.stores.buffers import Buffer

LANES = 32
"""Rows of a block, which is a warp."""

MOST = 1 << 28
"""Most bytes of a picture: more would take a large part of the device's memory."""

LONGEST = 4096
"""Tiles of 32 pixels that may have to be done one after the other. Each takes some microseconds."""

MACROS = {"SAMPLE": 0, "CHANNELS": 1}
"""Of its only specialisation: samples are bytes there."""


@dataclass(frozen=True, eq=False)
class Unfiltering(Launch):
    """A warp for some rows. Sizes are (rows, bytes of a row)."""

    functions: ClassVar[tuple[str, ...]] = ("filter", "begin")

    @property
    def block(self) -> tuple[int, int, int]:
        """See Launch.block."""
        return LANES, 1, 1

    def scratch_bytes(self, source_size: Size, out_size: Size, origin: Size, resident: int) -> int:
        """See Launch.scratch_bytes: how many blocks have begun, and how far each is."""
        return 4 * (1 + -(-out_size[0] // LANES))

    def _passes(self, task: Task, resident: int) -> list[Pass]:
        task.piece = -(-task.height // LANES)
        return [self._pass(task, 1, "begin"), self._pass(task, task.piece)]


def planned(pixel: int, itemsize: int) -> Unfiltering:
    """The launch for pixels of *pixel* bytes, samples of *itemsize*."""
    task = Task(columns=pixel, gaps=itemsize - 1)
    return Unfiltering("unfilter", MACROS, lambda: np.empty(0), task, 0.0)


def takes(device: Device, shape: tuple[int, int, int], itemsize: int) -> bool:
    """Whether a picture of *shape* (H, W, C) is worth the device, and has room there."""
    height, width, channels = shape
    size = height * width * channels * itemsize
    if device.memory_limit is not None and 2.1 * size > device.memory_limit:
        return False
    return size <= MOST and (2 * height + width) // LANES <= LONGEST


def unfiltered(
    device: Device, slot: Slot, raw: Buffer, shape: tuple[int, int, int], itemsize: int
) -> Unfiltered:
    """The pixels of *shape* (H, W, C) whose filtered rows are *raw*."""
    height, width, channels = shape
    row = width * channels * itemsize
    ready = planned(channels * itemsize, itemsize)
    applied = device.apply(slot, ready, (height, row + 1), (height, row))
    rows = np.frombuffer(raw, np.uint8).reshape(height, row + 1)
    for _ in slot.upload(rows, applied.source, row + 1):
        pass
    applied.queue()
    out = np.empty((height, row), np.uint8)
    slot.download(out, applied.out, applied.out_pitch)
    slot.finish()
    pixels = out.view(np.uint8 if itemsize == 1 else np.uint16).reshape(shape)
    return Unfiltered(pixels, slot.seconds()["kernel"])
