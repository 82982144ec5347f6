"""A small run of every kernel variant, to be put under compute-sanitizer (see `make sanitize`).

Odd sizes, all types, layouts and borders, a kernel larger than a chunk. Small images: racecheck
takes a thousand times the kernel's own time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from agreement import ALL_BORDERS, LAYOUTS, assert_agrees, random_pixels
from cudafilter.catalogue import VARIANTS
from cudafilter.engines.cuda import CudaEngine
from cudafilter.filter import make
from cudafilter.pixels import DTYPES


def main() -> None:
    weights = np.random.default_rng(0).random((18, 5))
    filters = [
        make("blur", sigma=1),
        make("kernel", weights=weights, normalize=True),
        make("sobel"),
    ]
    cases = [
        (dtype, channels, alpha, ALL_BORDERS[i % len(ALL_BORDERS)])
        for i, (channels, alpha) in enumerate(LAYOUTS)
        for dtype in (DTYPES[i % 3], DTYPES[(i + 1) % 3])
    ]
    runs = 0
    for variant in VARIANTS:
        engine = CudaEngine(variant=variant)
        for dtype, channels, alpha, border in cases:
            pixels = random_pixels((37, 41, channels), dtype)
            for filter in filters:
                if variant != "separable" or filter.rank1:
                    assert_agrees(engine, pixels, filter, border, alpha)
                    runs += 1
        engine.close()
    print(f"{runs} runs agree with the reference")


if __name__ == "__main__":
    main()
