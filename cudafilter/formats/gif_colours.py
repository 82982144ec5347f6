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
_ROUNDS = 2
"""How often the colours are moved to the middle of the pixels that they stand for."""


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
    entry is the last one. Otherwise median cut chooses the colours, and each pixel takes the
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
    codes = samples.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    found, numbers = np.unique(codes, return_inverse=True)
    if len(found) <= most:
        palette = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1).astype(np.uint8)
        entries[drawn] = numbers
    else:
        palette, entries[drawn] = _chosen(pixels, samples, drawn, most, dither)
    error = 0
    if len(samples):
        shown = palette[entries[drawn]]
        error = int(np.abs(shown.astype(np.int16) - samples).max())
    if not spare:
        return Indexed(entries, palette, None, error)
    entries[~drawn] = len(palette)
    black = np.zeros((1, 3), np.uint8)
    return Indexed(entries, np.concatenate([palette, black]), len(palette), error)


def _chosen(
    pixels: Pixels, samples: Pixels, drawn: Mask, most: int, dither: bool
) -> tuple[Pixels, Pixels]:
    """A palette of *most* colours for the *samples* (N, 3), and the entries of these."""
    image = PillowImage.frombytes("RGB", (len(samples), 1), samples.tobytes())
    few = image.quantize(
        most, PillowImage.Quantize.MEDIANCUT, kmeans=_ROUNDS, dither=PillowImage.Dither.NONE
    )
    colours = few.getpalette()
    assert colours is not None
    palette = np.array(colours, np.uint8).reshape(-1, 3)[:most]
    if not dither:
        return palette, np.asarray(few)[0]
    height, width = drawn.shape
    whole = PillowImage.frombytes("RGB", (width, height), pixels.tobytes())
    mixed = whole.quantize(palette=few, dither=PillowImage.Dither.FLOYDSTEINBERG)
    return palette, np.asarray(mixed)[drawn]
