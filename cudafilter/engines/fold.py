"""Kernels that reach further than the border repeats itself, folded into smaller ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel, Weights


class Taps(NamedTuple):
    """1 for each tap of a kernel. After folding: how many taps fell onto one place."""

    all: Kernel
    signed: Kernel
    """Taps of negative weight count as -1."""


class Folded(NamedTuple):
    """A filter after fold(), and the one that it was before."""

    given: Correlation
    filter: Correlation
    height: int
    width: int
    border: Border

    @property
    def differs(self) -> bool:
        """Whether taps fell together. Then an infinity less itself may no longer be NaN."""
        return self.given.kernels != self.filter.kernels

    def taps(self) -> list[Taps]:
        """The taps of each kernel of ``filter``."""
        kinds = []
        for of in (np.abs, np.positive):
            kernels = tuple(_signs(kernel, of) for kernel in self.given.kernels)
            signs = replace(self.filter, kernels=kernels)
            kinds.append(fold(signs, self.height, self.width, self.border).kernels)
        return [Taps(*both) for both in zip(*kinds, strict=True)]


def fold(filter: Correlation, height: int, width: int, border: Border) -> Correlation:
    """*filter* with no kernel that reaches further than the border repeats itself.

    Taps that read the same sample whatever the output pixel become one, which holds their sum: a
    kernel then reaches an image's side past the image at most.
    """
    limits = [_repeats(n, border.mode) for n in (height, width)]

    def folded(kernel: Kernel) -> Kernel:
        above, below, left, right = kernel.reach
        if max(above, below) <= limits[0][0] and max(left, right) <= limits[1][0]:
            return kernel
        if kernel.factors is not None:
            column, row = kernel.factors
            return Kernel.outer(
                _fold_axis(column, above, *limits[0]), _fold_axis(row, left, *limits[1])
            )
        rows = _fold_axis(kernel.weights, above, *limits[0])
        return Kernel(_fold_axis(rows.T, left, *limits[1]).T)

    return replace(filter, kernels=tuple(folded(kernel) for kernel in filter.kernels))


def _signs(kernel: Kernel, of: Callable[[Weights], Weights]) -> Kernel:
    """*kernel* with the signs of its weights, 1, 0 and -1, to which *of* is applied."""
    if kernel.factors is None:
        return Kernel(of(np.sign(kernel.weights)), kernel.anchor)
    column, row = (of(np.sign(factor)) for factor in kernel.factors)
    return Kernel.outer(column, row, kernel.anchor)


def _repeats(n: int, mode: str) -> tuple[int, int | None]:
    """How far past an axis of *n* samples a tap still reads something new, and the period.

    Under ``edge`` and ``constant``, which have no period, all taps further out read the same.
    """
    periods = {"wrap": n, "symmetric": 2 * n, "reflect": max(1, 2 * n - 2)}
    return (periods[mode] // 2, periods[mode]) if mode in periods else (n, None)


def _fold_axis(weights: Weights, anchor: int, limit: int, period: int | None) -> Weights:
    """*weights*, folded along the first axis to ``limit`` taps on both sides of the anchor.

    Axes whose taps reach no further keep them all, with zeros to have the anchor in the middle.
    """
    reach = max(anchor, len(weights) - 1 - anchor)
    offsets = np.arange(len(weights)) - anchor
    if reach > limit:
        reach = limit
        if period is None:
            offsets = np.clip(offsets, -limit, limit)
        else:
            offsets = (offsets + limit) % period - limit
    out = np.zeros((2 * reach + 1, *weights.shape[1:]))
    for offset, taps in zip(offsets + reach, weights, strict=True):
        out[offset] += taps
    return out
