"""Chains on any engine: stage by stage, by way of float32."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

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


def run_plan(run: Run, pixels: Pixels, plan: Plan, alpha: bool) -> Result:
    """*pixels* (H, W, C) after *plan*, each stage of which *run* does; rounded at the end.

    Integers go through as float32 from 0 to 1, which is what *run* takes for full scale, so that
    biases, thresholds and alpha mean the same as in a single run. Where samples are only picked,
    they stay what they are.
    """
    dtype = pixels.dtype
    if dtype.kind == "f" or _picks(plan):
        return _run(run, pixels, plan, alpha)
    full = full_scale(dtype)
    done = _run(run, np.divide(pixels, full, dtype=np.float32), _in_floats(plan, dtype), alpha)
    values = done.pixels * np.float32(full)
    np.rint(values, out=values)
    return done._replace(pixels=np.clip(values, 0, full, out=values).astype(dtype))


def _picks(plan: Plan) -> bool:
    """Whether *plan* picks samples, and subtracts some at most in the end."""
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


def _run(run: Run, pixels: Pixels, plan: Plan, alpha: bool) -> Result:
    """*pixels* after *plan*, in their type."""
    values = pixels
    seconds: Counter[str] = Counter()
    notes: list[str] = []
    for each in plan:
        if isinstance(each, Fork):
            parts = [_run(run, values, branch, alpha) for branch in each]
            more, less = (part.pixels for part in parts)
            # Integers end here, and their result is clamped.
            out = more - less if values.dtype.kind == "f" else np.maximum(more, less) - less
            if alpha:
                out[..., -1] = values[..., -1]
            values = out
        else:
            overwrite = values is not pixels
            parts = [run(values, each.operation, each.border, alpha, overwrite=overwrite)]
            values = parts[0].pixels
        for part in parts:
            seconds.update(part.seconds)
            notes += (note for note in part.notes if note not in notes)
    return Result(values, dict(seconds), tuple(notes))
