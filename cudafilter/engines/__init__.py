"""Engines make filters fast. Each one takes pixels and gives pixels, equal to the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cudafilter.errors import ParameterError

if TYPE_CHECKING:
    from cudafilter.engines.codecs import JpegPath, PngCodec
    from cudafilter.operations.borders import Border
    from cudafilter.operations.operation import Operation
    from cudafilter.operations.pixels import Pixels
    from cudafilter.proof.screened import Screened


class Result(NamedTuple):
    """A filtered image, and what is to be told of it."""

    pixels: Pixels
    """Of the shape and type of the image, (H, W, C), C-contiguous."""
    seconds: Mapping[str, float] = {}
    """Of the stages ``upload``, ``kernel`` and ``download``; empty where nothing tells them."""
    notes: tuple[str, ...] = ()
    """What the user should know, such as that a GPU failed."""


class Screening(NamedTuple):
    """What an engine says where it is asked to prove a result."""

    screened: Screened | None = None
    """None where the host is to do it all."""
    notes: tuple[str, ...] = ()
    """What the user should know, such as that a GPU failed."""


class Engine(Protocol):
    """What runs a filter. An engine may be called from any thread; calls take turns inside it."""

    name: str
    """``cuda`` or ``cpu``."""
    title: str
    """Name, device and version in one line for people."""
    note: str | None
    """What the user should know of the choice of engine, such as why it is not the GPU."""
    parallel: int
    """How many calls of run() pay off at a time, beside those that keep the cores busy: 0 for an
    engine that itself works on the cores."""
    jpeg: JpegPath | None
    """What filters JPEG files without their pixels visiting the host; None where nothing does."""
    png: PngCodec | None
    """What codes PNGs, or parts of them, beside the host's cores; None where nothing does."""

    def run(
        self,
        pixels: Pixels,
        filter: Operation,
        border: Border = ...,
        alpha: bool = False,
        *,
        overwrite: bool = False,
        rows: tuple[int, int] | None = None,
    ) -> Result:
        """*pixels* (H, W, C) filtered.

        *alpha* says that the last channel is alpha (2 or 4 channels). *overwrite* says that
        *pixels* are no longer needed, so the result may take their place. That saves the CPU
        engine the memory of a second image. *rows* asks for rows ``rows[0]..rows[1]-1`` of the
        result only. Raises ParameterError for pixels outside the contract, LimitError for what is
        past the device, EngineError where it fails.
        """
        ...

    def step(
        self, shape: tuple[int, ...], dtype: str, filter: Operation, border: Border, alpha: bool
    ) -> int:
        """Where an image of *shape* (H, W, C) may be cut without a bit of the result changing.

        Rows from a multiple of it on, with what *filter* reaches above and below, give what the
        whole image gives. *filter* is that of a stage; see Operation.unrolled.
        """
        ...

    def screen(
        self,
        source: Pixels,
        result: Pixels,
        filter: Operation,
        border: Border = ...,
        alpha: bool = False,
    ) -> Screening:
        """Prove *result* of *source*, see compare(), with code apart from what made it.

        Raises EngineError where it fails.
        """
        ...

    def close(self) -> None:
        """Give back what the engine holds. A closed engine is not used again."""
        ...


def require_engine(engine: Engine) -> Engine:
    """Return *engine*, or raise ParameterError ("engine") for what is none."""
    if not hasattr(engine, "run"):
        raise ParameterError("engine", f"must be a name or an open engine, not {engine!r}")
    return engine
