"""What a run tells: lines and a progress bar on stderr, and a JSON line an image in a report."""

from __future__ import annotations

import math
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from cudafilter import __version__
from cudafilter.cli.options import Shared
from cudafilter.cli.terminal import tell, tell_lines
from cudafilter.cli.within import facts
from cudafilter.errors import CudafilterError, ParameterError
from cudafilter.jobs.plan import Plan
from cudafilter.jobs.record import DONE, FAILED, LEFT, SKIPPED, Record
from cudafilter.jobs.sources import Left
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation
from cudafilter.start.words import STDIO
from cudafilter.stores.url import path_of

if TYPE_CHECKING:
    from cudafilter.cli.progress import Lines


class Reporter:
    """Tells on stderr what happens to the images of plans."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._many = False
        self._each = True
        """Whether every image gets its own lines. Else there are totals only."""
        self._total = self._left_alone = 0
        self._left: list[Left] = []
        self._counts: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()
        self._worst: Record | None = None
        self._checked = self._agreed = self._in_part = 0
        self._samples = self._unproven = 0
        self._check_seconds = 0.0
        self._lost_report = False
        self._importing = 0.0
        """Seconds from the process's start until all was imported."""
        self._started = time.perf_counter()
        self._progress: Lines | None = None

    @property
    def failed(self) -> bool:
        """Whether anything went wrong."""
        return self._counts[FAILED] > 0 or self._lost_report

    def add(self, plan: Plan) -> None:
        """Take in the images of *plan*, which come next."""
        self._many = plan.many
        self._each = self._shared.verbose or self._shared.watch or not plan.many
        self._total += len(plan.jobs) + len(plan.refused)
        self._left_alone += plan.left_alone
        self._left += plan.left
        if self._progress and self._many:
            self._progress.total = self._total

    def imported(self) -> None:
        """Note the time: all is imported, and the engine is about to open."""
        self._importing = _age()
        self._started = time.perf_counter()

    def start(self, title: str, note: str | None, opening: str = "opening") -> None:
        """Say which engine runs, and begin to count the time. *opening* is what that took."""
        self._say(title + (f"; {note}" if note else ""))
        if self._shared.verbose:
            spent = time.perf_counter() - self._started
            self._say(f"  import {self._importing:.3f}, {opening} {spent:.3f} s")
        self._started = time.perf_counter()
        if self._many and not self._shared.quiet and not self._shared.watch:
            from cudafilter.cli.progress import progress

            self._progress = progress(self._total)

    def rows(self, done: int, of: int, size: int) -> None:
        """Tell how far an image is that is done by rows: *done* of all, whose pixels are *size*
        bytes. Among many, the bar tells of images."""
        if self._many or self._shared.quiet or self._shared.watch:
            return
        if self._progress is None:
            from cudafilter.cli.progress import progress

            self._progress = progress(of, "rows", size)
        self._progress.advance(worked=True, by=done - self._progress.done)

    def record(self, record: Record) -> None:
        """Tell of one image."""
        self._counts[record.status] += 1
        if record.status == FAILED:
            hint = f" ({record.hint})" if record.hint else ""
            self._tell(f"error: {_source(record)}: {record.error}{hint}")
            if self._shared.debug and record.traceback:
                self.clear()
                tell_lines(record.traceback)
        if record.status == LEFT:
            self._left_alone += 1
            self._left.append(Left(path_of(record.source), record.notes[0]))
        elif self._each:
            self._tell_each(record)
        else:
            self._notes.update(record.notes)
        self._count_check(record)
        if self._progress and self._many:
            self._progress.advance(worked=record.status != SKIPPED)

    def note(self, text: str) -> None:
        """Tell what concerns no single image."""
        self._say(f"note: {text}")

    def report_lost(self, error: CudafilterError) -> None:
        """Tell that the report cannot be written. The images go on."""
        self._lost_report = True
        self._tell(f"error: {error}; the images go on without it")

    def _tell_each(self, record: Record) -> None:
        names = f"{record.source} -> {record.destination}"
        if record.status == DONE:
            frames = f" {record.frames} frames," if record.frames > 1 else ""
            self._say(
                f"{names} {record.width}x{record.height} {record.colour} {record.dtype},{frames}"
                f" {record.elapsed or sum(record.seconds.values()):.2f} s"
            )
            if self._shared.verbose:
                self._say(
                    f"  {_stages(record)} s; {record.bytes_in:,} -> {record.bytes_out:,} bytes"
                )
        elif record.status == SKIPPED:
            self._say(f"{names} skipped: {record.skipped}")
        for note in record.notes:
            self._say(f"note: {_source(record)}: {note}")
        if record.agreement and record.agreement.ok and record.agreement.proves:
            self._say(f"check: {record.agreement}")

    def _count_check(self, record: Record) -> None:
        if record.agreement is None:
            return
        self._checked += 1
        self._agreed += record.agreement.ok and record.agreement.proves
        self._in_part += record.agreement.verdict == "partly proven"
        self._samples += record.agreement.samples
        self._unproven += record.agreement.unproven
        self._check_seconds += record.agreement.seconds
        if self._worst is None or _badness(record) > _badness(self._worst):
            self._worst = record

    def finish(self, interrupted: bool = False) -> None:
        """Tell the totals."""
        if self._progress:
            self._progress.close()
        for note, count in self._notes.most_common():
            self._say(f"note: {note} ({_images(count)})")
        if self._left:
            from cudafilter.cli.left import left_lines

            for line in left_lines(self._left):
                self._say(line)
        if self._worst is not None and self._many:
            self._say(
                f"check: {self._agreed} of {_images(self._checked)} agree with the reference,"
                f"{self._open} {self._check_seconds:.2f} s"
            )
            from cudafilter.check import AGREES

            figures = str(self._worst.agreement).removeprefix(AGREES)
            self._say(f"  worst {self._worst.source}: {figures}")
        done, failed = self._counts[DONE], self._counts[FAILED]
        if interrupted:
            self._tell(f"interrupted: {done} of {_images(self._total)} done, {failed} failed")
        elif self._many:
            seconds = time.perf_counter() - self._started
            self._say(
                f"{done} done, {self._counts[SKIPPED]} skipped, {failed} failed,"
                f" {self._left_alone} left alone; {seconds:.2f} s,"
                f" {(done + failed) / max(seconds, 1e-9):.3g} images/s"
            )

    @property
    def _open(self) -> str:
        """What the checks leave open, in words."""
        if not self._unproven:
            return ""
        part = f" {self._in_part} of them in part," if self._in_part else ""
        return f"{part} {self._unproven:,} of {self._samples:,} samples cannot be proven,"

    def _say(self, text: str) -> None:
        if not self._shared.quiet:
            self._tell(text)

    def _tell(self, text: str) -> None:
        """Write *text* where the progress bar is; the next image draws that anew."""
        self.clear()
        tell(text)

    def clear(self) -> None:
        """Remove the progress bar, if there is one."""
        if self._progress:
            self._progress.clear()


def tell_refused(plan: Plan) -> None:
    """Tell which images of *plan* were refused, and why."""
    for path, reason in plan.refused:
        tell(f"error: {path}: {reason}")


class JsonLines:
    """A report of one JSON line an image, added to the file *path* as the images end.

    Every line tells of the *job* too, so runs that share a file are told apart. '-' is stdout;
    without a path nothing is written. Raises ParameterError ("report") if it cannot be opened.
    """

    def __init__(self, path: str | None, job: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self._job = {**(job or {}), "job_start": _utc(time.time())}
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self._path == STDIO:
            self._file = sys.stdout.buffer
        elif self._path is not None:
            try:
                # Unbuffered: what a full disk refuses is not tried again at the end.
                self._file = open(self._path, "ab", buffering=0)
                self._end_line()
            except OSError as error:
                raise ParameterError(
                    "report", f"cannot write {self._path}: {error.strerror}"
                ) from None
        return self

    def _end_line(self) -> None:
        """End the line that a run before was cut off in."""
        assert self._file is not None
        assert self._path is not None
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode) or not self._file.tell():
            return
        with suppress(PermissionError), open(self._path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                self._file.write(b"\n")

    def write(self, record: Record) -> None:
        """Write the line of *record* through to the file.

        Raises CudafilterError where that fails, and nothing is written from then on;
        BrokenPipeError where the reader of stdout has gone.
        """
        if self._file is None:
            return
        import json

        times = {"start": _utc(record.started), "end": _utc(time.time())}
        line = json.dumps({**record.as_json(), **self._job, **times}, allow_nan=False)
        # One write a line: an interruption never leaves half of one.
        rest = memoryview(f"{line}\n".encode("ascii"))
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            self._file.flush()
        except OSError as error:
            if isinstance(error, BrokenPipeError) and self._path == STDIO:
                raise
            self._give_up()
            name = "to standard output" if self._path == STDIO else self._path
            raise CudafilterError(f"cannot write the report {name}: {error.strerror}") from error

    def _give_up(self) -> None:
        file, self._file = self._file, None
        if file is not None and self._path != STDIO:
            with suppress(OSError):  # it is being told
                file.close()

    def __exit__(self, *_: object) -> None:
        # Every line was written through, or its error was told.
        self._give_up()


def job_facts(
    filter: Operation, parameters: Mapping[str, Any], border: Border, shared: Shared
) -> dict[str, Any]:
    """What every line of a report tells of the job, as plain data."""
    return {
        "version": __version__,
        "filter": filter.name,
        "parameters": dict(parameters),
        "border": border.mode,
        "border_value": border.value,
        **facts(shared.mask, shared.region, shared.feather, shared.linear, shared.background),
        "gray": shared.gray,
        "shard": None if shared.shard is None else str(shared.shard),
    }


def _utc(seconds: float) -> str:
    """A time in seconds since 1970 as ISO 8601 has it, in UTC, to milliseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds * 1000) % 1000:03}Z"


def _stages(record: Record) -> str:
    """Where the time of an image went, in words. The engine's own stages stand in brackets."""
    words = {stage: f"{stage} {spent:.3f}" for stage, spent in record.seconds.items()}
    if record.engine_seconds:
        parts = ", ".join(f"{part} {spent:.3f}" for part, spent in record.engine_seconds.items())
        words["run"] += f" ({parts})"
    return ", ".join(words.values())


def _age() -> float:
    """Seconds since this process began, to 10 ms; since Python began where the system is not Linux.

    Unlike a clock read when Python runs, it counts the interpreter's own start.
    """
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            began = int(file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - began
    except (OSError, AttributeError):
        return time.process_time()


def _source(record: Record) -> str:
    return "standard input" if record.source == STDIO else record.source


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"


def _badness(record: Record) -> tuple[int, int, float]:
    assert record.agreement is not None
    largest = record.agreement.largest
    unproven = record.agreement.unproven
    return record.agreement.violations, unproven, math.inf if math.isnan(largest) else largest
