"""Chains: operations one after the other, rounded once at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from cudafilter.errors import ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation, Reach, Stage, Windowed

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

    def __post_init__(self) -> None:
        if not self.links:
            raise ParameterError("links", "a chain needs a link")

    @property
    def name(self) -> str:
        """The links' names."""
        return " then ".join(link.operation.name for link in self.links)

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

    def unrolled(self, border: Border) -> tuple[Stage, ...]:
        """See Operation.unrolled."""
        return tuple(
            stage
            for link in self.links
            for stage in link.operation.unrolled(border if link.border is None else link.border)
        )

    @property
    def _operations(self) -> list[Windowed]:
        return [stage.operation for stage in self.unrolled(Border())]

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
        operations = self._operations
        if len(operations) < 2:
            return sum(each.tolerance(dtype, full, largest, alpha) for each in operations)
        rounding = 0.0 if dtype == "float32" else ROUNDING
        error, most = rounding * largest, largest
        for each in operations:
            reached = most + error
            error = each.amplification(alpha, reached / full) * error
            error += each.tolerance("float32", full, reached, alpha)
            most = max(largest, each.bound(full, most, alpha))  # borders are as large as before
        return error + rounding * (most + error)
