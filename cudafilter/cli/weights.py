"""The sheet of ``cudafilter preview --show-kernel``: what a filter weighs, or ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cudafilter.cli.sheet import Panel, Picture, contact_sheet, weights
from cudafilter.errors import ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Weights
from cudafilter.operations.operation import Operation, stages_of
from cudafilter.operations.rank import Rank


class Drawn(NamedTuple):
    """Weights that a filter gives to the pixels around one, and a few words about them."""

    values: Weights
    """(rows, columns); of a window 1 where a pixel counts, else 0."""
    anchor: tuple[int, int]
    facts: str


def weight_sheet(
    heading: str,
    filters: Sequence[tuple[Operation, str, str]],
    columns: int,
    size: int,
    room: int,
) -> Picture:
    """The weights of *filters*, each with title and caption, about *size* pixels each.

    They stand in *columns*, or where that is 0 in as many as *room* pixels have room for. Raises
    ParameterError ("show_kernel") for a filter that has neither weights nor a window.
    """
    panels = []
    for operation, title, caption in filters:
        found = list(drawn(operation))
        if not found:
            what = f"{operation.name} has neither weights nor a window"
            raise ParameterError("show_kernel", what)
        panels += [
            Panel(weights(values, anchor, size), title, "; ".join(filter(None, (caption, facts))))
            for values, anchor, facts in found
        ]
    columns *= len(panels) // len(filters)
    about = "Red is positive, blue negative; the frame is the pixel itself."
    return contact_sheet([heading, about], panels, columns, room)


def drawn(operation: Operation) -> Iterator[Drawn]:
    """What each step of *operation* weighs or ranks. Where it is neither, there is nothing."""
    for stage in stages_of(operation.unrolled(Border())):
        one = stage.operation
        if isinstance(one, Correlation):
            for kernel in one.kernels:
                values = one.gain * kernel.weights
                values[kernel.anchor] += one.source_gain
                rows, columns = kernel.shape
                total = round(float(values.sum()), 12) + 0.0  # no -0
                past = f", past a change of {one.threshold:g}" if one.threshold else ""
                most = float(np.abs(values).max())
                facts = f"{columns}x{rows}, sum {total:.4g}, largest {most:.3g}{past}"
                yield Drawn(values, kernel.anchor, facts)
        elif isinstance(one, Rank):
            rows, columns = one.window.shape
            facts = f"{columns}x{rows}, {one.window.count:,} pixels are ranked"
            yield Drawn(one.window.mask.astype(np.float64), one.window.anchor, facts)
