"""Objects in stores, by obstore: read whole or by ranges, put whole or not at all.

The library is imported with the first URL. Its calls block, without the interpreter's lock.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

from cudafilter.errors import CudafilterError, ImageError
from cudafilter.host.cores import free_memory
from cudafilter.stores.buffers import Buffer, Source
from cudafilter.stores.refusals import UNKNOWN, Refusal, refusal
from cudafilter.stores.store import Content, Exists, Identity
from cudafilter.stores.url import Url

ATTEMPTS = 6
"""Most times that a request is tried again, where the store is busy or away."""
PATIENCE = timedelta(seconds=60)
"""From when on it is not tried again."""
TIMEOUT = timedelta(minutes=5)
"""Longest that one request takes, its bytes included."""
BLOCK = 4 << 20
"""Bytes that are fetched at a time of an object that is read by ranges."""
BLOCKS = 8
"""Most blocks of one object in memory."""
LARGE = 1 << 26
"""Bytes of an object from which on its beginning is looked at before the rest is fetched."""
HEAD = 64
"""Bytes that show what an object is."""
PAGE = 1000
"""Objects that a listing tells at a time: as many as S3 answers."""

EXTRA = "pip install 'cudafilter[cloud]'"

_clients: dict[str, Any] = {}
_unknown: dict[str, Refusal] = {}
"""What has no credentials, by its root: to look for them again takes half a minute each time."""
_connecting = Lock()


class Missing(ImageError):
    """There is no such object or bucket."""


class Target(NamedTuple):
    """Where an output goes."""

    path: Url
    stream: None = None


def connect(url: Url) -> Any:
    """The client of the bucket or server of *url*.

    Raises ImageError where the extra is missing, or what the environment says is not enough.
    """
    with _connecting:
        if url.root not in _clients:
            _clients[url.root] = _connected(url)
        return _clients[url.root]


def _connected(url: Url) -> Any:
    try:
        import obstore.store as library
    except ImportError:
        raise ImageError(
            f"{url}: {url.scheme}:// needs the extra 'cloud'", hint=f"install it: {EXTRA}"
        ) from None
    if url.scheme == "memory":
        return library.MemoryStore()
    from cudafilter.stores import access

    options: dict[str, Any] = {"timeout": TIMEOUT}
    config: dict[str, Any] = {}
    if url.scheme == "s3":
        config = access.s3(url)
    if url.scheme == "http" or access.is_plain(config):
        options["allow_http"] = True
    retry = {"max_retries": ATTEMPTS, "retry_timeout": PATIENCE}
    with _naming(url, "cannot be reached"):
        make = partial(library.from_url, client_options=options, retry_config=retry)
        return make(url.root, config=config) if config else make(url.root)


@contextmanager
def _naming(url: Url, failed: str | None = None) -> Iterator[None]:
    """Turn the library's errors into ImageErrors; without *failed* the reader names the object.

    They have no cause: its text may hold credentials, and would be in a traceback.
    """
    if (why := _unknown.get(url.root)) is not None:
        raise _error(url, failed, why)
    try:
        yield
    except (CudafilterError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - its types have no base of their own
        why = refusal(url, error)
        if why.reason == UNKNOWN:
            _unknown[url.root] = why
        raise _error(url, failed, why) from None


def _error(url: Url, failed: str | None, why: Refusal) -> ImageError:
    kind = Missing if why.missing else ImageError
    told = f"{url}: {failed}: {why.reason}" if failed else why.reason
    return kind(told, hint=why.hint)


def _get(url: Url, options: Any = None) -> Any:
    import obstore

    return obstore.get(connect(url), url.key, options=options)


def size(url: Url) -> int | None:
    """See Store.size. What was listed is known without a request."""
    if url.size is not None:
        return url.size
    import obstore

    try:
        with _naming(url):
            return int(obstore.head(connect(url), url.key)["size"])
    except ImageError:
        return None


def exists(url: Url) -> bool:
    """See Store.exists. Raises ImageError where the store does not tell."""
    import obstore

    try:
        with _naming(url, "cannot be looked at"):
            obstore.head(connect(url), url.key)
    except Missing:
        return False
    return True


def stat(url: Url) -> Identity | None:
    """See Store.stat: nothing in a store is changed in place."""
    return None


def tidy(url: Url) -> None:
    """See Store.tidy: a put that was cut off leaves no object."""


def read(url: Url, look: Callable[[bytes], object], most: int) -> bytes:
    """See Store.read."""
    with _naming(url):
        found = _get(url)
        told = int(found.meta["size"])
        if told > most and told > (free_memory() or told):
            raise MemoryError
        if told > LARGE:
            look(bytes(_get(url, {"range": (0, HEAD)}).bytes().to_bytes()))
        data = bytes(found.bytes().to_bytes())
    if len(data) != told:
        raise ImageError("it was cut off on its way")
    return data


class Object:
    """An object that is open: a Source, whose bytes are fetched block by block."""

    def __init__(self, url: Url) -> None:
        import obstore

        with _naming(url):
            told = obstore.head(connect(url), url.key)
        self._url, self._size = url, int(told["size"])
        # A store that tags no content cannot say whether that is still the same.
        self._same = {"if_match": told["e_tag"]} if told.get("e_tag") else {}
        self._blocks: dict[int, bytes] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        if stop <= start:
            return b""
        if stop - start > BLOCK * BLOCKS // 2:
            return self._fetched(start, stop)
        pieces = []
        for number in range(start // BLOCK, (stop - 1) // BLOCK + 1):
            at = number * BLOCK
            pieces.append(self._block(number)[max(0, start - at) : stop - at])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _block(self, number: int) -> bytes:
        with self._lock:
            if number not in self._blocks:
                while len(self._blocks) >= BLOCKS:
                    del self._blocks[next(iter(self._blocks))]
                first = number * BLOCK
                self._blocks[number] = self._fetched(first, min(self._size, first + BLOCK))
            return self._blocks[number]

    def _fetched(self, start: int, stop: int) -> bytes:
        with _naming(self._url):
            data = _get(self._url, {"range": (start, stop), **self._same}).bytes()
        if len(data) != stop - start:
            raise ImageError("it was cut off on its way")
        return bytes(data.to_bytes())


@contextmanager
def open(url: Url) -> Iterator[Source]:
    """See Store.open."""
    yield Object(url)


def resolve(url: Url) -> Target:
    """See Store.resolve."""
    return Target(url)


def write_whole(
    target: Target,
    content: Content,
    *,
    read: Identity | None = None,
    on_complete: Callable[[Identity], None] = lambda _: None,
    new: bool = False,
) -> tuple[str, ...]:
    """See Store.write_whole. What is written bit by bit goes to a nameless file of this machine
    first, since a store takes what it is given in order."""
    assert read is None, "nothing in a store is changed in place"
    if not callable(content):
        return _put(target.path, content, new)
    with tempfile.TemporaryFile(prefix="cudafilter-") as file:
        content(_Spooled(file))
        file.seek(0)
        return _put(target.path, file, new)


class _Spooled:
    """A Sink: a file that is put later."""

    can_patch = True

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, piece: Buffer) -> None:
        self._file.write(piece)

    def patch(self, at: int, piece: bytes) -> None:
        end = self._file.tell()
        self._file.seek(at)
        self._file.write(piece)
        self._file.seek(end)


def _put(url: Url, content: Any, new: bool) -> tuple[str, ...]:
    import obstore

    client = connect(url)
    with _naming(url, "cannot be written"):
        if new:
            try:
                obstore.put(client, url.key, content, mode="create")
                return ()
            except obstore.exceptions.AlreadyExistsError:
                # An answer may be lost, and the put that was done tried again.
                if not isinstance(content, (bytes, memoryview)) or not _holds(url, content):
                    raise _there(url) from None
                return ()
            except (obstore.exceptions.NotSupportedError, NotImplementedError):
                if not isinstance(content, (bytes, memoryview)):
                    content.seek(0)
        obstore.put(client, url.key, content)
    return (LATE,) if new else ()


LATE = (
    "the store cannot refuse to replace: had another program put it meanwhile, that would be lost"
)


def _holds(url: Url, content: Buffer) -> bool:
    """Whether the bytes of *url* are *content*."""
    found = _get(url)
    return bool(found.meta["size"] == len(content) and found.bytes().to_bytes() == bytes(content))


def _there(url: Url) -> Exists:
    return Exists(
        f"{url}: another program put it meanwhile, so it is left as it is now",
        hint="--existing overwrite replaces it",
    )


def walk(top: Url, deep: bool) -> Iterator[list[Url]]:
    """All objects in the folder *top*, or those below it at any depth (*deep*), page by page.

    An object has its size. Raises ImageError, after the pages that came; Missing where there is no
    such bucket, but none for a folder without objects.
    """
    import obstore

    with _naming(top, "cannot be listed"):
        client = connect(top)
        # The prefix counts by whole parts of names, so it needs no slash.
        if not deep:
            yield _urls(top, obstore.list_with_delimiter(client, top.key or None)["objects"])
            return
        pages = iter(obstore.list(client, top.key or None, chunk_size=PAGE))
    while True:
        with _naming(top, "cannot be listed"):
            page = next(pages, None)
        if page is None:
            return
        yield _urls(top, page)


def _urls(top: Url, page: Any) -> list[Url]:
    root = top.root
    return [Url(root, each["path"], each["size"]) for each in page]


def is_folder(url: Url) -> bool:
    """Whether there is any object below *url*. Raises ImageError, Missing without a bucket."""
    return any(walk(url, deep=True))
