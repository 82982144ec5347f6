"""Which kernels are worth compiling ahead of their use."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from itertools import product

from cudafilter.engines.cuda import deflate, unfilter
from cudafilter.engines.cuda.screen import planned
from cudafilter.engines.cuda.variants import AUTO
from cudafilter.engines.cuda.variants.ladder import prepare, variant
from cudafilter.errors import LimitError
from cudafilter.operations.borders import Border
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation, stages_of
from cudafilter.operations.pixels import DTYPES

COMMON_SIGMAS = (1, 2, 3, 5)
"""Blurs that are worth compiling ahead, sigma in pixels."""

COMMON_MEDIANS = (2, 3, 4, 5)
"""Radii in pixels. Of all filters, medians take longest to compile: up to 8 s for 11x11."""

USUAL = ((1, False), (2, True), (3, False), (4, True))
EVERY = (*USUAL, (2, False), (4, False))
"""Layouts: channels, and whether the last is alpha."""

Macros = dict[str, int]

PNG = [("deflate", dict(deflate.MACROS)), ("unfilter", dict(unfilter.MACROS))]
"""The kernels that code PNGs, as kernels_for() has kernels."""


def common(name: str = AUTO) -> list[tuple[str, Macros]]:
    """The kernels that most runs ask the variant *name* for: see kernels_for().

    They serve the catalogue's filters with their defaults, blurs of COMMON_SIGMAS and medians of
    COMMON_MEDIANS. A variant that runs none of these gets the kernels of its hardest operations.
    AUTO has those of --check, and of PNGs.
    """
    found = kernels_for(_usual(), name) + (proofs() + PNG if name == AUTO else [])
    return found or kernels_for(variant(name).hardest(), name)


def every(name: str) -> list[Macros]:
    """Every set of macros that the variant *name* is compiled for.

    A variant that is compiled for each kernel size has no end of them. Of such a variant, these
    are the common ones and those of filters near its limits.
    """
    filters = [*variant(name).hardest(), *_usual()]
    return [macros for _, macros in kernels_for(filters, name, EVERY)]


def proofs(layouts: Iterable[tuple[int, bool]] = USUAL) -> list[tuple[str, Macros]]:
    """The kernels that prove results of the catalogue's filters, as kernels_for() has them."""
    found = []
    stages = [stage for each in _usual() for stage in stages_of(each.unrolled(Border()))]
    for stage, dtype, (channels, alpha) in product(stages, DTYPES, layouts):
        ready = planned(stage, (4096, 4096, channels), dtype, alpha, 1)
        if ready is not None and (kernel := (ready.variant, dict(ready.defines))) not in found:
            found.append(kernel)
    return found


def kernels_for(
    operations: Iterable[Operation], name: str, layouts: Iterable[tuple[int, bool]] = USUAL
) -> list[tuple[str, Macros]]:
    """Each kernel, (variant, macros), with which the variant *name* runs *operations*, once.

    They cover every sample type and *layouts*, without what the variant cannot run.
    """
    found = []
    stages = [stage for each in operations for stage in stages_of(each.unrolled(Border()))]
    for stage, dtype, (channels, alpha) in product(stages, DTYPES, layouts):
        with suppress(LimitError):
            ready = prepare(stage.operation, channels, dtype, Border(), alpha, name)
            kernel = ready.variant, dict(ready.defines)
            if kernel not in found:
                found.append(kernel)
    return found


def _usual() -> list[Operation]:
    filters: list[Operation] = [make("blur", sigma=sigma) for sigma in COMMON_SIGMAS]
    filters += [make("median", radius=radius) for radius in COMMON_MEDIANS]
    return filters + [
        make(name)
        for name, spec in CATALOGUE.items()
        if not any(parameter.required for parameter in spec.parameters)
    ]
