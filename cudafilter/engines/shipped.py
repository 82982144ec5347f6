"""Kernels that the package brings along, compiled at release: their first use starts no compiler.

An architecture has two files. ``sm_90.xz`` holds the machine code, some kernels a block, each block
compressed by itself, so that one kernel is read in some milliseconds. ``sm_90.json`` tells where
each one is, and its SHA-256. A kernel is found by a key of all that decides its code, so that
edited sources never meet an old one.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "cubins"
"""Where they are. Only a release has it: ``make wheel`` fills it."""

IN_A_BLOCK = 16
"""Kernels that are compressed together. More are smaller, and take longer to read."""


class Damaged(Exception):
    """A file is not as it was made; the text names it and says so."""


def architectures(folder: Path) -> list[str]:
    """The names, such as ``sm_90``, of those that *folder* has kernels for, the oldest first."""
    return sorted((file.stem for file in folder.glob("sm_*.json")), key=lambda name: int(name[3:]))


def index_of(folder: Path, arch: str) -> dict[str, Any] | None:
    """What there is for *arch*; None without any. Raises Damaged.

    ``cuda`` is the major version that a driver must have at least, ``compiler`` what made them, and
    ``kernels`` has by key: the block's place and length, the kernel's in it, and its SHA-256.
    """
    import json

    path = folder / f"{arch}.json"
    try:
        index = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Damaged(f"{path} is damaged: {error}") from error
    kinds = {"cuda": int, "compiler": str, "kernels": dict}
    if not isinstance(index, dict) or any(
        not isinstance(index.get(name), kind) for name, kind in kinds.items()
    ):
        raise Damaged(f"{path} is damaged: it tells of no kernels")
    return index


def find(folder: Path, arch: str, key: str, driver: int | None) -> bytes | None:
    """The machine code of *key* for *arch*; None if it is not there, or too new for *driver*.

    *driver* is the major version of CUDA that the driver runs, None if that does not matter.
    Raises Damaged.
    """
    index = index_of(folder, arch)
    if index is None or (driver is not None and driver < index["cuda"]):
        return None
    kernels = index["kernels"]
    return _read(folder / f"{arch}.xz", kernels[key]) if key in kernels else None


def verified(folder: Path, arch: str) -> int:
    """How many kernels *arch* has, after a look at each. Raises Damaged for the first fault."""
    return len(all_of(folder, arch))


def all_of(folder: Path, arch: str) -> dict[str, bytes]:
    """The machine code of all kernels of *arch*, by key. Raises Damaged for the first fault."""
    index = index_of(folder, arch)
    kernels = index["kernels"] if index else {}
    block = functools.lru_cache(1)(_block)  # kernels of a block follow each other
    return {key: _read(folder / f"{arch}.xz", place, block) for key, place in kernels.items()}


def _block(path: Path, at: int, length: int) -> bytes:
    """The kernels of a block of *path*, one after the other."""
    import lzma

    with open(path, "rb") as file:
        file.seek(at)
        return lzma.decompress(file.read(length))


def _read(path: Path, place: Any, block: Callable[[Path, int, int], bytes] = _block) -> bytes:
    """The kernel at *place* of *path*. Raises Damaged."""
    import lzma

    try:
        at, length, first, size, digest = place
        code = block(path, at, length)[first : first + size]
    except (OSError, lzma.LZMAError, EOFError, TypeError, ValueError) as error:
        raise Damaged(f"{path} is damaged: {error}") from error
    if hashlib.sha256(code).hexdigest() != digest:
        raise Damaged(f"{path} is damaged: a kernel's SHA-256 is another one")
    return code


def _smallest(size: int) -> dict[str, int]:
    """LZMA for *size* bytes: a dictionary of that size, as both sides take memory for it."""
    import lzma

    best = 9 | lzma.PRESET_EXTREME
    return {"id": lzma.FILTER_LZMA2, "preset": best, "dict_size": max(size, 1 << 16)}


def write(folder: Path, arch: str, kernels: Mapping[str, bytes], cuda: int, compiler: str) -> None:
    """Put *kernels*, machine code by key, into *folder*, in place of what it has for *arch*."""
    import json
    import lzma

    folder.mkdir(parents=True, exist_ok=True)
    # Kernels of like names and sizes are alike, and so their block is small.
    order = sorted(kernels, key=lambda key: (key.partition("-")[0], len(kernels[key]), key))
    places: dict[str, Any] = {}
    with open(folder / f"{arch}.xz", "wb") as file:
        for start in range(0, len(order), IN_A_BLOCK):
            keys = order[start : start + IN_A_BLOCK]
            whole = b"".join(kernels[key] for key in keys)
            block = lzma.compress(whole, filters=[_smallest(len(whole))])
            at, first = file.tell(), 0
            for key in keys:
                size = len(kernels[key])
                digest = hashlib.sha256(kernels[key]).hexdigest()
                places[key] = [at, len(block), first, size, digest]
                first += size
            file.write(block)
    index = {"cuda": cuda, "compiler": compiler, "kernels": places}
    (folder / f"{arch}.json").write_text(json.dumps(index, indent=0), encoding="utf-8")
