"""Prove on a GPU that the first use starts no compiler, and time it beside the second.

python tools/first_use.py                     with the cudafilter that this Python finds
python tools/first_use.py --strace "./ld.so --library-path lib ./strace"    another strace

A filter whose kernel comes compiled must start no program and load no compiler; its first run, with
an empty cache, must take at most 1.5 times as long as the next one. Another filter may load NVRTC,
must start no program, and may take 2 s longer. 1 where that does not hold.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PICTURE = Path(__file__).resolve().parents[1] / "samples" / "chart.png"
COMES_COMPILED = ("blur", "--sigma", "2")
COMPILED_HERE = ("blur", "--sigma", "2.6", "--radius", "11")
ENGINE = "cuda"
PAIRS = 5
MOST_TIMES = 1.5
MOST_SECONDS = 2.0


def run(filter: tuple[str, ...], folder: Path, before: list[str]) -> float:
    """Seconds of a run in *folder*, whose cache is in it; *before* starts it."""
    command = [
        *before, sys.executable, "-m", "cudafilter", *filter, "--engine", ENGINE,
        str(PICTURE), str(folder / "out.png"),
    ]  # fmt: skip
    environment = {**os.environ, "CUDAFILTER_CACHE": str(folder / "cache")}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} failed:\n{done.stderr}")
    return seconds


def traced(filter: tuple[str, ...], strace: list[str]) -> tuple[list[str], list[str]]:
    """The programs that a first run starts beside Python itself, and the compilers it loads."""
    with tempfile.TemporaryDirectory(prefix="cudafilter-") as name:
        folder = Path(name)
        log = folder / "log"
        run(filter, folder, [*strace, "-f", "-qq", "-e", "trace=execve,execveat,openat", "-o",
                             str(log)])  # fmt: skip
        lines = log.read_text(errors="replace").splitlines()
    lines = [line for line in lines if " = -1" not in line]
    started = [line for line in lines if re.search(r"\bexecve(at)?\(", line)][1:]
    loaded = [line for line in lines if re.search(r"lib(nvrtc|nvptxcompiler)|cicc|ptxas", line)]
    return started, loaded


def timed(filter: tuple[str, ...]) -> tuple[float, float]:
    """Median seconds of first runs, with an empty cache, and of the runs after them."""
    first, second = [], []
    for _ in range(PAIRS):
        with tempfile.TemporaryDirectory(prefix="cudafilter-") as name:
            first.append(run(filter, Path(name), []))
            second.append(run(filter, Path(name), []))
    return statistics.median(first), statistics.median(second)


def main() -> int:
    """Print what is found; 1 where it is not as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--strace", default="strace", type=shlex.split, metavar="COMMAND")
    strace: list[str] = parser.parse_args().strace
    failed = False
    with tempfile.TemporaryDirectory(prefix="cudafilter-") as name:
        run(COMES_COMPILED, Path(name), [])  # warms the files that all runs read
    for filter, compiled in ((COMES_COMPILED, True), (COMPILED_HERE, False)):
        started, loaded = traced(filter, strace)
        first, second = timed(filter)
        kind = "comes compiled" if compiled else "is compiled here"
        print(f"{shlex.join(filter)}, whose kernel {kind}:")
        print(f"  first run {first:.3f} s, second {second:.3f} s, {first / second:.2f} times")
        print(f"  programs started: {len(started)}; compilers loaded: {len(loaded)}")
        for line in (*started, *(loaded if compiled else loaded[:1])):
            print(f"    {line}")
        failed |= bool(started) or (compiled and bool(loaded))
        failed |= first > MOST_TIMES * second if compiled else first > second + MOST_SECONDS
    print("this does not hold" if failed else "this holds")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
