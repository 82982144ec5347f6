"""Other libraries' filters by cudafilter, for their own tests: what all adapters share.

An adapter calls ``cudafilter.apply`` on the CPU engine where the arguments have the same meaning
there, and else, which is counted, the peer's own function. Each result is compared with the peer's,
and a difference has one of these classes:

- ``float32``: within float32's rounding of the peer's float64;
- ``rounding``: the exact value rounded half to even, where the peer cuts, rounds halves up, or
  works in fixed point;
- ``clamped``: black or white, where the exact value is past it and the peer's integers wrap;
- ``fault``: any other.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

import cudafilter
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import full_scale

Array = npt.NDArray[Any]
Function = Callable[..., Any]


class Unmapped(Exception):
    """Why a call has no counterpart."""


class Tally:
    """What the adapters met, test by test."""

    def __init__(self) -> None:
        self.test = ""
        self.calls: dict[str, Counter[str]] = {}
        """By test: how many calls had the peer's result, or a difference of which class."""
        self.own: Counter[str] = Counter()
        """Calls that were the peer's own, by reason."""
        self.faults: list[str] = []
        self.failed: set[str] = set()
        self.passed: set[str] = set()
        self._aside = threading.local()

    @contextmanager
    def comparing(self) -> Iterator[None]:
        """Adapters that this thread meets meanwhile stand aside."""
        before = getattr(self._aside, "yes", False)
        self._aside.yes = True
        try:
            yield
        finally:
            self._aside.yes = before

    def note(self, what: str, differs: str) -> None:
        """A call of *what* was done by cudafilter, and *differs* so from the peer's."""
        self.calls.setdefault(self.test, Counter())[differs] += 1
        if differs == "fault":
            self.faults.append(f"{self.test}: {what}")

    def adapter(self, what: str, peers: Function, ours: Callable[..., tuple[Any, str]]) -> Function:
        """*peers*, done by *ours*, which gives a result and how it differs from the peer's."""

        @functools.wraps(peers)
        def adapted(*args: Any, **kwargs: Any) -> Any:
            if getattr(self._aside, "yes", False):
                return peers(*args, **kwargs)
            try:
                result, differs = ours(peers, *args, **kwargs)
            except Unmapped as reason:
                self.own[str(reason)] += 1
                return peers(*args, **kwargs)
            self.note(what, differs)
            return result

        return adapted


TALLY = Tally()


@functools.cache
def _engine() -> cudafilter.Engine:
    return cudafilter.open_engine("cpu")


def apply(pixels: Array, operation: Operation, mode: str = "edge", value: float = 0.0) -> Array:
    """*operation* by cudafilter's CPU engine; *value* is the border's, in the samples' units."""
    share = value / full_scale(pixels.dtype) if mode == "constant" else 0.0
    border = cudafilter.Border(mode, share)
    return cudafilter.apply(np.ascontiguousarray(pixels), operation, border=border,
                            engine=_engine())  # fmt: skip


def terms(operation: Operation, pixels: Array, value: float = 0.0) -> float:
    """How large what *operation* sums may be; *value* is the border's."""
    finite = np.isfinite(pixels)
    largest = max(float(np.max(np.abs(pixels), where=finite, initial=0)), abs(value))
    if isinstance(operation, Correlation):
        weights = max(float(np.abs(kernel.weights).sum()) for kernel in operation.kernels)
        return largest * (abs(operation.gain) * weights + abs(operation.source_gain))
    return largest


def difference(got: Array, expected: Array, exact: Array, terms: float) -> str:
    """The class of the difference of *got* from *expected*, of one type.

    *exact* is the peer's result in float64, and *terms* how large what it sums may be.
    """
    if np.array_equal(got, expected, equal_nan=got.dtype.kind == "f"):
        return "same"
    off = 2.0**-20 * terms
    if got.dtype.kind in "iu":
        limits = np.iinfo(got.dtype)
        inside = np.clip(exact, limits.min, limits.max)
        step = 0.5 if got.dtype in (np.uint8, np.uint16) else 1.0
        if not (np.abs(got - inside) <= step + off).all():
            return "fault"
        return "clamped" if (inside != exact).any() else "rounding"
    close = np.isclose(got, exact, rtol=2.0**-20, atol=off, equal_nan=True)
    return "float32" if close.all() else "fault"
