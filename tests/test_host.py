"""The CUDA kernels themselves, compiled for the CPU: wrong results show without a GPU.

The sources are those of cuda_src/, but for ptx.cuh; tests/host/cuda_host.h stands in for CUDA. What
only a GPU can show (races, bulk copies, speed) is left to the tests marked gpu.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from agreement import ALL_BORDERS, StandIn, assert_agrees, random_pixels
from conftest import GENERAL
from cudafilter.engines import Result
from cudafilter.engines.chains import one_by_one, run_plan
from cudafilter.engines.cuda.bands import block_of
from cudafilter.engines.cuda.variants import ladder, task, tensor
from cudafilter.engines.cuda.variants.task import row_pitch
from cudafilter.errors import LimitError
from cudafilter.nvidia.toolkit import kernel_sources
from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation, WholeImage, only_stage
from cudafilter.operations.pixels import Pixels

HERE = Path(__file__).parent / "host"
FLAGS = ["-std=c++20", "-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-w"]
FLAGS += ["-U_FORTIFY_SOURCE"]  # it takes a jump from stack to stack for an attack

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")


class HostEngine(StandIn):
    """Runs a variant's kernel on the CPU. *cut* makes it work in bands of that many rows."""

    name = "host"

    def __init__(self, variant: str, folder: Path, cut: int | None = None) -> None:
        self.variant = variant
        self.title = f"host {variant}"
        self._folder = folder
        self._cut = cut

    def run(
        self,
        pixels: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
        *,
        overwrite: bool = False,
        rows: tuple[int, int] | None = None,
    ) -> Result:
        """As CudaEngine.run."""
        if (stage := only_stage(plan := filter.unrolled(border))) is None:
            return run_plan(one_by_one(self.run), pixels, plan, alpha, rows)
        filter, border = stage
        if rows is not None and isinstance(filter, WholeImage):
            return Result(self.run(pixels, filter, border, alpha).pixels[slice(*rows)])
        ready = ladder.prepare(filter, pixels.shape[2], pixels.dtype, border, alpha, self.variant)
        library = self.compiled(ready.variant, ready.defines)
        height, width, _ = pixels.shape
        top, bottom = rows or (0, height)
        step = self._cut or height
        parts = []
        for y in range(top, bottom, step):
            span, columns = (y, min(y + step, bottom)), (0, width)
            if self._cut:
                block, origin = block_of(pixels, filter, border, span, columns)
            else:
                block, origin = pixels, (y, 0)
            parts.append(self._launch(library, ready, block, span[1] - span[0], width, origin))
        return Result(np.concatenate(parts))

    def prepared(self, filter: Operation, channels: int, dtype: str) -> str:
        """The variant that would run."""
        return ladder.prepare(filter, channels, dtype, Border(), False, self.variant).variant

    def _launch(
        self,
        library: ctypes.CDLL,
        ready: task.Launch,
        block: Pixels,
        height: int,
        width: int,
        origin: tuple[int, int],
    ) -> Pixels:
        pixel = block[0, 0].nbytes
        source = _aligned(block.shape[0], row_pitch(block.shape[1], pixel))
        out_pixel = block.shape[2] * ready.out_itemsize
        target = _aligned(height, row_pitch(width, out_pixel))
        source[:, : block[0].nbytes] = block.reshape(block.shape[0], -1).view(np.uint8)
        target[:] = 0xA5  # what is not written shows
        scratch = _aligned(1, ready.scratch_bytes(block.shape[:2], (height, width), origin, 8))
        scratch[:] = 0xFF  # NaN: what was not written must not be used
        addresses = source.ctypes.data, target.ctypes.data, scratch.ctypes.data
        passes = ready.place(addresses, block.shape[:2], (height, width), origin, 8)
        for function, given, blocks, (x, y, _) in passes:
            getattr(library, f"launch_{function}")(
                given, ready.weights.ctypes.data_as(ctypes.c_void_p),
                ctypes.c_size_t(ready.weights.size), blocks, x, y,
            )  # fmt: skip
        rows = np.ascontiguousarray(target[:, : width * out_pixel])
        return rows.view(ready.out_dtype).reshape(height, width, block.shape[2])

    def compiled(self, variant: str, defines: Mapping[str, int]) -> ctypes.CDLL:
        """The functions of a kernel, each as launch_NAME; compiled unless it was before."""
        name = "-".join([variant, *(str(value) for value in defines.values())])
        library = self._folder / f"{name}.so"
        if not library.exists():
            sources = _sources(self._folder)
            text = (sources / f"{variant}.cu").read_text()
            functions = re.findall(r"(\w+)\(\s*const Task task[,)]", text)
            launches = "".join(f"LAUNCH({name})\n" for name in functions)
            macros = [f"-D{key}={value}" for key, value in defines.items()]
            if "weights" not in text.split("#include", 1)[1]:
                macros.append("-DNO_WEIGHTS")
            elif "__constant__" not in text:  # the weights are an argument
                macros.append("-DVANILLA")
            with tempfile.TemporaryDirectory(dir=self._folder) as own:
                code, made = Path(own, "kernel.cpp"), Path(own, "kernel.so")
                code.write_text(
                    f'#include "cuda_host.h"\n#include "{variant}.cu"\n'
                    f'#include "launch.h"\n{launches}'
                )
                _compile("-shared", *macros, f"-I{sources}", code, "-o", made)
                made.replace(library)  # whole: another process may be about to load it
        return ctypes.CDLL(str(library))


def _sources(folder: Path) -> Path:
    """The kernels' sources beside the headers of here, in *folder*, which several may share."""
    sources = folder / "src"
    if not sources.exists():
        with tempfile.TemporaryDirectory(dir=folder) as own:
            made = shutil.copytree(kernel_sources(), Path(own, "src"))
            shutil.copytree(HERE, made, dirs_exist_ok=True)
            # What all kernels include is compiled once: it takes longer than most of them.
            _compile("-x", "c++-header", made / "cuda_host.h")
            with suppress(OSError):  # another process was first
                made.rename(sources)
    return sources


def _compile(*words: str | Path) -> None:
    subprocess.run(["g++", *FLAGS, *words], check=True)


def _aligned(rows: int, pitch: int) -> np.ndarray:
    """Zeroed bytes (rows, pitch) that start on 128, as device memory does."""
    raw = np.zeros(rows * pitch + 128, np.uint8)
    start = -raw.ctypes.data % 128
    return raw[start : start + rows * pitch].reshape(rows, pitch)


_RANDOM = np.random.default_rng(1)
DENSE = make("kernel", weights=_RANDOM.standard_normal((5, 4)) / 5)

LAYOUTS = [("uint8", 1, False), ("uint8", 3, False), ("uint16", 4, True), ("float32", 2, True)]
CASES = [
    ("vanilla", [make("blur", sigma=1.3), make("sobel"), DENSE]),
    ("constant", [make("blur", sigma=1.3), make("unsharp", sigma=1, threshold=0.02), DENSE]),
    ("tiled", [make("blur", sigma=1.3), make("blur", sigma=6), DENSE]),
    ("separable", [make("blur", sigma=1.3), make("blur", sigma=6), make("scharr", scale=0.1)]),
    ("stream", [make("blur", sigma=1), make("sobel"), make("sharpen"), DENSE]),
]


@pytest.mark.parametrize(("dtype", "channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize(("variant", "filters"), CASES, ids=[case[0] for case in CASES])
def test_kernels_agree_with_the_reference(
    variant: str, filters: list[Correlation], dtype: str, channels: int, alpha: bool, built: Path
) -> None:
    engine = HostEngine(variant, built)
    for shape in [(1, 1), (3, 41), (37, 2), (23, 150)]:
        pixels = random_pixels((*shape, channels), dtype)
        for filter in filters:
            for border in ALL_BORDERS:
                assert_agrees(engine, pixels, filter, border, alpha)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_box(dtype: str, channels: int, built: Path) -> None:
    engine = HostEngine("box", built)
    for shape in [(3, 5), (12, 2300 // channels)]:
        pixels = random_pixels((*shape, channels), dtype)
        for border in ALL_BORDERS:
            for radius in (0, 7, 40):
                assert_agrees(engine, pixels, make("box", radius=radius), border)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_box_taller_than_a_block(dtype: str, channels: int, built: Path) -> None:
    filter = make("box", radius=80)
    engine = HostEngine("box", built)
    for shape, pieces in [((320, 2300 // channels), True), ((300, 40), False)]:
        pixels = random_pixels((*shape, channels), dtype)
        ready = ladder.prepare(filter, channels, dtype, Border(), False, "box")
        passes = ready.place((0, 0, 0), shape, shape, (0, 0), 8)
        assert [one.function for one in passes] == ["edges", "starts", "filter"]
        last = task.Task.from_buffer_copy(passes[-1].task)
        assert last.starts > 1
        assert (last.piece < last.rows) == pieces
        for border in ALL_BORDERS:
            assert_agrees(engine, pixels, filter, border)
        whole = engine.run(pixels, filter).pixels
        assert np.array_equal(HostEngine("box", built, cut=200).run(pixels, filter).pixels, whole)


LARGE = {
    "wide": [make("blur", sigma=12), make("unsharp", sigma=7, amount=2), make("blur", sigma=0.5)],
    "blocked": [
        make("kernel", weights=_RANDOM.standard_normal((19, 39)) / 99, bias=0.5),
        make("kernel", weights=_RANDOM.random((6, 8)), normalize=True),
        make("kernel", weights=_RANDOM.random((2, 1)), normalize=True),
    ],
}


@pytest.mark.parametrize(("dtype", "channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("variant", LARGE)
def test_large_kernels(variant: str, dtype: str, channels: int, alpha: bool, built: Path) -> None:
    engine = HostEngine(variant, built)
    for shape in [(1, 1), (260, 20), (37, 200)]:
        pixels = random_pixels((*shape, channels), dtype)
        for filter in LARGE[variant]:
            for border in ALL_BORDERS:
                assert_agrees(engine, pixels, filter, border, alpha)


PRODUCTS = [
    make("blur", sigma=2),
    make("blur", sigma=7),
    make("box", radius=2),
    make("kernel", weights=_RANDOM.random((1, 20)) - 0.3, bias=0.3),
    Correlation(
        "off its centre",
        (Kernel(np.outer(_RANDOM.random(31), _RANDOM.random(3)), (30, 0)),),
        gain=0.04,
    ),
    Correlation("bright", (Kernel(np.ones((4, 18))),), gain=1 / 20, bias=-0.5),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("filter", PRODUCTS, ids=lambda filter: filter.name)
def test_products(filter: Correlation, channels: int, built: Path) -> None:
    engine = HostEngine("tensor", built)
    for border in ALL_BORDERS:
        assert_agrees(engine, random_pixels((21, 70, channels), "uint8"), filter, border)
    for shape in [(1, 1), (150, 20)]:
        pixels = random_pixels((*shape, channels), "uint8")
        assert_agrees(engine, pixels, filter)
    bands = HostEngine("tensor", built, cut=32).run(pixels, filter).pixels
    assert np.array_equal(bands, engine.run(pixels, filter).pixels)


PLANS = [(channels, steps) for channels, plans in tensor.PLANS.items() for steps in plans]


@pytest.mark.parametrize(("channels", "steps"), PLANS)
def test_every_plan_for_products(channels: int, steps: int, built: Path) -> None:
    weights = np.outer(_RANDOM.random(16 * steps - 15), _RANDOM.random(9))
    filter = make("kernel", weights=weights, normalize=True)
    pixels = random_pixels((40, 30, channels), "uint8")
    assert_agrees(HostEngine("tensor", built), pixels, filter, Border("reflect"))


def _gaussian(sigma: float) -> np.ndarray:
    row = np.exp(-np.square(np.arange(-15, 16)) / (2 * sigma**2))
    return np.outer(row, row / row.sum() ** 2)


LOW_RANK = {
    "difference of Gaussians": _gaussian(5) - _gaussian(3),
    "random, rank 3": (_RANDOM.random((31, 3)) - 0.2) @ _RANDOM.random((3, 26)) / 500,
    "random, rank 4": _RANDOM.standard_normal((45, 4)) @ _RANDOM.standard_normal((4, 45)) / 2000,
}


@pytest.mark.parametrize(("dtype", "channels", "alpha"), LAYOUTS[:3])
@pytest.mark.parametrize("name", LOW_RANK)
def test_sums_of_few_products(
    name: str, dtype: str, channels: int, alpha: bool, built: Path
) -> None:
    filter = make("kernel", weights=LOW_RANK[name], bias=0.25)
    engine = HostEngine("wide", built)
    terms = ladder.prepare(filter, channels, dtype, Border(), alpha, "wide").defines["TERMS"]
    assert terms == np.linalg.matrix_rank(LOW_RANK[name])
    for shape in [(1, 1), (150, 20), (37, 200)]:
        pixels = random_pixels((*shape, channels), dtype)
        for border in ALL_BORDERS:
            assert_agrees(engine, pixels, filter, border, alpha)
        whole = engine.run(pixels, filter, alpha=alpha).pixels
        cut = HostEngine("wide", built, cut=16).run(pixels, filter, alpha=alpha).pixels
        assert np.array_equal(cut, whole)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("variant", ["tiled", "wide", "blocked"])
def test_equal_terms_keep_the_contract(variant: str, dtype: str, built: Path) -> None:
    # Rounding errs to the same side each time where all terms are equal: nothing averages out.
    for seed in range(8):
        pixels = random_pixels((1, 1, 1), dtype, seed)
        for radius in (15, 20, 40):
            assert_agrees(HostEngine(variant, built), pixels, make("box", radius=radius))


@pytest.mark.parametrize("variant", ["vanilla", "separable", "stream", "wide", "blocked"])
def test_no_tap_of_zero_weight_is_made_up(variant: str, built: Path) -> None:
    # An infinity reaches the pixels that tap it and no others: zero times infinity is none of them.
    pixels = random_pixels((60, 90, 1), "float32")
    pixels[30, 45] = np.inf
    ones = make("kernel", weights=np.ones((5, 9)))
    got = HostEngine(variant, built).run(pixels, ones).pixels
    touched = np.zeros(pixels.shape, bool)
    touched[28:33, 41:50] = True
    assert np.array_equal(np.isinf(got), touched)
    assert not np.isnan(got).any()


CUT = {
    "blur": make("blur", sigma=1),
    "long": make("kernel", weights=_RANDOM.random((301, 1)), normalize=True),
    "dense": make("kernel", weights=_RANDOM.random((9, 11)) - 0.4),
}
"""Kernels whose sums are made in parts, and one whose are not."""


@pytest.mark.parametrize("variant", [v for v in GENERAL if v != "auto"])
@pytest.mark.parametrize("name", CUT)
def test_bands_have_the_same_bits(name: str, variant: str, built: Path) -> None:
    """They start at multiples of the launch's alignment. Images by rows are cut there too."""
    filter = CUT[name]
    kinds = [(3, False, "uint8"), (4, True, "uint16"), (1, False, "uint16"), (3, False, "float32")]
    for channels, alpha, dtype in kinds:
        try:
            ready = ladder.prepare(filter, channels, dtype, Border(), alpha, variant)
        except LimitError:
            continue
        pixels = random_pixels((150, 20, channels), dtype)
        rows = -(-21 // ready.alignment) * ready.alignment
        engine, cutting = HostEngine(variant, built), HostEngine(variant, built, cut=rows)
        for border in ALL_BORDERS if dtype == "uint8" else (Border(),):
            whole = engine.run(pixels, filter, border, alpha).pixels
            assert np.array_equal(cutting.run(pixels, filter, border, alpha).pixels, whole), dtype


def test_bands_have_the_same_bits_beside_an_infinity(built: Path) -> None:
    # blocked.cu takes another way through a tile with one, and bands have other tiles.
    pixels = random_pixels((80, 150, 1), "float32")
    pixels[40, 75] = np.inf
    dense = make("kernel", weights=_RANDOM.random((21, 11)), normalize=True)
    whole = HostEngine("blocked", built).run(pixels, dense).pixels
    bands = HostEngine("blocked", built, cut=9).run(pixels, dense).pixels
    assert np.array_equal(whole, bands)


LONG_SUMS = [
    ("constant", "uint16", make("blur", sigma=20)),
    ("tiled", "uint16", make("blur", sigma=20)),
    ("wide", "uint16", make("blur", sigma=100)),
    ("wide", "uint16", make("blur", sigma=400)),
    ("wide", "float32", make("blur", sigma=400)),
    ("blocked", "uint16", make("kernel", weights=_RANDOM.random((60, 60)) + 1, normalize=True)),
]


@pytest.mark.parametrize(("variant", "dtype", "filter"), LONG_SUMS)
def test_long_sums_keep_the_contract(
    variant: str, dtype: str, filter: Operation, built: Path
) -> None:
    # One running sum of all taps errs by more than the contract allows somewhere here.
    pixels = random_pixels((90, 150, 1), dtype)
    bright = (pixels / 2 + (0.5 if dtype == "float32" else 32767)).astype(dtype)
    assert_agrees(HostEngine(variant, built), bright, filter)


def test_uint16_with_alpha_keeps_its_contract(built: Path) -> None:
    pixels = random_pixels((33, 65, 4), "uint16")
    for variant, shape in [("tiled", (19, 21)), ("stream", (15, 13)), ("blocked", (19, 21))]:
        dense = make("kernel", weights=_RANDOM.random(shape), normalize=True)
        assert_agrees(HostEngine(variant, built), pixels, dense, Border("reflect"), alpha=True)
