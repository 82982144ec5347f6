"""Chains on any engine: stage by stage, by way of float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from cudafilter.engines import Result
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation, Stage
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


def run_stages(run: Run, pixels: Pixels, stages: Sequence[Stage], alpha: bool) -> Result:
    """*pixels* (H, W, C) after all *stages*, each of which *run* does; rounded at the end.

    Integers go through as float32 from 0 to 1, which is what *run* takes for full scale, so that
    biases, thresholds and alpha mean the same as in a single run.
    """
    dtype = pixels.dtype
    full = full_scale(dtype)
    values = pixels
    if dtype.kind == "u":
        values = np.divide(pixels, full, dtype=np.float32)
    seconds: Counter[str] = Counter()
    notes: list[str] = []
    for operation, border in stages:
        outside = Border(border.mode, border.sample(dtype) / full)
        done = run(values, operation, outside, alpha, overwrite=values is not pixels)
        values = done.pixels
        seconds.update(done.seconds)
        notes += (note for note in done.notes if note not in notes)
    if dtype.kind == "u":
        np.multiply(values, np.float32(full), out=values)
        np.rint(values, out=values)
        values = np.clip(values, 0, full, out=values).astype(dtype)
    return Result(values, dict(seconds), tuple(notes))
