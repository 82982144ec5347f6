"""The image after what needs the whole image, found some rows at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cudafilter.host.cores import cores, each
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.canny import Canny
from cudafilter.operations.operation import Operation, Plan, Planned, Stage, split
from cudafilter.operations.pixels import Exact, Pixels, full_scale, quantise
from cudafilter.operations.point import LEVELS, Otsu, counted, levels_of, otsu
from cudafilter.proof.edges import edges

BAND_SAMPLES = 1 << 19
"""Samples at a time, at most, but for a row."""


def begun(
    pixels: Pixels, operation: Operation, border: Border, alpha: bool
) -> tuple[Pixels, Operation]:
    """The image after the last stage that needs the whole image, and what is left of *operation*.

    So that some rows of the rest can be asked for. Both are as given where there is no such stage.
    """
    before, rest = split(operation.unrolled(border))
    if not before:
        return pixels, operation
    done = _after(pixels, before, alpha)
    return done, Planned(rest, operation.reach, operation.name)


def _after(pixels: Pixels, plan: Plan, alpha: bool) -> Pixels:
    """*pixels* after *plan*, which computes no samples; see Chain."""
    before, rest = split(plan)
    if before:
        *first, last = before
        assert isinstance(last, Stage)
        given = _after(pixels, tuple(first), alpha)
        if isinstance(last.operation, Canny):
            pixels = edges(given, last.operation, last.border, alpha)
        else:
            assert isinstance(last.operation, Otsu)
            pixels = _parted(given, alpha)
    if not rest:
        return pixels
    out = np.empty_like(pixels)
    left = Planned(rest, (0, 0, 0, 0), "")

    def define(rows: tuple[int, int]) -> None:
        exact = reference.exact(pixels, left, Border(), alpha, rows)
        out[slice(*rows)] = quantise(exact, out.dtype)

    each(define, _bands(pixels), cores())
    return out


def _parted(pixels: Pixels, alpha: bool) -> Pixels:
    """*pixels* after the threshold of Otsu."""
    out, full = np.empty_like(pixels), full_scale(pixels.dtype)
    colours, bands = pixels.shape[2] - alpha, _bands(pixels)

    def levels(rows: tuple[int, int], c: int) -> Exact:
        return levels_of(pixels[slice(*rows), :, c].astype(np.float64), full)

    def count(n: int) -> npt.NDArray[np.int64]:
        counts = np.zeros((colours, LEVELS + 1), np.int64)
        for rows in bands[n :: cores()]:
            for c in range(colours):
                counts[c] += counted(levels(rows, c))
        return counts

    parting = [otsu(counts) for counts in np.sum(each(count, range(cores()), cores()), axis=0)]

    def show(rows: tuple[int, int]) -> None:
        own = out[slice(*rows)]
        for c, level in enumerate(parting):
            np.multiply(levels(rows, c) > level, own.dtype.type(full), out=own[..., c])
        own[..., colours:] = pixels[slice(*rows), :, colours:]

    each(show, bands, cores())
    return out


def _bands(pixels: Pixels) -> list[tuple[int, int]]:
    step = max(16, BAND_SAMPLES // pixels[0].size)
    return [(y, min(y + step, len(pixels))) for y in range(0, len(pixels), step)]
