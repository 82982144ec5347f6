"""A filter on an image of any size, in one go through a slot or in bands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cudafilter.engines.cuda.bands import Band, cut, last_taps
from cudafilter.engines.cuda.device import Device
from cudafilter.engines.cuda.slots import Slot
from cudafilter.engines.cuda.variants.task import Launch
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation, WholeImage
from cudafilter.operations.pixels import Pixels

LEAST_BAND = 4
"""Fewest rows of output, in kernel heights, that get a launch while more rows arrive. Each launch
also reads its halo, so shorter ones would cost more than they gain."""


@dataclass(frozen=True)
class Work:
    """What is done to an image, whatever its size."""

    device: Device
    launch: Launch
    filter: Operation
    border: Border
    first: int = 0
    """Row of the pixels at which the result begins."""

    def cut(self, pixels: Pixels, out: Pixels, budget: int) -> list[Band]:
        """Bands of *out*, which *pixels* become: see bands.cut()."""
        return cut(out, self.filter, budget, self.launch.alignment, len(pixels))

    @property
    def whole(self) -> bool:
        """Whether it needs all of the image at once."""
        return isinstance(self.filter, WholeImage)

    def stream(self, slot: Slot, block: Pixels, out: Pixels, origin: tuple[int, int]) -> None:
        """Filter *block* through *slot* into *out*, which starts at *origin* (y, x) of the block.

        Rows of output are filtered and leave as soon as the rows that they tap have arrived.
        """
        height, source_height = len(out), len(block)
        applied = self.device.apply(slot, self.launch, block.shape[:2], out.shape[:2], origin)
        above, below, *_ = self.filter.reach
        alignment, least = self.launch.alignment, LEAST_BAND * (above + 1 + below)
        needed, done = None, 0
        for arrived in slot.upload(block, applied.source, applied.source_pitch):
            end = height
            if arrived < source_height:
                if self.whole:
                    continue
                if needed is None:
                    needed = last_taps(self.filter, self.border, source_height, origin[0], height)
                end = int(np.searchsorted(needed, arrived)) // alignment * alignment
                if end - done < least:
                    continue
            applied.queue(done, end)
            pitch = applied.out_pitch
            slot.download(out[done:end], applied.out + done * pitch, pitch)
            done = end
        slot.finish()
