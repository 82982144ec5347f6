"""CONTRIBUTING followed: a format is a module and an entry, a filter an entry and a maker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cudafilter.images import Image, load
from image_files import random_pixels, save

ROOT = Path(__file__).parents[1]

WHOLE_FORMAT = '''
"""Toy: TOY1, then height, width and channels as digits, then the samples."""

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats.limits import Extent
from cudafilter.formats.metadata import Decoded, Metadata


def extent(head):
    height, width, channels = (int(head[at : at + 5]) for at in (4, 9, 14))
    return Extent(width, height, channels, 1)


def read(data, limits):
    size = extent(data)
    limits.require_size(size.width, size.height, size.channels)
    if len(data) != 19 + size.samples:
        raise ImageError("it is cut short")
    pixels = np.frombuffer(data, np.uint8, offset=19)
    return Decoded(pixels.reshape(size.height, size.width, size.channels), False, Metadata())


def write(pixels, metadata, ways):
    return b"TOY1" + b"%5d%5d%5d" % pixels.shape + pixels.tobytes()
'''

ROWS_FORMAT = (
    WHOLE_FORMAT.partition("def read(")[0]
    + """
from cudafilter.formats.rows import Header, OneFrame, Strips


class Reader(OneFrame):
    step, in_order, notes = 1, False, ()

    def __init__(self, source, size):
        self.source, self.row = source, size.width * size.channels
        self.header = Header(size.width, size.height, size.channels, "uint8")
        if len(source) != 19 + size.samples:
            raise ImageError("it is cut short")

    def rows(self, first, last):
        data = self.source[19 + first * self.row : 19 + last * self.row]
        shape = last - first, self.header.width, self.header.channels
        return np.frombuffer(data, np.uint8).reshape(shape)


def open(source, limits):
    size = extent(source[:19])
    limits.require_size(size.width, size.height, size.channels)
    return Reader(source, size)


class Writer(OneFrame):
    def __init__(self, target, header):
        self.target, self.strips = target, Strips(header, 1)
        size = header.height, header.width, header.channels
        target.write(b"TOY1" + b"%5d%5d%5d" % size)

    def write(self, rows):
        self.target.write(self.strips.add(rows)[0].tobytes())

    def close(self):
        self.strips.require_complete()


def create(target, header, ways):
    return Writer(target, header)
"""
)

TOY_ENTRY = """
    "toy": Format(
        "toy", (".toy",), (b"TOY1",), reads=WHOLE, writes=WHOLE, colours=("gray", "RGB"),
        can_read="gray and RGB", can_write="what a toy can",
    ),
}  # fmt: skip

BY_EXTENSION"""

FORMAT_TRIED = """
import sys
sys.path[:0] = ["docs"]
import make_docs
from click.testing import CliRunner
from cudafilter.cli import app
from cudafilter.cli.completion import formats

def ran(*words, code=0):
    done = CliRunner().invoke(app, [*words, "--engine", "cpu"])
    assert done.exit_code == code, done.output
    return done.output

ran("box", "--radius", "0", "in.png", "out.toy")
ran("box", "--radius", "0", "out.toy", "back.png")
ran("blur", "-r", "folder", "blurred", "--format", "toy")
ran("blur", "-r", "blurred", "again")
assert "TOY holds no transparency" in ran("blur", "alpha.png", "alpha.toy", code=1)
assert "such as .png, or add --format with one of" in ran("blur", "in.png", "out.x", code=2)
assert "toy" in ran("blur", "in.png", "out.png", "--format", "nothing", code=2)
assert "toy" in [item.value for item in formats(None, None, "t")]
assert "| `toy` | `.toy` | gray and RGB | what a toy can |" in make_docs.formats()
print("the toy is there")
"""

TOY_FILTER = """
        FilterSpec(
            "toy",
            "Half as bright.",
            "Every sample becomes a share of itself.",
            (Parameter("share", float, 0.5, "How much is left.", least=0, most=1),),
            "cudafilter toy --share 0.25 photo.jpg dark.jpg",
            "point",
        ),
    )
}


def grouped("""

TOY_MAKER = """
def _toy(share: float) -> Correlation:
    return Correlation("toy", (Kernel([[1]]),), gain=share)


_MAKERS: dict[str, Callable[..., Operation]] = {
    "toy": _toy,
"""

FILTER_TRIED = """
import sys
sys.path[:0] = ["docs", "tests"]
import numpy as np
import cudafilter
import make_docs
from agreement import ALL_BORDERS, assert_agrees, random_pixels
from click.testing import CliRunner
from cudafilter.cli import app
from cudafilter.engines.cpu import CpuEngine

def ran(*words):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.output

ran("toy", "--share", "0.25", "in.png", "back.png", "--engine", "cpu", "--check")
assert "--share" in ran("toy", "--help") and "Half as bright" in ran("filters")
assert "Half as bright" in ran("--help")
pixels = random_pixels((9, 7, 3), "uint8")
assert np.array_equal(cudafilter.apply(pixels, "toy", engine="cpu"), np.rint(pixels / 2))
for border in ALL_BORDERS:
    assert_agrees(CpuEngine(), pixels, cudafilter.make("toy"), border)
assert "| `toy` | point | Half as bright." in make_docs.filters()
print("the toy is there")
"""


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the project that may be changed."""
    for folder in ("cudafilter", "cuda_src", "tests", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=lambda _, names: {"__pycache__"})
    (tmp_path / "folder").mkdir()
    for name in ("in.png", "folder/a.png", "folder/b.jpg"):
        save(Image(random_pixels("uint8", 3)), tmp_path / name)
    save(Image(random_pixels("uint8", 4), alpha=True), tmp_path / "alpha.png")
    return tmp_path


def tried(copy: Path, script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=copy, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(copy)},
    )  # fmt: skip
    assert done.stdout == "the toy is there\n", done.stderr


@pytest.mark.parametrize(
    ("module", "how"), [(WHOLE_FORMAT, "WHOLE"), (ROWS_FORMAT, "ROWS")], ids=["whole", "rows"]
)
def test_a_new_format_is_a_module_and_an_entry(module: str, how: str, copy: Path) -> None:
    formats = copy / "cudafilter" / "formats"
    (formats / "toy.py").write_text(module)
    entry = TOY_ENTRY.replace("WHOLE", how)
    replaced(formats / "table.py", "\n}  # fmt: skip\n\nBY_EXTENSION", entry)
    tried(copy, FORMAT_TRIED)
    toy, back = (copy / "out.toy").read_bytes(), load(copy / "back.png").pixels
    assert toy.startswith(b"TOY1")
    np.testing.assert_array_equal(back, load(copy / "in.png").pixels)
    assert sorted(path.name for path in (copy / "again").iterdir()) == ["a.toy", "b.toy"]


def test_a_new_filter_is_an_entry_and_a_maker(copy: Path) -> None:
    operations = copy / "cudafilter" / "operations"
    old = "\n    )\n}\n\n\ndef grouped("
    replaced(operations / "catalogue.py", old, TOY_FILTER)
    old = "\n_MAKERS: dict[str, Callable[..., Operation]] = {\n"
    replaced(operations / "make.py", old, TOY_MAKER)
    tried(copy, FILTER_TRIED)
    got, source = load(copy / "back.png").pixels, load(copy / "in.png").pixels
    np.testing.assert_array_equal(got, np.rint(source / 4))
