"""How tight the contract is: what each variant needs of it, and which wrong results it refuses.

python tools/contract.py                 both tables, for the CPU and each variant of a GPU
python tools/contract.py --figures DIR   writes tolerances.json and refused.json there too
python tools/contract.py --size 400      larger images find more of what variants need
python tools/contract.py --few           the first table over a third of the filters: minutes
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from itertools import product, repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from compiled import compile_for, launches

from agreement import random_pixels, tolerance
from cudafilter.engines.bench import Contestant, open_contestants
from cudafilter.engines.cuda.variants.task import Launch
from cudafilter.errors import LimitError
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import DTYPES, Exact, Pixels, full_scale, quantise
from mutations import FILTERS, verdicts, wrong_results

SIZE = 150
"""Side of the images, in pixels."""

LAYOUTS = [(1, False), (3, False), (4, True)]


def _dense(side: int) -> Operation:
    weights = np.random.default_rng(side).random((side, side))
    return make("kernel", weights=weights, normalize=True)


LARGE: dict[str, Operation] = {
    "blur --sigma 2": make("blur", sigma=2),
    "blur --sigma 10": make("blur", sigma=10),
    "blur --sigma 50": make("blur", sigma=50),
    "box --radius 15": make("box", radius=15),
    "box --radius 50": make("box", radius=50),
    "dense 15x15": make(
        "kernel", weights=np.random.default_rng(1).random((15, 15)), normalize=True
    ),
    "dense 31x31": make(
        "kernel", weights=np.random.default_rng(2).random((31, 31)), normalize=True
    ),
    "whole 13x13": make("kernel", weights=np.random.default_rng(3).integers(-3, 4, (13, 13))),
}
"""Beside FILTERS, kernels whose sums are long."""


def images(dtype: str, channels: int, size: int) -> Iterator[Pixels]:
    """Noise, bright noise, and flat areas, where errors go to one side."""
    noise = random_pixels((size, size + 30, channels), dtype)
    yield noise
    half = full_scale(dtype) / 2
    yield quantise(noise.astype(np.float64) / 2 + half, dtype)
    flat = np.repeat(np.repeat(noise[::16, ::16], 16, axis=0), 16, axis=1)
    yield np.ascontiguousarray(flat[:size, :size])


def needed(got: Pixels, exact: Exact) -> Exact:
    """How far each value must have lain from the exact one, before it rounded to *got*."""
    expected = quantise(exact, got.dtype).astype(np.float64)
    boundary = got if got.dtype.kind == "f" else np.where(got > expected, got - 0.5, got + 0.5)
    found: Exact = np.where(got == expected, 0.0, np.abs(exact - boundary))
    return found


def titles(contestants: list[Contestant]) -> list[str]:
    """What each one is called in the tables."""
    return [one.variant or one.engine.name for one in contestants]


def run(one: Contestant, pixels: Pixels, filter: Operation, border: Border, alpha: bool) -> Pixels:
    """The result of *one*. Raises LimitError where its variant refuses the filter."""
    if one.cuda is not None and one.variant is not None:
        one.cuda.variant = one.variant
    return one.engine.run(pixels, filter, border, alpha).pixels


def shares(
    engine: str, dtype: str, filters: dict[str, Operation], size: int
) -> dict[str, tuple[float, str]]:
    """By contestant, the largest share of the tolerance that a result of *dtype* takes.

    And of which filter. Nothing where it runs none. Above 1 the contract is broken.
    """
    contestants, _ = open_contestants(engine, "auto", None)
    worst: dict[str, tuple[float, str]] = {}
    border = Border("reflect")
    for (name, filter), (channels, alpha) in product(filters.items(), LAYOUTS):
        if not filter.unrolled(border):
            continue  # it changes nothing, so no variant runs
        for pixels in images(dtype, channels, size):
            exact = reference.exact(pixels, filter, border, alpha)
            limit = tolerance(pixels, filter, border, alpha)
            for title, one in zip(titles(contestants), contestants, strict=True):
                try:
                    need = needed(run(one, pixels, filter, border, alpha), exact)
                except LimitError:
                    continue
                with np.errstate(all="ignore"):
                    share = float(np.nanmax(np.where(need > 0, need / limit, 0.0)))
                if title not in worst or share > worst[title][0]:
                    worst[title] = share, f"{name}{' with alpha' if alpha else ''}"
    return worst


def filters(few: bool) -> dict[str, Operation]:
    """What the first table is over."""
    return {name: FILTERS[name] for name in [*FILTERS][:: 3 if few else 1]} | LARGE


def compile_all(contestants: list[Contestant], few: bool) -> None:
    """Compile what the GPU's contestants run for the first table."""
    wanted: list[Launch] = []
    for one in contestants:
        if one.variant is None:
            continue
        for filter, dtype, (channels, alpha) in product(filters(few).values(), DTYPES, LAYOUTS):
            wanted += launches(filter, channels, dtype, Border("reflect"), alpha, one.variant)
    if wanted:
        (engine,) = {one.cuda for one in contestants if one.cuda is not None}
        compile_for(engine, wanted)


def refused(one: Contestant) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Of results of *one* made wrong, by kind and type: how many were tried, how many refused.

    Those are not counted of which the check says that a sample is not proven.
    """
    tried: Counter[tuple[str, str]] = Counter()
    found: Counter[tuple[str, str]] = Counter()

    def filtered(pixels: Pixels, filter: Operation, border: Border, alpha: bool) -> Pixels:
        return run(one, pixels, filter, border, alpha)

    for filter in FILTERS.values():
        for dtype in DTYPES:
            for channels, alpha in LAYOUTS:
                try:
                    wrongs = wrong_results(filter, dtype, channels, Border(), alpha, filtered)
                    for kind, verdict in verdicts(wrongs, filter, Border(), alpha):
                        if verdict.ok and verdict.unproven:
                            continue
                        tried[kind, dtype] += 1
                        found[kind, dtype] += not verdict.ok
                except LimitError:
                    continue
    return tried, found


def main() -> int:
    """Print the tables; 1 where a right result is refused or a wrong one accepted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=SIZE, help="side of the images, in pixels")
    parser.add_argument("--figures", type=Path, help="where the tables are written as JSON")
    parser.add_argument("--engine", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--few", action="store_true", help="a third of the filters, made right")
    arguments = parser.parse_args()
    few: bool = arguments.few
    contestants, why = open_contestants(arguments.engine, "auto", None)
    if why:
        print(why)
    size = [] if arguments.size == SIZE else [f"--size {arguments.size}"]
    command = " ".join(["python tools/contract.py", *["--few"] * few, *size])
    cuda = next((one.cuda for one in contestants if one.cuda), None)
    machine = cuda.title.removeprefix("cuda: ") if cuda else contestants[0].engine.title
    compile_all(contestants, few)
    broken = False
    told: list[list[Any]] = []
    tried: Counter[tuple[str, str]] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        parts = pool.map(
            shares, repeat(arguments.engine), DTYPES, repeat(filters(few)), repeat(arguments.size)
        )
        worst = dict(zip(DTYPES, parts, strict=True))
    for title in titles(contestants):
        own = {dtype: found[title] for dtype, found in worst.items() if title in found}
        print(title, *(f"{dtype} {own.get(dtype)}" for dtype in DTYPES), flush=True)
        told.append([title, *(round(own[d][0], 3) if d in own else None for d in DTYPES)])
        broken |= not all(share <= 1 for share, _ in own.values())
    if arguments.figures:
        _write(arguments.figures / "tolerances.json", command, machine, ["variant", *DTYPES], told,
               f"largest share of the tolerance that a result takes, over {len(filters(few))}"
               " filters, with and without alpha; 0 says that all are the reference's",
               )  # fmt: skip
    if few:
        return int(broken)
    for one in contestants:
        for total, part in zip((tried, found), refused(one), strict=True):
            total.update(part)
    kinds = sorted({kind for kind, _ in tried})
    rows: list[list[Any]] = []
    for kind in kinds:
        cells = [
            f"{found[kind, dtype]:,} of {tried[kind, dtype]:,}" if tried[kind, dtype] else None
            for dtype in DTYPES
        ]
        rows.append([kind, *cells])
        print(f"{kind}:", *cells)
    print(f"{sum(found.values()):,} of {sum(tried.values()):,} wrong results refused")
    if arguments.figures:
        _write(arguments.figures / "refused.json", command, machine, ["made wrong", *DTYPES], rows,
               "wrong results refused of those tried, of all filters and variants")  # fmt: skip
    return int(broken or found != tried)


def _write(
    path: Path,
    command: str,
    machine: str,
    columns: list[str],
    rows: list[list[Any]],
    conditions: str,
) -> None:
    told = {
        "published": date.today().isoformat(),
        "machine": machine,
        "command": command,
        "conditions": conditions,
        "columns": columns,
        "rows": rows,
    }
    path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
