"""Deflate on the device, for PNG: launches of deflate.cu, which is no variant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.device import Device, Place
from cudafilter.engines.cuda.slots import Slot
from cudafilter.engines.cuda.variants.task import Launch, Pass, Size, Task, row_pitch
from cudafilter.formats.png_path import Deflated
from cudafilter.operations.pixels import Pixels

THREADS = 256

PART = 128 * THREADS
"""Bytes of a deflate block, which pass through shared memory."""

MATCH = 10
"""About the bits of a match's two symbols: it must save more."""

BAND = 32 << 20
"""Most bytes of rows on the device at a time, or one row where that is more."""

LEAST = 1 << 20
"""Bytes of a picture that are worth the device: the host compresses so many in 5 ms."""

LOST = 0.04
"""Where repeats further back would save more than this share of what is made, the host finds them.
Of photographs it was 0.006 at most; 0.05 at least of what the device made more than 1.1 times as
large as the host: screenshots, flat drawings, patterns."""

ENTRY = 20
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


def deflated(device: Device, slot: Slot, pixels: Pixels) -> Deflated:
    """The stream of *pixels*, unless too much is LOST. The bytes depend on the pixels only."""
    height, row = len(pixels), pixels[0].nbytes
    pitch = row_pitch(row, 1)

    def uploaded(first: int, last: int) -> Place:
        address = slot.memory("source", (last - first) * pitch)
        for _ in slot.upload(pixels[first:last], address, pitch):
            pass
        return address, pitch

    limit = device.memory_limit
    if limit is not None and (_step(height, row) + 1) * pitch + scratch_bytes(height, row) > limit:
        return Deflated()
    pieces = deflated_from(device, slot, uploaded, pixels.shape, pixels.itemsize)
    return Deflated(pieces, slot.seconds()["deflate"])


def scratch_bytes(height: int, row: int) -> int:
    """Scratch that the rows of a picture take, of *row* bytes each."""
    size = _step(height, row), row
    return planned(1, 1, True).scratch_bytes(size, size, (0, 0), 1)


def _step(height: int, row: int) -> int:
    """Rows that are compressed at a time."""
    return -(-height // -(-height * row // BAND))


def deflated_from(
    device: Device,
    slot: Slot,
    place: Callable[[int, int], Place],
    shape: tuple[int, ...],
    itemsize: int,
) -> list[memoryview] | None:
    """The stream of a picture of *shape* (H, W, C); None where too much is LOST.

    *place* tells where rows *first* to *last* - 1 are on the device. It is asked for each band, one
    after the other. The stage is ``deflate``.
    """
    from cudafilter.formats.deflate import Joiner  # not before: most runs write no PNG

    height, width, channels = shape
    pixel = channels * itemsize
    row = width * pixel
    step = _step(height, row)
    joiner, ends = Joiner(), list[tuple[Bytes, bytes]]()
    lost = made = 0  # bits, bytes
    for top in range(0, height, step):
        rows, above = min(step, height - top), int(top > 0)
        last = top + rows == height
        ready = planned(pixel, itemsize, last)
        size = rows, row
        source = place(top - above, top + rows)
        applied = device.apply(
            slot, ready, (rows + above, row), size, (above, 0), places=(source, source)
        )
        with slot.timed("deflate"):
            applied.run(applied.passes())
        count = ready.parts(size)
        told = np.empty((count, ENTRY // 4), np.uint32)
        slot.download(told, applied.scratch, ENTRY)
        slot.finish()
        length = int(told[:, 0].sum(dtype=np.int64))
        lost += int(told[:, 4].sum(dtype=np.int64))
        made += length
        adler = _adler(told, rows * (row + 1))
        head, tail = joiner.around(adler, rows * (row + 1), last)
        room = -(-length // ROW) * ROW
        piece = np.empty(len(head) + room + len(tail), np.uint8)
        body = piece[len(head) :][:room].reshape(-1, ROW)
        slot.download(body, applied.scratch + count * ENTRY, ROW)
        piece[: len(head)] = list(head)
        ends.append((piece[: len(head) + length + len(tail)], tail))
    slot.finish()
    if lost > LOST * 8 * made:
        return None
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
