"""What a worker process does: it is told what to begin with, then its task, then calls.

It imports little before its GPU starts. It ends with the process that started it, however that
ends.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, NamedTuple

from cudafilter.start.garbage import uncollected

if TYPE_CHECKING:
    from cudafilter.jobs.hand import Hand

_STOP = 10.0
"""Seconds in which the images being written are finished."""


class Early(NamedTuple):
    """What a process may begin with before it has a task."""

    engine: str
    gpu: int | None
    jpeg: bool
    """Whether nvJPEG will be needed."""
    units: bool = False
    """Whether the GPU's JPEG units will be, too."""


def serve() -> None:
    """Be a process: Early comes on stdin, then a task with its place, then calls; each answer goes
    to stdout. It ends where stdin does."""
    requests = Connection(os.dup(0), writable=False)
    answers = Connection(os.dup(1), readable=False)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)  # what else is printed is for people
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)  # who asks this asks the other process, too
    hand: Hand | None = None
    try:
        _prepare(requests.recv())
        from cudafilter.jobs.hand import Hand

        hand = Hand(*requests.recv())
        sending = threading.Lock()
        while True:
            number, method, given = requests.recv()
            work = getattr(hand, method)
            # stop() comes while step() waits
            threading.Thread(
                target=_answer, args=(answers, sending, number, work, given), daemon=True
            ).start()
    except (EOFError, OSError):  # the other process has ended, or wants no more
        pass
    finally:
        threading.Timer(_STOP, os._exit, (1,)).start()
        if hand is not None:
            hand.stop()  # images being written are finished
        os._exit(0)


def _prepare(early: Early) -> None:
    """Import and start what is sure to be needed, while the other process makes its plan."""
    from cudafilter.engines.open import preload
    from cudafilter.start import gpus

    with uncollected():
        if early.engine == "cuda":
            gpus.start((early.gpu or 0,), jpeg=early.jpeg, units=early.units)
        preload(early.engine)


def _answer(
    answers: Connection,
    sending: threading.Lock,
    number: int,
    work: Callable[..., object],
    given: tuple[object, ...],
) -> None:
    try:
        told = number, True, work(*given)
    except BaseException as error:  # noqa: BLE001 - the other process counts it as a loss
        told = number, False, f"{type(error).__name__}: {error}"
    with sending, suppress(OSError):
        answers.send(told)
