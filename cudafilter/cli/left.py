"""Names what a plan leaves alone though somebody may miss it, in few lines."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from cudafilter.jobs.sources import Left
from cudafilter.stores.url import AnyPath

MOST_NAMES = 20
"""Most names in a line. Where there are more, the line counts them by kind. The report has all."""


def left_lines(left: Iterable[Left]) -> Iterator[str]:
    """A line for each reason: the names, or where these are many, counts by kind."""
    by_reason: dict[str, list[AnyPath]] = {}
    for path, why in left:
        by_reason.setdefault(why, []).append(path)
    for why, paths in by_reason.items():
        names = ", ".join(map(str, paths))
        if len(paths) > MOST_NAMES:
            kinds: dict[str, list[AnyPath]] = {}
            for path in paths:
                kinds.setdefault(os.path.splitext(path)[1].lower(), []).append(path)
            most = sorted(kinds.items(), key=lambda kind: -len(kind[1]))[:MOST_NAMES]
            names = ", ".join(
                f"{len(some):,} {kind}".rstrip() + f" (such as {some[0]})" for kind, some in most
            )
            if more := len(paths) - sum(len(some) for _, some in most):
                names += f", and {more:,} of other kinds"
        yield f"left alone, {why}: {names}"
