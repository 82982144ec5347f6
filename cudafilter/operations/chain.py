"""Chains: operations one after the other, rounded once at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cudafilter.errors import ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import (
    Fork,
    Operation,
    Plan,
    Reach,
    Stage,
    Windowed,
    split,
    stages_of,
)
from cudafilter.operations.point import Points


class Link(NamedTuple):
    """An operation of a chain, and what lies outside the image that it gets."""

    operation: Operation
    border: Border | None = None
    """None: as for the whole chain. A constant is rounded as samples of the source are."""


@dataclass(frozen=True)
class Chain:
    """Each link's operation on what the link before it gives.

    Between links pixels are floats of the source's range, neither rounded to whole numbers nor
    clamped; precision.between() says of which type. Each border is that of the whole image that its
    link gets. A chain of one link is that link, bit for bit.

    What needs the whole image, such as the threshold of Otsu, hangs on each last bit of it. So
    before it there may only be what computes no samples: then every engine has the same bits.

    Raises ParameterError for a chain without links, and for what was just said.
    """

    links: tuple[Link, ...]
    called: str | None = None
    """Its name, where it has one of its own."""

    def __post_init__(self) -> None:
        if not self.links:
            raise ParameterError("links", "a chain needs a link")
        before, _ = split(self.unrolled(Border()))
        for step in before:
            if isinstance(step, Fork) or not step.operation.picks:
                last = before[-1]
                assert isinstance(last, Stage)
                name = last.operation.name
                what = "a difference" if isinstance(step, Fork) else step.operation.name
                raise ParameterError(
                    "links",
                    f"{name} cannot follow {what}: it hangs on the last bit of every pixel,"
                    " in which engines differ",
                    hint=f"run {name} first, or on the file that the other steps write",
                )

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
        return _joined(
            stage
            for link in self.links
            for stage in link.operation.unrolled(border if link.border is None else link.border)
        )

    @property
    def _operations(self) -> list[Windowed]:
        return [stage.operation for stage in stages_of(self.unrolled(Border()))]


def _joined(stages: Iterable[Stage | Fork]) -> Plan:
    """*stages*, where point operations side by side are one."""
    found: list[Stage | Fork] = []
    for each in stages:
        before = found[-1] if found else None
        if (
            isinstance(each, Stage)
            and isinstance(before, Stage)
            and isinstance(each.operation, Points)
            and isinstance(before.operation, Points)
        ):
            first, second = before.operation, each.operation
            both = Points(f"{first.name} then {second.name}", first.curves + second.curves)
            found[-1] = Stage(both, each.border)
        else:
            found.append(each)
    return tuple(found)
