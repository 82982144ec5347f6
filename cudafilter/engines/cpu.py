"""The CPU engine: OpenCV's filter2D and sepFilter2D over bands of rows, one band a core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from cudafilter.borders import Border, border_index, extract
from cudafilter.cores import cores, each
from cudafilter.engines import Result
from cudafilter.engines.chains import run_stages
from cudafilter.engines.correlate import (
    Correlate,
    Work,
    filter2d,
    local,
    separable,
    tap_by_tap,
)
from cudafilter.engines.fold import Folded, Taps, fold
from cudafilter.engines.ranks import rank_of
from cudafilter.errors import EngineError, LimitError
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.operation import Operation
from cudafilter.operations.rank import Rank
from cudafilter.pixels import Pixels, full_scale, require_pixels

if TYPE_CHECKING:
    from cudafilter.engines.cuda.jpeg import JpegPath

BAND_BYTES = 5 << 20
"""Size of a band in its working type: little of it is halo, and from 4 MiB on NumPy asks the system
for huge pages, which it gives far faster than small ones."""

LONG = 128
"""Taps along an axis from which two 1-D passes beat sepFilter2D, whose cost per tap grows."""

BORDERS = {
    "edge": cv2.BORDER_REPLICATE,
    "symmetric": cv2.BORDER_REFLECT,
    "reflect": cv2.BORDER_REFLECT_101,
}
"""Borders that OpenCV makes as it goes. A copy of the image with a border of the others around it
takes a third of a blur's time."""

FEW = 10
"""Taps of a dense kernel from which on bytes are faster by way of floats."""

FAR = 1e6
"""How far past white, in full scales, OpenCV may round to bytes: its integers have 32 bits."""

Index = npt.NDArray[np.intp]


class _Block(NamedTuple):
    """A band of an image and what its taps reach."""

    pixels: Pixels
    """The band with its halo, but for what *border* makes."""
    inner: tuple[slice, slice]
    """Rows and columns of the band in *pixels*."""
    border: int = cv2.BORDER_CONSTANT
    """OpenCV's name for what lies outside *pixels*."""
    columns: Index | None = None
    """(w + halo,) indices into the columns of *pixels*, where the kernel runs as its factors: what
    the column factor gave gets its halo of columns so, and *inner* counts in these."""


class CpuEngine:
    """Runs filters on all cores.

    Work is done in float32, and in float64 for uint16, whose contract leaves float32 no room when
    terms cancel. Bands depend only on the image, so the bits do not depend on the core count.

    Of float32 images, a sample influences only the pixels that have a tap on it: a Fourier
    transform would spread NaN, infinity and the noise of large samples. What is not finite in a
    result, be it of NaN or of sums past float32's range, is computed again with care in float64.
    """

    name = "cpu"
    parallel = 0
    jpeg: JpegPath | None = None

    def __init__(self, note: str | None = None, threads: int | None = None) -> None:
        self.note = note
        self._threads = threads
        self.title = f"cpu: OpenCV {cv2.__version__}, {threads or cores()} threads"

    def run(
        self,
        pixels: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
        *,
        overwrite: bool = False,
    ) -> Result:
        """See Engine.run."""
        pixels = require_pixels(pixels, alpha)
        stages = filter.unrolled(border)
        if not stages:
            return Result(pixels if overwrite else pixels.copy())
        if len(stages) > 1:
            return run_stages(self.run, pixels, stages, alpha)
        ((operation, border),) = stages
        try:
            if isinstance(operation, Correlation):
                return Result(self._correlated(pixels, operation, border, alpha, overwrite))
            if isinstance(operation, Rank):
                return Result(rank_of(pixels, operation, border, self._threads))
        except (cv2.error, MemoryError) as error:
            raise EngineError(f"the CPU engine failed: {error}") from error
        raise LimitError(f"the CPU engine has no {operation.name}")

    def close(self) -> None:
        """See Engine.close."""

    def _correlated(
        self, pixels: Pixels, filter: Correlation, border: Border, alpha: bool, overwrite: bool
    ) -> Pixels:
        """*pixels* filtered, in their place where *overwrite* allows it."""
        height, width, channels = pixels.shape
        work: np.dtype[np.floating] = np.dtype("f8" if pixels.dtype == np.uint16 else "f4")
        given, filter = filter, fold(filter, height, width, border)
        taps = Folded(given, filter, height, width, border)
        above, below, *_ = filter.reach
        # A band shorter than its halo would read more rows of halo than of image.
        step = max(16, BAND_BYTES // (width * channels * work.itemsize), above + below)
        if (
            overwrite
            and pixels.flags.writeable
            and height > step  # one band would be copied as a whole
            and _is_local(filter, border, alpha)
        ):
            out, around = pixels, _kept(pixels, step, filter, border)
        else:
            out = np.empty_like(pixels)
            around = partial(_around, pixels, filter=filter, border=border, alpha=alpha)

        def run_band(y: int) -> None:
            rows = y, min(y + step, height)
            block = around(rows)
            with np.errstate(all="ignore"):  # NaN and infinity are results like others
                out[slice(*rows)] = _filter_block(
                    block, pixels[slice(*rows)], filter, alpha, work, taps
                )

        each(run_band, range(0, height, step), self._threads)
        return out


def _around(
    pixels: Pixels, rows: tuple[int, int], filter: Correlation, border: Border, alpha: bool
) -> _Block:
    """Rows ``rows[0]..rows[1]-1`` of *pixels* with what the taps of *filter* reach."""
    first, last = rows
    above, below, left, right = filter.reach
    width = pixels.shape[1]
    inner = slice(above, above + last - first)
    if _is_long(filter):
        # The last column lies outside the image: OUTSIDE is its index.
        block = extract(pixels, (first - above, last + below), (0, width + 1), border)
        columns = border_index(-left, width + right, width, border.mode)
        return _Block(block, (inner, slice(left, left + width)), columns=columns)
    if not _is_local(filter, border, alpha):
        block = extract(pixels, (first - above, last + below), (-left, width + right), border)
        return _Block(block, (inner, slice(left, left + width)))
    # A border reflects as far as the kernel reaches past it, which is the way back.
    halo = max(above, below)
    start = max(0, first - halo)
    inner = slice(first - start, last - start)
    return _Block(pixels[start : last + halo], (inner, slice(0, width)), BORDERS[border.mode])


def _kept(
    pixels: Pixels, step: int, filter: Correlation, border: Border
) -> Callable[[tuple[int, int]], _Block]:
    """As _around where that _is_local, for bands of *step* rows that are then overwritten.

    What the bands read of each other is copied here, and each band when it is asked for.
    """
    above, below, *_ = filter.reach
    halo, height = max(above, below), len(pixels)
    seams = {
        y: (pixels[max(0, y - halo) : y].copy(), pixels[y : y + halo].copy())
        for y in (*range(0, height, step), height)
    }

    def block(rows: tuple[int, int]) -> _Block:
        (before, _), (_, after) = (seams[y] for y in rows)
        own = pixels[slice(*rows)]
        inner = slice(len(before), len(before) + len(own)), slice(0, pixels.shape[1])
        return _Block(np.concatenate((before, own, after)), inner, BORDERS[border.mode])

    return block


def _is_long(filter: Correlation) -> bool:
    return filter.rank1 and max(filter.size) >= LONG


def _is_local(filter: Correlation, border: Border, alpha: bool) -> bool:
    """Whether OpenCV makes *border*, so that a band needs the rows beside it and no others."""
    return not _is_long(filter) and border.mode in BORDERS and _run(filter, alpha) is not tap_by_tap


def _run(filter: Correlation, alpha: bool, floats: bool = False) -> Correlate:
    """What runs a kernel of *filter* without factors, on an image of *floats* or of integers."""
    # A Fourier transform leaves noise where the sum is 0: divided by such an alpha, that is colour.
    if alpha and filter.alpha == "filter":
        return tap_by_tap
    return local if floats else filter2d


def _filter_block(
    block: _Block,
    source: Pixels,
    filter: Correlation,
    alpha: bool,
    work: np.dtype[np.floating],
    folded: Folded,
) -> Pixels:
    """*source* (h, w, C) filtered and rounded, where *block* is it with what its taps reach.

    Integers come in the type *work*, for the caller to cast, or in their own.
    """
    if source.dtype == np.uint8 and not alpha:
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


def _filtered(
    block: _Block,
    source: Pixels,
    filter: Correlation,
    alpha: bool,
    work: np.dtype[np.floating],
    careful: Sequence[Taps] = (),
) -> Work:
    """As _filter_block, in the type *work*. *careful*: with the kernels' taps, of an image with NaN
    and infinity."""
    full = full_scale(source.dtype)
    if alpha or block.columns is not None or not filter.rank1:
        # Only sepFilter2D converts on the way, and saves the memory.
        block = block._replace(pixels=block.pixels.astype(work))
    if alpha:
        # Alpha stays in native units where it multiplies colour: integers are then exact.
        *planes, own = np.moveaxis(block.pixels, 2, 0)
        for plane in planes:  # NumPy is slow along an axis of 3
            plane *= own
    run = _run(filter, alpha, source.dtype.kind == "f")
    if careful:
        pairs = zip(filter.kernels, careful, strict=True)
        sums = [_with_care(block, kernel, taps, run, work) for kernel, taps in pairs]
    else:
        sums = [_correlate(block, kernel, run, work) for kernel in filter.kernels]
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


def _correlate(block: _Block, kernel: Kernel, run: Correlate, work: np.dtype[np.floating]) -> Work:
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
    block: _Block, kernel: Kernel, taps: Taps, run: Correlate, work: np.dtype[np.floating]
) -> Work:
    """As _correlate, but NaN and infinity reach what taps them, as IEEE 754 has it."""
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


def _bytes(block: _Block, filter: Correlation) -> Pixels | None:
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
        # Where both are positive and sum to 1, OpenCV may take integers, and round half up.
        twice = 2 / (np.abs(column).max() or 1)
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
    """The kernels' results in one, in place of the first. *careful*: as hypot has it."""
    first = results[0]
    if filter.combine == "magnitude":
        if careful:
            return cast(Work, np.hypot(*results))
        first *= first
        first += np.square(results[1], out=results[1])
        np.sqrt(first, out=first)
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

    But for the last bits, which round away. Or means of less weight, unless *exactly*.
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
    """As pixels.quantise, in place and but for the cast, which storing the result does.

    *within*: what is rounded lies in the range of *dtype*.
    """
    if dtype.kind == "u":
        np.rint(result, out=result)
        if not within:
            np.clip(result, 0, full_scale(dtype), out=result)
    return result
