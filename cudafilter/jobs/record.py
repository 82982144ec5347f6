"""What became of an image, for people and for reports."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cudafilter.check import Agreement

DONE, SKIPPED, FAILED = "done", "skipped", "failed"
LEFT = "left alone"
"""Status of what was met in a folder and is no image to be filtered; its note says why."""


@dataclass(slots=True)
class Record:
    """What became of one image. Sizes are in pixels and bytes, times in seconds.

    What is None is not known, as the size of an image that could not be decoded.
    """

    source: str
    """The image's file."""
    destination: str
    """Where its result goes; empty for what was met in a folder and has none."""
    status: str = FAILED
    """``done``, ``skipped``, ``failed`` or ``left alone``."""
    width: int | None = None
    """Of the first frame."""
    height: int | None = None
    channels: int | None = None
    colour: str | None = None
    """What the channels are: gray, gray+alpha, RGB, RGBA or CMYK."""
    dtype: str | None = None
    """The type of its samples: uint8, uint16 or float32."""
    bytes_in: int | None = None
    """Size of the source's file."""
    bytes_out: int | None = None
    """Size of the file that was written."""
    engine: str | None = None
    """The engine that did it, with the GPU or the number of threads."""
    frames: int = 1
    """How many of its frames or pages were taken. Its size is that of the first."""
    started: float = field(default_factory=time.time)
    """When its work began, in seconds since 1970."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of each stage begun: read, decode, run (with the wait for the engine), check, encode,
    write. A file that the engine decodes and encodes itself has no decode and encode. Of several
    frames encode writes."""
    elapsed: float | None = None
    """Seconds from its beginning to its end, where it is done by rows or frames: its stages overlap
    then."""
    engine_seconds: dict[str, float] = field(default_factory=dict)
    """Of the stages of run, where the engine tells them: upload, kernel, download. Of a JPEG that
    it codes itself decode, kernel, encode; of a PNG inflate, unfilter, kernel, deflate."""
    agreement: Agreement | None = None
    """How the result compares with the reference, where it was checked."""
    notes: tuple[str, ...] = ()
    """What the reader should know, such as metadata that the output's format cannot hold."""
    skipped: str | None = None
    """Why it was skipped."""
    error: str | None = None
    """Why it failed."""
    hint: str | None = None
    """What mends that."""
    traceback: str | None = None
    """That of an error, as text. The exception itself would keep the image's pixels in memory."""

    def add_notes(self, notes: Iterable[str]) -> None:
        """Add those of *notes* that it does not have."""
        self.notes += tuple(note for note in notes if note not in self.notes)

    def took(self, seconds: Mapping[str, float], notes: Iterable[str]) -> None:
        """Add the *seconds* and *notes* of an engine."""
        for stage, spent in seconds.items():
            self.engine_seconds[stage] = self.engine_seconds.get(stage, 0.0) + spent
        self.add_notes(notes)

    def as_json(self) -> dict[str, Any]:
        """The record as plain data for a report, without the traceback and the start. The report
        tells the start in words."""
        told = (name for name in self.__slots__ if name not in ("traceback", "started"))
        data = {name: getattr(self, name) for name in told}
        for times in ("seconds", "engine_seconds"):
            data[times] = {stage: round(spent, 6) for stage, spent in data[times].items()}
        data["agreement"] = self.agreement.figures() if self.agreement else None
        return data
