"""Every kernel beside its floors, its bars and NVIDIA's libraries; and how its cost grows.

    python benchmarks/roofline.py [--side 8192] [--only SUBSTRING ...] [--no-peers] [--json FILE]
    python benchmarks/roofline.py --growth [size,taps,box,terms] [--json FILE]

Device-resident random data; CUDA events, medians after 3 warm-ups; every result is verified
against float64 before it counts. Needs a GPU, and for the peers PyTorch, CuPy and NPP. Exits with
1 where a result is wrong or a run fails; a missed bar is only told.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cudafilter import check
from cudafilter.engines.bench import random_image
from cudafilter.engines.cuda.device import driver
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.errors import CudafilterError, DisagreementError, EngineUnavailable
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels

if TYPE_CHECKING:
    from peers import Peer, Peers

LANES = 128
"""float32 multiply-adds a multiprocessor and clock, from compute capability 8.6 on."""

SIDES = (512, 1024, 2048, 4096, 8192, 16384, 32768)
TAPS = (3, 5, 7, 9, 13, 17, 21, 31, 41, 51, 61, 81, 101, 127, 191, 255)
TERMS, TERM_SIDES = range(2, 9), (23, 31, 45, 61)
BOX_RADII = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Goal:
    """A row of the table: a filter on a kind of image, and how many copies it may cost.

    ``must`` and ``aim`` are multiples of the time of a copy.
    """

    title: str
    dtype: str
    channels: int
    name: str
    parameters: Mapping[str, Any]
    must: float
    aim: float
    alpha: bool = False

    @property
    def filter(self) -> Correlation:
        filter = make(self.name, **self.parameters)
        assert isinstance(filter, Correlation)
        return filter


@dataclass
class Row:
    """What was measured for one Goal. Times are medians in milliseconds."""

    title: str
    must: float
    aim: float
    variant: str = ""
    defines: dict[str, int] = field(default_factory=dict)
    copy_ms: float = 0.0
    fma_ms: float = 0.0
    """Multiply-adds at the device's rate: the other floor."""
    ms: float = 0.0
    verified: str = ""
    failure: str | None = None
    peers: list[Peer] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Time as a multiple of the copy's."""
        return self.ms / self.copy_ms

    def best(self, library: str | None = None) -> float | None:
        """The fastest time among the peers, or among those of one *library*."""
        times = (p.ms for p in self.peers if p.ms and library in (None, p.library))
        return min(times, default=None)

    def __str__(self) -> str:
        if self.failure:
            return f"| {self.title} | WRONG | | | | | | | | | | |"
        best = self.best()
        cells = [
            self.title,
            self.variant,
            *(short(ms) for ms in (self.copy_ms, self.fma_ms, self.ms)),
            f"{self.ratio:.2f}",
            f"{self.must:g} {'PASS' if self.ratio <= self.must else 'MISS'}",
            f"{self.aim:g} {'yes' if self.ratio <= self.aim else 'no'}",
            *(short(self.best(library)) for library in ("NPP", "CuPy", "cuDNN")),
            "-" if best is None else f"{best / self.ms:.1f} {'yes' if best > self.ms else 'NO'}",
        ]
        return f"| {' | '.join(cells)} |"

    def as_json(self) -> dict[str, Any]:
        """All figures and verdicts as plain data."""
        if self.failure:
            return asdict(self)
        best = self.best()
        return asdict(self) | {
            "ratio": self.ratio,
            "reaches_must": self.ratio <= self.must,
            "reaches_aim": self.ratio <= self.aim,
            "times_best_peer": None if best is None else best / self.ms,
        }


HEAD = (
    "| work | variant | copy ms | FMA ms | ms | x copy | must | aim"
    " | NPP | CuPy | cuDNN | x peer, faster? |\n" + "|---" * 12 + "|"
)


def goals() -> Iterator[Goal]:
    """The rows, with the bars for an H100 at 8192x8192."""
    kinds = (("u8 gray", "uint8", 1), ("u8 RGB", "uint8", 3), ("f32 gray", "float32", 1))
    for taps, sigma, musts, aim in (
        (7, 1, (2.2, 2.4, 1.25), 1.2),
        (13, 2, (3.5, 4, 1.5), 1.4),
        (31, 5, (9, 10, 2.6), 2.5),
        (61, 10, (22, 25, 7), 5),
    ):
        for (kind, dtype, channels), must in zip(kinds, musts, strict=True):
            parameters = {"sigma": sigma, "radius": taps // 2}
            title = f"Gaussian k{taps} {kind}"
            yield Goal(title, dtype, channels, "blur", parameters, must, aim)
    for side, must, aim in (
        (3, 1.2, 1.1),
        (5, 1.3, 1.1),
        (7, 1.6, 1.1),
        (15, 4.5, 3),
        (31, 17, 11),
    ):
        weights = np.random.default_rng(side).standard_normal((side, side)) / side**2
        title = f"dense {side}x{side} f32 gray"
        yield Goal(title, "float32", 1, "kernel", {"weights": weights}, must, aim)
    yield Goal("sobel u8 gray", "uint8", 1, "sobel", {}, 1.8, 1.2)
    yield Goal("sharpen 3x3 u8 RGB", "uint8", 3, "sharpen", {}, 1.6, 1.15)
    yield Goal("box 5x5 u8 RGB", "uint8", 3, "box", {"radius": 2}, 2, 1.3)
    yield Goal("box 101x101 u8 RGB", "uint8", 3, "box", {"radius": 50}, 3, 2)
    k13 = {"sigma": 2, "radius": 6}
    yield Goal("Gaussian k13 u8 RGBA alpha", "uint8", 4, "blur", k13, 4, 2, alpha=True)


def multiply_adds(filter: Correlation) -> int:
    """Fewest a sample by the known ways: 4 sums for a box, 2k separable, k*k dense."""
    if filter.name == "box":
        return 4
    return sum(
        min(sum(k.shape), k.shape[0] * k.shape[1])
        if k.factors is not None
        else k.shape[0] * k.shape[1]
        for k in filter.kernels
    )


def multiply_add_rate() -> tuple[float, str]:
    """float32 multiply-adds a second of GPU 0 at its highest clock, and how that is reckoned."""
    cuda = driver()
    device, limit = cuda.Device(0), cuda.device_attribute
    count = device.get_attribute(limit.MULTIPROCESSOR_COUNT)
    clock = 1e3 * device.get_attribute(limit.CLOCK_RATE)  # told in kHz
    rate = count * LANES * clock
    words = f"{count} multiprocessors x {LANES} lanes x {clock / 1e9:.3f} GHz (highest clock)"
    return rate, f"{words} = {rate / 1e12:.1f} T/s"


def verify(result: Pixels, source: Pixels, filter: Operation, alpha: bool) -> check.Agreement:
    """Hold all of *result* to the contract. Raises DisagreementError."""
    agreement = check.compare(result, source, filter, alpha=alpha)
    if not agreement.ok:
        raise DisagreementError(f"{source.shape} {source.dtype}: {agreement}")
    return agreement


def verify_small(engine: CudaEngine, goal: Goal, random: np.random.Generator) -> check.Agreement:
    """Hold all of a 521x517 image of the same kind to the contract. Raises DisagreementError."""
    image = random_image(random, 521, goal.dtype, goal.channels)
    pixels = np.ascontiguousarray(image[:, :517])
    result = engine.run(pixels, goal.filter, alpha=goal.alpha).pixels
    return verify(result, pixels, goal.filter, goal.alpha)


def measure(
    engine: CudaEngine, goal: Goal, pixels: Pixels, rate: float, repeats: int, peers: Peers | None
) -> Row:
    """One row: verified, timed, and the peers on the same pixels."""
    row = Row(goal.title, goal.must, goal.aim)
    try:
        filter = goal.filter
        ready = engine.prepare(pixels, filter, alpha=goal.alpha)
        row.variant, row.defines = ready.variant, dict(ready.defines)
        agreement = verify_small(engine, goal, np.random.default_rng(1))
        result, times = engine.time_kernel(pixels, filter, alpha=goal.alpha, repeats=repeats)
        # At once: a GPU that idles through the verification lowers its clocks.
        row.copy_ms = statistics.median(engine.time_copy(pixels.nbytes, repeats=repeats))
        whole = verify(result, pixels, filter, goal.alpha)
        row.verified = (
            f"521x517: {agreement.exact_percent} % exact; in full size {whole.exact_percent} %"
        )
        row.ms = statistics.median(times)
        row.fma_ms = 1e3 * multiply_adds(filter) * pixels.size / rate
    except CudafilterError as error:
        row.failure = str(error)
        return row
    if peers is not None and not goal.alpha:  # none of them undoes premultiplied alpha
        row.peers = peers.measure(goal.name, goal.parameters, filter, pixels, result, repeats)
    return row


def open_peers() -> Peers | None:
    """The peers that are here; tells of those that are not."""
    try:
        from peers import TOLERANCE, Peers

        peers = Peers()
    except (ImportError, EngineUnavailable) as error:
        print(f"no peers: {error}")
        return None
    for missing in peers.missing:
        print(missing)
    print("peers: " + ", ".join(f"{name} {version}" for name, version in peers.versions.items()))
    print(f"a peer counts whose result is ours away from the border, give or take {TOLERANCE}")
    return peers


def table(engine: CudaEngine, arguments: argparse.Namespace) -> bool:
    """Print the table and write the JSON after each row; whether all results were right."""
    side, repeats = arguments.side, arguments.repeats
    chosen = [w for w in goals() if any(part in w.title for part in arguments.only or [""])]
    if not chosen:
        sys.exit("no such row; there are: " + ", ".join(goal.title for goal in goals()))
    rate, reckoned = multiply_add_rate()
    print(f"{engine.title}; {side}x{side}, random data, medians of {repeats} by CUDA events")
    print(f"FMA: 2k (separable), k*k (dense) or 4 (box) multiply-adds a sample at {reckoned}")
    peers = None if arguments.no_peers else open_peers()
    print(f"\n{HEAD}", flush=True)
    images: dict[tuple[str, int], Pixels] = {}
    rows = []
    for goal in chosen:
        kind = goal.dtype, goal.channels
        if kind not in images:
            images[kind] = random_image(np.random.default_rng(0), side, *kind)
        row = measure(engine, goal, images[kind], rate, repeats, peers)
        rows.append(row)
        print(row, flush=True)
        save(arguments.json, {
            "engine": engine.title, "side": side, "repeats": repeats, "multiply_add_rate": rate,
            "peers": peers.versions if peers else None,
            "missing": peers.missing if peers else None,
            "rows": [row.as_json() for row in rows],
        })  # fmt: skip
    good = [row for row in rows if not row.failure]
    print(
        f"\nmust: {sum(row.ratio <= row.must for row in good)} of {len(rows)};"
        f" aim: {sum(row.ratio <= row.aim for row in good)};"
        f" faster than every peer: {sum(row.ms < (row.best() or 0) for row in good)}"
        f" of {sum(row.best() is not None for row in good)} that have one"
    )
    for row in rows:
        if row.failure:
            print(f"WRONG {row.title} ({row.variant}): {row.failure}")
        for peer in row.peers:
            if peer.why_not:
                print(f"{row.title}: no time for {peer.library} {peer.title}: {peer.why_not}")
    return len(good) == len(rows)


@dataclass
class Growth:
    """Times of filters over a size or a radius; failed ones are told and left out."""

    engine: CudaEngine
    repeats: int
    figures: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    variant: str = ""

    def time(self, title: str, pixels: Pixels, filter: Correlation, **figures: Any) -> float | None:
        """Milliseconds, verified; None where that fails. ``variant`` ran."""
        self.variant = self.engine.prepare(pixels, filter).variant
        try:
            result, times = self.engine.time_kernel(pixels, filter, repeats=self.repeats)
            verify(result, pixels, filter, alpha=False)
        except CudafilterError as error:
            self.failures.append(f"{title}, {figures}: {error}")
            return None
        ms = statistics.median(times)
        self.figures.append({"work": title, **figures, "variant": self.variant, "ms": ms})
        return ms

    def copy(self, pixels: Pixels) -> float:
        """Milliseconds of a copy of *pixels*."""
        return statistics.median(self.engine.time_copy(pixels.nbytes, repeats=self.repeats))

    def over_size(self) -> None:
        """Nanoseconds a pixel from 512x512 to 32768x32768."""
        k13, box = make("blur", sigma=2, radius=6), make("box", radius=50)
        titles = "copy u8", "k13 u8", "box 101x101 u8", "copy f32", "k13 f32"
        print("ns a pixel, gray; up to some 1024x1024 it is the launch that takes the time\n")
        head("side", titles)
        for side in SIDES:
            cells: list[str] = []
            for dtype, filters in (("uint8", (k13, box)), ("float32", (k13,))):
                pixels = random_image(np.random.default_rng(0), side, dtype, 1)
                times: list[float | None] = [self.copy(pixels)]
                for filter in filters:
                    title = f"{filter.name} {filter.size[0]} {dtype}"
                    times.append(self.time(title, pixels, filter, side=side, copy_ms=times[0]))
                del pixels  # 4 GiB at most: one at a time
                cells += [short(None if ms is None else 1e6 * ms / side**2) for ms in times]
            line(side, cells)

    def over_taps(self, side: int) -> None:
        """Milliseconds, also a tap, of Gaussians of 3 to 255 taps."""
        images = {
            dtype: random_image(np.random.default_rng(0), side, dtype, 1)
            for dtype in ("uint8", "float32")
        }
        print(f"\nGaussian over taps, {side}x{side} gray\n")
        units = "variant", "ms", "us a tap"
        head("taps", [f"{dtype} {unit}" for dtype in images for unit in units])
        for taps in TAPS:
            filter = make("blur", sigma=taps / 6, radius=taps // 2)
            cells = []
            for dtype, pixels in images.items():
                ms = self.time(f"blur {dtype}", pixels, filter, side=side, taps=taps)
                cells += [self.variant, short(ms), short(None if ms is None else 1e3 * ms / taps)]
            line(taps, cells)

    def over_box(self, side: int) -> None:
        """Milliseconds of boxes to radius 1000."""
        pixels = random_image(np.random.default_rng(0), side, "uint8", 1)
        copy = self.copy(pixels)
        print(f"\nbox over radius, {side}x{side} uint8 gray; copy {short(copy)} ms\n")
        head("radius", ("variant", "ms", "x copy"))
        for radius in BOX_RADII:
            ms = self.time("box uint8", pixels, make("box", radius=radius), radius=radius)
            line(radius, [self.variant, short(ms), short(None if ms is None else ms / copy)])

    def over_terms(self, side: int) -> None:
        """Milliseconds of dense kernels that are sums of 2 to 8 products, as such and as dense."""
        pixels = random_image(np.random.default_rng(0), side, "uint8", 1)
        rng = np.random.default_rng(1)
        print(f"\nsums of products, {side}x{side} uint8 gray, ms; * what auto takes\n")
        head("terms", [f"{n}x{n} {variant}" for n in TERM_SIDES for variant in ("wide", "dense")])
        for terms in TERMS:
            cells = []
            for taps in TERM_SIDES:
                weights = rng.random((taps, terms)) @ rng.random((terms, taps))
                filter = make("kernel", weights=weights, normalize=True)
                picked = self.engine.prepare(pixels, filter).variant
                for variant in ("wide", "blocked"):
                    self.engine.variant = variant
                    figures = {"side": side, "taps": taps, "terms": terms}
                    ms = self.time(f"sum as {variant}", pixels, filter, **figures)
                    cells.append(short(ms) + "*" * (variant == picked))
                self.engine.variant = "auto"
            line(terms, cells)


def growth(engine: CudaEngine, arguments: argparse.Namespace) -> bool:
    """Print the tables of growth and write the JSON; whether all results were right."""
    print(f"{engine.title}; random data, medians of {arguments.repeats} by CUDA events\n")
    taken = Growth(engine, arguments.repeats)
    parts: Mapping[str, Callable[[], None]] = {
        "size": taken.over_size,
        "taps": lambda: taken.over_taps(arguments.side),
        "box": lambda: taken.over_box(arguments.side),
        "terms": lambda: taken.over_terms(arguments.side),
    }
    wanted = arguments.growth.split(",")
    if unknown := set(wanted) - {*parts}:
        sys.exit(f"--growth takes {', '.join(parts)}, not {', '.join(sorted(unknown))}")
    for name in wanted:
        parts[name]()
        save(arguments.json, {"engine": engine.title, "repeats": taken.repeats,
                              "figures": taken.figures, "failures": taken.failures})  # fmt: skip
    for failure in taken.failures:
        print(f"WRONG {failure}")
    return not taken.failures


def short(figure: float | None) -> str:
    """Three digits, or a dash for none."""
    if figure is None:
        return "-"
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.3g}"


def head(first: str, others: list[str] | tuple[str, ...]) -> None:
    print(f"| {first} | {' | '.join(others)} |\n" + "|---" * (1 + len(others)) + "|", flush=True)


def line(first: int, others: list[str]) -> None:
    print(f"| {first} | {' | '.join(others)} |", flush=True)


def save(path: Path | None, figures: dict[str, Any]) -> None:
    """Write *figures* to *path*, each time anew: what was measured outlives a run that is cut."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=8192, help="pixels; the bars are for 8192")
    parser.add_argument("--repeats", type=int, default=15, help="timings of which the median is")
    parser.add_argument("--only", nargs="+", metavar="SUBSTRING", help="rows that contain one")
    parser.add_argument("--no-peers", action="store_true", help="leave the libraries out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--growth", nargs="?", const="size,taps,box,terms", help="how cost grows, and over what"
    )
    arguments = parser.parse_args()
    if arguments.side < 256 or arguments.repeats < 1:
        parser.error("--side takes 256 and more (the peers need an interior), --repeats 1 and more")
    try:
        engine = CudaEngine()
    except EngineUnavailable as error:
        sys.exit(f"{error}\n{error.hint or ''}")
    try:
        return 0 if (growth if arguments.growth else table)(engine, arguments) else 1
    finally:
        engine.close()


if __name__ == "__main__":
    sys.exit(main())
