"""Which kernel runs a filter: each variant is asked for its launch, and the cheapest is taken."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda import variants
from cudafilter.engines.cuda.variants.floats import bounded, tamed
from cudafilter.engines.cuda.variants.task import Launch, Layout, Unfit
from cudafilter.errors import LimitError
from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.operation import Operation

DOUBLE = "double"
"""The variant that works in double."""

IN_DOUBLE = (DOUBLE, "rank", "point")
"""Variants that take double, each another kind of operation."""


class Variant(Protocol):
    """What the module of a variant has."""

    def plan(self, operation: Operation, layout: Layout) -> Launch | LimitError:
        """The launch that runs *operation* on pixels of *layout*, or why this kernel cannot."""
        ...

    def hardest(self) -> Sequence[Operation]:
        """Operations near this kernel's limits."""
        ...


def variant(name: str) -> Variant:
    """The module of the variant *name*."""
    return cast(Variant, import_module(f"{variants.__name__}.{name}"))


def prepare(
    operation: Operation,
    channels: int,
    dtype: npt.DTypeLike,
    border: Border,
    alpha: bool,
    name: str,
) -> Launch:
    """The launch of *operation* by the variant *name*; AUTO takes the one that costs least.

    Raises LimitError where that variant cannot run it.
    """
    layout = Layout(channels, np.dtype(dtype).name, border, alpha)
    planned = _planned(operation, layout, name)
    if isinstance(planned, LimitError):
        raise LimitError(str(planned), hint=planned.hint)  # the kept one would gather traces
    return planned


@functools.lru_cache(16)  # a folder asks for one filter many times, and this takes 0.3 ms
def _planned(operation: Operation, layout: Layout, name: str) -> Launch | LimitError:
    if layout.dtype == "float64":
        return _between(operation, layout, name)
    if isinstance(operation, Correlation) and layout.dtype == "float32":
        operation, unit = bounded(operation, layout.mode(operation))
        layout = layout._replace(unit=unit)
    elif isinstance(operation, Correlation):
        operation = tamed(operation)
        if operation.in_double(layout.dtype, layout.alpha):
            return _in_double(operation, layout, name)
    if name != variants.AUTO:
        return variant(name).plan(operation, layout)
    plans = [variant(each).plan(operation, layout) for each in variants.LADDER]
    launches = [plan for plan in plans if isinstance(plan, Launch)]
    if launches:  # the first step of the ladder takes any correlation
        return min(launches, key=lambda launch: launch.cost)  # of equals the earlier step
    refusals = [plan for plan in plans if isinstance(plan, LimitError)]
    return min(refusals, key=lambda refusal: isinstance(refusal, Unfit))


def _between(operation: Operation, layout: Layout, name: str) -> Launch | LimitError:
    """_planned() between the stages of a chain that float32 is too little for."""
    if name not in (variants.AUTO, DOUBLE):
        return LimitError(
            f"the {name} kernel works in float32, which is too little for this chain on integers",
            hint=f"use --variant {DOUBLE} or auto",
        )
    plans = [variant(each).plan(operation, layout) for each in IN_DOUBLE]
    return next((plan for plan in plans if isinstance(plan, Launch)), plans[0])


def _in_double(operation: Correlation, layout: Layout, name: str) -> Launch | LimitError:
    """_planned() where float32 cannot tell which integer is the nearest."""
    if name not in (variants.AUTO, DOUBLE):
        return LimitError(
            f"the {name} kernel works in float32, which is too little for {operation.name} on"
            f" {layout.dtype}: its terms are {operation.size_of_terms:.3g} times what the image is",
            hint=f"use --variant {DOUBLE} or auto",
        )
    return variant(DOUBLE).plan(operation, layout)
