"""Write cuda_src/task.cuh, the struct that kernels are given, from the fields that Python fills.

python tools/make_task.py            write it
python tools/make_task.py --check    exit 1 where it is not what would be written
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from cudafilter.engines.cuda.variants.task import FIELDS, Task

HEADER = Path(__file__).parents[1] / "cuda_src" / "task.cuh"

TYPES: dict[type, str] = {
    ctypes.c_uint64: "unsigned long long",
    ctypes.c_int64: "long long",
    ctypes.c_int32: "int",
    ctypes.c_float: "float",
}
POINTERS = {"source": "const sample_t*", "out": "sample_t*", "scratch": "float*"}


def text() -> str:
    """The header."""
    lines = [
        "// One launch. Written by tools/make_task.py from variants/task.py: change it there.",
        "#pragma once",
        "",
        "struct Task {",
    ]
    for name, kind, meaning in FIELDS:
        count = f"[{kind._length_}]" if issubclass(kind, ctypes.Array) else ""
        plain: type = kind._type_ if issubclass(kind, ctypes.Array) else kind  # type: ignore[assignment]
        field = f"    {POINTERS.get(name) or TYPES[plain]} {name}{count};"
        lines.append(f"{field:30}// {meaning}" if meaning else field)
    lines += [
        "};",
        "",
        f'static_assert(sizeof(Task) == {ctypes.sizeof(Task)}, "as Python lays it out");',
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write or check."""
    if "--check" not in sys.argv:
        HEADER.write_text(text(), encoding="utf-8")
        return 0
    if HEADER.read_text(encoding="utf-8") == text():
        return 0
    print(f"{HEADER} is not what tools/make_task.py writes: run it", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
