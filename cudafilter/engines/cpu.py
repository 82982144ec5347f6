"""The CPU engine: bands of rows, one band a core."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cudafilter.engines import Result, Screening
from cudafilter.engines.block import BORDERS, Block, filter_block, run_of, takes_transform
from cudafilter.engines.chains import one_by_one, picked, run_plan
from cudafilter.engines.correlate import (
    tap_by_tap,
)
from cudafilter.engines.fold import Folded, fold
from cudafilter.errors import EngineError, LimitError
from cudafilter.host.cores import cores, each
from cudafilter.operations.borders import Border, border_index, extract
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.operation import Operation, WholeImage, only_stage
from cudafilter.operations.pixels import KINDS, Pixels, require_pixels

if TYPE_CHECKING:
    from cudafilter.engines.codecs import JpegPath, PngCodec

BAND_BYTES = 5 << 20
"""Size of a band in its working type: little of it is halo, and from 4 MiB on NumPy asks the system
for huge pages, which it gives far faster than small ones."""

LONG = 128
"""Taps along an axis from which two 1-D passes beat sepFilter2D, whose cost per tap grows."""

LEAST_WEIGHT = 1e-25
"""Of weights that float32 is used for, and the inverse of the largest one."""


class CpuEngine:
    """Runs filters on all cores.

    Work is done in float32, and in float64 for uint16, whose contract leaves float32 no room when
    terms cancel; in chains as precision.py says. Bands depend only on the image, so the bits do not
    depend on the core count.

    Of float32 images, a sample influences only the pixels that have a tap on it: a Fourier
    transform would spread NaN, infinity and the noise of large samples. What is not finite in a
    result, be it of NaN or of sums past float32's range, is computed again with care in float64.
    """

    name = "cpu"
    parallel = 0
    jpeg: JpegPath | None = None
    png: PngCodec | None = None

    def __init__(self, note: str | None = None, threads: int | None = None) -> None:
        self.note = note
        self._threads = threads
        count = threads or cores()
        self.title = f"cpu: OpenCV {cv2.__version__}, {count} thread{'s' * (count != 1)}"

    def run(
        self,
        pixels: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
        *,
        overwrite: bool = False,
        rows: tuple[int, int] | None = None,
    ) -> Result:
        """See Engine.run."""
        pixels = require_pixels(pixels, alpha, KINDS)
        plan = filter.unrolled(border)
        if not plan:
            return Result(pixels if overwrite and rows is None else picked(pixels, rows).copy())
        stage = only_stage(plan)
        if stage is None:
            return run_plan(one_by_one(self.run), pixels, plan, alpha, rows)
        operation, border = stage
        try:
            if isinstance(operation, Correlation):
                return Result(self._correlated(pixels, operation, border, alpha, overwrite, rows))
            # Not before: most runs do without.
            from cudafilter.engines.ranks import rank_of
            from cudafilter.operations.rank import Rank
            from cudafilter.operations.weighed import Weighed

            if isinstance(operation, Rank):
                return Result(rank_of(pixels, operation, border, self._threads, rows))
            if isinstance(operation, Weighed):
                from cudafilter.engines.bilateral import BilateralSums
                from cudafilter.engines.denoise import DenoiseSums
                from cudafilter.engines.weighed import weighed_of
                from cudafilter.operations.denoise import Denoise

                kind = DenoiseSums if isinstance(operation, Denoise) else BilateralSums
                done = weighed_of(kind, pixels, operation, border, alpha, self._threads, rows)
                return Result(done)
            from cudafilter.engines.points import of_whole, pointed
            from cudafilter.operations.point import Points

            if isinstance(operation, Points):
                return Result(pointed(picked(pixels, rows), operation, alpha, self._threads))
            if isinstance(operation, WholeImage):
                done = of_whole(pixels, operation, border, alpha, self._threads)
                return Result(picked(done, rows))
        except (cv2.error, MemoryError) as error:
            raise EngineError(f"the CPU engine failed: {error}") from error
        raise LimitError(f"the CPU engine has no {operation.name}")

    def screen(
        self,
        source: Pixels,
        result: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
    ) -> Screening:
        """See Engine.screen: the check does it on the same cores."""
        return Screening()

    def step(
        self, shape: tuple[int, ...], dtype: str, filter: Operation, border: Border, alpha: bool
    ) -> int:
        """See Engine.step. Bands are cut there, and what OpenCV gives may depend on the band."""
        height, width, channels = shape
        if isinstance(filter, Correlation):
            folded = fold(filter, height, width, border)
            return _band(width * channels, folded, _work_of(np.dtype(dtype), filter, alpha))
        from cudafilter.engines.ranks import band
        from cudafilter.engines.weighed import block_rows
        from cudafilter.operations.point import Points
        from cudafilter.operations.weighed import Weighed

        if isinstance(filter, WholeImage):
            return height
        if isinstance(filter, Points):
            return 1
        if isinstance(filter, Weighed):
            return block_rows(filter.halo)
        return band(width * channels * np.dtype(dtype).itemsize, filter)

    def close(self) -> None:
        """See Engine.close."""

    def _correlated(
        self,
        pixels: Pixels,
        filter: Correlation,
        border: Border,
        alpha: bool,
        overwrite: bool,
        rows: tuple[int, int] | None,
    ) -> Pixels:
        """*rows* of *pixels* filtered; all of them in their place where *overwrite* allows it."""
        height, width, channels = pixels.shape
        work = _work_of(pixels.dtype, filter, alpha)
        given, filter = filter, fold(filter, height, width, border)
        taps = Folded(given, filter, height, width, border)
        step = _band(width * channels, filter, work)
        top, bottom = rows or (0, height)
        if (
            overwrite
            and rows is None
            and pixels.flags.writeable
            and height > step  # one band would be copied as a whole
            and _is_local(filter, border, alpha)
        ):
            out, around = pixels, _kept(pixels, step, filter, border)
        else:
            out = np.empty((bottom - top, width, channels), pixels.dtype)
            around = partial(_around, pixels, filter=filter, border=border, alpha=alpha)

        def run_band(y: int) -> None:
            end = min(y + step, bottom)
            block = around((y, end))
            with np.errstate(all="ignore"):  # NaN and infinity are results like others
                out[y - top : end - top] = filter_block(
                    block, pixels[y:end], filter, alpha, work, taps
                )

        each(run_band, range(top, bottom, step), self._threads)
        return out


def _band(samples: int, filter: Correlation, work: np.dtype[np.floating]) -> int:
    """Rows of a band, each of so many *samples* that are worked on in the type *work*."""
    above, below, *_ = filter.reach
    # A band shorter than its halo would read more rows of halo than of image.
    return max(16, BAND_BYTES // (samples * work.itemsize), above + below)


def _work_of(
    dtype: np.dtype[np.generic], filter: Correlation, alpha: bool
) -> np.dtype[np.floating]:
    """The type to work in."""
    single, double = np.dtype(np.float32), np.dtype(np.float64)
    if dtype in (np.uint16, double) or filter.in_double(dtype.name, alpha):
        return double
    if (alpha or dtype == single) and not _fits(filter):
        return double
    return double if not alpha and takes_transform(filter, dtype, single) else single


def _fits(filter: Correlation) -> bool:
    """Whether all weights lie well within float32's range, so that terms lose no digit there."""
    given = [part for kernel in filter.kernels for part in kernel.factors or (kernel.weights,)]
    sizes = np.concatenate([[filter.gain or 1.0], *(part[part != 0] for part in given)])
    sizes = np.abs(sizes)
    return bool(sizes.min() >= LEAST_WEIGHT and sizes.max() <= 1 / LEAST_WEIGHT)


def _around(
    pixels: Pixels, rows: tuple[int, int], filter: Correlation, border: Border, alpha: bool
) -> Block:
    """Rows ``rows[0]..rows[1]-1`` of *pixels* with what the taps of *filter* reach."""
    first, last = rows
    above, below, left, right = filter.reach
    width = pixels.shape[1]
    inner = slice(above, above + last - first)
    if _is_long(filter):
        # The last column lies outside the image: OUTSIDE is its index.
        block = extract(pixels, (first - above, last + below), (0, width + 1), border)
        columns = border_index(-left, width + right, width, border.mode)
        return Block(block, (inner, slice(left, left + width)), columns=columns)
    if not _is_local(filter, border, alpha):
        block = extract(pixels, (first - above, last + below), (-left, width + right), border)
        return Block(block, (inner, slice(left, left + width)))
    # A border reflects as far as the kernel reaches past it, which is the way back.
    halo = max(above, below)
    start = max(0, first - halo)
    inner = slice(first - start, last - start)
    return Block(pixels[start : last + halo], (inner, slice(0, width)), BORDERS[border.mode])


def _kept(
    pixels: Pixels, step: int, filter: Correlation, border: Border
) -> Callable[[tuple[int, int]], Block]:
    """As _around, for bands of *step* rows that are overwritten one after the other.

    Rows that two bands read are copied at once, and each band when it is asked for.
    """
    above, below, *_ = filter.reach
    halo, height = max(above, below), len(pixels)
    seams = {
        y: (pixels[max(0, y - halo) : y].copy(), pixels[y : y + halo].copy())
        for y in (*range(0, height, step), height)
    }

    def block(rows: tuple[int, int]) -> Block:
        (before, _), (_, after) = (seams[y] for y in rows)
        own = pixels[slice(*rows)]
        inner = slice(len(before), len(before) + len(own)), slice(0, pixels.shape[1])
        return Block(np.concatenate((before, own, after)), inner, BORDERS[border.mode])

    return block


def _is_long(filter: Correlation) -> bool:
    return filter.rank1 and max(filter.size) >= LONG


def _is_local(filter: Correlation, border: Border, alpha: bool) -> bool:
    """Whether a band needs only the rows beside it, since OpenCV makes *border*."""
    return (
        not _is_long(filter) and border.mode in BORDERS and run_of(filter, alpha) is not tap_by_tap
    )
