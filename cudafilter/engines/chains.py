"""Chains on any engine, by way of float32 or float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Protocol, cast

import numpy as np

from cudafilter.engines import Result
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Fork, Operation, Plan, Stage, split
from cudafilter.operations.pixels import Pixels, full_scale, in_floats
from cudafilter.operations.point import Points
from cudafilter.operations.precision import between


class Run(Protocol):
    """Engine.run."""

    def __call__(
        self,
        pixels: Pixels,
        filter: Operation,
        border: Border = ...,
        alpha: bool = ...,
        *,
        overwrite: bool = ...,
    ) -> Result:
        """See Engine.run."""
        ...


class Linear(Protocol):
    """What does stages one after the other, in the type that the pixels have."""

    def __call__(
        self, pixels: Pixels, stages: Sequence[Stage], alpha: bool, *, overwrite: bool
    ) -> Result:
        """*pixels* (H, W, C) after *stages*; in their place, perhaps, where *overwrite*."""
        ...


def one_by_one(run: Run) -> Linear:
    """Each stage by *run*."""

    def linear(pixels: Pixels, stages: Sequence[Stage], alpha: bool, *, overwrite: bool) -> Result:
        done = Result(pixels)
        for operation, border in stages:
            following = run(done.pixels, operation, border, alpha, overwrite=overwrite)
            done, overwrite = _joined([done, following], following.pixels), True
        return done

    return linear


def picked(pixels: Pixels, rows: tuple[int, int] | None) -> Pixels:
    """*rows* of *pixels*; all of them where that is None."""
    return pixels if rows is None else pixels[slice(*rows)]


def run_plan(
    linear: Linear, pixels: Pixels, plan: Plan, alpha: bool, rows: tuple[int, int] | None = None
) -> Result:
    """*pixels* (H, W, C) after *plan*, whose stages *linear* does; rounded at the end.

    Of these, *rows* are given; see Engine.run. Integers go through as floats, see to_floats(),
    except where samples are only picked. Point operations at the beginning are looked up.
    """
    dtype = pixels.dtype
    if keeps_type(plan, dtype):
        done = _run(linear, pixels, plan, alpha)
        return done._replace(pixels=picked(done.pixels, rows))
    before, rest = split(plan)
    if before:
        begun = _run(linear, pixels, before, alpha)
        done = run_plan(linear, begun.pixels, rest, alpha, rows)
        return _joined([begun, done], done.pixels)
    kind = between(plan, dtype, alpha)
    points, rest = leading(plan)
    done = _run(linear, to_floats(pixels, points, alpha, kind), in_fractions(rest, dtype), alpha)
    return done._replace(pixels=from_floats(picked(done.pixels, rows), dtype))


def to_floats(pixels: Pixels, points: Points | None, alpha: bool, kind: np.dtype[Any]) -> Pixels:
    """Integers as floats of the type *kind* from 0 to 1, after *points* where there are some.

    Engines take that for full scale, so biases, thresholds and alpha mean the same as in a single
    run.
    """
    if points is None:
        return in_floats(pixels, kind)
    from cudafilter.engines.points import pointed  # not before: most chains do without

    return pointed(pixels, points, alpha, None, kind)


def from_floats(values: Pixels, dtype: np.dtype[Any]) -> Pixels:
    """What to_floats() made of *dtype*, rounded and clamped. *values* are overwritten."""
    full = full_scale(dtype)
    values *= np.float32(full)
    np.rint(values, out=values)
    return np.clip(values, 0, full, out=values).astype(dtype)


def keeps_type(plan: Plan, dtype: np.dtype[Any]) -> bool:
    """Whether samples of *dtype* stay what they are: floats, and those that are only picked."""
    return dtype.kind == "f" or picks(plan)


def leading(plan: Plan) -> tuple[Points | None, Plan]:
    """The point operations that *plan* begins with, None where there are none, and the rest."""
    first = plan[0]
    if isinstance(first, Stage) and isinstance(first.operation, Points):
        return first.operation, plan[1:]
    return None, plan


def picks(plan: Plan) -> bool:
    """Whether *plan* only picks samples, and at most subtracts them at its end."""
    *before, last = plan
    branches = last if isinstance(last, Fork) else ((last,),)
    ends = [each for branch in branches for each in branch]
    return all(isinstance(each, Stage) and each.operation.picks for each in (*before, *ends))


def in_fractions(plan: Plan, dtype: np.dtype[Any]) -> Plan:
    """*plan* with borders as they are in an image of *dtype*, of which constants are rounded."""
    found: list[Stage | Fork] = []
    for each in plan:
        if isinstance(each, Fork):
            found.append(Fork(*(in_fractions(branch, dtype) for branch in each)))
        else:
            value = each.border.sample(dtype) / full_scale(dtype)
            found.append(Stage(each.operation, Border(each.border.mode, value)))
    return tuple(found)


def _run(linear: Linear, pixels: Pixels, plan: Plan, alpha: bool) -> Result:
    """*pixels* after *plan*, in their type."""
    done = Result(pixels)
    for is_fork, each in groupby(plan, lambda step: isinstance(step, Fork)):
        values = done.pixels
        if not is_fork:
            stages = cast(list[Stage], list(each))
            part = linear(values, stages, alpha, overwrite=values is not pixels)
            done = _joined([done, part], part.pixels)
            continue
        for fork in cast(list[Fork], list(each)):
            parts = [_run(linear, values, branch, alpha) for branch in fork]
            more, less = (part.pixels for part in parts)
            out = difference(more, less, values if alpha else None)
            done, values = _joined([done, *parts], out), out
    return done


def difference(more: Pixels, less: Pixels, alpha_of: Pixels | None) -> Pixels:
    """*more* less *less*, with the last channel of *alpha_of* where that is given."""
    # Integers end here, and their result is clamped.
    with np.errstate(all="ignore"):  # NaN and infinity are results like others
        out: Pixels = more - less if more.dtype.kind == "f" else np.maximum(more, less) - less
    if alpha_of is not None:
        out[..., -1] = alpha_of[..., -1]
    return out


def _joined(results: Sequence[Result], pixels: Pixels) -> Result:
    """*pixels*, with the seconds and notes of all *results*."""
    seconds: Counter[str] = Counter()
    for result in results:
        seconds.update(result.seconds)
    notes = dict.fromkeys(note for result in results for note in result.notes)
    return Result(pixels, dict(seconds), tuple(notes))
