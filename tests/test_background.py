"""--background: transparent pixels are laid over a colour, in any format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Pil

from agreement import random_pixels
from command_line import cli
from cudafilter import images
from cudafilter.images import Image
from cudafilter.jobs import sizing
from cudafilter.operations.blend import flattened
from image_files import save

RGBA = random_pixels((40, 30, 4), "uint8")


@pytest.fixture(autouse=True)
def pictures(here: Path) -> None:
    save(Image(RGBA, alpha=True), Path("in.png"))
    save(Image(random_pixels((40, 30, 2), "uint8"), alpha=True), Path("gray.png"))
    save(Image(RGBA[..., :3].copy()), Path("opaque.png"))


def test_without_it_transparency_into_jpeg_is_an_error_that_names_it() -> None:
    done = cli("blur", "in.png", "out.jpg")
    assert done.exit_code == 1
    assert "JPEG holds no transparency" in done.stderr
    assert "or lay it over a colour: --background white" in done.stderr


@pytest.mark.parametrize(
    ("colour", "samples"),
    [
        ("white", (255, 255, 255)), ("Tomato", (255, 99, 71)), ("#0f8", (0, 255, 136)),
        ("#0080ff", (0, 128, 255)), ("rgb(1,2,3)", (1, 2, 3)),
    ],
)  # fmt: skip
def test_the_filtered_picture_lies_over_the_colour(colour: str, samples: tuple[int, ...]) -> None:
    assert cli("blur", "in.png", "alpha.png").exit_code == 0
    done = cli("blur", "--background", colour, "--check", "in.png", "out.png")
    assert done.exit_code == 0, done.stderr
    expected = flattened(images.load(Path("alpha.png")).pixels, samples)
    got = images.load(Path("out.png"))
    assert not got.alpha
    np.testing.assert_array_equal(got.pixels, expected)


@pytest.mark.parametrize("to", ["jpg", "bmp", "ppm", "png", "webp", "gif", "tif"])
def test_any_format_takes_it(to: str) -> None:
    assert cli("box", "--background", "black", "in.png", f"out.{to}").exit_code == 0
    with Pil.open(f"out.{to}") as file:
        assert file.mode in ("RGB", "P")
        assert "transparency" not in file.info


def test_by_rows_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("blur", "--background", "tan", "--linear", "--region", "0,0,20,20", "--check")
    save(Image(random_pixels((80, 60, 4), "uint16"), alpha=True), Path("large.png"))
    assert cli(*words, "large.png", "whole.png").exit_code == 0
    monkeypatch.setenv(sizing.MEMORY, "20000")
    done = cli(*words, "large.png", "rows.png")
    assert done.exit_code == 0, done.stderr
    assert "done by rows" in done.stderr
    assert Path("rows.png").read_bytes() == Path("whole.png").read_bytes()


def test_what_is_lost_with_the_transparency_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(
        "in.ome.tif", random_pixels((80, 60, 4), "uint8"), photometric="rgb",
        extrasamples=["unassalpha"], metadata={"axes": "YXS"},
    )  # fmt: skip
    for memory in ("", "20000"):
        monkeypatch.setenv(sizing.MEMORY, memory)
        done = cli(
            "blur", "--background", "white", "--existing", "overwrite", "in.ome.tif", "o.tif"
        )
        assert done.exit_code == 0, done.stderr
        assert "its OME description is not kept" in done.stderr
        assert ("done by rows" in done.stderr) == bool(memory)


def test_an_opaque_picture_stays_as_it_is() -> None:
    assert cli("blur", "opaque.png", "plain.png").exit_code == 0
    assert cli("blur", "--background", "red", "opaque.png", "out.png").exit_code == 0
    assert Path("out.png").read_bytes() == Path("plain.png").read_bytes()


def test_gray_takes_a_gray_and_refuses_a_colour() -> None:
    assert cli("blur", "--background", "#808080", "gray.png", "out.pgm").exit_code == 0
    done = cli("blur", "--background", "red", "gray.png", "other.pgm")
    assert done.exit_code == 1
    assert "it is gray, and the background is a colour (choose a gray one)" in done.stderr


def test_each_frame_lies_over_it() -> None:
    frames = [Pil.fromarray(random_pixels((20, 20, 4), "uint8", seed=n)) for n in range(3)]
    frames[0].save("in.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert cli("box", "--background", "navy", "in.webp", "out.webp").exit_code == 0
    with Pil.open("out.webp") as file:
        assert getattr(file, "n_frames", 1) == 3
        for n in range(3):
            file.seek(n)
            assert np.asarray(file.convert("RGBA"))[..., 3].min() == 255


@pytest.mark.parametrize(
    ("colour", "told"),
    [
        ("whit", "must be a colour, not 'whit'"),
        ("whit", "white"),
        ("#12345", "must be a colour, not '#12345'"),
        ("#12345", "hint: such as white, #fff or #ffffff"),
        ("#ff000080", "'#ff000080' has alpha, and a background has none"),
        ("", "must be a colour, not ''"),
    ],
)
def test_what_is_no_colour_is_refused(colour: str, told: str) -> None:
    done = cli("blur", "--background", colour, "in.png", "out.png")
    assert done.exit_code == 2
    assert told in done.stderr
    assert not Path("out.png").exists()
