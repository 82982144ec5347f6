"""What samples of a result show, held to their values: the verdict of the contract."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cudafilter.operations.pixels import Exact, Pixels, quantise
from cudafilter.proof.planes import Index, Planes
from cudafilter.proof.proof import Proof
from cudafilter.proof.tolerance import Tolerance
from cudafilter.proof.values import Mask, Values, suspect


class Finding(NamedTuple):
    """What some samples of a result showed."""

    differing: int
    violations: int
    largest: float
    rank: tuple[bool, float]
    """Orders the worst samples: whether one is outside the contract, and how far, or how far it is
    from the reference."""
    worst: tuple[int, int, int]
    got: float
    expected: float
    unproven: int


class Differing(NamedTuple):
    """Samples that are not the exact value rounded."""

    y: Index
    x: Index
    c: Index
    exact: Exact
    """Their values, ..."""
    bound: float
    """... and how far the definition's may be from them."""


def examine(
    got: Pixels,
    values: Values,
    first: int,
    tolerance: Tolerance,
    proof: Proof,
    differing: list[Differing] | None = None,
) -> Finding:
    """Compare the rows *got*, from row *first* on, with their *values*.

    What differs is added to *differing*. Nearly all samples are the value rounded, and no value
    within its bound rounds otherwise. Only the others are looked at more closely, and the
    definition is asked where the bound decides.
    """
    rows = got.transpose(0, 2, 1)
    look = suspect(rows, values)
    limits: Planes | None = None
    if tolerance.differs or (tolerance.fixed is None and look.any()):
        limits = tolerance.rows(first, first + len(got), values)
    unproven = 0
    if tolerance.differs or tolerance.fixed is not None:
        unproven = unproven_of(tolerance.fixed if limits is None else limits, rows)
    if not look.any():
        value = float(rows[0, 0, 0])
        return Finding(0, 0, 0.0, (False, 0.0), (0, first, 0), value, value, unproven)
    at = np.unravel_index(np.flatnonzero(look), look.shape)  # nonzero() takes 20 times as long
    at_y, at_c, at_x = at
    places = np.stack([at_y + first, at_x, at_c])
    limit = np.full(len(at_y), tolerance.fixed) if limits is None else limits[at]
    samples, exact = rows[at], values.values[at].astype(np.float64)
    unsure = unsure_of(samples, exact, values.bound, limit)
    if values.unproven is not None:
        unsure |= values.unproven[at]
    exact[unsure] = proof.at(*places[:, unsure])
    if tolerance.fixed is None:  # the fast routes' limit may be too small, and only that
        wrong = beyond(samples, exact, limit) > 0
        exact[wrong] = proof.at(*places[:, wrong])
        limit[wrong] = tolerance.at(*places[:, wrong])
    finding, n = find(samples, exact, limit)
    if differing is not None and finding.differing:
        other = ~_same(samples, quantise(exact, samples.dtype))
        y, x, c = places[:, other]
        differing.append(Differing(y, x, c, exact[other], values.bound))
    worst = int(at_x[n]), int(at_y[n]) + first, int(at_c[n])
    return finding._replace(worst=worst, unproven=unproven)


def unproven_of(limit: Exact | float | None, got: Planes) -> int:
    """Of how many samples *got* the tolerance *limit*, of all or of each, says nothing."""
    if limit is None:
        return 0
    open_ = np.asarray(limit) >= (0.5 if got.dtype.kind == "u" else math.inf)
    return int(open_.sum()) * (got.size // open_.size)


def unsure_of(got: Pixels, exact: Exact, bound: float, limit: Exact) -> Mask:
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


def find(got: Pixels, exact: Exact, limit: Exact) -> tuple[Finding, int]:
    """What the samples *got* show, 1-D as their *exact* values are, and which one is the worst.

    Before it rounds, a value may lie *limit* away.
    """
    expected = quantise(exact, got.dtype)
    same = _same(got, expected)
    difference = np.abs(got.astype(np.float64) - expected)
    difference[same] = 0  # infinity less itself is NaN
    outside = beyond(got, exact, limit)
    # The worst sample is the one furthest outside, or, if none is, the most different.
    violations = int((outside > 0).sum())
    far = outside if violations else difference
    n = int(np.argmax(far))
    finding = Finding(
        differing=int((~same).sum()),
        violations=violations,
        largest=float(difference.max()),
        rank=(violations > 0, float(far[n])),
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


def beyond(got: Pixels, exact: Exact, limit: Exact) -> Exact:
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


def together(parts: Sequence[Finding]) -> Finding:
    """What all *parts* show."""
    worst = max(parts, key=lambda part: part.rank)
    return worst._replace(
        differing=sum(part.differing for part in parts),
        violations=sum(part.violations for part in parts),
        largest=float(np.max([part.largest for part in parts])),  # NaN wins
        unproven=sum(part.unproven for part in parts),
    )
