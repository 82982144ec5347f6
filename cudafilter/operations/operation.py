"""What an operation is: how far it reaches, what it gives exactly, how far engines may be off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol, TypeGuard, cast

from cudafilter.errors import ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.pixels import Exact

ROUNDING = 2.0**-24
"""Largest relative error of a number that is rounded to float32, or of a product there."""

Reach = tuple[int, int, int, int]
"""Pixels above, below, left of and right of the output pixel."""


class Operation(Protocol):
    """What becomes of an image: plain data, hashable and equal by value, picklable.

    Equal operations give equal bits. A chain of operations is one; see chain.py.
    """

    def __hash__(self) -> int: ...

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def reach(self) -> Reach:
        """The halo that a pixel of the result depends on."""
        ...

    @property
    def alpha(self) -> Literal["filter", "keep"]:
        """What becomes of an alpha channel: it is filtered along, or kept as it is."""
        ...

    def unrolled(self, border: Border) -> Plan:
        """What is to be done to the whole image, one after the other.

        None where the result is the image, bit for bit: no engine computes anything then. *border*
        is what lies outside the image for those that have no border of their own.
        """
        ...


class Windowed(Operation, Protocol):
    """An operation whose result depends on a window around each pixel only."""

    @property
    def picks(self) -> bool:
        """Whether each sample of the result is one of the image, or black or white: none is
        computed, so that none is rounded."""
        ...

    def exact(self, padded: Exact, source: Exact, full: float, alpha: bool) -> Exact:
        """The result in native units before rounding and clamping, (h, w, C) float64.

        *source*, (h, w, C), are rows of the image, and *padded* is the same with ``reach`` pixels
        around, borders included. *full* is the value of white. *alpha* says that the last channel
        is alpha.
        """
        ...

    def slack(self, dtype: str, alpha: bool) -> float | None:
        """How far integers of *dtype* may be off before they round, in steps, at every sample.

        None where that differs from sample to sample; see proof/tolerance.py, as for all below.
        """
        ...

    def majorant(self, alpha: bool, opaque: float, signed: bool) -> tuple[Windowed, ...] | None:
        """What is done, one after the other, to bounds of samples to get bounds of results.

        All terms count by their size, so that nothing cancels, and no channel is alpha. *alpha* as
        in exact(); *opaque* is the largest absolute alpha, in full scales. *signed* says that a
        bound may be larger than what it bounds. None where there is no bound.
        """
        ...

    def roundings(self, dtype: str, alpha: bool) -> float:
        """Largest error of a result that float32 gives, in ROUNDING of its majorant.

        *dtype* is the image's, of integers where a chain brings them to float32.
        """
        ...

    def carries(self, alpha: bool) -> float:
        """How often an error of the samples counts, which is relative to their bounds."""
        ...

    def amplification(self) -> float:
        """The largest change of a result without alpha, where no sample changes by more than 1."""
        ...

    def denormals(self) -> float:
        """Largest error by float32's least numbers, in steps between them, of results near 0."""
        ...


class Stage(NamedTuple):
    """A windowed operation, and what lies outside the image that it gets."""

    operation: Windowed
    border: Border


class Fork(NamedTuple):
    """What one plan makes of an image less what another one makes of it; alpha is kept."""

    minuend: Plan
    subtrahend: Plan


Plan = tuple[Stage | Fork, ...]
"""What is done to an image, one after the other; nothing where it is empty."""


class Errorless:
    """What a windowed operation derives from whose results are picked or looked up.

    Nothing is computed, so it adds no error of its own, and those before it grow no larger.
    """

    def slack(self, dtype: str, alpha: bool) -> float:
        """See Windowed.slack."""
        return 0.0

    def roundings(self, dtype: str, alpha: bool) -> float:
        """See Windowed.roundings."""
        return 0.0

    def carries(self, alpha: bool) -> float:
        """See Windowed.carries."""
        return 1.0

    def amplification(self) -> float:
        """See Windowed.amplification."""
        return 1.0

    def denormals(self) -> float:
        """See Windowed.denormals."""
        return 0.0


class WholeImage(Errorless):
    """What a windowed operation derives from whose result depends on all of the image.

    Its exact() and engines get the whole image, and *reach* is what it pads. Each sample of the
    result is black or white, or alpha, which is kept.
    """

    picks: ClassVar[bool] = True

    def unrolled(self: Windowed, border: Border) -> Plan:
        """See Operation.unrolled."""
        return (Stage(self, border),)

    def majorant(self, alpha: bool, opaque: float, signed: bool) -> tuple[Windowed, ...] | None:
        """See Windowed.majorant: none. Checks begin behind it."""
        return None


@dataclass(frozen=True)
class Planned:
    """A plan, with the borders that it has, as an operation."""

    plan: Plan
    reach: Reach
    name: str
    alpha: Literal["filter", "keep"] = "keep"

    def unrolled(self, border: Border) -> Plan:
        """See Operation.unrolled."""
        return self.plan


def require_operation(filter: object) -> Operation:
    """Return *filter*, or raise ParameterError ("filter") where it is no operation."""
    if not hasattr(filter, "unrolled"):
        name = filter if isinstance(filter, str) else "blur"
        hint = f"cudafilter.make({name!r}, ...) makes one"
        raise ParameterError("filter", f"must be an operation, not {filter!r}", hint=hint)
    return cast("Operation", filter)


def split(plan: Plan) -> tuple[Plan, Plan]:
    """*plan* up to the last stage that needs the whole image, and what is left."""
    last = max((n for n, each in enumerate(plan, 1) if needs_whole(each)), default=0)
    return plan[:last], plan[last:]


def whole_of(plan: Plan) -> str | None:
    """The name of what in *plan* needs the whole image; None where nothing does."""
    before, _ = split(plan)
    return next((step.operation.name for step in before if needs_whole(step)), None)


def needs_whole(step: Stage | Fork) -> TypeGuard[Stage]:
    """Whether *step* depends on all of the image."""
    return isinstance(step, Stage) and isinstance(step.operation, WholeImage)


def stages_of(plan: Plan) -> Iterator[Stage]:
    """All stages of *plan*, those of its forks too."""
    for each in plan:
        if isinstance(each, Fork):
            yield from stages_of(each.minuend)
            yield from stages_of(each.subtrahend)
        else:
            yield each


def only_stage(plan: Plan) -> Stage | None:
    """The one stage of *plan*; None where it is no such plan."""
    (first, *rest) = plan
    return None if rest or isinstance(first, Fork) else first
