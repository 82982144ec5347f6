"""Where results go: DEST is a file or a folder, on this machine or in a store."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from cudafilter.errors import ParameterError
from cudafilter.formats.table import format_of, is_image_name
from cudafilter.jobs.job import Job
from cudafilter.jobs.sources import Source
from cudafilter.jobs.target import Target, writable
from cudafilter.start.words import STDIO
from cudafilter.stores.local import descriptor, is_stream
from cudafilter.stores.url import AnyPath, is_url, require_known


def named(destination: str | None) -> AnyPath | None:
    """The file or folder *destination*; None in place, and for standard output.

    Raises ParameterError ("dest") for a URL of no store that is known.
    """
    if destination is None or destination == STDIO:
        return None
    if not is_url(destination):
        require_known("dest", destination)
        return Path(destination)
    from cudafilter.jobs import buckets  # not before: most runs do without

    return buckets.destination(destination)


def takes_several(destination: str, into: AnyPath) -> bool:
    """Whether images go into *into*, which is written *destination*."""
    if isinstance(into, Path):
        return destination.endswith(os.sep) or into.is_dir()
    from cudafilter.jobs import buckets

    return buckets.is_folder(destination, into)


def to_file(source: AnyPath | None, path: AnyPath, target: Target | None) -> Job:
    if isinstance(path, Path):
        return _to_local_file(source, path, target)
    return Job(source, path, _format_of(path, target))


def _format_of(path: AnyPath, target: Target | None) -> str:
    """The format of the file *path*. Raises ParameterError where its name tells another one."""
    format = target.format if target else writable(path)
    if is_image_name(path) and format_of(path) != format:
        raise ParameterError("format", f"{format} does not go with the name {path}")
    return format


def _to_local_file(source: AnyPath | None, path: Path, target: Target | None) -> Job:
    if is_stream(path) and not is_image_name(path):  # what the shell names /dev/fd/63 says nothing
        if target is not None:
            return Job(source, path, target.format)
        return Job(source, path, None if source is None else writable(source))
    if descriptor(path) is not None and not is_stream(path):
        raise ParameterError("dest", f"{path}: nothing is open under that number")
    format = _format_of(path, target)
    require_place("dest", path)
    return Job(source, path, format)


def into_folder(image: Source, into: AnyPath, target: Target | None) -> Job:
    """The job of *image* into the folder *into*. Raises ParameterError for what is not written."""
    source, path = image.path, into / image.below
    if target is None:
        return Job(source, path, writable(source))
    if not (is_image_name(path) and format_of(path) == target.format):
        path = path.with_suffix(target.suffix)
    return Job(source, path, target.format)


def require_folder(into: AnyPath, destination: str) -> None:
    """Raise ParameterError unless *into* is a folder that can be written to, or made.

    *destination* may be written as a folder's name, with a separator, where it looks like an
    image's.
    """
    if not isinstance(into, Path):
        from cudafilter.jobs import buckets

        buckets.require_name(into, destination)
        buckets.require(into)
        return None
    named = destination.endswith(os.sep)
    for place in (into, *into.parents):
        if place.is_dir():
            return _require_writable("dest", place)
        if os.path.lexists(place):
            need = "not a folder" if named else "and several images need a folder to go to"
            raise ParameterError("dest", f"{place} is a file, {need}")
        if place is into and not named and is_image_name(into):
            raise ParameterError(
                "dest",
                f"{into} is the name of an image, and several need a folder to go to",
                hint=f"end it with '{os.sep}' if a folder of that name is what you want",
            )
    raise AssertionError("the root or the current folder exists")


def require_current_folder(destination: str) -> None:
    """Raise ParameterError where *destination* counts from a current folder that is gone."""
    if destination == STDIO or os.path.isabs(destination):
        return
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ParameterError(
            "dest",
            f"{destination}: the current folder was removed, and nothing can be written there",
            hint="go to another folder, or give DEST from the root",
        ) from None


def require_place(parameter: str, path: Path) -> None:
    """Raise ParameterError (*parameter*) where the file *path* cannot be made."""
    folder = path.parent
    if not folder.is_dir():
        for place in (folder, *folder.parents):
            if os.path.lexists(place) and not place.is_dir():
                raise ParameterError(parameter, f"{path}: {place} is no folder")
        hint = f"make it first: mkdir -p {shlex.quote(str(folder))}"
        what = f"{path}: the folder {folder} does not exist"
        raise ParameterError(parameter, what, hint=hint)
    if not is_stream(path):
        _require_writable(parameter, folder)


def _require_writable(parameter: str, folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ParameterError(parameter, f"{folder}: you may not write there")
