"""Pixels of CuPy and PyTorch on a GPU: no copy, the bits of the host's, in order, given back."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import cudafilter
from agreement import random_pixels
from cudafilter.errors import ParameterError
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make

pytestmark = pytest.mark.gpu

BLUR = make("blur", sigma=2)
WIDE, ODD = random_pixels((300, 640, 3), "uint8"), random_pixels((301, 333, 3), "uint8")
SPIN = r"""
extern "C" __global__ void spin(long long clocks)
{
    for (const long long start = clock64(); clock64() - start < clocks;) {}
}
"""
CLOCKS = 2_000_000_000
"""Of SPIN: a second, in which a host that waits for nothing is done. What it starts has run before:
when the driver loads a kernel, it may wait."""


@pytest.fixture
def cupy() -> Any:
    return pytest.importorskip("cupy", reason="CuPy is not installed")


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def right(pixels: Any, filter: Any = BLUR, **more: Any) -> Any:
    return cudafilter.apply(pixels, filter, engine="cuda", **more)


CASES: list[Any] = [
    BLUR, make("blur", sigma=30), make("median", radius=2), make("dilate", radius=9),
    make("sobel"), make("canny"), make("threshold", otsu=True), make("levels", gamma=2),
    make("bilateral"), Chain((Link(make("sharpen")), Link(BLUR)), "twice"),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("filter", CASES, ids=lambda filter: filter.name)
def test_the_bits_are_those_of_the_host_s(filter: Any, dtype: str, cupy: Any) -> None:
    for shape in [(300, 640, 1), (301, 333, 3), (64, 64, 4)]:
        pixels = random_pixels(shape, dtype)
        pixels = pixels[..., 0] if shape[2] == 1 else pixels
        out = cudafilter.apply(cupy.asarray(pixels), filter, engine="cuda")
        assert cupy.asnumpy(cupy.asarray(out)).tobytes() == right(pixels, filter).tobytes()


def test_alpha_and_borders(cupy: Any) -> None:
    pixels = random_pixels((50, 70, 4), "uint8")
    more: dict[str, Any] = {"alpha": True, "border": "wrap"}
    out = cudafilter.apply(cupy.asarray(pixels), BLUR, **more)
    np.testing.assert_array_equal(cupy.asnumpy(cupy.asarray(out)), right(pixels, **more))


def test_cupy_takes_the_result_without_a_copy(cupy: Any) -> None:
    out = cudafilter.apply(cupy.asarray(ODD), BLUR)
    address = out.__cuda_array_interface__["data"][0]
    assert cupy.asarray(out).data.ptr == address
    assert cupy.from_dlpack(out).data.ptr == address
    assert cupy.asarray(out).flags.c_contiguous


def test_torch_takes_the_result_without_a_copy(torch: Any) -> None:
    out = cudafilter.apply(torch.from_numpy(ODD).cuda(), BLUR)
    tensor = torch.from_dlpack(out)
    assert tensor.data_ptr() == out.__cuda_array_interface__["data"][0]
    assert tensor.is_contiguous()
    assert tensor.device.index == out.device
    del out
    gc.collect()
    np.testing.assert_array_equal(tensor.cpu().numpy(), right(ODD))


@pytest.mark.parametrize("pixels", [WIDE, ODD], ids=["whole", "odd"])
def test_into_the_caller_s_memory(pixels: Any, cupy: Any, torch: Any) -> None:
    out = cupy.zeros_like(cupy.asarray(pixels))
    assert cudafilter.apply(cupy.asarray(pixels), BLUR, out=out) is out
    np.testing.assert_array_equal(cupy.asnumpy(out), right(pixels))
    tensor = torch.zeros(pixels.shape, dtype=torch.uint8, device="cuda")
    assert cudafilter.apply(torch.from_numpy(pixels).cuda(), BLUR, out=tensor) is tensor
    np.testing.assert_array_equal(tensor.cpu().numpy(), right(pixels))


def test_rows_apart(cupy: Any) -> None:
    larger, result = cupy.asarray(WIDE), cupy.zeros_like(cupy.asarray(WIDE))
    for columns in (slice(0, 320), slice(16, 336), slice(7, 100)):
        cudafilter.apply(larger[5:99, columns], BLUR, out=result[5:99, columns])
        expected = right(np.ascontiguousarray(WIDE[5:99, columns]))
        np.testing.assert_array_equal(cupy.asnumpy(result[5:99, columns]), expected)
        result[5:99, columns] = 0
        assert not result.any()  # nothing beside it was written


@pytest.mark.parametrize("own", [False, True], ids=["their current stream", "stream="])
def test_work_is_in_order_on_a_stream_of_cupy_s(own: bool, cupy: Any) -> None:
    spin = cupy.RawKernel(SPIN, "spin")
    source, pixels = cupy.asarray(ODD), cupy.zeros(ODD.shape, cupy.uint8)
    pixels[...] = source
    cupy.from_dlpack(cudafilter.apply(source, BLUR)) + 0
    pixels[...] = 0
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream:
        spin((1,), (1,), (CLOCKS,))
        pixels[...] = source
        out = cudafilter.apply(pixels, BLUR, **({"stream": stream} if own else {}))
        assert not stream.done  # the host has waited for nothing
        result = cupy.from_dlpack(out) + 0
        pixels[...] = 0  # behind it
        assert not stream.done  # nobody has waited
    stream.synchronize()
    np.testing.assert_array_equal(cupy.asnumpy(result), right(ODD))


@pytest.mark.parametrize("own", [False, True], ids=["their current stream", "stream="])
def test_work_is_in_order_on_a_stream_of_pytorch_s(own: bool, torch: Any) -> None:
    source = torch.from_numpy(ODD).cuda()
    pixels = torch.zeros_like(source)
    pixels.copy_(source)
    torch.from_dlpack(cudafilter.apply(source, BLUR)) + 0
    pixels.zero_()
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(CLOCKS)
        pixels.copy_(source)
        out = cudafilter.apply(pixels, BLUR, **({"stream": stream} if own else {}))
        assert not stream.query()
        result = torch.from_dlpack(out) + 0
        pixels.zero_()
    stream.synchronize()
    np.testing.assert_array_equal(result.cpu().numpy(), right(ODD))


def test_another_library_s_stream_waits(cupy: Any, torch: Any) -> None:
    """From CuPy's stream to PyTorch's, by DLPack's own shake of hands."""
    spin = cupy.RawKernel(SPIN, "spin")
    source, pixels = cupy.asarray(ODD), cupy.zeros(ODD.shape, cupy.uint8)
    cudafilter.apply(source, BLUR)
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True):
        spin((1,), (1,), (CLOCKS,))
        pixels[...] = source
        out = cudafilter.apply(pixels, BLUR)
    with torch.cuda.stream(torch.cuda.Stream()):
        got = torch.from_dlpack(out).cpu().numpy()
    np.testing.assert_array_equal(got, right(ODD))


def test_memory_is_given_back(cupy: Any) -> None:
    pixels = cupy.zeros((16384, 16384), cupy.uint8)
    for _ in range(2 * cupy.cuda.Device().mem_info[1] // pixels.nbytes):
        out = cudafilter.apply(pixels, BLUR)
        taken = cupy.asarray(out)
        del out
        assert not taken[:1].any()


def test_an_engine_that_is_closed_leaves_its_results(cupy: Any) -> None:
    engine = cudafilter.open_engine("cuda")
    out = cudafilter.apply(cupy.asarray(ODD), BLUR, engine=engine)
    engine.close()
    np.testing.assert_array_equal(cupy.asnumpy(cupy.asarray(out)), right(ODD))


@pytest.mark.parametrize("library", ["cupy", "torch"])
def test_what_is_still_there_at_the_end_of_the_process(library: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    takes = {
        "cupy": "cupy.from_dlpack(cudafilter.apply(cupy.zeros((99, 99), cupy.uint8), 'blur'))",
        "torch": "torch.from_dlpack(cudafilter.apply("
        "torch.zeros(99, 99, dtype=torch.uint8, device='cuda'), 'blur'))",
    }
    code = f"import sys, {library}, cudafilter; sys.modules['kept'] = kept = {takes[library]}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Exception" not in done.stderr


def test_compare_downloads(cupy: Any) -> None:
    pixels = cupy.asarray(ODD)
    assert cudafilter.compare(cudafilter.apply(pixels, BLUR), pixels, BLUR).ok
    assert not cudafilter.compare(pixels, pixels, BLUR).ok


def test_a_gradient_is_refused(torch: Any) -> None:
    with pytest.raises(ParameterError, match="the memory of pixels is not to be had") as caught:
        cudafilter.apply(torch.zeros(9, 9, device="cuda", requires_grad=True), BLUR)
    assert "detach()" in str(caught.value.hint)


def test_tensors_of_the_host_are_no_pixels(torch: Any) -> None:
    with pytest.raises(ParameterError, match="pixels must be an array"):
        cudafilter.apply(torch.zeros(9, 9), BLUR)
