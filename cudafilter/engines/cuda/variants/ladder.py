"""Which kernel runs a filter: each variant is asked for its launch, and the cheapest is taken."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from cudafilter.borders import Border
from cudafilter.engines.cuda import variants
from cudafilter.engines.cuda.variants.floats import bounded
from cudafilter.engines.cuda.variants.task import Launch, Layout
from cudafilter.errors import LimitError
from cudafilter.filter import Filter


class Variant(Protocol):
    """What the module of a variant has."""

    def plan(self, filter: Filter, layout: Layout) -> Launch | LimitError:
        """The launch that runs *filter* on pixels of *layout*, or why this kernel cannot."""
        ...

    def hardest(self) -> list[Filter]:
        """Filters near this kernel's limits."""
        ...


def variant(name: str) -> Variant:
    """The module of the variant *name*."""
    return cast(Variant, import_module(f"{variants.__name__}.{name}"))


def prepare(
    filter: Filter, channels: int, dtype: npt.DTypeLike, border: Border, alpha: bool, name: str
) -> Launch:
    """The launch of *filter* by the variant *name*; AUTO takes the one that costs least.

    Raises LimitError where that variant cannot run it.
    """
    layout = Layout(channels, np.dtype(dtype).name, border, alpha)
    planned = _planned(filter, layout, name)
    if isinstance(planned, LimitError):
        raise LimitError(str(planned), hint=planned.hint)  # the kept one would gather traces
    return planned


@functools.lru_cache(16)  # many images take one filter, and this takes 0.3 ms
def _planned(filter: Filter, layout: Layout, name: str) -> Launch | LimitError:
    if layout.dtype == "float32":
        filter, unit = bounded(filter, layout.mode(filter))
        layout = layout._replace(unit=unit)
    if name != variants.AUTO:
        return variant(name).plan(filter, layout)
    plans = (variant(each).plan(filter, layout) for each in variants.LADDER)
    # The first step of the ladder takes any filter. Of equal costs the earlier step wins.
    return min((p for p in plans if isinstance(p, Launch)), key=lambda launch: launch.cost)
