"""Medians, percentiles, erosions and dilations beside their bars and NVIDIA's libraries.

    python benchmarks/ranks.py [--side 8192] [--only SUBSTRING ...] [--variant NAME] [--no-peers]
                               [--json FILE] [--figures FILE]

Device-resident random data; CUDA events, medians after 3 warm-ups; every result is verified
against the definition before it counts. Needs a GPU, and for the peers PyTorch, CuPy and NPP. Exits
with 1 where a result is wrong or a run fails; a missed bar is only told.
"""

from __future__ import annotations

import argparse
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
from cudafilter.engines.cuda.variants import CHOICES
from cudafilter.errors import CudafilterError, DisagreementError, EngineUnavailable, LimitError
from cudafilter.operations import reference
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.rank import Rank, dilation, erosion, median, percentile
from cudafilter.operations.window import disk, square

if TYPE_CHECKING:
    from peers import Form, Npp, Peer, Peers, Problem

BAND = 4
"""Rows at the top, in the middle and at the bottom of a large result that are verified."""

SMALL = 197
"""Side of an image that is verified as a whole."""

MOST_NPP, MOST_CUPY = 11, 11
"""Largest medians asked of these. NPP's of 15x15 ends the context, CuPy's takes 0.6 s."""


@dataclass(frozen=True)
class Goal:
    """A row of the table: a rank on a kind of image, and its bars in ms, if it has any."""

    title: str
    rank: Rank
    must: float | None = None
    aim: float | None = None
    dtype: str = "uint8"
    channels: int = 1


@dataclass
class Row:
    """What was measured for one Goal. Times are medians in milliseconds."""

    title: str
    must: float | None
    aim: float | None
    variant: str = ""
    defines: dict[str, int] = field(default_factory=dict)
    copy_ms: float = 0.0
    ms: float = 0.0
    failure: str | None = None
    peers: list[Peer] = field(default_factory=list)

    def best(self, library: str) -> float | None:
        """The fastest time of *library*."""
        return min((p.ms for p in self.peers if p.ms and p.library == library), default=None)

    def __str__(self) -> str:
        if self.failure:
            return f"| {self.title} | WRONG {self.failure} |" + " |" * 7
        bars = [
            "-" if bar is None else f"{bar:g} {'yes' if self.ms <= bar else 'NO'}"
            for bar in (self.must, self.aim)
        ]
        cells = [
            self.title, self.variant, short(self.copy_ms), short(self.ms),
            f"{self.ms / self.copy_ms:.2f}", *bars,
            short(self.best("NPP")), short(self.best("CuPy")),
        ]  # fmt: skip
        return f"| {' | '.join(cells)} |"


HEAD = "| work | variant | copy ms | ms | x copy | must | aim | NPP | CuPy |\n" + "|---" * 9 + "|"


def goals() -> Iterator[Goal]:
    """The rows, with the bars for an H100 at 8192x8192."""
    for side, must, aim in (
        (3, 0.20, 0.10), (5, 0.6, 0.3), (7, 1.6, 0.8), (11, 4, 2), (15, 8, 3), (31, 12, 4),
    ):  # fmt: skip
        yield Goal(f"median {side}x{side} u8 gray", median(side // 2), must, aim)
    for side, must, aim in ((3, 0.085, 0.065), (7, 0.16, 0.10), (15, 0.20, 0.12), (31, 0.25, 0.14)):
        yield Goal(f"erode {side}x{side} u8 gray", erosion(square(side // 2)), must, aim)
    yield Goal("dilate 101x101 u8 gray", dilation(square(50)))
    yield Goal("erode disk 11 u8 gray", erosion(disk(5)))
    yield Goal("percentile 9x9 u8 gray", percentile(4, 25))
    for dtype, kind in (("uint8", "u8 RGB"), ("uint16", "u16 gray"), ("float32", "f32 gray")):
        channels = 3 if dtype == "uint8" else 1
        for side in (3, 5, 7, 11):
            yield Goal(
                f"median {side}x{side} {kind}", median(side // 2), None, None, dtype, channels
            )
        for side in (3, 7, 31):
            rank = erosion(square(side // 2))
            yield Goal(f"erode {side}x{side} {kind}", rank, None, None, dtype, channels)
    yield Goal("median 15x15 u8 RGB", median(7), None, None, "uint8", 3)
    yield Goal("median 15x15 u16 gray", median(7), None, None, "uint16")


def verify(engine: CudaEngine, goal: Goal, result: Pixels, pixels: Pixels) -> None:
    """Hold all of a small image, and some rows of *result*, to the definition."""
    image = random_image(np.random.default_rng(1), SMALL, goal.dtype, goal.channels)
    small = np.ascontiguousarray(image[:, : SMALL - 4])
    agreement = check.compare(engine.run(small, goal.rank).pixels, small, goal.rank)
    if not agreement.ok:
        raise DisagreementError(f"{small.shape} {small.dtype}: {agreement}")
    above, below, _, _ = goal.rank.reach
    for first in (0, len(pixels) // 2, len(pixels) - BAND):
        # Where the crop ends inside the image, what lies beyond it is made up, but never looked at.
        top = max(0, first - above)
        crop = pixels[top : first + BAND + below]
        rows = first - top, first - top + BAND
        expected = reference.exact(crop, goal.rank, rows=rows)
        if not np.array_equal(result[first : first + BAND], expected):
            raise DisagreementError(f"rows from {first} on differ")


def measure(
    engine: CudaEngine, goal: Goal, pixels: Pixels, repeats: int, peers: Peers | None
) -> Row:
    """One row: timed, verified, and the peers on the same pixels."""
    row = Row(goal.title, goal.must, goal.aim)
    try:
        ready = engine.prepare(pixels, goal.rank)
        row.variant, row.defines = ready.variant, dict(ready.defines)
        result, times = engine.time_kernel(pixels, goal.rank, repeats=repeats)
        row.copy_ms = statistics.median(engine.time_copy(pixels.nbytes, repeats=repeats))
        row.ms = statistics.median(times)
        verify(engine, goal, result, pixels)
    except LimitError:
        raise
    except CudafilterError as error:
        row.failure = str(error)
        return row
    if peers is not None and goal.dtype == "uint8" and goal.channels == 1:
        row.peers = peers.measure(goal.rank.name, {}, goal.rank, pixels, result, repeats)
    return row


def npp_forms(npp: Npp, problem: Problem) -> Iterator[Form]:
    """NPP's way with squares of bytes."""
    import torch
    from peers import REPLICATE, Size, address

    side, image = problem.filter.window.shape[0], problem.image
    if problem.filter.window.inside is not None:
        return
    size, origin, mask = Size(image.shape[1], image.shape[0]), Size(0, 0), Size(side, side)
    step, anchor = image.stride(0), Size(side // 2, side // 2)
    ends = (address(image), step, size, origin, address(problem.out), step, size, mask, anchor)
    if problem.name in ("erode", "dilate"):
        name = f"Filter{'Min' if problem.name == 'erode' else 'Max'}Border_8u_C1R"

        def extreme() -> torch.Tensor:
            npp.call(name, *ends, REPLICATE)
            return problem.out

        yield name, extreme
    elif problem.name == "median" and side <= MOST_NPP:
        import ctypes

        wanted = ctypes.c_uint32()
        npp.call("FilterMedianBorderGetBufferSize_8u_C1R", size, mask, ctypes.byref(wanted))
        room = torch.empty(max(1, wanted.value), dtype=torch.uint8, device=image.device)

        def middle() -> torch.Tensor:
            npp.call("FilterMedianBorder_8u_C1R", *ends, address(room), REPLICATE)
            return problem.out

        yield "FilterMedianBorder_8u_C1R", middle


def cupy_forms(cupy: Any, ndimage: Any, problem: Problem) -> Iterator[Form]:
    """CuPy's way."""
    image, out = cupy.from_dlpack(problem.image), cupy.from_dlpack(problem.out)
    side = problem.filter.window.shape[0]
    names = {"erode": "minimum_filter", "dilate": "maximum_filter", "median": "median_filter"}
    if problem.filter.window.inside is not None or problem.name not in names:
        return
    if problem.name == "median" and side > MOST_CUPY:
        return

    def run() -> Any:
        getattr(ndimage, names[problem.name])(image, side, output=out, mode="nearest")
        return problem.out

    yield names[problem.name], run


def open_peers() -> Peers | None:
    """The peers that are here; tells of those that are not."""
    try:
        from peers import Peers

        peers = Peers({"NPP": npp_forms, "CuPy": cupy_forms}, {"uint8": 0.0})
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
        "command": "python benchmarks/ranks.py",
        "conditions": f"milliseconds, {side}x{side}, random data on the device, medians of CUDA"
        " events, each result verified; one run",
        "columns": ["work", "variant", "copy", "cudafilter", "x copy", "NPP", "CuPy"],
        "rows": [
            [row.title, row.variant, _three(row.copy_ms), _three(row.ms),
             round(row.ms / row.copy_ms, 1), _three(row.best("NPP")), _three(row.best("CuPy"))]
            for row in rows
        ],
    }  # fmt: skip


def _three(ms: float | None) -> float | None:
    return None if ms is None else float(f"{ms:.3g}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=8192, help="pixels; the bars are for 8192")
    parser.add_argument("--repeats", type=int, default=15, help="timings of which the median is")
    parser.add_argument("--only", nargs="+", metavar="SUBSTRING", help="rows that contain one")
    parser.add_argument("--variant", choices=CHOICES, default="auto", help="the kernel that runs")
    parser.add_argument("--no-peers", action="store_true", help="leave the libraries out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="write a table for the docs")
    arguments = parser.parse_args()
    chosen = [g for g in goals() if any(part in g.title for part in arguments.only or [""])]
    if not chosen or arguments.side < 256 or arguments.repeats < 1:
        parser.error("--only wants a row's title, --side 256 or more, --repeats 1 or more")
    try:
        engine = CudaEngine(variant=arguments.variant)
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
            images = {kind: random_image(np.random.default_rng(0), side, *kind)}
        try:
            rows.append(measure(engine, goal, images[kind], repeats, peers))
        except LimitError as reason:
            print(f"| {goal.title} | {reason} |" + " |" * 7, flush=True)
            continue
        print(rows[-1], flush=True)
        save(arguments.json, {"engine": engine.title, "side": side, "repeats": repeats,
                              "rows": [asdict(row) for row in rows]})  # fmt: skip
    engine.close()
    good = [row for row in rows if not row.failure]
    if good:
        save(arguments.figures, figures(engine.title, side, good))
    for row in rows:
        for peer in row.peers:
            if peer.why_not:
                print(f"{row.title}: no time for {peer.library} {peer.title}: {peer.why_not}")
    return 0 if len(good) == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
