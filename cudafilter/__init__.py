"""cudafilter: 2-D image filters on an NVIDIA GPU, proved right.

    import cudafilter
    soft = cudafilter.apply(pixels, "blur", sigma=2)

Names load what they need when first used: importing the package starts nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

# Not typing's: to import that takes longer than all else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cudafilter.api import apply, compare, filters
    from cudafilter.check import Agreement
    from cudafilter.engines import Engine
    from cudafilter.engines.cuda.array import DeviceArray
    from cudafilter.engines.open import open_engine
    from cudafilter.errors import CudafilterError
    from cudafilter.jobs.files import filter_files
    from cudafilter.jobs.record import Record
    from cudafilter.operations.borders import Border
    from cudafilter.operations.correlation import Correlation as Filter
    from cudafilter.operations.kernel import Kernel
    from cudafilter.operations.make import make

__all__ = [
    "Agreement",
    "Border",
    "CudafilterError",
    "DeviceArray",
    "Engine",
    "Filter",
    "Kernel",
    "Record",
    "apply",
    "compare",
    "filter_files",
    "filters",
    "make",
    "open_engine",
]

_HOMES = {
    "Agreement": "check",
    "Border": "operations.borders",
    "CudafilterError": "errors",
    "DeviceArray": "engines.cuda.array",
    "Engine": "engines",
    "Filter": "operations.correlation",
    "Kernel": "operations.kernel",
    "Record": "jobs.record",
    "apply": "api",
    "compare": "api",
    "filter_files": "jobs.files",
    "filters": "api",
    "make": "operations.make",
    "open_engine": "engines.open",
}
_THERE = {"Filter": "Correlation"}
"""Names whose object is called otherwise where it is defined."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(home, _THERE.get(name, name))


def __dir__() -> list[str]:
    return sorted(__all__)
