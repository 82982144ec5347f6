"""A folder of JPEGs by --cluster, beside the same folder on one machine's cores, or on one GPU.

    python benchmarks/cluster.py                    two nodes of one core, beside two threads
    python benchmarks/cluster.py --gpus 2           two GPUs of this host, beside one

All runs are on this machine, one after the other in each round, so that they meet the same load.
Prints the medians: images a second, of the records after the first tenth and before the last one,
and seconds of the whole command, with the start of workers. Exits with 1 where bytes differ.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from cudafilter.host.cores import cores

SIZE = 1632, 1224
"""Two megapixels."""
DISTINCT = 8


class Took(NamedTuple):
    """How long a run took."""

    rate: float
    """Images a second, without the first and the last tenth."""
    whole: float
    """Seconds of the command."""


def pictures(folder: Path, count: int) -> None:
    """*count* JPEGs in *folder*: smooth noise, which packs about as well as a photo."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for n in range(count):
        path = folder / f"{n}.jpg"
        if n < DISTINCT:
            coarse = noise.integers(0, 256, (SIZE[1] // 8, SIZE[0] // 8, 3), np.uint8)
            Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
        else:
            path.write_bytes((folder / f"{n % DISTINCT}.jpg").read_bytes())


def run(words: Sequence[str], place: Path, out: str) -> Took:
    """Run the command with *words*, into the folder *out* of *place*."""
    report = place / "report"
    report.unlink(missing_ok=True)
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "cudafilter", "blur", "-q", "-r", place / "in", place / out,
         "--report", report, *words],
        check=True,
    )  # fmt: skip
    whole = time.perf_counter() - started
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    ends = sorted(datetime.datetime.fromisoformat(line["end"]).timestamp() for line in lines)
    first, last = len(ends) // 10, len(ends) * 9 // 10
    return Took((last - first) / (ends[last] - ends[first]), whole)


def main() -> int:
    """Time both; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    from kills_cluster import add, nodes

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = Path(folder)
        pictures(place / "in", given.images)
        if given.gpus:
            one, all_of_them = (
                stack.enter_context(nodes(0)) for _ in range(2)
            )  # a cluster of one GPU, and one of all
            add(one, num_gpus=1, num_cpus=cores() // given.gpus)
            add(all_of_them, num_gpus=given.gpus, num_cpus=cores())
            words = [["--cluster", each.address] for each in (one, all_of_them)]
            names = ["one GPU", f"{given.gpus} GPUs"]
        else:
            cluster = stack.enter_context(nodes(1, num_cpus=1))
            words = [["-j", "2", "--engine", "cpu"]]
            words.append(["--cluster", cluster.address, "--engine", "cpu"])
            names = ["two threads", "two nodes"]
        took: list[list[Took]] = [[], []]
        for round in range(given.rounds + 1):
            for n in (0, 1) if round % 2 else (1, 0):
                done = run(words[n], place, f"out{n}")
                if round:  # the first one warms up
                    took[n].append(done)
        for path in (place / "out0").iterdir():
            if path.read_bytes() != (place / "out1" / path.name).read_bytes():
                print(f"{path.name} differs", file=sys.stderr)
                return 1
    for name, some in zip(names, took, strict=True):
        rate, whole = (statistics.median(each[k] for each in some) for k in (0, 1))
        print(f"{name}: {rate:.1f} images/s, whole command {whole:.2f} s")
    ratios = [b.rate / a.rate for a, b in zip(*took, strict=True)]
    print(f"{names[1]} over {names[0]}: {statistics.median(ratios):.3f} ({sorted(ratios)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
