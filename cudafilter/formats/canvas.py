"""What an animation shows: patches that are laid over each other, and where a frame has changed."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from cudafilter.operations.pixels import Pixels, full_scale

Sample = TypeVar("Sample", bound=np.generic)

KEEP, CLEAR, RESTORE = range(3)
"""What becomes of a patch before the next one: it stays, is made transparent, or what was there
before it comes back."""


class Box(NamedTuple):
    """A part of a picture, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def of(self, pixels: npt.NDArray[Sample]) -> npt.NDArray[Sample]:
        """This part of *pixels* (H, W, ...), not copied."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


class Canvas:
    """Where an animation is put together. At first it is transparent.

    Its frames are of *colours* channels, and alpha where *alpha*: without it nothing of a frame may
    be transparent.
    """

    def __init__(
        self, width: int, height: int, colours: int, dtype: npt.DTypeLike, alpha: bool
    ) -> None:
        self._pixels = np.zeros((height, width, colours + 1), dtype)
        self._shown = colours + alpha

    def draw(self, patch: Pixels, box: Box, blend: bool, disposal: int) -> Pixels:
        """The frame that shows with *patch* at *box*: (H, W, C), C-contiguous, the caller's own.

        The patch has alpha, or as many channels as there are colours. *blend* lays it over what is
        there by its alpha; else it takes that one's place. *disposal* is KEEP, CLEAR or RESTORE.
        """
        pixels = self._pixels
        place = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
        before = place.copy() if disposal == RESTORE else None
        if patch.shape[2] < pixels.shape[2]:
            place[..., :-1], place[..., -1] = patch, full_scale(pixels.dtype)
        elif blend:
            _lay_over(patch, place)
        else:
            place[...] = patch
        frame: Pixels = pixels[..., : self._shown].copy()
        if before is not None:
            place[...] = before
        elif disposal == CLEAR:
            place[...] = 0
        return frame


def _lay_over(patch: Pixels, place: Pixels) -> None:
    """Blend *patch* over *place*, both of straight alpha: rounded once, from exact values."""
    full = full_scale(patch.dtype)
    alphas = patch[..., -1]
    opaque = alphas == full
    place[opaque] = patch[opaque]
    between = (alphas > 0) & ~opaque
    if not between.any():
        return
    over, under = patch[between].astype(np.float64), place[between].astype(np.float64)
    weight = over[:, -1:] * full
    rest = under[:, -1:] * (full - over[:, -1:])
    colour = (over[:, :-1] * weight + under[:, :-1] * rest) / (weight + rest)
    place[between] = np.rint(np.concatenate([colour, (weight + rest) / full], axis=1))


def changed(pixels: Pixels, before: Pixels) -> npt.NDArray[np.bool_]:
    """Where *pixels* (H, W, C) differ from those *before*, (H, W)."""
    differs: npt.NDArray[np.bool_] = np.any(pixels != before, axis=2)
    return differs


def box_of(mask: npt.NDArray[np.bool_], even: bool = False) -> Box:
    """The least box around what is set in *mask* (H, W); one pixel where nothing is.

    *even* moves its left and top to even numbers, further out.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return Box(0, 0, 1, 1)
    left, top = (int(at[0]) & (~1 if even else ~0) for at in (columns, rows))
    return Box(left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top)
