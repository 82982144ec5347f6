"""Which rows and columns of an image the GPU works on at a time; no driver call is made here."""

from __future__ import annotations

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

    Bordered here, the block's own border is never tapped. It starts a multiple of 32 columns
    before the band, as stream.cu wants it.
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


def cut(pixels: Pixels, filter: Operation, budget: int, step: int = 1) -> list[Band]:
    """Output bands, each of which fits with its halo into *budget* bytes.

    The whole image in one where it fits; else bands of full rows; else, where not even *step* rows
    with their halo fit, pieces of these. All start at multiples of *step* rows and columns. Raises
    LimitError where not *step* rows of so many pixels with their halo do.
    """
    height, width, channels = pixels.shape
    pixel = channels * pixels.itemsize
    out_row = row_pitch(width, pixel)
    if 2 * height * out_row <= budget:
        return [((0, height), (0, width))]
    above, below, left, right = filter.reach
    halo = left + 31 + right  # see block_of
    source_row = row_pitch(width + halo, pixel)
    rows = (budget - (above + below) * source_row) // (source_row + out_row) // step * step
    columns = width
    if rows < step:
        rows, lines = step, above + below + 2 * step
        columns = ((budget // lines - row_pitch(0, pixel) - 127) // pixel - halo) // step * step
        if columns < step:
            least = (above + step + below) * row_pitch(step + halo, pixel)
            least += step * row_pitch(step, pixel)
            raise LimitError(
                f"{step}x{step} pixels with the halo of {filter.name}'s kernel need {least:,} bytes"
                f" of GPU memory; {budget:,} are free"
            )
    return [
        ((y, min(y + rows, height)), (x, min(x + columns, width)))
        for y in range(0, height, rows)
        for x in range(0, width, columns)
    ]


def last_taps(
    filter: Operation, border: Border, source_rows: int, first: int, rows: int
) -> npt.NDArray[np.intp]:
    """For each of *rows* output rows, the last source row that it or a row above it taps.

    Output starts at source row *first*; the source has *source_rows*. What a border reads counts:
    under ``wrap`` the first rows tap the last ones. Never falls from row to row.
    """
    above, below, _, _ = filter.reach
    tapped = border_index(first - above, first + rows + below, source_rows, border.mode)
    return np.asarray(np.maximum.accumulate(tapped)[above + below :])
