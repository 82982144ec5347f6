"""The catalogue and its filters: parameters, kernels, weights in every form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cudafilter
from cudafilter.errors import ParameterError
from cudafilter.operations.catalogue import MAX_RADIUS
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.make import gaussian, make
from cudafilter.operations.weights import parse_weights


@pytest.mark.parametrize(
    ("name", "parameters", "named"),
    [
        ("blur", {"sigma": 0}, "sigma"),
        ("blur", {"sigma": -1}, "sigma"),
        ("blur", {"sigma": math.nan}, "sigma"),
        ("blur", {"sigma": math.inf}, "sigma"),
        ("blur", {"sigma": "wide"}, "sigma"),
        ("blur", {"sigma": 1e9}, "sigma"),
        ("blur", {"radius": -1}, "radius"),
        ("blur", {"radius": 2.5}, "radius"),
        ("blur", {"radius": MAX_RADIUS + 1}, "radius"),
        ("blur", {"amount": 1}, "amount"),
        ("box", {"radius": -3}, "radius"),
        ("sharpen", {"amount": -0.1}, "amount"),
        ("unsharp", {"threshold": 2}, "threshold"),
        ("sobel", {"scale": 0}, "scale"),
        ("kernel", {}, "weights"),
        ("kernel", {"weights": "1", "bias": math.nan}, "bias"),
        ("kernel", {"weights": "1 -1", "normalize": True}, "normalize"),
        ("kernel", {"weights": "0.1 0.2 -0.3", "normalize": True}, "normalize"),
        ("kernel", {"weights": [[1, 2], [3]]}, "weights"),
        ("kernel", {"weights": [[math.nan]]}, "weights"),
        ("kernel", {"weights": [1, 2]}, "weights"),
        ("kernel", {"weights": np.zeros((0, 3))}, "weights"),
        ("kernel", {"weights": np.ones((1, 2 * MAX_RADIUS + 2))}, "weights"),
        ("blurr", {}, "filter"),
    ],
)
def test_nonsense_names_its_parameter(name: str, parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(ParameterError) as caught:
        make(name, **parameters)
    assert caught.value.parameter == named


def test_catalogue_and_api_hold_the_same_filters() -> None:
    for name, spec in cudafilter.filters().items():
        required = {p.name: "0 1 0; 1 0 1" for p in spec.parameters if p.required}
        assert make(name, **required).name == name
        assert spec.summary
        assert spec.description
        assert spec.example.startswith(f"cudafilter {name} ")
        for parameter in spec.parameters:
            assert parameter.help.endswith(".")


def test_gaussian() -> None:
    weights = gaussian(1.0)
    assert weights.size == 2 * 3 + 1
    assert math.isclose(math.fsum(weights), 1, rel_tol=1e-15)
    assert weights[3] / weights[4] == pytest.approx(math.exp(0.5))
    assert gaussian(2.1).size == 2 * 7 + 1
    assert gaussian(0.001, radius=5).tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("name", ["blur", "box", "unsharp", "sobel", "scharr", "prewitt"])
def test_rank_1_is_found(name: str) -> None:
    filter = make(name)
    assert isinstance(filter, Correlation)
    for kernel in filter.kernels:
        assert kernel.factors is not None
        np.testing.assert_allclose(np.outer(*kernel.factors), kernel.weights, rtol=1e-14)


@pytest.mark.filterwarnings("error")
def test_weights_of_any_size_give_no_warning() -> None:
    kernel = Kernel([[1e300, 1e300], [5e-324, 5e-324]])
    assert kernel.factors is not None


def test_rank_2_is_found() -> None:
    assert Kernel([[0, 1, 0], [1, -4, 1], [0, 1, 0]]).factors is None
    nearly = np.outer(gaussian(2), gaussian(2))
    assert Kernel(nearly).factors is not None
    nearly[3, 3] *= 1 + 1e-9
    assert Kernel(nearly).factors is None


def test_huge_kernels_cost_no_2d_weights() -> None:
    kernel = make("blur", radius=MAX_RADIUS, sigma=900).kernels[0]
    assert "weights" not in vars(kernel)
    assert kernel.sum == pytest.approx(1)
    assert kernel.reach == (MAX_RADIUS,) * 4


INLINE = [
    ("0 -1 0; -1 5 -1; 0 -1 0", [[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
    ("1,2,3;4,5,6;", [[1, 2, 3], [4, 5, 6]]),
    ("-1 0 1", [[-1, 0, 1]]),
    ("1e-3; .5", [[0.001], [0.5]]),
    ("7", [[7]]),
]


@pytest.mark.parametrize(("text", "expected"), INLINE)
def test_inline_weights(text: str, expected: list[list[float]]) -> None:
    assert parse_weights(text).tolist() == expected


def test_weights_from_files(tmp_path: Path) -> None:
    expected = [[1.0, 2.0], [3.0, 4.5]]
    (tmp_path / "k.txt").write_text("# a comment\n1 2\n\n3\t4.5  # another\n")
    (tmp_path / "k.csv").write_text("1,2\r\n3,4.5\r\n")
    np.save(tmp_path / "k.npy", np.array(expected, np.float32))
    (tmp_path / "rows.txt").write_text("1 2;\n3 4.5;\n")
    (tmp_path / "inline.txt").write_text("1 2; 3 4.5\n")
    (tmp_path / "K.NPY").write_bytes((tmp_path / "k.npy").read_bytes())
    for name in ("k.txt", "k.csv", "k.npy", "rows.txt", "inline.txt", "K.NPY"):
        assert parse_weights(str(tmp_path / name)).tolist() == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (";", "row 1 of the inline kernel: a number is missing"),
        ("1 2; 3", "row 2"),
        ("1 x; 2 3", "'x' is not a number"),
        ("1; ;2", "row 2"),
        ("1,,2; 3,,4", "row 1 of the inline kernel: a number is missing"),
        ("nan 1; 1 1", "NaN"),
        ("no-such-file.txt", "no such file"),
        ("1 2 x", "row 1 of the inline kernel: 'x' is not a number"),
        ("1,x", "row 1 of the inline kernel: 'x' is not a number"),
        ("1/9 1/9", "row 1 of the inline kernel: '1/9' is not a number"),
        ("1 2; 3", "row 2 of the inline kernel has 1 number, row 1 of the inline kernel has 2"),
        ("9" * 400 + "x;", f"'{'9' * 40}...' is not a number"),
    ],
)
def test_bad_weights(text: str, says: str) -> None:
    with pytest.raises(ParameterError, match=says) as caught:
        parse_weights(text)
    assert caught.value.parameter == "weights"


def test_fractions_have_a_way_out() -> None:
    with pytest.raises(ParameterError) as caught:
        parse_weights("1/9 1/9 1/9")
    assert "--normalize" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# mean\n\n1 2 3\n4 x 6\n", "line 4 of k.txt: 'x' is not a number"),
        ("1 2\n\n3\n", "line 3 of k.txt has 1 number, line 1 of k.txt has 2"),
        ("1 2; 3", "row 2 of k.txt has 1 number, row 1 of k.txt has 2"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_mistake_in_a_file_is_told_with_its_line(text: str, says: str) -> None:
    Path("k.txt").write_text(text)
    with pytest.raises(ParameterError, match=says):
        parse_weights("k.txt")


@pytest.mark.usefixtures("here")
def test_a_name_that_begins_with_a_number_is_a_file_where_there_is_one() -> None:
    Path("3 by 3.txt").write_text("1 2\n")
    assert parse_weights("3 by 3.txt").tolist() == [[1, 2]]


def test_bad_weight_files(tmp_path: Path) -> None:
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    np.save(tmp_path / "line.npy", np.arange(3))
    np.save(tmp_path / "object.npy", np.array([[None]]), allow_pickle=True)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "short.npy").write_bytes(b"\x93NUMPY")
    np.save(tmp_path / "vast.npy", np.ones((3, 3)))
    vast = (tmp_path / "vast.npy").read_bytes().replace(b"(3, 3)", b"(300000, 300000)")
    (tmp_path / "vast.npy").write_bytes(vast)
    damaged = (tmp_path / "vast.npy").read_bytes().replace(b"   ", b" [ ", 1)
    (tmp_path / "damaged.npy").write_bytes(damaged)
    (tmp_path / "gap.csv").write_text("1,,2\n3,,4\n")
    (tmp_path / "semicolons.csv").write_text("1;2\n3;4\n")
    for path in [*tmp_path.iterdir(), tmp_path]:
        with pytest.raises(ParameterError) as caught:
            parse_weights(str(path))
        for word in ("pickle", "EOF", "header", "allocate", "memory map"):
            assert word not in str(caught.value)
