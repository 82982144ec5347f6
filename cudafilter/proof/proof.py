"""Values of the reference for some rows at a time: found fast, and how far off they may be.

``reference.py`` is the definition. What is here is held to it by tests. No code of an engine is
used, nor OpenCV: of the definition's own, its borders' indices, its kernels, and what it makes of
the sums.
"""

from __future__ import annotations

import math

import numpy as np

from cudafilter.operations import reference
from cudafilter.operations.bilateral import Bilateral
from cudafilter.operations.borders import OUTSIDE, Border, border_index
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.denoise import Denoise
from cudafilter.operations.operation import Operation, Stage, only_stage
from cudafilter.operations.pixels import Exact, Pixels, full_scale
from cudafilter.operations.weighed import Weighed
from cudafilter.proof.alike import Alike
from cudafilter.proof.correlated import Correlated
from cudafilter.proof.patches import Patches
from cudafilter.proof.planes import Index
from cudafilter.proof.ranks import Ranked, networks
from cudafilter.proof.values import Values

BAND_SAMPLES = 1 << 20
"""Samples at a time, at most: 8 MiB in float64, so that memory stays small."""

LEAST_SAMPLES = 1 << 15
"""Samples at a time by the definition, at least: each time costs as much as many samples."""

WINDOW_BYTES = 8 << 20
"""Memory that the windows of single samples may take at a time."""

KEPT_BYTES = 31 << 20
"""Size up to which freed memory is kept for what comes next."""


class Proof:
    """What the values of *operation* on *source*, (H, W, C), are."""

    def __init__(self, source: Pixels, operation: Operation, border: Border, alpha: bool) -> None:
        self._plan = operation.unrolled(border)
        self._stage = only_stage(self._plan) if self._plan else None
        if self._stage is not None:  # of a chain that comes down to it, its link
            operation, border = self._stage
        self._source, self._operation = source, operation
        self._border, self._alpha = border, alpha
        self._full = full_scale(source.dtype)
        self._fast = self._fast_route()
        """The rows of what has a faster route; None where only the definition has them."""
        # glibc gives freed blocks back to the system, and clears them when they come again, which
        # took a third of the time. It keeps those no larger than the largest it has seen freed, up
        # to 32 MiB. So one is shown to it, which is never touched and so takes no memory.
        np.empty(KEPT_BYTES, np.uint8)
        _, width, channels = source.shape
        row = width * channels
        step = (
            self._fast.step if self._fast else max(sum(operation.reach[:2]), LEAST_SAMPLES // row)
        )
        self.step = max(1, min(step, BAND_SAMPLES // row))
        """Rows to ask for at a time."""

    @property
    def fast(self) -> bool:
        """Whether rows() are found by a faster route than the definition's."""
        return self._fast is not None

    @property
    def window(self) -> int:
        """Pixels that a value depends on."""
        above, below, left, right = self._operation.reach
        return (above + 1 + below) * (left + 1 + right)

    def rows(self, first: int, last: int) -> Values:
        """The values of rows *first* to *last* - 1."""
        if isinstance(self._fast, Ranked):
            return Values(self._fast.rows(first, last), 0.0)
        if self._fast is not None:
            return self._fast.rows(first, last)
        return Values(self._in_rows(first, last).transpose(0, 2, 1), 0.0)

    def at(self, y: Index, x: Index, c: Index) -> Exact:
        """The definition's values at rows *y*, columns *x* and channels *c*, 1-D arrays."""
        if not len(y):
            return np.empty(0)
        above, below, left, right = self._operation.reach
        window = self.window
        first, last = int(y.min()), int(y.max()) + 1
        row = self._source[0].size * (last - first)
        together = self._stage is not None and isinstance(self._stage.operation, Weighed)
        joint = self._alpha and isinstance(self._operation, Correlation)
        if self._stage is None or joint:
            if len(y) > row // 64:
                return self._in_rows(first, last)[y - first, x, c]
            return self._one_by_one(y, x, c)
        if len(y) * window > row * (above + below + left + right + 2):
            return self._in_rows(first, last)[y - first, x, c]
        out = np.empty(len(y))
        count = max(1, WINDOW_BYTES // (8 * window))
        find = self._beside if together else self._windows
        for n in range(0, len(y), count):
            part = slice(n, n + count)
            out[part] = find(self._stage, y[part], x[part], c[part])
        return out

    def _in_rows(self, first: int, last: int) -> Exact:
        """The definition's values of rows *first* to *last* - 1, (rows, columns, channels)."""
        return reference.exact(
            self._source, self._operation, self._border, self._alpha, (first, last)
        )

    def _one_by_one(self, y: Index, x: Index, c: Index) -> Exact:
        """at() for what needs all channels of a pixel, or more than one window."""
        pixels, inverse = np.unique(np.stack([y, x]), axis=1, return_inverse=True)
        values = [
            reference.exact(
                self._source, self._operation, self._border, self._alpha, (i, i + 1), (j, j + 1)
            )[0, 0]
            for i, j in pixels.T.tolist()
        ]
        found: Exact = np.array(values)[inverse.ravel(), c]
        return found

    def _beside(self, stage: Stage, y: Index, x: Index, c: Index) -> Exact:
        """at() for what needs all channels of a pixel, whose definition takes many windows."""
        (above, below, left, right), (height, width, _) = stage.operation.reach, self._source.shape
        rows = _around(y, above, below, height, stage.border.mode)
        columns = _around(x, left, right, width, stage.border.mode)
        windows = self._source[rows[:, None, :], columns[None, :, :]].astype(np.float64)
        outside = (rows == OUTSIDE)[:, None, :] | (columns == OUTSIDE)[None, :, :]
        windows[outside] = stage.border.sample(self._source.dtype)
        padded = np.ascontiguousarray(windows.swapaxes(2, 3))
        source = padded[above : above + 1, left : left + 1]
        with np.errstate(all="ignore"):
            pixels = stage.operation.exact(padded, source, self._full, self._alpha)[0, 0]
        found: Exact = pixels[c, np.arange(len(c))]
        return found

    def _windows(self, stage: Stage, y: Index, x: Index, c: Index) -> Exact:
        """The definition of one pixel of as many channels as there are samples: it treats each
        channel by itself where none is alpha."""
        (above, below, left, right), (height, width, _) = stage.operation.reach, self._source.shape
        rows = _around(y, above, below, height, stage.border.mode)
        columns = _around(x, left, right, width, stage.border.mode)
        windows = self._source[rows[:, None, :], columns[None, :, :], c].astype(np.float64)
        outside = (rows == OUTSIDE)[:, None, :] | (columns == OUTSIDE)[None, :, :]
        windows[outside] = stage.border.sample(self._source.dtype)
        source = self._source[y, x, c].astype(np.float64)[None, None, :]
        with np.errstate(all="ignore"):
            found: Exact = stage.operation.exact(windows, source, self._full, False)[0, 0]
            return found

    def _fast_route(self) -> Correlated | Ranked | Alike | Patches | None:
        if self._plan and networks(self._plan) and not math.isnan(self._source.max()):
            return Ranked(self._source, self._plan, self._alpha)
        if self._stage is None:
            return None
        operation, border = self._stage
        if type(operation) is Bilateral and self._source.dtype.kind == "u":
            return Alike(self._source, operation, border, self._alpha)
        if isinstance(operation, Denoise):
            return Patches(self._source, operation, border, self._alpha)
        if not isinstance(operation, Correlation):
            return None
        correlated = Correlated(self._source, operation, border, self._alpha)
        return correlated if correlated.proven else None


def _around(position: Index, before: int, after: int, n: int, mode: str) -> Index:
    """Where the window around each *position* is read from, (before + 1 + after, positions)."""
    index = border_index(-before, n + after, n, mode)
    around: Index = index[position[None, :] + np.arange(before + 1 + after)[:, None]]
    return around
