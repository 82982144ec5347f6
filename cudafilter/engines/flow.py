"""An operation on an image whose rows flow past: the bits of the whole, in the memory of a band.

Each stage of the operation keeps the rows that the next band taps once more. So no row is computed
twice, but for those that a ``wrap`` border brings from the other end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import numpy as np

from cudafilter.engines import Engine, Result
from cudafilter.engines.chains import (
    difference,
    from_floats,
    in_fractions,
    keeps_type,
    leading,
    to_floats,
)
from cudafilter.operations.borders import Border, border_index
from cudafilter.operations.operation import (
    Fork,
    Operation,
    Plan,
    Stage,
    Windowed,
    only_stage,
    stages_of,
    whole_of,
)
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.precision import between

Size = tuple[int, int, int]
"""(H, W, C)."""

WHOLE = 4
"""An image of fewer rows, in kernels' reaches, goes through in one piece."""


class Flow:
    """An image of *size*, whose rows *bands* gives from above to below, filtered by *engine*.

    *reread* gives any rows once more, from the first to the one before the last. *looked_at* says
    that source() is asked for each band, too. The operation needs no whole image.
    """

    def __init__(
        self,
        engine: Engine,
        filter: Operation,
        border: Border,
        alpha: bool,
        size: Size,
        dtype: np.dtype[Any],
        bands: Iterator[Pixels],
        reread: Callable[[int, int], Pixels],
        looked_at: bool = False,
    ) -> None:
        self.notes: dict[str, None] = {}
        """What the user should know, each once."""
        self.seconds: Counter[str] = Counter()
        """Those of all Results."""
        self._engine, self._alpha, self._size = engine, alpha, size
        self._source = _Source(bands, reread)
        self._looks = self._source.tap() if looked_at else None
        self._dtype = dtype
        plan = filter.unrolled(border)
        assert whole_of(plan) is None
        one = not plan or only_stage(plan) is not None
        self._in_type = one or keeps_type(plan, dtype)
        self._between = dtype if self._in_type else between(plan, dtype, alpha)
        steps = [self._step(stage, self._between) for stage in stages_of(plan)]
        wraps = rereads(filter, border)
        alike = not wraps or all(each.border.mode == "wrap" for each in stages_of(plan))
        if max(steps, default=1) == 1 and len(steps) > 1 and alike:
            # No bit depends on a cut, so the engine may do all of it at once. On a GPU it must:
            # one launch does several steps of 3x3, with other bits than one launch for each.
            stage = Stage(cast(Windowed, filter), border)
            last: _Rows = _Staged(self._source.tap(), stage, self._run, 1, size[0], wraps)
            self._in_type = True
        elif self._in_type:
            last = self._planned(plan, self._source)
        else:
            points, rest = leading(plan)
            begun = partial(to_floats, points=points, alpha=alpha, kind=self._between)
            last = self._planned(in_fractions(rest, dtype), _Mapped(self._source.tap(), begun))
        self._last = last.tap()

    def rows(self, first: int, last: int) -> Pixels:
        """Rows *first* to before *last* of the result, which are asked for from above to below."""
        found = self._last.rows(first, last)
        self._last.forget(last)
        return found if self._in_type else from_floats(found, self._dtype)

    def source(self, first: int, last: int, keep: int) -> Pixels:
        """Rows of the image itself. Those from *keep* on will be asked for again."""
        assert self._looks is not None
        found = self._looks.rows(first, last)
        self._looks.forget(keep)
        return found

    def _step(self, stage: Stage, dtype: np.dtype[Any]) -> int:
        return self._engine.step(self._size, dtype.name, stage.operation, stage.border, self._alpha)

    def _planned(self, plan: Plan, source: _Rows) -> _Rows:
        """The result of *plan* on *source*."""
        for each in plan:
            if isinstance(each, Fork):
                more, less = (self._planned(branch, source).tap() for branch in each)
                source = _Difference(more, less, source.tap() if self._alpha else None)
            else:
                step = self._step(each, self._between)
                wraps = each.border.mode == "wrap"
                source = _Staged(source.tap(), each, self._run, step, self._size[0], wraps)
        return source

    def _run(self, pixels: Pixels, stage: Stage, rows: tuple[int, int]) -> Pixels:
        done: Result = self._engine.run(pixels, *stage, self._alpha, rows=rows)
        self.notes.update(dict.fromkeys(done.notes))
        self.seconds.update(done.seconds)
        return done.pixels


def rereads(filter: Operation, border: Border) -> bool:
    """Whether the first rows of the result need the last ones of the image."""
    return any(
        stage.border.mode == "wrap" and any(stage.operation.reach[:2])
        for stage in stages_of(filter.unrolled(border))
    )


class _Tap:
    """One of those that ask for the rows of *of*."""

    def __init__(self, of: _Rows, number: int) -> None:
        self._of, self._number = of, number

    def rows(self, first: int, last: int) -> Pixels:
        """See _Rows."""
        return self._of.rows(first, last)

    def forget(self, first: int) -> None:
        """Say that of the rows above *first* none will be asked for again as the rows flow."""
        self._of.forget(self._number, first)


class _Rows:
    """Rows that flow from above to below, and which of them are needed yet."""

    def __init__(self) -> None:
        self._needed: list[int] = []

    def tap(self) -> _Tap:
        """For one more that asks for rows."""
        self._needed.append(0)
        return _Tap(self, len(self._needed) - 1)

    def forget(self, number: int, first: int) -> None:
        """See _Tap."""
        self._needed[number] = first
        self._drop(min(self._needed))

    def rows(self, first: int, last: int) -> Pixels:
        """Rows *first* to before *last*, which may be kept elsewhere: not to be overwritten."""
        raise NotImplementedError

    def _drop(self, first: int) -> None:
        """Keep no rows above *first*."""
        raise NotImplementedError


class _Mapped(_Rows):
    """Rows each pixel of which is made of one of *source*."""

    def __init__(self, source: _Tap, make: Callable[[Pixels], Pixels]) -> None:
        super().__init__()
        self._source, self._make = source, make

    def rows(self, first: int, last: int) -> Pixels:
        """See _Rows."""
        return self._make(self._source.rows(first, last))

    def _drop(self, first: int) -> None:
        self._source.forget(first)


class _Difference(_Rows):
    """The end of a fork."""

    def __init__(self, more: _Tap, less: _Tap, alpha_of: _Tap | None) -> None:
        super().__init__()
        self._more, self._less, self._alpha_of = more, less, alpha_of

    def rows(self, first: int, last: int) -> Pixels:
        """See _Rows."""
        kept = self._alpha_of.rows(first, last) if self._alpha_of else None
        return difference(self._more.rows(first, last), self._less.rows(first, last), kept)

    def _drop(self, first: int) -> None:
        for part in (self._more, self._less, self._alpha_of):
            if part is not None:
                part.forget(first)


class _Kept(_Rows):
    """Rows that take work, and are kept as long as they are needed."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[Pixels] = []
        self._first = self._end = 0
        """The first row that is held, and the next one."""

    def rows(self, first: int, last: int) -> Pixels:
        """See _Rows."""
        if not self._first <= first <= self._end:
            return self._far(first, last)
        while self._end < last:
            self._held.append(self._more(last))
            self._end += len(self._held[-1])
        parts, top = [], self._first
        for held in self._held:
            part = held[max(0, first - top) : max(0, last - top)]
            if len(part):
                parts.append(part)
            top += len(held)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _drop(self, first: int) -> None:
        while self._held and self._first + len(self._held[0]) <= first:
            self._first += len(self._held.pop(0))
        if self._held and first - self._first > len(self._held[0]) // 2:
            self._held[0] = self._held[0][first - self._first :].copy()
            self._first = first

    def _more(self, last: int) -> Pixels:
        """The next rows, to *last* at least."""
        raise NotImplementedError

    def _far(self, first: int, last: int) -> Pixels:
        """Rows that are not held, nor the next ones."""
        raise NotImplementedError


class _Source(_Kept):
    """The rows of the image."""

    def __init__(self, bands: Iterator[Pixels], reread: Callable[[int, int], Pixels]) -> None:
        super().__init__()
        self._bands, self._reread = bands, reread

    def _more(self, last: int) -> Pixels:
        return next(self._bands)

    def _far(self, first: int, last: int) -> Pixels:
        return self._reread(first, last)


class _Staged(_Kept):
    """What a stage makes of the rows of *source*, cut at multiples of *step*."""

    def __init__(
        self,
        source: _Tap,
        stage: Stage,
        run: Callable[[Pixels, Stage, tuple[int, int]], Pixels],
        step: int,
        height: int,
        wraps: bool,
    ) -> None:
        super().__init__()
        self._source, self._stage, self._run, self._height = source, stage, run, height
        self._wraps = wraps
        # Both ways: a border reflects as far as the kernel reaches past it.
        self._halo = max(stage.operation.reach[:2])
        # A kernel of the image's size is folded, as its height says; see fold.py.
        self._step = height if height < WHOLE * self._halo else step

    def _more(self, last: int) -> Pixels:
        end = min(-(-last // self._step) * self._step, self._height)
        done = self._done(self._end, end)
        self._source.forget(max(0, end - self._halo))
        return done

    def _far(self, first: int, last: int) -> Pixels:
        start = first // self._step * self._step
        end = min(-(-last // self._step) * self._step, self._height)
        return self._done(start, end)[first - start : last - start]

    def _done(self, first: int, last: int) -> Pixels:
        """Rows *first* to before *last*, cut where all bits stay."""
        top, bottom = max(0, first - self._halo), min(self._height, last + self._halo)
        whole = first == 0 and last == self._height
        if whole or not self._wraps:
            return self._run(self._source.rows(top, bottom), self._stage, (first - top, last - top))
        top, bottom = first - self._halo, last + self._halo
        index = border_index(top, bottom, self._height, "wrap")
        starts = np.flatnonzero(np.diff(index, prepend=index[0] - 2) != 1)
        runs = [index[a:b] for a, b in zip(starts, (*starts[1:], len(index)), strict=True)]
        parts = [self._source.rows(int(run[0]), int(run[-1]) + 1) for run in runs]
        pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return self._run(pixels, self._stage, (first - top, last - top))
