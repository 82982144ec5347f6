"""The CPU engine: OpenCV's filter2D and sepFilter2D over bands of rows, one band a core."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import numpy.typing as npt

from cudafilter.borders import Border, border_index, extract
from cudafilter.cores import cores, share
from cudafilter.errors import EngineError
from cudafilter.filter import Filter, Kernel, Weights
from cudafilter.pixels import Pixels, full_scale, require_pixels

if TYPE_CHECKING:
    from cudafilter.engines.nvcodec import JpegPath

BAND_BYTES = 5 << 20
"""Size of a band in its working type: little of it is halo, and from 4 MiB on NumPy asks the system
for huge pages, which it gives far faster than small ones."""

LONG = 128
"""Taps along an axis from which two 1-D passes beat sepFilter2D, whose cost per tap grows."""

Work = npt.NDArray[np.floating]
Index = npt.NDArray[np.intp]
Correlate = Callable[[Work, Weights, tuple[int, int]], Work]


class CpuEngine:
    """Runs filters on all cores.

    Work is done in float32, and in float64 for uint16, whose contract leaves float32 no room when
    terms cancel. Bands depend on the image alone, so the bits do not depend on the core count.
    """

    name = "cpu"
    parallel = 0
    jpeg: JpegPath | None = None

    def __init__(self, note: str | None = None, threads: int | None = None) -> None:
        self.note = note
        self._threads = threads or cores()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="cpu-engine")
        self.title = f"cpu: OpenCV {cv2.__version__}, {self._threads} threads"

    def run(
        self, pixels: Pixels, filter: Filter, border: Border = Border(), alpha: bool = False
    ) -> Pixels:
        """See Engine.run."""
        pixels = require_pixels(pixels, alpha)
        height, width, channels = pixels.shape
        out = np.empty_like(pixels)
        work: np.dtype[np.floating] = np.dtype("f8" if pixels.dtype == np.uint16 else "f4")
        filter = fold(filter, height, width, border)
        above, below, left, right = filter.reach
        span, columns = (-left, width + right), None
        if filter.rank1 and max(filter.size) >= LONG:
            # One axis after the other: the columns beside the image are made from what the column
            # factors gave. OUTSIDE is the last one, which lies outside the image.
            span, columns = (0, width + 1), border_index(-left, width + right, width, border.mode)
        # A band shorter than its halo would read more rows of halo than of image.
        step = max(16, BAND_BYTES // (width * channels * work.itemsize), above + below)

        def run_band(y: int) -> None:
            last = min(y + step, height)
            block = extract(pixels, (y - above, last + below), span, border)
            out[y:last] = _filter_block(block, columns, pixels[y:last], filter, alpha, work)

        try:
            bands = range(0, height, step)
            # Handing over one band, or many while other images keep the cores busy, only costs.
            here = len(bands) == 1 or share() == 1
            for _ in map(run_band, bands) if here else self._pool.map(run_band, bands):
                pass
        except (cv2.error, MemoryError) as error:
            raise EngineError(f"the CPU engine failed: {error}") from error
        return out

    def last_timings(self) -> dict[str, float]:
        """See Engine.last_timings."""
        return {}

    def last_notes(self) -> tuple[str, ...]:
        """See Engine.last_notes."""
        return ()

    def close(self) -> None:
        """See Engine.close."""
        self._pool.shutdown()


def fold(filter: Filter, height: int, width: int, border: Border) -> Filter:
    """*filter* with no kernel that reaches further than the border repeats itself.

    Taps that read the same sample whatever the output pixel become one, which holds their sum: a
    kernel then reaches an image's side past the image at most.
    """
    limits = [_repeats(n, border.mode) for n in (height, width)]

    def folded(kernel: Kernel) -> Kernel:
        above, below, left, right = kernel.reach
        if max(above, below) <= limits[0][0] and max(left, right) <= limits[1][0]:
            return kernel
        if kernel.factors is not None:
            column, row = kernel.factors
            return Kernel.outer(
                _fold_axis(column, above, *limits[0]), _fold_axis(row, left, *limits[1])
            )
        rows = _fold_axis(kernel.weights, above, *limits[0])
        return Kernel(_fold_axis(rows.T, left, *limits[1]).T)

    return replace(filter, kernels=tuple(folded(kernel) for kernel in filter.kernels))


def _repeats(n: int, mode: str) -> tuple[int, int | None]:
    """How far past an axis of *n* samples a tap still reads something new, and the period.

    Under ``edge`` and ``constant``, which have no period, all taps further out read the same.
    """
    periods = {"wrap": n, "symmetric": 2 * n, "reflect": max(1, 2 * n - 2)}
    return (periods[mode] // 2, periods[mode]) if mode in periods else (n, None)


def _fold_axis(weights: Weights, anchor: int, limit: int, period: int | None) -> Weights:
    """*weights*, folded along the first axis to ``limit`` taps on both sides of the anchor.

    Axes whose taps reach no further keep them all, with zeros to have the anchor in the middle.
    """
    reach = max(anchor, len(weights) - 1 - anchor)
    offsets = np.arange(len(weights)) - anchor
    if reach > limit:
        reach = limit
        if period is None:
            offsets = np.clip(offsets, -limit, limit)
        else:
            offsets = (offsets + limit) % period - limit
    out = np.zeros((2 * reach + 1, *weights.shape[1:]))
    for offset, taps in zip(offsets + reach, weights, strict=True):
        out[offset] += taps
    return out


def _filter_block(
    block: Pixels,
    columns: Index | None,
    source: Pixels,
    filter: Filter,
    alpha: bool,
    work: np.dtype[np.floating],
) -> Pixels:
    """*source* (h, w, C) filtered and rounded, where *block* is it with the filter's halo around.

    *columns* is for _correlate. Integers come in the type *work*, for the caller to cast.
    """
    if columns is None and source.dtype == np.uint8 and not alpha and _is_mean(filter):
        (kernel,) = filter.kernels
        if kernel.factors is not None and kernel.sum > 0:
            whole = _mean_of_bytes(block, *kernel.factors, kernel.anchor, filter.gain)
            return _inner(whole, filter)
    full = full_scale(source.dtype)
    # A Fourier transform leaves noise where the sum is 0: divided by such an alpha, that is colour.
    run = _filter2d if not alpha or filter.alpha == "keep" else _tap_by_tap
    if alpha or columns is not None or not filter.rank1:
        block = block.astype(work)  # sepFilter2D alone converts on the way, and saves the memory
    if alpha:
        # Alpha stays in native units where it multiplies colour: integers are then exact.
        *planes, own = np.moveaxis(block, 2, 0)
        for plane in planes:  # NumPy is slow along an axis of 3
            plane *= own
    sums = [_correlate(block, columns, filter, kernel, run, work) for kernel in filter.kernels]
    if not alpha:
        out = _finish(filter, _combine(filter, sums), source, full)
        return _quantise(out, source.dtype, within=_is_mean(filter))

    *colours, own = np.moveaxis(source, 2, 0)
    if filter.alpha == "keep":
        for kernel, result in zip(filter.kernels, sums, strict=True):
            *parts, covered = np.moveaxis(result, 2, 0)
            absent = work.type(kernel.sum * full) - covered
            for part, colour in zip(parts, colours, strict=True):
                part += colour * absent
                part /= work.type(full)
        out = _quantise(_finish(filter, _combine(filter, sums), source, full), source.dtype)
        out[..., -1] = own
        return out
    out = _combine(filter, sums)
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
        part *= visible
    return _quantise(out, source.dtype)


def _correlate(
    block: Pixels,
    columns: Index | None,
    filter: Filter,
    kernel: Kernel,
    run: Correlate,
    work: np.dtype[np.floating],
) -> Work:
    """One kernel of *filter* over *block*, (h + halo, w + halo, C); returns (h, w, C).

    With *columns*, (w + halo,) indices into those of *block*, the kernel runs as its factors, and
    *block* gets its halo of columns from *columns* between the two.
    """
    y, x = kernel.anchor
    if kernel.factors is None:
        whole = run(block, kernel.weights, (x, y))
    elif columns is None:
        column, row = kernel.factors
        whole = _separable(block, column, row, (x, y), work)
    else:
        above, below, left, right = filter.reach
        column, row = kernel.factors
        down = run(block, column[:, None], (0, y))[above : len(block) - below]
        return run(down[:, columns], row[None, :], (x, 0))[:, left : len(columns) - right]
    return _inner(whole, filter)


def _inner(block: Pixels, filter: Filter) -> Pixels:
    """*block* without the halo of *filter*."""
    above, below, left, right = filter.reach
    return block[above : len(block) - below, left : block.shape[1] - right]


def _filter2d(block: Work, weights: Weights, anchor: tuple[int, int]) -> Work:
    """*weights* over *block*, by OpenCV's Fourier transform if they are many.

    *anchor* is (x, y). The result has the shape of *block* and holds only where no tap leaves it.
    """
    done = cv2.filter2D(block, -1, weights, anchor=anchor, borderType=cv2.BORDER_CONSTANT)
    return cast(Work, done).reshape(block.shape)  # OpenCV drops a last axis of 1


def _separable(
    block: Pixels,
    column: Weights,
    row: Weights,
    anchor: tuple[int, int],
    work: np.dtype[np.floating],
) -> Work:
    """As _filter2d with ``outer(column, row)``, but summed tap by tap, in the type *work*."""
    depth = cv2.CV_64F if work == np.float64 else cv2.CV_32F
    done = cv2.sepFilter2D(block, depth, row, column, anchor=anchor, borderType=cv2.BORDER_CONSTANT)
    return cast(Work, done).reshape(block.shape)


def _mean_of_bytes(
    block: Pixels, column: Weights, row: Weights, anchor: tuple[int, int], gain: float
) -> Pixels:
    """As _separable with ``gain * outer(column, row)`` on uint8 *block*, rounded in the same pass.

    *anchor* is (y, x).
    """
    # Where both sum to 1, OpenCV may take integers for them, and round half up.
    twice = 2 / column.sum()
    done = cv2.sepFilter2D(
        block, cv2.CV_8U, row * (gain / twice), column * twice, anchor=anchor[::-1],
        borderType=cv2.BORDER_CONSTANT,
    )  # fmt: skip
    return cast(Pixels, done).reshape(block.shape)


def _tap_by_tap(block: Work, weights: Weights, anchor: tuple[int, int]) -> Work:
    """As _filter2d, but never by a Fourier transform: a sum of zeros is 0, however many taps.

    In float64: over thousands of taps, float32 loses more than the contract allows.
    """
    x, y = anchor
    if weights.shape[1] == 1 < len(weights):  # rows are several times as fast as columns
        turned = np.ascontiguousarray(block.swapaxes(0, 1))
        return _tap_by_tap(turned, weights.T, (y, x)).swapaxes(0, 1)
    block = block.astype(np.float64, copy=False)
    out = np.zeros_like(block)
    height = len(block) - len(weights) + 1
    for i, taps in enumerate(weights):
        band = block[i : i + height]
        out[y : y + height] += _separable(band, np.ones(1), taps, (x, 0), block.dtype)
    return out


def _combine(filter: Filter, results: list[Work]) -> Work:
    """The kernels' results in one, in place of the first."""
    first = results[0]
    if filter.combine == "magnitude":
        first *= first
        first += np.square(results[1], out=results[1])
        np.sqrt(first, out=first)
    return first


def _finish(filter: Filter, out: Work, source: Pixels, full: float) -> Work:
    """``gain * out + source_gain * source + bias`` and threshold, in place of *out*."""
    number = out.dtype.type
    if filter.gain != 1:
        out *= number(filter.gain)
    if filter.source_gain:
        out += number(filter.source_gain) * source
    if filter.bias:
        out += number(filter.bias * full)
    if filter.threshold:
        change = out - source
        limit = number(filter.threshold * full)
        change -= np.clip(change, -limit, limit)
        np.add(source, change, out=out)
    return out


def _is_mean(filter: Filter) -> bool:
    """Whether *filter* makes weighted means, which stay between the least and the largest tap.

    But for the last bits, which round away.
    """
    if filter.source_gain or filter.bias or filter.threshold:
        return False
    if len(filter.kernels) > 1 or filter.gain < 0:
        return False
    (kernel,) = filter.kernels
    positive = kernel.magnitude <= kernel.sum * (1 + 1e-12)
    return positive and filter.gain * kernel.magnitude <= 1 + 1e-6


def _quantise(result: Work, dtype: np.dtype[np.generic], within: bool = False) -> Work:
    """As pixels.quantise, in place and but for the cast, which storing the result does.

    *within*: what is rounded lies in the range of *dtype*.
    """
    if dtype.kind == "u":
        np.rint(result, out=result)
        if not within:
            np.clip(result, 0, full_scale(dtype), out=result)
    return result
