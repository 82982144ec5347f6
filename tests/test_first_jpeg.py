"""A job's first JPEG, decoded while Python still imports."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from click.testing import CliRunner, Result
from PIL import Image

from command_line import ENVIRONMENT, HOME
from cudafilter import images
from cudafilter.__main__ import main
from cudafilter.cli import app
from cudafilter.start import first_jpeg, words
from cudafilter.start.begun import begun


@pytest.fixture(autouse=True)
def nothing_begun(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(begun, "picture", None)
    yield
    if begun.picture is not None:
        begun.picture.thread.join()


def jpeg(name: str, mode: str = "RGB", **options: Any) -> bytes:
    """A JPEG of noise, 40 x 30, written to *name*."""
    shape = (30, 40) if mode == "L" else (30, 40, len(mode))
    noise = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(noise, mode).save(name, "JPEG", **options)
    return Path(name).read_bytes()


def begin(name: str) -> None:
    """Begin with *name*, and wait until that has led to something."""
    first_jpeg.begin(name)
    assert begun.picture is not None
    begun.picture.thread.join()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What simplejpeg decodes from now on."""
    seen: list[bytes] = []
    original: Callable[..., Any] = simplejpeg.decode_jpeg

    def decode(data: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(bytes(data))
        return original(data, *arguments, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode)
    return seen


@pytest.mark.parametrize(
    ("mode", "options"),
    [("RGB", {}), ("RGB", {"progressive": True}), ("L", {}), ("RGB", {"comment": b"there"})],
)
def test_pixels_are_those_of_a_file_that_was_not_begun_with(
    mode: str, options: dict[str, Any], decoded: list[bytes]
) -> None:
    data = jpeg("a.jpg", mode, exif=Image.Exif(), **options)
    plain = images.load(data)
    begin("a.jpg")
    assert len(decoded) == 2
    loaded = images.load(data)
    assert len(decoded) == 2  # it was there
    assert np.array_equal(loaded.pixels, plain.pixels)
    assert loaded.metadata == plain.metadata


def test_they_are_given_away_once() -> None:
    data = jpeg("a.jpg")
    begin("a.jpg")
    assert first_jpeg.pixels_of(data) is not None
    assert first_jpeg.pixels_of(data) is None


def test_another_file_does_not_get_them() -> None:
    data, other = jpeg("a.jpg"), jpeg("b.jpg", quality=30)
    begin("a.jpg")
    assert first_jpeg.pixels_of(other) is None
    assert first_jpeg.pixels_of(data) is not None


def test_a_file_that_has_changed_since_is_decoded_again() -> None:
    jpeg("a.jpg")
    begin("a.jpg")
    changed = jpeg("a.jpg", quality=30)
    assert np.array_equal(images.load(Path("a.jpg")).pixels, simplejpeg.decode_jpeg(changed))


def test_who_comes_early_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg("a.jpg")
    original = simplejpeg.decode_jpeg

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.2)
        return original(*arguments, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", slow)
    first_jpeg.begin("a.jpg")
    while begun.picture is not None and begun.picture.data is None:
        time.sleep(0.001)
    assert first_jpeg.pixels_of(data) is not None


@pytest.mark.parametrize("what", ["missing", "a folder", "no JPEG", "cut off", "CMYK", "too large"])
def test_what_cannot_be_begun_with_fails_where_it_is_needed(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"no image"
    if what == "a folder":
        Path("a.jpg").mkdir()
    elif what == "no JPEG":
        Path("a.jpg").write_bytes(data)
    elif what == "cut off":
        data = jpeg("a.jpg")[:-200]
        Path("a.jpg").write_bytes(data)
    elif what != "missing":
        data = jpeg("a.jpg", "CMYK" if what == "CMYK" else "RGB")
        if what == "too large":
            monkeypatch.setattr(first_jpeg, "MOST_PIXELS", 40 * 30 - 1)
    begin("a.jpg")
    assert first_jpeg.pixels_of(data) is None


def blur(line: str) -> Result:
    return CliRunner().invoke(app, ["blur", *line.split()])


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("a.jpg out.png --engine cpu", "a.jpg"),
        ("a.jpg out.png --codec cpu", "a.jpg"),
        ("a.jpg out.png --codec pillow", "a.jpg"),
        ("a.jpg --in-place --engine cpu", "a.jpg"),
        ("a.jpg b.png out --engine cpu", "a.jpg"),
        ("b.png a.jpg out --engine cpu", None),
        ("a.jpg out.png --engine cuda", None),
        ("a.jpg out.png --engine cpu --dry-run", None),
        ("a.jpg out.png --engine cpu --existing skip", None),
        ("folder.jpg out -r --engine cpu", None),
        ("missing.jpg out.png --engine cpu", None),
        ("- there.jpg --engine cpu", None),
        ("--sigma 3 --engine=cpu a.jpg out.png", "a.jpg"),
        ("b.png there.jpg --engine cpu", None),
        ("a.jpg out.png --engine cpu --existing=skip", None),
        ("a.jpg out.png --engine cpu --watch", None),
        ("a.jpg out.png --engine cpu --shard 2/2", None),
        ("a.jpg out.png", None),
    ],
)
def test_only_a_jpeg_that_is_sure_to_be_decoded_here_is_begun_with(
    line: str, first: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpeg("a.jpg")
    Path("folder.jpg").mkdir()
    jpeg("there.jpg")
    Path("b.png").touch()
    monkeypatch.setattr("cudafilter.start.words.find_spec", lambda name: object())  # PyCUDA's
    assert words.first_jpeg(["blur", *line.split()]) == first


def test_without_a_gpu_no_engine_needs_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg("a.jpg")
    monkeypatch.setattr("cudafilter.start.words.find_spec", lambda name: None)  # no PyCUDA
    assert words.first_jpeg(["blur", "a.jpg", "out.png"]) == "a.jpg"


def test_the_process_begins_with_it_before_it_reads_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jpeg("a.jpg")
    begun_with: list[bool] = []
    monkeypatch.setattr("sys.argv", ["cudafilter", "blur", "a.jpg", "out.png", "--engine", "cpu"])
    monkeypatch.setattr("cudafilter.cli.main", lambda: begun_with.append(begun.picture is not None))
    main()
    assert begun_with == [True]


def test_the_decoder_is_imported_before_click() -> None:
    jpeg("a.jpg")
    command = [sys.executable, "-X", "importtime", "-m", "cudafilter"]
    done = subprocess.run(
        [*command, "blur", "a.jpg", "out.png", "--engine", "cpu"],
        env=ENVIRONMENT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    order = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    assert order.index("simplejpeg") < order.index("click")
    assert Path("out.png").exists()


def test_a_command_decodes_its_jpeg_once(decoded: list[bytes]) -> None:
    jpeg("a.jpg")
    begin("a.jpg")
    assert blur("a.jpg out.png --engine cpu").exit_code == 0
    assert len(decoded) == 1


def test_a_damaged_file_is_told_as_ever() -> None:
    Path("a.jpg").write_bytes(jpeg("a.jpg")[:-200])
    told = blur("a.jpg out.png --engine cpu")
    assert told.exit_code == 1
    assert "a.jpg: it is cut off" in told.stderr


def test_it_imports_only_numpy_and_the_decoder() -> None:
    code = (
        "import sys, cudafilter.start.first_jpeg; print(*sorted(name for name in sys.modules"
        " if name.startswith('cudafilter.') or name in ('cv2', 'PIL', 'click')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        "cudafilter.errors",
        "cudafilter.operations",
        "cudafilter.operations.pixels",
        "cudafilter.start",
        "cudafilter.start.begun",
        "cudafilter.start.first_jpeg",
    ]
