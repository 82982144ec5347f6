"""The process ``cudafilter``: the command line, and what starts before it is imported."""

from __future__ import annotations

import sys

from cudafilter.start import interrupt

if __name__ == "__main__" or sys.argv[0].endswith("cudafilter"):  # else it is somebody else's
    interrupt.install()

# Whatever else is imported, Ctrl-C is answered by now.
import os

from cudafilter.start import early


def main() -> None:
    """The console script."""
    try:
        interrupt.is_caught()
        _hold_streams()
        _set_libraries()
        early.begin(sys.argv[1:])
        from cudafilter.cli import main

        main()
    except KeyboardInterrupt:
        interrupt.leave()
    except ImportError as error:  # of what the command line itself is made of
        from cudafilter.errors import in_words

        told, hint = in_words(error)
        sys.exit(f"error: {told}\nhint: {hint}")


def _hold_streams() -> None:
    """Open stdin, stdout and stderr on the null device where the shell closed them.

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
    # NumPy's BLAS starts one thread a core; the check, which needs it, has threads of its own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


if __name__ == "__main__":
    main()
