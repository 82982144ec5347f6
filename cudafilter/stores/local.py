"""Files of this machine, written whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from threading import Lock
from typing import NamedTuple

from cudafilter.errors import ImageError
from cudafilter.stores import attributes, leftovers
from cudafilter.stores.buffers import Buffer
from cudafilter.stores.reading import open as open
from cudafilter.stores.reading import read as read
from cudafilter.stores.store import Content, Identity

_MOST_LINKS = 40
"""The system follows no more."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2

_folders: dict[str, int] = {}
"""Permissions of new files, by the folders that were written to."""
_entering = Lock()


class Target(NamedTuple):
    """Where an output goes."""

    path: Path
    """As it was named."""
    file: Path
    """The file itself: links are followed."""
    status: os.stat_result | None
    """Of the file that is there."""
    stream: int | Path | None = None
    """A pipe or device, which holds nothing that could be lost: its descriptor or its name."""


def find(folder: str) -> list[os.DirEntry[str]]:
    """What is in *folder*, by name. Raises OSError."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def exists(path: Path) -> bool:
    """See Store.exists."""
    return os.path.lexists(path)


def size(path: Path) -> int | None:
    """See Store.size."""
    found = stat(path)
    return found.size if found else None


def tidy(path: Path) -> None:
    """See Store.tidy."""
    enter(os.path.dirname(path))


def stat(path: str | Path) -> Identity | None:
    """See Store.stat."""
    try:
        return _identity(os.stat(path))
    except (OSError, ValueError):
        return None


def _identity(status: os.stat_result) -> Identity:
    return Identity(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
        status.st_nlink,
    )  # fmt: skip


def descriptor(path: Path) -> int | None:
    """The descriptor of this process that *path* stands for, such as /dev/stdout; None if none."""
    own = f"/proc/{os.getpid()}/fd"
    for _ in range(_MOST_LINKS):
        if path.name.isdigit() and os.path.realpath(path.parent) == own:
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / os.readlink(path)
    return None


def is_stream(path: Path) -> bool:
    """Whether *path* is there and holds nothing to be kept: a pipe, a device, a descriptor."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    if S_ISREG(mode):
        return descriptor(path) is not None
    return not S_ISDIR(mode)


def enter(folder: str) -> int:
    """The permissions of new files in *folder*, which is rid of what killed runs left there.

    Once for each folder. Raises FileNotFoundError where there is none.
    """
    with _entering:
        if folder in _folders:
            return _folders[folder]
        mode = _folders[folder] = attributes.new_mode(folder or os.curdir)
    leftovers.sweep(folder or os.curdir)
    return mode


def resolve(path: Path) -> Target:
    """What is at *path*. Raises ImageError where nothing can be written there."""
    with _naming(path):
        status = _status(path)
        file = path
        if status is not None and S_ISLNK(status.st_mode):
            if (number := descriptor(path)) is not None:
                return Target(path, path, None, number)
            file = Path(os.path.realpath(path))
            status = _status(file)
            if status is None or S_ISLNK(status.st_mode):
                try:
                    # The system's own links may lead to what has no name.
                    file, status = path, os.stat(path)
                except FileNotFoundError:
                    return Target(path, Path(os.path.realpath(path)), None)
        if status is None:
            return Target(path, file, None)
        if S_ISDIR(status.st_mode):
            raise ImageError(f"{path}: cannot be written: it is a folder")
        if not os.access(file, os.W_OK):
            raise ImageError(f"{path}: cannot be written: it is write-protected")
        if not S_ISREG(status.st_mode):
            return Target(path, file, None, file)
        return Target(path, file, status)


def write_whole(
    target: Target,
    content: Content,
    *,
    read: Identity | None = None,
    on_complete: Callable[[Identity], None] = lambda _: None,
    new: bool = False,
) -> tuple[str, ...]:
    """Write *content* to *target* whole or not at all: a temporary file beside it, then a rename.

    Its folder is made where there is none. A new file gets the umask's permissions, and one that
    is replaced leaves its own to the new one, with its owner, access list and attributes. Nobody
    else may read it before it is complete. Returns notes that name what could not be kept. A pipe
    or device gets all bytes.

    *read* is for a change in place: the identity of the file when it was read. Unless it is still
    the same, it stays. The new one is then on the disk, and *on_complete* has its identity, before
    it takes the old one's place. *new* is for stores, and says nothing here.

    Raises ImageError with the reason; the temporary is removed and an existing file untouched then,
    and on an interruption too.
    """
    with _naming(target.path):
        if target.stream is not None:
            _write_stream(target.stream, content)
            return ()
        try:
            return _replace(target, content, read, on_complete)
        except FileNotFoundError:
            if read is not None:
                raise _changed(target) from None
            target.path.parent.mkdir(parents=True, exist_ok=True)
            return _replace(target, content, read, on_complete)


def write_atomically(path: Path, data: Buffer) -> None:
    """Write *data* to *path* as write_whole() does, telling nothing."""
    write_whole(resolve(path), data)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn the system's errors into ImageErrors that begin with *path*."""
    try:
        yield
    except BrokenPipeError as error:
        raise ImageError(f"{path}: cannot be written: its reader has gone") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path}: cannot be written: {reason}") from error


def _status(path: Path) -> os.stat_result | None:
    """The state of *path* itself; None where there is nothing."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


class _Temporary:
    """A Sink: a file that is not complete yet."""

    can_patch = True

    def __init__(self, file: int) -> None:
        self._file = file

    def write(self, piece: Buffer) -> None:
        _write_all(self._file, piece)

    def patch(self, at: int, piece: bytes) -> None:
        os.pwrite(self._file, piece, at)


class _Sent:
    """A Sink: a pipe or device."""

    can_patch = False

    def __init__(self, file: int) -> None:
        self._file = file

    def write(self, piece: Buffer) -> None:
        _write_all(self._file, piece)

    def patch(self, at: int, piece: bytes) -> None:
        raise AssertionError(f"byte {at} was sent")


def _write_stream(stream: int | Path, content: Content) -> None:
    if isinstance(stream, int):
        _send(stream, content)
        return
    file = os.open(stream, os.O_WRONLY | getattr(os, "O_BINARY", 0))
    try:
        _send(file, content)
    finally:
        os.close(file)


def _send(file: int, content: Content) -> None:
    if callable(content):
        content(_Sent(file))
    else:
        _write_all(file, content)


def _write_all(file: int, data: Buffer) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _replace(
    target: Target,
    content: Content,
    read: Identity | None,
    on_complete: Callable[[Identity], None],
) -> tuple[str, ...]:
    # With few calls of the system: each gives the interpreter's lock away, see reading.read.
    if read is not None and not (
        target.status is not None and read.unchanged(_identity(target.status))
    ):
        raise _changed(target)
    folder, _ = os.path.split(target.file)
    mode = enter(folder)
    temporary = os.path.join(folder, leftovers.temporary_name())
    notes: tuple[str, ...] = ()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        file = os.open(temporary, flags, 0o600)
        try:
            if callable(content):
                content(_Temporary(file))
            else:
                _write_all(file, content)
            if target.status is None:
                os.fchmod(file, mode)
            else:
                notes = attributes.carry_over(target.status, target.file, file)
            if read is not None:
                # The old picture cannot be made again: were the rename on the disk before the
                # content, a power cut would leave neither.
                os.fsync(file)
                complete = _identity(os.fstat(file))
        finally:
            os.close(file)
        if read is None:
            os.replace(temporary, target.file)
            return notes
        on_complete(complete)
        if not read.unchanged(_identity(os.lstat(target.file))):
            raise _changed(target)
        if not _exchange(temporary, target.file):
            os.replace(temporary, target.file)
            return notes
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _settle(target, temporary, read, complete)
    return notes


def _settle(target: Target, temporary: str, read: Identity, own: Identity) -> None:
    """Remove what the exchange has put to *temporary*, if it is what was *read*; else undo it.

    So a picture that another program saved after the last look is not lost.
    """
    if read.is_renamed(_identity(os.lstat(temporary))):
        os.unlink(temporary)
        return
    _exchange(temporary, target.file)
    if not own.is_renamed(_identity(os.lstat(temporary))):  # saved once more: the newest stays
        _exchange(temporary, target.file)
    os.unlink(temporary)
    raise _changed(target)


def _changed(target: Target) -> ImageError:
    return ImageError(
        f"{target.path}: another program changed it meanwhile, so it is left as it is now",
        hint="run again to filter what is there now",
    )


def _exchange(one: str, other: Path) -> bool:
    """Let two files swap their names at once; False where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code))
