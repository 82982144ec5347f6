"""Ranks of windows by networks of exchanges: least and largest of two, sample by sample.

Exact for all that can be compared: what comes out is one of the samples. NaN is none of these.
"""

from __future__ import annotations

import numpy as np

from cudafilter.operations.borders import OUTSIDE, Border, border_index
from cudafilter.operations.operation import Fork, Plan, stages_of
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.rank import Rank
from cudafilter.proof.planes import Image, Planes

MEDIAN_OF_9 = (
    (0, 1), (3, 4), (6, 7), (1, 2), (4, 5), (7, 8), (0, 1), (3, 4), (6, 7), (0, 3), (5, 8),
    (4, 7), (3, 6), (1, 4), (2, 5), (4, 7), (4, 2), (6, 4), (4, 2),
)  # fmt: skip
"""Exchanges after which the middle of nine samples lies at 4: the lesser one of each two goes to
the first place. A test holds it to all orders of zeros and ones, which proves it for all."""


ROWS = 32
"""Rows at a time, and as many more as the windows reach."""


class Ranked:
    """Some rows of an image without NaN after a *plan* of ranks, and differences of such."""

    def __init__(self, source: Pixels, plan: Plan, alpha: bool) -> None:
        self._image = Image(source, Border())
        self._plan, self._alpha = plan, alpha
        reach = sum(sum(stage.operation.reach[:2]) for stage in stages_of(plan))
        self.step = ROWS + reach

    def rows(self, first: int, last: int) -> Planes:
        """Rows *first* to *last* - 1, (rows, channels, columns), in the image's type or float64."""
        return self._rows(self._plan, first, last)

    def _rows(self, plan: Plan, first: int, last: int) -> Planes:
        if not plan:
            return self._image.rows(np.arange(first, last))
        *before, final = plan
        if isinstance(final, Fork):
            more, less = (self._rows((*before, *branch), first, last) for branch in final)
            out = more.astype(np.float64) - less
            if self._alpha:
                out[:, -1] = self._rows(tuple(before), first, last)[:, -1]
            return out
        rank, border = final
        above, below, left, right = rank.reach
        height, width = self._image.height, self._image.width
        down = border_index(first - above, last + below, height, border.mode)
        across = border_index(-left, width + right, width, border.mode)
        needed = np.unique(down[down != OUTSIDE])
        runs = np.split(needed, np.flatnonzero(np.diff(needed) > 1) + 1)
        there = [self._rows(tuple(before), int(run[0]), int(run[-1]) + 1) for run in runs]
        block = np.concatenate(there)[np.searchsorted(needed, down)][:, :, across]
        constant = border.sample(self._image.pixels.dtype)
        block[down == OUTSIDE] = constant
        block[:, :, across == OUTSIDE] = constant
        assert isinstance(rank, Rank)
        return ranks(block, rank)


def networks(plan: Plan) -> bool:
    """Whether Ranked has *plan*."""
    operations = [stage.operation for stage in stages_of(plan)]
    return all(isinstance(each, Rank) and network(each) for each in operations)


def network(rank: Rank) -> bool:
    """Whether ranks() has *rank*."""
    if rank.is_least or rank.is_largest:
        return rank.window.inside is None
    return rank.window.shape == (3, 3) and rank.window.inside is None and rank.rank == 4


def ranks(block: Planes, rank: Rank) -> Planes:
    """*rank* of every window that fits into *block*, (rows, channels, columns) of any type."""
    rows, columns = rank.window.shape
    if rank.is_least or rank.is_largest:
        pick = np.minimum if rank.is_least else np.maximum
        return _along(_along(block, 0, rows, pick), 2, columns, pick)
    height, width = block.shape[0] - rows + 1, block.shape[2] - columns + 1
    at = [block[i : i + height, :, j : j + width] for i in range(rows) for j in range(columns)]
    for a, b in MEDIAN_OF_9:
        at[a], at[b] = np.minimum(at[a], at[b]), np.maximum(at[a], at[b])
    return at[4]


def _along(block: Planes, axis: int, side: int, pick: np.ufunc) -> Planes:
    """The least or largest of *side* neighbours, by windows twice as long each time."""
    span = 1
    while span < side:
        shift = min(span, side - span)
        n = block.shape[axis] - shift
        block = pick(_cut(block, axis, 0, n), _cut(block, axis, shift, shift + n))
        span += shift
    return block


def _cut(block: Planes, axis: int, start: int, stop: int) -> Planes:
    return block[(slice(None),) * axis + (slice(start, stop),)]
