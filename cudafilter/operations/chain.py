"""Chains: operations one after the other, rounded once at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from cudafilter.errors import ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import (
    Fork,
    Operation,
    Plan,
    Reach,
    Windowed,
    only_stage,
    stages_of,
)

ROUNDING = 2.0**-24
"""Largest relative error of a number that is rounded to float32, or of a product there."""


class Link(NamedTuple):
    """An operation of a chain, and what lies outside the image that it gets."""

    operation: Operation
    border: Border | None = None
    """None: as for the whole chain. A constant is rounded as samples of the source are."""


@dataclass(frozen=True)
class Chain:
    """Each link's operation on what the link before it gives.

    Between links pixels are float32 of the source's range, neither rounded to whole numbers nor
    clamped. Each border is that of the whole image that its link gets. A chain of one link is that
    link, bit for bit.

    Raises ParameterError for a chain without links.
    """

    links: tuple[Link, ...]
    called: str | None = None
    """Its name, where it has one of its own."""

    def __post_init__(self) -> None:
        if not self.links:
            raise ParameterError("links", "a chain needs a link")

    @property
    def name(self) -> str:
        """Its own name, or the links'."""
        return self.called or " then ".join(link.operation.name for link in self.links)

    @property
    def reach(self) -> Reach:
        """The sum of the links' own."""
        above, below, left, right = zip(*(link.operation.reach for link in self.links), strict=True)
        return sum(above), sum(below), sum(left), sum(right)

    @property
    def alpha(self) -> Literal["filter", "keep"]:
        """``keep`` where every link keeps alpha."""
        alphas = {operation.alpha for operation in self._operations}
        return "filter" if "filter" in alphas else "keep"

    def unrolled(self, border: Border) -> Plan:
        """See Operation.unrolled."""
        return tuple(
            stage
            for link in self.links
            for stage in link.operation.unrolled(border if link.border is None else link.border)
        )

    @property
    def _operations(self) -> list[Windowed]:
        return [stage.operation for stage in stages_of(self.unrolled(Border()))]

    def tolerance(self, dtype: str, full: float, largest: float, alpha: bool) -> float:
        """See Operation.tolerance.

        Each link adds its own tolerance on float32, t, and amplifies, by L, the error e of the
        pixels that it gets: ``e' = L * e + t``. Integers are divided by their full scale before
        the first link, and results multiplied by it after the last one. Each of the two rounds,
        by ROUNDING of the largest value. So an error of the first link reaches the result times
        all later links' L.

        On uint16 that may be a step or more, since float32's tolerance is 0.26 of one even for a
        mean: it is the price of float32 between links.
        """
        plan = self.unrolled(Border())
        operations = self._operations
        if all(each.picks for each in operations) and not any(isinstance(p, Fork) for p in plan):
            return 0.0
        if plan and (stage := only_stage(plan)) is not None:
            return stage.operation.tolerance(dtype, full, largest, alpha)
        rounding = 0.0 if dtype == "float32" else ROUNDING
        error, most = _through(plan, rounding * largest, largest, full, alpha)
        return error + rounding * (most + error)


def _through(
    plan: Plan, error: float, largest: float, full: float, alpha: bool
) -> tuple[float, float]:
    """The error of float32 pixels after *plan*, which have *error* before, and their bound.

    Their bound is *largest* before it.
    """
    most = largest
    for each in plan:
        reached = most + error
        if isinstance(each, Fork):
            parts = [_through(branch, error, most, full, alpha) for branch in each]
            error, most = (sum(part) for part in zip(*parts, strict=True))
            error += ROUNDING * (most + error)
        else:
            operation = each.operation
            error = operation.amplification(alpha, reached / full) * error
            error += operation.tolerance("float32", full, reached, alpha)
            most = operation.bound(full, most, alpha)
        most = max(largest, most)  # borders are as large as before
    return error, most
