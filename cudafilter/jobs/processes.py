"""Worker processes on this machine: a Hand in each, and pipes that carry the calls.

This is the side of the process that starts them; serving.py is theirs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from cudafilter.errors import EngineError
from cudafilter.jobs.hand import Task
from cudafilter.jobs.job import Job
from cudafilter.jobs.serving import Early
from cudafilter.jobs.workers import Call, Lost, Place
from cudafilter.start.begun import QUEUES, begun

_SERVE = "from cudafilter.jobs.serving import serve; serve()"

_GONE = 5.0
"""Seconds in which a process that was killed is gone. A GPU's takes 0.2."""


class _Asked(NamedTuple):
    """A call that was sent; what a Call refers to."""

    process: Process
    number: int


@dataclass(eq=False)
class Process:
    """A process, as this one sees it: a Worker."""

    place: Place
    popen: subprocess.Popen[bytes]
    requests: Connection
    answers: Connection
    told: dict[int, tuple[bool, Any]] = field(default_factory=dict)
    """Answers that came, by the numbers of their calls: whether it went well, and what."""
    lost: bool = False
    _sent: int = 0

    @classmethod
    def begun(cls, place: Place, early: Early) -> Process:
        """A new process at *place*, which begins with *early*."""
        path = os.pathsep.join(each for each in sys.path if each)
        environment = {**os.environ, "PYTHONPATH": path}
        if begun.few_queues:
            environment.pop(QUEUES, None)
        popen = subprocess.Popen(
            [sys.executable, "-P", "-c", _SERVE],  # -P: nothing of the current folder is imported
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # a Ctrl-C is for this process only
        )
        assert popen.stdin is not None
        assert popen.stdout is not None
        requests = Connection(os.dup(popen.stdin.fileno()), readable=False)
        answers = Connection(os.dup(popen.stdout.fileno()), writable=False)
        popen.stdin.close()
        popen.stdout.close()
        process = cls(place, popen, requests, answers)
        process.send(early)
        return process

    def send(self, message: object) -> None:
        """Send *message*. That the process has ended shows when its answer is read."""
        with suppress(OSError):
            self.requests.send(message)

    def begin(self, task: Task) -> None:
        """Give it the *task*."""
        self.send((task, self.place.cores or None, self.place.beside))

    def open(self) -> Call:
        """See Hand.open."""
        return self._call("open")

    def step(self, jobs: list[Job]) -> Call:
        """See Hand.step."""
        return self._call("step", jobs)

    def stop(self) -> Call:
        """See Hand.stop."""
        return self._call("stop")

    def end(self) -> None:
        """End it at once."""
        self.lost = True
        self.popen.kill()
        with suppress(OSError):
            self.requests.close()

    def gone(self) -> None:
        """Wait until it is gone, after end()."""
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(_GONE)
        self.answers.close()

    def _call(self, method: str, *given: object) -> Call:
        self._sent += 1
        self.send((self._sent, method, given))
        return Call(_Asked(self, self._sent))

    def receive(self) -> None:
        """Take the next answer."""
        try:
            number, well, what = self.answers.recv()
        except (OSError, EOFError):
            self.end()  # what it wrote is swept once it is gone
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(_GONE)
        else:
            self.told[number] = well, what


class Processes:
    """Processes at some *places* of this machine, begun at once: a Carrier.

    Raises EngineError where the system starts no more processes.
    """

    def __init__(self, places: Sequence[Place], early: Early) -> None:
        self._early = early
        self.places = places
        self._ready: dict[Place, Process] = {}
        self._all: list[Process] = []
        try:
            for place in places:
                self._ready[place] = self._begun(place)
        except BaseException:
            self.leave()
            raise

    def _begun(self, place: Place) -> Process:
        try:
            process = Process.begun(place, self._early._replace(gpu=place.device))
        except OSError as error:
            raise EngineError(f"no process can be started: {error.strerror}") from error
        self._all.append(process)
        return process

    def start(self, place: Place, task: Task) -> Process:
        """See Carrier.start. Each has its share of the images in work."""
        process = self._ready.pop(place, None) or self._begun(place)
        threads = task.threads
        if threads is not None:
            more = place.number < threads % place.beside
            threads = max(1, threads // place.beside + more)
        process.begin(task._replace(gpu=place.device, threads=threads))
        return process

    def wait(self, calls: Sequence[Call], seconds: float) -> list[Call]:
        """See Carrier.wait."""
        if not (done := self._done(calls)):
            asked = {each.process.answers: each.process for each in _asked(calls)}
            for ready in connection.wait(list(asked), seconds):
                asked[ready].receive()  # type: ignore[index]
            done = self._done(calls)
        return done

    def _done(self, calls: Sequence[Call]) -> list[Call]:
        return [
            call
            for call, asked in zip(calls, _asked(calls), strict=True)
            if asked.process.lost or asked.number in asked.process.told
        ]

    def result(self, call: Call) -> Any:
        """See Carrier.result."""
        process, number = call.reference
        if number not in process.told:
            raise Lost("its process has ended")
        well, what = process.told.pop(number)
        if not well:
            raise Lost(what)
        return what

    def leave(self) -> None:
        """End all processes."""
        for process in self._all:
            process.end()
        for process in self._all:
            process.gone()


def _asked(calls: Sequence[Call]) -> list[_Asked]:
    return [call.reference for call in calls]
