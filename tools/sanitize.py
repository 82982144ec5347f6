"""A small run of every kernel variant, for NVIDIA's compute-sanitizer.

python tools/sanitize.py                       the run itself
python tools/sanitize.py memcheck racecheck    under each of these tools (make sanitize)

Odd sizes, all types, layouts and borders, a kernel larger than a chunk. Small images: racecheck
takes a thousand times the kernel's own time.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import subprocess
import sys
import zlib
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from compiled import compile_for, launches

from agreement import ALL_BORDERS, LAYOUTS, assert_agrees, random_pixels
from cudafilter.engines.cuda import deflate, screen
from cudafilter.engines.cuda.device import gpus
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.engines.cuda.variants import AUTO, CHOICES
from cudafilter.errors import EngineUnavailable, LimitError
from cudafilter.formats import png_filters
from cudafilter.nvidia.toolkit import find_toolkit
from cudafilter.operations import reference
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import DTYPES
from cudafilter.operations.rank import dilation, erosion, median, percentile
from cudafilter.operations.window import disk, square

TALL = make("box", radius=60)
"""Tall enough for sums that a walk starts with."""

FEW = "--few"
"""Argument for a third of the cases: racecheck takes thousands of times the kernels' own time."""


def sanitize(tools: list[str]) -> int:
    """This program under each of *tools*; 1 if one found a fault, 0 too where none can run."""
    try:
        gpus()
    except EngineUnavailable as reason:
        print(f"sanitize: skipped, {reason}")
        return 0
    toolkit = find_toolkit()
    program = shutil.which("compute-sanitizer") or (
        toolkit and shutil.which("compute-sanitizer", path=toolkit.root / "bin")
    )
    if not program:
        print("sanitize: skipped, no compute-sanitizer on PATH or in the CUDA toolkit")
        return 0
    compile_all()  # under the tools nvcc, a child of this program, would be slow as well
    faulty = False
    for tool in tools:
        print(f"sanitize: {tool}", flush=True)
        command = [program, "--tool", tool, "--error-exitcode", "1", sys.executable, __file__]
        if tool == "racecheck":
            command.append(FEW)
        faulty |= subprocess.run(command, check=False).returncode != 0
    return int(faulty)


def operations() -> list[Operation]:
    """What is run: every kernel's ways through its code."""
    rng = np.random.default_rng(0)
    weights, factors = rng.random((18, 5)), rng.random((2, 26, 2))
    return [
        make("blur", sigma=1),
        make("blur", sigma=7),
        make("kernel", weights=weights, normalize=True),
        make("sobel"),
        make("box", radius=8),
        make("kernel", weights=factors[0] @ factors[1].T, normalize=True),  # two terms for wide
        median(),
        median(4),
        median(6),
        percentile(2, 30),
        erosion(square(7)),
        dilation(square(45)),  # joined from smaller windows
        erosion(disk(3)),
        make("bilateral", sigma=1),
        make("bilateral", radius=18),
        make("denoise", strength=0.3, patch=5, search=7),
        make("denoise", patch=11, search=19),
        make("levels", black=0.1, gamma=2),
        make("threshold", otsu=True),
        make("canny"),
        Chain((Link(make("sharpen")), Link(make("sobel")), Link(make("levels", gamma=2)))),
    ]


CASES = [
    (dtype, channels, alpha, ALL_BORDERS[i % len(ALL_BORDERS)])
    for i, (channels, alpha) in enumerate(LAYOUTS)
    for dtype in (DTYPES[i % 3], DTYPES[(i + 1) % 3])
]
"""Kinds of pixels, and a border for each."""


def compile_all() -> None:
    """Compile what run() runs."""
    engine = CudaEngine()
    compile_for(
        engine,
        [
            launch
            for (dtype, channels, alpha, border), filter, variant in product(
                CASES, operations(), CHOICES
            )
            for launch in launches(filter, channels, dtype, border, alpha, variant)
        ],
    )
    engine.close()


def run(few: bool) -> None:
    """Every variant over all cases, or over every third."""
    filters = operations()
    runs = 0
    screen.LEAST_SAMPLES = 0
    for variant in CHOICES:
        engine = CudaEngine(variant=variant)
        for dtype, channels, alpha, border in CASES[:: 3 if few else 1]:
            pixels = random_pixels((37, 41, channels), dtype)
            for filter in filters:
                with contextlib.suppress(LimitError):  # not every variant takes every filter
                    assert_agrees(engine, pixels, filter, border, alpha)
                    runs += 1
                if variant == AUTO:
                    right = reference.apply(pixels, filter, border, alpha)
                    found = engine.screen(pixels, right, filter, border, alpha).screened
                    assert found is None or len(found.places) == 0
        tall = random_pixels((700, 300, 1), "uint8")
        with contextlib.suppress(LimitError):  # box then sums up its starts
            if engine.prepare(tall, TALL).scratch_bytes((700, 300), (700, 300), (0, 0), 1):
                assert_agrees(engine, tall, TALL)
                runs += 1
        engine.close()
    runs += compress(few)
    print(f"{runs} runs agree with the reference")


def compress(few: bool) -> int:
    """PNGs of all layouts, each several parts, and back; how many."""
    deflate.LEAST, deflate.LOST = 0, math.inf
    engine = CudaEngine()
    assert engine.png is not None
    shapes = product([8, 16], range(1, 5), [(1, 1), (60, 321), (3, 30_000 if not few else 999)])
    runs = 0
    for bits, channels, shape in shapes:
        pixels = random_pixels((*shape, channels), f"uint{bits}")
        pixels[:, shape[1] // 2 :] >>= bits - 2  # half of it is noise
        done = engine.png.deflate(pixels)
        assert done.pieces is not None
        rows = png_filters.filtered(pixels, 0, len(pixels), level=6)
        assert zlib.decompress(b"".join(map(bytes, done.pieces))) == rows.tobytes()
        back = engine.png.unfilter(rows.reshape(-1).data, pixels.shape, pixels.itemsize).pixels
        assert back is not None
        assert np.array_equal(back, pixels)
        runs += 1
    engine.close()
    return runs


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] != FEW:
        sys.exit(sanitize(sys.argv[1:]))
    run(few=len(sys.argv) > 1)
