"""Non-local means beside the time of their exponentials, and OpenCV's.

    python benchmarks/denoise.py [--only SUBSTRING] [--no-peers]

All of a small image and some rows of each large result are held to the definition before its time
counts. OpenCV's times are of its CUDA module where it has one, and of its CPU code, which runs on
a 64th of the image.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import NamedTuple

import cv2
import numpy as np

from cudafilter import check
from cudafilter.engines.bench import random_image
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.errors import CudafilterError, DisagreementError
from cudafilter.operations.borders import Border
from cudafilter.operations.denoise import Denoise
from cudafilter.operations.pixels import Pixels

ROWS, SMALL = 8, 197
"""Rows of a large result, and side of an image, that are verified."""

EXPONENTIALS = 132 * 16 * 1.98e9
"""A second on an H100 at its highest clock."""


class Work(NamedTuple):
    """A row of the table."""

    side: int
    channels: int
    patch: int
    search: int
    dtype: str = "uint8"
    strength: float = 0.4
    """Noise over the full scale differs by 0.4."""

    @property
    def filter(self) -> Denoise:
        """What is timed."""
        return Denoise(self.strength, self.patch, self.search)

    @property
    def title(self) -> str:
        """What the table calls it."""
        return (
            f"{self.side}x{self.side} {self.dtype} {'gray' if self.channels == 1 else 'RGB'},"
            f" patch {self.patch}, search {self.search}"
        )


WORKS = (
    *(Work(8192, 1, patch, search) for patch, search in ((7, 21), (3, 21), (5, 21), (11, 21))),
    *(Work(8192, 1, patch, search) for patch, search in ((3, 7), (5, 11), (7, 35))),
    *(Work(4096, 3, patch, search) for patch, search in ((7, 21), (3, 21), (5, 21), (11, 21))),
    *(Work(4096, 3, patch, search) for patch, search in ((3, 7), (5, 35))),
    Work(8192, 1, 7, 21, "uint16"), Work(8192, 1, 7, 21, "float32"),
    Work(4096, 3, 7, 21, "uint16"), Work(4096, 3, 7, 21, "float32"),
)  # fmt: skip


def verify(engine: CudaEngine, filter: Denoise, pixels: Pixels, result: Pixels) -> None:
    """Raise DisagreementError where a small image, or some rows of *result*, are wrong."""
    small = np.ascontiguousarray(pixels[:SMALL, : SMALL - 4])
    agreement = check.compare(engine.run(small, filter).pixels, small, filter)
    halo, height = filter.halo, len(pixels)
    for first in (0, height // 2, height - ROWS):
        if not agreement.ok:
            raise DisagreementError(str(agreement))
        top, bottom = max(0, first - halo), min(height, first + ROWS + halo)
        # Where the rows end inside the image, what a border adds is never looked at.
        agreement = check.compare_rows(
            result[first : first + ROWS], first - top, pixels[top:bottom], filter, Border(), False
        )
    if not agreement.ok:
        raise DisagreementError(str(agreement))


def opencv(work: Work, pixels: Pixels) -> dict[str, float]:
    """Milliseconds for the whole image, by part of OpenCV."""
    found: dict[str, float] = {}
    if work.dtype != "uint8":
        return found
    h, size = 255 * work.strength, (work.patch, work.search)
    part = np.ascontiguousarray(pixels[: work.side // 8, : work.side // 8])
    started = time.perf_counter()
    cv2.fastNlMeansDenoising(part, None, h, *size)
    found["OpenCV CPU"] = 64e3 * (time.perf_counter() - started)
    cuda = getattr(cv2, "cuda", None)
    if cuda is not None and cuda.getCudaEnabledDeviceCount():
        image = cuda.GpuMat(pixels)
        for _ in range(2):
            started = time.perf_counter()
            cuda.fastNlMeansDenoising(image, h, search_window=work.search, block_size=work.patch)
            found["OpenCV CUDA"] = 1e3 * (time.perf_counter() - started)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="rows with this in their title")
    parser.add_argument("--no-peers", action="store_true")
    given = parser.parse_args()
    engine = CudaEngine()
    print(engine.title)
    for work in (work for work in WORKS if given.only in work.title):
        random = np.random.default_rng(0)
        pixels = random_image(random, work.side, work.dtype, work.channels)
        try:
            result, times = engine.time_kernel(pixels, work.filter, repeats=5)
            verify(engine, work.filter, pixels, result)
        except CudafilterError as error:
            print(f"{work.title}: FAILED {error}", flush=True)
            continue
        least = 1e3 * work.side**2 * work.filter.others / EXPONENTIALS
        ms, copy = statistics.median(times), statistics.median(engine.time_copy(pixels.nbytes))
        peers = {} if given.no_peers else opencv(work, pixels)
        told = "".join(f"; {name} {value:.0f}" for name, value in peers.items())
        print(
            f"{work.title}: {ms:.2f} ms, verified; exponentials {least:.2f}; copy {copy:.3f}{told}",
            flush=True,
        )
    engine.close()


if __name__ == "__main__":
    main()
