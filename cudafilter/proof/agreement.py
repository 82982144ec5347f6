"""How a result compares with the reference, in figures and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

QUICK = 4096
"""Samples that a quick check looks at."""

CONFIDENCE = 0.95
"""How sure a quick check is of the share that it tells."""

AGREES = "agrees with the reference: "
"""How the line of a result begins of which every sample is proven."""

OPEN = "rounding errors may be too large there"
"""Why a sample cannot be proven."""


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
        """Whether every sample keeps the contract, which leaves open those that are unproven."""
        return self.violations == 0

    @property
    def proves(self) -> bool:
        """Whether some sample looked at is proven, if any was looked at."""
        return self.unproven < self.samples or not self.samples

    @property
    def verdict(self) -> Literal["proven", "partly proven", "unproven", "wrong"]:
        """What it comes to; the contract says nothing of samples that are unproven."""
        if not self.ok:
            return "wrong"
        if not self.proves:
            return "unproven"
        return "partly proven" if self.unproven else "proven"

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
            "verdict": self.verdict,
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
                f" {_percent(self.wrong_below)} % of samples are"
                f" {'outside the contract' if self.unproven else 'wrong'}"
            )
        if self.verdict == "unproven":
            return f"unproven: none of {self.samples:,} samples can be proven: {OPEN}; {figures}"
        if self.verdict == "partly proven":
            return (
                f"partly proven: {self.samples - self.unproven:,} of {self.samples:,} samples agree"
                f" with the reference, {self.unproven:,} cannot be proven: {OPEN}; {figures}"
            )
        if self.ok:
            return f"{AGREES}{self.proven}; {figures}"
        x, y, channel = self.worst
        return (
            f"DISAGREES with the reference: {self.violations:,} samples outside the contract, worst"
            f" at x={x} y={y} channel={channel}: got {self.got:.9g}, expected {self.expected:.9g};"
            f" {figures}"
        )


def joined(one: Agreement, other: Agreement) -> Agreement:
    """What two parts of an image show."""
    worst = max(one, other, key=lambda part: (part.violations > 0, part.largest))
    unknown = math.isnan(one.largest + other.largest)
    largest = math.nan if unknown else max(one.largest, other.largest)
    totals = ("samples", "differing", "violations", "seconds", "unproven", "recomputed")
    added = {name: getattr(one, name) + getattr(other, name) for name in totals}
    return replace(worst, largest=largest, **added)


def _percent(share: float) -> str:
    """*share* in percent to one digit, rounded up."""
    percent = 100 * share
    digit = 10.0 ** math.floor(math.log10(percent))
    return f"{math.ceil(percent / digit) * digit:.2g}"
