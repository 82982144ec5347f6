"""Many images by one engine, each one checked: none may be wrong, and memory must stay flat.

    python tools/soak.py --count 20000                  on the GPU, or the CPU where there is none
    python tools/soak.py --seconds 600 --engine cpu
    python tools/soak.py --only 7:1234                  one image of seed 7 again

Filters, sizes, sample types, layouts, borders and contents are drawn at random, on a GPU its
variants too. Kernels are compiled ahead, all cores at it, a lot of images at a time. One process
has the engine, as the command has it; others judge its results. Of every tenth result one bit is
flipped, its sample's highest, and that must be found. Prints counts, and what memory the engine's
process, the GPU and the largest judge hold after the first lot, past half, and at the end. Exits 1
where one is wrong, a flip was missed, or memory grew by more than a tenth and 64 MiB in the second
half.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from multiprocessing import get_context
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
from cudafilter.host.cores import cores, in_work, limit
from cudafilter.host.memory import keep_freed_memory
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
    kind: str
    size: tuple[int, int]
    dtype: str
    channels: int

    def pixels(self) -> Pixels:
        """The image, made anew."""
        shape = *self.size, self.channels
        pixels = random_pixels(shape, self.dtype, self.number)
        if self.kind == "flat":
            pixels[...] = pixels[0, 0]
        elif self.kind == "ramp":
            steps = np.linspace(0, 1, shape[1])[None, :, None]
            pixels[...] = steps if self.dtype == "float32" else steps * np.iinfo(self.dtype).max
        elif self.kind == "points":
            pixels[np.random.default_rng(self.number).random(shape) < 0.98] = 0
        return pixels


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
        kind,
        size,
        dtype,
        channels,
    )


def _side(draw: random.Random) -> int:
    """From 1 to 700 pixels, small sides as often as large ones."""
    return int(700 ** draw.uniform(0, 1))


class OneEngine:
    """The one engine that runs all cases: the CPU's, or a GPU's, which takes variants by turns."""

    def __init__(self, name: str, gpu: int) -> None:
        self._cuda: Any = None
        self.variants: tuple[str, ...] = (AUTO,)
        if name != "cpu":
            from cudafilter.engines.cuda.engine import CudaEngine

            try:
                self._cuda = CudaEngine(gpu, codec="cpu")
                self.variants = CHOICES
            except EngineUnavailable as unavailable:
                if name == "cuda":
                    raise
                print(f"no CUDA: {unavailable}", flush=True)
        self._engine: Engine = self._cuda or open_engine("cpu")
        self.title = self._engine.title

    def use(self, variant: str) -> None:
        """Run the next cases with *variant*; while none is under way."""
        if self._cuda is not None:
            self._cuda.variant = variant

    def run(self, case: Case) -> Pixels:
        """The result of the variant in use. Raises LimitError where it refuses *case*."""
        return self._engine.run(case.pixels(), case.operation, case.border, case.alpha).pixels

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

    def close(self) -> None:
        """Close it."""
        self._engine.close()


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

    samples: int
    wrong: str | None
    """What is wrong with the result, if anything is."""
    caught: bool | None
    """Whether a flipped bit was found; None where none was flipped."""
    judge_bytes: int
    """Memory that the judge's process has resident."""


def judged(case: Case, got: Pixels) -> Finding:
    """Check *got*, the result of *case*. By a process of its own, which makes the image anew."""
    pixels = case.pixels()
    found = compare(got, pixels, case.operation, case.border, case.alpha)
    wrong = None if found.ok else f"WRONG: {case}: {found}"
    caught = None
    if found.ok and case.number % FLIPPED == 0:
        view = got.view(f"u{got.itemsize}").reshape(-1)
        top = 8 * got.itemsize - 1 - (got.dtype.kind == "f")  # a float's first is its sign
        view[case.number % view.size] ^= 1 << top
        caught = not compare(got, pixels, case.operation, case.border, case.alpha).ok
    return Finding(pixels.size, wrong, caught, process_bytes())


def judges(count: int) -> ProcessPoolExecutor:
    """So many processes that judge, on a core each."""
    return ProcessPoolExecutor(count, get_context("spawn"), _on_one_core)


def _on_one_core() -> None:
    keep_freed_memory()
    limit(1)


@dataclass(frozen=True)
class Soak:
    """An engine, the threads that call it, and the processes that judge."""

    engine: OneEngine
    threads: ThreadPoolExecutor
    judges: ProcessPoolExecutor

    def findings(self, lot: Sequence[Case]) -> Iterator[tuple[Case, str, Finding]]:
        """Each case of *lot*, its variant, and what it showed; ``auto`` does what others refuse."""
        left = [case for case in lot if case.variant == AUTO]
        for variant in self.engine.variants:
            if variant != AUTO:
                own = [case for case in lot if case.variant == variant]
                for case, found in self._by(variant, own):
                    if found is None:
                        left.append(case)
                    else:
                        yield case, variant, found
        for case, found in self._by(AUTO, left):
            assert found is not None, f"{AUTO} refuses {case}"
            yield case, AUTO, found

    def _by(self, variant: str, cases: Sequence[Case]) -> Iterator[tuple[Case, Finding | None]]:
        self.engine.use(variant)
        return zip(cases, self.threads.map(self._one, cases), strict=True)

    def _one(self, case: Case) -> Finding | None:
        """Run *case* and have it judged; None where the variant in use refuses it."""
        try:
            got = self.engine.run(case)
        except LimitError:
            return None
        return self.judges.submit(judged, case, got).result()


def process_bytes() -> int:
    """Memory that the process has resident."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    return 0


def soak(
    soaking: Soak, seed: int, images: int | None, seconds: float | None
) -> tuple[Counts, list[dict[str, int]], float]:
    """Do *images*, or for *seconds*: the counts, bytes by who holds them, and the seconds."""
    counts, worked = Counts(), 0.0
    memory: list[dict[str, int]] = []
    numbers: Iterator[int] = count() if images is None else iter(range(images))
    size = LOT if images is None else min(LOT, max(1, images // 10))
    engine = soaking.engine
    while lot := [case(seed, n, engine.variants) for n in islice(numbers, size)]:
        engine.compile(lot)
        started, judge = time.perf_counter(), 0
        for each, variant, found in soaking.findings(lot):
            add(counts, each, variant, found)
            judge = max(judge, found.judge_bytes)
        worked += time.perf_counter() - started
        memory.append({"process": process_bytes(), "GPU": engine.gpu_bytes(), "judge": judge})
        held = ", ".join(f"{what} {nbytes >> 20} MiB" for what, nbytes in memory[-1].items())
        print(
            f"  {counts.images:,} images, {counts.wrong} wrong, {worked:.0f} s, {held}", flush=True
        )
        if seconds is not None and worked >= seconds:
            break
    return counts, memory, worked


def add(counts: Counts, case: Case, variant: str, found: Finding) -> None:
    """Count *found*; tell what is wrong."""
    counts.images += 1
    counts.samples += found.samples
    counts.variants[variant] += 1
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
    parser.add_argument("--threads", type=int, default=cores() + 4)
    parser.add_argument("--only", metavar="SEED:NUMBER", help="one image again")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args(arguments)
    keep_freed_memory()  # as the command does
    in_work(given.threads)
    with judges(1 if given.only else cores()) as checking:
        engine = OneEngine(given.engine, given.gpu)
        with ThreadPoolExecutor(given.threads) as threads:
            soaking = Soak(engine, threads, checking)
            bad = _again(soaking, given.only) if given.only else _many(soaking, given)
        engine.close()
    return int(bad)


def _again(soaking: Soak, which: str) -> bool:
    """Do the one image *which*; whether anything is wrong."""
    seed, number = map(int, which.split(":"))
    ((_, _, found),) = soaking.findings([case(seed, number, soaking.engine.variants)])
    print(found.wrong or ("MISSED: a flipped bit" if found.caught is False else "right"))
    return found.wrong is not None or found.caught is False


def _many(soaking: Soak, given: argparse.Namespace) -> bool:
    """Soak, and tell the figures; whether anything is wrong."""
    images = given.count or (None if given.seconds else 1000)
    print(f"soak: {soaking.engine.title}, seed {given.seed}", flush=True)
    counts, memory, seconds = soak(soaking, given.seed, images, given.seconds)
    first, half, last = memory[0], memory[len(memory) // 2], memory[-1]
    figures = {
        "engine": soaking.engine.title,
        "seed": given.seed,
        "images": counts.images,
        "samples": counts.samples,
        "wrong": counts.wrong,
        "flipped": counts.flipped,
        "caught": counts.caught,
        "seconds": round(seconds, 1),
        "mib": {what: [at[what] >> 20 for at in (first, half, last)] for what in first},
        "variants": dict(sorted(counts.variants.items())),
    }
    print(
        f"{counts.images:,} images, {counts.samples:,} samples, {seconds:.0f} s: {counts.wrong}"
        f" wrong; {counts.caught:,} of {counts.flipped:,} flipped bits caught"
    )
    print(f"memory, MiB, after the first lot, past half and at the end: {figures['mib']}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    # Buffers and caches are full by half.
    grown = [what for what in first if last[what] > 1.1 * half[what] + (64 << 20)]
    for what in grown:
        print(f"GREW: memory of the {what}")
    return bool(counts.wrong or counts.caught < counts.flipped or grown)


if __name__ == "__main__":
    sys.exit(main())
