"""NVRTC, NVIDIA's compiler as a library: a kernel in a tenth of the time that nvcc takes.

It needs no C++ compiler, no headers and no process. A library compiles one kernel at a time, so
``python -m cudafilter.nvidia.nvrtc`` is there for many at a time: it compiles one and ends.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

WINDOWS = sys.platform == "win32"

_NAME = re.compile(
    r"nvrtc64_(\d\d)(\d)_\d\.dll" if WINDOWS else r"libnvrtc\.so\.(\d+)(?:\.(\d+))?(?:\.\d+)*"
)

_FAILED = 6
"""NVRTC_ERROR_COMPILATION: the log says why."""


class CompileError(Exception):
    """The kernel does not compile; the text is the compiler's log."""


@dataclass(frozen=True)
class Nvrtc:
    """One such library."""

    library: Path
    """The file itself, links resolved."""
    major: int
    """CUDA's, of which the driver must be or newer."""
    origin: str
    """Where it was found, in words."""

    @property
    def identity(self) -> str:
        """Changes when the compiler does: its path, size in bytes and time of change in ns."""
        stat = self.library.stat()
        return f"{self.library}:{stat.st_size}:{stat.st_mtime_ns}"

    @property
    def version(self) -> str:
        """CUDA's, such as ``13.0``. Raises OSError where the library does not load."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        _loaded(str(self.library)).nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def __str__(self) -> str:
        return f"NVRTC {self.library} ({self.origin})"

    def compile(
        self, name: str, source: bytes, headers: Mapping[str, bytes], options: Sequence[str]
    ) -> tuple[bytes, str]:
        """The machine code of *source*, a file *name* that includes *headers*, and the report.

        Raises CompileError, and OSError where the library does not load.
        """
        library = _loaded(str(self.library))

        def call(function: str, *arguments: Any) -> int:
            return int(getattr(library, f"nvrtc{function}")(*arguments))

        program = ctypes.c_void_p()
        if call(
            "CreateProgram", ctypes.byref(program), source, name.encode(), len(headers),
            _texts(list(headers.values())), _texts([each.encode() for each in headers]),
        ):  # fmt: skip
            raise CompileError(f"NVRTC takes no program {name}")
        try:
            encoded = [option.encode() for option in options]
            status = call("CompileProgram", program, len(encoded), _texts(encoded))
            log = _taken(call, "ProgramLog", program).rstrip(b"\0").decode(errors="replace")
            if status:
                library.nvrtcGetErrorString.restype = ctypes.c_char_p
                reason = library.nvrtcGetErrorString(status).decode(errors="replace")
                raise CompileError(log if status == _FAILED else f"{reason}\n{log}".rstrip())
            return _taken(call, "CUBIN", program), log
        finally:
            call("DestroyProgram", ctypes.byref(program))


def _texts(texts: Sequence[bytes]) -> Any:
    """A C array of *texts*."""
    return (ctypes.c_char_p * len(texts))(*texts)


def _taken(call: Any, what: str, program: ctypes.c_void_p) -> bytes:
    """What NVRTC has of *program*."""
    size = ctypes.c_size_t()
    call(f"Get{what}Size", program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    call(f"Get{what}", program, text)
    return text.raw


@cache
def _loaded(path: str) -> ctypes.CDLL:
    return ctypes.CDLL(path)


def in_folder(folder: Path, origin: str, most: int | None) -> Nvrtc | None:
    """The newest library in *folder* whose major is at most *most*; None where there is none."""
    found = []
    for entry in folder.glob("nvrtc64_*.dll" if WINDOWS else "libnvrtc.so.*"):
        named = _NAME.fullmatch(entry.name)
        if named and (most is None or int(named[1]) <= most):
            found.append((int(named[1]), int(named[2] or 0), entry))
    if not found:
        return None
    major, _, entry = max(found)
    return Nvrtc(entry.resolve(), major, origin)


def main(arguments: Sequence[str]) -> int:
    """Compile the file that *arguments* name with the library that they name; code to stdout.

    LIBRARY SOURCE [OPTION...]. The report, or why it does not compile, goes to stderr. 1 where it
    does not.
    """
    library, source, *options = arguments
    file = Path(source)
    headers = {header.name: header.read_bytes() for header in file.parent.glob("*.cuh")}
    try:
        code, report = Nvrtc(Path(library), 0, "").compile(
            file.name, file.read_bytes(), headers, options
        )
    except (CompileError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(report, file=sys.stderr)
    sys.stdout.buffer.write(code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
