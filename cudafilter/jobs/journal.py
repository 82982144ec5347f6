"""Changes in place are written down, so that the next run finishes one that was killed.

Before a new picture takes an old one's place, a line names it: its path, inode, size and time, of
which a rename keeps the last three. A file that is as a line says has been filtered. A line is on
the disk before its picture is; one whose picture never came matches no file and does no harm.

The journals lie in the user's state folder. Among the pictures they would be backed up,
synchronised and watched, and a job of many folders would need one in each. Each run has one of its
own and keeps it locked while it lives, so they also show which runs are at work.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Self

from cudafilter.errors import CudafilterError, ImageError
from cudafilter.operations.borders import Border
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.operation import Operation
from cudafilter.stores import local
from cudafilter.stores.store import Identity

Line = tuple[str, int, int, int]
"""Path, inode, size in bytes, time of the last change in ns."""


def job_of(filter: Operation, border: Border, *options: object) -> str:
    """A name that jobs share only if they make the same pixels. *options* count too.

    The name depends on the weights themselves, so an update that keeps these keeps the job.
    """
    told = sha256()
    for part in _parts((filter, border, options)):
        told.update(part)
    return told.hexdigest()[:16]


def _parts(value: object) -> Iterator[bytes]:
    """A text that is equal only for equal *value*, an operation or a part of one."""
    if isinstance(value, Kernel):
        for weights in value.factors or (value.weights,):
            yield repr((value.anchor, weights.shape)).encode()
            yield weights.tobytes()
    elif isinstance(value, tuple):
        yield b"("
        for each in value:
            yield from _parts(each)
        yield b")"
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__.encode()
        yield from _parts(tuple(getattr(value, field.name) for field in fields(value)))
    else:
        yield repr(value).encode() + b","


class _Found(NamedTuple):
    """A journal of another run."""

    path: Path
    alive: bool
    title: str
    process: int
    pictures: set[str]
    unfinished: list[set[str]]
    """The pictures of runs before it that did not finish."""
    lines: list[Line]


class Journal:
    """What this job has done in place, in this run and in unfinished ones before it.

    Opening it takes over what those runs have written. Raises CudafilterError where another run
    changes one of the same pictures.
    """

    def __init__(self, folder: Path, job: str, title: str, pictures: Iterable[Path]) -> None:
        self.notes: list[str] = []
        """What the user should know before it begins."""
        self._adding = Lock()
        self._folder, self._title = folder, title
        self._file: int | None = None
        self._pictures = {_real(path) for path in pictures}
        self._unfinished: list[set[str]] = []
        """The pictures of earlier runs, where this one does not do them all."""
        self._lines: list[Line] = []
        self._moved: set[Line] = set()
        """Lines that held for a file of another name."""
        self._path = folder / f"{job}-{os.getpid():x}-{time.time_ns():x}.jsonl"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._alone():
                self._begin(job)
        except OSError as error:
            self.notes.append(
                f"no journal can be kept in {folder} ({error.strerror or error}): if this run is"
                " killed, a second one filters again what it has done"
            )
            self._file = None
        self._done = {key: line for line in self._lines for key in _keys(*line)}

    def has_done(self, path: Path, now: Identity) -> bool:
        """Whether an earlier run of this job wrote the file *path* as it is *now*."""
        if not self._done:
            return False
        real = _real(path)
        for key in _keys(real, now.inode, now.size, now.modified):
            if (line := self._done.get(key)) is not None:
                if line[0] != real:
                    self._moved.add(line)
                return True
        return False

    def add(self, path: Path, complete: Identity) -> None:
        """The file *complete* is about to take the place of *path*.

        Raises ImageError where that cannot be written down.
        """
        if self._file is None:
            return
        line = (_real(path), complete.inode, complete.size, complete.modified)
        # The line break before it: where a full disk cut a line short, the next one is whole.
        data = f"\n{json.dumps(line)}".encode()
        try:
            with self._adding:
                if os.write(self._file, data) != len(data):
                    raise OSError(None, "the disk is full")
                self._lines.append(line)
            os.fdatasync(self._file)
        except OSError as error:
            raise ImageError(
                f"the journal {self._path} cannot be written: {error.strerror}"
            ) from error

    def close(self, finished: bool) -> str | None:
        """End it; where the job is *finished*, forget what it has done.

        Else returns what the user should know: what is done is kept for the next run.
        """
        if self._file is None:
            return None
        kept = None
        with suppress(OSError), self._alone():
            if finished:
                self._unfinished = [rest for rest in self._unfinished if self._is_left(rest)]
                self._lines = [line for line in self._lines if self._is_wanted(line)]
                if self._lines:
                    self._write({"title": self._title})
                    kept = f"an unfinished run of more pictures is still noted in {self._path}"
            elif self._lines:
                kept = (
                    f"what is done is noted in {self._path}: the same command does the rest only."
                    " To filter everything again, remove that file"
                )
            if not self._lines:
                self._path.unlink(missing_ok=True)
            os.close(self._file)
        self._file = None
        return kept

    def _is_wanted(self, line: Line) -> bool:
        """Whether a later run may need *line*, so as not to filter its picture again."""
        return line not in self._moved and any(line[0] in rest for rest in self._unfinished)

    def _is_left(self, pictures: set[str]) -> bool:
        """Whether a run of *pictures* stays unfinished after this one."""
        return any(
            # A folder that is gone may be on a disk that comes back.
            os.path.lexists(path) or not os.path.exists(os.path.dirname(path))
            for path in pictures - self._pictures
        )

    def _begin(self, job: str) -> None:
        """Take over the journals of killed runs of this job, and tell of others'."""
        for unfinished in self._folder.glob("*.new"):  # of a run that was killed inside _alone()
            unfinished.unlink(missing_ok=True)
        taken = []
        for found in self._others():
            mine = sum(line[0] in self._pictures for line in found.lines)
            if found.alive:
                self._require_apart(found)
            elif found.path.name.startswith(f"{job}-"):
                self._lines += found.lines
                for rest in (found.pictures, *found.unfinished):
                    if not rest <= self._pictures:
                        self._unfinished.append(rest)
                taken.append(found.path)
            elif not found.lines:
                found.path.unlink(missing_ok=True)
            elif mine:
                self.notes.append(
                    f"an unfinished run of '{found.title}' has changed {mine} of these pictures,"
                    f" and this other job changes them again (that run is noted in {found.path})"
                )
        head = {
            "title": self._title,
            "process": os.getpid(),
            "pictures": _grouped(self._pictures),
        }
        locked = self._write(head)
        if locked:
            for path in taken:
                path.unlink(missing_ok=True)
        else:  # those journals may belong to runs at work
            self.notes.append(
                f"files in {self._folder} cannot be locked: two runs at once do not see each other"
            )
        mine = sum(line[0] in self._pictures for line in self._lines)
        if mine:
            self.notes.append(
                f"an unfinished run of this job is finished: the {mine} pictures it has done are"
                f" not filtered again. To filter everything again, remove {self._path}"
            )

    def _write(self, head: dict[str, Any]) -> bool:
        """Write the journal anew: *head* and all lines. Whether it could be locked."""
        new = self._path.with_suffix(".new")
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        locked = _lock(file)
        head["unfinished"] = [_grouped(rest) for rest in self._unfinished]
        data = "\n".join([json.dumps(head), *map(json.dumps, self._lines)]).encode()
        while data:
            data = data[os.write(file, data) :]
        os.fsync(file)
        new.replace(self._path)
        if self._file is not None:
            os.close(self._file)
        self._file = file
        return locked

    def _require_apart(self, found: _Found) -> None:
        """Raise CudafilterError if the run of *found* changes a picture of this one."""
        for path in sorted(found.pictures & self._pictures):
            raise CudafilterError(
                f"{path}: another run changes it in place now (process {found.process});"
                " nothing was done",
                hint="wait until that one has ended",
            )

    def _others(self) -> Iterator[_Found]:
        for path in sorted(self._folder.glob("*.jsonl")):
            if path == self._path:
                continue
            with suppress(OSError):
                file = os.open(path, os.O_RDWR)
                try:
                    alive = not _lock(file, blind=True)
                    head, *lines = _read(path)
                finally:
                    os.close(file)
                told = [tuple(line) for line in lines if isinstance(line, list) and len(line) == 4]
                head = head if isinstance(head, dict) else {}
                yield _Found(
                    path, alive, str(head.get("title")), head.get("process", 0),
                    _apart(head.get("pictures", {})),
                    [_apart(rest) for rest in head.get("unfinished", [])],
                    [] if alive else [line for line in told if _still(*line)],
                )  # fmt: skip

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Inside, no other run reads the journals or changes them."""
        file = os.open(self._folder / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            _lock(file, wait=True)
            yield
        finally:
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(finished=False)


def _keys(path: str, inode: int, size: int, modified: int) -> tuple[tuple[object, int, int], ...]:
    """The keys of a file, since some file systems make up new inodes and folders get new names."""
    return (inode, size, modified), (path, size, modified)


def _still(path: str, inode: int, size: int, modified: int) -> bool:
    """Whether a line may still hold: the file is as it says, or elsewhere now."""
    now = local.stat(Path(path))
    if now is None:
        return True
    there = _keys(path, now.inode, now.size, now.modified)
    return not set(there).isdisjoint(_keys(path, inode, size, modified))


def _real(path: Path) -> str:
    text = os.fspath(path)
    if os.path.islink(text):
        return os.path.realpath(text)
    folder, name = os.path.split(text if path.is_absolute() else os.path.join(os.getcwd(), text))
    return f"{_real_folder(folder)}{name}"


@lru_cache(4096)
def _real_folder(path: str) -> str:
    return os.path.join(os.path.realpath(path), "")


def _grouped(paths: Iterable[str]) -> dict[str, list[str]]:
    """*paths* by their folders."""
    groups: dict[str, list[str]] = {}
    for path in sorted(paths):
        folder, name = os.path.split(path)
        groups.setdefault(folder, []).append(name)
    return groups


def _apart(groups: dict[str, list[str]]) -> set[str]:
    """The paths that _grouped() put together."""
    return {os.path.join(folder, name) for folder, names in groups.items() for name in names}


def _read(path: Path) -> list[Any]:
    """The lines of a journal, the head first, without those that a power cut left incomplete."""
    lines: list[Any] = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        with suppress(ValueError):
            lines.append(json.loads(line))
    return lines or [{}]


def _lock(file: int, *, wait: bool = False, blind: bool = False) -> bool:
    """Lock *file*, if nobody else has it. Where locks do not work, it returns *blind*."""
    try:
        import fcntl
    except ImportError:
        return blind
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return blind
    return True
