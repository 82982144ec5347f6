"""What a device proved of a result in float64, held to a tenth that the host recomputes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cudafilter.errors import CudafilterError
from cudafilter.host.cores import each
from cudafilter.operations.borders import OUTSIDE, Border, border_index
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Exact, Pixels
from cudafilter.proof.planes import Index
from cudafilter.proof.proof import Proof
from cudafilter.proof.tolerance import Tolerance
from cudafilter.proof.values import Mask
from cudafilter.proof.verdict import (
    Differing,
    Finding,
    beyond,
    examine,
    find,
    together,
    unproven_of,
    unsure_of,
)

SHARE = 10
"""Of so many rows the host recomputes one."""

TOGETHER = 1 << 21
"""Samples at a time, at most: 16 MiB in float64. One thread does a picture here, and others do
theirs. Each waits for the interpreter's lock after each of NumPy's calls. On 16 cores, 16 threads
did 40 pictures of 12 megapixels a second by 24 rows at a time, 88 by 72 and 107 by 144."""

MOST_ASKED = 256
"""Values of samples near a rounding boundary that the definition is asked for in the tenth."""

Span = tuple[int, int]
"""The first row, and the one past the last."""


class Screened(NamedTuple):
    """The samples of a result that a device did not find right, and their values.

    Of all others it says that each value within the bound rounds to them.
    """

    places: Index
    """(n,), ascending: where they are in (H, W, C), counted through."""
    values: Exact
    """(n,), the exact values as the device has them."""
    got: Pixels
    """(n,), what the result has there."""
    bound: float
    """How far the definition's values may be from the device's; 0: they have the same bits."""
    right: int
    """Pixels of which all samples were found right."""
    rows: tuple[Span, ...]
    """The rows that the host recomputes, of tenth()."""
    partial: bool = False
    """Whether the host has only these rows of the result, and of the source what they tap."""


class Unsettled(CudafilterError):
    """The device's word does not settle it; ``str()`` is why."""


def tenth(height: int) -> tuple[Span, ...]:
    """A tenth of *height* rows, at least one, other ones each time.

    They follow each other, and after the last row comes the first: so each row is as likely.
    """
    count = -(-height // SHARE)
    first = int(np.random.default_rng().integers(height))
    last = first + count
    return ((first, last),) if last <= height else ((first, height), (0, last - height))


def tapped(rows: tuple[Span, ...], operation: Operation, border: Border, height: int) -> list[Span]:
    """The rows of an image of *height* rows that *rows* of its result depend on, in runs."""
    above, below, *_ = operation.reach
    index = np.concatenate(
        [border_index(first - above, last + below, height, border.mode) for first, last in rows]
    )
    needed = np.unique(index[index != OUTSIDE])
    runs = np.split(needed, np.flatnonzero(np.diff(needed) > 1) + 1)
    return [(int(run[0]), int(run[-1]) + 1) for run in runs]


def settle(
    result: Pixels, source: Pixels, proof: Proof, tolerance: Tolerance, screened: Screened
) -> Finding:
    """What *result* shows, by *screened* and by what the host finds in its rows.

    Raises Unsettled where the two contradict each other, and where the definition must be asked
    and not all of the source is here.
    """
    limit = tolerance.fixed
    if limit is None:
        raise Unsettled("the tolerance differs from sample to sample")
    height, width, channels = source.shape
    differing: list[Differing] = []
    band = proof.step * max(1, TOGETHER // (proof.step * width * channels))
    steps = [
        (y, min(y + band, last)) for first, last in screened.rows for y in range(first, last, band)
    ]

    def look(step: Span) -> Finding:
        with np.errstate(all="ignore"):
            values = proof.rows(*step)
            return examine(result[slice(*step)], values, step[0], tolerance, proof, differing)

    found = each(look, steps)
    listed = screened.places
    looked = screened.right + len(np.unique(listed // channels))
    if looked != height * width:
        raise Unsettled(f"the device looked at {looked:,} of {height * width:,} pixels")
    y, x, c = np.unravel_index(listed, source.shape)
    ours = np.zeros(height, np.bool_)
    for span in screened.rows:
        ours[slice(*span)] = True
    inside = ours[y]
    if not screened.partial and (result[y, x, c] != screened.got).any():
        raise Unsettled("the device looked at other samples")
    _require_same(screened, inside, differing, result, proof)
    outside = ~inside
    if outside.any():
        y, x, c = y[outside], x[outside], c[outside]
        got, exact = screened.got[outside], screened.values[outside]
        limits = np.full(len(got), limit)
        # Nothing is refused by the device's word only.
        ask = unsure_of(got, exact, screened.bound, limits) | (beyond(got, exact, limits) > 0)
        if ask.any():
            if screened.partial:
                raise Unsettled("only the definition tells whether some samples are right")
            own = proof.at(y[ask], x[ask], c[ask])
            _require_close(exact[ask], own, screened.bound)
            exact[ask] = own
        finding, n = find(got, exact, limits)
        found.append(finding._replace(worst=(int(x[n]), int(y[n]), int(c[n]))))
    return together(found)._replace(unproven=unproven_of(limit, result))


def _require_same(
    screened: Screened, inside: Mask, differing: list[Differing], result: Pixels, proof: Proof
) -> None:
    """Raise Unsettled unless the device found in the host's rows what the host finds there."""
    listed, values = screened.places[inside], screened.values[inside]
    known = np.zeros(len(listed), np.bool_)
    for one in differing:
        places = np.ravel_multi_index((one.y, one.x, one.c), result.shape)
        at = np.searchsorted(listed, places)
        at[at == len(listed)] = 0
        missed = int((listed[at] != places).sum()) if len(listed) else len(places)
        if missed:
            raise Unsettled(f"the device missed {missed:,} samples that differ")
        _require_close(values[at], one.exact, screened.bound + one.bound)
        known[at] = True
    rest = np.flatnonzero(~known)[:MOST_ASKED]
    if screened.bound == 0 and len(rest):
        raise Unsettled(f"the device took {len(rest):,} samples for wrong that are right")
    y, x, c = np.unravel_index(listed[rest], result.shape)
    for first, last in screened.rows:
        there = (y >= first) & (y < last)
        exact = proof.at(y[there], x[there], c[there])
        _require_close(values[rest][there], exact, screened.bound)


def _require_close(values: Exact, exact: Exact, bound: float) -> None:
    """Raise Unsettled unless *values* are *exact* within *bound*."""
    off = np.abs(values - exact)
    # The bound's own sums round too.
    if not (off <= 1.01 * bound + (4e-16 * np.abs(exact) if bound else 0.0)).all():
        raise Unsettled(f"the device's values are off by up to {float(np.max(off)):.3g}")
