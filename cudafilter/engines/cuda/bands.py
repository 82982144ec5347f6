"""Which rows and columns of an image the GPU works on at a time; no driver call is made here."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.variants.task import row_pitch
from cudafilter.errors import LimitError
from cudafilter.operations.borders import Border, border_index, extract
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels

Band = tuple[tuple[int, int], tuple[int, int]]
"""(first row, end), (first column, end) of the output."""


def block_of(
    pixels: Pixels,
    filter: Operation,
    border: Border,
    rows: tuple[int, int],
    columns: tuple[int, int],
) -> tuple[Pixels, tuple[int, int]]:
    """The part of *pixels* that a band taps, borders included, and where (y, x) the band starts.

    The block brings its halo along, so the kernel never reads past it. It starts a multiple of 32
    columns before the band, as stream.cu wants it.
    """
    above, below, left, right = filter.reach
    left = -(-left // 32) * 32
    block = extract(
        pixels,
        (rows[0] - above, rows[1] + below),
        (columns[0] - left, columns[1] + right),
        border,
    )
    return np.ascontiguousarray(block), (above, left)


def cut(
    out: Pixels,
    filter: Operation,
    budget: int,
    alignment: int = 1,
    source_rows: int | None = None,
) -> list[Band]:
    """Bands of *out*, each of which fits with its source and halo into *budget* bytes.

    The source has as many rows, or *source_rows*.
    Bands are as large as fits: the whole image, else full rows, else pieces of *alignment* rows.
    All start at multiples of *alignment* rows and columns. Raises LimitError where a piece of
    *alignment* rows and columns with its halo does not fit.
    """
    height, width, channels = out.shape
    pixel = channels * out.itemsize
    out_row = row_pitch(width, pixel)
    if (height + (source_rows or height)) * out_row <= budget:
        return [((0, height), (0, width))]

    def aligned(count: int) -> int:
        return count // alignment * alignment

    above, below, left, right = filter.reach
    halo = left + 31 + right  # see block_of
    source_row = row_pitch(width + halo, pixel)
    rows = aligned((budget - (above + below) * source_row) // (source_row + out_row))
    columns = width
    if rows < alignment:
        rows = alignment

        def needed(columns: int) -> int:
            source = (above + rows + below) * row_pitch(columns + halo, pixel)
            return source + rows * row_pitch(columns, pixel)

        steps = range(alignment, width + alignment, alignment)
        columns = alignment * bisect_right(steps, budget, key=needed)
        if not columns:
            raise LimitError(
                f"{alignment}x{alignment} pixels with the halo of {filter.name}'s kernel need"
                f" {needed(alignment):,} bytes of GPU memory; {budget:,} are free"
            )
    return [
        ((y, min(y + rows, height)), (x, min(x + columns, width)))
        for y in range(0, height, rows)
        for x in range(0, width, columns)
    ]


def last_taps(
    filter: Operation, border: Border, source_rows: int, first: int, rows: int
) -> npt.NDArray[np.intp]:
    """For each of *rows* output rows, the last source row that it or any row above it taps.

    Output starts at source row *first*; the source has *source_rows*. What a border reads counts:
    under ``wrap`` the first rows tap the last ones. Never falls from row to row.
    """
    above, below, _, _ = filter.reach
    tapped = border_index(first - above, first + rows + below, source_rows, border.mode)
    return np.asarray(np.maximum.accumulate(tapped)[above + below :])
