"""The tutorial's ladder beside cuDNN: a 7x7 Gaussian and a dense 7x7 at 8192x8192.

    python benchmarks/ladder.py [SIDE]

Device-resident random float32 gray; CUDA events, medians of 15 after 3 warm-ups; every result is
verified before it is timed. Prints the README's table. Needs a GPU and PyTorch with cuDNN.
"""

from __future__ import annotations

import statistics
import sys

import numpy as np
import torch
import torch.nn.functional as F

from cudafilter.catalogue import VARIANTS
from cudafilter.check import compare
from cudafilter.engines.cuda import CudaEngine
from cudafilter.filter import Filter, make
from cudafilter.pixels import Pixels

SIDE = int(sys.argv[1]) if len(sys.argv) > 1 else 8192

torch.backends.cudnn.benchmark = True  # cuDNN picks its fastest algorithm...
torch.backends.cudnn.allow_tf32 = False  # ...in float32, as ours


def time_torch(pixels: Pixels, filter: Filter) -> list[tuple[str, float]]:
    """cuDNN's milliseconds for *filter*: dense, and as two passes where it is separable."""
    image = torch.from_numpy(pixels[..., 0]).cuda()[None, None]
    (kernel,) = filter.kernels
    rows, columns = kernel.shape

    def weights(array: np.ndarray) -> torch.Tensor:
        return torch.tensor(array, dtype=torch.float32, device="cuda")[None, None]

    dense = weights(kernel.weights)
    forms = {"cuDNN conv2d, dense": lambda: F.conv2d(image, dense, padding=(rows // 2, columns // 2))}
    if kernel.factors is not None:
        column, row = weights(kernel.factors[0][:, None]), weights(kernel.factors[1][None, :])
        forms["cuDNN conv2d, two passes"] = lambda: F.conv2d(
            F.conv2d(image, column, padding=(rows // 2, 0)), row, padding=(0, columns // 2)
        )
    found = []
    for name, form in forms.items():
        out = form()[0, 0].cpu().numpy()[..., None]
        inner = slice(rows, -rows)
        expected = compare_inner(pixels, filter)
        assert np.abs(out[inner, inner] - expected[inner, inner]).max() < 1e-4, name
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


_verified: dict[str, Pixels] = {}


def compare_inner(pixels: Pixels, filter: Filter) -> Pixels:
    """Our own verified result, to compare cuDNN's interior with."""
    return _verified[filter.name]


def main() -> None:
    random = np.random.default_rng(0)
    pixels = random.random((SIDE, SIDE, 1), dtype=np.float32)
    dense = make("kernel", weights=random.standard_normal((7, 7)) / 20)
    filters = {"Gaussian 7x7": make("blur", sigma=1, radius=3), "dense 7x7": dense}
    for title, filter in filters.items():
        rows: list[tuple[str, float]] = []
        for variant in VARIANTS[1:]:
            if variant == "separable" and not filter.rank1:
                continue
            engine = CudaEngine(variant=variant)
            result, times = engine.time_kernel(pixels, filter)
            agreement = compare(result, pixels, filter)
            assert agreement.ok, agreement
            _verified[filter.name] = result
            rows.append((variant, statistics.median(times)))
            copy = statistics.median(engine.time_copy(pixels.nbytes))
            name = engine.title
            engine.close()
        rows += time_torch(pixels, filter)
        print(f"\n{title}, {SIDE}x{SIDE} float32 gray, {name}; copy {copy:.3f} ms\n")
        print("| step | ms | GB/s | x copy | x vanilla |\n|---|---|---|---|---|")
        for step, ms in rows:
            print(
                f"| {step} | {ms:.3f} | {2 * pixels.nbytes / ms / 1e6:.0f} | {ms / copy:.2f}"
                f" | {rows[0][1] / ms:.2f} |"
            )


if __name__ == "__main__":
    main()
