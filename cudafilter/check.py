"""An engine's result against the reference, by the contract that docs/check.md states."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cudafilter.errors import ParameterError
from cudafilter.host.cores import cores, each
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels, require_pixels
from cudafilter.proof.proof import Proof
from cudafilter.proof.screened import Screened, Unsettled, settle
from cudafilter.proof.tolerance import Tolerance
from cudafilter.proof.verdict import Finding, examine, find, together, unproven_of

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
    recomputed: int
    """Samples looked at that the host recomputed; a device proved the others."""
    note: str = ""
    """Why the host recomputed all, though a device had proved most; empty if it did not."""

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
            "recomputed": self.recomputed,
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
        if self.recomputed < self.samples:
            figures += f"; proven on the device, {self.recomputed:,} samples recomputed on the host"
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
    screen: Screened | None = None,
) -> Agreement:
    """Compare *result*, an engine's output for *source*, with the float64 reference.

    Both are (H, W) or (H, W, C), and *border* is one or its name, as apply() takes them.
    proof/tolerance.py says how far off a value may be before it rounds. NaN and infinity agree
    with the same, an infinity past float32's range with one of its sign; any other is a
    violation. Raises ParameterError if shape or type differ.

    *quick* looks at QUICK samples only, taken at random, other ones each time; at all where these
    are no more, or as quick.

    *screen* is what a device proved of *result*, see Engine.screen: the host recomputes its rows
    only. Where these contradict it, the host recomputes all and the note says so; a screen that is
    partial raises Unsettled then.
    """
    if screen is not None and not quick:
        try:
            return _screened(result, source, filter, border, alpha, screen)
        except Unsettled as why:
            if screen.partial:
                raise
            all = compare_all([result], source, filter, border, alpha)[0]
            return replace(all, note=f"checked on the CPU: {why}")
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
    started = time.perf_counter()
    border = Border(border) if isinstance(border, str) else border
    for result in results:
        _require_like(result, source)
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

    def look(y: int) -> list[Finding]:
        last = min(y + proof.step, height)
        with np.errstate(all="ignore"):  # NaN and infinity are found, not warned of
            values = proof.rows(y, last)
            return [examine(r[y:last], values, y, tolerance, proof) for r in results]

    bands = each(look, range(0, height, proof.step), cores())
    seconds = time.perf_counter() - started
    return [
        _agreement(found, source.size, source.size, seconds) for found in zip(*bands, strict=True)
    ]


def _require_like(result: Pixels, source: Pixels) -> None:
    if result.shape != source.shape or result.dtype != source.dtype:
        raise ParameterError(
            "result",
            f"{result.dtype} {result.shape} is not of the source's {source.dtype} {source.shape}",
        )


def _screened(
    result: Pixels,
    source: Pixels,
    filter: Operation,
    border: str | Border,
    alpha: bool,
    screen: Screened,
) -> Agreement:
    """compare() by *screen*. Raises Unsettled."""
    started = time.perf_counter()
    border = Border(border) if isinstance(border, str) else border
    _require_like(result, source)
    source = require_pixels(source, alpha)
    proof = Proof(source, filter, border, alpha)
    tolerance = Tolerance(source, filter, border, alpha)
    found = settle(result, source, proof, tolerance, screen)
    seconds = time.perf_counter() - started
    agreement = _agreement([found], source.size, source.size, seconds)
    rows = sum(last - first for first, last in screen.rows)
    return replace(agreement, recomputed=rows * source[0].size)


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
        unproven = unproven_of(limit, results[0][y, x, c])
        found = [find(result[y, x, c], exact, limit) for result in results]
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


def _agreement(bands: Sequence[Finding], samples: int, of: int, seconds: float) -> Agreement:
    all = together(bands)
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
        recomputed=samples,
    )


def _percent(share: float) -> str:
    """*share* in percent to one digit, rounded up."""
    percent = 100 * share
    digit = 10.0 ** math.floor(math.log10(percent))
    return f"{math.ceil(percent / digit) * digit:.2g}"
