"""The process ``cudafilter``: the command line, and what starts before it is imported."""

from __future__ import annotations

import sys

from cudafilter import interrupt

if __name__ == "__main__" or sys.argv[0].endswith("cudafilter"):  # else it is somebody else's
    interrupt.install()

# Whatever else is imported, Ctrl-C is answered by now.
import gc
import os
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from itertools import zip_longest

_NOT_SURE = {"--dry-run", "--existing", "--watch", "--help", "-h"}
"""Options under which the first image may not be wanted."""


def main() -> None:
    """The console script."""
    try:
        interrupt.is_caught()
        _hold_streams()
        _set_libraries()
        _start_early(sys.argv[1:])
        from cudafilter.cli import main

        main()
    except KeyboardInterrupt:
        interrupt.leave()


def _start_early(words: Sequence[str]) -> None:
    """Begin what the command line *words* is likely to need.

    It is a guess. What is wrong with it, or fails, fails again where it is needed, which tells why.
    """
    with suppress(Exception):
        _decode_ahead(words)
    with suppress(Exception):
        _wake_driver(words)


def _hold_streams() -> None:
    """Open what of stdin, stdout and stderr is closed, on nothing.

    Else the next file opened takes its number, and gets what libraries write to that.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _set_libraries() -> None:
    """What libraries read from the environment as they are loaded, unless the user has set it."""
    # What OpenCV and Pillow say of a damaged image, our own error tells in one line.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    # Its threads, which spin while they wait, took a quarter of 16 cores' time beside ours.
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
    # NumPy's BLAS starts one thread a core, and nothing here multiplies large matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # The driver makes eight hardware queues for a context. Two serve as well, and make it in 70 ms
    # in place of 120, and end it in 75 in place of 100.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "2")


def _decode_ahead(words: Sequence[str]) -> None:
    """Begin to decode the first image of the command line *words*, if it is such a JPEG.

    The sooner the decoder works beside the imports, the sooner all is done: a tenth of a
    12-megapixel JPEG's command, compared with a start after the options are parsed.
    """
    first = first_jpeg(words)
    if first is None:
        return
    gc.disable()  # imports leave no garbage, and looking for it took a tenth of their time
    try:
        from cudafilter import ahead

        ahead.begin(first)
    finally:
        gc.enable()


def _wake_driver(words: Sequence[str]) -> None:
    """Begin to start the GPU's driver, if the command line *words* is sure to need it."""
    if find_spec("pycuda") is not None and needs_gpu(words):
        from cudafilter.wake import wake_driver

        wake_driver()


def needs_gpu(words: Sequence[str]) -> bool:
    """Whether the command line *words* asks for a GPU, or for many files without a word against it.

    By a look only at the words: where it errs, the driver starts later, or for nothing.
    """
    named = dict(_options(words))
    if {"--dry-run", "--help", "-h"} & named.keys() or named.get("--engine") == "cpu":
        return False
    if {"--gpu", "--variant"} & named.keys() or named.get("--engine") == "cuda":
        return True
    there = [word for word in words[1:] if os.path.exists(word)]
    if not there:
        return False
    from cudafilter.wake import FEW, first_files

    sources = there[:-1] or there  # the last of several may be the destination
    return len(first_files(sources)) > FEW


def first_jpeg(words: Sequence[str]) -> str | None:
    """The image that the command line *words* begins with, if it is a JPEG that the CPU decodes.

    By a look only at the words: where it errs, a picture is decoded later, or for nothing.
    """
    named = dict(_options(words))
    if _NOT_SURE & named.keys():
        return None
    first = next((word for word in words[1:] if word == "-" or os.path.exists(word)), "-")
    if not os.path.isfile(first):
        return None
    from cudafilter.wake import any_jpeg

    # Elsewhere a GPU's own codec may take it.
    on_cpu = named.get("--engine") == "cpu" or named.get("--codec") == "pillow"
    return first if any_jpeg([first]) and (on_cpu or find_spec("pycuda") is None) else None


def _options(words: Sequence[str]) -> list[tuple[str, str]]:
    """What of *words* may be an option, with what may be its value."""
    pairs = []
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        pairs.append((name, value if equals else following))
    return pairs


if __name__ == "__main__":
    main()
