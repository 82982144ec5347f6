"""The Python API: arrays of every layout in, arrays out, and errors that name the argument."""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cudafilter
from cudafilter.engines import Engine
from cudafilter.errors import ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.pixels import Pixels

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def blurred(pixels: Pixels) -> Pixels:
    return cudafilter.apply(pixels, "blur", sigma=1.5, engine="cpu")


def read_only() -> Pixels:
    pixels = PIXELS.copy()
    pixels.flags.writeable = False
    return pixels


def in_a_larger_one() -> Pixels:
    larger = np.zeros((40, 60, 3), np.uint8)
    larger[::2, ::2] = PIXELS
    return larger[::2, ::2]


@pytest.mark.parametrize(
    "pixels",
    [np.asfortranarray(PIXELS), PIXELS[::-1, ::-1].copy()[::-1, ::-1], read_only(),
     in_a_larger_one()],
    ids=["column order", "turned view", "read-only", "strided"],
)  # fmt: skip
def test_the_layout_in_memory_makes_no_difference(pixels: Pixels) -> None:
    out = blurred(pixels)
    np.testing.assert_array_equal(out, blurred(PIXELS))
    assert out.flags.c_contiguous
    assert out.flags.writeable
    np.testing.assert_array_equal(pixels, PIXELS)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_shape_and_type_stay(dtype: str) -> None:
    pixels = PIXELS.astype(dtype)
    assert blurred(pixels).dtype == dtype
    # OpenCV's vectors round floats otherwise than what is left at the end of a row.
    np.testing.assert_allclose(
        blurred(pixels[..., 1]), blurred(pixels)[..., 1], rtol=1e-6 if dtype == "float32" else 0
    )


def test_an_open_engine_and_a_made_filter_will_do(cpu: Engine) -> None:
    made = cudafilter.make("blur", sigma=1.5)
    np.testing.assert_array_equal(cudafilter.apply(PIXELS, made, engine=cpu), blurred(PIXELS))
    np.testing.assert_array_equal(cudafilter.apply(PIXELS, made, engine=cpu), blurred(PIXELS))


IMAGES: dict[str, Any] = {
    "L": PIXELS[..., 0], "LA": PIXELS[..., :2],
    "RGB": PIXELS, "RGBA": np.dstack([PIXELS, PIXELS[..., 0]]),
    "F": PIXELS[..., 0].astype(np.float32), "I;16": PIXELS[..., 0].astype(np.uint16) * 257,
}  # fmt: skip


@pytest.mark.parametrize("mode", IMAGES)
def test_an_image_of_pillow_gives_one_of_its_mode(mode: str) -> None:
    pixels = IMAGES[mode]
    image = Image.fromarray(pixels)
    image.info["icc_profile"] = b"theirs"
    out = cudafilter.apply(image, "blur", sigma=1.5, engine="cpu")
    assert (out.mode, out.size, out.info) == (mode, (30, 20), image.info)
    alpha = mode.endswith("A")
    right = cudafilter.apply(pixels, "blur", sigma=1.5, engine="cpu", alpha=alpha)
    np.testing.assert_array_equal(np.asarray(out), right)
    assert cudafilter.compare(out, image, cudafilter.make("blur", sigma=1.5)).ok


def test_a_mask_of_pillow() -> None:
    mask = Image.new("L", (30, 20))
    mask.putpixel((4, 5), 255)
    out = cudafilter.apply(Image.fromarray(PIXELS), "invert", mask=mask, engine="cpu")
    changed = (np.asarray(out) != PIXELS).any(axis=2)
    assert [tuple(place) for place in np.argwhere(changed)] == [(5, 4)]


@pytest.mark.parametrize("mode", ["P", "1", "CMYK", "YCbCr", "I", "RGBa"])
@pytest.mark.parametrize("name", ["pixels", "mask"])
def test_images_of_other_modes_are_refused(mode: str, name: str) -> None:
    image = Image.new(mode, (30, 20))
    given: dict[str, Any] = {"pixels": PIXELS, "mask": None} | {name: image}
    with pytest.raises(ParameterError, match=f"an image of mode {mode} is not filtered") as caught:
        cudafilter.apply(given["pixels"], "blur", mask=given["mask"], engine="cpu")
    assert caught.value.parameter == name
    assert "convert" in str(caught.value.hint)


def test_borders_by_name_or_with_a_value() -> None:
    black = cudafilter.apply(PIXELS, "box", border="constant", engine="cpu")
    white = cudafilter.apply(PIXELS, "box", border=Border("constant", 1.0), engine="cpu")
    assert black[0, 0, 0] < white[0, 0, 0]
    assert black[9, 9, 0] == white[9, 9, 0]


@pytest.mark.parametrize(
    ("pixels", "filter", "extra", "names"),
    [
        (PIXELS.astype(np.float64), "blur", {}, "pixels"),
        (PIXELS.astype(">u2"), "blur", {}, "pixels"),
        (PIXELS > 9, "blur", {}, "pixels"),
        (PIXELS[None], "blur", {}, "pixels"),
        (PIXELS[:0], "blur", {}, "pixels"),
        (np.zeros((4, 4, 5), np.uint8), "blur", {}, "pixels"),
        ([[1, 2], [3, 4]], "blur", {}, "pixels"),
        (None, "blur", {}, "pixels"),
        ("cat.jpg", "blur", {}, "pixels"),
        (PIXELS, "blurr", {}, "filter"),
        (PIXELS, None, {}, "filter"),
        (PIXELS, "blur", {"border": None}, "border"),
        (PIXELS, "blur", {"border": 0}, "border"),
        (PIXELS, "blur", {"region": (0, 0, 3, 3)}, "region"),
        (PIXELS, "blur", {"region": [(0, 0, 3, 3)]}, "region"),
        (PIXELS, "blur", {"mask": "mask.png"}, "mask"),
        (PIXELS, "blur", {"mask": np.zeros(PIXELS.shape[:2], np.int64)}, "mask"),
        (PIXELS, "kernel", {"weights": [[1, 2j]]}, "weights"),
        (PIXELS, "blur", {"sigmaa": 1}, "sigmaa"),
        (PIXELS, "blur", {"sigma": "wide"}, "sigma"),
        (PIXELS, cudafilter.make("blur"), {"sigma": 3}, "sigma"),
        (PIXELS, "blur", {"border": "mirror"}, "border"),
        (PIXELS, "blur", {"alpha": True}, "alpha"),
    ],
)
def test_what_makes_no_sense_is_refused(
    pixels: Any, filter: Any, extra: dict[str, Any], names: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        cudafilter.apply(pixels, filter, engine="cpu", **extra)
    assert caught.value.parameter == names
    assert f"parameter: {names}" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("engine", [None, 1])
def test_what_is_no_engine_is_refused(engine: Any) -> None:
    with pytest.raises(ParameterError, match="must be a name or an open engine") as caught:
        cudafilter.apply(PIXELS, "blur", engine=engine)
    assert caught.value.parameter == "engine"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"region": 5}, "region"),
        ({"region": "1,2,3,4", "feather": "2"}, "feather"),
        ({"region": "1,2,3,4", "feather": -1}, "feather"),
        ({"region": "1,2,3,4", "feather": 1.5}, "feather"),
    ],
)
def test_what_says_no_area_is_refused(arguments: dict[str, Any], names: str) -> None:
    with pytest.raises(ParameterError) as caught:
        cudafilter.apply(PIXELS, "blur", **arguments)
    assert caught.value.parameter == names


@pytest.mark.parametrize("value", ["0.5", None, np.array([1, 2]), 1j])
def test_a_border_is_of_a_number(value: Any) -> None:
    with pytest.raises(ParameterError, match="must be a finite number") as caught:
        cudafilter.Border("constant", value)
    assert caught.value.parameter == "border_value"


@pytest.mark.parametrize(
    ("result", "source", "filter", "names"),
    [
        (PIXELS, PIXELS, "blur", "filter"),
        (PIXELS, None, cudafilter.make("blur"), "source"),
        ([1], PIXELS, cudafilter.make("blur"), "result"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    result: Any, source: Any, filter: Any, names: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        cudafilter.compare(result, source, filter)
    assert caught.value.parameter == names


def test_a_mask_may_be_of_bool() -> None:
    there = PIXELS[..., 0] > 99
    done, like = (
        cudafilter.apply(PIXELS, "blur", engine="cpu", mask=mask)
        for mask in (there, there.astype(np.uint8) * 255)
    )
    assert np.array_equal(done, like)
    assert np.array_equal(done[~there], PIXELS[~there])
    assert not np.array_equal(done[there], PIXELS[there])


@pytest.mark.usefixtures("here")
def test_weights_may_be_a_path() -> None:
    Path("k.txt").write_text("0 1 0\n")
    done = cudafilter.apply(PIXELS, "kernel", weights=Path("k.txt"), engine="cpu")
    assert np.array_equal(done, PIXELS)


def test_importing_starts_nothing() -> None:
    heavy = {"numpy", "cv2", "PIL", "pycuda", "torch", "click"}
    code = f"import sys, cudafilter; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
