"""Chains: operations one after the other, rounded once at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from cudafilter.errors import ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import (
    Operation,
    Plan,
    Reach,
    Windowed,
    stages_of,
)


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
