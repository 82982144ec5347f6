"""Whole commands against today's tools: what a user waits for, from the shell's return key on.

    python benchmarks/wallclock.py [--only png,jpeg] [--repeats 7] [--json FILE] [--cores 2]

Runs this checkout and every tool that is installed (ImageMagick, GraphicsMagick, libvips, G'MIC,
ffmpeg, scripts with OpenCV and Pillow) on the same pictures, Gaussian sigma 2, in turns: A B C,
A B C, ... after a first round that is not timed. That round's pictures are compared with the
float64 reference; a tool whose picture is another one is shown and counts for no bar. The
pictures are made here, the same on every run. Python keeps the bytecode of what it imports. All
processes keep to --cores cores. Prints Markdown: a table of medians and minima for each work, and
each bar with its verdict, a ratio of medians taken in one run. Exits 1 where a bar is missed.
Nothing else should run meanwhile.

JPEGs come in at quality 90 with 4:2:0 chroma, which ours keeps; the others are told to write the
same. ffmpeg has a quality scale of its own and gets its best but one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from commands import QUALITY, Bar, Compared, Work, Works, environment, read
from PIL import Image


def once(contender: Compared, folder: Path) -> float:
    """Run it from a clean start; its seconds. A failure is noted in it."""
    if contender.output is not None:
        for path in contender.output.iterdir() if contender.output.is_dir() else ():
            path.unlink()
        if contender.output.is_file():
            contender.output.unlink()
    env = {**environment(folder), **contender.env}
    started = time.perf_counter()
    ran = subprocess.run(
        contender.command, input=contender.stdin.encode(), cwd=folder, env=env,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    spent = time.perf_counter() - started
    if ran.returncode:
        told = "; ".join(ran.stderr.decode(errors="replace").split("\n"))
        contender.failure = f"exit {ran.returncode}: {told[-300:]}"
    return spent


def verify(work: Work, contender: Compared) -> None:
    """Note how large *contender*'s output is, and how far from the reference."""
    if contender.failure or contender.output is None:
        return
    path = contender.output
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if len(files) != work.images:
        contender.failure = f"wrote {len(files)} of {work.images} files"
        return
    contender.nbytes = sum(file.stat().st_size for file in files)
    apart = []
    for name, expected in work.expected.items():
        got = read(path / name if name else path)
        apart.append(cv2.absdiff(got, expected).ravel())
    differences = np.concatenate(apart)
    contender.mean = float(differences.mean())
    contender.tail = float(np.quantile(differences, 0.999))


def measure(work: Work, folder: Path, repeats: int) -> None:
    for contender in work.contenders:
        once(contender, folder)
        verify(work, contender)
    for _ in range(repeats):
        for contender in work.contenders:
            if contender.failure is None:
                contender.seconds.append(once(contender, folder))


def judge(bar: Bar, work: Work) -> dict[str, Any]:
    """The verdict on *bar*: ratio of medians, ratio of minima, and whether the first holds."""
    ours, *others = work.contenders
    named = [c for c in others if c.name not in bar.but and c.name in (bar.peers or {c.name})]
    rivals = [c for c in named if c.right and c.seconds]
    verdict: dict[str, Any] = {"work": work.name, "bar": bar.text, "rival": None, "ok": False}
    if not rivals or not ours.seconds:
        return verdict
    rival = min(rivals, key=lambda c: c.median)
    ratio, least = ours.median / rival.median, min(ours.seconds) / min(rival.seconds)
    if bar.rate:
        ratio, least = 1 / ratio, 1 / least
    holds = ratio >= bar.limit if bar.rate else ratio <= bar.limit
    verdict.update(rival=rival.name, ratio=ratio, minima=least, ok=bool(holds and ours.right))
    return verdict


def table(work: Work) -> Iterator[str]:
    """Markdown of what was measured."""
    yield f"\n### {work.title}\n"
    yield "| | median s | min s | images/s | x ours | MB written | mean, 99.9 % difference |"
    yield "|---|---|---|---|---|---|---|"
    ours = work.contenders[0]
    for c in work.contenders:
        if not c.seconds:
            yield f"| {c.name} | failed: {c.failure} | | | | | |"
            continue
        size = f"{c.nbytes / 1e6:.2f}" if c.nbytes is not None else ""
        apart = f"{c.mean:.2f}, {c.tail:.0f}" if c.mean is not None else ""
        apart += "" if c.right else " (another picture)"
        times = f"{c.median / ours.median:.2f}" if ours.seconds else ""
        rate = f"{work.images / c.median:.3g}" if work.images > 1 else ""
        yield (
            f"| {c.name} | {c.median:.3f} | {min(c.seconds):.3f} | {rate}"
            f" | {times} | {size} | {apart} |"
        )


def level_one(work: Work) -> int | None:
    """Size in bytes that Pillow's compress level 1 gives the expected picture of *png*."""
    if work.name != "png":
        return None
    with tempfile.TemporaryFile() as file:
        Image.fromarray(work.expected[""]).save(file, "png", compress_level=1)
        return file.tell()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    every = ("png", "jpeg", "folder", "small", "help")
    parser.add_argument("--only", default=",".join(every), help="works, with commas")
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds; a third for folder")
    parser.add_argument("--cores", type=int, default=2, help="cores that all processes keep to")
    parser.add_argument("--images", type=int, default=200, help="images in the folder")
    parser.add_argument("--engine", default="auto", help="ours; cpu where the host has a GPU")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    wanted = given.only.split(",")
    if unknown := {*wanted} - {*every}:
        parser.error(f"--only knows {', '.join(every)}, not {', '.join(sorted(unknown))}")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])
    verdicts, figures = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        works = Works(folder, given.cores, given.engine, given.images)
        print(f"{len(os.sched_getaffinity(0))} cores; JPEG quality {QUALITY}, 4:2:0;", end=" ")
        print("not installed:", ", ".join(works.missing) or "nothing")
        for name in wanted:
            work: Work = getattr(works, name)()
            rounds = max(1, given.repeats // 3) if name == "folder" else given.repeats
            measure(work, folder, rounds)
            print("\n".join(table(work)))
            verdicts += [judge(bar, work) for bar in work.bars]
            ours = work.contenders[0]
            if ours.nbytes is not None and (size := level_one(work)) is not None:
                ratio = ours.nbytes / size
                print(f"\nPillow's level 1 writes {size / 1e6:.2f} MB.")
                verdicts.append(
                    {"work": name, "bar": "file at most 1.15x Pillow's level 1", "rival": "Pillow",
                     "ratio": ratio, "minima": ratio, "ok": ratio <= 1.15}
                )  # fmt: skip
            figures += [{"work": name, **_figures(c)} for c in work.contenders]
    print("\n| work | bar | against | ratio of medians | of minima | |\n|---|---|---|---|---|---|")
    for v in verdicts:
        ratios = f"{v['ratio']:.2f} | {v['minima']:.2f}" if v["rival"] else "nothing to compare |"
        verdict = "PASS" if v["ok"] else "MISS"
        print(f"| {v['work']} | {v['bar']} | {v['rival']} | {ratios} | {verdict} |")
    if given.json:
        given.json.write_text(json.dumps({"bars": verdicts, "figures": figures}, indent=1))
    sys.exit(not all(v["ok"] for v in verdicts))


def _figures(contender: Compared) -> dict[str, Any]:
    left_out = {"stdin", "output", "env"}
    return {key: value for key, value in asdict(contender).items() if key not in left_out}


if __name__ == "__main__":
    main()
