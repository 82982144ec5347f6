"""An image that is checked by bands, each with the rows of the source that it depends on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cudafilter.check import at_random, compare_rows
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation, stages_of, whole_of
from cudafilter.operations.pixels import Pixels
from cudafilter.proof.agreement import QUICK, Agreement, joined


def not_by_bands(filter: Operation, border: Border) -> str | None:
    """Why a result of *filter* cannot be checked by bands; None where it can."""
    plan = filter.unrolled(border)
    if (name := whole_of(plan)) is not None:
        return f"{name} depends on the whole picture"
    stages = list(stages_of(plan))
    modes = {stage.border.mode for stage in stages if any(stage.operation.reach[:2])}
    if "wrap" in modes and len(modes) > 1:
        return "steps whose borders are wrap and others depend on both ends of the picture"
    return None


class BandCheck:
    """compare() for an image of *shape* (H, W, C), the bands of which are added in order."""

    def __init__(
        self,
        filter: Operation,
        border: Border,
        alpha: bool,
        shape: tuple[int, int, int],
        quick: bool,
    ) -> None:
        self._filter, self._border, self._alpha = filter, border, alpha
        self._size, self._row = math.prod(shape), shape[1] * shape[2]
        self._places = at_random(self._size) if quick and self._size > QUICK else None
        self._found: Agreement | None = None

    def add(self, result: Pixels, first: int, source: Pixels, above: int) -> Agreement:
        """What all bands show with *result*, whose first row is row *first* of the image.

        *source* begins *above* rows above it. It has all rows that the result depends on.
        """
        places = None
        if self._places is not None:
            start = first * self._row
            span = np.searchsorted(self._places, [start, start + result.size])
            places = self._places[slice(*span)] - start
        if places is None or len(places):
            part = compare_rows(
                result, above, source, self._filter, self._border, self._alpha, places
            )
            x, y, channel = part.worst
            part = replace(part, of=self._size, worst=(x, y - above + first, channel))
            self._found = part if self._found is None else joined(self._found, part)
        return self.agreement

    @property
    def agreement(self) -> Agreement:
        """Of all bands that were added."""
        if self._found is None:
            return Agreement(0, 0, 0, 0.0, (0, 0, 0), 0.0, 0.0, 0.0, self._size, 0, 0)
        return self._found
