"""PNG's row filters: each row as differences from what stands to the left of it or above."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cudafilter.formats.deflate import FAST, STORED
from cudafilter.operations.pixels import Pixels

Bytes = npt.NDArray[np.uint8]
NONE, SUB, UP, AVERAGE, PAETH = range(5)


def filtered(pixels: Pixels, start: int, stop: int, level: int) -> Bytes:
    """Rows *start* to *stop* of *pixels* (H, W, C), each behind the number of its filter.

    Compression levels past the fast one choose a filter for each row. The fast one takes "up", the
    cheapest that helps photos and drawings alike.
    """
    top = max(0, start - 1)
    block = pixels[top:stop].astype(pixels.dtype.newbyteorder(">"), copy=False)
    block = block.reshape(stop - top, -1).view(np.uint8)
    rows = block[start - top :]
    above = block[:-1] if top < start else np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    out = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    if level == STORED:
        out[:, 0], out[:, 1:] = NONE, rows
    elif level == FAST:
        out[:, 0] = UP
        np.subtract(rows, above, out=out[:, 1:])
    else:
        _choose(rows, above, pixels.shape[2] * pixels.dtype.itemsize, out)
    return out


def _choose(rows: Bytes, above: Bytes, pixel: int, out: Bytes) -> None:
    """Filter each row in the way of the least sum of magnitudes, as the specification advises."""
    least = np.full(len(rows), np.iinfo(np.int64).max)
    for kind, differences in _ways(rows, above, pixel):
        # A difference is signed, so 255 is as small as 1.
        sums = np.minimum(differences, 0 - differences).sum(axis=1, dtype=np.int64)
        better = sums < least
        least[better] = sums[better]
        out[better, 0] = kind
        out[better, 1:] = differences[better]


def _ways(rows: Bytes, above: Bytes, pixel: int) -> Iterator[tuple[int, Bytes]]:
    """Each filter and what it makes of *rows*, whose pixels have *pixel* bytes."""
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, pixel:], corner[:, pixel:] = rows[:, :-pixel], above[:, :-pixel]
    yield NONE, rows
    yield SUB, rows - left
    yield UP, rows - above
    yield AVERAGE, rows - ((left & above) + ((left ^ above) >> 1))  # without overflow
    # Paeth predicts by the neighbour that is nearest to left + above - corner.
    from_corner = above.astype(np.int16) - corner
    across = left.astype(np.int16) - corner
    to_left, to_above = np.abs(from_corner), np.abs(across)
    to_corner = np.abs(from_corner + across)
    nearest = np.where(to_above <= to_corner, above, corner)
    nearest = np.where((to_left <= to_above) & (to_left <= to_corner), left, nearest)
    yield PAETH, rows - nearest
