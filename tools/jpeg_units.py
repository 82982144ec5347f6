"""What the GPU's JPEG units decode, beside libjpeg-turbo: how far samples are apart, and how fast.

python tools/jpeg_units.py                 10,000 pictures, and rates by batch
python tools/jpeg_units.py --count 1000 --figures FILE
python tools/jpeg_units.py --only rates

Pictures have random sizes, contents, qualities and subsamplings. Each is decoded in a batch of a
random length. Prints the largest difference and the share of samples that differ, by subsampling,
and exits 1 where one is more than a step off. Rates are of 12 megapixels, files in memory.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from commands import LARGE, photo

from cudafilter.engines.cuda.device import Device
from cudafilter.engines.cuda.slots import Slot
from cudafilter.nvidia import nvjpeg
from cudafilter.nvidia.nvjpeg import NvJpeg
from cudafilter.nvidia.nvjpeg_units import Batches, Coded
from cudafilter.operations.pixels import Pixels

SUBSAMPLINGS = ("444", "422", "420", "440", "411", "Gray")
MOST = 28
"""Longest batch."""
PITCH = 512
"""Bytes that rows are multiples of on the device."""


class Decoder:
    """The units of GPU 0."""

    def __init__(self) -> None:
        self.device = Device(0, 1)
        self.slot = Slot(self.device.cuda)
        with self.device.current():
            library = nvjpeg.find(self.device.cuda_version)
            if library is None:
                sys.exit("nvJPEG is not installed (the extra nvcodec)")
            loaded = NvJpeg(library)
            if loaded.units is None:
                sys.exit("this GPU has no JPEG units")
            self.batches = Batches(loaded)

    def place(self, number: int, shape: tuple[int, int, int]) -> tuple[int, int]:
        """Address and pitch for picture *number* of a batch."""
        pitch = -(-shape[1] * shape[2] // PITCH) * PITCH
        return self.slot.memory(f"picture {number}", shape[0] * pitch), pitch

    def decode(self, files: Sequence[bytes], shapes: Sequence[tuple[int, int, int]]) -> None:
        """Decode *files*, all of the same channels, each to its place."""
        places = [self.place(number, shape) for number, shape in enumerate(shapes)]
        coded = [
            Coded(np.frombuffer(file, np.uint8), *place)
            for file, place in zip(files, places, strict=True)
        ]
        self.batches.decode(coded, shapes[0][2], self.slot.stream.handle)
        self.slot.stream.synchronize()

    def pixels(self, number: int, shape: tuple[int, int, int]) -> Pixels:
        """What picture *number* was decoded to."""
        out = np.empty(shape, np.uint8)
        self.slot.download(out, *self.place(number, shape))
        self.slot.finish()
        return out


def picture(seed: int) -> tuple[bytes, str]:
    """A random file and its subsampling."""
    rng = np.random.default_rng(seed)
    sampling = SUBSAMPLINGS[seed % len(SUBSAMPLINGS)]
    height, width = (int(2 ** rng.uniform(3, 10)) for _ in range(2))
    channels = 1 if sampling == "Gray" else 3
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, channels))
    smooth = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    noise = rng.normal(0, rng.uniform(0, 40), smooth.shape)
    pixels = np.ascontiguousarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))
    space = "GRAY" if channels == 1 else "RGB"
    quality = int(rng.integers(20, 101))
    return simplejpeg.encode_jpeg(pixels, quality, space, sampling), sampling


def compare(decoder: Decoder, count: int, threads: int) -> dict[str, dict[str, int]]:
    """Figures by subsampling of *count* pictures."""
    found = {
        name: {"pictures": 0, "refused": 0, "samples": 0, "differ": 0, "largest": 0}
        for name in SUBSAMPLINGS
    }
    draw = random.Random(0)
    waiting: dict[int, list[tuple[bytes, Pixels, str]]] = {1: [], 3: []}

    def flush(channels: int) -> None:
        batch, waiting[channels] = waiting[channels], []
        if not batch:
            return
        shapes: list[Any] = [expected.shape for _, expected, _ in batch]
        decoder.decode([file for file, _, _ in batch], shapes)
        for number, (_, expected, sampling) in enumerate(batch):
            off = np.abs(decoder.pixels(number, shapes[number]).astype(np.int16) - expected)
            figures = found[sampling]
            figures["pictures"] += 1
            figures["samples"] += off.size
            figures["differ"] += int(np.count_nonzero(off))
            figures["largest"] = max(figures["largest"], int(off.max()))

    def made(seed: int) -> tuple[bytes, Pixels, str]:
        file, sampling = picture(seed)
        space = "GRAY" if sampling == "Gray" else "RGB"
        return file, simplejpeg.decode_jpeg(file, space), sampling

    with decoder.device.current(), ThreadPoolExecutor(threads) as pool:
        for first in range(0, count, 256):
            for one in pool.map(made, range(first, min(first + 256, count))):
                if not decoder.batches.takes(one[0]):
                    found[one[2]]["refused"] += 1
                    continue
                channels = one[1].shape[2]
                waiting[channels].append(one)
                if len(waiting[channels]) >= draw.randint(1, MOST):
                    flush(channels)
        flush(1)
        flush(3)
    return found


def rates(decoder: Decoder) -> Iterator[str]:
    """Lines of a table: pictures a second and the processor's milliseconds of each, by batch."""
    first = photo(*LARGE)
    files = [
        simplejpeg.encode_jpeg(np.ascontiguousarray(turned), 90, "RGB", "420")
        for turned in (first, first[::-1], first[:, ::-1], np.roll(first, 1000, 1))
    ]
    with decoder.device.current():
        for length in (1, 2, 7, 14, 28):
            batch = [files[number % 4] for number in range(length)]
            shapes = [first.shape] * length
            for _ in range(2):
                decoder.decode(batch, shapes)
            rounds = max(3, 84 // length)
            began, spent = time.perf_counter(), cpu()
            for _ in range(rounds):
                decoder.decode(batch, shapes)
            seconds, spent = time.perf_counter() - began, cpu() - spent
            done = rounds * length
            yield f"| {length} | {done / seconds:.0f} | {1000 * spent / done:.2f} |"
        began = time.perf_counter()
        for _ in range(10):
            decoder.decode(files[:1], shapes[:1])
            decoder.decode(files[:2], shapes[:2])
        yield f"\nof 1 and 2 in turns: {1000 * (time.perf_counter() - began) / 10:.1f} ms for both"


def cpu() -> float:
    """Seconds of the processor so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=16, help="that make pictures")
    parser.add_argument("--only", choices=("pixels", "rates"))
    parser.add_argument("--figures", type=Path, help="write the figures there, as JSON")
    given = parser.parse_args()
    decoder = Decoder()
    print(decoder.device.title)
    far = False
    if given.only != "rates":
        found = compare(decoder, given.count, given.threads)
        print("| subsampling | pictures | refused | samples | differ | largest difference |")
        print("|---|---|---|---|---|---|")
        for name, row in found.items():
            share = row["differ"] / max(1, row["samples"])
            print(
                f"| {name} | {row['pictures']} | {row['refused']} | {row['samples']:,}"
                f" | {100 * share:.4f} % | {row['largest']} |"
            )
            far |= row["largest"] > 1
        if given.figures:
            given.figures.write_text(json.dumps(found, indent=1) + "\n")
    if given.only != "pixels":
        print("\n| batch | pictures/s | processor, ms a picture |\n|---|---|---|")
        for line in rates(decoder):
            print(line, flush=True)
    sys.exit(far)


if __name__ == "__main__":
    main()
