"""The 256 colours of a GIF's picture, and the entry of each pixel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from cudafilter.operations.pixels import Pixels

Mask = npt.NDArray[np.bool_]
MOST = 256
_RAMP: Pixels = np.repeat(np.arange(MOST, dtype=np.uint8)[:, None], 3, axis=1)
_BITS, _ROUNDS = 4, 3
"""Colours are moved to the middle of the samples that they stand for, so often, with the samples
taken together by the first bits of each: that takes a hundredth of the time of Pillow's own way."""


class Indexed(NamedTuple):
    """A picture of palette entries."""

    entries: Pixels
    """(H, W): the palette entry of each pixel."""
    palette: Pixels
    """(N, 3): RGB."""
    clear: int | None
    """The entry of what is not drawn; None where all is."""
    error: int
    """The largest difference of a drawn sample from what it was, 0 to 255."""


def indexed(pixels: Pixels, drawn: Mask, alpha: bool, dither: bool) -> Indexed:
    """*pixels* (H, W, 1 or 3) in 256 colours, of which only those *drawn* (H, W) show.

    Exact where they have no more colours: 255 with *alpha*, or where something is not drawn, whose
    entry is the last one. Otherwise an octree chooses the colours, and each pixel takes the
    nearest, or with *dither* is mixed of some (Floyd and Steinberg). Gray takes the entry of its
    value.
    """
    whole = bool(drawn.all())
    spare = int(alpha or not whole)
    samples = pixels[drawn]
    entries = np.zeros(drawn.shape, np.uint8)
    if pixels.shape[2] == 1:
        free = np.flatnonzero(np.bincount(samples[:, 0], minlength=MOST) == 0)
        if whole or len(free):
            entries[drawn] = samples[:, 0]
            clear = int(free[-1]) if spare and len(free) else None
            if clear is not None:
                entries[~drawn] = clear
            return Indexed(entries, _RAMP, clear, 0)
        samples = np.repeat(samples, 3, axis=1)
        pixels = np.repeat(pixels, 3, axis=2)
    most = MOST - spare
    listed = PillowImage.frombytes("RGB", (len(samples), 1), samples.tobytes())
    if len(samples) and listed.getcolors(most) is None:
        palette = _chosen(samples, listed, most)
        entries[drawn] = _nearest(pixels, palette, dither)[drawn]
    else:
        codes = samples.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        found, entries[drawn] = np.unique(codes, return_inverse=True)
        palette = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1).astype(np.uint8)
    error = 0
    if len(samples):
        shown = palette[entries[drawn]]
        error = int(np.abs(shown.astype(np.int16) - samples).max())
    if not spare:
        return Indexed(entries, palette, None, error)
    entries[~drawn] = len(palette)
    black = np.zeros((1, 3), np.uint8)
    return Indexed(entries, np.concatenate([palette, black]), len(palette), error)


def _chosen(samples: Pixels, listed: PillowImage.Image, most: int) -> Pixels:
    """A palette (N, 3) of *most* colours for the *samples* (N, 3), which are *listed*, too."""
    told = listed.quantize(most, PillowImage.Quantize.FASTOCTREE).getpalette()
    assert told is not None
    colours: npt.NDArray[np.float32] = np.array(told, np.float32).reshape(-1, 3)[:most]
    # Of each cell of colour space how many samples lie in it, and their mean.
    number = (samples >> (8 - _BITS)) @ np.array([1 << 2 * _BITS, 1 << _BITS, 1])
    weights = np.bincount(number)
    cells = np.flatnonzero(weights)
    sums = [np.bincount(number, samples[:, c])[cells] for c in range(3)]
    weights = weights[cells]
    means = (np.stack(sums, axis=1) / weights[:, None]).astype(np.float32)
    for _ in range(_ROUNDS):
        nearest = np.argmin((colours**2).sum(axis=1) - 2 * (means @ colours.T), axis=1)
        total = np.bincount(nearest, weights, len(colours))
        for c in range(3):
            sums_here = np.bincount(nearest, weights * means[:, c], len(colours))
            np.divide(sums_here, total, out=colours[:, c], where=total > 0, casting="unsafe")
    return np.rint(colours).astype(np.uint8)


def _nearest(pixels: Pixels, palette: Pixels, dither: bool) -> Pixels:
    """The entries (H, W) of the *palette* that *pixels* take."""
    height, width, _ = pixels.shape
    table = PillowImage.new("P", (1, 1))
    table.putpalette(palette.tobytes())
    way = PillowImage.Dither.FLOYDSTEINBERG if dither else PillowImage.Dither.NONE
    whole = PillowImage.frombytes("RGB", (width, height), pixels.tobytes())
    return np.asarray(whole.quantize(palette=table, dither=way))
