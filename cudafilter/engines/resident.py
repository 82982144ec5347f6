"""What an engine promises that filters pixels in a GPU's memory, where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from cudafilter.engines import Engine
    from cudafilter.operations.borders import Border
    from cudafilter.operations.operation import Operation
    from cudafilter.operations.pixels import Pixels


class Resident(Protocol):
    """Pixels of one GPU to pixels there. May be called from any thread."""

    def run(
        self, pixels: Any, filter: Operation, border: Border, alpha: bool,
        out: Any = None, stream: object = None,
    ) -> Any:  # fmt: skip
        """*pixels* filtered into *out*, or into an array of its own; see api.apply()."""
        ...

    def download(self, image: Any) -> Pixels:
        """*image*, an array on the GPU, as one of NumPy. Waits for it."""
        ...


GPU_MEMORY = 2, 13
"""DLPack's kDLCUDA and kDLCUDAManaged."""


def on_device(image: object) -> bool:
    """Whether *image* says that it is in the memory of a GPU."""
    if isinstance(image, np.ndarray):
        return False
    if interface_of(image) is not None:
        return True
    told = getattr(image, "__dlpack_device__", None)
    return told is not None and int(told()[0]) in GPU_MEMORY


def interface_of(image: object) -> dict[str, Any] | None:
    """``__cuda_array_interface__``; None where there is none, or it is not told."""
    try:
        told = getattr(image, "__cuda_array_interface__", None)
    except (RuntimeError, TypeError):  # of an array whose gradient is wanted, as DLPack tells
        return None
    return told if isinstance(told, dict) else None


def resident_of(engine: Engine, number: int) -> Resident | None:
    """What *engine* has for pixels on the GPU *number*; None where it does not work there."""
    find = getattr(engine, "resident", None)
    found: Resident | None = None if find is None else find(number)
    return found
