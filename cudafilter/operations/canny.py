"""Edges as Canny finds them, in whole numbers, so that every engine decides alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ParameterError
from cudafilter.operations.operation import Reach, WholeImage
from cudafilter.operations.pixels import Exact
from cudafilter.operations.point import LEVELS, levels_of

Mask = npt.NDArray[np.bool_]

UNIT = 1 << 16
"""Weights of the blur are whole numbers, and this is their sum: a sum of levels has 32 bits."""

TANGENT = 13573
"""Of 22.5 degrees, times 2^15."""


@dataclass(frozen=True)
class Canny(WholeImage):
    """Full scale on edges, thinned to their middle, and 0 elsewhere; alpha is kept.

    J. Canny, "A computational approach to edge detection" (1986). Each channel by itself, and
    colour as it is, not premultiplied:

    1. Samples become levels 0 to 65535: 257 times those of 8 bits, floats the nearest from 0 to 1.
       NaN is 0.
    2. A Gaussian of *sigma* pixels with whole weights of the sum UNIT blurs them, down and then
       across; each pass rounds half up to a level.
    3. Sobel's gradient, and the square of its size: whole numbers, too.
    4. Of four directions, the nearest to the gradient's: an edge's square is larger than that of
       the neighbour before it, and no smaller than that of the one behind it. Before is left or
       above, in the row above where both lie aslant. Outside the image it is 0.
    5. Edges of at least *high* are found, and those of at least *low* that touch one that is found,
       at a side or a corner. Both are fractions of full scale, as ``sobel`` has it: a step from
       black to white has 4.

    The border goes around the image before the first step. A difference of a last bit could move
    an edge, or join two: so nothing here is a float. Raises ParameterError for *low* above *high*.
    """

    sigma: float = 1.0
    low: float = 0.1
    high: float = 0.2

    name: ClassVar[str] = "canny"
    alpha: ClassVar[Literal["filter", "keep"]] = "keep"

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ParameterError("low", f"must be at most high, which is {self.high:g}")

    @property
    def reach(self) -> Reach:
        """See Operation.reach: of the blur and the gradient."""
        return (len(self.weights) // 2 + 1,) * 4

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """Of the blur, from ceil(3 sigma) pixels before the pixel to as many behind it."""
        if self.sigma == 0:
            return (UNIT,)
        x = np.arange(math.ceil(3 * self.sigma) + 1)
        half = np.exp(-0.5 * np.square(x / self.sigma))
        half *= UNIT / (half[0] + 2 * math.fsum(half[1:]))
        side = [round(float(weight)) for weight in half[1:]]
        return (*side[::-1], UNIT - 2 * sum(side), *side)

    @property
    def limits(self) -> tuple[int, int]:
        """The least squares of gradients of *low* and *high*; 1 at least."""
        low, high = (max(1, math.ceil((part * LEVELS) ** 2)) for part in (self.low, self.high))
        return low, high

    def exact(self, padded: Exact, source: Exact, full: float, alpha: bool) -> Exact:
        """See Windowed.exact; *source* is the whole image."""
        out = source.copy()
        for c in range(source.shape[2] - alpha):
            levels = np.nan_to_num(levels_of(padded[..., c], full), nan=0.0)
            blurred = _blurred(_blurred(levels, self.weights).T, self.weights).T
            candidates, strong = _marks(blurred, self.limits)
            out[..., c] = np.where(_followed(candidates, strong), full, 0.0)
        return out


def _blurred(levels: Exact, weights: tuple[int, ...]) -> Exact:
    """*levels* blurred down, where all *weights* fit."""
    height = len(levels) - len(weights) + 1
    sums = np.zeros((height, levels.shape[1]))
    for i, weight in enumerate(weights):
        sums += weight * levels[i : i + height]
    return np.floor((sums + UNIT // 2) / UNIT)


def _marks(blurred: Exact, limits: tuple[int, int]) -> tuple[Mask, Mask]:
    """Where *blurred* levels have the largest gradient along it, of both *limits* at least.

    *blurred* is (H + 2, W + 2), of whole numbers; the masks are (H, W).
    """
    across = blurred[:, 2:] - blurred[:, :-2]
    across = across[:-2] + 2 * across[1:-1] + across[2:]
    down = blurred[2:] - blurred[:-2]
    down = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    size = across * across + down * down
    (height, width), squares = size.shape, np.pad(size, 1)
    flat, steep = np.abs(across), np.abs(down)
    level = (steep * 32768 < flat * TANGENT, (0, -1))
    upright = (flat * 32768 < steep * TANGENT, (-1, 0))
    slanted = ~(level[0] | upright[0])
    same = (across > 0) == (down > 0)
    largest = np.zeros(across.shape, np.bool_)
    for there, (i, j) in (level, upright, (slanted & same, (-1, -1)), (slanted & ~same, (-1, 1))):
        before = squares[1 + i : 1 + i + height, 1 + j : 1 + j + width]
        behind = squares[1 - i : 1 - i + height, 1 - j : 1 - j + width]
        largest |= there & (size > before) & (size >= behind)
    low, high = limits
    return largest & (size >= low), largest & (size >= high)


def _followed(candidates: Mask, strong: Mask) -> Mask:
    """Those of *candidates* that are *strong*, or touch one that is found."""
    around = np.pad(candidates, 1)
    found = np.pad(strong, 1)
    row = around.shape[1]
    steps = np.array([-row - 1, -row, -row + 1, -1, 1, row - 1, row, row + 1])
    open_, done = around.ravel(), found.ravel()
    newest = np.flatnonzero(done)
    while newest.size:
        touched = (newest[:, None] + steps).ravel()
        newest = np.unique(touched[open_[touched] & ~done[touched]])
        done[newest] = True
    return done.reshape(around.shape)[1:-1, 1:-1]
