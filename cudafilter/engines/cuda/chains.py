"""Chains on the device: what is launched one after the other, with nothing on the host between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle, pairwise
from math import lcm

import numpy as np

from cudafilter.engines.chains import in_fractions, leading, picks
from cudafilter.engines.cuda.device import Applied, Device
from cudafilter.engines.cuda.slots import Slot
from cudafilter.engines.cuda.variants import AUTO
from cudafilter.engines.cuda.variants.ladder import prepare
from cudafilter.engines.cuda.variants.point import NOTHING, launch
from cudafilter.engines.cuda.variants.task import Launch, Layout, Size, row_pitch
from cudafilter.engines.cuda.variants.together import WRAP, Together, grouped
from cudafilter.errors import LimitError
from cudafilter.operations.borders import Border, extract
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.operation import Operation, Stage, needs_whole, split
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.point import Points
from cudafilter.operations.precision import between as between_stages


@dataclass(frozen=True)
class Stretch:
    """Launches that follow each other on the device.

    A band of it is rows of the image with as many around as all stages reach. Where they end is
    not the image's end, and what borders make of that gets no further than these rows.
    """

    stages: tuple[Stage, ...]
    """As they are launched: those that one launch does are one."""
    launches: tuple[Launch, ...]
    """Of the stages, and those that turn integers into floats and back."""

    @property
    def joined(self) -> bool:
        """Whether one launch does several stages."""
        return any(isinstance(stage.operation, Together) for stage in self.stages)

    @property
    def wraps(self) -> bool:
        """Whether what lies outside is the other end of the image."""
        return any(stage.border.mode == WRAP for stage in self.stages)

    @property
    def whole(self) -> bool:
        """Whether it takes the image as a whole: bands would not know its other end."""
        far = any(needs_whole(s) and not isinstance(s.operation, Together) for s in self.stages)
        return far or _mixed(self.stages)

    @property
    def alignment(self) -> int:
        """Bands start at multiples of so many rows."""
        return lcm(*(each.alignment for each in self.launches))

    @property
    def halo(self) -> tuple[int, int]:
        """Rows above and below that a band needs."""
        reaches = [stage.operation.reach for stage in self.stages]
        return sum(reach[0] for reach in reaches), sum(reach[1] for reach in reaches)

    def image_bytes(self, rows: int, width: int) -> int:
        """Bytes of the largest of the images between launches, of so many rows."""
        return max(
            rows * row_pitch(width, each.channels * max(each.itemsize, each.out_itemsize))
            for each in self.launches
        )

    def block(self, pixels: Pixels, first: int, end: int) -> tuple[Pixels, int]:
        """The rows of *pixels* that rows *first* to *end* - 1 need, and where these begin."""
        height, width, _ = pixels.shape
        above, below = self.halo
        start = (first - above) // self.alignment * self.alignment
        if not self.wraps:
            start = max(0, start)
            return pixels[start : min(end + below, height)], first - start
        rows = extract(pixels, (start, end + below), (0, width), Border(WRAP))
        return np.ascontiguousarray(rows), first - start


def stretch_of(
    stages: Sequence[Stage], channels: int, dtype: str, alpha: bool, variant: str
) -> Stretch:
    """The launches of *stages*, by the kernel *variant*. Raises LimitError."""

    def launches(some: Sequence[Stage], kind: str) -> list[Launch]:
        return [
            prepare(each.operation, channels, kind, each.border, alpha, variant) for each in some
        ]

    joins = variant == AUTO and not _mixed(stages)

    def arranged(some: Sequence[Stage], kind: str) -> list[Stage]:
        """*some* as they are launched on samples of *kind*."""
        if kind == "float64" and not alpha:
            return [each for stage in some for each in _in_two(stage)]
        if kind != "float32" or not joins:
            return list(some)
        # Where bits depend on cuts, an image by rows goes through stage by stage; see flow.py.
        cut_anywhere = all(each.alignment == 1 for each in launches(some, kind))
        return grouped(some, alpha) if cut_anywhere else list(some)

    if dtype.startswith("float") or picks(tuple(stages)):
        stages = arranged(stages, dtype)  # as in the middle of a chain: the same bits
        return Stretch(tuple(stages), tuple(launches(stages, dtype)))
    picked, rest = split(tuple(stages))
    floats = between_stages(rest, np.dtype(dtype), alpha).name
    first, rest = leading(rest)
    between = [each for each in in_fractions(rest, np.dtype(dtype)) if isinstance(each, Stage)]
    last = NOTHING
    if between and isinstance(points := between[-1].operation, Points):
        last = points
        between.pop()
    between = arranged(between, floats)
    into = launch(first or NOTHING, Layout(channels, dtype, alpha=alpha), floats)
    out_of = launch(last, Layout(channels, floats, alpha=alpha), dtype)
    done = [each for each in picked if isinstance(each, Stage)]
    return Stretch(
        (*done, *between), (*launches(done, dtype), into, *launches(between, floats), out_of)
    )


def stretch_for(
    filter: Operation, border: Border, channels: int, dtype: str, alpha: bool, variant: str
) -> Stretch | None:
    """The launches of *filter*; None where it leaves the image as it is. Raises LimitError."""
    plan = filter.unrolled(border)
    stages = [each for each in plan if isinstance(each, Stage)]
    if len(stages) < len(plan):
        raise LimitError(
            f"{filter.name} takes the difference of two results on the host, and the pixels are on"
            " a GPU",
            hint="make both results there and subtract them, or download the pixels first",
        )
    if len(stages) > 1:
        return stretch_of(stages, channels, dtype, alpha, variant)
    launches = (prepare(each, channels, dtype, edge, alpha, variant) for each, edge in stages)
    return Stretch(tuple(stages), tuple(launches)) if stages else None


def _in_two(stage: Stage) -> tuple[Stage, ...]:
    """*stage* down and then across, where that is the same: double.cu takes each tap by itself."""
    operation, border = stage
    if not isinstance(operation, Correlation) or min(operation.size) == 1:
        return (stage,)
    plain = not (operation.source_gain or operation.threshold or border.value)
    if len(operation.kernels) > 1 or not plain:
        return (stage,)
    (kernel,) = operation.kernels
    if kernel.factors is None:
        return (stage,)
    (column, row), (y, x) = kernel.factors, kernel.anchor
    down = Correlation(operation.name, (Kernel.outer(column, [1.0], (y, 0)),))
    across = replace(operation, kernels=(Kernel.outer([1.0], row, (0, x)),))
    return Stage(down, border), Stage(across, border)


def _mixed(stages: Sequence[Stage]) -> bool:
    """Whether some borders come round and others do not."""
    return any((a.border.mode == WRAP) != (b.border.mode == WRAP) for a, b in pairwise(stages))


def scratch_bytes(device: Device, stretch: Stretch, size: Size) -> int:
    """Device memory that the launches of *stretch* take beside their images, of *size*."""
    return max(device.scratch_bytes(each, size, size) for each in stretch.launches)


def placed(
    device: Device, slot: Slot, stretch: Stretch, size: Size, second: str = "source"
) -> list[Applied]:
    """The launches of *stretch*, which hand images of *size* on in two buffers of *slot* by turns.

    One is ``out`` and the *second* the source's own, unless that is to stay as it is.
    """
    for use in {"source", "out", second}:  # before any launch has its address
        slot.memory(use, stretch.image_bytes(*size))
    slot.memory("scratch", scratch_bytes(device, stretch, size))
    way = chain([("source", "out")], cycle((("out", second), (second, "out"))))
    return [
        device.apply(slot, each, size, size, uses=(*uses, "scratch"))
        for each, uses in zip(stretch.launches, way, strict=False)
    ]


class Stretched:
    """*rows* of *pixels* on their way through *stretch*, into ``out``."""

    def __init__(
        self, device: Device, stretch: Stretch, pixels: Pixels, rows: tuple[int, int]
    ) -> None:
        self._device, self._stretch, self._pixels, self._rows = device, stretch, pixels, rows
        self.out = np.empty_like(pixels[slice(*rows)])

    def rows_at_once(self, slot: Slot, share: Callable[[], int]) -> int:
        """Rows of a band that memory allows, *share* bytes unless it is capped; 0 for none."""
        stretch, width = self._stretch, self._pixels.shape[1]
        limit, height = self._device.memory_limit, len(self._pixels)
        rows = height
        while True:
            # A band starts earlier where its rows are aligned.
            lines = min(height, rows + sum(stretch.halo) + stretch.alignment)
            image = stretch.image_bytes(lines, width)
            scratch = scratch_bytes(self._device, stretch, (lines, width))
            if limit is None and slot.holds(source=image, out=image, scratch=scratch):
                return rows
            if 2 * image + scratch <= (share() if limit is None else limit):
                return rows
            rows = self._halved(rows)
            if not rows:
                return 0

    def squeeze(self, slot: Slot) -> bool:
        """run() in bands that are halved until they find memory; whether they did."""
        rows = len(self._pixels)
        while rows:
            try:
                return self.run(slot, rows)
            except self._device.out_of_memory:
                slot.abandon()
                slot.free()
                rows = self._halved(rows)
        return False

    def run(self, slot: Slot, rows: int) -> bool:
        """All launches, *rows* at a time; whether there are any."""
        if not rows:
            return False
        (height, width, _), (top, bottom) = self._pixels.shape, self._rows
        for first in range(top, bottom, rows):
            end = min(first + rows, bottom)
            if rows >= height:
                block, offset = self._pixels, first
            else:
                block, offset = self._stretch.block(self._pixels, first, end)
            applied = placed(self._device, slot, self._stretch, (block.shape[0], width))
            for _ in slot.upload(block, applied[0].source, applied[0].source_pitch):
                pass
            for each in applied:
                each.queue()
            pitch = applied[-1].out_pitch
            part = self.out[first - top : end - top]
            slot.download(part, applied[-1].out + offset * pitch, pitch)
            slot.finish()
        return True

    def _halved(self, rows: int) -> int:
        """About half of *rows*, a multiple of the alignment; 0 where it takes all, or no less."""
        alignment = self._stretch.alignment
        if self._stretch.whole or rows <= alignment:
            return 0
        return max(1, rows // 2 // alignment) * alignment
