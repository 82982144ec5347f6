"""What --check costs: CPU and wall seconds of the check, and memory, on 12 megapixels RGB.

    python benchmarks/check.py [--base CHECKOUT] [--repeats 3] [--only NAME,NAME] [--json FILE]

Each row is a process of its own, in turns with the same row of the checkout --base: the CPU engine
filters noise, then compare() holds the result to the reference, on all cores but with one BLAS
thread, as the command has it. CPU seconds are the process's, of all threads. Memory is how much
compare() raises the process's peak above the peak of filtering alone. Prints Markdown: medians, and
the bar that each row is held to. Exits 1 where one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

ROWS: dict[str, tuple[str, str, float]] = {
    "blur sigma 2": ("blur", "sigma=2", 1.0),
    "blur sigma 10": ("blur", "sigma=10", 2.5),
    "blur sigma 50": ("blur", "sigma=50", 7.0),
    "dense 31x31": ("kernel", "weights=random.random((31, 31)), normalize=True", 3.0),
    "sobel": ("sobel", "", 0.8),
    "box 101x101": ("box", "radius=50", 1.5),
    "canny": ("canny", "", 0.8),
    "threshold --otsu": ("threshold", "otsu=True", 0.8),
}
"""Name -> filter, parameters as Python, CPU seconds that it may take."""

MEMORY = 2
"""How many times the image's memory a check may take."""

CHILD = """
import json, resource, sys, time
import numpy as np
import cudafilter
from cudafilter.check import compare
from cudafilter.operations.make import make
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
random = np.random.default_rng(1)
image = random.integers(0, 256, ({height}, {width}, 3), dtype=np.uint8)
parameters = dict({parameters})
result = cudafilter.apply(image, {name!r}, engine="cpu", **parameters)
before, cpu, wall = peak(), time.process_time(), time.perf_counter()
agreement = compare(result, image, make({name!r}, **parameters))
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
assert agreement.ok, str(agreement)
print(json.dumps(dict(cpu=cpu, wall=wall, memory=(peak() - before) / image.nbytes,
                      differing=agreement.differing)))
"""


def once(checkout: Path, row: str, width: int, height: int) -> dict[str, float]:
    """Run *row* in *checkout*: its CPU and wall seconds, and memory in images."""
    name, parameters, _ = ROWS[row]
    code = CHILD.format(name=name, parameters=parameters, width=width, height=height)
    environment = {"PYTHONPATH": str(checkout), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, cwd=checkout,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{checkout}: {row}: {done.stderr[-500:]}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", type=Path, help="another checkout, to compare with")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default=",".join(ROWS), help="rows, with commas")
    parser.add_argument("--size", default="4000x3000")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    checkouts = {"base": given.base.resolve()} if given.base else {}
    checkouts["here"] = ROOT
    rows: list[dict[str, Any]] = []
    print(
        "| check of | base, CPU s | wall s | here, CPU s | wall s | bar, CPU s | CPU ratio"
        " | memory, images |"
    )
    print("|---" * 8 + "|")
    if unknown := {*given.only.split(",")} - {*ROWS}:
        parser.error(f"--only knows {', '.join(ROWS)}, not {', '.join(sorted(unknown))}")
    for row in given.only.split(","):
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
        for _ in range(given.repeats):
            for name, checkout in checkouts.items():
                runs[name].append(once(checkout, row, width, height))
        told = {
            name: {figure: median(run[figure] for run in of) for figure in of[0]}
            for name, of in runs.items()
        }
        here, base, bar = told["here"], told.get("base"), ROWS[row][2]
        here["memory"] = max(run["memory"] for run in runs["here"])
        rows.append({"row": row, "bar": bar, **told})
        before = f"{base['cpu']:.2f} | {base['wall']:.2f}" if base else " | "
        ratio = f"{base['cpu'] / here['cpu']:.1f}" if base else ""
        print(
            f"| {row} | {before} | {here['cpu']:.2f} | {here['wall']:.2f} | {bar:g} | {ratio}"
            f" | {here['memory']:.2f} |",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    missed = [
        r["row"] for r in rows
        if r["here"]["cpu"] > r["bar"] or r["here"]["memory"] > MEMORY
    ]  # fmt: skip
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
