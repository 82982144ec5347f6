"""Point operations on the CPU: tables for integers, float64 for floats."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cudafilter.host.cores import each
from cudafilter.operations.borders import Border
from cudafilter.operations.canny import Canny
from cudafilter.operations.operation import WholeImage, Windowed
from cudafilter.operations.pixels import Pixels, full_scale, in_floats, quantise
from cudafilter.operations.point import Otsu, Points, counted, levels_of, otsu

BAND_BYTES = 1 << 20
"""Size of a band: it stays in the cache, in float64 too."""


def pointed(
    pixels: Pixels,
    points: Points,
    alpha: bool,
    threads: int | None,
    to: npt.DTypeLike | None = None,
) -> Pixels:
    """*pixels*, (H, W, C), after *points*: in their type, or as float32 of 0..1 for *to*."""
    kind = pixels.dtype if to is None else np.dtype(to)
    out, colours = np.empty(pixels.shape, kind), pixels.shape[2] - alpha
    step = max(1, BAND_BYTES // pixels[0].nbytes)
    table = None if pixels.dtype.kind == "f" else table_of(points, pixels.dtype, kind)

    def run_band(y: int) -> None:
        band = slice(y, y + step)
        with np.errstate(all="ignore"):  # NaN and infinity are results like others
            out[band] = _band(pixels[band], points, table)
            if colours < pixels.shape[2]:
                own = pixels[band, :, colours]
                out[band, :, colours] = own if kind == own.dtype else in_floats(own)

    each(run_band, range(0, len(pixels), step), threads)
    return out


def _band(pixels: Pixels, points: Points, table: Pixels | None) -> Pixels:
    if table is None:
        return points.of(pixels.astype(np.float64), 1.0).astype(np.float32)
    if len(table) == 256:
        return np.asarray(cv2.LUT(pixels, table)).reshape(pixels.shape)
    return np.take(table, pixels)


@functools.lru_cache(16)
def table_of(points: Points, dtype: np.dtype[Any], kind: np.dtype[Any]) -> Pixels:
    """What each sample of the integer *dtype* becomes: in it, or as float32 of 0..1."""
    table = points.table(dtype)
    return quantise(table, dtype) if kind == dtype else (table / full_scale(dtype)).astype(kind)


def of_whole(
    pixels: Pixels, operation: Windowed, border: Border, alpha: bool, threads: int | None
) -> Pixels:
    """*pixels*, (H, W, C), after an *operation* on the whole image."""
    assert isinstance(operation, WholeImage)
    if isinstance(operation, Canny):
        from cudafilter.engines.canny import edges

        return edges(pixels, operation, border, alpha, threads)
    assert isinstance(operation, Otsu)
    out = pixels.copy()
    full = full_scale(pixels.dtype)

    def run(c: int) -> None:
        channel = np.ascontiguousarray(pixels[..., c])
        if channel.dtype.kind == "f":
            channel = levels_of(channel.astype(np.float64), full)
            counts = counted(channel)
        else:
            counts = np.bincount(channel.ravel(), minlength=int(full) + 1)
        out[..., c] = np.where(channel > otsu(counts), full, 0)

    each(run, range(pixels.shape[2] - alpha), threads)
    return out
