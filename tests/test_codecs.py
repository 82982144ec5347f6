"""The codecs behind the formats: what they import, and the threads that they take."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codec_aids import Patch, photo
from cudafilter.formats import (
    table,
)
from cudafilter.formats.metadata import EXIF_MARK, XMP_MARK, Metadata
from cudafilter.host import cores
from cudafilter.images import Image
from cudafilter.operations.pixels import DTYPES, Pixels
from image_files import encode, random_pixels


@pytest.mark.parametrize("name", table.FORMATS)
def test_a_module_of_a_format_has_what_the_table_says(name: str) -> None:
    format = table.FORMATS[name]
    module = import_module(f"cudafilter.formats.{format.module}")
    reader, writer = {table.WHOLE: ("read", "write"), table.ROWS: ("open", "create")}, format.writes
    assert callable(module.extent)
    assert callable(getattr(module, reader[str(format.reads)][0]))
    assert writer is None or callable(getattr(module, reader[writer][1]))
    assert format.keeps.keys() <= {field.name for field in fields(Metadata)}
    assert set(format.settings) <= set(table.Ways._fields)
    assert set(format.samples) <= set(DTYPES)


def test_which_formats_are_written() -> None:
    assert table.FORMATS.keys() - table.written() == {"heic", "pbm", "pfm"}


def test_exif_and_xmp_fill_a_jpeg_segment_with_their_marks() -> None:
    keeps = table.FORMATS["jpeg"].keeps
    assert keeps["exif"] == (keeps["comments"] or 0) - len(EXIF_MARK)
    assert keeps["xmp"] == (keeps["comments"] or 0) - len(XMP_MARK)


LOADED = """
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
import cudafilter.images as images
before = set(sys.modules)
image = images.load(Path(sys.argv[1]))
if sys.argv[2]:
    images.encode(image, sys.argv[2])
heavy = {"PIL", "cv2", "isal", "simplejpeg", "imagecodecs", "concurrent.futures"}
print(sorted(heavy & before), sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("source", "target", "loaded"),
    [
        ("jpeg", "", ["simplejpeg"]),
        ("jpeg", "jpeg", ["cv2", "simplejpeg"]),
        ("png", "", ["imagecodecs", "isal"]),
        ("png", "png", ["imagecodecs", "isal"]),
        ("ppm", "ppm", []),
    ],
)
def test_nothing_is_imported_that_the_files_do_not_need(
    source: str, target: str, loaded: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encode(Image(random_pixels("uint8", 3)), source))
    command = [sys.executable, "-c", LOADED, str(path), target]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"[] {loaded}"


def encode_in_child(pixels: Pixels, found: Any) -> None:
    found.put(len(encode(Image(pixels), "png")))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(monkeypatch: Patch) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 2)
    pixels = np.tile(photo(), (2, 2, 1))
    size = len(encode(Image(pixels), "png"))
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    child = context.Process(target=encode_in_child, args=(pixels, found))
    child.start()
    try:
        assert found.get(timeout=60) == size
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff"])
def test_files_do_not_depend_on_the_core_count(format: str, monkeypatch: Patch) -> None:
    image = Image(np.ascontiguousarray(np.tile(photo(), (3, 2, 1))))
    files = set()
    for count in (1, 2):
        monkeypatch.setattr(cores, "cores", lambda count=count: count)
        files.add(encode(image, format))
    assert len(files) == 1
