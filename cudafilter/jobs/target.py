"""The format of an output, by what was asked for or by its name."""

from __future__ import annotations

from typing import NamedTuple

from cudafilter.errors import ImageError, ParameterError, require_text
from cudafilter.formats.table import FORMATS, format_of, written
from cudafilter.formats.unread import kind_of
from cudafilter.stores.url import AnyPath


class Target(NamedTuple):
    """The format asked for."""

    format: str
    suffix: str


def target_of(name: str) -> Target:
    """The format called *name* or whose extension that is."""
    require_text("format", name)
    wanted = name.lower().removeprefix(".")
    for format in written():
        extensions = FORMATS[format].extensions
        if wanted == format:
            return Target(format, extensions[0])
        if f".{wanted}" in extensions:
            return Target(format, f".{wanted}")
    raise ParameterError("format", f"must be one of {_written()}, not {name!r}")


def _written() -> str:
    return ", ".join(written())


def writable(path: AnyPath) -> str:
    """The format that the extension of output *path* names. Raises ParameterError ("dest")."""
    try:
        format = format_of(path)
    except ImageError as error:
        if (kind := kind_of(path)) is not None:
            raise ParameterError(
                "dest", f"{path}: {kind.what} is not read or written", hint=kind.advice
            ) from None
        hint = f"give it one, such as .png, or add --format with one of {_written()}"
        raise ParameterError("dest", str(error), hint=hint) from None
    if FORMATS[format].writes is None:
        raise ParameterError(
            "dest", f"{path}: {format} files are not written", hint=f"choose one of {_written()}"
        )
    return format
