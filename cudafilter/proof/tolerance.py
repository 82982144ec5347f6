"""How far an engine's value may lie from the exact one before it rounds. docs/check.md derives it.

Errors of float32 are relative to the terms that a result is summed from. So their bound at a sample
is some ROUNDING of a majorant there: of what the operation makes of the image with all terms
positive.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import IDENTITY, Correlation
from cudafilter.operations.operation import (
    ROUNDING,
    Fork,
    Operation,
    Plan,
    Planned,
    Stage,
    only_stage,
    stages_of,
)
from cudafilter.operations.pixels import Exact, Pixels, largest_finite
from cudafilter.operations.point import Points
from cudafilter.operations.precision import DOUBLE, between, worst
from cudafilter.operations.weighed import Weighed
from cudafilter.proof.errors import DENORMAL, Errors
from cudafilter.proof.planes import Index, Planes
from cudafilter.proof.proof import Proof
from cudafilter.proof.values import Values

NEGATED = Correlation("negated", IDENTITY.kernels, gain=0.0, source_gain=-1.0)


class Error(NamedTuple):
    """What float32 may be off after some stages."""

    roundings: float = 0.0
    """Times ROUNDING, relative to the majorant."""
    denormals: float = 0.0
    """Times DENORMAL."""


class Tolerance:
    """The tolerance of *operation* on *source*, (H, W, C)."""

    fixed: float | None
    """In native units, where it is the same for every sample."""

    def __init__(self, source: Pixels, operation: Operation, border: Border, alpha: bool) -> None:
        self.fixed = None
        plan = operation.unrolled(border)
        whole = source.dtype.kind == "u"
        stage = only_stage(plan) if plan else None
        if stage is not None:  # of a chain that comes down to it, its link
            operation, border = stage
        if not plan or _picks(plan):
            self.fixed = 0.0
        elif whole and stage is not None:
            self.fixed = stage.operation.slack(source.dtype.name, alpha)
        curved = any(isinstance(each.operation, Points) for each in stages_of(plan))
        unit = ROUNDING
        chained = whole and stage is None
        if self.fixed is None and chained and between(plan, source.dtype, alpha) == np.float64:
            unit = DOUBLE
            # So small that it may count at every sample.
            self.fixed = None if curved else worst(plan, source.dtype, alpha, unit)
        if self.fixed is not None:
            return
        self._source, self._cancels = source, False
        self._errors: Errors | None = None
        if curved and not _picks(plan):
            self._errors = Errors(source, plan, alpha, unit)
            return
        # Integers are divided by full scale before a chain, and multiplied by it after it.
        error = _error(plan, Error(1.0 if chained else 0.0), source.dtype.name, alpha)
        self._share = (error.roundings + chained) * ROUNDING
        self._least = 0.0 if whole else error.denormals * DENORMAL
        if not self._share:
            self.fixed = 0.0
            return
        self._operation, self._border = operation, border
        self._alpha = alpha
        operations = [each.operation for each in stages_of(plan)]
        keeps = all(each.alpha == "keep" for each in operations)
        self._picks_alpha = all(each.alpha == "keep" or each.picks for each in operations)
        outside = [each.border.sample(source.dtype) for each in stages_of(plan)]
        sizes = source if whole else np.abs(source)
        if not whole and stage is None and not np.isfinite(sizes.max()):
            # Links may pass over what is not finite. What they do not is not finite in the end.
            sizes[~np.isfinite(sizes)] = 0
        signed = not whole and (bool((source < 0).any()) or min(outside) < 0)
        self._divides = alpha and isinstance(operation, Correlation) and operation.alpha == "filter"
        if self._divides:
            assert isinstance(operation, Correlation)
            negative = not whole and (bool((source[..., -1] < 0).any()) or min(outside) < 0)
            self._cancels = negative or not operation.smoothing
            edge = Border(border.mode, abs(border.value))
            self._are_terms = not signed and operation.absolute == operation
            self._terms = Proof(sizes, operation.absolute, edge, True)
            return
        if stage is not None and isinstance(stage.operation, Weighed):
            # Of the image itself its terms are known, whatever their sign.
            self._are_terms = False
            self._terms = Proof(source, stage.operation.terms, stage.border, alpha)
            return
        opaque = 1.0
        if alpha and not whole:
            opaque = max([largest_finite(source[..., -1:]), *map(abs, outside)])
        majorant = None
        if not (alpha and signed and not keeps):
            majorant = _majorant(plan, alpha, opaque, signed)
        if majorant is None:
            self.fixed = math.inf
            return
        of_plan: Operation = Planned(majorant.plan, operation.reach, "majorant")
        self._are_terms = not majorant.signed
        if (only := only_stage(majorant.plan)) is not None:
            of_plan, border = only
        self._terms = Proof(sizes, of_plan, border, False)

    @property
    def differs(self) -> bool:
        """Whether some samples may be proven and others not."""
        return self.fixed is None and (self._source.dtype.kind == "u" or self._cancels)

    def rows(self, first: int, last: int, values: Values) -> Planes:
        """The tolerance of rows *first* to *last* - 1, or less, in native units.

        *values* are those of the operation: nothing is computed where they are the terms.

        (rows, channels, columns); only where ``fixed`` is None. It is less by no more than the
        bound of the routes that find it; at() tells it without.
        """
        if self._errors is not None:
            return self._errors.rows(first, last)
        if self._cancels:
            y, x = np.mgrid[first:last, : self._source.shape[1]]
            planes = [
                self.at(y.ravel(), x.ravel(), np.full(x.size, c)).reshape(x.shape)
                for c in range(self._source.shape[2])
            ]
            return np.stack(planes, axis=1)
        if not self._are_terms:
            values = self._terms.rows(first, last)
        most = np.maximum(values.values.astype(np.float64) - values.bound, 0.0)
        if values.unproven is not None:
            most[values.unproven] = 0.0
        limit = self._share * most + self._least
        if self._divides:
            alpha = most[:, -1:]
            _divide(limit[:, :-1], most[:, :-1], alpha, self._least, values.bound)
        elif self._alpha and self._picks_alpha:
            limit[:, -1] = 0.0
        return limit

    def at(self, y: Index, x: Index, c: Index) -> Exact:
        """The tolerance at rows *y*, columns *x* and channels *c*, in native units.

        Infinite where float32 can give anything. Only where ``fixed`` is None.
        """
        if self._errors is not None:
            return self._errors.at(y, x, c)
        most = self._terms.at(y, x, c)
        limit: Exact = self._share * most + self._least
        if not self._alpha:
            return limit
        last = self._source.shape[2] - 1
        if not self._divides:
            return np.where(c == last, 0.0, limit) if self._picks_alpha else limit
        alpha = self._terms.at(y, x, np.full_like(c, last))
        if self._cancels:
            proof = Proof(self._source, self._operation, self._border, True)
            below = np.abs(proof.at(y, x, np.full_like(c, last)))
            # Colour may be anything where an error could change the sign of its alpha.
            cancel = np.where(alpha > (1 + 1e-9) * below, alpha / below, 1.0)
            most = cancel * np.maximum(most, np.abs(proof.at(y, x, c)))
            most[cancel * self._share > 0.5] = np.inf
            alpha = below
        colour = self._share * most
        _divide(colour, most, alpha, self._least)
        return np.where(c == last, limit, colour)


def _divide(limit: Planes, most: Planes, alpha: Planes, least: float, bound: float = 0.0) -> None:
    """Add to *limit* of colours, in place, what least numbers may make of a small alpha.

    Where no term of alpha is, colour is 0. *alpha* may be larger by *bound*.
    """
    if least:
        limit += least * (1 + most) / np.where(alpha == 0, 1.0, np.minimum(alpha + bound, 1.0))
    limit[np.broadcast_to(alpha == 0, limit.shape)] = 0.0


def _picks(plan: Plan) -> bool:
    """Whether *plan* picks samples, and at most subtracts two of them at its end.

    The difference of two floats, in double, rounds to the same float32 as the exact one.
    """
    forks = [isinstance(each, Fork) for each in plan]
    return not any(forks[:-1]) and all(stage.operation.picks for stage in stages_of(plan))


def _error(plan: Plan, error: Error, dtype: str, alpha: bool) -> Error:
    """*error* after *plan*."""
    for each in plan:
        if isinstance(each, Fork):
            more, less = (_error(branch, error, dtype, alpha) for branch in each)
            # The difference is rounded too.
            rounded = max(more.roundings, less.roundings) + 1
            error = Error(rounded, more.denormals + less.denormals)
        else:
            own = each.operation
            error = Error(
                own.carries(alpha) * error.roundings + own.roundings(dtype, alpha),
                own.amplification() * error.denormals + own.denormals(),
            )
    return error


class _Bounds(NamedTuple):
    """The majorant of a plan, and whether what it gives may be larger than what it bounds."""

    plan: Plan
    signed: bool


def _majorant(plan: Plan, alpha: bool, opaque: float, signed: bool) -> _Bounds | None:
    """What gives bounds of the results of *plan*; None where there are none. See Windowed."""
    found: list[Stage | Fork] = []
    for each in plan:
        if isinstance(each, Fork):
            branches = [_majorant(branch, alpha, opaque, signed) for branch in each]
            if branches[0] is None or branches[1] is None:
                return None
            # Bounds of both add up.
            negated = (*branches[1].plan, Stage(NEGATED, Border()))
            found.append(Fork(branches[0].plan, negated))
            signed = True
            continue
        operations = each.operation.majorant(alpha, opaque, signed)
        if operations is None:
            return None
        edge = Border(each.border.mode, abs(each.border.value))
        found += (Stage(operation, edge) for operation in operations)
        signed |= operations != (each.operation,)
    return _Bounds(tuple(found), signed)
