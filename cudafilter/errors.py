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
        if isinstance(error.__cause__, ImportError):  # which NumPy wraps into a page of advice
            return in_words(error.__cause__)
        package = (error.name or "").partition(".")[0]
        told = f"the package {package} does not load: {error}"
        if not package:
            told = f"a package does not load: {error}"
        return told, "install cudafilter again, which brings it"
    if isinstance(error, OSError) and error.strerror:
        named = isinstance(error.filename, str | bytes)
        return (f"{os.fsdecode(error.filename)}: " if named else "") + error.strerror, None
    return UNEXPECTED, UNEXPECTED_HINT
