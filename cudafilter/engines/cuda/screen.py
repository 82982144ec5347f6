"""Proves a result on the device: launches of proof.cu, which is no variant, and what they found."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.device import Device, Place
from cudafilter.engines.cuda.slots import Slot
from cudafilter.engines.cuda.variants.task import (
    Launch,
    Layout,
    Pass,
    Size,
    Task,
    Weights,
    defines_of,
    flat,
    in_pairs,
    task_of,
)
from cudafilter.engines.cuda.variants.tiles import tile_macros
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.operation import Stage
from cudafilter.operations.pixels import Pixels
from cudafilter.proof.screened import Screened, tapped, tenth
from cudafilter.proof.sums import UNIT

MOST_TAPS = 4096
"""Taps that are proven on the device, times float32's speed over double's: 2 on an H100, 64 on most
others. A tap is two operations: so 12 megapixels RGB take 10 ms on an H100 of 14e12 a second, and
on a GPU that does 5e11 of them; the host, 40 ms on 16 cores."""

LEAST_SAMPLES = 1 << 18
"""A smaller image takes the host about 5 ms, and asking the device is not worth it."""

LISTED = 128
"""Of so many samples one may go to the list; float32's results have some in a thousand."""

LEAST_LISTED = 4096

SUMS_BYTES = 32 << 20
"""Memory for the sums of columns: bands of rows take turns in it, and it stays in the L2 cache."""

HEAD, ENTRY = 16, 24
"""Bytes of Found and Entry in proof.cu."""

THREADS = (32, 8, 1)


@dataclass(frozen=True, eq=False)
class Proof(Launch):
    """A thread a pixel."""

    bound: float
    """See Screened.bound."""
    stage: Stage
    """What it proves."""

    functions: ClassVar[tuple[str, ...]] = ("compare", "down", "begin")
    weights_in_constant_memory: ClassVar[bool] = False

    @functools.cached_property
    def weights(self) -> Weights:
        """The doubles that the kernel reads, each as two floats."""
        return in_pairs(self.make_weights())

    @property
    def block(self) -> tuple[int, int, int]:
        """See Launch.block."""
        return THREADS

    def listed(self, size: Size) -> int:
        """How many samples the list holds for an image of *size*."""
        return max(LEAST_LISTED, size[0] * size[1] * self.channels // LISTED)

    def scratch_bytes(self, source_size: Size, out_size: Size, origin: Size, resident: int) -> int:
        """See Launch.scratch_bytes."""
        sums = self._rows(out_size) * self._sums(out_size) if self.defines["FACTORED"] else 0
        return HEAD + ENTRY * self.listed(out_size) + sums

    def _sums(self, size: Size) -> int:
        """Bytes of one row's sums."""
        return 8 * self.defines["KERNELS"] * (size[1] + 1) * self.channels

    def _rows(self, size: Size) -> int:
        """Rows of a band."""
        if not self.defines["FACTORED"]:
            return size[0]
        return min(size[0], max(THREADS[1], SUMS_BYTES // self._sums(size)))

    def _passes(self, task: Task, resident: int) -> list[Pass]:
        size = task.height, task.width
        task.piece, task.rows = self.listed(size), self._rows(size)
        passes = [self._pass(task, 1, "begin", 32)]
        out, factored = task.out, self.defines["FACTORED"]
        for y in range(0, size[0], task.rows):
            task.y0, task.height = y, min(task.rows, size[0] - y)
            task.out = out + y * task.out_pitch * self.itemsize
            if factored:
                passes.append(self._tiled(task, size[1] + 1, "down"))
            passes.append(self._tiled(task, size[1], "compare"))
        return passes

    def _tiled(self, task: Task, width: int, function: str) -> Pass:
        task.blocks_x = -(-width // THREADS[0])
        return self._pass(task, task.blocks_x * -(-task.height // THREADS[1]), function)


def planned(
    stage: Stage | None, shape: tuple[int, ...], dtype: npt.DTypeLike, alpha: bool, slowness: int
) -> Proof | None:
    """The launch that proves results of *stage* on pixels of *shape*, (H, W, C).

    None where the host is to do it: proof.cu does not take it, or takes longer. *slowness* is
    float32's speed over double's.
    """
    if stage is None or math.prod(shape) < LEAST_SAMPLES:
        return None
    layout = Layout(shape[2], np.dtype(dtype).name, stage.border, alpha)
    return _plan(stage, layout, slowness)


@functools.lru_cache(16)
def _plan(stage: Stage, layout: Layout, slowness: int) -> Proof | None:
    operation = stage.operation
    if not isinstance(operation, Correlation) or layout.dtype == "float32":
        return None
    factored = {kernel.factors is not None for kernel in operation.kernels}
    if len(factored) > 1 or operation.slack(layout.dtype, layout.alpha) is None:
        return None
    filtered = layout.alpha and operation.alpha == "filter"
    if operation.combine == "magnitude" and filtered:  # a quotient of roots has no plain bound
        return None
    rank1 = factored.pop()
    rows, columns = operation.size
    taps = len(operation.kernels) * (rows + columns if rank1 else rows * columns)
    if taps * slowness > MOST_TAPS:
        return None
    full = layout.full
    most = max(kernel.magnitude for kernel in operation.kernels) * full
    if not (most < 1e100 and abs(operation.gain) < 1e100):  # or infinity takes part
        return None
    bound = 0.0
    if operation.combine == "magnitude":
        if 0 < most < 1e-100:  # squares would vanish
            return None
        bound = _bound(operation, full)

    def numbers() -> npt.NDArray[np.floating]:
        sums = [kernel.sum for kernel in operation.kernels] + [0.0]
        return np.concatenate(
            [
                [operation.gain, operation.source_gain],
                [operation.bias * full, operation.threshold * full, bound],
                sums[:2],
                flat(operation, factored=rank1),
            ]
        )

    defines = defines_of(operation, layout) | tile_macros(THREADS, (THREADS[0], THREADS[1]))
    return Proof(
        "proof", defines | {"FACTORED": int(rank1)}, numbers, task_of(operation, layout),
        float(taps), bound, stage,
    )  # fmt: skip


def _bound(filter: Correlation, full: float) -> float:
    """How far a magnitude may be from the definition's, whose sums have the same bits.

    A square rounds by u, a sum of two by u and a root halves that and rounds: 2 u here, and hypot
    may be off by 2 u. What becomes of it rounds at most six times more on each side. Kept alpha
    sums twice, terms of twice that size.
    """
    magnitude = abs(filter.gain) * float(np.linalg.norm([k.magnitude for k in filter.kernels]))
    terms = 4 * magnitude + abs(filter.source_gain) + abs(filter.bias) + abs(filter.threshold)
    return 32 * UNIT * terms * full


def prove(
    device: Device,
    slot: Slot,
    launch: Proof,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    partial: bool = False,
    use: str = "source",
) -> Screened | None:
    """What *launch* finds of the source and the result, of *shape*, that *slot* holds.

    *partial* is Screened's; *use* is the name of the source's memory there. None where the list is
    too short, or memory for it lacks: the host is to do it all.
    """
    size = shape[0], shape[1]
    try:
        applied = device.apply(slot, launch, size, size, uses=(use, "out", "proof"))
    except device.out_of_memory:
        return None
    with slot.timed("prove"):
        applied.run(applied.passes())
    head = np.empty((1, HEAD // 8), np.uint64)
    slot.download(head, applied.scratch, HEAD)
    slot.finish()
    listed, right = (int(count) for count in head[0])
    if listed > launch.listed(size):
        return None
    entries = np.empty((listed, ENTRY // 8), np.float64)
    slot.download(entries, applied.scratch + HEAD, ENTRY)
    slot.finish()
    places = entries[:, 0].copy().view(np.uint64).astype(np.intp)
    order = np.argsort(places)
    return Screened(
        places[order], entries[order, 1], entries[order, 2].astype(dtype), launch.bound, right,
        tenth(size[0]), partial,
    )  # fmt: skip


def kept(
    device: Device,
    slot: Slot,
    places: tuple[Place, Place],
    shape: tuple[int, int, int],
    dtype: str,
    alpha: bool,
    stage: Stage | None,
    use: str = "source",
) -> tuple[tuple[Pixels, Pixels], Screened | None]:
    """The source and the result, which lie at *places*, once they are downloaded.

    They are whole, or what the device's proof of *stage* leaves to do. For that the source is in
    the slot's memory *use*, the result in ``out``.
    """
    height = shape[0]
    source = np.empty(shape, dtype)
    result, screened = np.empty_like(source), None
    theirs = ours = [(0, height)]
    if stage is not None:
        if (launch := planned(stage, shape, dtype, alpha, device.slowness)) is not None:
            screened = prove(device, slot, launch, shape, dtype, partial=True, use=use)
        if screened is not None:
            ours, theirs = [*screened.rows], tapped(screened.rows, *stage, height)
    for pixels, (address, pitch), rows in zip(
        (source, result), places, (theirs, ours), strict=True
    ):
        for first, last in rows:
            slot.download(pixels[first:last], address + first * pitch, pitch)
    return (source, result), screened
