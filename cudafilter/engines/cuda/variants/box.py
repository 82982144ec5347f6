"""Launches of box.cu: equal weights on integers, by running sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from cudafilter.engines.cuda.variants import stream
from cudafilter.engines.cuda.variants.task import (
    Launch,
    Layout,
    Pass,
    Size,
    Task,
    defines_of,
    takes,
    taps,
    task_of,
)
from cudafilter.errors import LimitError
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.make import make

EDGE_THREADS = 256

ALIGNED = (16, 8)
"""Samples of 16 bytes by the macro SAMPLE; a lane has three times as many."""

MOST_WARPS = (4, 8)
"""Warps that may share a strip, by SAMPLE: as many as fit into shared memory."""

HALO_SHARE = 8
"""A strip should be at least so many times as wide as its halo, which only costs time."""

START = 1 / 6
"""Cost of adding a row to the first column sums, in rows of output."""

LEAST_START = 32
"""Fewest rows of a kernel for which the pass ``starts`` may pay."""

STARTS = 3
"""Cost of the pass ``starts``, in rows of output."""

SHARES = (1, 1 / 2, 1 / 4, 1 / 8, 1 / 16)
"""Shares of the blocks that run at a time: in small images fewer, longer walks start cheaper."""

EVEN = 8.5
"""Taps of the longer side at which this takes as long as stream.cu: on an H100 about 7 for uint8
RGB and 9 for uint8 gray."""


@dataclass(frozen=True, eq=False)
class Box(Launch):
    """A launch of one block for each strip. Passes before it copy strips at the border and sum up
    rows."""

    functions: ClassVar[tuple[str, ...]] = ("filter", "edges", "starts")

    def scratch_bytes(self, source_size: Size, out_size: Size, origin: Size, resident: int) -> int:
        """See Launch.scratch_bytes."""
        found = self._strips(source_size[1], out_size[1], origin[1])
        row = length(self.defines["SAMPLE"], self.defines["WARPS"]) * self.itemsize
        return found.edges * source_size[0] * row + start_bytes(
            self.task.kernel_height, out_size[0], found.strips, resident, self.defines
        )

    def _strips(self, source_width: int, width: int, x0: int) -> Geometry:
        return geometry(
            self.task.kernel_width, self.task.anchor_x, self.defines["SAMPLE"], self.channels,
            self.defines["WARPS"], source_width, width, x0,
        )  # fmt: skip

    def _passes(self, task: Task, resident: int) -> list[Pass]:
        strips = self._strips(task.source_width, task.width, task.x0)
        task.columns, task.blocks_x, task.edges_left, task.edges_right = strips
        task.rows, task.starts, task.piece = walk(
            task.kernel_height, task.height, task.blocks_x, resident, self.defines
        )
        down = -(-task.height // task.rows)
        passes = [self._pass(task, task.blocks_x * down)]
        if task.starts:
            pieces = (down - 1) * (task.rows // task.piece) + task.starts
            passes.insert(0, self._pass(task, task.blocks_x * pieces, "starts"))
        if strips.edges:
            blocks = strips.edges * task.source_height
            passes.insert(0, self._pass(task, blocks, "edges", EDGE_THREADS))
        return passes


@takes(Correlation)
def plan(filter: Correlation, layout: Layout) -> Launch | LimitError:
    """The launch of *filter*, or why there is none."""
    found = weight(filter, layout)
    if found is None:
        return LimitError(
            "the box kernel takes equal weights, integers without alpha and windows whose sum is"
            f" below 2^32; this is not so for {filter.name} on these pixels",
            hint="use --variant auto",
        )
    defines = defines_of(filter, layout) | specialise(filter, layout)
    cost = taps(filter) * EVEN / max(filter.size)
    return Box("box", defines, lambda: np.array([found]), task_of(filter, layout), cost)


def hardest() -> list[Correlation]:
    """Boxes of each set of macros."""
    return [make("box", radius=radius) for radius in (15, 60, 100, 200, 500, 1400)]


class Geometry(NamedTuple):
    """How an image is cut into strips."""

    columns: int
    """Output pixels across a strip."""
    strips: int
    edges_left: int
    """Strips from the left that reach beyond the image."""
    edges_right: int
    """First strip that reaches beyond the image on the right; where none does, the number of
    strips."""

    @property
    def edges(self) -> int:
        """Strips that need a bordered copy."""
        return self.edges_left + self.strips - self.edges_right


def weight(filter: Correlation, layout: Layout) -> float | None:
    """The one weight of all taps of *filter*; None where box.cu cannot run it.

    It takes one kernel of equal weights, integers without alpha, windows whose sum is below 2^32,
    and halos of half a strip at most.
    """
    kernel = filter.kernels[0]
    if len(filter.kernels) > 1 or layout.alpha or kernel.factors is None:
        return None
    if filter.source_gain or filter.threshold or np.dtype(layout.dtype).kind != "u":
        return None
    column, row = kernel.factors
    if np.ptp(column) or np.ptp(row):
        return None
    rows, columns = filter.size
    if rows * columns * layout.full >= 2**32:
        return None
    sample = layout.sample
    if layout.channels * columns > length(sample, MOST_WARPS[sample]) // 2:
        return None
    return float(column[0] * row[0])


def length(sample: int, warps: int) -> int:
    """Samples of a strip with its halo."""
    return warps * 32 * 3 * ALIGNED[sample]


def specialise(filter: Correlation, layout: Layout) -> dict[str, int]:
    """The macros of box.cu beyond pixel.cuh's."""
    (rows, columns), sample, channels = filter.size, layout.sample, layout.channels
    warps = 1
    while warps < MOST_WARPS[sample] and length(sample, warps) < HALO_SHARE * columns * channels:
        warps *= 2
    full = layout.full
    return {
        "WARPS": warps,
        "LENGTH": length(sample, warps),
        "EDGE_THREADS": EDGE_THREADS,
        "NARROW": int(sample == 0 and rows * full < 1 << 16),
        "SMALL": int(rows * columns * full < 1 << 23),
    }


def geometry(
    kernel_width: int, anchor_x: int, sample: int, channels: int, warps: int,
    source_width: int, width: int, x0: int,
) -> Geometry:  # fmt: skip
    """The strips of an output *width* pixels wide that starts at *x0* in the source."""
    whole = length(sample, warps)
    most = (whole - ALIGNED[sample]) // channels - kernel_width
    strips = -(-width // most)
    columns = -(-width // strips)
    strips = -(-width // columns)
    firsts = [
        (x0 + strip * columns - anchor_x - 1) * channels // ALIGNED[sample] * ALIGNED[sample]
        for strip in range(strips)
    ]
    left = sum(first < 0 for first in firsts)
    right = sum(first + whole <= source_width * channels for first in firsts)
    return Geometry(columns, strips, left, max(left, right))


class Walk(NamedTuple):
    """How far down a block goes, and how it starts."""

    rows: int
    """Output rows a block."""
    starts: int = 0
    """How many sums a block begins with; 0 where it adds up all its rows itself."""
    piece: int = 1
    """Rows of each of these sums; ``rows`` is a multiple of it."""


def walk(
    kernel_height: int, height: int, strips: int, resident: int, defines: Mapping[str, int]
) -> Walk:
    """The walks over *height* rows of *strips*, for the shortest time in all.

    *resident* blocks run at a time. Times are in rows of output.
    """

    def time(rows: int, start: float) -> float:
        waves = -(-strips * -(-height // rows) // resident)
        return waves * (rows + start + stream.START)

    before = kernel_height - 1
    best = Walk(stream.rows_a_block(int(START * before), height, strips, resident))
    least = time(best.rows, START * before)
    if kernel_height < LEAST_START:
        return best
    wanted = _piece(kernel_height, defines)
    for share in SHARES:
        down = max(1, int(resident * share) // strips)
        rows = -(-height // down)
        pieces = max(1, round(rows / wanted))
        piece = -(-rows // pieces)
        rows = piece * pieces
        starts, rest = divmod(before, piece)
        if before > rows * down or not starts:
            continue
        start = START * (starts * _cost(defines) + rest)
        taken = time(rows, start) + START * rows + STARTS
        if taken < least:
            best, least = Walk(rows, starts, piece), taken
    return best


def start_bytes(
    kernel_height: int, height: int, strips: int, resident: int, defines: Mapping[str, int]
) -> int:
    """Most bytes of device memory that the sums of walk() take, over up to *height* rows."""
    if kernel_height < LEAST_START:
        return 0
    # A piece has two thirds of the rows that it should have, or more. Or it is as long as a walk:
    # then there are as many as walks below each other, and as many again for the last start.
    pieces = 1.5 * (height + kernel_height) / _piece(kernel_height, defines)
    most = min(max(int(pieces), 2 * (resident // strips)) + 2, height + kernel_height)
    return strips * most * 32 * defines["WARPS"] * 4 * _sums(defines)


def _piece(kernel_height: int, defines: Mapping[str, int]) -> float:
    """Rows of a piece with which a block starts soonest. Longer ones leave more rows over, shorter
    ones are more to add."""
    return float(np.sqrt(2 * _cost(defines) * kernel_height))


def _cost(defines: Mapping[str, int]) -> float:
    """Cost of reading a lane's sums, in rows of its samples, by their bytes."""
    return 4 * _sums(defines) / (3 * 16)


def _sums(defines: Mapping[str, int]) -> int:
    """SUMS of box.cu: the words that hold a lane's column sums."""
    return 3 * ALIGNED[defines["SAMPLE"]] // (2 if defines["NARROW"] else 1)
