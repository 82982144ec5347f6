"""Point operations on the CPU: tables for integers, float64 for floats."""

from __future__ import annotations

import functools
import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cudafilter.host.cores import each, share
from cudafilter.operations.borders import Border
from cudafilter.operations.canny import Canny
from cudafilter.operations.operation import WholeImage, Windowed
from cudafilter.operations.pixels import Pixels, full_scale, in_floats, quantise
from cudafilter.operations.point import (
    Levels,
    Otsu,
    Points,
    Threshold,
    counted,
    least_float,
    levels_of,
    otsu,
)

BAND_BYTES = 1 << 20
"""Size of a band: it stays in the cache, in float64 too."""

WIDE_TABLES = int(cv2.__version__.split(".")[0]) >= 5
"""Whether OpenCV looks 16 bits up in a table."""

MOST = (1 << 24) - 1
"""Samples that OpenCV counts at a time, at most: it does so in float32."""

INVERTED = Levels(1.0, 0.0)


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
    # One part for each thread, as OpenCV would have it, but for what is in float64 meanwhile.
    step = max(1, BAND_BYTES // pixels[0].nbytes)
    if pixels.dtype.kind == "u":
        step = max(step, -(-len(pixels) // (threads or share())))
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
    if out.dtype == pixels.dtype and _is_simple(points):
        given, done = pixels.reshape(1, -1), out.reshape(1, -1)
        (curve,) = points.curves
        if isinstance(curve, Threshold):
            above(given, curve.at, done)
            return
        if table is not None:
            cv2.bitwise_not(given, dst=done)
            return
    if table is None:
        out[...] = points.of(pixels.astype(np.float64), 1.0)
    elif len(table) == 256:
        cv2.LUT(pixels.reshape(1, -1), table, dst=out.reshape(1, -1))
    elif WIDE_TABLES and table.dtype == np.uint16:
        cv2.LUT(pixels.reshape(1, -1), table.reshape(1, -1), dst=out.reshape(1, -1))
    else:
        np.take(table, pixels, out=out, mode="clip")  # without a copy, as no index is outside


def _is_simple(points: Points) -> bool:
    """Whether OpenCV has a call for *points*, which is exact."""
    first, *rest = points.curves
    return not rest and (isinstance(first, Threshold) or first == INVERTED)


def above(samples: Pixels, at: float, out: Pixels) -> None:
    """Full scale into *out* where *samples* are at least *at*, a fraction of it; 0 elsewhere.

    Both have one row. OpenCV's threshold is for what lies above a number.
    """
    full = full_scale(samples.dtype)
    if samples.dtype.kind == "f":
        kind = samples.dtype.type
        least = at if kind is np.float64 else least_float(at)
        last = float(np.nextafter(kind(least), kind(-math.inf)))
    else:
        last = min(max(math.ceil(at * full) - 1.0, -1.0), full)
    cv2.threshold(samples, last, full, cv2.THRESH_BINARY, dst=out)


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
    (height, width, channels), full = pixels.shape, full_scale(pixels.dtype)
    floats, out = pixels.dtype.kind == "f", np.empty_like(pixels)
    step = max(1, BAND_BYTES // pixels[0].nbytes)
    # Integers are counted in few parts: of 16 bits, counts take a while to add up.
    part = (
        step
        if floats
        else min(max(step, -(-height // (threads or share()))), max(1, MOST // width))
    )

    def samples(c: int, first: int, end: int) -> Pixels:
        band = pixels[first:end]
        own = band[..., 0] if channels == 1 else cv2.extractChannel(band, c)
        return levels_of(own.astype(np.float64), full) if floats else own

    def count(c: int, y: int) -> npt.NDArray[np.int64]:
        band = samples(c, y, y + part)
        return counted(band) if floats else _histogram(band)

    def apply(c: int, level: int, y: int) -> None:
        _, done = cv2.threshold(samples(c, y, y + step), level, full, cv2.THRESH_BINARY)
        out[y : y + step, :, c] = done

    for c in range(channels - alpha):
        counts = each(functools.partial(count, c), range(0, height, part), threads)
        level = otsu(np.sum(counts, axis=0))
        each(functools.partial(apply, c, level), range(0, height, step), threads)
    if alpha:
        out[..., -1] = pixels[..., -1]
    return out


def _histogram(band: Pixels) -> npt.NDArray[np.int64]:
    """How many samples there are of each of an integer type, (full scale + 1,)."""
    bins = int(full_scale(band.dtype)) + 1
    if band.size > MOST:  # a row
        return np.bincount(band.ravel(), minlength=bins)
    return cv2.calcHist([band], [0], None, [bins], [0, bins]).ravel().astype(np.int64)
