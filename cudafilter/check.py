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
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Exact, Pixels, quantise, require_pixels
from cudafilter.proof.planes import Planes
from cudafilter.proof.proof import Proof
from cudafilter.proof.tolerance import Tolerance
from cudafilter.proof.values import Mask, Values, suspect

QUICK = 4096
"""Samples that a quick check looks at."""

CONFIDENCE = 0.95
"""How sure a quick check is of the share that it tells."""

WINDOWS = 12
"""Samples in the windows of a quick check, for each sample of the image, from which on looking at
all is as quick."""


AGREES = "agrees with the reference: "
"""How the line of a result begins that keeps the contract."""


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
    unproven: int
    """Samples looked at of which the contract says nothing: their tolerance is half a step of
    integers or more, or infinite."""

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

    @property
    def proven(self) -> str:
        """How many samples are proven, in words."""
        return f"proven: {self.samples - self.unproven:,} samples, {self.unproven:,} unproven"

    def figures(self) -> dict[str, Any]:
        """The figures as plain data, for reports. JSON has no NaN: one that is none is None."""
        floats = {"largest": self.largest, "got": self.got, "expected": self.expected}
        return {
            "ok": self.ok,
            "samples": self.samples,
            "of": self.of,
            "unproven": self.unproven,
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
            return f"{AGREES}{self.proven}; {figures}"
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
    height = len(source)
    tolerance = Tolerance(source, filter, border, alpha)
    proof = Proof(source, filter, border, alpha)
    above, below, left, right = filter.reach
    windows = QUICK * (above + 1 + below) * (left + 1 + right)
    if quick and source.size > QUICK and not (proof.fast and windows > WINDOWS * source.size):
        return _quick(results, source.shape, proof, tolerance, started)

    def examine(y: int) -> list[_Finding]:
        last = min(y + proof.step, height)
        with np.errstate(all="ignore"):  # NaN and infinity are found, not warned of
            values = proof.rows(y, last)
            return [_examine(r[y:last], values, y, tolerance, proof) for r in results]

    bands = each(examine, range(0, height, proof.step), cores())
    seconds = time.perf_counter() - started
    return [
        _agreement(found, source.size, source.size, seconds) for found in zip(*bands, strict=True)
    ]


def _quick(
    results: Sequence[Pixels],
    shape: tuple[int, ...],
    proof: Proof,
    tolerance: Tolerance,
    started: float,
) -> list[Agreement]:
    """compare_all() for samples taken at random."""
    size = math.prod(shape)
    places = np.random.default_rng().choice(size, QUICK, replace=False)
    y, x, c = np.unravel_index(np.sort(places), shape)
    parts = np.array_split(np.arange(QUICK), 8 * cores())
    with np.errstate(all="ignore"):
        exact = np.concatenate(each(lambda n: proof.at(y[n], x[n], c[n]), parts, cores()))
        if tolerance.fixed is not None:
            limit = np.full(QUICK, tolerance.fixed)
        else:
            limit = np.concatenate(each(lambda n: tolerance.at(y[n], x[n], c[n]), parts, cores()))
        unproven = _unproven(limit, results[0][y, x, c])
        found = [_find(result[y, x, c], exact, limit) for result in results]
    seconds = time.perf_counter() - started
    return [
        _agreement(
            [finding._replace(worst=(int(x[n]), int(y[n]), int(c[n])), unproven=unproven)],
            QUICK,
            size,
            seconds,
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


def _percent(share: float) -> str:
    """*share* in percent to one digit, rounded up."""
    percent = 100 * share
    digit = 10.0 ** math.floor(math.log10(percent))
    return f"{math.ceil(percent / digit) * digit:.2g}"
