"""Deflate on the device, for PNG: launches of deflate.cu, which is no variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.device import Device
from cudafilter.engines.cuda.slots import Slot
from cudafilter.engines.cuda.variants.task import Launch, Pass, Size, Task
from cudafilter.operations.pixels import Pixels

if TYPE_CHECKING:
    from cudafilter.formats.deflate import Deflated
from cudafilter.stores.buffers import Buffer

THREADS = 256

PART = 192 * THREADS
"""Bytes of a deflate block: fewer have shorter codes, and more of these to tell."""

MATCH = 12
"""About the bits of a match's two symbols: it must save more."""

BAND = 32 << 20
"""Most bytes of rows on the device at a time, or one row where that is more."""

LEAST = 1 << 20
"""Bytes of a picture that are worth the device: the host compresses so many in 5 ms."""

WORTH = 0.25
"""A picture of which less remains has repeats that the host finds and the device does not."""

ENTRY = 16
"""Bytes of Part in deflate.cu."""

ROW = 1 << 15
"""Bytes that are downloaded as a row."""

Bytes = npt.NDArray[np.uint8]

MACROS = {"SAMPLE": 0, "CHANNELS": 1, "THREADS": THREADS, "PART": PART, "MATCH": MATCH}
"""Of its only specialisation: samples are bytes there."""


@dataclass(frozen=True, eq=False)
class Deflation(Launch):
    """A block a row, then a block a part. Sizes are (rows, bytes of a row)."""

    functions: ClassVar[tuple[str, ...]] = ("deflate", "filter", "place", "gather")

    @property
    def block(self) -> tuple[int, int, int]:
        """See Launch.block."""
        return THREADS, 1, 1

    def parts(self, size: Size) -> int:
        """Parts of the stream of an image of *size*."""
        return -(-size[0] * (size[1] + 1) // PART)

    def scratch_bytes(self, source_size: Size, out_size: Size, origin: Size, resident: int) -> int:
        """See Launch.scratch_bytes: what parts became, the stream, and their blocks."""
        return self.parts(out_size) * (ENTRY + 2 * (PART + 64))

    def _passes(self, task: Task, resident: int) -> list[Pass]:
        parts = task.piece = self.parts((task.height, task.width))
        return [
            self._pass(task, task.height, "filter"),
            self._pass(task, parts, "deflate"),
            self._pass(task, 1, "place"),
            self._pass(task, parts, "gather"),
        ]


def planned(pixel: int, itemsize: int, last: bool) -> Deflation:
    """The launch for pixels of *pixel* bytes, samples of *itemsize*; *last* ends the stream."""
    task = Task(columns=pixel, gaps=itemsize - 1, rank=last)
    return Deflation("deflate", MACROS, lambda: np.empty(0), task, 0.0)


class GpuDeflater:
    """See formats.deflate.Deflater. The bytes depend on the picture only."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def png(self, pixels: Pixels) -> Deflated | None:
        """See Deflater.png. Raises EngineError where the device fails."""
        from cudafilter.formats.deflate import Deflated  # not before: most runs write no PNG

        if pixels.nbytes < LEAST:
            return None
        device = self._device
        with device.current():
            try:
                with device.slots.one() as slot:
                    pieces = self._through(slot, pixels)
            except device.out_of_memory:
                # The others' buffers may have taken what this image needs.
                with device.slots.alone() as slots:
                    for slot in slots:
                        slot.free()
                    pieces = self._through(slots[0], pixels)
        if sum(map(len, pieces)) < WORTH * pixels.nbytes:
            return None
        return Deflated(pieces)

    def _through(self, slot: Slot, pixels: Pixels) -> list[Buffer]:
        """The stream of *pixels*, in pieces."""
        from cudafilter.formats.deflate import Joiner

        height, row = len(pixels), pixels[0].nbytes
        step = -(-height // -(-height * row // BAND))
        joiner, ends = Joiner(), list[tuple[Bytes, bytes]]()
        for top in range(0, height, step):
            rows, above = min(step, height - top), int(top > 0)
            last = top + rows == height
            ready = planned(pixels[0, 0].nbytes, pixels.itemsize, last)
            applied = self._device.apply(
                slot, ready, (rows + above, row), (rows, row), (above, 0),
                uses=("source", "source", "scratch"),
            )  # fmt: skip
            source = pixels[top - above : top + rows]
            for _ in slot.upload(source, applied.source, applied.source_pitch):
                pass
            applied.queue()
            count = ready.parts((rows, row))
            told = np.empty((count, ENTRY // 4), np.uint32)
            slot.download(told, applied.scratch, ENTRY)
            slot.finish()
            size = int(told[:, 0].sum(dtype=np.int64))
            adler = _adler(told, rows * (row + 1))
            head, tail = joiner.around(adler, rows * (row + 1), last)
            made = -(-size // ROW) * ROW
            piece = np.empty(len(head) + made + len(tail), np.uint8)
            body = piece[len(head) :][:made].reshape(-1, ROW)
            slot.download(body, applied.scratch + count * ENTRY, ROW)
            piece[: len(head)] = list(head)
            ends.append((piece[: len(head) + size + len(tail)], tail))
        slot.finish()
        slot.seconds()
        for piece, tail in ends:  # now that nothing more arrives there
            piece[len(piece) - len(tail) :] = list(tail)
        return [piece.data for piece, _ in ends]


def _adler(told: npt.NDArray[np.uint32], size: int) -> int:
    """The Adler-32 of *size* bytes of which each PART has its sums in *told*."""
    sizes = np.full(len(told), PART, np.int64)
    sizes[-1] = size - PART * (len(told) - 1)
    low, high = told[:, 2].astype(np.int64), told[:, 3].astype(np.int64)
    before = 1 + np.cumsum(low) - low
    total = int((high + sizes * (before % 65521) % 65521).sum() % 65521)
    return total << 16 | (1 + int(low.sum())) % 65521
