"""Differences: what one operation makes of an image less what another one does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.operation import Fork, Operation, Plan, Reach
from cudafilter.operations.rank import dilation, erosion
from cudafilter.operations.window import Window


@dataclass(frozen=True)
class Difference:
    """*minuend* less *subtrahend*, each of the same image; None is the image itself."""

    name: str
    minuend: Operation | None
    subtrahend: Operation | None

    alpha: ClassVar[Literal["filter", "keep"]] = "keep"

    @property
    def _operations(self) -> list[Operation]:
        return [each for each in (self.minuend, self.subtrahend) if each is not None]

    @property
    def reach(self) -> Reach:
        """The larger one on each side."""
        reaches = [(0, 0, 0, 0), *(each.reach for each in self._operations)]
        above, below, left, right = (max(side) for side in zip(*reaches, strict=True))
        return above, below, left, right

    def unrolled(self, border: Border) -> Plan:
        """See Operation.unrolled."""
        minuend, subtrahend = (
            () if each is None else each.unrolled(border)
            for each in (self.minuend, self.subtrahend)
        )
        return (Fork(minuend, subtrahend),)


def opening(window: Window) -> Chain:
    """Eroded, then dilated: what is bright and smaller than the window goes."""
    return Chain((Link(erosion(window)), Link(dilation(window))), "open")


def closing(window: Window) -> Chain:
    """Dilated, then eroded: what is dark and smaller than the window goes."""
    return Chain((Link(dilation(window)), Link(erosion(window))), "close")


def tophat(window: Window) -> Difference:
    """What an opening takes away: the image less the opened one."""
    return Difference("tophat", None, opening(window))


def blackhat(window: Window) -> Difference:
    """What a closing adds: the closed image less the image."""
    return Difference("blackhat", closing(window), None)


def outline(window: Window) -> Difference:
    """The dilated image less the eroded one, which is the morphological gradient."""
    return Difference("outline", dilation(window), erosion(window))
