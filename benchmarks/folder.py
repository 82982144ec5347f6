"""Folders of 12-megapixel pictures on a host with a GPU, whole commands, files read and written.

    python benchmarks/folder.py [--count 256] [--only jpeg,png,one,memory] [--json FILE]
    python benchmarks/folder.py --count 2048 --only '' --gpus 2

Gaussian sigma 2 on --count JPEGs and PNGs, links to a handful of distinct ones made here: this
checkout with the GPU's JPEG codec, without it and on its CPU engine, OpenCV in threads and in
processes, Pillow in processes, and for JPEGs a naive loop on NVIDIA's nvImageCodec and CuPy, which
must be there for its bar to count. Then one PNG on either engine, and the peak memory of many small
pictures. Contenders take turns, after a round that is not timed and whose first picture is compared
with OpenCV's blur. All keep the bytecode of what they import, as pip has it compiled. Slow peers
get fewer pictures: what counts is pictures a second. "Once running" is the rate past those few,
whose own run counts as the start; where more pictures take more processes, the start of these is in
that rate. In a last round, which is not timed, nvidia-smi tells how busy the GPU and its codecs
are: asked 20 times a second, it made ours 5 % slower. With --gpus 2, JPEGs on two GPUs, on one of
them, and on both by one process take turns. Prints Markdown and each bar of the whole command with
its verdict; exits 1 where one is missed. Nothing else should run meanwhile. It writes up to 6 GB
below the temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from commands import (
    CONSOLE_SCRIPT,
    LARGE,
    OPENCV_POOL,
    OPENCV_WORK,
    QUALITY,
    Contender,
    environment,
    photo,
    read,
    write,
)

from cudafilter.cli.processes import MOST

SMALL = (320, 240)
"""Width and height of the pictures that only queue."""
MANY, FEW = 10_000, 100
ENOUGH = 256
"""Pictures that cores code for a rate."""
SAME = 1.5
"""Mean difference from OpenCV's blur, in steps of 255, that counts as the same picture."""

ONE, TWO = ("--processes", "1"), ("--processes", "2")

CODECS = {"utilization.gpu": "GPU", "utilization.jpeg": "NVJPG", "utilization.decoder": "NVDEC"}

OPENCV_THREADS = f"""{OPENCV_WORK}
from concurrent.futures import ThreadPoolExecutor
cv2.setNumThreads(1)
with ThreadPoolExecutor(int(workers)) as pool:
    list(pool.map(work, sorted(os.listdir(source))))
"""

PILLOW_POOL = f"""
import os, sys
from multiprocessing import Pool
from PIL import Image, ImageFilter
source, destination, processes = sys.argv[1:]
def work(name):
    settings = dict(quality={QUALITY}, subsampling="4:2:0") if name.endswith(".jpg") else {{}}
    image = Image.open(os.path.join(source, name))
    image.filter(ImageFilter.GaussianBlur(2)).save(os.path.join(destination, name), **settings)
if __name__ == "__main__":
    with Pool(int(processes)) as pool:
        for _ in pool.imap_unordered(work, sorted(os.listdir(source))):
            pass
"""


NAIVE = f"""
import os, sys, cupy
from cupyx.scipy.ndimage import gaussian_filter
from nvidia import nvimgcodec
source, destination = sys.argv[1:]
decoder, encoder = nvimgcodec.Decoder(), nvimgcodec.Encoder()
settings = nvimgcodec.EncodeParams(
    quality_type=nvimgcodec.QualityType.QUALITY, quality_value={QUALITY},
    chroma_subsampling=nvimgcodec.ChromaSubsampling.CSS_420)
for name in sorted(os.listdir(source)):
    image = cupy.asarray(decoder.read(os.path.join(source, name)))
    image = gaussian_filter(image, (2, 2, 0), mode="nearest", truncate=3)
    encoder.write(os.path.join(destination, name), nvimgcodec.as_image(image), params=settings)
"""
"""Nothing overlaps, but pixels stay on the GPU."""

OVER_NAIVE = 250 / 121
"""Where the JPEG bar was set, a naive loop, once running, did 121 images/s."""


@dataclass
class FolderContender(Contender):
    """A contender that filters a folder: its command, the source, the destination, *after*."""

    after: list[str] = field(default_factory=list)
    share: int = 1
    """It gets one of so many pictures."""
    rates: list[float] = field(default_factory=list)
    """Pictures a second."""
    start: float = 0.0
    """Seconds on a folder of few pictures: what each run pays before it is under way."""
    running: list[float] = field(default_factory=list)
    """Pictures a second past those few, the start left out."""
    processor: list[float] = field(default_factory=list)
    """Milliseconds of cores for each picture, the start included."""
    busy: dict[str, list[float]] = field(default_factory=dict)
    """Percent, by what nvidia-smi tells."""
    by_cpu_codec: int = 0
    """Pictures that the GPU's codec left to the CPU's."""

    @property
    def rate(self) -> float:
        return median(self.rates) if self.rates else 0.0

    @property
    def steady(self) -> float:
        """Its rate once running."""
        return median(self.running) if self.running else 0.0

    @property
    def cores(self) -> float:
        """Milliseconds of cores for each picture."""
        return median(self.processor) if self.processor else 0.0


@dataclass(frozen=True)
class Verdict:
    """What must hold, what was found, and whether it holds."""

    text: str
    value: float
    ok: bool


def ours(name: str, *options: str) -> FolderContender:
    """This checkout."""
    command = [sys.executable, "-c", CONSOLE_SCRIPT, "blur", "--sigma", "2", "-r", "-q", *options]
    return FolderContender(name, command)


def contenders(workers: int, few: int, slow: int) -> list[FolderContender]:
    """All of a folder. What cores code gets a picture of *few*, and Pillow one of these *slow*."""
    count = str(workers)
    script = [sys.executable, "-c"]
    by_cores = [
        ours("cudafilter, GPU, --codec cpu", "--engine", "cuda", "--codec", "cpu"),
        ours("cudafilter, CPU engine", "--engine", "cpu"),
        FolderContender(f"OpenCV, {count} threads", [*script, OPENCV_THREADS], [count]),
        FolderContender(f"OpenCV, {count} processes", [*script, OPENCV_POOL], [count]),
        FolderContender(f"Pillow, {count} processes", [*script, PILLOW_POOL], [count]),
    ]
    for each in by_cores:
        each.share = few
    by_cores[-1].share *= slow
    return [ours("cudafilter, GPU", "--engine", "cuda"), *by_cores]


def by_units() -> FolderContender:
    """This checkout, with the GPU's JPEG units."""
    how = ("--engine", "cuda", "--gpu", "0", "--codec", "units", "--processes", str(MOST))
    return ours(f"cudafilter, JPEG units, {MOST} processes", *how)


def decoded_by_units() -> float:
    """Pictures a second that the units decode, and nothing else; 0 where there are none."""
    tool = Path(__file__).resolve().parents[1] / "tools" / "jpeg_units.py"
    command = [sys.executable, str(tool), "--only", "rates"]
    done = subprocess.run(command, capture_output=True, text=True)
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")]
    return max((float(row[2]) for row in rows if row[1].strip().isdigit()), default=0.0)


def units(contender: FolderContender) -> list[Verdict]:
    """What the way by units reaches of their own rate, and what it takes of the cores."""
    share = ratio(contender.steady, decoded_by_units())
    spent = contender.cores
    return [
        Verdict("JPEG: by units, once running, 0.75 of their own rate (aim 0.92)",
                share, share >= 0.75),
        Verdict("JPEG: by units, at most 8 ms of the cores a picture (aim 4)",
                spent, 0 < spent <= 8),
    ]  # fmt: skip


def naive(share: int) -> FolderContender:
    """One JPEG after the other by nvImageCodec and CuPy; it gets one picture of *share*."""
    return FolderContender(
        "nvImageCodec and CuPy, a loop", [sys.executable, "-c", NAIVE], share=share
    )


def distinct(folder: Path, kind: str) -> list[Path]:
    """Four pictures of 12 megapixels: one, and that mirrored and shifted."""
    first = photo(*LARGE)
    paths = []
    for i, pixels in enumerate([first, first[::-1], first[:, ::-1], np.roll(first, 1000, axis=1)]):
        paths.append(folder / f"{i}.{kind}")
        if kind == "jpg":
            write(np.ascontiguousarray(pixels), paths[-1])
        else:  # Pillow takes seconds for each
            cv2.imwrite(str(paths[-1]), pixels[..., ::-1])
    return paths


def linked(folder: Path, pictures: Sequence[Path], count: int) -> Path:
    """*folder* with *count* links to *pictures*, in turns."""
    folder.mkdir(parents=True)
    for i in range(count):
        picture = pictures[i % len(pictures)]
        os.link(picture, folder / f"{i:05}{picture.suffix}")
    return folder


def run(
    contender: FolderContender, source: Path, destination: Path, report: Path | None = None
) -> float:
    """Its seconds on the folder *source*; a failure is noted in it."""
    shutil.rmtree(destination, ignore_errors=True)
    destination.mkdir()
    asked = ["--report", str(report)] if report else []
    command = [*contender.command, *asked, str(source), str(destination), *contender.after]
    env = environment(destination.parent)
    started = time.perf_counter()
    done = subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    spent = time.perf_counter() - started
    wrote, wanted = len(list(destination.iterdir())), len(list(source.iterdir()))
    if done.returncode or wrote != wanted:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason told"]
        told = next((line for line in lines if "error" in line.lower()), lines[-1])
        contender.failure = f"exit {done.returncode}, {wrote} of {wanted} files: {told[:150]}"
    return spent


def children() -> float:
    """Seconds of cores that processes have taken which are over."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def watched(busy: dict[str, list[float]]) -> Iterator[None]:
    """Sample nvidia-smi into *busy* meanwhile; where there is none, nothing."""
    program = shutil.which("nvidia-smi")
    if program is None:
        yield
        return
    query = f"--query-gpu={','.join(CODECS)}"
    command = [program, query, "--format=csv,noheader,nounits", "-lms", "50", "-i", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sampler:
        try:
            yield
        finally:
            sampler.terminate()
            told = sampler.stdout.read() if sampler.stdout else ""
    for line in told.splitlines():
        for what, value in zip(CODECS.values(), line.split(","), strict=False):
            if value.strip().isdigit():
                busy.setdefault(what, []).append(float(value))


def differs(source: Path, result: Path) -> float:
    """Mean difference of *result* from OpenCV's blur of *source*."""
    expected = cv2.GaussianBlur(read(source), (13, 13), 2, borderType=cv2.BORDER_REPLICATE)
    return float(cv2.absdiff(read(result), expected).mean())


def race(
    every: Sequence[FolderContender],
    pictures: Sequence[Path],
    folder: Path,
    count: int,
    rounds: int,
) -> None:
    """Fill in rates, in *rounds* turns of all."""
    destination, report = folder / "out", folder / "report.json"
    warm = linked(folder / "warm", pictures, len(pictures))
    sources: dict[int, Path] = {}
    for contender in every:
        share = contender.share
        if share not in sources:
            sources[share] = linked(folder / f"in{share}", pictures, max(1, count // share))
        run(contender, warm, destination)
        if contender.failure is None:
            contender.start = run(contender, warm, destination)
            first = sorted(warm.iterdir())[0]
            off = differs(first, destination / first.name)
            if off > SAME:
                contender.failure = f"another picture: {off:.1f} off on average"
    for _ in range(rounds):
        for contender in every:
            if contender.failure:
                continue
            source = sources[contender.share]
            before = children()
            spent = run(contender, source, destination)
            contender.seconds.append(spent)
            done = len(list(source.iterdir()))
            contender.processor.append(1000 * (children() - before) / done)
            contender.rates.append(done / spent)
            past = max(0, done - len(pictures))
            contender.running.append(past / max(1e-9, spent - contender.start))
    for contender in every:
        if contender.failure is None:
            with watched(contender.busy):
                run(contender, sources[contender.share], destination)
    if every[0].failure is None:
        run(every[0], warm, destination, report)
        every[0].by_cpu_codec = report.read_text().count("decoded and encoded on the CPU")
    shutil.rmtree(destination, ignore_errors=True)


def table(title: str, every: Sequence[FolderContender]) -> Iterator[str]:
    """Markdown of a race."""
    yield f"\n### {title}\n"
    yield (
        "| | images/s | of ours | seconds | once running, images/s | cores, ms each"
        " | busy: mean (most) % |"
    )
    yield "|---|---|---|---|---|---|---|"
    for c in every:
        if c.failure:
            yield f"| {c.name} | failed: {c.failure} | | | | | |"
            continue
        share = f"{c.rate / every[0].rate:.2f}" if every[0].rate else ""
        busy = ", ".join(
            f"{what} {sum(found) / len(found):.0f} ({max(found):.0f})"
            for what, found in c.busy.items()
        )
        told = f"; {c.by_cpu_codec} of the warm-up by the CPU codec" if c.by_cpu_codec else ""
        running = f"{c.steady:.1f}" if c.running else ""
        figures = f"{c.rate:.1f} | {share} | {c.median:.2f} | {running} | {c.cores:.1f}"
        yield f"| {c.name} | {figures} | {busy}{told} |"


def rivals(every: Sequence[FolderContender], name: str) -> float:
    """The best rate of those whose name begins with *name*."""
    return max((c.rate for c in every if c.name.startswith(name)), default=0.0)


def ratio(a: float, b: float) -> float:
    """a / b, or 0 where either was not measured."""
    return a / b if a and b else 0.0


def jpegs(every: Sequence[FolderContender]) -> list[Verdict]:
    fast, plain, loop = every[0].rate, every[1].rate, every[-1]
    opencv = ratio(plain, rivals(every, "OpenCV"))
    over = ratio(fast, loop.steady)
    bars = [
        Verdict("JPEG: at least 250 images/s with the GPU's codec (aim 330)", fast, fast >= 250),
        Verdict("JPEG: at least 60 images/s without it", plain, plain >= 60),
        Verdict("JPEG: without it, as fast as OpenCV at least", opencv, opencv >= 1),
    ]
    if loop.failure is None:  # it needs more than this project installs
        text = f"JPEG: with it, {OVER_NAIVE:.2f}x the naive loop once running at least"
        bars.append(Verdict(text, over, over >= OVER_NAIVE))
    return bars


def pngs(every: Sequence[FolderContender]) -> list[Verdict]:
    ours, host = every[0].rate, every[1].rate
    pillow, opencv = (ratio(ours, rivals(every, name)) for name in ("Pillow", "OpenCV"))
    kept = ratio(ours, host)
    return [
        Verdict("PNG: at least 5x Pillow in processes", pillow, pillow >= 5),
        Verdict("PNG: at least 2.2x the same with --codec cpu (aim 3.5)", kept, kept >= 2.2),
        Verdict("PNG: at least 2.5x OpenCV (aim 4)", opencv, opencv >= 2.5),
    ]


def on_gpus(count: int) -> list[FolderContender]:
    """This checkout on so many GPUs, on one of them, and on all by one process."""
    every = ",".join(map(str, range(count)))
    engine = ("--engine", "cuda", "--gpu")
    return [
        ours(f"cudafilter, {count} GPUs", *engine, every),
        ours("cudafilter, one GPU", *engine, "0"),
        ours(f"cudafilter, {count} GPUs, one process", *engine, every, "--processes", "1"),
    ]


def more_gpus(every: Sequence[FolderContender], count: int) -> list[Verdict]:
    """What *count* GPUs give over one of them."""
    more, least = ratio(every[0].steady, every[1].steady), 0.85 * count
    text = f"JPEG: {count} GPUs at least {least:.1f}x one of them, once running"
    return [Verdict(f"{text} (aim {0.95 * count:.1f}x)", more, more >= least)]


def single(picture: Path, folder: Path, rounds: int) -> tuple[list[FolderContender], list[Verdict]]:
    """One PNG, whole process, on either engine."""
    every = [
        ours("cudafilter, GPU", "--engine", "cuda"),
        ours("cudafilter, CPU engine", "--engine", "cpu"),
        ours("cudafilter, auto"),
    ]
    source = linked(folder / "single", [picture], 1)
    for turn in range(rounds + 1):
        for contender in every:
            if not contender.failure:
                spent = run(contender, source, folder / "out")
                if turn:
                    contender.seconds.append(spent)
                    contender.rates.append(1 / spent)
    gpu, cpu, _ = (c.median for c in every)
    both = bool(gpu and cpu)
    text = "one PNG: the GPU at most 0.25 s slower than the CPU engine"
    return every, [Verdict(text, gpu - cpu if both else 0.0, both and gpu - cpu <= 0.25)]


def peak(contender: FolderContender, source: Path, destination: Path) -> float:
    """MB of RAM that its processes take together at most; what they share counts in each."""
    most = 0.0
    finished = threading.Event()

    def sample() -> None:
        nonlocal most
        while not finished.wait(0.05):
            most = max(most, sum(map(resident, family(os.getpid())[1:])) / 1e6)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        run(contender, source, destination)
    finally:
        finished.set()
        sampler.join()
    return most


def family(pid: int) -> list[int]:
    """*pid* and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (task / "children").read_text().split()
        except OSError:  # it has just ended
            continue
        for child in children:
            found += family(int(child))
    return found


def resident(pid: int) -> int:
    """Bytes of RAM of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def memory(folder: Path) -> tuple[list[str], list[Verdict]]:
    """Peak memory of MANY queued pictures and of FEW."""
    picture = folder / "small.jpg"
    write(photo(*SMALL), picture)
    few, many = (linked(folder / f"queue{n}", [picture], n) for n in (FEW, MANY))
    lines = [
        "\n### Peak host memory, MB\n",
        f"| | {FEW} images | {MANY:,} | ratio |",
        "|---|---|---|---|",
    ]
    bars = []
    every = contenders(1, 1, 1)[:3]
    for contender in every:  # else many would have more processes than few
        contender.command += ONE
    every.append(ours("cudafilter, GPU, 2 processes", "--engine", "cuda", *TWO))
    for contender in every:
        run(contender, few, folder / "out")  # compiles, and shows whether it runs at all
        if contender.failure:
            lines.append(f"| {contender.name} | failed: {contender.failure} | | |")
            continue
        least, most = (peak(contender, source, folder / "out") for source in (few, many))
        more = ratio(most, least)
        lines.append(f"| {contender.name} | {least:.0f} | {most:.0f} | {more:.2f} |")
        text = f"memory, {contender.name}: {MANY:,} images at most 1.5x that of {FEW}"
        bars.append(Verdict(text, more, 0 < more <= 1.5))
    return lines, bars


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    known = ("jpeg", "png", "one", "memory")
    parser.add_argument("--only", default=",".join(known), help="works, with commas")
    parser.add_argument("--count", type=int, default=256, help="pictures in a folder")
    parser.add_argument("--gpus", type=int, default=1, help="race so many GPUs against one, too")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds; one of PNGs")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="of the peers")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else []
    if unknown := {*wanted} - {*known}:
        parser.error(f"--only knows {', '.join(known)}, not {', '.join(sorted(unknown))}")
    figures: dict[str, list[dict[str, object]]] = {}
    bars: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="cudafilter-") as temporary:
        folder = Path(temporary)
        pictures = {}
        if {*wanted} & {"jpeg", "png", "one"} or given.gpus > 1:
            pictures = {kind: distinct(folder, kind) for kind in ("jpg", "png")}
        for work, kind, rounds, slow in (("jpeg", "jpg", given.rounds, 2), ("png", "png", 1, 4)):
            if work not in wanted:
                continue
            few = max(1, given.count // ENOUGH)
            every = contenders(given.workers, few, slow)
            if work == "jpeg":
                every += [by_units(), naive(few * slow)]
            race(every, pictures[kind], folder / work, given.count, rounds)
            size = pictures[kind][0].stat().st_size / 1e6
            print(*table(f"{given.count} {work.upper()}s of {size:.1f} MB", every), sep="\n")
            bars += [*jpegs(every), *units(every[-2])] if work == "jpeg" else pngs(every)
            figures[work] = [asdict(c) for c in every]
        if given.gpus > 1:
            every = on_gpus(given.gpus)
            race(every, pictures["jpg"], folder / "gpus", given.count, given.rounds)
            print(*table(f"{given.count} JPEGs on {given.gpus} GPUs", every), sep="\n")
            bars += more_gpus(every, given.gpus)
            figures["gpus"] = [asdict(c) for c in every]
        if "one" in wanted:
            every, found = single(pictures["png"][0], folder, max(3, given.rounds))
            print(*table("One PNG", every), sep="\n")
            bars += found
            figures["one"] = [asdict(c) for c in every]
        if "memory" in wanted:
            lines, found = memory(folder)
            print(*lines, sep="\n")
            bars += found
    print("\n| bar | found | holds |\n|---|---|---|")
    for bar in bars:
        print(f"| {bar.text} | {bar.value:.2f} | {'yes' if bar.ok else 'NO'} |")
    if given.json:
        figures["bars"] = [asdict(bar) for bar in bars]
        given.json.write_text(json.dumps(figures, indent=1))
    sys.exit(not all(bar.ok for bar in bars))


if __name__ == "__main__":
    main()
