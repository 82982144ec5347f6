"""Bytes put together from spans of a file."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from cudafilter.stores.buffers import Source, gathered

FILE = np.random.default_rng(0).bytes(5000)


class Elsewhere:
    """A Source that is not in memory."""

    def __len__(self) -> int:
        return len(FILE)

    def __getitem__(self, part: slice, /) -> bytes:
        return FILE[part]


@pytest.mark.parametrize("source", [FILE, Elsewhere()], ids=["memory", "elsewhere"])
@pytest.mark.parametrize(
    "spans",
    [
        [range(3, 9)],
        [range(7, 7)],
        [range(at, at + 8) for at in range(10, 4000, 20)],  # one run
        [range(4, 20), *(range(at, at + 20) for at in range(32, 500, 32)), range(544, 550)],
        [range(8), range(20, 28), range(60, 68), range(80, 88), range(88, 96)],  # apart or not
        [range(8), range(20, 20), range(32, 32), range(44, 52), range(52, 53)],  # empty ones
        [range(900, 910), range(600, 610), range(300, 310), range(10)],  # backwards
        [range(4990, 5000), range(4980, 4990)],  # up to the end
        [range(a, b) for a, b in pairwise([0, 1, 3, 4, 9, 10, 11, 12, 5000])],
    ],
)
def test_spans_are_put_end_to_end(source: Source, spans: list[range]) -> None:
    assert bytes(gathered(source, spans)) == b"".join(FILE[s.start : s.stop] for s in spans)


def test_chunks_of_one_length_are_copied_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each copy a thread waits for the others."""
    copies: list[tuple[int, ...]] = []
    make = np.ndarray

    def told(shape: tuple[int, ...], *given: Any) -> Any:
        copies.append(shape)
        return make(shape, *given)

    spans = [range(4, 20), *(range(at, at + 20) for at in range(32, 4800, 32)), range(4800, 4808)]
    monkeypatch.setattr(np, "ndarray", told)
    found = gathered(FILE, spans)
    monkeypatch.undo()
    assert len(found) == sum(map(len, spans))
    assert copies == [(1, 16), (149, 20), (1, 8)]
