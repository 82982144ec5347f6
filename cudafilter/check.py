"""An engine's result against the reference, by DESIGN's contract."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cudafilter import reference
from cudafilter.borders import Border
from cudafilter.errors import ParameterError
from cudafilter.filter import Filter
from cudafilter.pixels import Exact, Pixels, quantise

SLACK = {"uint8": 0.01, "uint16": 0.05}
"""How near a rounding boundary, in steps, an exact value must lie for a result to differ by 1.
Times max(1, |gain| * sum|w|): an error in float32 grows with the terms that cancel."""

FLOAT_TOLERANCE = 4e-6
"""Largest error of float32 per kernel, relative to sum|w| * max|x|."""

BAND_SAMPLES = 1 << 20
"""Samples compared at a time and thread: 8 MiB in float64, so that memory stays small."""


@dataclass(frozen=True)
class Agreement:
    """How a result compares with the reference."""

    samples: int
    differing: int
    """Samples that are not the reference's value (float32: the nearest float32 to it)."""
    violations: int
    """Samples outside the contract."""
    largest: float
    """Largest |result - reference| in native units, rounded as the result is; NaN if NaN is met."""
    worst: tuple[int, int, int]
    """x, y, channel of the sample furthest outside the contract, or of the largest difference."""
    got: float
    expected: float
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every sample keeps the contract."""
        return self.violations == 0

    @property
    def exact_share(self) -> float:
        """Share of samples that are the reference's value, 0..1."""
        return 1 - self.differing / self.samples

    def __str__(self) -> str:
        figures = (
            f"largest difference {self.largest:.6g}, {self.differing:,} of {self.samples:,} samples"
            f" differ, {100 * self.exact_share:.5g} % exact, {self.seconds:.2f} s"
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
    filter: Filter,
    border: Border = Border(),
    alpha: bool = False,
) -> Agreement:
    """Compare *result*, an engine's output for *source* (H, W, C), with the float64 reference.

    Integers may differ by 1 where the exact value lies within SLACK of a rounding boundary;
    float32 may differ by FLOAT_TOLERANCE. NaN or infinity in either is a violation. Raises
    ParameterError if shape or type differ.
    """
    if result.shape != source.shape or result.dtype != source.dtype:
        raise ParameterError(
            "result", f"{result.dtype} {result.shape} is not of the source's"
            f" {source.dtype} {source.shape}"
        )
    started = time.perf_counter()
    height, width, channels = source.shape
    step = max(1, BAND_SAMPLES // (width * channels), sum(filter.reach[:2]))
    bands = [(y, min(y + step, height)) for y in range(0, height, step)]

    bound = _float_bound(source, filter, border, alpha) if source.dtype == np.float32 else 0.0

    def examine(band: tuple[int, int]) -> tuple[int, int, tuple[float, ...]]:
        with np.errstate(all="ignore"):
            exact = reference.exact(source, filter, border, alpha, rows=band)
            got = result[band[0] : band[1]]
            expected = quantise(exact, got.dtype)
            difference = np.abs(got.astype(np.float64) - expected)
            if got.dtype == np.float32:
                outside = np.abs(got - exact) - bound
            else:
                outside = _outside(exact, got, filter, alpha)
            outside[~np.isfinite(outside)] = np.inf
            # The worst sample is the one furthest outside, or, within, the most different.
            rank = np.where(outside > 0, outside + 1e300, difference)
            y, x, c = np.unravel_index(np.argmax(rank), rank.shape)
            worst = (
                float(rank[y, x, c]), float(x), float(y + band[0]), float(c),
                float(got[y, x, c]), float(expected[y, x, c]), float(difference.max()),
            )
            return int((got != expected).sum()), int((outside > 0).sum()), worst

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(examine, bands))
    _, x, y, c, got, expected, _ = max((f[2] for f in found), key=lambda w: w[0])
    return Agreement(
        samples=source.size,
        differing=sum(f[0] for f in found),
        violations=sum(f[1] for f in found),
        largest=float(np.max([f[2][6] for f in found])),
        worst=(int(x), int(y), int(c)),
        got=got,
        expected=expected,
        seconds=time.perf_counter() - started,
    )


def _amplification(filter: Filter, alpha: bool) -> float:
    """How much larger than the image the terms are that a result is summed from.

    Kept alpha sums twice: ``K(c*a)`` and ``c * (sum(K) - K(a))``.
    """
    twice = 2 if alpha and filter.alpha == "keep" else 1
    return twice * abs(filter.gain) * float(np.linalg.norm([k.magnitude for k in filter.kernels]))


def _outside(exact: Exact, got: Pixels, filter: Filter, alpha: bool) -> Exact:
    """How far integers lie outside the contract, in steps; 0 or less is inside.

    A result may be any integer that a value within the slack of *exact* rounds to, so it differs
    by 1 at most (the slack never passes 0.5) and only next to a rounding boundary.
    """
    slack = min(0.5, SLACK[got.dtype.name] * max(1.0, _amplification(filter, alpha)))
    low, high = quantise(exact - slack, got.dtype), quantise(exact + slack, got.dtype)
    value = got.astype(np.float64)
    outside: Exact = np.maximum(low - value, value - high)
    return outside


def _float_bound(source: Pixels, filter: Filter, border: Border, alpha: bool) -> float:
    """Largest |result - exact| that the contract allows float32 samples.

    Under ``filter`` alpha the gain cancels in ``K(c*a) / K(a)``, whose two relative errors add.
    """
    finite = np.abs(source[np.isfinite(source)])
    largest = max(float(finite.max(initial=0)), abs(border.sample(source.dtype)))
    if alpha and filter.alpha == "filter":
        scale = 2 * max(1.0, _amplification(filter, alpha))
    else:
        scale = _amplification(filter, alpha) * (max(1.0, largest) if alpha else 1.0)
    scale += abs(filter.source_gain)
    return FLOAT_TOLERANCE * (scale * largest + abs(filter.bias))
