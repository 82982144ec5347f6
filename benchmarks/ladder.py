"""The tutorial's ladder beside cuDNN: a 7x7 Gaussian and a dense 7x7 at 8192x8192.

    python benchmarks/ladder.py [SIDE]

Device-resident random float32 gray; CUDA events, medians of 15 after 3 warm-ups; every result is
verified before it is timed. Prints the table of docs/ladder.md. Needs a GPU and PyTorch with cuDNN.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from cudafilter.check import compare
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.engines.cuda.variants import LADDER
from cudafilter.errors import LimitError
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.make import make
from cudafilter.operations.pixels import Pixels

SIDE = int(sys.argv[1]) if len(sys.argv) > 1 else 8192

torch.backends.cudnn.benchmark = True  # cuDNN picks its fastest algorithm...
torch.backends.cudnn.allow_tf32 = False  # ...in float32, as ours


def time_torch(pixels: Pixels, filter: Correlation, verified: Pixels) -> list[tuple[str, float]]:
    """cuDNN's milliseconds: dense, and as two passes where the kernel is separable.

    Its results are compared with *verified* first, away from the border, where it pads with 0.
    """
    image = torch.from_numpy(pixels[..., 0]).cuda()[None, None]
    (kernel,) = filter.kernels
    rows, columns = kernel.shape

    def weights(array: np.ndarray) -> torch.Tensor:
        return torch.tensor(array, dtype=torch.float32, device="cuda")[None, None]

    dense = weights(kernel.weights)
    forms: dict[str, Callable[[], torch.Tensor]] = {
        "cuDNN conv2d, dense": lambda: F.conv2d(image, dense, padding=(rows // 2, columns // 2))
    }
    if kernel.factors is not None:
        column, row = weights(kernel.factors[0][:, None]), weights(kernel.factors[1][None, :])
        forms["cuDNN conv2d, two passes"] = lambda: F.conv2d(
            F.conv2d(image, column, padding=(rows // 2, 0)), row, padding=(0, columns // 2)
        )
    found = []
    for name, form in forms.items():
        inner = slice(rows, -rows), slice(columns, -columns), slice(None)
        out = form()[0, 0].cpu().numpy()[..., None]
        assert np.abs(out[inner] - verified[inner]).max() < 1e-4, name
        times = []
        for i in range(18):
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            form()
            stop.record()
            stop.synchronize()
            if i >= 3:
                times.append(start.elapsed_time(stop))
        found.append((name, statistics.median(times)))
    return found


def main() -> None:
    random = np.random.default_rng(0)
    pixels = random.random((SIDE, SIDE, 1), dtype=np.float32)
    dense = make("kernel", weights=random.standard_normal((7, 7)) / 20)
    engine = CudaEngine()
    copy = statistics.median(engine.time_copy(pixels.nbytes))
    for title, filter in {"Gaussian 7x7": make("blur", sigma=1), "dense 7x7": dense}.items():
        rows: list[tuple[str, float]] = []
        for variant in LADDER:
            engine.variant = variant
            try:
                result, times = engine.time_kernel(pixels, filter)
            except LimitError:
                continue  # separable, and a dense kernel
            agreement = compare(result, pixels, filter)
            assert agreement.ok, agreement
            rows.append((variant, statistics.median(times)))
        rows += time_torch(pixels, filter, result)
        print(f"\n{title}, {SIDE}x{SIDE} float32 gray, {engine.title}; copy {copy:.3f} ms\n")
        print("| step | ms | GB/s | x copy | x vanilla |\n|---|---|---|---|---|")
        for step, ms in rows:
            print(
                f"| {step} | {ms:.3f} | {2 * pixels.nbytes / ms / 1e6:.0f} | {ms / copy:.2f}"
                f" | {rows[0][1] / ms:.2f} |"
            )
    engine.close()


if __name__ == "__main__":
    main()
