"""Many images in one process, each one checked: none may be wrong, and memory must stay flat.

    python tools/soak.py --count 20000                  on the GPU, or the CPU where there is none
    python tools/soak.py --seconds 600 --engine cpu
    python tools/soak.py --only 7:1234                  one image of seed 7 again

Filters, sizes, sample types, layouts, borders and contents are drawn at random, on a GPU its
variants too. Kernels are compiled ahead, all cores at it, a lot of images at a time. Of every tenth
result one bit is flipped, its sample's highest, and that must be found. Prints counts, and what
memory the process and the GPU hold after the first lot, a tenth of the images, and at the end.
Exits 1 where one is wrong, a flip was missed, or memory grew by more than a tenth and 64 MiB in the
second half.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from compiled import compile_for, launches

from agreement import LAYOUTS, random_pixels
from cudafilter.check import compare
from cudafilter.engines import Engine
from cudafilter.engines.cuda.variants import AUTO, CHOICES
from cudafilter.engines.cuda.variants.task import Launch
from cudafilter.engines.open import open_engine
from cudafilter.errors import EngineUnavailable, LimitError
from cudafilter.host.cores import cores, in_work
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.choices import BORDERS
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import DTYPES, Pixels

LOT = 2000
"""Most images whose kernels are compiled together."""

FLIPPED = 10
"""One result in so many has a bit flipped."""

_RANDOM = np.random.default_rng(5)
OPERATIONS: tuple[Operation, ...] = (
    make("blur", sigma=1), make("blur"), make("blur", sigma=6), make("blur", sigma=25),
    make("box"), make("box", radius=30), make("sharpen"), make("sharpen", amount=5),
    make("unsharp"), make("unsharp", sigma=4, threshold=0.05), make("sobel"), make("scharr"),
    make("prewitt", scale=0.25), make("laplacian"), make("emboss"),
    make("median"), make("median", radius=4), make("percentile", rank=20, radius=2),
    make("erode"), make("dilate", radius=5), make("open", shape="disk", radius=3), make("close"),
    make("tophat"), make("outline"),
    make("bilateral", sigma=1), make("bilateral", range=0.4, radius=9),
    make("denoise"), make("denoise", strength=0.3, patch=3, search=7),
    make("invert"), make("levels", black=0.1, gamma=2), make("threshold", at=0.4),
    make("threshold", otsu=True), make("canny", sigma=1.5, low=0.3, high=0.7),
    make("kernel", weights="0 1 0; 1 -3 1; 0 1 0"),
    make("kernel", weights=_RANDOM.random((9, 7)), normalize=True),
    make("kernel", weights=_RANDOM.random((25, 25)), normalize=True),
    Chain((Link(make("blur", sigma=1)), Link(make("sobel"), Border("wrap")))),
    Chain((Link(make("sharpen")), Link(make("laplacian")), Link(make("levels", gamma=2)))),
    Chain((Link(make("levels", gamma=0.7)), Link(make("blur", sigma=1)), Link(make("threshold")))),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One image and what becomes of it; its number and the seed make it again."""

    number: int
    operation: Operation
    border: Border
    alpha: bool
    variant: str
    pixels: Callable[[], Pixels] = field(repr=False)
    size: tuple[int, int]
    dtype: str
    channels: int


def case(seed: int, number: int, variants: Sequence[str]) -> Case:
    """The case *number* of *seed*, for engines with these *variants*."""
    draw = random.Random(f"{seed}:{number}")
    channels, alpha = draw.choice(LAYOUTS)
    dtype = draw.choice(DTYPES)
    size = _side(draw), _side(draw)
    kind = draw.choice(("noise", "noise", "flat", "ramp", "points"))
    return Case(
        number,
        draw.choice(OPERATIONS),
        Border(mode := draw.choice(BORDERS), 0.3 if mode == "constant" else 0.0),
        alpha,
        draw.choice(variants),
        lambda: _pixels(kind, (*size, channels), dtype, number),
        size,
        dtype,
        channels,
    )


def _side(draw: random.Random) -> int:
    """From 1 to 700 pixels, small sides as often as large ones."""
    return int(700 ** draw.uniform(0, 1))


def _pixels(kind: str, shape: tuple[int, int, int], dtype: str, seed: int) -> Pixels:
    pixels = random_pixels(shape, dtype, seed)
    if kind == "flat":
        pixels[...] = pixels[0, 0]
    elif kind == "ramp":
        steps = np.linspace(0, 1, shape[1])[None, :, None]
        pixels[...] = steps if dtype == "float32" else steps * np.iinfo(dtype).max
    elif kind == "points":
        pixels[np.random.default_rng(seed).random(shape) < 0.98] = 0
    return pixels


class Engines:
    """What runs the cases: the CPU engine, or an engine for each variant on one GPU."""

    def __init__(self, name: str, gpu: int) -> None:
        self._engines: dict[str, Engine] = {}
        self._cuda: Any = None
        self.variants: tuple[str, ...] = (AUTO,)
        if name != "cpu":
            from cudafilter.engines.cuda.engine import CudaEngine

            try:
                for variant in CHOICES:
                    engine = CudaEngine(gpu, variant, slots=2, codec="cpu")
                    self._engines[variant] = self._cuda = engine
                self.variants = CHOICES
            except EngineUnavailable as unavailable:
                if name == "cuda":
                    raise
                print(f"no CUDA: {unavailable}", flush=True)
        if self._cuda is None:
            self._engines[AUTO] = open_engine("cpu")
        self.title = self._engines[AUTO].title

    def run(self, case: Case, pixels: Pixels) -> tuple[Pixels, str]:
        """The result, and the variant that gave it: ``auto`` does what its variant refuses."""
        for variant in (case.variant, AUTO):
            try:
                engine = self._engines[variant]
                return engine.run(pixels, case.operation, case.border, case.alpha).pixels, variant
            except LimitError:
                if variant == AUTO:
                    raise
        raise AssertionError

    def compile(self, cases: Sequence[Case]) -> None:
        """Bring the kernels of *cases* into the cache, all cores at it."""
        if self._cuda is None:
            return
        wanted: list[Launch] = []
        for case in cases:
            what = case.operation, case.channels, case.dtype, case.border, case.alpha
            wanted += launches(*what, case.variant) or launches(*what, AUTO)
        compile_for(self._cuda, wanted)

    def gpu_bytes(self) -> int:
        """Memory of the GPU that is not free."""
        if self._cuda is None:
            return 0
        with self._cuda._device.current():
            free, total = self._cuda._device.cuda.mem_get_info()
        return int(total) - int(free)

    def pinned_bytes(self) -> int:
        """Pinned memory of all engines. It grows to the largest image that each one has met."""
        if self._cuda is None:
            return 0
        slots = [slot for engine in self._engines.values() for slot in engine._device.slots._free]  # type: ignore[attr-defined]
        chunks = [chunk for slot in slots for chunk in (*slot._up, *slot._down)]
        return sum(chunk._pinned.nbytes for chunk in chunks if chunk._pinned is not None)

    def close(self) -> None:
        """Close all."""
        for engine in self._engines.values():
            engine.close()


@dataclass
class Counts:
    """What was found."""

    images: int = 0
    samples: int = 0
    wrong: int = 0
    flipped: int = 0
    caught: int = 0
    variants: Counter[str] = field(default_factory=Counter)
    """How often each one was run."""


class Finding(NamedTuple):
    """What one image showed."""

    variant: str
    samples: int
    wrong: str | None = None
    """What is wrong with the result, if anything is."""
    caught: bool | None = None
    """Whether a flipped bit was found; None where none was flipped."""


def examine(case: Case, engines: Engines) -> Finding:
    """Run and check *case*."""
    pixels = case.pixels()
    got, variant = engines.run(case, pixels)
    found = compare(got, pixels, case.operation, case.border, case.alpha)
    if not found.ok:
        return Finding(variant, pixels.size, f"WRONG: {case}: {found}")
    if case.number % FLIPPED:
        return Finding(variant, pixels.size)
    flipped = got.copy()
    view = flipped.view(f"u{flipped.itemsize}").reshape(-1)
    top = 8 * flipped.itemsize - 1 - (flipped.dtype.kind == "f")  # a float's first is its sign
    view[case.number % view.size] ^= 1 << top
    found = compare(flipped, pixels, case.operation, case.border, case.alpha)
    return Finding(variant, pixels.size, caught=not found.ok)


def process_bytes() -> int:
    """Memory that the process has resident."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    return 0


def soak(
    engines: Engines, seed: int, images: int | None, seconds: float | None, threads: int
) -> tuple[Counts, list[tuple[int, int]], float]:
    """Do *images*, or for *seconds*: the counts, memory (process, GPU) and the seconds it took."""
    counts, worked = Counts(), 0.0
    memory: list[tuple[int, int]] = []
    numbers: Iterator[int] = count() if images is None else iter(range(images))
    size = LOT if images is None else min(LOT, max(1, images // 10))
    in_work(threads)
    while lot := [case(seed, n, engines.variants) for n in islice(numbers, size)]:
        engines.compile(lot)
        started = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            for each, found in zip(
                lot, pool.map(lambda case: examine(case, engines), lot), strict=True
            ):
                add(counts, each, found)
        worked += time.perf_counter() - started
        memory.append((process_bytes(), engines.gpu_bytes()))
        print(
            f"  {counts.images:,} images, {counts.wrong} wrong, {worked:.0f} s,"
            f" {memory[-1][0] >> 20} MiB ({engines.pinned_bytes() >> 20} pinned),"
            f" GPU {memory[-1][1] >> 20} MiB",
            flush=True,
        )
        if seconds is not None and worked >= seconds:
            break
    return counts, memory, worked


def add(counts: Counts, case: Case, found: Finding) -> None:
    """Count *found*; tell what is wrong."""
    counts.images += 1
    counts.samples += found.samples
    counts.variants[found.variant] += 1
    if found.wrong:
        counts.wrong += 1
        print(found.wrong, flush=True)
    if found.caught is not None:
        counts.flipped += 1
        counts.caught += found.caught
        if not found.caught:
            print(f"MISSED: {case}: a flipped bit", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak as *arguments* say; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--count", type=int, help="images; 1000 unless --seconds is given")
    parser.add_argument("--seconds", type=float, help="go on for so long, lot by lot")
    parser.add_argument("--engine", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--gpu", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=min(8, cores()))
    parser.add_argument("--only", metavar="SEED:NUMBER", help="one image again")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args(arguments)
    engines = Engines(given.engine, given.gpu)
    if given.only:
        seed, number = map(int, given.only.split(":"))
        found = examine(case(seed, number, engines.variants), engines)
        print(found.wrong or ("MISSED: a flipped bit" if found.caught is False else "right"))
        engines.close()
        return int(found.wrong is not None or found.caught is False)
    images = given.count or (None if given.seconds else 1000)
    print(f"soak: {engines.title}, seed {given.seed}", flush=True)
    counts, memory, seconds = soak(engines, given.seed, images, given.seconds, given.threads)
    engines.close()
    (first, gpu_first), (last, gpu_last) = memory[0], memory[-1]
    half, gpu_half = memory[len(memory) // 2]  # buffers and caches are full by then
    figures = {
        "engine": engines.title,
        "seed": given.seed,
        "images": counts.images,
        "samples": counts.samples,
        "wrong": counts.wrong,
        "flipped": counts.flipped,
        "caught": counts.caught,
        "seconds": round(seconds, 1),
        "process_mib": [first >> 20, last >> 20],
        "gpu_mib": [gpu_first >> 20, gpu_last >> 20],
        "variants": dict(sorted(counts.variants.items())),
    }
    print(
        f"{counts.images:,} images, {counts.samples:,} samples, {seconds:.0f} s: {counts.wrong}"
        f" wrong; {counts.caught:,} of {counts.flipped:,} flipped bits caught"
    )
    print(f"memory, MiB, after the first lot and at the end: process {figures['process_mib']},"
          f" GPU {figures['gpu_mib']}")  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    grown = [
        what
        for what, before, after in (("process", half, last), ("GPU", gpu_half, gpu_last))
        if after > 1.1 * before + (64 << 20)
    ]
    for what in grown:
        print(f"GREW: memory of the {what}")
    return int(bool(counts.wrong or counts.caught < counts.flipped or grown))


if __name__ == "__main__":
    sys.exit(main())
