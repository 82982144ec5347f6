"""An engine's result against the reference, by the contract that docs/check.md states."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cudafilter.errors import ParameterError
from cudafilter.host.cores import cores, each
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation, stages_of
from cudafilter.operations.pixels import Exact, Pixels, full_scale, largest_finite, quantise
from cudafilter.proof.proof import Proof
from cudafilter.proof.values import Mask, Values, suspect

QUICK = 4096
"""Samples that a quick check looks at."""

CONFIDENCE = 0.95
"""How sure a quick check is of the share that it tells."""

WINDOWS = 12
"""Samples in the windows of a quick check, for each sample of the image, from which on looking at
all is as quick."""


@dataclass(frozen=True)
class Agreement:
    """How a result compares with the reference."""

    samples: int
    """Samples looked at."""
    differing: int
    """Samples that are not the reference's value (float32: the nearest float32 to it)."""
    violations: int
    """Samples outside the contract."""
    largest: float
    """Largest |result - reference| in native units, rounded as the result is; NaN where only one
    of the two is NaN."""
    worst: tuple[int, int, int]
    """x, y, channel of the sample furthest outside the contract, or of the largest difference."""
    got: float
    expected: float
    seconds: float
    of: int
    """Samples in the image; more than were looked at after a quick check."""

    @property
    def wrong_below(self) -> float | None:
        """With CONFIDENCE, a smaller share than this is wrong, 0..1; None where all were looked at.

        Were it as large, n samples taken at random would all be right with a probability of at
        most ``(1 - share)^n``, which is 1 - CONFIDENCE.
        """
        if self.samples == self.of:
            return None
        return float(-math.expm1(math.log1p(-CONFIDENCE) / self.samples))

    @property
    def ok(self) -> bool:
        """Whether every sample keeps the contract."""
        return self.violations == 0

    @property
    def exact_share(self) -> float:
        """Share of samples that are the reference's value, 0..1."""
        return 1 - self.differing / self.samples

    @property
    def exact_percent(self) -> str:
        """exact_share in percent, to four places, cut and not rounded: 100 means all."""
        return f"{math.floor(1e6 * self.exact_share) / 1e4:g}"

    def figures(self) -> dict[str, Any]:
        """The figures as plain data, for reports. JSON has no NaN: one that is none is None."""
        floats = {"largest": self.largest, "got": self.got, "expected": self.expected}
        return {
            "ok": self.ok,
            "samples": self.samples,
            "of": self.of,
            "wrong_below": self.wrong_below,
            "differing": self.differing,
            "exact_share": self.exact_share,
            "violations": self.violations,
            "worst": list(self.worst),
            **{name: v if math.isfinite(v) else None for name, v in floats.items()},
        }

    def __str__(self) -> str:
        figures = (
            f"largest difference {self.largest:.6g}, {self.differing:,} of {self.samples:,} samples"
            f" differ, {self.exact_percent} % exact, {self.seconds:.2f} s"
        )
        if self.wrong_below is not None:
            figures += f"; {self.samples:,} of {self.of:,} samples looked at"
        if self.ok and self.wrong_below is not None:
            figures += (
                f": with {100 * CONFIDENCE:g} % confidence fewer than"
                f" {_percent(self.wrong_below)} % of samples are wrong"
            )
        if self.ok:
            return f"agrees with the reference: {figures}"
        x, y, channel = self.worst
        return (
            f"DISAGREES with the reference: {self.violations:,} samples outside the contract, worst"
            f" at x={x} y={y} channel={channel}: got {self.got:.9g}, expected {self.expected:.9g};"
            f" {figures}"
        )


def compare(
    result: Pixels,
    source: Pixels,
    filter: Operation,
    border: Border = Border(),
    alpha: bool = False,
    quick: bool = False,
) -> Agreement:
    """Compare *result*, an engine's output for *source* (H, W, C), with the float64 reference.

    The operation says how far off a value may be before it rounds: its tolerance. NaN and infinity
    agree with the same, an infinity past float32's range with one of its sign; any other is a
    violation. Raises ParameterError if shape or type differ.

    *quick* looks at QUICK samples only, taken at random, other ones each time; at all where these
    are no more, or as quick.
    """
    return compare_all([result], source, filter, border, alpha, quick)[0]


def compare_all(
    results: Sequence[Pixels],
    source: Pixels,
    filter: Operation,
    border: Border = Border(),
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
    height = len(source)
    limit = tolerance(source, filter, border, alpha)
    proof = Proof(source, filter, border, alpha)
    above, below, left, right = filter.reach
    windows = QUICK * (above + 1 + below) * (left + 1 + right)
    if quick and source.size > QUICK and not (proof.fast and windows > WINDOWS * source.size):
        return _quick(results, source.shape, proof, limit, started)

    def examine(y: int) -> list[_Finding]:
        last = min(y + proof.step, height)
        with np.errstate(all="ignore"):  # NaN and infinity are found, not warned of
            values = proof.rows(y, last)
            return [_examine(r[y:last], values, y, limit, proof) for r in results]

    bands = each(examine, range(0, height, proof.step), cores())
    seconds = time.perf_counter() - started
    return [
        _agreement(found, source.size, source.size, seconds) for found in zip(*bands, strict=True)
    ]


def tolerance(source: Pixels, filter: Operation, border: Border, alpha: bool) -> float:
    """How far a value of the result for *source* may lie from the exact one before it rounds."""
    full = full_scale(source.dtype)
    largest = full
    if source.dtype.kind == "f":
        outside = (
            abs(stage.border.sample(source.dtype)) for stage in stages_of(filter.unrolled(border))
        )
        largest = max([largest_finite(source), *outside])
    return filter.tolerance(source.dtype.name, full, largest, alpha)


def _quick(
    results: Sequence[Pixels],
    shape: tuple[int, ...],
    proof: Proof,
    limit: float,
    started: float,
) -> list[Agreement]:
    """compare_all() for samples taken at random."""
    size = math.prod(shape)
    places = np.random.default_rng().choice(size, QUICK, replace=False)
    y, x, c = np.unravel_index(np.sort(places), shape)
    parts = np.array_split(np.arange(QUICK), 8 * cores())
    with np.errstate(all="ignore"):
        exact = np.concatenate(each(lambda n: proof.at(y[n], x[n], c[n]), parts, cores()))
        found = [_find(result[y, x, c], exact, limit) for result in results]
    seconds = time.perf_counter() - started
    return [
        _agreement(
            [finding._replace(worst=(int(x[n]), int(y[n]), int(c[n])))], QUICK, size, seconds
        )
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


def _examine(got: Pixels, values: Values, first: int, limit: float, proof: Proof) -> _Finding:
    """Compare the rows *got*, from row *first* on, with their *values*.

    Nearly all samples are the value rounded, and no value within its bound rounds otherwise. Only
    the others are looked at more closely, and the definition is asked where the bound decides.
    """
    planes = got.transpose(0, 2, 1)
    found = []
    for y, part in values.parts():
        rows = planes[y : y + len(part.values)]
        look = suspect(rows, part)
        if not look.any():
            value = float(rows[0, 0, 0])
            found.append(_Finding(0, 0, 0.0, 0.0, (0, first + y, 0), value, value))
            continue
        exact = part.values[look].astype(np.float64)
        unsure = _unsure(exact, got.dtype, part.bound, limit)
        if part.unproven is not None:
            unsure |= part.unproven[look]
        where = np.flatnonzero(look)
        at_y, at_c, at_x = np.unravel_index(where[unsure], look.shape)
        exact[unsure] = proof.at(at_y + (first + y), at_x, at_c)
        finding, n = _find(rows[look], exact, limit)
        at = [int(i) for i in np.unravel_index(where[n], look.shape)]
        found.append(finding._replace(worst=(at[2], first + y + at[0], at[1])))
    return _together(found)


def _unsure(exact: Exact, dtype: np.dtype[Any], bound: float, limit: float) -> Mask:
    """Whether a value within *bound* of *exact* could have another verdict."""
    unsure = np.zeros(exact.shape, np.bool_)
    if bound:
        # A little further, for these sums round too.
        bound = bound * 1.01 + 4e-16 * float(np.max(np.abs(exact), initial=0))
        for offset in (-limit, 0.0, limit):
            low, high = exact + (offset - bound), exact + (offset + bound)
            unsure |= quantise(low, dtype) != quantise(high, dtype)
    return unsure


def _find(got: Pixels, exact: Exact, limit: float) -> tuple[_Finding, int]:
    """What the samples *got* show, 1-D as their *exact* values are, and which one is the worst.

    Before it rounds, a value may lie *limit* away.
    """
    expected = quantise(exact, got.dtype)
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    difference = np.abs(got.astype(np.float64) - expected)
    difference[same] = 0  # infinity less itself is NaN
    if got.dtype == np.float32:
        outside = np.abs(got - exact) - limit
    else:
        outside = _outside(exact, got, limit)
    outside[~np.isfinite(outside)] = np.inf
    outside[same] = 0
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
    )
    return finding, n


def _together(parts: Sequence[_Finding]) -> _Finding:
    """What all *parts* show."""
    worst = max(parts, key=lambda part: part.rank)
    return worst._replace(
        differing=sum(part.differing for part in parts),
        violations=sum(part.violations for part in parts),
        largest=float(np.max([part.largest for part in parts])),  # NaN wins
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
    )


def _percent(share: float) -> str:
    """*share* in percent to one digit, rounded up."""
    percent = 100 * share
    digit = 10.0 ** math.floor(math.log10(percent))
    return f"{math.ceil(percent / digit) * digit:.2g}"


def _outside(exact: Exact, got: Pixels, limit: float) -> Exact:
    """How far integers lie outside the contract, in steps; 0 or less is inside.

    A result may be any integer that a value within *limit* of *exact* rounds to.
    """
    low, high = quantise(exact - limit, got.dtype), quantise(exact + limit, got.dtype)
    value = got.astype(np.float64)
    outside: Exact = np.maximum(low - value, value - high)
    return outside
