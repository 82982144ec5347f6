"""What can go wrong, as types. Every message is written for the person at the terminal."""

from __future__ import annotations

import os


class CudafilterError(Exception):
    """Base of all errors this package raises on purpose.

    ``str(error)`` says what happened; ``hint``, where there is one, what to do about it. A
    traceback shows both.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")


class ParameterError(CudafilterError, ValueError):
    """A filter parameter or an argument makes no sense; ``parameter`` names it."""

    def __init__(self, parameter: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.parameter = parameter
        self.add_note(f"parameter: {parameter}")


class ImageError(CudafilterError):
    """An image cannot be read, or cannot be written without losing something."""


class FramesError(ImageError):
    """An image has several frames, and what is to be written does not hold them."""


class EngineUnavailable(CudafilterError):
    """An engine cannot run here. The message names what is missing; the hint says how to get it."""


class EngineError(CudafilterError):
    """An engine that could be opened failed at its work."""


class DeviceLost(EngineError):
    """A GPU failed so that nothing can be done on it any more, in this process at least.

    ``begun`` says whether the image that met this was at work on it.
    """

    def __init__(self, message: str, *, hint: str | None = None, begun: bool = True) -> None:
        super().__init__(message, hint=hint)
        self.begun = begun


class LimitError(EngineError):
    """A request is past a limit of the device; the message names request and limit."""


class DisagreementError(CudafilterError):
    """A result does not agree with the reference by the contract."""


class UnprovenError(CudafilterError):
    """No sample of a result can be proven."""


def require_text(parameter: str, value: object, hint: str | None = None) -> None:
    """Raise ParameterError (*parameter*) where *value* is no text: callers need not be typed."""
    if not isinstance(value, str):
        raise ParameterError(parameter, f"must be a text, not {value!r}", hint=hint)


_NO_MEMORY = "failed to map segment from shared object", "Cannot allocate memory"
"""What the system's loader says where a library finds no room."""

_NO_THREAD = "can't start new thread"
"""Python's words."""

UNEXPECTED = "something unexpected happened"
UNEXPECTED_HINT = "run again with --debug, and report what it shows"


def in_words(error: BaseException) -> tuple[str, str | None]:
    """What *error* says to the person at the terminal, and its hint.

    Only errors of this package and of the system speak to people. What others say, and their types,
    is for the traceback.
    """
    if isinstance(error, CudafilterError):
        return str(error), error.hint
    if isinstance(error, MemoryError):
        return "there is not enough memory", None
    if isinstance(error, ImportError):
        if any(words in str(error) for words in _NO_MEMORY):
            return "there is not enough memory", None
        return _not_loaded(error), "install cudafilter again, which brings it"
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        hint = "fewer images at a time (-j 1), or a higher limit: of memory, or of processes (pids)"
        return "no more threads can be started here", hint
    if isinstance(error, OSError) and error.strerror:
        named = isinstance(error.filename, str | bytes)
        return (f"{os.fsdecode(error.filename)}: " if named else "") + error.strerror, None
    return UNEXPECTED, UNEXPECTED_HINT


def _not_loaded(error: ImportError) -> str:
    if isinstance(error.__cause__, ImportError):  # which NumPy wraps into a page of advice
        return _not_loaded(error.__cause__)
    package = (error.name or "").partition(".")[0]
    if error.path and "site-packages/" in error.path:  # its part may have a name of its own
        package = error.path.rpartition("site-packages/")[2].partition("/")[0]
    if not package:
        return f"a package does not load: {error}"
    return f"the package {package} does not load: {error}"
