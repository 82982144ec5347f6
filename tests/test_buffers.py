"""Bytes put together from spans of a file."""

from __future__ import annotations

from itertools import pairwise

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
