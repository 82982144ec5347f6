"""Engines make filters fast. Each one takes pixels and gives pixels, equal to the reference."""

from __future__ import annotations

from typing import Protocol

from cudafilter.borders import Border
from cudafilter.catalogue import ENGINES, VARIANTS
from cudafilter.errors import EngineUnavailable, ParameterError
from cudafilter.filter import Filter
from cudafilter.pixels import Pixels


class Engine(Protocol):
    """What runs a filter. An engine may be called from any thread; calls take turns inside it."""

    name: str
    """``cuda`` or ``cpu``."""
    title: str
    """Name, device and version in one line for people."""
    note: str | None
    """What the user should know of the choice of engine, such as why it is not the GPU."""

    def run(
        self, pixels: Pixels, filter: Filter, border: Border = ..., alpha: bool = False
    ) -> Pixels:
        """The filtered image, of the shape and type of *pixels* (H, W, C), C-contiguous.

        *alpha* says that the last channel is alpha (2 or 4 channels). Raises ParameterError for
        pixels outside the contract, LimitError where the device cannot, EngineError where it fails.
        """
        ...

    def close(self) -> None:
        """Give back what the engine holds. A closed engine is not used again."""
        ...


def open_engine(name: str = "auto", *, gpu: int | None = None, variant: str = "auto") -> Engine:
    """Open the engine *name*: ``auto``, ``cuda`` or ``cpu``.

    ``auto`` takes CUDA where a device answers and else the CPU, whose ``note`` then says why.
    *gpu* is a device number and *variant* a step of the kernel ladder; asking for either means
    CUDA, so ``auto`` then does not fall back. Raises EngineUnavailable for an engine that cannot
    run here, ParameterError for an unknown name or a choice the CPU engine does not have.
    """
    if name not in ENGINES:
        raise ParameterError("engine", f"must be one of {', '.join(ENGINES)}, not {name!r}")
    if variant not in VARIANTS:
        raise ParameterError("variant", f"must be one of {', '.join(VARIANTS)}, not {variant!r}")
    wants_gpu = gpu is not None or variant != "auto"
    if name == "cpu":
        if wants_gpu:
            choice = "gpu" if gpu is not None else "variant"
            raise ParameterError(choice, "is for the cuda engine, and --engine cpu was asked for")
        return _open_cpu(None)
    try:
        from cudafilter.engines.cuda import CudaEngine

        return CudaEngine(gpu=gpu or 0, variant=variant)
    except EngineUnavailable as unavailable:
        if name == "cuda" or wants_gpu:
            raise
        return _open_cpu(f"no CUDA: {unavailable}")


def _open_cpu(note: str | None) -> Engine:
    from cudafilter.engines.cpu import CpuEngine

    return CpuEngine(note=note)
