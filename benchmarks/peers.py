"""Today's libraries on the work of roofline.py: NPP through ctypes, CuPy, cuDNN through PyTorch.

Images and results stay on the device. Each form's result is compared with a verified one, away
from the border, before it is timed.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from cudafilter.errors import EngineUnavailable
from cudafilter.nvidia.toolkit import find_toolkit
from cudafilter.operations.pixels import Pixels

DEVICE = "cuda"

WARMUP = 3

LONG = 1500.0
"""Milliseconds of timings after which 3 of them are enough."""

TOLERANCE = {"uint8": 2.0, "float32": 1e-4}
"""Largest difference from our result that counts as the same work. CuPy cuts off the fraction
after each of two passes over uint8; cuDNN may take a transform of lower accuracy."""

REPLICATE = 2  # NPP_BORDER_REPLICATE
MASK_3X3 = 200  # NPP_MASK_SIZE_3_X_3
NORM_L2 = 2  # nppiNormL2


@dataclass
class Peer:
    """One library's way of solving a problem. Times are medians in milliseconds."""

    library: str
    title: str
    ms: float | None = None
    largest: float | None = None
    """Largest difference from our result away from the border, in native units."""
    why_not: str | None = None
    """Why there is no time: it failed, or its result is another."""


class Problem(NamedTuple):
    """What the peers are to compute: a filter on an image that is on the device."""

    name: str
    parameters: Mapping[str, Any]
    filter: Any
    """A Correlation, or what the forms are for."""
    image: torch.Tensor
    """(H, W) or (H, W, C); uint16 as int16, for PyTorch does little with the other."""
    out: torch.Tensor

    @property
    def dense(self) -> np.ndarray:
        """The one kernel with the filter's gains in its weights."""
        (kernel,) = self.filter.kernels
        weights: np.ndarray = self.filter.gain * kernel.weights
        weights[kernel.anchor] += self.filter.source_gain
        return weights


Form = tuple[str, Callable[[], torch.Tensor]]
"""A title, and what queues the work and returns where its result will be."""


class Peers:
    """The libraries that are here; ``missing`` tells of those that are not, ``versions`` of these.

    *forms* gives each library's ways of doing a work; other libraries are left out. Raises
    EngineUnavailable where PyTorch, which holds the images, has no GPU.
    """

    def __init__(
        self,
        forms: Mapping[str, Callable[..., Iterator[Form]]] | None = None,
        tolerance: Mapping[str, float] = TOLERANCE,
    ) -> None:
        if not torch.cuda.is_available():
            raise EngineUnavailable(f"PyTorch {torch.__version__} sees no GPU")
        torch.backends.cudnn.benchmark = True  # cuDNN picks its fastest algorithm...
        torch.backends.cudnn.allow_tf32 = False  # ...in float32, as ours
        torch.backends.cuda.matmul.allow_tf32 = False
        self.missing: list[str] = []
        self.versions = {"PyTorch": torch.__version__, "cuDNN": str(torch.backends.cudnn.version())}
        self._cupy: Any = None
        self._tolerance = tolerance
        ways = forms or {"cuDNN": cudnn_forms, "CuPy": cupy_forms, "NPP": npp_forms}
        self._libraries: dict[str, Callable[[Problem], Iterator[Form]]] = {}
        for plain in {"cuDNN", "PyTorch"} & {*ways}:
            self._libraries[plain] = ways[plain]
        if "CuPy" in ways:
            try:
                self._cupy = importlib.import_module("cupy")
                ndimage = importlib.import_module("cupyx.scipy.ndimage")
                self._libraries["CuPy"] = partial(ways["CuPy"], self._cupy, ndimage)
                self.versions["CuPy"] = self._cupy.__version__
            except ImportError as error:
                self.missing.append(f"CuPy is missing: {error}")
        if "CV-CUDA" in ways:
            try:
                cvcuda = importlib.import_module("cvcuda")
                self._libraries["CV-CUDA"] = partial(ways["CV-CUDA"], cvcuda)
                self.versions["CV-CUDA"] = cvcuda.__version__
            except ImportError as error:
                self.missing.append(f"CV-CUDA is missing: {error}")
        if "NPP" in ways:
            try:
                npp = Npp()
                self._libraries["NPP"] = partial(ways["NPP"], npp)
                self.versions["NPP"] = npp.file
            except OSError as error:
                self.missing.append(f"NPP is missing: {error}")

    def measure(
        self,
        name: str,
        parameters: Mapping[str, Any],
        filter: Any,
        pixels: Pixels,
        verified: Pixels,
        repeats: int,
    ) -> list[Peer]:
        """Every peer that does the filter *name* with *parameters* on *pixels*, timed.

        *verified* is our result for them, known to be right.
        """
        try:
            return self._measure_all(
                name, parameters, filter, pixels, verified, repeats
            )  # a function of its own: its images are free when the caches are emptied
        finally:
            self._free()

    def _measure_all(
        self,
        name: str,
        parameters: Mapping[str, Any],
        filter: Any,
        pixels: Pixels,
        verified: Pixels,
        repeats: int,
    ) -> list[Peer]:
        flat = (..., 0) if pixels.shape[2] == 1 else ...
        plain = np.int16 if pixels.dtype == np.uint16 else pixels.dtype
        image = torch.from_numpy(pixels[flat].view(plain)).to(DEVICE)
        ours = torch.from_numpy(verified[flat].view(plain)).to(DEVICE)
        problem = Problem(name, parameters, filter, image, torch.empty_like(image))
        found = []
        for library, forms in self._libraries.items():
            try:
                ready = list(forms(problem))
            except Exception as error:  # noqa: BLE001 - foreign code; told in the table's notes
                found.append(Peer(library, "set-up", why_not=failed(error)))
                continue
            for title, run in ready:
                found.append(self._measure(Peer(library, title), run, problem, ours, repeats))
        return found

    def _measure(
        self,
        peer: Peer,
        run: Callable[[], torch.Tensor],
        problem: Problem,
        ours: torch.Tensor,
        repeats: int,
    ) -> Peer:
        tolerance = self._tolerance[str(problem.image.dtype).removeprefix("torch.")]
        try:
            problem.out.zero_()  # the last peer's result is not this one's
            result = run()
            synchronise()
            peer.largest = largest_inside(result, ours, max(problem.filter.reach))
            if not peer.largest <= tolerance:  # NaN is no agreement
                peer.why_not = f"differs by {peer.largest:.3g}, tolerance {tolerance:g}"
                return peer
            del result
            peer.ms = time_form(run, repeats)
        except Exception as error:  # noqa: BLE001 - foreign code; told in the table's notes
            peer.why_not = failed(error)
        return peer

    def _free(self) -> None:
        """Give the cached device memory back, so that no row is short of it."""
        if self._cupy is not None:
            self._cupy.get_default_memory_pool().free_all_blocks()
        torch.cuda.empty_cache()


def failed(error: Exception) -> str:
    """*error* in a line."""
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def synchronise() -> None:
    """Wait for the device, so that an error is told where it arose."""
    torch.cuda.synchronize()


def time_form(run: Callable[[], object], repeats: int) -> float:
    """Median milliseconds of *repeats* runs by CUDA events, or fewer, after WARMUP others."""
    times: list[float] = []
    for i in range(WARMUP + repeats):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        stop.record()
        stop.synchronize()
        if i >= WARMUP:
            times.append(start.elapsed_time(stop))
        if len(times) >= 3 and sum(times) > LONG:
            break
    return statistics.median(times)


def largest_inside(result: torch.Tensor, ours: torch.Tensor, margin: int) -> float:
    """Largest difference of the two, *margin* pixels and more away from the border."""
    height, width = ours.shape[:2]
    if ours.dtype == torch.uint8:
        result = result.clamp(0, 255)  # NPP's gradients are int16
    inner = slice(margin, height - margin), slice(margin, width - margin)
    if ours.dtype == torch.int16:  # of uint16
        difference = ((result[inner].int() & 0xFFFF) - (ours[inner].int() & 0xFFFF)).abs()
    else:
        difference = (result[inner].float() - ours[inner].float()).abs()
    largest: float = difference.max().item()
    return largest


class Size(ctypes.Structure):
    """NppiSize, and NppiPoint, which has the same form."""

    _fields_ = (("width", ctypes.c_int), ("height", ctypes.c_int))


class StreamContext(ctypes.Structure):
    """NppStreamContext of NPP 12 and 13."""

    _fields_ = (
        ("stream", ctypes.c_void_p),
        ("device", ctypes.c_int),
        ("multiprocessors", ctypes.c_int),
        ("threads_a_multiprocessor", ctypes.c_int),
        ("threads_a_block", ctypes.c_int),
        ("shared_bytes_a_block", ctypes.c_size_t),
        ("major", ctypes.c_int),
        ("minor", ctypes.c_int),
        ("stream_flags", ctypes.c_uint),
        ("reserved", ctypes.c_uint),
    )


class Npp:
    """NPP's filtering library, on the default stream. Raises OSError where it does not load."""

    def __init__(self) -> None:
        load("NPPC", "libnppc.so.13")
        self._library, self.file = load("NPPIF", "libnppif.so.13")
        gpu = torch.cuda.get_device_properties(0)
        self._context = StreamContext(
            None, 0, gpu.multi_processor_count, gpu.max_threads_per_multi_processor,
            1024, 49152, gpu.major, gpu.minor, 0, 0,
        )  # fmt: skip

    def call(self, name: str, *arguments: Any) -> None:
        """Call nppi<name>_Ctx; AttributeError if there is none, RuntimeError if it fails."""
        status = getattr(self._library, f"nppi{name}_Ctx")(*arguments, self._context)
        if status != 0:
            raise RuntimeError(f"nppi{name}_Ctx returned status {status}")


def load(variable: str, name: str) -> tuple[ctypes.CDLL, str]:
    """The library that the environment's *variable* names; else *name*, also beside the toolkit.

    Its symbols are global: NPP's libraries find each other that way. Raises OSError.
    """
    if named := os.environ.get(variable):
        places = [named]
    else:
        toolkit = find_toolkit()
        roots = [Path("/usr/local/cuda"), *([toolkit.root] if toolkit else [])]
        folders = ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib")
        places = [name, *(str(root / folder / name) for root in roots for folder in folders)]
    problems = []
    for place in places:
        try:
            return ctypes.CDLL(place, mode=ctypes.RTLD_GLOBAL), place
        except OSError as error:
            problems.append(str(error))
    raise OSError(f"{problems[0]}; nor beside the toolkit; set {variable} to the file")


def npp_forms(npp: Npp, problem: Problem) -> Iterator[Form]:
    """NPP's way. Its weights are those of a convolution, so a dense kernel is flipped."""
    image, out = problem.image, problem.out
    channels = image.shape[2] if image.ndim == 3 else 1
    kind = f"{'8u' if image.dtype == torch.uint8 else '32f'}_C{channels}R"
    size, origin = Size(image.shape[1], image.shape[0]), Size(0, 0)
    step = image.stride(0) * image.element_size()
    ends = (address(image), step, size, origin, address(out), step, size)
    rows, columns = problem.filter.size
    mask, anchor = Size(columns, rows), Size(columns // 2, rows // 2)

    def form(name: str, *arguments: Any) -> Form:
        def run() -> torch.Tensor:
            npp.call(name, *ends, *(address(a) if torch.is_tensor(a) else a for a in arguments))
            return out

        return name, run

    if problem.name == "blur":
        yield form(f"FilterGaussAdvancedBorder_{kind}", rows, factor(problem), REPLICATE)
    elif problem.name == "box":
        yield form(f"FilterBoxBorder_{kind}", mask, anchor, REPLICATE)
    elif problem.name == "kernel":
        flipped = on_device(problem.dense[::-1, ::-1], np.float32)
        yield form(f"FilterBorder_{kind}", flipped, mask, anchor, REPLICATE)
    elif problem.name == "sharpen":
        yield form(
            f"FilterBorder32f_{kind}", on_device(problem.dense, np.float32), mask, anchor, REPLICATE
        )
        integers = on_device(problem.dense, np.int32)
        yield form(f"FilterBorder_{kind}", integers, mask, anchor, 1, REPLICATE)
    elif problem.name == "sobel":
        magnitude = torch.empty_like(image, dtype=torch.int16)

        def sobel() -> torch.Tensor:
            npp.call(
                f"GradientVectorSobelBorder_8u16s_C{channels}R",
                address(image), step, size, origin, None, 0, None, 0,
                address(magnitude), 2 * step, None, 0, size, MASK_3X3, NORM_L2, REPLICATE,
            )  # fmt: skip
            return magnitude

        yield "GradientVectorSobelBorder_8u16s (int16 result)", sobel


def cupy_forms(cupy: Any, ndimage: Any, problem: Problem) -> Iterator[Form]:
    """CuPy's way; sharpen has none, since its correlate() wraps around where others clamp."""
    image, out = cupy.from_dlpack(problem.image), cupy.from_dlpack(problem.out)
    rows, columns = problem.filter.size
    colour = problem.image.ndim == 3

    def form(function: str, *arguments: Any, **options: Any) -> Form:
        def run() -> torch.Tensor:
            getattr(ndimage, function)(image, *arguments, output=out, mode="nearest", **options)
            return problem.out

        return f"ndimage.{function}", run

    if problem.name == "blur":
        sigma = float(problem.parameters["sigma"])
        truncate = (rows // 2) / sigma  # makes its radius ours
        sigmas = (sigma, sigma, 0.0) if colour else (sigma, sigma)
        yield form("gaussian_filter", sigmas, truncate=truncate)
    elif problem.name == "box":
        yield form("uniform_filter", (rows, columns, 1) if colour else (rows, columns))
    elif problem.name == "kernel":
        yield form("correlate", cupy.from_dlpack(on_device(problem.dense, np.float32)))
    elif problem.name == "sobel":

        def sobel() -> torch.Tensor:
            gradients = (
                ndimage.sobel(image, axis, output=cupy.float32, mode="nearest") for axis in (0, 1)
            )
            magnitude = cupy.minimum(cupy.hypot(*gradients), 255).astype(cupy.uint8)
            return torch.from_dlpack(magnitude)

        yield "ndimage.sobel twice, hypot", sobel


def cudnn_forms(problem: Problem) -> Iterator[Form]:
    """cuDNN's way, for float32 gray: two passes where the kernel is separable."""
    if problem.image.dtype != torch.float32 or problem.image.ndim != 2:
        return
    image = problem.image[None, None]
    rows, columns = problem.filter.size
    if problem.name == "blur":
        column, row = factor(problem).view(1, 1, -1, 1), factor(problem).view(1, 1, 1, -1)
        yield (
            "conv2d, two passes",
            lambda: F.conv2d(
                F.conv2d(image, column, padding=(rows // 2, 0)), row, padding=(0, columns // 2)
            )[0, 0],
        )
    elif problem.name == "kernel":
        weights = on_device(problem.dense, np.float32)[None, None]
        yield (
            "conv2d",
            lambda: F.conv2d(image, weights, padding=(rows // 2, columns // 2))[0, 0],
        )


def factor(problem: Problem) -> torch.Tensor:
    """The one factor of a kernel that is the same across and down."""
    factors = problem.filter.kernels[0].factors
    assert factors is not None
    return on_device(factors[1], np.float32)


def on_device(array: np.ndarray, dtype: type) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype=dtype, order="C")).to(DEVICE)


def address(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
