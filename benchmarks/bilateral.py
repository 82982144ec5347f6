"""Bilateral filters beside their bars, the time of their exponentials, and NVIDIA's libraries.

    python benchmarks/bilateral.py [--side 8192] [--only SUBSTRING ...] [--no-peers]
                                   [--json FILE] [--figures FILE]

Device-resident random data; CUDA events, medians after 3 warm-ups. Every result is verified against
the definition: some rows of it, and all of a small image. The least time is that of one exponential
a tap, 16 a clock on each multiprocessor. NPP has a square window and other parameters, CV-CUDA
another distance of colours: their results are only told. Needs a GPU, and for the peers PyTorch.
Exits with 1 where a result is wrong or a run fails; a missed bar is only told.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from roofline import save, short

from cudafilter import check
from cudafilter.engines.bench import random_image
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.errors import CudafilterError, DisagreementError, EngineUnavailable
from cudafilter.operations import reference
from cudafilter.operations.bilateral import Bilateral
from cudafilter.operations.borders import Border
from cudafilter.operations.pixels import Pixels, quantise
from cudafilter.proof.tolerance import Tolerance

if TYPE_CHECKING:
    from peers import Form, Npp, Peer, Peers, Problem

BAND, SMALL = 2, 197
"""Rows of a large result, and side of an image, that are verified."""

EXPONENTIALS = 132 * 16 * 1.98e9
"""A second on an H100 at its highest clock."""

RANGE = 30 / 255


@dataclass(frozen=True)
class Goal:
    """A row of the table: a filter on a kind of image, and its bars in ms, if it has any."""

    title: str
    radius: int
    must: float | None = None
    aim: float | None = None
    dtype: str = "uint8"
    channels: int = 1

    @property
    def filter(self) -> Bilateral:
        """Of a sigma as wide as the radius, as peers are asked for."""
        return Bilateral(float(self.radius), RANGE, self.radius)


@dataclass
class Row:
    """What was measured for one Goal. Times are medians in milliseconds."""

    title: str
    must: float | None
    aim: float | None
    defines: dict[str, int] = field(default_factory=dict)
    copy_ms: float = 0.0
    least_ms: float = 0.0
    ms: float = 0.0
    failure: str | None = None
    peers: list[Peer] = field(default_factory=list)

    def best(self, library: str) -> float | None:
        """The fastest time of *library*."""
        return min((p.ms for p in self.peers if p.ms and p.library == library), default=None)

    def __str__(self) -> str:
        if self.failure:
            return f"| {self.title} | WRONG {self.failure} |" + " |" * 6
        bars = [
            "-" if bar is None else f"{bar:g} {'yes' if self.ms <= bar else 'NO'}"
            for bar in (self.must, self.aim)
        ]
        cells = [
            self.title, short(self.copy_ms), short(self.least_ms), short(self.ms), *bars,
            short(self.best("NPP")), short(self.best("CV-CUDA")),
        ]  # fmt: skip
        return f"| {' | '.join(cells)} |"


HEAD = "| work | copy ms | least | ms | must | aim | NPP | CV-CUDA |\n" + "|---" * 8 + "|"


def goals() -> Iterator[Goal]:
    """The rows, with the bars for an H100 at 8192x8192."""
    for radius, must, aim in ((2, 0.6, 0.35), (4, 1.6, 1.0), (7, 5, 3)):
        yield Goal(f"bilateral radius {radius} u8 gray", radius, must, aim)
    yield Goal("bilateral radius 4 u8 RGB", 4, 2.4, 1.5, channels=3)
    for radius in (2, 7):
        yield Goal(f"bilateral radius {radius} u8 RGB", radius, channels=3)
    for radius in (6, 15):
        yield Goal(f"bilateral radius {radius} u8 gray", radius)
    for dtype, kind in (("uint16", "u16 gray"), ("float32", "f32 gray")):
        yield Goal(f"bilateral radius 4 {kind}", 4, dtype=dtype)


def verify(engine: CudaEngine, goal: Goal, result: Pixels, pixels: Pixels) -> None:
    """Hold all of a small image, and some rows of *result*, to the definition."""
    filter, border = goal.filter, Border()
    image = random_image(np.random.default_rng(1), SMALL, goal.dtype, goal.channels)
    small = np.ascontiguousarray(image[:, : SMALL - 4])
    agreement = check.compare(engine.run(small, filter).pixels, small, filter)
    if not agreement.ok:
        raise DisagreementError(f"{small.shape} {small.dtype}: {agreement}")
    for first in (0, len(pixels) // 2, len(pixels) - BAND):
        # Where the crop ends inside the image, what lies beyond it is made up, but never looked at.
        top = max(0, first - filter.radius)
        crop = pixels[top : first + BAND + filter.radius]
        rows = first - top, first - top + BAND
        exact = reference.exact(crop, filter, border, rows=rows)
        slack = filter.slack(goal.dtype, False)
        limit: Any = slack
        if slack is None:
            y, x, c = (index.ravel() for index in np.indices(exact.shape))
            limit = Tolerance(crop, filter, border, False).at(y + rows[0], x, c)
            limit = limit.reshape(exact.shape)
        low, high = (quantise(exact + sign * limit, goal.dtype) for sign in (-1, 1))
        band = result[first : first + BAND]
        if not ((low <= band) & (band <= high)).all():
            raise DisagreementError(f"rows from {first} on differ")


def measure(
    engine: CudaEngine, goal: Goal, pixels: Pixels, repeats: int, peers: Peers | None
) -> Row:
    """One row: timed, verified, and the peers on the same pixels."""
    row, filter = Row(goal.title, goal.must, goal.aim), goal.filter
    taps = len(filter.taps) * pixels[..., 0].size
    row.least_ms = 1e3 * taps / EXPONENTIALS
    try:
        row.defines = dict(engine.prepare(pixels, filter).defines)
        result, times = engine.time_kernel(pixels, filter, repeats=repeats)
        row.copy_ms = statistics.median(engine.time_copy(pixels.nbytes, repeats=repeats))
        row.ms = statistics.median(times)
        verify(engine, goal, result, pixels)
    except CudafilterError as error:
        row.failure = str(error)
        return row
    if peers is not None and goal.dtype == "uint8":
        row.peers = peers.measure("bilateral", {}, filter, pixels, result, repeats)
    return row


def npp_forms(npp: Npp, problem: Problem) -> Iterator[Form]:
    """NPP's way with bytes, of one channel."""
    import torch
    from peers import REPLICATE, Size, address

    image, radius = problem.image, problem.filter.radius
    if image.dim() != 2:
        return
    size, step = Size(image.shape[1], image.shape[0]), image.stride(0)
    squares = [ctypes.c_float(float(side) ** 2) for side in (255 * RANGE, radius)]

    def run() -> torch.Tensor:
        npp.call(
            "FilterBilateralGaussBorder_8u_C1R", address(image), step, size, Size(0, 0),
            address(problem.out), step, size, radius, 1, *squares, REPLICATE,
        )  # fmt: skip
        return problem.out

    yield "FilterBilateralGaussBorder_8u_C1R", run


def cvcuda_forms(cvcuda: Any, problem: Problem) -> Iterator[Form]:
    """CV-CUDA's way."""
    import torch

    def tensor(image: torch.Tensor) -> Any:
        return cvcuda.as_tensor(image.reshape(1, *image.shape[:2], -1), "NHWC")

    source, out, radius = tensor(problem.image), tensor(problem.out), problem.filter.radius
    own = torch.cuda.current_stream()
    stream = {"stream": cvcuda.cuda.as_stream(own)} if hasattr(cvcuda, "cuda") else {}

    def run() -> torch.Tensor:
        cvcuda.bilateral_filter_into(
            out, source, 2 * radius + 1, 255 * RANGE, float(radius), cvcuda.Border.REPLICATE,
            **stream,
        )  # fmt: skip
        return problem.out

    yield "bilateral_filter_into", run


def open_peers() -> Peers | None:
    """The peers that are here; tells of those that are not."""
    try:
        from peers import Peers

        peers = Peers({"NPP": npp_forms, "CV-CUDA": cvcuda_forms}, {"uint8": 255.0})
    except (ImportError, EngineUnavailable) as error:
        print(f"no peers: {error}")
        return None
    for missing in peers.missing:
        print(missing)
    print("peers: " + ", ".join(f"{name} {version}" for name, version in peers.versions.items()))
    return peers


def figures(machine: str, side: int, rows: list[Row]) -> dict[str, Any]:
    """The table as docs/figures keeps one."""
    return {
        "published": datetime.date.today().isoformat(),
        "machine": machine,
        "command": "python benchmarks/bilateral.py",
        "conditions": f"milliseconds, {side}x{side}, random data on the device, medians of CUDA"
        " events, each result verified; least: one exponential a tap, at an H100's highest clock;"
        " one run",
        "columns": ["work", "copy", "least", "cudafilter", "NPP", "CV-CUDA"],
        "rows": [
            [row.title, *(ms and float(f"{ms:.3g}") for ms in (
                row.copy_ms, row.least_ms, row.ms, row.best("NPP"), row.best("CV-CUDA")))]
            for row in rows
        ],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=8192, help="pixels; the bars are for 8192")
    parser.add_argument("--repeats", type=int, default=15, help="timings of which the median is")
    parser.add_argument("--only", nargs="+", metavar="SUBSTRING", help="rows that contain one")
    parser.add_argument("--no-peers", action="store_true", help="leave the libraries out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="write a table for the docs")
    arguments = parser.parse_args()
    chosen = [g for g in goals() if any(part in g.title for part in arguments.only or [""])]
    if not chosen or arguments.side < 256 or arguments.repeats < 1:
        parser.error("--only wants a row's title, --side 256 or more, --repeats 1 or more")
    try:
        engine = CudaEngine()
    except EngineUnavailable as error:
        sys.exit(f"{error}\n{error.hint or ''}")
    side, repeats = arguments.side, arguments.repeats
    print(f"{engine.title}; {side}x{side}, random data, medians of {repeats} by CUDA events")
    peers = None if arguments.no_peers else open_peers()
    print(f"\n{HEAD}", flush=True)
    images: dict[tuple[str, int], Pixels] = {}
    rows: list[Row] = []
    for goal in chosen:
        kind = goal.dtype, goal.channels
        if kind not in images:
            images[kind] = random_image(np.random.default_rng(0), side, *kind)
        rows.append(measure(engine, goal, images[kind], repeats, peers))
        print(rows[-1], flush=True)
        save(arguments.json, {"engine": engine.title, "side": side, "repeats": repeats,
                              "rows": [asdict(row) for row in rows]})  # fmt: skip
    engine.close()
    good = [row for row in rows if not row.failure]
    if good:
        save(arguments.figures, figures(engine.title, side, good))
    for row in rows:
        for peer in row.peers:
            told = peer.why_not or f"differs by {peer.largest:g} at most"
            print(f"{row.title}: {peer.library} {peer.title}: {told}")
    return 0 if len(good) == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
