"""Medians, percentiles, erosions and dilations beside their bars and NVIDIA's libraries.

    python benchmarks/ranks.py [--side 8192] [--only SUBSTRING ...] [--variant NAME] [--no-peers]
                               [--json FILE] [--figures FILE]

Device-resident random data; CUDA events, medians after 3 warm-ups; every result is verified
against the definition before it counts, and a peer counts where it has the same samples away from
the border. Needs a GPU, and for the peers PyTorch, CuPy and NPP. Exits with 1 where a result is
wrong or a run fails; a missed bar is only told.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
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
    from apart import Apart
    from peers import Form, Npp, Peer, Problem

BAND = 4
"""Rows at the top, in the middle and at the bottom of a large result that are verified."""

SMALL = 197
"""Side of an image that is verified as a whole."""

MOST_NPP, MOST_CUPY, MOST_TORCH = 11, 15, 3
"""Largest medians asked of these. NPP's of 15x15 bytes ends its context, CuPy's takes 0.6 s.
PyTorch's has all windows in memory."""

BARS = {3: (0.20, 0.10), 5: (0.6, 0.3), 7: (1.6, 0.8), 11: (4, 2), 15: (8, 3), 31: (12, 4)}
"""Of medians of bytes by their side: what they must and may aim to take, in ms."""

SHARES: dict[int, tuple[float, float]] = {
    side: (BARS[side][0] / best, BARS[side][1] / best)
    for side, best in {3: 0.378, 5: 1.22, 7: 14.0, 11: 82.1}.items()
} | {15: (0.2, 0.1)}
"""Of medians of 16 bits and floats: bars as shares of the best peer's time in the same run.

They are to gain on NPP and CuPy what bytes must gain on them, whose times on an H100 these are: all
sort or count the same windows, and a wide sample costs a peer more, too. At 15x15 bytes have a
histogram of 256 counts. No such table holds wider samples, so a fifth must do there, and a tenth is
the aim.
"""


@dataclass(frozen=True)
class Goal:
    """A row of the table: a rank on a kind of image, and its bars, if it has any."""

    title: str
    rank: Rank
    must: float | None = None
    aim: float | None = None
    dtype: str = "uint8"
    channels: int = 1
    of_peer: bool = False
    """Whether its bars are shares of the best peer's time, and not ms."""


@dataclass
class Row:
    """What was measured for one Goal. Times are medians in milliseconds."""

    title: str
    must: float | None
    aim: float | None
    of_peer: bool = False
    variant: str = ""
    defines: dict[str, int] = field(default_factory=dict)
    copy_ms: float = 0.0
    ms: float = 0.0
    failure: str | None = None
    peers: list[Peer] = field(default_factory=list)

    def best(self, *libraries: str) -> float | None:
        """The fastest time of one of *libraries*, or of all."""
        return min(
            (p.ms for p in self.peers if p.ms and (not libraries or p.library in libraries)),
            default=None,
        )

    @property
    def share(self) -> float | None:
        """Its time over the best peer's."""
        best = self.best()
        return None if best is None else self.ms / best

    def holds(self, bar: float | None) -> str:
        """*bar*, and whether it is held."""
        figure = self.share if self.of_peer else self.ms
        if bar is None or figure is None:
            return "-"
        return f"{bar:.2g}{' of peer' * self.of_peer} {'yes' if figure <= bar else 'NO'}"

    def __str__(self) -> str:
        if self.failure:
            return f"| {self.title} | WRONG {self.failure} |" + " |" * (COLUMNS - 2)
        cells = [
            self.title, self.variant, short(self.copy_ms), short(self.ms),
            f"{self.ms / self.copy_ms:.2f}", self.holds(self.must), self.holds(self.aim),
            *(short(self.best(library)) for library in LIBRARIES), short(self.share),
        ]  # fmt: skip
        return f"| {' | '.join(cells)} |"


LIBRARIES = ("NPP", "CuPy", "PyTorch")

HEAD = "| work | variant | copy ms | ms | x copy | must | aim | {} | of the best |".format(
    " | ".join(LIBRARIES)
)
COLUMNS = HEAD.count("|") - 1


def goals() -> Iterator[Goal]:
    """The rows, with the bars for an H100 at 8192x8192."""
    for side, (must, aim) in BARS.items():
        yield Goal(f"median {side}x{side} u8 gray", median(side // 2), must, aim)
    for side, must, aim in ((3, 0.085, 0.065), (7, 0.16, 0.10), (15, 0.20, 0.12), (31, 0.25, 0.14)):
        yield Goal(f"erode {side}x{side} u8 gray", erosion(square(side // 2)), must, aim)
    yield Goal("dilate 101x101 u8 gray", dilation(square(50)))
    yield Goal("erode disk 11 u8 gray", erosion(disk(5)))
    yield Goal("percentile 9x9 u8 gray", percentile(4, 25))
    for dtype, kind in (("uint8", "u8 RGB"), ("uint16", "u16 gray"), ("float32", "f32 gray")):
        channels = 3 if dtype == "uint8" else 1
        for side, shares in SHARES.items():
            title, rank = f"median {side}x{side} {kind}", median(side // 2)
            if channels == 1:
                yield Goal(title, rank, *shares, dtype, channels, of_peer=True)
            else:
                yield Goal(title, rank, None, None, dtype, channels)
        for side in (3, 7, 31):
            rank = erosion(square(side // 2))
            yield Goal(f"erode {side}x{side} {kind}", rank, None, None, dtype, channels)


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


def measure(engine: CudaEngine, goal: Goal, pixels: Pixels, repeats: int, peers: Compared) -> Row:
    """One row: timed, verified, and the peers on the same pixels."""
    row = Row(goal.title, goal.must, goal.aim, goal.of_peer)
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
    if goal.channels == 1:
        row.peers = peers.measure(goal.rank, pixels, result, repeats)
    return row


class Compared:
    """The peers, each in a process of its own."""

    def __init__(self, wanted: bool) -> None:
        self._room = tempfile.TemporaryDirectory()
        self._apart: list[Apart] = []
        self._pixels: Pixels | None = None
        if not wanted:
            return
        try:
            from apart import Apart
        except ImportError as error:
            print(f"no peers: {error}")
            return
        exact = dict.fromkeys(("uint8", "int16", "float32"), 0.0)
        ways: tuple[Callable[..., Iterator[Form]], ...] = (npp_forms, cupy_forms, torch_forms)
        pairs = zip(LIBRARIES, ways, strict=True)
        self._apart = [Apart(library, forms, exact) for library, forms in pairs]

    def measure(self, rank: Rank, pixels: Pixels, result: Pixels, repeats: int) -> list[Peer]:
        """What they take for *rank* of *pixels*, whose *result* is known."""
        if not self._apart:
            return []
        from apart import Work

        given, known = (Path(self._room.name) / name for name in ("pixels.npy", "result.npy"))
        if self._pixels is not pixels:
            np.save(given, pixels)
            self._pixels = pixels
        np.save(known, result)
        work = Work(rank.name, rank, given, known, repeats)
        return [peer for each in self._apart for peer in each.measure(work)]

    @property
    def versions(self) -> dict[str, str]:
        """Of those that have answered."""
        return {name: told for each in self._apart for name, told in each.versions.items()}

    def close(self) -> None:
        """End their processes."""
        for each in self._apart:
            each.close()
        self._room.cleanup()


NPP_KINDS = {1: "8u", 2: "16u", 4: "32f"}
"""NPP's names of samples, by their size in bytes."""


def npp_forms(npp: Npp, problem: Problem) -> Iterator[Form]:
    """NPP's way with squares."""
    import torch
    from peers import REPLICATE, Size, address

    side, image = problem.filter.window.shape[0], problem.image
    if problem.filter.window.inside is not None:
        return
    size, origin, mask = Size(image.shape[1], image.shape[0]), Size(0, 0), Size(side, side)
    kind, anchor = f"{NPP_KINDS[image.element_size()]}_C1R", Size(side // 2, side // 2)
    step = image.stride(0) * image.element_size()
    ends = (address(image), step, size, origin, address(problem.out), step, size, mask, anchor)
    if problem.name in ("erode", "dilate"):
        name = f"Filter{'Min' if problem.name == 'erode' else 'Max'}Border_{kind}"

        def extreme() -> torch.Tensor:
            npp.call(name, *ends, REPLICATE)
            return problem.out

        yield name, extreme
    elif problem.name == "median" and side <= MOST_NPP:
        import ctypes

        wanted = ctypes.c_uint32()
        npp.call(f"FilterMedianBorderGetBufferSize_{kind}", size, mask, ctypes.byref(wanted))
        room = torch.empty(max(1, wanted.value), dtype=torch.uint8, device=image.device)

        def middle() -> torch.Tensor:
            npp.call(f"FilterMedianBorder_{kind}", *ends, address(room), REPLICATE)
            return problem.out

        yield f"FilterMedianBorder_{kind}", middle


def cupy_forms(cupy: Any, ndimage: Any, problem: Problem) -> Iterator[Form]:
    """CuPy's way."""
    image, out = (cupy.from_dlpack(each) for each in (problem.image, problem.out))
    if image.dtype == "int16":
        image, out = image.view("uint16"), out.view("uint16")
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


def torch_forms(problem: Problem) -> Iterator[Form]:
    """PyTorch's way with floats: pooling, and the median of all windows in memory."""
    import torch
    from torch.nn import functional

    image, side = problem.image[None, None], problem.filter.window.shape[0]
    if image.dtype != torch.float32 or problem.filter.window.inside is not None:
        return
    around = side // 2
    if problem.name in ("erode", "dilate"):
        sign = -1 if problem.name == "erode" else 1
        yield (
            "max_pool2d",
            lambda: sign * functional.max_pool2d(sign * image, side, 1, around)[0, 0],
        )
    elif problem.name == "median" and side <= MOST_TORCH:

        def middle() -> torch.Tensor:
            padded = functional.pad(image, (around,) * 4, mode="replicate")
            windows = padded.unfold(2, side, 1).unfold(3, side, 1)
            return windows.flatten(-2).median(-1).values[0, 0]

        yield "unfold and median", middle


def figures(machine: str, side: int, rows: list[Row]) -> dict[str, Any]:
    """The table as docs/figures keeps one."""
    return {
        "published": datetime.date.today().isoformat(),
        "machine": machine,
        "command": "python benchmarks/ranks.py",
        "conditions": f"milliseconds, {side}x{side}, random data on the device, medians of CUDA"
        " events, each result verified; one run",
        "columns": ["work", "variant", "copy", "cudafilter", "x copy", *LIBRARIES, "of the best"],
        "rows": [
            [row.title, row.variant, _three(row.copy_ms), _three(row.ms),
             round(row.ms / row.copy_ms, 1), *(_three(row.best(each)) for each in LIBRARIES),
             _three(row.share)]
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
    peers = Compared(not arguments.no_peers)
    print(f"\n{HEAD}\n{'|---' * COLUMNS}|", flush=True)
    images: dict[tuple[str, int], Pixels] = {}
    rows: list[Row] = []
    for goal in chosen:
        kind = goal.dtype, goal.channels
        if kind not in images:
            images = {kind: random_image(np.random.default_rng(0), side, *kind)}
        try:
            rows.append(measure(engine, goal, images[kind], repeats, peers))
        except LimitError as reason:
            print(f"| {goal.title} | {reason} |" + " |" * (COLUMNS - 2), flush=True)
            continue
        print(rows[-1], flush=True)
        save(arguments.json, {
            "engine": engine.title, "side": side, "repeats": repeats, "peers": peers.versions,
            "rows": [asdict(row) for row in rows],
        })  # fmt: skip
    engine.close()
    peers.close()
    print("\npeers: " + (", ".join(map(" ".join, peers.versions.items())) or "none"))
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
