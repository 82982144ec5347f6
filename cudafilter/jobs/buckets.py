"""A store as the destination of a plan: what stands in the way, asked by few requests."""

from __future__ import annotations

from cudafilter.errors import ImageError, ParameterError
from cudafilter.formats.table import is_image_name
from cudafilter.jobs.objects import reached
from cudafilter.stores import remote
from cudafilter.stores.url import WEB, Url

FOLDERS = 64
"""Most folders whose names are kept: a tree goes on in the folders above the last one."""


def destination(text: str) -> Url:
    """The URL *text* as DEST. Raises ParameterError ("dest") where nothing can be written there."""
    url = reached("dest", text)
    if url.scheme in WEB:
        raise ParameterError(
            "dest",
            f"{url}: nothing is written to a web server",
            hint="give a folder, or a store: s3://, gs:// or az://",
        )
    return url


def is_folder(text: str, url: Url) -> bool:
    """Whether several images may go to *url*, which is written *text*. Raises as require() does."""
    if text.endswith("/") or not url.key:
        return True
    return not is_image_name(url.name) and require(url)


def require(url: Url) -> bool:
    """Whether there is anything in the folder *url*, by one request.

    Raises ParameterError ("dest") where its bucket is not there. A store that lists nothing may
    still take what is put there.
    """
    try:
        return remote.is_folder(url)
    except remote.Missing as error:
        raise ParameterError("dest", str(error), hint=error.hint) from None
    except ImageError:
        return False


def require_name(url: Url, text: str) -> None:
    """Raise ParameterError ("dest") where *url*, written *text*, is no name of a folder."""
    if is_image_name(url.name) and not text.endswith("/"):
        raise ParameterError(
            "dest",
            f"{url} is the name of an image, and several need a folder to go to",
            hint="end it with '/' if a folder of that name is what you want",
        )


class Listed:
    """What is in folders of stores, each listed once where images come in the order of names."""

    def __init__(self) -> None:
        self._folders: dict[Url, set[str]] = {}

    def has(self, url: Url) -> bool:
        """Whether there is an object *url*. Raises ParameterError where the store does not tell."""
        folder = url.parent
        names = self._folders.pop(folder, None)
        if names is None:
            while len(self._folders) >= FOLDERS:
                del self._folders[next(iter(self._folders))]
            try:
                pages = remote.walk(folder, deep=False)
                names = {each.name for page in pages for each in page}
            except remote.Missing as error:
                raise ParameterError("dest", str(error), hint=error.hint) from None
            except ImageError as error:
                raise ParameterError(
                    "existing",
                    f"what exists cannot be told: {error}",
                    hint=error.hint or "--existing overwrite asks for nothing",
                ) from None
        self._folders[folder] = names  # the one that was asked for last stands last
        return url.name in names
