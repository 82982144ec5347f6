"""An engine's result against the reference, by the contract that docs/check.md states."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cudafilter.errors import ParameterError
from cudafilter.host.cores import cores, each
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Exact, Pixels, quantise, require_pixels
from cudafilter.proof.agreement import AGREES as AGREES
from cudafilter.proof.agreement import CONFIDENCE as CONFIDENCE
from cudafilter.proof.agreement import QUICK as QUICK
from cudafilter.proof.agreement import Agreement as Agreement
from cudafilter.proof.planes import Index, Planes
from cudafilter.proof.proof import Proof
from cudafilter.proof.tolerance import Tolerance
from cudafilter.proof.values import Mask, Values, suspect

WINDOWS = 12
"""Samples in the windows of a quick check, for each sample of the image, from which on looking at
all is as quick."""


def compare(
    result: Pixels,
    source: Pixels,
    filter: Operation,
    border: str | Border = Border(),
    alpha: bool = False,
    quick: bool = False,
) -> Agreement:
    """Compare *result*, an engine's output for *source*, with the float64 reference.

    Both are (H, W) or (H, W, C), and *border* is one or its name, as apply() takes them.
    proof/tolerance.py says how far off a value may be before it rounds. NaN and infinity agree
    with the same, an infinity past float32's range with one of its sign; any other is a
    violation. Raises ParameterError if shape or type differ.

    *quick* looks at QUICK samples only, taken at random, other ones each time; at all where these
    are no more, or as quick.
    """
    return compare_all([result], source, filter, border, alpha, quick)[0]


def compare_all(
    results: Sequence[Pixels],
    source: Pixels,
    filter: Operation,
    border: str | Border = Border(),
    alpha: bool = False,
    quick: bool = False,
) -> list[Agreement]:
    """compare() for several results of one filter on one image: the reference runs but once."""
    for result in results:
        if result.shape != source.shape or result.dtype != source.dtype:
            raise ParameterError(
                "result",
                f"{result.dtype} {result.shape} is not of the source's"
                f" {source.dtype} {source.shape}",
            )
    started = time.perf_counter()
    border = Border(border) if isinstance(border, str) else border
    if source.ndim == 2:
        source, results = source[..., None], [result[..., None] for result in results]
    source = require_pixels(source, alpha)
    tolerance = Tolerance(source, filter, border, alpha)
    proof = Proof(source, filter, border, alpha)
    above, below, left, right = filter.reach
    windows = QUICK * (above + 1 + below) * (left + 1 + right)
    if quick and source.size > QUICK and not (proof.fast and windows > WINDOWS * source.size):
        places = at_random(source.size)
        found = _at(results, places, source.shape, 0, proof, tolerance)
        samples = QUICK
    else:
        found = _in_rows(results, 0, proof, tolerance)
        samples = source.size
    seconds = time.perf_counter() - started
    return [_agreement(parts, samples, source.size, seconds) for parts in found]


def compare_rows(
    result: Pixels,
    first: int,
    source: Pixels,
    filter: Operation,
    border: Border,
    alpha: bool,
    places: Index | None = None,
) -> Agreement:
    """compare() for *result*, some rows of an image, all or the samples *places* in them.

    *source* is what they depend on, and in it they begin at row *first*.
    """
    started = time.perf_counter()
    tolerance = Tolerance(source, filter, border, alpha)
    proof = Proof(source, filter, border, alpha)
    if places is None:
        (found,) = _in_rows([result], first, proof, tolerance)
        samples = result.size
    else:
        (found,) = _at([result], places, result.shape, first, proof, tolerance)
        samples = len(places)
    return _agreement(found, samples, result.size, time.perf_counter() - started)


def at_random(size: int) -> Index:
    """QUICK of so many samples, in order."""
    return np.sort(np.random.default_rng().choice(size, QUICK, replace=False))


def _in_rows(
    results: Sequence[Pixels], first: int, proof: Proof, tolerance: Tolerance
) -> list[Sequence[_Finding]]:
    """What the samples of *results* show, which begin at row *first* of the source."""
    end = first + len(results[0])

    def examine(y: int) -> list[_Finding]:
        last = min(y + proof.step, end)
        with np.errstate(all="ignore"):  # NaN and infinity are found, not warned of
            values = proof.rows(y, last)
            parts = (result[y - first : last - first] for result in results)
            return [_examine(part, values, y, tolerance, proof) for part in parts]

    bands = each(examine, range(first, end, proof.step), cores())
    return list(zip(*bands, strict=True))


def _at(
    results: Sequence[Pixels],
    places: Index,
    shape: tuple[int, ...],
    first: int,
    proof: Proof,
    tolerance: Tolerance,
) -> list[Sequence[_Finding]]:
    """What the samples *places* of *results* show, which begin at row *first* of the source."""
    top, x, c = np.unravel_index(places, shape)
    y = top + first
    parts = np.array_split(np.arange(len(places)), 8 * cores())
    with np.errstate(all="ignore"):
        exact = np.concatenate(each(lambda n: proof.at(y[n], x[n], c[n]), parts, cores()))
        if tolerance.fixed is not None:
            limit = np.full(len(places), tolerance.fixed)
        else:
            limit = np.concatenate(each(lambda n: tolerance.at(y[n], x[n], c[n]), parts, cores()))
        unproven = _unproven(limit, results[0][top, x, c])
        found = [_find(result[top, x, c], exact, limit) for result in results]
    return [
        [finding._replace(worst=(int(x[n]), int(y[n]), int(c[n])), unproven=unproven)]
        for finding, n in found
    ]


class _Finding(NamedTuple):
    """What one band of a result showed; ``rank`` orders the bands' worst samples."""

    differing: int
    violations: int
    largest: float
    rank: float
    worst: tuple[int, int, int]
    got: float
    expected: float
    unproven: int


def _examine(
    got: Pixels, values: Values, first: int, tolerance: Tolerance, proof: Proof
) -> _Finding:
    """Compare the rows *got*, from row *first* on, with their *values*.

    Nearly all samples are the value rounded, and no value within its bound rounds otherwise. Only
    the others are looked at more closely, and the definition is asked where the bound decides.
    """
    planes = got.transpose(0, 2, 1)
    found = []
    all_limits: Planes | None = None  # of all rows, once some are wanted: routes like many rows
    for y, part in values.parts():
        rows = planes[y : y + len(part.values)]
        top = first + y
        look = suspect(rows, part)
        limits = None
        if tolerance.differs or (tolerance.fixed is None and look.any()):
            if all_limits is None:
                all_limits = tolerance.rows(first, first + len(got), values)
            limits = all_limits[y : y + len(rows)]
        unproven = 0
        if tolerance.differs or tolerance.fixed is not None:
            unproven = _unproven(tolerance.fixed if limits is None else limits, rows)
        if not look.any():
            value = float(rows[0, 0, 0])
            found.append(_Finding(0, 0, 0.0, 0.0, (0, top, 0), value, value, unproven))
            continue
        at_y, at_c, at_x = np.nonzero(look)
        places = np.stack([at_y + top, at_x, at_c])
        limit = np.full(len(at_y), tolerance.fixed) if limits is None else limits[look]
        samples, exact = rows[look], part.values[look].astype(np.float64)
        unsure = _unsure(samples, exact, part.bound, limit)
        if part.unproven is not None:
            unsure |= part.unproven[look]
        exact[unsure] = proof.at(*places[:, unsure])
        if tolerance.fixed is None:  # the fast routes' limit may be too small, and only that
            wrong = _outside(samples, exact, limit) > 0
            exact[wrong] = proof.at(*places[:, wrong])
            limit[wrong] = tolerance.at(*places[:, wrong])
        finding, n = _find(samples, exact, limit)
        worst = int(at_x[n]), int(at_y[n]) + top, int(at_c[n])
        found.append(finding._replace(worst=worst, unproven=unproven))
    return _together(found)


def _unproven(limit: Exact | float | None, got: Planes) -> int:
    """Of how many samples *got* the tolerance *limit* says nothing."""
    if limit is None:
        return 0
    most = 0.5 if got.dtype.kind == "u" else math.inf
    return int(np.broadcast_to(np.asarray(limit) >= most, got.shape).sum())


def _unsure(got: Pixels, exact: Exact, bound: float, limit: Exact) -> Mask:
    """Whether a value within *bound* of *exact* could have another verdict."""
    unsure = np.zeros(exact.shape, np.bool_)
    if bound:
        # A little further, for these sums round too.
        bound = bound * 1.01 + 4e-16 * float(np.max(np.abs(exact), initial=0))
        for offset in (-limit, np.float64(0), limit):
            low, high = exact + (offset - bound), exact + (offset + bound)
            unsure |= quantise(low, got.dtype) != quantise(high, got.dtype)
        if got.dtype.kind == "f":
            unsure |= np.abs(np.abs(got - exact) - limit) <= bound
    return unsure


def _find(got: Pixels, exact: Exact, limit: Exact) -> tuple[_Finding, int]:
    """What the samples *got* show, 1-D as their *exact* values are, and which one is the worst.

    Before it rounds, a value may lie *limit* away.
    """
    expected = quantise(exact, got.dtype)
    same = _same(got, expected)
    difference = np.abs(got.astype(np.float64) - expected)
    difference[same] = 0  # infinity less itself is NaN
    outside = _outside(got, exact, limit)
    # The worst sample is the one furthest outside, or, if none is, the most different.
    rank = np.where(outside > 0, outside + 1e300, difference)
    n = int(np.argmax(rank))
    finding = _Finding(
        differing=int((~same).sum()),
        violations=int((outside > 0).sum()),
        largest=float(difference.max()),
        rank=float(rank[n]),
        worst=(0, 0, 0),
        got=float(got[n]),
        expected=float(expected[n]),
        unproven=0,
    )
    return finding, n


def _same(got: Pixels, expected: Pixels) -> Mask:
    """Where both are the same, NaN too."""
    same: Mask = (got == expected) | (np.isnan(got) & np.isnan(expected))
    return same


def _outside(got: Pixels, exact: Exact, limit: Exact) -> Exact:
    """How far *got* lies outside the contract, in native units; 0 or less is inside.

    An integer may be any that a value within *limit* of *exact* rounds to.
    """
    outside: Exact
    if got.dtype == np.float32:
        outside = np.abs(got - exact) - limit
        infinite = np.isinf(got)
        far = exact[infinite] + np.copysign(limit[infinite], got[infinite])
        outside[infinite] = np.where(quantise(far, got.dtype) == got[infinite], 0, np.inf)
    else:
        low, high = quantise(exact - limit, got.dtype), quantise(exact + limit, got.dtype)
        value = got.astype(np.float64)
        outside = np.maximum(low - value, value - high)
    outside[np.isnan(outside)] = np.inf
    outside[_same(got, quantise(exact, got.dtype))] = 0
    return outside


def _together(parts: Sequence[_Finding]) -> _Finding:
    """What all *parts* show."""
    worst = max(parts, key=lambda part: part.rank)
    return worst._replace(
        differing=sum(part.differing for part in parts),
        violations=sum(part.violations for part in parts),
        largest=float(np.max([part.largest for part in parts])),  # NaN wins
        unproven=sum(part.unproven for part in parts),
    )


def _agreement(bands: Sequence[_Finding], samples: int, of: int, seconds: float) -> Agreement:
    all = _together(bands)
    return Agreement(
        samples=samples,
        differing=all.differing,
        violations=all.violations,
        largest=all.largest,
        worst=all.worst,
        got=all.got,
        expected=all.expected,
        seconds=seconds,
        of=of,
        unproven=all.unproven,
    )
