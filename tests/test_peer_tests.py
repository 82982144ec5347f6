"""What puts cudafilter in the place of other libraries' filters, for their own tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from peer_adapters import Tally, Unmapped, difference
from peer_arrays import SCIPY, by_arrays
from peer_pillow import by_pillow
from peer_tests import reason

from peer_runs import met

ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is not installed")

NOISE = np.random.default_rng(3).integers(0, 120, (13, 17))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float64"])
@pytest.mark.parametrize("mode", ["reflect", "constant", "nearest", "mirror", "wrap"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("correlate", {"weights": [[0, 1, 0, 0], [0, 0, 0, 1]], "origin": (0, 1)}),
        ("convolve", {"weights": [[0, 1, 0, 0], [0, 0, 0, 1]], "origin": (-1, 1)}),
        ("correlate1d", {"weights": [1, 0, 0], "axis": 0, "origin": -1}),
        ("minimum_filter", {"size": (2, 5), "origin": (0, 2)}),
        ("maximum_filter1d", {"size": 4, "axis": 1}),
        ("median_filter", {"size": 3}),
        ("percentile_filter", {"percentile": -30, "size": 4}),
        ("rank_filter", {"rank": -2, "footprint": [[1, 0, 1], [0, 1, 1]]}),
        ("grey_dilation", {"footprint": [[1, 1, 0, 0]], "origin": (0, 1)}),
        ("grey_opening", {"size": (3, 5)}),
        ("morphological_gradient", {"footprint": [[1, 1, 0]]}),
    ],
)
def test_a_call_that_is_exact_gives_what_scipy_gives(
    name: str, arguments: dict[str, Any], mode: str, dtype: str
) -> None:
    image = NOISE.astype(dtype)
    scipys: Callable[..., Any] = getattr(ndimage, name)
    got, differs = by_arrays(SCIPY[name])(scipys, image, mode=mode, cval=7, **arguments)
    assert differs == "same"
    assert got.dtype == image.dtype
    np.testing.assert_array_equal(got, scipys(image, mode=mode, cval=7, **arguments))


@pytest.mark.parametrize(
    ("name", "image", "arguments", "class_of_it"),
    [
        ("gaussian_filter", NOISE / 7, {"sigma": 1}, "float32"),
        ("uniform_filter", NOISE.astype("uint8"), {"size": 3}, "rounding"),
        ("sobel", NOISE.astype("uint8"), {}, "clamped"),
    ],
)
def test_a_difference_of_definition_has_a_class(
    name: str, image: Any, arguments: dict[str, Any], class_of_it: str
) -> None:
    _, differs = by_arrays(SCIPY[name])(getattr(ndimage, name), image, **arguments)
    assert differs == class_of_it


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64"])
def test_any_other_difference_is_a_fault(dtype: str) -> None:
    right = NOISE.astype(dtype)
    wrong = right.copy()
    wrong[3, 4] += 2
    assert difference(right, right, right.astype(float), 250.0) == "same"
    assert difference(wrong, right, right.astype(float), 250.0) == "fault"


def test_a_result_goes_where_scipy_puts_it() -> None:
    image = NOISE.astype(float)
    got, _ = by_arrays(SCIPY["minimum_filter"])(ndimage.minimum_filter, image, 3, output=image)
    assert got is image
    np.testing.assert_array_equal(image, ndimage.minimum_filter(NOISE, 3))


@pytest.mark.parametrize(
    ("name", "image", "arguments"),
    [
        ("correlate", NOISE + 1j, {"weights": [[1]]}),
        ("gaussian_filter", NOISE, {"sigma": 1, "order": 1}),
        ("minimum_filter", NOISE, {"size": 3, "mode": ["reflect", "wrap"]}),
        ("grey_erosion", NOISE, {"structure": [[1, 2, 1]]}),
        ("correlate", NOISE * 10**6, {"weights": [[1]]}),
        ("correlate", NOISE * 1e-44, {"weights": [[1]]}),
        ("median_filter", np.where(NOISE < 9, np.nan, NOISE), {"size": 3}),
        ("median_filter", np.array([102.0, 76.0]), {"size": 20}),
        ("sobel", NOISE, {"mode": "constant", "cval": 1}),
    ],
)
def test_what_has_no_counterpart_is_the_peers_own_and_counted(
    name: str, image: Any, arguments: dict[str, Any]
) -> None:
    scipys = getattr(ndimage, name)
    with pytest.raises(Unmapped):
        by_arrays(SCIPY[name])(scipys, image, **arguments)
    tally = Tally()
    got = tally.adapter(name, scipys, by_arrays(SCIPY[name]))(image, **arguments)
    np.testing.assert_array_equal(got, scipys(image, **arguments))
    assert (tally.own.total(), tally.calls) == (1, {})


def test_what_the_peer_refuses_is_refused_in_its_words() -> None:
    with pytest.raises(RuntimeError, match="no footprint"):
        by_arrays(SCIPY["minimum_filter"])(ndimage.minimum_filter, NOISE)


def test_pillows_filters() -> None:
    from PIL import Image, ImageFilter

    image = Image.fromarray(np.random.default_rng(4).integers(0, 256, (20, 30, 3), np.uint8))
    skew = ImageFilter.Kernel((3, 3), [0, 1, 0, 0, 0, 0, 0, 0, 3], 4, 9)
    for each, most in (
        (skew, 1), (ImageFilter.SHARPEN, 1), (ImageFilter.MedianFilter(5), 0),
        (ImageFilter.RankFilter(3, 2), 0), (ImageFilter.BoxBlur((1, 3)), 0),
        (ImageFilter.BoxBlur(1.4), 1), (ImageFilter.GaussianBlur(2), 2),
    ):  # fmt: skip
        got, differs = by_pillow(Image.Image.filter, image, each)
        far = np.abs(np.asarray(got).astype(int) - np.asarray(image.filter(each))).max()
        assert far <= most
        assert differs == ("same" if far == 0 else "rounding")


TESTS = """
import numpy, pytest
from scipy import ndimage
from scipy.ndimage import median_filter
image = numpy.arange(20.0).reshape(4, 5)
@pytest.mark.parametrize("function", [ndimage.maximum_filter])
def test_of_a_parameter(function):
    assert function(image, 3)[0, 0] == 6
def test_of_names():
    assert ndimage.minimum_filter(image, 3)[1, 1] == 0 == median_filter(image, 3)[1, 1] - 6
def test_of_another_definition():
    assert ndimage.uniform_filter(numpy.array([[0, 2, 2]], "uint8"), (1, 3))[0, 1] == 1.0
def test_that_meets_no_filter():
    assert ndimage.label(image)[1] == 1
"""


def test_the_plugin_replaces_functions_wherever_tests_have_them(tmp_path: Path) -> None:
    told, printed = met("scipy", TESTS, tmp_path)
    assert told["calls"] == {
        "test_toy.py::test_of_a_parameter[maximum_filter]": {"same": 1},
        "test_toy.py::test_of_names": {"same": 2},
        "test_toy.py::test_of_another_definition": {"rounding": 1},
    }, printed
    assert told["failed"] == []


def test_a_failure_that_no_difference_explains_is_a_fault() -> None:
    assert reason({"same": 3}) == reason({"fault": 1, "float32": 2}) == "fault"
    assert reason({"same": 3, "clamped": 1, "float32": 2}) == "clamped"
