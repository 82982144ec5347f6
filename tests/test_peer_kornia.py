"""What puts cudafilter in the place of kornia's filters, for kornia's own tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("kornia", reason="kornia is not installed")

from kornia import filters, morphology  # noqa: E402
from peer_adapters import Tally, Unmapped  # noqa: E402
from peer_kornia import FILTERS, MORPHOLOGY, by_tensors  # noqa: E402

from peer_runs import met  # noqa: E402

NOISE = torch.rand(2, 5, 9, 12, generator=torch.Generator().manual_seed(3)) - 0.25
SKEW = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 3.0, -1.0, 0.0]])
EACH = torch.tensor([[0.6, 1.2], [2.0, 0.8]])
"""A sigma down and one across, of each image."""
MASK = torch.tensor([[0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 1, 1]])


def differs(name: str, image: Any, *arguments: Any, **named: Any) -> str:
    """How our result of a call differs from kornia's, which it is held to."""
    module, ways = (filters, FILTERS) if name in FILTERS else (morphology, MORPHOLOGY)
    kornias: Callable[..., Any] = getattr(module, name)
    got, what = by_tensors(ways[name])(kornias, image, *arguments, **named)
    expected = kornias(image, *arguments, **named)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    return what


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("border", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("gaussian_blur2d", {"kernel_size": (5, 5), "sigma": (1.2, 1.2)}),
        ("gaussian_blur2d", {"kernel_size": (3, 7), "sigma": EACH}),
        ("unsharp_mask", {"kernel_size": 5, "sigma": (1.5, 0.7)}),
        ("box_blur", {"kernel_size": 3}),
        ("box_blur", {"kernel_size": (2, 4)}),
        ("filter2d", {"kernel": SKEW[None], "normalized": True}),
        ("filter2d", {"kernel": torch.stack([SKEW, -SKEW]), "behaviour": "conv"}),
        ("filter2d", {"kernel": SKEW[None], "padding": "valid"}),
        ("filter2d_separable", {"kernel_x": SKEW[:1], "kernel_y": SKEW[1:]}),
        ("laplacian", {"kernel_size": (3, 5), "normalized": False}),
        ("motion_blur", {"kernel_size": 5, "angle": 90.0, "direction": 0.0}),
    ],
)
def test_correlations(name: str, arguments: dict[str, Any], border: str, dtype: Any) -> None:
    assert differs(name, NOISE.to(dtype), border_type=border, **arguments) in ("same", "float32")


@pytest.mark.parametrize("normalized", [True, False])
def test_gradients_and_their_magnitude(normalized: bool) -> None:
    for mode in ("sobel", "diff"):
        what = differs("spatial_gradient", NOISE, mode, normalized=normalized)
        assert what in ("same", "float32")
    assert differs("sobel", NOISE, normalized, eps=0.01) == "float32"


@pytest.mark.parametrize("border", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("size", [3, (5, 3)])
def test_medians_are_kornias(size: Any, border: str) -> None:
    assert differs("median_blur", NOISE, size, border.upper()) == "same"


@pytest.mark.parametrize("border", ["geodesic", "constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    ("kernel", "origin"), [(torch.ones(3, 3), None), (MASK, None), (MASK, [1, 1])]
)
@pytest.mark.parametrize("name", MORPHOLOGY)
def test_morphology_is_kornias(name: str, kernel: Any, origin: Any, border: str) -> None:
    what = differs(name, NOISE, kernel, None, origin, border_type=border, border_value=0.2)
    assert what == "same"


def test_a_wrong_result_is_a_fault() -> None:
    _, what = by_tensors(FILTERS["box_blur"])(filters.median_blur, NOISE, 3)
    assert what == "fault"


@pytest.mark.parametrize(
    ("name", "image", "arguments", "why"),
    [
        ("box_blur", NOISE.clone().requires_grad_(), (3,), "gradients"),
        ("box_blur", NOISE.half(), (3,), "float16"),
        ("box_blur", NOISE[:0], (3,), "no pixels"),
        ("median_blur", NOISE / 0, (3,), "NaN or infinity"),
        ("spatial_gradient", NOISE, ("sobel", 2), "second derivatives"),
        ("bilateral_blur", NOISE, (3, 0.1, (1.0, 1.0)), "round"),
        ("motion_blur", NOISE, (5, 30.0, 0.0), "other weights"),
        ("erosion", NOISE, (MASK, -MASK.float()), "not flat"),
        ("erosion", NOISE, (MASK, None, [0, 0]), "without their own pixel"),
    ],
)
def test_what_has_no_counterpart_is_kornias_own_and_counted(
    name: str, image: Any, arguments: tuple[Any, ...], why: str
) -> None:
    module, ways = (filters, FILTERS) if name in FILTERS else (morphology, MORPHOLOGY)
    kornias, ours = getattr(module, name), by_tensors(ways[name])
    with pytest.raises(Unmapped, match=why):
        ours(kornias, image, *arguments)
    tally = Tally()
    got = tally.adapter(name, kornias, ours)(image, *arguments)
    torch.testing.assert_close(got, kornias(image, *arguments), equal_nan=True)
    assert (tally.own.total(), tally.calls) == (1, {})


TESTS = """
import pytest, torch
from kornia.filters import GaussianBlur2d, box_blur, canny
image = torch.ones(1, 1, 5, 5)
class TestBox:
    def test_of_names(self):
        assert box_blur(image, 3)[0, 0, 2, 2] == 1
    def test_that_refuses(self):
        with pytest.raises(Exception, match="Invalid border"):
            box_blur(image, 3, "none")
    def test_gradients(self):
        assert torch.autograd.gradcheck(box_blur, (image.double().requires_grad_(), 3))
    def test_compiled(self):
        assert torch.compile(box_blur, backend="eager", fullgraph=True)(image, 3)[0, 0, 2, 2] == 1
    def test_a_compiled_module(self):
        module = torch.compile(GaussianBlur2d(3, (1.0, 1.0)), backend="eager", fullgraph=True)
        assert module(image).shape == image.shape
    def test_mapped(self):
        assert torch.func.vmap(lambda each: box_blur(each, 3))(image[None]).shape[0] == 1
def test_of_a_module():
    assert GaussianBlur2d(3, (1.0, 1.0))(image).shape == image.shape
def test_that_calls_inside():
    assert canny(image)[1].sum() == 0
"""


def test_the_plugin_replaces_what_tests_and_kornia_itself_call(tmp_path: Path) -> None:
    told, printed = met("kornia", TESTS, tmp_path)
    assert told["failed"] == [], printed
    by_name = {name.split("::")[-1]: sum(calls.values()) for name, calls in told["calls"].items()}
    assert by_name == {"test_of_names": 1, "test_of_a_module": 1, "test_that_calls_inside": 2}
    assert told["own"]["compiled"] == 2
    assert set(told["own"]) == {"compiled", "torch.func", "gradients"}
