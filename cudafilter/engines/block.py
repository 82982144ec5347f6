"""A block of an image through OpenCV's filter2D and sepFilter2D: correlated, combined, rounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from cudafilter.engines.correlate import (
    DIRECT,
    Correlate,
    Work,
    filter2d,
    local,
    separable,
    tap_by_tap,
)
from cudafilter.engines.fold import Folded, Taps
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.pixels import Pixels, full_scale

BORDERS = {
    "edge": cv2.BORDER_REPLICATE,
    "symmetric": cv2.BORDER_REFLECT,
    "reflect": cv2.BORDER_REFLECT_101,
}
"""Borders that OpenCV makes as it goes. A copy of the image with a border of the others around it
takes a third of a blur's time."""

FEW = 10
"""Taps of a dense kernel from which on bytes are faster by way of floats."""

SQUARES = 1e-15, 1e18
"""Between these, squares of float32 neither vanish nor overflow, nor does a sum of two."""

FAR = 1e6
"""How far past white, in full scales, OpenCV may round to bytes: its integers have 32 bits."""

Index = npt.NDArray[np.intp]


class Block(NamedTuple):
    """A part of an image and what its taps reach."""

    pixels: Pixels
    """The band with its halo, but for what *border* makes."""
    inner: tuple[slice, slice]
    """Rows and columns of the band in *pixels*."""
    border: int = cv2.BORDER_CONSTANT
    """OpenCV's name for what lies outside *pixels*."""
    columns: Index | None = None
    """(w + halo,) indices into the columns of *pixels*, where the kernel runs as its factors: what
    the column factor gave gets its halo of columns so, and *inner* counts in these."""


def run_of(filter: Correlation, alpha: bool, floats: bool = False) -> Correlate:
    """The function for kernels of *filter* without factors, on *floats* or on integers."""
    # A Fourier transform leaves noise where the sum is 0: divided by such an alpha, that is colour.
    if alpha and filter.alpha == "filter":
        return tap_by_tap
    return local if floats else filter2d


def filter_block(
    block: Block,
    source: Pixels,
    filter: Correlation,
    alpha: bool,
    work: np.dtype[np.floating],
    folded: Folded,
) -> Pixels:
    """*source* (h, w, C) filtered and rounded. *block* is the same with its halo.

    The result of integers may be of the type *work*; storing it casts it.
    """
    if source.dtype == np.uint8 and not alpha and work == np.float32:
        done = _bytes(block, filter)
        if done is not None:
            return done
    out = _filtered(block, source, filter, alpha, work)
    if source.dtype.kind == "u":
        return out
    low, high = out.min(), out.max()
    lost = folded.differs and not np.isfinite(block.pixels).all()
    if lost or not (np.isfinite(low) and np.isfinite(high)):
        odd = np.broadcast_to(True, out.shape) if lost else ~np.isfinite(out)
        if alpha:  # colour over an infinite alpha is finite, and wrong
            odd = np.broadcast_to(odd.any(axis=2, keepdims=True), out.shape)
        careful = _filtered(block, source, filter, alpha, np.dtype("f8"), folded.taps())
        if not alpha and _is_mean(filter, exactly=True):
            finite = block.pixels[np.isfinite(block.pixels)]
            if finite.size:
                np.clip(out, finite.min(), finite.max(), out=out)
        out[odd] = careful[odd]
    elif not alpha and _is_mean(filter, exactly=True):
        least, most = block.pixels.min(), block.pixels.max()
        if low < least or high > most:
            np.clip(out, least, most, out=out)
    return out


def takes_transform(
    filter: Correlation, dtype: np.dtype[np.generic], work: np.dtype[np.floating]
) -> bool:
    """Whether OpenCV takes a Fourier transform for sums of *filter* on integers that are exact."""
    rows, columns = filter.size
    return (
        rows * columns >= DIRECT[work.name]
        and any(kernel.factors is None for kernel in filter.kernels)
        and filter.has_exact_sums(dtype.name)
    )


def _filtered(
    block: Block,
    source: Pixels,
    filter: Correlation,
    alpha: bool,
    work: np.dtype[np.floating],
    careful: Sequence[Taps] = (),
) -> Work:
    """As filter_block, in the type *work*. *careful* is for images with NaN or infinity."""
    full = full_scale(source.dtype)
    if alpha or block.columns is not None or not filter.rank1:
        # Only sepFilter2D converts on the way, and saves the memory.
        block = block._replace(pixels=block.pixels.astype(work))
    if alpha:
        # Alpha stays in native units where it multiplies colour: integers are then exact.
        *planes, own = np.moveaxis(block.pixels, 2, 0)
        for plane in planes:  # NumPy is slow along an axis of 3
            plane *= own
    run = run_of(filter, alpha, source.dtype.kind == "f")
    if careful:
        pairs = zip(filter.kernels, careful, strict=True)
        sums = [_with_care(block, kernel, taps, run, work) for kernel, taps in pairs]
    else:
        sums = [_correlate(block, kernel, run, work) for kernel in filter.kernels]
        if not alpha and takes_transform(filter, source.dtype, work):
            for kernel, result in zip(filter.kernels, sums, strict=True):
                # A Fourier transform leaves noise, which decides between two integers.
                result /= kernel.grain
                np.rint(result, out=result)
                result *= kernel.grain
    if not alpha:
        out = _finish(filter, _combine(filter, sums, bool(careful)), source, full)
        return _quantise(out, source.dtype, within=_is_mean(filter))

    *colours, own = np.moveaxis(source, 2, 0)
    if filter.alpha == "keep":
        for kernel, result in zip(filter.kernels, sums, strict=True):
            *parts, covered = np.moveaxis(result, 2, 0)
            absent = work.type(kernel.sum * full) - covered
            for part, colour in zip(parts, colours, strict=True):
                part += colour * absent
                if careful:
                    part += colour - colour
                part /= work.type(full)
        out = _quantise(
            _finish(filter, _combine(filter, sums, bool(careful)), source, full), source.dtype
        )
        out[..., -1] = own
        return out
    out = _combine(filter, sums, bool(careful))
    *parts, coverage = np.moveaxis(out, 2, 0)
    out *= work.type(filter.gain)
    if filter.source_gain:
        weighted = work.type(filter.source_gain) * own
        for part, colour in zip(parts, colours, strict=True):
            part += weighted * colour
        coverage += weighted
    visible = coverage > 0
    divisor = np.where(visible, coverage, work.type(1))
    for part in parts:
        part /= divisor
        part += work.type(filter.bias * full)
        part[~visible] = 0
    return _quantise(out, source.dtype)


def _correlate(block: Block, kernel: Kernel, run: Correlate, work: np.dtype[np.floating]) -> Work:
    """One kernel of a filter over *block*; returns (h, w, C), the inner part."""
    y, x = kernel.anchor
    if kernel.factors is None:
        return run(block.pixels, kernel.weights, (x, y), block.border)[block.inner]
    column, row = kernel.factors
    if block.columns is None:
        return separable(block.pixels, column, row, (x, y), block.border, work)[block.inner]
    rows, columns = block.inner
    down = run(block.pixels, column[:, None], (0, y), block.border)[rows]
    return run(down[:, block.columns], row[None, :], (x, 0), block.border)[:, columns]


def _with_care(
    block: Block, kernel: Kernel, taps: Taps, run: Correlate, work: np.dtype[np.floating]
) -> Work:
    """As _correlate, but NaN and infinity reach only the pixels that have a tap on them."""
    odd = ~np.isfinite(block.pixels)
    clean = np.where(odd, 0, block.pixels).astype(work)
    out = _correlate(block._replace(pixels=clean), kernel, run, work)
    if odd.any():
        # Whole numbers, exact once they are rounded.
        tapped = _correlate(block._replace(pixels=odd.astype(work)), taps.all, run, work)
        infinite = np.sign(np.where(np.isinf(block.pixels), block.pixels, 0)).astype(work)
        sign = _correlate(block._replace(pixels=infinite), taps.signed, run, work)
        tapped, sign = np.rint(tapped), np.rint(sign)
        out[tapped > 0] = np.nan
        for infinity in (np.inf, -np.inf):
            out[(tapped > 0) & (sign == np.copysign(tapped, infinity))] = infinity
    return out


def _bytes(block: Block, filter: Correlation) -> Pixels | None:
    """uint8 *block* filtered, the inner part, where OpenCV does all and rounds in the same pass.

    None where it cannot, or would take longer.
    """
    if block.columns is not None or filter.combine != "single" or filter.threshold:
        return None
    (kernel,) = filter.kernels
    if abs(filter.gain) * kernel.magnitude + abs(filter.source_gain) + abs(filter.bias) > FAR:
        return None
    y, x = kernel.anchor
    extra = (x, y), filter.bias * full_scale(np.dtype(np.uint8)), block.border
    if kernel.factors is not None and not filter.source_gain:
        column, row = kernel.factors
        # Where both are positive and sum to 1, OpenCV may take integers, and round half up. A power
        # of two changes no digit.
        twice = math.ldexp(1.0, 2 - math.frexp(float(np.abs(column).max()) or 1.0)[1])
        row, column = row * (filter.gain / twice), column * twice
        done = cv2.sepFilter2D(block.pixels, cv2.CV_8U, row, column, None, *extra)
    elif np.count_nonzero(kernel.weights) < FEW:
        weights = filter.gain * kernel.weights
        weights[y, x] += filter.source_gain
        done = cv2.filter2D(block.pixels, cv2.CV_8U, weights, None, *extra)
    else:
        return None
    return cast(Pixels, done).reshape(block.pixels.shape)[block.inner]


def _combine(filter: Correlation, results: list[Work], careful: bool = False) -> Work:
    """The kernels' results combined, in place of the first. *careful* keeps hypot's range."""
    first = results[0]
    if filter.combine == "magnitude":
        if careful:
            return cast(Work, np.hypot(*results))
        second = results[1]
        most = np.maximum(np.abs(first, out=first), np.abs(second, out=second))
        far = ((most < SQUARES[0]) & (most > 0)) | (most > SQUARES[1])
        roots = np.hypot(first[far], second[far])  # it takes five times as long
        first *= first
        first += np.square(second, out=second)
        np.sqrt(first, out=first)
        first[far] = roots
    return first


def _finish(filter: Correlation, out: Work, source: Pixels, full: float) -> Work:
    """``gain * out + source_gain * source + bias`` and threshold, in place of *out*."""
    number = out.dtype.type
    if filter.gain != 1:
        out *= number(filter.gain)
    if filter.source_gain:
        out += number(filter.source_gain) * source
    if filter.bias:
        out += number(filter.bias * full)
    if filter.threshold:
        change = out - source  # NaN stays NaN
        limit = number(filter.threshold * full)
        change -= np.clip(change, -limit, limit)
        np.add(source, change, out=out)
    return out


def _is_mean(filter: Correlation, exactly: bool = False) -> bool:
    """Whether *filter* makes weighted means, which stay between the least and the largest tap.

    Last bits do not count: they round away. Unless *exactly*, weights may sum to less than 1.
    """
    if filter.source_gain or filter.bias or filter.threshold:
        return False
    if len(filter.kernels) > 1 or filter.gain < 0:
        return False
    (kernel,) = filter.kernels
    positive = kernel.magnitude <= kernel.sum * (1 + 1e-12)
    weight = filter.gain * kernel.magnitude
    return positive and (abs(weight - 1) <= 1e-9 if exactly else weight <= 1 + 1e-6)


def _quantise(result: Work, dtype: np.dtype[np.generic], within: bool = False) -> Work:
    """As pixels.quantise, in place; storing the result casts it.

    *within* says that all values lie in the range of *dtype*.
    """
    if dtype.kind == "u":
        np.rint(result, out=result)
        if not within:
            np.clip(result, 0, full_scale(dtype), out=result)
    return result
