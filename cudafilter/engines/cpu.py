"""The CPU engine: OpenCV's filter2D and sepFilter2D over bands of rows, one band a core."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from cudafilter.borders import Border, extract
from cudafilter.errors import EngineError
from cudafilter.filter import Filter, Kernel
from cudafilter.pixels import Pixels, full_scale, require_pixels

BAND_BYTES = 1 << 20
"""Size of a band in its working type: the passes over it then stay in a core's cache."""


def _cores() -> int:
    """Cores that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


Work = npt.NDArray[np.floating]


class CpuEngine:
    """Runs filters on all cores.

    Work is done in float32, and in float64 for uint16, whose contract leaves float32 no room when
    terms cancel. Bands depend on the image alone, so the bits do not depend on the core count.
    """

    name = "cpu"

    def __init__(self, note: str | None = None, threads: int | None = None) -> None:
        self.note = note
        self._threads = threads or _cores()
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
        above, below, left, right = filter.reach
        # A band shorter than its halo would read more rows of halo than of image.
        step = max(16, BAND_BYTES // (width * channels * work.itemsize), above + below)

        def run_band(y: int) -> None:
            last = min(y + step, height)
            block = extract(pixels, (y - above, last + below), (-left, width + right), border)
            out[y:last] = _filter_block(block, pixels[y:last], filter, alpha, work)

        try:
            for _ in self._pool.map(run_band, range(0, height, step)):
                pass
        except (cv2.error, MemoryError) as error:
            raise EngineError(f"the CPU engine failed: {error}") from error
        return out

    def close(self) -> None:
        """See Engine.close."""
        self._pool.shutdown()


def _filter_block(
    block: Pixels, source: Pixels, filter: Filter, alpha: bool, work: np.dtype[np.floating]
) -> Pixels:
    """*source* (h, w, C) filtered, where *block* is it with the filter's halo around."""
    full = full_scale(source.dtype)
    padded: Work = block.astype(work)
    if not alpha:
        combined = _combine(filter, [_correlate(padded, filter, k) for k in filter.kernels])
        return _quantise(_finish(filter, combined, source, full), source.dtype)

    # Alpha stays in native units where it multiplies colour: integers are then exact.
    alphas = padded[..., -1:]
    padded[..., :-1] *= alphas
    sums = [_correlate(padded, filter, k) for k in filter.kernels]  # colour * alpha, and alpha
    colour, own = source[..., :-1].astype(work), source[..., -1:].astype(work)
    if filter.alpha == "keep":
        kept = [
            (s[..., :-1] + colour * (work.type(k.sum * full) - s[..., -1:])) / work.type(full)
            for k, s in zip(filter.kernels, sums, strict=True)
        ]
        out = _finish(filter, _combine(filter, kept), colour, full)
        return np.concatenate([_quantise(out, source.dtype), source[..., -1:]], axis=2)
    result = work.type(filter.gain) * _combine(filter, sums)
    if filter.source_gain:
        result += work.type(filter.source_gain) * np.concatenate([colour * own, own], axis=2)
    coverage = result[..., -1:]
    visible = coverage > 0
    result[..., :-1] /= np.where(visible, coverage, work.type(1))
    result[..., :-1] += work.type(filter.bias * full)
    result[..., :-1] *= visible
    return _quantise(result, source.dtype)


def _correlate(padded: Work, filter: Filter, kernel: Kernel) -> Work:
    """One kernel of *filter* over (h + halo, w + halo, C); returns (h, w, C)."""
    height, width, _ = padded.shape
    above, below, left, right = filter.reach
    anchor = kernel.anchor[1], kernel.anchor[0]
    if kernel.factors is not None:
        column, row = kernel.factors
        done = cv2.sepFilter2D(
            padded, -1, row, column, anchor=anchor, borderType=cv2.BORDER_CONSTANT
        )
    else:
        done = cv2.filter2D(
            padded, -1, kernel.weights, anchor=anchor, borderType=cv2.BORDER_CONSTANT
        )
    whole = cast(Work, done).reshape(padded.shape)  # OpenCV drops a last axis of 1
    return whole[above : height - below, left : width - right]


def _combine(filter: Filter, results: list[Work]) -> Work:
    if filter.combine == "single":
        return results[0]
    return np.sqrt(results[0] * results[0] + results[1] * results[1])


def _finish(filter: Filter, combined: Work, source: Pixels | Work, full: float) -> Work:
    """Filter's ``gain * combined + source_gain * source + bias`` and threshold, in work's type."""
    number = combined.dtype.type
    out: Work = combined if filter.gain == 1 else combined * number(filter.gain)
    if filter.source_gain:
        out = out + number(filter.source_gain) * source.astype(combined.dtype)
    if filter.bias:
        out = out + number(filter.bias * full)
    if filter.threshold:
        change = out - source
        limit = number(filter.threshold * full)
        out = source + (change - np.clip(change, -limit, limit))
    return out


def _quantise(result: Work, dtype: np.dtype[np.generic]) -> Pixels:
    """As pixels.quantise, without a float64 copy."""
    if dtype.kind != "u":
        return result.astype(dtype, copy=False)
    rounded = np.rint(result)
    return np.clip(rounded, 0, full_scale(dtype), out=rounded).astype(dtype)
