"""What the words of a command line tell before they are parsed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from itertools import islice, zip_longest

STDIO = "-"
"""Standard input or output, in place of a path."""

FEW = 16
"""Most images of a small job. More images are worth a GPU's start, whatever their size."""

MANY = 2048
"""JPEGs from which on several processes are used: they start for a second."""

_JPEG = (".jpg", ".jpeg")
"""The usual extensions. For others nvJPEG starts when it is needed."""

_NOT_SURE = {
    "--cluster",
    "--dry-run",
    "--existing",
    "--retry-failed",
    "--shard",
    "--watch",
    "--help",
    "-h",
}
"""Options under which the first image may not be wanted."""


def needs_gpu(words: Sequence[str]) -> bool:
    """Whether the command line *words* asks for a GPU, or for many files without a word against it.

    It looks only at the words. Where it errs, the driver starts later, or for nothing.
    """
    named = dict(_options(words))
    if {"--cluster", "--dry-run", "--help", "-h"} & named.keys() or named.get("--engine") == "cpu":
        return False
    if {"--gpu", "--variant"} & named.keys() or named.get("--engine") == "cuda":
        return True
    if {"--retry-failed", "--shard"} & named.keys():
        return False  # these may be a few of the files
    there = [word for word in words[1:] if os.path.exists(word)]
    if not there:
        return False
    sources = there[:-1] or there  # the last of several may be the destination
    return len(first_files(sources)) > FEW


def wants_units(words: Sequence[str]) -> bool:
    """Whether the command line *words*, or a preset in the environment, asks for a GPU's JPEG
    units."""
    codec = dict(_options(words)).get("--codec")
    for command in (f"{words[0]}_".upper() if words else "", ""):
        codec = codec or os.environ.get(f"CUDAFILTER_{command}CODEC")
    return codec == "units"


def first_jpeg(words: Sequence[str]) -> str | None:
    """The image that the command line *words* begins with, if it is a JPEG that the CPU decodes.

    It looks only at the words. Where it errs, a picture is decoded later, or for nothing.
    """
    named = dict(_options(words))
    if _NOT_SURE & named.keys():
        return None
    first = next((word for word in words[1:] if word == STDIO or os.path.exists(word)), STDIO)
    if not os.path.isfile(first):
        return None
    # Elsewhere a GPU's own codec may take it. pillow is the former name of --codec cpu.
    on_cpu = named.get("--engine") == "cpu" or named.get("--codec") in {"cpu", "pillow"}
    return first if any_jpeg([first]) and (on_cpu or find_spec("pycuda") is None) else None


def _options(words: Sequence[str]) -> list[tuple[str, str]]:
    """Each of *words* as if it were an option, with what would be its value."""
    pairs = []
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        pairs.append((name, value if equals else following))
    return pairs


def first_files(sources: Sequence[str], most: int = FEW + 1) -> list[str]:
    """Names of up to *most* of the files that *sources* name, folders looked into."""
    return list(islice(_names(sources), most))


def are_worth_processes(count: int) -> bool:
    """Whether so many images may be worth several processes. No driver is asked."""
    return count >= MANY


def any_jpeg(names: Sequence[str]) -> bool:
    """Whether one of the files *names* is a JPEG by its name."""
    return any(name.lower().endswith(_JPEG) for name in names)


def _names(sources: Sequence[str]) -> Iterator[str]:
    waiting = list(reversed(sources))  # a list, not calls in calls, which a deep tree exhausts
    while waiting:
        source = waiting.pop()
        if not os.path.isdir(source):
            yield source
            continue
        # Entry by entry: a folder may hold a million, and the first few are enough.
        with suppress(OSError), os.scandir(source) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue  # left alone, as in every folder
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield entry.name
