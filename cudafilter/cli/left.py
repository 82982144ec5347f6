"""What a plan leaves alone though somebody may miss it: named, in few lines."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from cudafilter.record import LEFT, Record
from cudafilter.sources import UNREAD_KIND, Left

MOST_NAMES = 5
"""Names in a line. The report has all of them."""


def left_lines(left: Iterable[Left]) -> Iterator[str]:
    """A line for each reason, with how many and the first names."""
    by_reason: dict[str, list[Path]] = {}
    for path, why in left:
        by_reason.setdefault(why, []).append(path)
    for why, paths in by_reason.items():
        count = f"{len(paths):,}"
        if why == UNREAD_KIND and len(paths) > MOST_NAMES:
            kinds = Counter(os.path.splitext(path)[1].lower() for path in paths)
            count = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common())
        names = ", ".join(map(click.format_filename, paths[:MOST_NAMES]))
        such = "such as " if len(paths) > MOST_NAMES else ""
        yield f"left alone: {count} ({why}): {such}{names}"


def left_record(left: Left) -> Record:
    """*left* as a record for the report."""
    return Record(str(left.path), "", status=LEFT, notes=(left.why,))
