"""An engine in a process of its own: what a GPU's failure leaves no other way for.

After a kernel that traps, the driver answers each call of the process with that error, a new
context's too (seen with driver 580 on an H100). Another process gets a new context.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from typing import IO, Any

from cudafilter.engines import Engine, Result, Screening
from cudafilter.engines.codecs import FileResult, JpegPath, NotTaken, PngCodec
from cudafilter.errors import (
    CudafilterError,
    DeviceLost,
    EngineError,
    EngineUnavailable,
    ImageError,
    LimitError,
    in_words,
)
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation, WholeImage
from cudafilter.operations.pixels import Pixels

_KINDS: dict[str, type[CudafilterError]] = {
    kind.__name__: kind
    for kind in (DeviceLost, EngineError, EngineUnavailable, ImageError, LimitError, NotTaken)
}
"""What crosses as the type that it is; all else is an EngineError."""

_SERVE = "from cudafilter.engines.apart import serve; serve()"


class Apart:
    """The engine that *opener*, which can be pickled, opens in another process.

    It does one image at a time. The process ends with this one, however that ends. Raises what
    *opener* raises there, or EngineUnavailable.
    """

    note: str | None = None
    parallel = 1

    def __init__(self, opener: Callable[[], Engine]) -> None:
        self._lock = Lock()
        self._ended: str | None = None
        """Why there is no process any more."""
        path = os.pathsep.join(place for place in sys.path if place)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _SERVE],  # -P: nothing of the current folder is imported
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # a Ctrl-C is for this process only
        )
        try:
            self.name, title, codes = self._call(opener)
        except DeviceLost as lost:
            raise EngineUnavailable(str(lost)) from lost
        except CudafilterError:
            self._end("it did not open")
            raise
        self.title = f"{title}, in a process of its own"
        self.jpeg: JpegPath | None = _ApartJpeg(self) if codes else None
        self.png: PngCodec | None = None  # pixels would cross once more

    def run(
        self,
        pixels: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
        *,
        overwrite: bool = False,
        rows: tuple[int, int] | None = None,
    ) -> Result:
        """See Engine.run. Raises DeviceLost where the process ends."""
        done: Result = self._call(("run", (pixels, filter, border, alpha), {"rows": rows}))
        return done

    def screen(
        self,
        source: Pixels,
        result: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
    ) -> Screening:
        """See Engine.screen. Raises DeviceLost where the process ends."""
        done: Screening = self._call(("screen", (source, result, filter, border, alpha), {}))
        return done

    def filter_jpeg(self, *given: Any, **named: Any) -> FileResult:
        """See JpegPath.filter."""
        done: FileResult = self._call(("jpeg", given, named))
        return done

    def step(
        self, shape: tuple[int, ...], dtype: str, filter: Operation, border: Border, alpha: bool
    ) -> int:
        """See Engine.step: it is a GPU, whose bits depend on no cut; see CudaEngine.step."""
        return shape[0] if isinstance(filter, WholeImage) else 1

    def close(self) -> None:
        """See Engine.close."""
        with self._lock:
            self._end("it was closed")

    def _call(self, request: object) -> Any:
        with self._lock:
            if self._ended is not None:
                raise DeviceLost(f"the GPU's process has ended: {self._ended}", begun=False)
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            try:
                _send(request, self._process.stdin)
                kind, answer, hint = pickle.load(self._process.stdout)
            except (OSError, EOFError, pickle.UnpicklingError) as error:
                self._end("it broke off")
                code = self._process.returncode
                raise DeviceLost(f"the GPU's process ended with code {code}") from error
            if kind == "DeviceLost":
                self._end("the GPU failed")
        if kind == "done":
            return answer
        raise _KINDS.get(kind, EngineError)(answer, hint=hint)

    def _end(self, why: str) -> None:
        """End the process, which may be at work no more."""
        self._ended = self._ended or why
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class _ApartJpeg:
    parallel = 1

    def __init__(self, engine: Apart) -> None:
        self.filter = engine.filter_jpeg
        """See JpegPath.filter."""


def serve() -> None:
    """Be the process: an opener comes on stdin, then requests; each answer goes to stdout."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed is for people
    engine: Engine | None = None

    def answer(request: Any) -> Any:
        nonlocal engine
        if engine is None:
            engine = request()
            return engine.name, engine.title, engine.jpeg is not None
        method, given, named = request
        if method == "run":
            done = engine.run(*given, **named)
            return done._replace(seconds=dict(done.seconds))
        if method == "screen":
            return engine.screen(*given, **named)
        assert engine.jpeg is not None
        coded = engine.jpeg.filter(*given, **named)
        return replace(coded, data=bytes(coded.data))

    with suppress(EOFError, BrokenPipeError):  # the other process has ended
        while True:
            request = pickle.load(requests)
            told: tuple[str, Any, str | None]
            try:
                told = "done", answer(request), None
            except Exception as error:  # noqa: BLE001 - the other process raises it
                told = type(error).__name__, *in_words(error)
            _send(told, answers)
    if engine is not None:
        with suppress(EngineError):
            engine.close()


def _send(message: object, to: IO[bytes]) -> None:
    pickle.dump(message, to, pickle.HIGHEST_PROTOCOL)
    to.flush()
