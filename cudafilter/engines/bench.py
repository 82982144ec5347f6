"""Timings: each engine and each kernel variant on the same random images, verified first."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cudafilter.check import Agreement, compare_all
from cudafilter.engines import Engine
from cudafilter.engines.cuda.variants import AUTO, LADDER
from cudafilter.engines.open import open_engine
from cudafilter.errors import DisagreementError, EngineUnavailable, LimitError
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation, only_stage, stages_of
from cudafilter.operations.pixels import Pixels, full_scale

if TYPE_CHECKING:
    from cudafilter.engines.cuda.engine import CudaEngine

DEFAULT_FILTERS = ("blur", "sharpen", "sobel")

WALL_SECONDS = 2.0
"""Runs of an engine on one image are repeated for at least so long in all."""

WARMUP = 3


@dataclass
class Row:
    """One engine or variant on one image. Times are medians in milliseconds."""

    engine: str
    """``cpu``, or ``cuda`` with its variant: ``cuda tiled``; ``cuda auto (separable)``."""
    variant: str | None
    total_ms: float | None = None
    """From pixels in host memory to pixels in host memory."""
    kernel_ms: float | None = None
    """On the device only, by CUDA events."""
    gb_per_s: float | None = None
    """Bytes read and written once each, over kernel_ms."""
    copy_share: float | None = None
    """Time of a device-to-device copy of the same image over kernel_ms."""
    times_cpu: float | None = None
    """The CPU engine's total_ms over this one's."""
    times_vanilla: float | None = None
    """The vanilla kernel's kernel_ms over this one's."""
    exact_share: float | None = None
    """Share of samples that are the float64 reference's value."""
    agreement: dict[str, Any] | None = None
    """All figures of the check, as a report has them."""
    why_not: str | None = None
    """Why there are no times: the variant cannot run this filter."""


@dataclass
class Case:
    """All rows of one filter on one image."""

    filter: str
    size: int
    """Side of the square image in pixels."""
    dtype: str
    channels: int
    copy_ms: float | None = None
    """A device-to-device copy of the image: one read and one write of it."""
    rows: list[Row] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.filter} {self.size}x{self.size} {self.dtype} x{self.channels}"

    @property
    def nbytes(self) -> int:
        """Bytes of the image."""
        return self.size * self.size * self.channels * np.dtype(self.dtype).itemsize


class Contestant(NamedTuple):
    """An engine under test, and for CUDA the variant to run it with."""

    engine: Engine
    cuda: CudaEngine | None = None
    variant: str | None = None


def open_contestants(
    engine: str, variant: str, gpu: int | None
) -> tuple[list[Contestant], str | None]:
    """The engines to time, and why ``auto`` has no CUDA among them (None where it has).

    ``auto`` takes the CPU and each variant of the ladder, on one CUDA engine. Raises
    EngineUnavailable where CUDA was asked for and cannot run, and ParameterError for a choice that
    the CPU engine does not have.
    """
    if engine == "cpu":
        return [Contestant(open_engine("cpu", gpu=gpu, variant=variant))], None
    contestants = [] if engine == "cuda" else [Contestant(open_engine("cpu"))]
    from cudafilter.engines.cuda.engine import CudaEngine

    try:
        cuda = CudaEngine(gpu=gpu or 0)
    except EngineUnavailable as error:
        if engine == "cuda" or gpu is not None or variant != AUTO:
            raise
        return contestants, f"no CUDA: {error}"
    variants = (variant,) if variant != AUTO else (*LADDER, AUTO)
    return contestants + [Contestant(cuda, cuda, name) for name in variants], None


def measure(
    names: Sequence[str],
    contestants: Sequence[Contestant],
    *,
    sizes: Sequence[int],
    dtypes: Sequence[str],
    channels: Sequence[int],
    repeat: int,
) -> Iterator[Case]:
    """Time each filter on each image; yields each Case when it is done.

    Results are verified before they are timed: raises DisagreementError where one is wrong, or
    differs from the verified one while it is timed.
    """
    random = np.random.default_rng(0)
    for size in sizes:
        for dtype in dtypes:
            for count in channels:
                pixels = random_image(random, size, dtype, count)
                for name in names or DEFAULT_FILTERS:
                    yield _measure_case(Case(name, size, dtype, count), pixels, contestants, repeat)


def random_image(random: np.random.Generator, size: int, dtype: str, channels: int) -> Pixels:
    """Uniform noise over full scale, (size, size, channels)."""
    shape = (size, size, channels)
    if dtype == "float32":
        return random.random(shape, dtype=np.float32)
    return random.integers(0, int(full_scale(dtype)), shape, dtype=dtype, endpoint=True)


def bench_filter(name: str) -> Operation:
    """The filter *name* with its defaults; ``kernel`` is a dense 7x7 of random weights."""
    if name == "kernel":
        return make(name, weights=np.random.default_rng(7).standard_normal((7, 7)) / 7)
    return make(name)


def _measure_case(
    case: Case, pixels: Pixels, contestants: Sequence[Contestant], repeat: int
) -> Case:
    filter = bench_filter(case.filter)
    results: dict[int, Pixels] = {}
    for i, contestant in enumerate(contestants):
        case.rows.append(Row(contestant.engine.name, None))
        try:
            case.rows[i].variant = _choose(contestant, pixels, filter)
            results[i] = contestant.engine.run(pixels, filter).pixels
        except LimitError as limit:
            case.rows[i].why_not = str(limit)
    for i, agreement in zip(
        results, compare_all(list(results.values()), pixels, filter), strict=True
    ):
        _require(agreement, case, case.rows[i])
        case.rows[i].exact_share = agreement.exact_share
        case.rows[i].agreement = agreement.figures()
    for i, result in results.items():
        _time(case, case.rows[i], contestants[i], pixels, filter, result, repeat)
    _relate(case)
    return case


def _choose(contestant: Contestant, pixels: Pixels, filter: Operation) -> str | None:
    """Set the CUDA engine to its variant. Returns its name, with what ``auto`` picks."""
    cuda, variant = contestant.cuda, contestant.variant
    if cuda is None or variant is None:
        return None
    cuda.variant = variant
    if variant != AUTO:
        return variant
    stages = stages_of(filter.unrolled(Border()))
    picked = dict.fromkeys(cuda.prepare(pixels, stage.operation).variant for stage in stages)
    return f"{AUTO} ({', '.join(picked)})"


def _require(agreement: Agreement, case: Case, row: Row) -> None:
    if not (agreement.ok and agreement.proves):
        raise DisagreementError(f"{case}, {row.engine} {row.variant or ''}: {agreement}")


def _time(
    case: Case, row: Row, contestant: Contestant, pixels: Pixels, filter: Operation,
    verified: Pixels, repeat: int,
) -> None:  # fmt: skip
    engine, cuda, _ = contestant
    _choose(contestant, pixels, filter)
    walls: list[float] = []
    while len(walls) < repeat and (len(walls) < 3 or sum(walls) < WALL_SECONDS):
        started = time.perf_counter()
        engine.run(pixels, filter)
        walls.append(time.perf_counter() - started)
    row.total_ms = 1e3 * statistics.median(walls)
    # Stages that go by way of the host are timed as a whole only.
    if cuda is None or only_stage(filter.unrolled(Border())) is None:
        return
    result, times = cuda.time_kernel(pixels, filter, warmup=WARMUP, repeats=repeat)
    if not np.array_equal(result, verified):
        raise DisagreementError(f"{case}, {row.engine} {row.variant}: other bits when timed")
    row.kernel_ms = statistics.median(times)
    if case.copy_ms is None:
        copies = cuda.time_copy(case.nbytes, warmup=WARMUP, repeats=repeat)
        case.copy_ms = statistics.median(copies)
    row.gb_per_s = 2 * case.nbytes / row.kernel_ms / 1e6
    row.copy_share = case.copy_ms / row.kernel_ms


def _relate(case: Case) -> None:
    cpu = next((row.total_ms for row in case.rows if row.engine == "cpu"), None)
    vanilla = next((row.kernel_ms for row in case.rows if row.variant == "vanilla"), None)
    for row in case.rows:
        if cpu and row.total_ms:
            row.times_cpu = cpu / row.total_ms
        if vanilla and row.kernel_ms:
            row.times_vanilla = vanilla / row.kernel_ms


def as_json(cases: Sequence[Case], contestants: Sequence[Contestant]) -> dict[str, Any]:
    """All figures as plain data."""
    from dataclasses import asdict

    return {
        "engines": sorted({contestant.engine.title for contestant in contestants}),
        "cases": [asdict(case) for case in cases],
    }
