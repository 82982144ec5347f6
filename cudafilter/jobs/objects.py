"""Which images the URLs among the sources of a job name: objects, folders of them and patterns.

The rules are those of sources.find(). A store has no links, and a folder is what keys begin with.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from typing import NoReturn

from cudafilter.errors import ImageError, ParameterError
from cudafilter.formats.table import is_image_name
from cudafilter.jobs.found import Found, Source, matcher, sort, stars
from cudafilter.stores import remote
from cudafilter.stores.url import AnyPath, Url


def find(
    text: str, found: Found, recursive: bool, into: AnyPath | None, strict: bool = False
) -> None:
    """Add to *found* what the URL *text* names; the arguments are those of sources.find().

    An object with the name of an image is taken as it is, without a request: where it is not there,
    its own job fails. Raises ParameterError ("src") for a folder, a pattern or a bucket that is not
    there. What a store refuses to list is refused, and the rest goes on.
    """
    url = reached("src", text)
    begun = len(found.images)
    try:
        if (named := _named(url, text)) is not None:
            found.images.append(named)
        elif glob.has_magic(url.key):
            _expand(url, found, into, strict)
        else:
            _require_recursive(text, recursive)
            for page in pages(url, into, strict):
                found.add(page)
            found.many = True
    except remote.Missing as error:
        _refuse(error)
    except ImageError as error:
        found.many = True
        found.refuse(url, error)
    sort(found.images, begun)


def reached(parameter: str, text: str) -> Url:
    """The URL *text*, whose store has a client. Raises ParameterError (*parameter*) where it has
    none: the extra is missing, or the environment says too little."""
    url = Url.parsed(parameter, text)
    try:
        remote.connect(url)
    except ImageError as error:
        raise ParameterError(parameter, str(error), hint=error.hint) from None
    return url


def folder(text: str, recursive: bool) -> Url | None:
    """The folder that the URL *text* names; None where it names an object or is a pattern.

    Raises as find() does, and ImageError where the store does not tell.
    """
    url = reached("src", text)
    try:
        if _named(url, text) is not None or glob.has_magic(url.key):
            return None
    except ImageError:
        return None  # find() tells it
    _require_recursive(text, recursive)
    return url


def pages(top: Url, into: AnyPath | None, strict: bool) -> Iterator[Found]:
    """What is below the folder *top*, page by page as the store lists it.

    What cannot be listed is refused by the last page. Raises ParameterError ("src") where there is
    no such bucket, or nothing at all below *top*.
    """
    listed = remote.walk(top, deep=True)
    empty = True
    while True:
        found = Found(many=True)
        try:
            page = next(listed, None)
        except remote.Missing as error:
            _refuse(error)
        except ImageError as error:
            found.refuse(top, error)
            yield found
            return
        if page is None:
            break
        for url in page:
            _take(url, url.key[len(top.prefix) :], found, top, into, strict)
        empty = empty and not page
        yield found
    if empty:
        raise ParameterError("src", f"{top}: no such object or folder")


def _take(url: Url, below: str, found: Found, top: Url, into: AnyPath | None, strict: bool) -> None:
    """Add the object *url* to *found*, unless it is left alone or is in the folder *into*."""
    if isinstance(into, Url) and is_in(into, top) and is_in(url, into):
        return
    hidden = below.startswith(".") or "/." in below
    if found.wants(url, ".hidden" if hidden else url.name, strict):
        found.images.append(Source(url, below, False, False))


def is_in(url: Url, folder: Url) -> bool:
    """Whether *url* is in *folder*, at any depth."""
    return url.root == folder.root and url.key.startswith(folder.prefix)


def _named(url: Url, text: str) -> Source | None:
    """The object that *url* is by name; None where it is a folder or a pattern."""
    if not url.key or text.endswith("/"):
        return None
    image = is_image_name(url.name)
    if (image and not glob.has_magic(url.key)) or remote.exists(url):
        return Source(url, url.name, True, False)
    return None


def _require_recursive(text: str, recursive: bool) -> None:
    if not recursive:
        raise ParameterError("src", f"{text} is a folder: add -r to take the images in it")


def _expand(pattern: Url, found: Found, into: AnyPath | None, strict: bool) -> None:
    """Add what *pattern* matches. Raises ParameterError where that is nothing."""
    parts = pattern.key.split("/")
    first = next(n for n, part in enumerate(parts) if glob.has_magic(part))
    top, rest = Url(pattern.root, "/".join(parts[:first])), parts[first:]
    if rest[-1] == "**":
        rest = [*rest, "*"]
    matched = False
    found.many = True
    for page in remote.walk(top, deep=len(rest) > 1):
        for url in page:
            below = url.key[len(top.prefix) :]
            if _fits(below.split("/"), rest):
                matched = True
                _take(url, below, found, top, into, strict)
    if not matched:
        what = f"{pattern}: no such object, and as a pattern it matches none"
        raise ParameterError("src", what, hint=stars(parts))


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the *names* of folders and an object are what *parts* of a pattern match.

    ``**`` stands for any folders in each other. Hidden folders match nothing.
    """
    if not names or not parts:
        return not names and not parts
    hidden = len(names) > 1 and names[0].startswith(".")
    if parts[0] == "**":
        return _fits(names, parts[1:]) or (not hidden and _fits(names[1:], parts))
    return not hidden and bool(matcher(parts[0])(names[0])) and _fits(names[1:], parts[1:])


def _refuse(error: ImageError) -> NoReturn:
    raise ParameterError("src", str(error), hint=error.hint) from None
