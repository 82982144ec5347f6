"""What sizing says that an image takes in memory is what it takes, by a process's own peak."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import ENVIRONMENT
from cudafilter.formats import rows
from cudafilter.formats.metadata import Animation, Metadata
from cudafilter.formats.rows import Header
from cudafilter.formats.table import FORMATS, written
from cudafilter.jobs import sizing
from cudafilter.operations.pixels import Pixels
from cudafilter.stores import local

pytestmark = [
    pytest.mark.usefixtures("here"),
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="no peak of memory is told here"
    ),
]

LOSSY = ("--quality", "90")
THREADS = {"avif": 16 << 20, "jxl": 40 << 20}
"""Bytes that two threads take of their own, with a quality."""
SIDES = (1500, 1000)
"""Width and height of an image whose memory is measured."""

PEAK = r"""
import os, re, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # each thread takes memory
from pathlib import Path
from click.testing import CliRunner
from cudafilter.cli import app

def told(word):
    return int(re.search(word + r":\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10

def do(source):
    words = ["blur", "--engine", "cpu", "--existing", "overwrite", source, *sys.argv[1:]]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    assert "by rows" not in done.stderr

do("small")
before = told("VmRSS")
do("large")
print(told("VmHWM") - before)
"""


def photo(width: int, height: int, channels: int, number: int) -> Pixels:
    """Soft shapes with some noise, as a photograph has; each *number* moves them."""
    y, x = np.ogrid[:height, :width]
    random = np.random.default_rng(number)
    pixels: Pixels = np.empty((height, width, channels), np.uint8)
    for channel, (a, b) in zip(range(channels), ((90, 70), (50, 110), (130, 60)), strict=False):
        shape = np.sin((x + 40 * number) / a) + np.cos(y / b)
        pixels[..., channel] = shape * 50 + 120 + random.integers(0, 6, (height, width))
    return pixels


def save(name: str, format: str, width: int, height: int, frames: int = 1) -> None:
    channels = 1 if FORMATS[format].colours == ("gray",) else 3
    timed = frames > 1 and format != "tiff"
    metadata = Metadata(animation=Animation(0)) if timed else Metadata()
    seconds = Fraction(1, 10) if timed else None
    header = Header(width, height, channels, "uint8", False, metadata, seconds, frames)

    def fill(target: Any) -> None:
        writer = rows.create(format, target, header)
        for number in range(frames):
            if number:
                writer.next_frame(header)
            writer.write(photo(width, height, channels, number))
        writer.close()

    local.write_whole(local.resolve(Path(name)), fill)


def peak(*words: str) -> int:
    """Bytes that "large" takes beyond "small" while it is filtered into what *words* name."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *words],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def measured(
    source: str,
    target: str,
    words: Sequence[str] = (),
    sides: tuple[int, int] = SIDES,
    frames: int = 1,
) -> tuple[int, int]:
    """Bytes that an image takes from *source* to *target*, and those that are told."""
    save("small", source, 64, 64, frames)
    save("large", source, *sides, frames)
    told = sizing.footprint(Path("large").read_bytes(), target)
    return peak(f"out{FORMATS[target].extensions[0]}", *words), told


def require_told(takes: int, told: int, besides: int = 0) -> None:
    """An image takes at most a fifth more than is told, and at least a quarter of that.

    *besides* is what it may take whatever its size.
    """
    assert takes < told * 1.2 + besides, f"{takes / told:.2f} times what is told"
    assert told < takes * 4, f"{takes / told:.2f} times what is told"


def plain(format: str) -> str:
    """A format whose own memory is little, for the pixels that *format* holds."""
    return "pgm" if FORMATS[format].colours == ("gray",) else "ppm"


@pytest.mark.parametrize("words", [(), LOSSY], ids=["lossless", "lossy"])
@pytest.mark.parametrize("format", written())
def test_an_image_takes_what_is_told_when_it_is_encoded(
    format: str, words: tuple[str, ...]
) -> None:
    if words and "quality" not in FORMATS[format].settings:
        pytest.skip("it has no quality")
    threads = THREADS.get(format, 0) if words else 0
    require_told(*measured(plain(format), format, words), threads)


@pytest.mark.parametrize("format", written())
def test_an_image_takes_what_is_told_when_it_is_decoded(format: str) -> None:
    require_told(*measured(format, plain(format)))


@pytest.mark.parametrize("format", [name for name in written() if FORMATS[name].frames])
def test_frames_take_what_is_told(format: str) -> None:
    require_told(*measured(format, format, sides=(1000, 700), frames=3))
