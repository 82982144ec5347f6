"""Which engine runs filters: the one asked for, or the best that can be opened."""

from __future__ import annotations

import atexit
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from typing import Any

from cudafilter.engines import Engine
from cudafilter.engines.cuda.variants import AUTO, CHOICES
from cudafilter.engines.resident import Resident, resident_of
from cudafilter.errors import EngineUnavailable, ParameterError
from cudafilter.operations.choices import (
    ALL,
    CODECS,
    ENGINES,
    GPU_FAILURES,
    OLD_CODECS,
    UNITS,
    gpu_numbers,
)


def preload(name: str = "auto") -> None:
    """Import what open_engine() needs, so that imports and opening can be timed apart.

    open_engine() tells what is missing.
    """
    cpu = name == "cpu" or (name == "auto" and find_spec("pycuda") is None)
    for module in (
        ["cudafilter.engines.cpu"] if cpu else ["pycuda.driver", "cudafilter.engines.cuda.engine"]
    ):
        with suppress(ImportError):
            import_module(module)


def open_engine(
    name: str = "auto",
    *,
    gpu: str | int | None = None,
    variant: str = AUTO,
    codec: str = "auto",
    several: bool = False,
    on_gpu_failure: str = "fail",
) -> Engine:
    """Open the engine *name*: ``auto``, ``cuda`` or ``cpu``.

    ``auto`` takes CUDA where a device answers and else the CPU, whose ``note`` then says why.
    *gpu* is a device number, several of them (``0,2``) or ALL, and *variant* a name of the kernel
    ladder; asking for either means CUDA, so ``auto`` then does not fall back. Unless asked for,
    *gpu* is 0; where *several* images are to come, it is the first that opens, and the others join
    when that is busy. Of all GPUs those that cannot be opened are left out, which ``note`` or
    Result.notes tells; those that are named must open. *codec* ``cpu`` keeps JPEG files off the
    GPU's codec; ``pillow`` is its former name. ``units`` has a GPU's JPEG units decode them.

    A GPU that is lost at work is opened again in another process, unless others are at work.
    *on_gpu_failure* ``cpu`` has the CPU do an image on which the GPU fails all the same, which
    Result.notes tells; ``fail`` raises the error.

    Raises EngineUnavailable for an engine that cannot run here, ParameterError for an unknown name
    or a choice the CPU engine does not have.
    """
    if name not in ENGINES:
        raise ParameterError("engine", f"must be one of {', '.join(ENGINES)}, not {name!r}")
    if variant not in CHOICES:
        raise ParameterError("variant", f"must be one of {', '.join(CHOICES)}, not {variant!r}")
    codec = OLD_CODECS.get(codec, codec)
    if codec not in CODECS:
        raise ParameterError("codec", f"must be one of {', '.join(CODECS)}, not {codec!r}")
    if on_gpu_failure not in GPU_FAILURES:
        choices = " or ".join(GPU_FAILURES)
        raise ParameterError("on_gpu_failure", f"must be {choices}, not {on_gpu_failure!r}")
    numbers = gpu_numbers(gpu if gpu is not None else ALL if several else 0)
    as_needed = gpu is None and several
    wants_gpu = gpu is not None or variant != AUTO
    if name == "cpu":
        asked = {"gpu": gpu is not None, "variant": variant != AUTO, "codec": codec == UNITS}
        if choice := next((each for each, is_asked in asked.items() if is_asked), None):
            raise ParameterError(choice, "is for the cuda engine, and --engine cpu was asked for")
        return _open_cpu(None)
    try:
        opened, numbers = _open_gpus(numbers, variant, codec, as_needed)
    except EngineUnavailable as unavailable:
        if name == "cuda" or wants_gpu:
            raise
        return _open_cpu(f"no CUDA: {unavailable}")
    from cudafilter.engines.mended import Mended

    spare = partial(_open_cpu, None) if on_gpu_failure == "cpu" else None
    return Mended(opened, partial(_open_apart, numbers, variant, codec), spare)


_kept: dict[int, Engine] = {}
"""By the GPU's number, for pixels there: what is queued may be at work after a call."""
_keeping = Lock()


def resident_for(engine: str | Engine, pixels: Any) -> Resident:
    """What filters *pixels* in a GPU's memory: of *engine*, or of the engine of that name.

    By name it is opened once and kept. Raises ParameterError where *engine* does not work on that
    GPU, EngineUnavailable where nothing does.
    """
    if isinstance(engine, str) and engine not in ENGINES:
        raise ParameterError("engine", f"must be one of {', '.join(ENGINES)}, not {engine!r}")
    if (engine if isinstance(engine, str) else engine.name) == "cpu":
        raise ParameterError("engine", "cpu filters the host's memory; the pixels are in a GPU's")
    from cudafilter.engines.cuda.views import number_of

    number = number_of(pixels)
    opened = _kept_engine(number) if isinstance(engine, str) else engine
    if (found := resident_of(opened, number)) is None:
        raise ParameterError(
            "engine", f"{opened.title} does not work on GPU {number}, where the pixels are"
        )
    return found


def _kept_engine(number: int) -> Engine:
    from cudafilter.engines.cuda.engine import CudaEngine

    with _keeping:
        if number not in _kept:
            _kept[number] = CudaEngine(number, codec="cpu")
            atexit.register(_kept[number].close)
        return _kept[number]


def _open_gpus(
    numbers: tuple[int, ...] | None, variant: str, codec: str, as_needed: bool
) -> tuple[Engine, tuple[int, ...]]:
    """The GPUs *numbers*, or all that can be opened, as one engine, and their numbers.

    *as_needed* opens one of them; the engine opens the others. Raises EngineUnavailable.
    """
    from cudafilter.engines.cuda.device import gpus
    from cudafilter.engines.cuda.engine import CudaEngine

    if numbers is not None and len(numbers) == 1:
        return CudaEngine(numbers[0], variant, codec=codec), numbers
    found = gpus()
    waiting = deque(numbers if numbers is not None else range(len(found)))
    opened: dict[int, Engine] = {}
    refused: dict[int, EngineUnavailable] = {}
    while waiting and not (as_needed and opened):
        number = waiting.popleft()
        try:
            opened[number] = CudaEngine(number, variant, codec=codec)
        except EngineUnavailable as unavailable:
            refused[number] = unavailable
    if refused and (numbers is not None or not opened):
        for engine in opened.values():
            engine.close()
        raise next(iter(refused.values()))
    note = "; ".join(f"GPU {number} is left out: {why}" for number, why in refused.items()) or None
    numbers = (*opened, *waiting)
    if len(numbers) == 1:
        (engine,) = opened.values()
        engine.note = note
        return engine, numbers
    from cudafilter.engines.fleet import Fleet
    from cudafilter.nvidia.devices import title_of

    title = title_of({number: found[number].name for number in numbers}, waiting)
    more = {f"GPU {number}": partial(_join, number, variant, codec) for number in waiting}
    return Fleet(list(opened.values()), title, note, more), numbers


def _join(number: int, variant: str, codec: str) -> Engine:
    """The GPU *number*, opened while others are at work. Raises EngineUnavailable."""
    from cudafilter.engines.cuda.engine import CudaEngine
    from cudafilter.start import gpus

    gpus.start((number,), jpeg=codec != "cpu", units=codec == UNITS)
    gpus.wait(number)  # until then PyCUDA would hold the interpreter's lock
    return CudaEngine(number, variant, codec=codec)


def _open_apart(numbers: Iterable[int], variant: str, codec: str) -> Engine:
    """The first of the GPUs *numbers* that opens in a process of its own.

    Raises EngineUnavailable, with what each one says, where none does.
    """
    from cudafilter.engines.apart import Apart
    from cudafilter.engines.cuda.engine import CudaEngine

    refused: list[str] = []
    for number in numbers:
        try:
            return Apart(partial(CudaEngine, number, variant, codec=codec))
        except EngineUnavailable as unavailable:
            refused.append(str(unavailable))
    raise EngineUnavailable("; ".join(refused))


def _open_cpu(note: str | None) -> Engine:
    from cudafilter.engines.cpu import CpuEngine

    return CpuEngine(note=note)
