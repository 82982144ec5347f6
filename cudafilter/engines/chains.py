"""Chains on any engine, by way of float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Protocol, cast

import numpy as np

from cudafilter.engines import Result
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Fork, Operation, Plan, Stage
from cudafilter.operations.pixels import Pixels, full_scale


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


def run_plan(linear: Linear, pixels: Pixels, plan: Plan, alpha: bool) -> Result:
    """*pixels* (H, W, C) after *plan*, whose stages *linear* does; rounded at the end.

    Integers go through as float32 from 0 to 1, which engines take for full scale, so that biases,
    thresholds and alpha mean the same as in a single run. Where samples are only picked, they stay
    what they are.
    """
    dtype = pixels.dtype
    if dtype.kind == "f" or _picks(plan):
        return _run(linear, pixels, plan, alpha)
    full = full_scale(dtype)
    done = _run(linear, np.divide(pixels, full, dtype=np.float32), _in_floats(plan, dtype), alpha)
    values = done.pixels
    values *= np.float32(full)
    np.rint(values, out=values)
    return done._replace(pixels=np.clip(values, 0, full, out=values).astype(dtype))


def _picks(plan: Plan) -> bool:
    """Whether *plan* only picks samples, and at most subtracts them at its end."""
    *before, last = plan
    branches = last if isinstance(last, Fork) else ((last,),)
    ends = [each for branch in branches for each in branch]
    return all(isinstance(each, Stage) and each.operation.picks for each in (*before, *ends))


def _in_floats(plan: Plan, dtype: np.dtype[Any]) -> Plan:
    """*plan* with borders as they are in an image of *dtype*, of which constants are rounded."""
    found: list[Stage | Fork] = []
    for each in plan:
        if isinstance(each, Fork):
            found.append(Fork(*(_in_floats(branch, dtype) for branch in each)))
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
            # Integers end here, and their result is clamped.
            out = more - less if values.dtype.kind == "f" else np.maximum(more, less) - less
            if alpha:
                out[..., -1] = values[..., -1]
            done, values = _joined([done, *parts], out), out
    return done


def _joined(results: Sequence[Result], pixels: Pixels) -> Result:
    """*pixels*, with the seconds and notes of all *results*."""
    seconds: Counter[str] = Counter()
    for result in results:
        seconds.update(result.seconds)
    notes = dict.fromkeys(note for result in results for note in result.notes)
    return Result(pixels, dict(seconds), tuple(notes))
