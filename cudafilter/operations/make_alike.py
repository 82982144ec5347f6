"""Makes the filters of alike.py.

A module of its own, so that other filters do not wait for its imports.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from cudafilter.errors import ParameterError
from cudafilter.operations.alike import MAX_BILATERAL_RADIUS
from cudafilter.operations.bilateral import Bilateral
from cudafilter.operations.denoise import Denoise
from cudafilter.operations.operation import Operation


def bilateral(sigma: float, range: float, radius: int | None = None) -> Bilateral:
    """The bilateral filter of *sigma* pixels and of *range*, a fraction of full scale.

    Its radius is ceil(3 sigma) pixels unless given. Raises ParameterError where that is too large.
    """
    reach = math.ceil(3 * sigma) if radius is None else radius
    if radius is None and reach > MAX_BILATERAL_RADIUS:
        raise ParameterError(
            "sigma",
            f"{sigma:g} reaches {reach} pixels; {MAX_BILATERAL_RADIUS} are the most",
            hint=f"--radius {MAX_BILATERAL_RADIUS} cuts the window there",
        )
    return Bilateral(sigma, range, reach)


MAKERS: dict[str, Callable[..., Operation]] = {"bilateral": bilateral, "denoise": Denoise}
"""The filters, by their names and parameters."""
