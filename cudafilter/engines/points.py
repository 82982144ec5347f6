"""Point operations on the CPU: tables for integers, float64 for floats."""

from __future__ import annotations

import functools
from collections.abc import Callable
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
    """*pixels*, (H, W, C), after *points*: in their type, or as floats *to* of 0..1."""
    kind = pixels.dtype if to is None else np.dtype(to)
    out, colours = np.empty(pixels.shape, kind), pixels.shape[2] - alpha
    step = max(1, BAND_BYTES // pixels[0].nbytes)
    table = None if pixels.dtype.kind == "f" else table_of(points, pixels.dtype, kind)

    def run_band(y: int) -> None:
        band = slice(y, y + step)
        own = pixels[band]
        with np.errstate(all="ignore"):  # NaN and infinity are results like others
            _into(out[band], own, points, table)
            if colours < pixels.shape[2]:
                kept = own[..., colours]
                out[band, :, colours] = kept if kind == kept.dtype else in_floats(kept, kind)

    each(run_band, range(0, len(pixels), step), threads)
    return out


def _into(out: Pixels, pixels: Pixels, points: Points, table: Pixels | None) -> None:
    """*pixels* after *points* into *out*, both contiguous."""
    if table is None:
        out[...] = points.of(pixels.astype(np.float64), 1.0)
    elif len(table) == 256:
        cv2.LUT(pixels.reshape(1, -1), table, dst=out.reshape(1, -1))
    else:
        np.take(table, pixels, out=out, mode="clip")  # without a copy, as no index is outside


@functools.lru_cache(16)
def table_of(points: Points, dtype: np.dtype[Any], kind: np.dtype[Any]) -> Pixels:
    """What each sample of the integer *dtype* becomes: in it, or as floats of 0..1."""
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
    step = max(1, BAND_BYTES // pixels[0].nbytes)
    bands = range(0, len(pixels), step)
    for c in range(pixels.shape[2] - alpha):

        def levels(y: int, c: int = c) -> Pixels:
            own = np.ascontiguousarray(pixels[y : y + step, :, c])
            return own if own.dtype.kind == "u" else levels_of(own.astype(np.float64), full)

        def count(y: int, levels: Callable[[int], Pixels] = levels) -> Pixels:
            band = levels(y)
            return counted(band) if band.dtype.kind == "f" else _histogram(band)

        level = otsu(np.sum(each(count, bands, threads), axis=0))

        def apply(y: int, levels: Callable[[int], Pixels] = levels, c: int = c) -> None:
            out[y : y + step, :, c] = (levels(y) > level) * out.dtype.type(full)  # noqa: B023

        each(apply, bands, threads)
    return out


def _histogram(band: Pixels) -> npt.NDArray[np.int64]:
    """How many samples there are of each of an integer type, (full scale + 1,)."""
    bins = int(full_scale(band.dtype)) + 1
    if band.size >= 1 << 24:  # a row: OpenCV counts in float32
        return np.bincount(band.ravel(), minlength=bins)
    return cv2.calcHist([band], [0], None, [bins], [0, bins]).ravel().astype(np.int64)
