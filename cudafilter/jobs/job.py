"""One image to do."""

from __future__ import annotations

from typing import NamedTuple

from cudafilter.operations.choices import EXISTING
from cudafilter.stores.url import AnyPath

OVERWRITE, SKIP, ERROR = EXISTING


class Job(NamedTuple):
    """One image to do. A path of None is standard input or standard output."""

    source: AnyPath | None
    destination: AnyPath | None
    format: str | None
    """Output format. None from stream to stream: the input tells it when it is read."""
    skip: bool = False
    """The destination exists, and existing files are to stay."""
    named: bool = True
    """It was asked for by its name, not met in a folder."""
    existing: str = OVERWRITE
    """What becomes of what others put to a store in its place meanwhile: one of EXISTING."""

    @property
    def in_place(self) -> bool:
        """Whether the source is replaced."""
        return self.source is not None and self.source == self.destination
