"""``cudafilter doctor``: tries all that a run needs, and says what mends it where it fails."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cudafilter.cli import options
from cudafilter.cli.command import FAILURE, Command
from cudafilter.cli.terminal import put
from cudafilter.errors import CudafilterError, in_words
from cudafilter.host.escape import escaped

if TYPE_CHECKING:
    from cudafilter.engines import Engine
    from cudafilter.operations.pixels import Pixels

OK, LACKS, FAULT = "ok", "none", "FAULT"
"""It works; it is not here, and nothing else fails for that; it should work and does not."""

SIDE = 256
"""Of the images that are filtered, in pixels."""

NEAR = 0.02
"""Most that a lossy codec may change a sample by in the mean, as a part of full scale."""


class Found(NamedTuple):
    """What one check found."""

    check: str
    status: str
    told: str
    mend: str = ""
    """The command that mends it, or what to do."""


def examine() -> Iterator[Found]:
    """Every check, each as soon as it is made."""
    checks = {
        "cpu engine": _cpu,
        "cuda engine": _gpus,
        "kernels": _kernels,
        "codecs": _codecs,
        "folders": _folders,
        "limits": _limits,
    }
    for name, check in checks.items():
        try:
            yield from check()
        except (ImportError, MemoryError) as error:
            told, mend = in_words(error)
            yield Found(name, FAULT, told, mend or "close other programs, or raise the limit")


def _picture(dtype: str, channels: int) -> Pixels:
    """Waves of all channels, (SIDE, SIDE, channels): what lossy codecs keep nearly."""
    import numpy as np

    from cudafilter.operations.pixels import full_scale, quantise

    y, x = np.mgrid[:SIDE, :SIDE]
    waves = [0.5 + 0.4 * np.sin((x + n * y) / 19) * np.cos(y / 23) for n in range(channels)]
    return quantise(np.stack(waves, axis=-1) * full_scale(dtype), dtype)


def _proven(engine: Engine) -> str:
    """What a filtered image shows. Raises CudafilterError where it is wrong."""
    from cudafilter.check import compare
    from cudafilter.operations.make import make

    samples, started = 0, time.perf_counter()
    for dtype in ("uint8", "uint16", "float32"):
        source, filter = _picture(dtype, 3), make("blur", sigma=2)
        agreement = compare(engine.run(source, filter).pixels, source, filter)
        if not agreement.ok:
            raise CudafilterError(f"a blur of {dtype} is wrong: {agreement}")
        samples += agreement.samples - agreement.unproven
    seconds = time.perf_counter() - started
    return f"a blur of {samples:,} samples is proven right, {seconds:.2f} s"


def _cpu() -> Iterator[Found]:
    import numpy as np  # noqa: F401 - before OpenCV, which prints advice where it is not there

    from cudafilter.engines.cpu import CpuEngine

    engine = CpuEngine()
    try:
        yield Found("cpu engine", OK, f"{engine.title.removeprefix('cpu: ')}: {_proven(engine)}")
    except CudafilterError as error:
        again = "install cudafilter again: it brings OpenCV"
        yield Found("cpu engine", FAULT, str(error), error.hint or again)
    finally:
        engine.close()


def _gpus() -> Iterator[Found]:
    from cudafilter.engines.cuda.device import gpus
    from cudafilter.nvidia import toolkit

    nodes = [node for node in toolkit.DEVICES if os.path.exists(node)]
    closed = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        groups = "add yourself to the groups video and render, and log in again"
        yield Found("GPU", FAULT, f"this user may not open {closed[0]}", groups)
    lacking = toolkit.missing()
    for lack in lacking:
        if nodes or toolkit.WINDOWS:
            yield Found("cuda engine", FAULT, lack.what, lack.mend)
        else:
            yield Found("cuda engine", LACKS, f"{lack.what}; the CPU does the work", lack.mend)
    if lacking:
        return
    yield Found("compiler", OK, str(toolkit.find_compiler()))
    try:
        devices = gpus()
    except CudafilterError as error:
        yield Found("cuda engine", FAULT, str(error), error.hint or "")
        return
    for device in devices:
        yield from _gpu(device.index, device.name)


def _gpu(number: int, name: str) -> Iterator[Found]:
    """What GPU *number* does."""
    from cudafilter.engines.cuda.engine import CudaEngine

    check = f"GPU {number}"
    try:
        engine = CudaEngine(number)
    except CudafilterError as error:
        yield Found(check, FAULT, f"{name}: {error}", error.hint or "")
        return
    try:
        yield Found(check, OK, f"{name}: {_proven(engine)}")
        yield _gpu_jpeg(engine, f"GPU {number} JPEG")
    except CudafilterError as error:
        yield Found(check, FAULT, f"{name}: {error}", error.hint or "try --engine cpu")
    finally:
        engine.close()


def _gpu_jpeg(engine: Engine, check: str) -> Found:
    from cudafilter import images
    from cudafilter.check import compare
    from cudafilter.engines.codecs import FileJob
    from cudafilter.operations.borders import Border
    from cudafilter.operations.make import make

    if engine.jpeg is None:
        lack = "no nvJPEG: the CPU decodes and encodes"
        return Found(check, LACKS, lack, "pip install 'cudafilter[nvcodec]'")
    data = bytes(images.encode(images.Image(_picture("uint8", 3)), "jpeg"))
    filter = make("blur", sigma=2)
    done = engine.jpeg.filter(FileJob(data, filter, Border(), keep=True))
    assert done.kept is not None
    source, result = done.kept
    agreement = compare(result, source, filter)
    if not agreement.ok:
        raise CudafilterError(f"a blurred JPEG is wrong: {agreement}")
    return Found(check, OK, "a file is decoded, filtered, proven right and encoded on the GPU")


def _kernels() -> Iterator[Found]:
    """The kernels that the package brings along, each held to its digest."""
    from cudafilter.engines import shipped

    check = "kernels"
    try:
        counts = {
            arch: shipped.verified(shipped.FOLDER, arch)
            for arch in shipped.architectures(shipped.FOLDER)
        }
    except shipped.Damaged as damage:
        yield Found(check, FAULT, f"{damage}; they are compiled instead", "install it again")
        return
    if not counts:
        yield Found(check, LACKS, "none come with it: each is compiled at its first use")
        return
    told = f"{sum(counts.values()):,} come compiled and undamaged, for {', '.join(counts)}"
    yield Found(check, OK, told)


def _codecs() -> Iterator[Found]:
    """A picture of each kind, written and read again."""
    import numpy as np

    from cudafilter import images
    from cudafilter.formats.metadata import Metadata
    from cudafilter.formats.samples import drawn, spread
    from cudafilter.formats.table import FORMATS, written
    from cudafilter.operations.pixels import full_scale

    for name in written():
        format, told, worst = FORMATS[name], [], 0.0
        try:
            for dtype in format.samples:
                for colour, channels in (("gray", 1), ("RGB", 3)):
                    if colour not in format.colours:
                        continue
                    pixels, bits = _picture(dtype, channels), None
                    if "dither" in format.settings:  # no more colours than it holds
                        pixels &= 0xC0
                    if dtype == "uint16" and format.most_bits < 16:
                        bits = format.most_bits
                        pixels = spread(drawn(pixels, bits), bits)
                    image = images.Image(pixels, metadata=Metadata(bits=bits))
                    again = images.load(images.encode(image, name)).pixels
                    change = np.abs(again.astype(np.float64) - pixels).mean() / full_scale(dtype)
                    worst = max(worst, float(change))
                told.append(dtype)
        except CudafilterError as error:
            yield Found(name, FAULT, str(error), error.hint or "install cudafilter again")
            continue
        lossy = "quality" in format.settings
        if worst and not (lossy and worst < NEAR):
            change_told = f"what was written is read {100 * worst:.2g} % off"
            yield Found(name, FAULT, change_told, "install cudafilter again")
            continue
        exact = "the same pixels" if not worst else f"pixels {100 * worst:.2g} % off: it is lossy"
        yield Found(name, OK, f"{', '.join(told)} written and read again: {exact}")


def _folders() -> Iterator[Found]:
    """Where the program keeps what it keeps."""
    from platformdirs import user_state_path

    from cudafilter.engines import nvcc

    cache = nvcc.cache_dir()
    if (unsafe := nvcc.cache_fault(cache)) is not None:
        what, _, mend = unsafe.partition("; ")
        yield Found("kernel cache", FAULT, what, mend)
    else:
        yield _writable("kernel cache", cache, "set CUDAFILTER_CACHE to a folder of your own")
    state = user_state_path("cudafilter")
    yield _writable("journals", state, "set XDG_STATE_HOME to a folder of your own")


def _writable(check: str, folder: Path, mend: str) -> Found:
    """Whether *folder* can be written, or made where it is missing."""
    place = next(each for each in (folder, *folder.parents) if each.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Found(check, FAULT, f"{place} cannot be written", mend)
    return Found(check, OK, f"{folder}" if place == folder else f"{folder}, made when it is needed")


def _limits() -> Iterator[Found]:
    from cudafilter.host.cores import cores, free_memory

    free, here, all_cores = free_memory(), cores(), os.cpu_count() or 1
    memory = "memory unknown" if free is None else f"{free / 2**30:.1f} GiB of memory free"
    told = f"{here} of {all_cores} cores, {memory}"
    if free is not None and free < 1 << 30:
        yield Found("limits", FAULT, told, "give it 1 GiB: raise the container's limit")
    else:
        yield Found("limits", OK, told)


def _run(as_json: bool, debug: bool) -> None:
    import json
    import sys

    failed, listed = False, []
    for found in examine():
        failed |= found.status == FAULT
        listed.append(found._asdict())
        if not as_json:
            put(escaped(f"{found.status:5}  {found.check:13} {found.told}"))
            if found.mend:
                wanted = "mend it" if found.status == FAULT else "to have it"
                put(escaped(f"{'':20} {wanted}: {found.mend}"))
    if as_json:
        put(json.dumps({"ok": not failed, "checks": listed}, indent=2))
    if failed:
        sys.exit(FAILURE)


command = Command(
    "doctor",
    sections={
        "Options": [
            options.as_json(),
            options.debug(),
        ]
    },
    example="cudafilter doctor",
    help="Try engines, codecs and folders; say what mends them.",
    callback=_run,
)
