"""Values of some rows with their bound, and which samples of a result that leaves open."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cudafilter.operations.pixels import full_scale
from cudafilter.proof.planes import Planes

Mask = npt.NDArray[np.bool_]


class Values(NamedTuple):
    """The values of some rows, and how far they may be from the definition's."""

    values: Planes
    """(rows, channels, columns), float64, or the pixels' type where samples were picked."""
    bound: float
    """Most that a value may differ from the definition's: 0 where all have the same bits."""
    unproven: Mask | None = None
    """Which values have no bound, (rows, channels, columns); None: all have it."""


def suspect(got: Planes, values: Values) -> Mask:
    """Which of *got*, (rows, channels, columns), may not be the value rounded.

    All others are what each value within the bound rounds to.
    """
    found: Mask = _suspect(got, values.values, values.bound)
    return found if values.unproven is None else found | values.unproven


def _suspect(got: Planes, values: Planes, bound: float) -> Mask:
    different: Mask
    if values.dtype == got.dtype:
        different = got != values
        return different
    if got.dtype.kind == "f":
        different = (values - bound).astype(got.dtype) != got
        if bound:
            different |= (values + bound).astype(got.dtype) != got
        return different
    # Clamped first: past full scale nothing depends on the bound.
    clamped = np.clip(values, 0, full_scale(got.dtype))
    if bound:
        np.abs(np.subtract(clamped, got, out=clamped), out=clamped)
        different = clamped >= 0.5 - 1.01 * bound
    else:  # so many may lie halfway that these are not left for a closer look
        different = np.rint(clamped, out=clamped) != got
    return different
