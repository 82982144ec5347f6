"""Point operations: each sample by itself, whatever lies around it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Errorless, Plan, Reach, Stage, WholeImage, Windowed
from cudafilter.operations.pixels import Exact, full_scale

LEVELS = 65535
"""Samples of float images are counted as whole numbers up to that one, which is white."""


@dataclass(frozen=True)
class Levels:
    """*black* goes to 0 and *white* to full scale, straight, and then to the power 1 / gamma.

    Below *black* it goes on as it does above, with the sign turned, so that it is monotone and
    floats are not clamped. All are fractions of full scale, but for *gamma*. Raises ParameterError
    where black is white.
    """

    black: float = 0.0
    white: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if abs(self.white - self.black) < 1e-6:
            raise ParameterError("white", f"must be another than black, which is {self.black:g}")

    def __call__(self, values: Exact, full: float) -> Exact:
        """What becomes of *values*, of any shape, in native units; *full* is white."""
        shares = (values - self.black * full) / (self.white - self.black)
        if self.gamma == 1:  # whole numbers stay such
            return shares
        # In one piece: NumPy's power may have other last bits where it is not.
        shares = np.ascontiguousarray(shares / full)
        powers: Exact = full * np.copysign(np.abs(shares) ** (1 / self.gamma), shares)
        return powers


@dataclass(frozen=True)
class Threshold:
    """Full scale where a sample is at least *at*, a fraction of it, and 0 elsewhere, NaN too."""

    at: float

    def __call__(self, values: Exact, full: float) -> Exact:
        """As Levels."""
        return np.where(values >= self.at * full, full, 0.0)


Curve = Levels | Threshold


@dataclass(frozen=True)
class Points(Errorless):
    """Curves that each colour sample goes through, one after the other; alpha is kept.

    Colour is taken as it is, not premultiplied: what a transparent pixel hides changes too.
    """

    name: str
    curves: tuple[Curve, ...]

    alpha: ClassVar[Literal["filter", "keep"]] = "keep"
    reach: ClassVar[Reach] = (0, 0, 0, 0)

    @property
    def picks(self) -> bool:
        """See Windowed.picks: black and white are samples of any type."""
        return all(isinstance(curve, Threshold) for curve in self.curves)

    def unrolled(self, border: Border) -> Plan:
        """See Operation.unrolled."""
        changed = any(curve != Levels() for curve in self.curves)
        return (Stage(self, border),) if changed else ()

    def exact(self, padded: Exact, source: Exact, full: float, alpha: bool) -> Exact:
        """See Windowed.exact."""
        if not alpha:
            return self.of(source, full)
        return np.concatenate([self.of(source[..., :-1], full), source[..., -1:]], axis=2)

    def of(self, values: Exact, full: float) -> Exact:
        """The curves of *values*, colours of any shape, in native units."""
        for curve in self.curves:
            values = curve(values, full)
        return values

    def table(self, dtype: npt.DTypeLike) -> Exact:
        """of() for all samples of an integer *dtype*, in their order."""
        full = full_scale(dtype)
        return self.of(np.arange(full + 1), full)

    def majorant(self, alpha: bool, opaque: float, signed: bool) -> tuple[Windowed, ...] | None:
        """See Windowed.majorant: none, for curves are steep; proof/errors.py follows them."""
        return None


@dataclass(frozen=True)
class Otsu(WholeImage):
    """Full scale where a sample lies above the threshold of Otsu, and 0 elsewhere; alpha is kept.

    N. Otsu, "A threshold selection method from gray-level histograms" (1979): of each channel the
    least level that, as the last of the dark ones, makes the variance between both classes the
    largest. Of a channel without two levels, all is 0. Floats are counted as the nearest of LEVELS
    + 1 levels from 0 to 1, half to even; NaN is not counted and becomes 0.
    """

    name: ClassVar[str] = "threshold"
    alpha: ClassVar[Literal["filter", "keep"]] = "keep"
    reach: ClassVar[Reach] = (0, 0, 0, 0)

    def exact(self, padded: Exact, source: Exact, full: float, alpha: bool) -> Exact:
        """See Windowed.exact; *source* is the whole image."""
        out = source.copy()
        for c in range(source.shape[2] - alpha):
            levels = levels_of(source[..., c], full)
            out[..., c] = np.where(levels > otsu(counted(levels)), full, 0.0)
        return out


def levels_of(values: Exact, full: float) -> Exact:
    """*values* in native units as whole numbers, where *full* is LEVELS; NaN stays NaN."""
    levels: Exact = np.rint(np.clip(values / full, 0, 1) * LEVELS)
    return levels


def counted(levels: Exact) -> npt.NDArray[np.int64]:
    """How many of *levels* there are of each, (LEVELS + 1,)."""
    numbers = levels[~np.isnan(levels)].astype(np.int64)
    return np.bincount(numbers, minlength=LEVELS + 1)


def otsu(counts: npt.NDArray[np.int64]) -> int:
    """The threshold of Otsu for *counts* of levels from 0 on; see Otsu.

    In whole numbers: with n samples of sum s up to a level, of N with the sum S, the variance is
    ``(N s - n S)^2 / (n (N - n))`` but for a factor. Floats say which levels may be the one.
    """
    present = np.flatnonzero(counts)
    below, amount = np.cumsum(counts[present]), np.cumsum(present * counts[present])
    samples, total = int(counts.sum()), int(counts @ np.arange(len(counts)))
    one, two = float(samples) * amount[:-1], float(total) * below[:-1]
    # Far more than all roundings: each is by 2^-53 of what it rounds.
    apart, slack = np.abs(one - two), (one + two) * 2.0**-48
    weight = below[:-1] * (float(samples) - below[:-1])
    least, most = np.maximum(apart - slack, 0) ** 2 / weight, (apart + slack) ** 2 / weight
    found, best = len(counts) - 1, (0, 1)
    for n in np.flatnonzero(most >= least.max(initial=0)).tolist():
        dark, light = int(below[n]), samples - int(below[n])
        square = (samples * int(amount[n]) - dark * total) ** 2
        if square * best[1] > best[0] * dark * light:
            found, best = int(present[n]), (square, dark * light)
    return found


def threshold(at: float | None, find: bool) -> Points | Otsu:
    """A threshold *at* a fraction of full scale, 0.5 unless given, or one that is to *find*."""
    if not find:
        return Points("threshold", (Threshold(0.5 if at is None else at),))
    if at is not None:
        raise ParameterError("at", "is found by --otsu: give one of both")
    return Otsu()


def levels(black: float, white: float, gamma: float) -> Points:
    """See Levels."""
    return Points("levels", (Levels(black, white, gamma),))


def invert() -> Points:
    """Full scale less each sample."""
    return Points("invert", (Levels(1.0, 0.0),))


def least_float(value: float) -> float:
    """The least float32 that is no less than *value*."""
    nearest = np.float32(value)
    if float(nearest) < value:
        nearest = np.nextafter(nearest, np.float32(math.inf))
    return float(nearest)
