"""Images in other libraries' memory on a GPU, as these libraries tell of them.

They do so by ``__cuda_array_interface__`` or by DLPack. Both name a stream: what the caller has
queued there comes before what is done here, and what is queued there later comes after.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cudafilter.engines.cuda import dlpack
from cudafilter.engines.resident import GPU_MEMORY, interface_of
from cudafilter.errors import CudafilterError, ParameterError
from cudafilter.nvidia import driver as nvidia
from cudafilter.nvidia.driver import LEGACY, PER_THREAD
from cudafilter.operations.pixels import DTYPES


class Stream(NamedTuple):
    """A stream of the caller's."""

    handle: int
    keeper: object = None
    """What keeps it alive, for a stream that may end; None where nobody tells."""

    @property
    def stays(self) -> bool:
        """Whether it is there for as long as this object is."""
        return self.keeper is not None or self.handle in (LEGACY, PER_THREAD)


@dataclass(frozen=True)
class View:
    """(H, W, C) in the memory of a GPU."""

    address: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    pitch: int
    """Bytes from row to row; samples lie side by side in a row."""
    given: tuple[int, ...]
    """The shape that it was given in: (H, W) or (H, W, C)."""
    device: int | None = None
    """The GPU's number, where it is told."""
    read_only: bool = False
    stream: int | None = None
    """What writes it may still be queued there."""
    release: Callable[[], None] | None = None
    """To be called when nothing here needs it any more."""

    @property
    def row(self) -> int:
        """Bytes of a row."""
        return self.shape[1] * self.shape[2] * self.dtype.itemsize

    @property
    def end(self) -> int:
        """The address behind its last sample."""
        return self.address + (self.shape[0] - 1) * self.pitch + self.row


def number_of(image: Any) -> int:
    """The number of the GPU that has *image*. Raises ParameterError where none has it."""
    if (told := getattr(image, "__dlpack_device__", None)) is not None:
        kind, number = told()
        if kind == dlpack.CUDA:
            return int(number)
    address = int((interface_of(image) or {"data": (0,)})["data"][0])
    if (found := nvidia.driver().device_of(address)) is None:
        raise ParameterError("pixels", "pixels are said to be in a GPU's memory, and are in none's")
    return found


def stream_of(given: object, image: object) -> Stream:
    """The caller's stream: *given*, else the one on which the library of *image* works now.

    *given* is a handle, or a stream of CuPy, PyTorch, PyCUDA, or of any library that has
    ``__cuda_stream__``. Raises ParameterError.
    """
    if given is not None:
        return _named(given)
    library = type(image).__module__.partition(".")[0]
    module: Any = sys.modules.get(library)
    if library == "torch":
        return _named(module.cuda.current_stream(getattr(image, "device", None)))
    if library == "cupy":
        return _named(module.cuda.get_current_stream())
    if isinstance(own := getattr(image, "stream", None), Stream):
        return own
    told = (interface_of(image) or {}).get("stream")
    return Stream(told if isinstance(told, int) and told else LEGACY)


def _named(stream: object) -> Stream:
    if isinstance(stream, int) and not isinstance(stream, bool) and stream >= 0:
        return Stream(stream or LEGACY)
    handle: Any = None
    if (told := getattr(stream, "__cuda_stream__", None)) is not None:
        handle = (told() if callable(told) else told)[1]
    else:
        for name in ("ptr", "cuda_stream", "handle"):
            handle = getattr(stream, name, None) if handle is None else handle
        if hasattr(handle, "value"):  # of ctypes
            handle = handle.value or 0
    if not isinstance(handle, int):
        raise ParameterError("stream", f"must be a CUDA stream or its handle, not {stream!r}")
    return Stream(handle or LEGACY, stream)


def view_of(image: Any, stream: Stream, name: str = "pixels") -> View:
    """*image* as it lies there; what writes it is waited for on *stream*, or View.stream is told.

    *name* is the argument that it is. Raises ParameterError for what no filter takes.
    """
    interface = interface_of(image)
    tells = interface is not None and interface.get("stream") is not None
    if interface is not None and (tells or not hasattr(image, "__dlpack__")):
        return _of_interface(interface, name)
    return _of_dlpack(image, stream, name)


def _of_interface(told: dict[str, Any], name: str) -> View:
    if told.get("mask") is not None:
        raise ParameterError(name, "arrays with a mask cannot be filtered")
    address, read_only = told["data"]
    kind = str(told["typestr"])
    kind = kind[1:] if kind[:1] in "|<" else kind
    stream = told.get("stream")
    view = _view(int(address), told["shape"], told.get("strides"), kind, name)
    return _with(view, read_only=bool(read_only), stream=stream or None)


def _of_dlpack(image: Any, stream: Stream, name: str) -> View:
    try:
        try:
            capsule = image.__dlpack__(stream=stream.handle, max_version=dlpack.VERSION)
        except TypeError:  # of a library from before versions
            capsule = image.__dlpack__(stream=stream.handle)
        array, release = dlpack.taken(capsule)
    except CudafilterError:
        raise
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ParameterError(
            name, f"the memory of {name} is not to be had",
            hint="a tensor whose gradient is wanted gives it after detach()",
        ) from error  # fmt: skip
    try:
        kind, device = array.device
        if kind not in GPU_MEMORY:
            raise ParameterError(name, f"{name} must be in a GPU's memory")
        strides = array.strides
        if strides is not None and array.kind[1:].isdigit():
            strides = tuple(each * int(array.kind[1:]) for each in strides)
        view = _view(array.address, array.shape, strides, array.kind, name)
        return _with(view, device=device, read_only=array.read_only, release=release)
    except BaseException:
        release()
        raise


def _with(view: View, **more: Any) -> View:
    return View(**{**vars(view), **more})


def _view(address: int, given: Any, strides: Any, kind: str, name: str) -> View:
    """The view of an array of *kind*, ``u1``, at *address*; *strides* are bytes or None."""
    given = tuple(int(each) for each in given)
    dtypes = {f"{each.kind}{each.itemsize}": each for each in map(np.dtype, DTYPES)}
    if kind not in dtypes:
        raise ParameterError(
            name, f"{name} must be {', '.join(DTYPES)} in native order, not {kind}"
        )
    dtype = dtypes[kind]
    if len(given) not in (2, 3):
        raise ParameterError(
            name, f"{name} must be an array (H, W) or (H, W, C), not of shape {given}"
        )
    height, width, channels = shape = (*given, 1)[:3]
    if height < 1 or width < 1 or not 1 <= channels <= 4:
        raise ParameterError(name, f"{name} need H >= 1, W >= 1 and 1 to 4 channels, not {given}")
    pixel = channels * dtype.itemsize
    row = width * pixel
    if strides is None:
        return View(address, shape, dtype, row, given)
    down, across, *between = (int(each) for each in strides)
    beside = (across == pixel or width == 1) and (
        not between or channels == 1 or between[0] == dtype.itemsize
    )
    pitch = row if height == 1 else down
    if not beside or pitch < row or pitch % dtype.itemsize:
        raise ParameterError(
            name,
            f"of {name} only the rows may lie apart, from top to bottom: strides {tuple(strides)}"
            f" of the shape {given}",
            hint="a C-contiguous copy will do",
        )
    return View(address, shape, dtype, pitch, given)
