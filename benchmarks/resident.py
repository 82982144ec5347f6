"""Pixels of CuPy to pixels of CuPy: the whole call beside its kernel, and beside CuPy's own.

Prints JSON. 3x3 on gray uint8; medians in milliseconds, after a warm-up and a check of the result.
Needs a GPU and CuPy.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import cudafilter
from cudafilter.engines.cuda.engine import CudaEngine

SIDE, REPEATS, IN_A_ROW = 8192, 30, 100
WEIGHTS = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def main() -> None:
    """Measure and print."""
    import cupy
    from cupyx.scipy import ndimage

    rng = cupy.random.default_rng(0)
    pixels = rng.integers(0, 256, (SIDE, SIDE), dtype=cupy.uint8)
    out, theirs = cupy.empty_like(pixels), cupy.empty_like(pixels)
    filter = cudafilter.make("kernel", weights=WEIGHTS, normalize=True)
    weights = cupy.asarray(WEIGHTS, cupy.float32) / 16
    engine = CudaEngine(codec="cpu")
    finish = cupy.cuda.get_current_stream().synchronize

    def into_out() -> Any:
        return cudafilter.apply(pixels, filter, engine=engine, out=out)

    def into_new() -> Any:
        return cudafilter.apply(pixels, filter, engine=engine)

    def by_ndimage() -> Any:
        return ndimage.correlate(pixels, weights, output=theirs, mode="nearest")

    def by_the_host() -> Any:
        return cupy.asarray(cudafilter.apply(cupy.asnumpy(pixels), filter, engine=engine))

    host = cupy.asnumpy(pixels)
    assert cudafilter.compare(into_out(), host, filter, quick=True).ok
    by_ndimage()
    off = cupy.abs(out.astype(cupy.int16) - theirs.astype(cupy.int16)).max()
    assert int(off) <= 1  # they truncate

    def median(call: Callable[[], Any], count: int = 1) -> float:
        def once() -> float:
            finish()
            started = time.perf_counter()
            for _ in range(count):
                call()
            finish()
            return 1e3 * (time.perf_counter() - started) / count

        return statistics.median(once() for _ in range(3 + REPEATS // count))

    def queueing() -> float:
        """Of a call, without what it queues."""
        times = []
        for _ in range(REPEATS):
            finish()
            started = time.perf_counter()
            into_out()
            times.append(1e3 * (time.perf_counter() - started))
        return statistics.median(times)

    _, kernel = engine.time_kernel(host[..., None], filter)
    copy = engine.time_copy(host.nbytes)
    small = cupy.ascontiguousarray(pixels[:64, :64])
    found = {
        "gpu": engine.title, "image": f"{SIDE}x{SIDE} gray uint8, 3x3",
        "kernel": statistics.median(kernel), "copy": statistics.median(copy),
        "call, out=": median(into_out), "call, new": median(into_new),
        f"of {IN_A_ROW} calls, out=": median(into_out, IN_A_ROW),
        f"of {IN_A_ROW} calls, new": median(into_new, IN_A_ROW),
        "queueing": queueing(),
        "64x64": median(lambda: cudafilter.apply(small, filter, engine=engine)),
        "ndimage, output=": median(by_ndimage),
        f"of {IN_A_ROW} of ndimage": median(by_ndimage, IN_A_ROW),
        "by the host": median(by_the_host),
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    engine.close()


if __name__ == "__main__":
    main()
