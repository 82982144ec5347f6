"""A library in a process of its own: if it ends that or its CUDA context, nothing else is lost."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peers import Form, Peer, Peers

from cudafilter.errors import EngineUnavailable

LIMIT = 60.0
"""Seconds in which an answer must be there, its process's start included."""

MISSING = "missing"
"""The title where a library is not here: a new process would not have it either."""


class Work(NamedTuple):
    """What the library is to do, see Peers.measure(): with the arrays in files of NumPy's."""

    name: str
    filter: Any
    pixels: Path
    verified: Path
    repeats: int


class Apart:
    """*library*, whose ways *forms* gives. Its process starts with the first work."""

    def __init__(
        self, library: str, forms: Callable[..., Iterator[Form]], tolerance: Mapping[str, float]
    ) -> None:
        self.library = library
        self.versions: dict[str, str] = {}
        """Of the library and what it stands on, once it has answered."""
        self._ways = library, forms, tolerance
        self._process: Any = None
        self._pipe: Any = None

    def measure(self, work: Work) -> list[Peer]:
        """Its ways of doing *work*, timed; the next work gets a new process where one failed."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, other = context.Pipe()
            self._process = context.Process(target=_serve, args=(other, *self._ways), daemon=True)
            self._process.start()
            other.close()
        try:
            self._pipe.send(work)
            if not self._pipe.poll(LIMIT):
                raise TimeoutError(f"no answer in {LIMIT:g} s")
            found: list[Peer]
            self.versions, found = self._pipe.recv()
        except (EOFError, OSError) as error:
            self.close()
            why = str(error) if isinstance(error, TimeoutError) else "it ended its process"
            return [Peer(self.library, "process", why_not=why)]
        if any(peer.why_not and peer.largest is None for peer in found if peer.title != MISSING):
            self.close()
        return found

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


def _serve(pipe: Connection, library: str, forms: Any, tolerance: Mapping[str, float]) -> None:
    """Answer each Work of *pipe* until that ends."""
    try:
        peers = Peers({library: forms}, tolerance)
        versions, missing = peers.versions, "; ".join(peers.missing)
    except EngineUnavailable as error:
        versions, missing = {}, str(error)
    while True:
        try:
            work: Work = pipe.recv()
        except EOFError:
            return
        found: list[Peer] = []
        if missing:
            found.append(Peer(library, MISSING, why_not=missing))
        else:
            pixels, known = np.load(work.pixels), np.load(work.verified)
            found += peers.measure(work.name, {}, work.filter, pixels, known, work.repeats)
        pipe.send((versions, found))
