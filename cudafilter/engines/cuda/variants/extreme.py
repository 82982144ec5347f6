"""Launches of extreme.cu: the least and the largest of rectangles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cudafilter.engines.cuda.variants.ranks import pick, rank_macros, rank_task
from cudafilter.engines.cuda.variants.stream import blocks_a_multiprocessor, rows_a_block
from cudafilter.engines.cuda.variants.task import Launch, Layout, Pass, Size, Task, row_pitch, takes
from cudafilter.errors import LimitError
from cudafilter.operations.rank import Rank, dilation, erosion
from cudafilter.operations.window import square

OUTPUTS = (16, 16, 8)
"""Samples a lane, by SAMPLE."""

MOST_ROWS = 40
"""Rows of a window that go down in one walk: past four each one takes shared memory of a warp."""

MOST_REACH = (96, 64, 40)
"""Samples that a window taps to the right of its first one in one go, by SAMPLE: a lane has them in
registers."""

JOIN_THREADS = 128

IN_REGISTERS = 4
"""As in extreme.cu: so many rows, and no more, are kept in registers for one step down."""

COST = 2
"""A sample, in comparisons of network.cu, beside one for each doubling: an estimate."""

MARGIN = 40
"""Registers beside the samples: addresses, counters. Where that is too few, nvcc.py compiles for
fewer warps."""


@dataclass(frozen=True, eq=False)
class Extreme(Launch):
    """A launch of one warp a walk; of larger windows, some that join theirs."""

    functions: ClassVar[tuple[str, ...]] = ("filter", "join")

    def scratch_bytes(self, source_size: Size, out_size: Size, origin: Size, resident: int) -> int:
        """See Launch.scratch_bytes."""
        return sum(self._image_bytes(size) for size in self._sizes(out_size)[:-1][:2])

    def _sizes(self, out_size: Size) -> list[Size]:
        """(height, width) of what each launch makes; the last one makes the output."""
        whole = self.task.kernel_height, self.task.kernel_width
        base = self.defines["ROWS"], self.defines["COLUMNS"]
        reached = [base]
        for more in joins(base, whole):
            reached.append((reached[-1][0] + more[0], reached[-1][1] + more[1]))
        return [
            (out_size[0] + whole[0] - rows, out_size[1] + whole[1] - columns)
            for rows, columns in reached
        ]

    def _pitch(self, size: Size) -> int:
        return row_pitch(size[1], self.channels * self.itemsize)

    def _image_bytes(self, size: Size) -> int:
        return size[0] * self._pitch(size)

    def _passes(self, task: Task, resident: int) -> list[Pass]:
        rows, outputs = self.defines["ROWS"], self.defines["OUTPUTS"]
        sizes = self._sizes((task.height, task.width))
        # What launches make lies in two places of the scratch memory by turns.
        second = self._image_bytes(sizes[0]) if len(sizes) > 1 else 0
        places = [task.scratch + i % 2 * second for i in range(len(sizes) - 1)] + [task.out]
        pitches = [self._pitch(size) // self.itemsize for size in sizes[:-1]] + [task.out_pitch]
        first = self._part(task, sizes[0], places[0], pitches[0])
        first.blocks_x = -(-first.width * self.channels // (32 * outputs))
        first.rows = rows_a_block(rows, first.height, first.blocks_x, resident)
        passes = [self._pass(first, first.blocks_x * -(-first.height // first.rows))]
        base = rows, self.defines["COLUMNS"]
        whole = task.kernel_height, task.kernel_width
        for i, more in enumerate(joins(base, whole), 1):
            part = self._part(task, sizes[i], places[i], pitches[i])
            part.source, part.source_pitch = places[i - 1], pitches[i - 1]
            part.rows, part.columns = more
            samples = JOIN_THREADS * 16 // self.itemsize
            part.blocks_x = -(-part.width * self.channels // samples)
            passes.append(self._pass(part, part.blocks_x * part.height, "join", JOIN_THREADS))
        return passes

    @staticmethod
    def _part(task: Task, size: Size, place: int, pitch: int) -> Task:
        part = Task.from_buffer_copy(task)
        part.height, part.width = size
        part.out, part.out_pitch = place, pitch
        return part


@takes(Rank)
def plan(rank: Rank, layout: Layout) -> Launch | LimitError:
    """The launch of *rank*, or why there is none."""
    if not pick(rank) or rank.window.inside is not None:
        return LimitError(
            f"the extreme kernel takes the least or the largest of a rectangle; {rank.name} is"
            + (" another rank" if not pick(rank) else " of a window with a mask"),
            hint="use --variant auto",
        )
    sample, channels = layout.sample, layout.channels
    rows = min(rank.window.shape[0], MOST_ROWS)
    columns = min(rank.window.shape[1], 1 + MOST_REACH[sample] // channels)
    steps_across, steps_down = ((side - 1).bit_length() for side in rank.window.shape)
    own = {
        "ROWS": rows, "COLUMNS": columns, "LEFT": rank.window.anchor[1],
        "OUTPUTS": OUTPUTS[sample], "LARGEST": int(rank.is_largest),
        "JOIN_THREADS": JOIN_THREADS, "BLOCKS": _blocks(rows, columns * channels, sample),
    }  # fmt: skip
    return Extreme(
        "extreme", rank_macros(layout) | own, lambda: np.empty(0), rank_task(rank, layout),
        COST + steps_across + steps_down,
    )  # fmt: skip


def hardest() -> list[Rank]:
    """Windows that are usual, and at the limits of registers and of shared memory."""
    sides = (3, 5, 7, 15, 31)
    return [erosion(square(side // 2)) for side in sides] + [
        dilation(square(1)), dilation(square(20)), erosion(square(60)),
    ]  # fmt: skip


def joins(base: Size, whole: Size) -> Iterator[Size]:
    """(rows, columns) between the two windows that each launch joins, from *base* to *whole*."""
    rows, columns = base
    while (rows, columns) != whole:
        more = min(rows, whole[0] - rows), min(columns, whole[1] - columns)
        yield more
        rows, columns = rows + more[0], columns + more[1]


def _blocks(rows: int, reach: int, sample: int) -> int:
    """BLOCKS of extreme.cu."""
    a_register = 1 if sample == 2 else 2
    outputs = OUTPUTS[sample] // a_register
    steps = [1 << i for i in range(rows.bit_length() - 1)]
    steps.append(rows - (1 << rows.bit_length() - 1))
    near = sum(step for step in steps if step <= IN_REGISTERS)
    return blocks_a_multiprocessor(MARGIN + outputs * (near + 2) + reach // a_register)
