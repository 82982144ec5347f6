"""The CUDA engine's own duties: the kernel cache, bands, contexts, errors."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from agreement import ALL_BORDERS, random_pixels
from conftest import GENERAL
from cudafilter.engines import shipped
from cudafilter.engines.cuda import slots
from cudafilter.engines.cuda.ahead import every
from cudafilter.engines.cuda.bands import block_of, cut
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.engines.cuda.variants import AUTO, CHOICES, box, ladder, task, tensor
from cudafilter.engines.cuda.variants.task import Layout, row_pitch
from cudafilter.engines.open import open_engine
from cudafilter.errors import EngineError, EngineUnavailable, LimitError
from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.rank import erosion, median
from cudafilter.operations.window import square


def test_cut_covers_the_image_within_the_budget() -> None:
    filter = make("blur", sigma=1)  # halo of 3 on each side
    for shape in [(100, 80, 3), (1, 5000, 1), (5000, 1, 4)]:
        pixels = np.zeros(shape, np.uint16)
        whole = 2 * shape[0] * row_pitch(shape[1], pixels[0, 0].nbytes)
        least = {1: 6000, 16: 50_000}
        for budget, step in product((whole, whole - 1, whole // 2, 50_000, 9000, 6000), least):
            if budget < least[step]:
                continue
            covered = np.zeros(shape[:2], int)
            bands = cut(pixels, filter, budget, step)
            assert (len(bands) == 1) == (budget >= whole)
            for rows, columns in bands:
                assert rows[0] % step == columns[0] % step == 0
                covered[slice(*rows), slice(*columns)] += 1
                if len(bands) > 1:
                    block, (y0, x0) = block_of(pixels, filter, Border("wrap"), rows, columns)
                    assert (y0, x0) == (3, 32)
                    pixel = block[0, 0].nbytes
                    source = block.shape[0] * row_pitch(block.shape[1], pixel)
                    out = (rows[1] - rows[0]) * row_pitch(columns[1] - columns[0], pixel)
                    assert source + out <= budget
            assert (covered == 1).all()


def test_cut_names_what_does_not_fit() -> None:
    with pytest.raises(LimitError, match=r"1,024 bytes of GPU memory; 40 are free"):
        cut(np.zeros((9, 9, 1), np.uint8), make("blur", sigma=1), 40)


@pytest.mark.parametrize("step", [1, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_cut_takes_the_budget_that_it_names(channels: int, step: int) -> None:
    pixels = np.zeros((150, 90, channels), np.float32)
    with pytest.raises(LimitError) as refused:
        cut(pixels, make("blur", sigma=2), 40, step)
    named = int(re.findall(r"need ([\d,]+) bytes", str(refused.value))[0].replace(",", ""))
    bands = cut(pixels, make("blur", sigma=2), named, step)
    assert bands[0][0] == (0, step)
    with pytest.raises(LimitError):
        cut(pixels, make("blur", sigma=2), named - 1, step)


def prepare(filter: Correlation, variant: str) -> task.Launch:
    return ladder.prepare(filter, 1, np.uint8, Border(), False, variant)


def test_a_launch_is_prepared_once_for_many_images() -> None:
    blur, same = make("blur", sigma=3), make("blur", sigma=3)
    kept = ladder.prepare(blur, 3, np.uint8, Border("edge"), False, "auto")
    assert ladder.prepare(blur, 3, "uint8", Border("edge"), False, "auto") is kept
    assert ladder.prepare(same, 3, "uint8", Border("edge"), False, "auto") is kept
    others: list[tuple[Correlation, int, str, Border, bool, str]] = [
        (make("blur", sigma=4), 3, "uint8", Border("edge"), False, "auto"),
        (blur, 1, "uint8", Border("edge"), False, "auto"),
        (blur, 3, "uint16", Border("edge"), False, "auto"),
        (blur, 3, "uint8", Border("wrap"), False, "auto"),
        (blur, 4, "uint8", Border("edge"), True, "auto"),
        (blur, 3, "uint8", Border("edge"), False, "tiled"),
    ]
    for other in others:
        assert ladder.prepare(*other) is not kept


def test_launch_limits() -> None:
    def place(height: int, width: int) -> list[task.Pass]:
        size = (height, width)
        return prepare(make("blur"), "vanilla").place((0, 0, 0), size, size, (0, 0), 132)

    ((function, _, blocks, threads),) = place(9, 33)
    assert (function, blocks, threads) == ("filter", 4, (32, 8, 1))
    with pytest.raises(LimitError, match="1,073,741,824"):
        place(1, 2**30 + 1)
    with pytest.raises(LimitError, match="a grid holds 2,147,483,647"):
        place(2**30, 2**30)
    fits = make("kernel", weights=np.random.default_rng(0).random((127, 127)))
    assert prepare(fits, "tiled").weights.nbytes == 4 * 127 * 127
    large = make("kernel", weights=np.random.default_rng(0).random((129, 128)))
    assert prepare(large, "auto").variant == "vanilla"
    with pytest.raises(LimitError, match="128x129 kernel needs 66,048"):
        prepare(large, "constant")
    with pytest.raises(LimitError, match="129 rows and 128 columns is too large"):
        prepare(large, "stream")


@pytest.mark.parametrize(
    ("filter", "variant"),
    [
        (make("blur", sigma=1), "stream"),
        (make("blur"), "tensor"),
        (make("blur", sigma=13), "tensor"),
        (make("unsharp"), "stream"),
        (make("blur", sigma=100), "wide"),
        (make("sobel"), "stream"),
        (make("box"), "stream"),
        (make("box", radius=50), "box"),
        (make("box", radius=1500), "box"),
        (make("box", radius=1600), "wide"),
        (make("kernel", weights=np.random.default_rng(0).random((9, 9))), "stream"),
        (make("kernel", weights=np.random.default_rng(0).random((63, 63))), "blocked"),
    ],
)
def test_auto_picks_the_fastest_that_fits(filter: Correlation, variant: str) -> None:
    assert prepare(filter, "auto").variant == variant


_SUM = np.random.default_rng(1).random((31, 2)) @ np.random.default_rng(2).random((2, 31))
_NORMAL = np.random.default_rng(0).standard_normal
_LARGE = _NORMAL((61, 8)) @ _NORMAL((8, 61)) / 3000  # float32 is enough, on 16 bits too


@pytest.mark.parametrize(
    ("weights", "dtype", "variant"),
    [
        (_SUM, "uint8", "wide"),
        (_SUM, "uint16", "wide"),
        (_SUM, "float32", "blocked"),
        (_SUM[:15, :15], "uint8", "stream"),
        (_SUM + 1e-6 * np.eye(31), "uint8", "blocked"),
        (np.kron(_SUM, np.eye(4)), "uint8", "wide"),
        (_LARGE, "uint8", "wide"),
        (_LARGE, "uint16", "blocked"),
        (np.kron(_SUM, np.eye(9)), "uint8", "vanilla"),
    ],
    ids=[
        "8 bits",
        "16 bits",
        "float32: infinities",
        "small",
        "31 terms",
        "8 terms",
        "8 that cancel",
        "too much for 16 bits",
        "18 terms",
    ],
)
def test_dense_kernels_that_are_sums_of_few_products(
    weights: np.ndarray, dtype: str, variant: str
) -> None:
    filter = make("kernel", weights=weights)
    ready = ladder.prepare(filter, 1, dtype, Border(), False, "auto")
    assert ready.variant == variant
    if variant in ("blocked", "vanilla"):
        with pytest.raises(LimitError, match="or on integers the sum of a few"):
            ladder.prepare(filter, 1, dtype, Border(), False, "wide")


def test_specialisations_are_what_launches_ask_for() -> None:
    kinds = {"vanilla": 48, "constant": 48, "tiled": 48, "separable": 48, "blocked": 24}
    for variant, count in kinds.items():
        known = [tuple(macros.items()) for macros in every(variant)]
        assert len(known) == len(set(known)) == count
        filter = make("laplacian" if count == 24 else "sobel", scale=0.1)
        ready = ladder.prepare(filter, 4, np.uint16, Border(), True, variant)
        assert tuple(ready.defines.items()) in known


def test_the_struct_of_the_kernels_is_made_from_the_fields() -> None:
    script = [sys.executable, str(Path(__file__).parents[1] / "tools" / "make_task.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sizes = [ctypes.sizeof(kind) for _, kind, _ in task.FIELDS]
    last, *_ = task.FIELDS[-1]
    assert getattr(task.Task, last).offset == sum(sizes[:-1])  # no gap


def test_products_stay_within_shared_memory() -> None:
    known = {(1, 6): 26192, (1, 30): 28624, (3, 6): 24144, (3, 15): 42704, (3, 30): 38864}
    for (channels, radius), shared in known.items():  # by nvcc's report
        plan = tensor.PLANS[channels][(2 * radius + 31) // 16]
        told = tensor._across(channels, 2 * radius + 1, radius, (2 * radius + 31) // 16, plan)[1]
        assert 0 <= told - shared <= 16
    for channels, rows, columns in product((1, 2, 3, 4), (1, 20, 40, 90), range(1, 100, 3)):
        for left in {0, columns // 3, columns - 1}:
            filter = Correlation("", (Kernel(np.ones((rows, columns)), (0, left)),))
            found = tensor.specialise(filter, Layout(channels, "uint8"))
            if found is None:
                assert max(rows, columns) > 16 * (max(tensor.PLANS[channels]) - 2)
                continue
            plan = tensor.Plan(found["BESIDE"], found["KEPT"], found["BLOCKS"])
            steps = (rows + 30) // 16
            assert tensor._across(channels, columns, left, steps, plan)[1] <= task.SHARED_BYTES


def test_sums_of_starts_fit_into_their_memory() -> None:
    started = 0
    for radius, channels, dtype in product((16, 50, 120), (1, 3), ("uint8", "uint16")):
        ready = ladder.prepare(make("box", radius=radius), channels, dtype, Border(), False, "box")
        strip = 4 * 32 * ready.warps * box._sums(ready.defines)
        for strips, resident, most in product((1, 5, 40), (8, 400, 3000), (40, 700, 30_000)):
            known = 2 * radius + 1, strips, resident, ready.defines
            for height in {1, 2, 39, most // 7, most // 2, most - 1, most} - {0}:
                rows, starts, piece = box.walk(known[0], height, *known[1:])
                assert rows % piece == 0
                if starts:
                    pieces = (-(-height // rows) - 1) * (rows // piece) + starts
                    room = box.start_bytes(known[0], most, *known[1:])
                    assert pieces * strips * strip <= room, (known, height, most)
                    started += 1
    assert started > 200


BY_THEMSELVES = [variant for variant in CHOICES if variant != "together"]
"""Variants of an operation, not of a chain's steps, which test_together.py has."""


def fit_for(variant: str, size: int) -> Operation:
    """An operation of about that radius which *variant* runs."""
    others: dict[str, Operation] = {
        "box": make("box", radius=size),
        "rank": median(size),
        "extreme": erosion(square(size)),
        "network": median(2),
        "histogram": median(size),
        "bilateral": make("bilateral", radius=size),
        "denoise": make("denoise", search=2 * size + 1),
        "point": make("levels", gamma=2),
        "otsu": make("threshold", otsu=True),
        "canny": make("canny"),
    }
    return others.get(variant, make("blur", sigma=size / 3))


@pytest.mark.gpu
@pytest.mark.parametrize("variant", [v for v in BY_THEMSELVES if v not in ("otsu", "canny")])
@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_bands_have_the_same_bits(variant: str, border: Border) -> None:
    unlimited = CudaEngine(variant=variant)
    for channels, alpha, dtype in [(3, False, "uint8"), (1, False, "uint16"), (4, True, "float32")]:
        if dtype != "uint8" and variant not in (AUTO, *GENERAL):
            continue
        pixels = random_pixels((150, 90, channels), dtype)
        filter = fit_for(variant, 6)
        expected = unlimited.run(pixels, filter, border, alpha).pixels
        whole = 2 * 150 * row_pitch(90, pixels[0, 0].nbytes)
        for budget in (whole - 1, whole // 3, 40 * 1024):
            banded = CudaEngine(variant=variant, memory_limit=budget)
            step = banded.prepare(pixels, filter, border, alpha).alignment
            assert len(cut(pixels, filter, budget, step)) > 1
            assert np.array_equal(banded.run(pixels, filter, border, alpha).pixels, expected)
            banded.close()
    unlimited.close()


@pytest.mark.gpu
def test_a_second_run_starts_no_compiler(tmp_path: Path) -> None:
    script = (
        "import sys, numpy as np, cudafilter\n"
        "def audit(event, args):\n"
        "    compiles = event == 'ctypes.dlopen' and 'nvrtc' in str(args[0])\n"
        "    if compiles or event == 'subprocess.Popen':\n"
        "        print('started', args[0])\n"
        "sys.addaudithook(audit)\n"
        "x = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)\n"
        "print(cudafilter.apply(x, 'blur', engine='cuda').sum())\n"
    )
    environment = os.environ | {"CUDAFILTER_CACHE": str(tmp_path)}

    def run() -> str:
        return subprocess.run(
            [sys.executable, "-c", script], env=environment, check=True, capture_output=True,
            text=True,
        ).stdout  # fmt: skip

    first = run()
    (kept,) = tmp_path.glob("*.cubin")
    second = run()
    assert ("started" in first) is not bool(shipped.architectures(shipped.FOLDER))
    assert "started" not in second
    assert first.splitlines()[-1] == second.splitlines()[-1]
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-9])  # a damaged kernel is not loaded
    assert run().splitlines()[-1] == second.splitlines()[-1]
    assert kept.read_bytes() == whole


@pytest.mark.gpu
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(EngineUnavailable, match="no GPU 99"):
        open_engine("auto", gpu=99)


@pytest.mark.gpu
def test_import_and_close_leave_no_context() -> None:
    import pycuda.driver as cuda

    engine = open_engine("cuda")
    assert cuda.Context.get_current() is None
    engine.run(random_pixels((8, 8, 1), "uint8"), make("blur"))
    assert cuda.Context.get_current() is None
    engine.close()
    again = open_engine("cuda")
    again.run(random_pixels((8, 8, 1), "uint8"), make("blur"))
    again.close()


@pytest.mark.gpu
def test_resident_timing_gives_the_result_too() -> None:
    engine = CudaEngine()
    pixels = random_pixels((64, 64, 3), "uint8")
    result, times = engine.time_kernel(pixels, make("blur"), repeats=4)
    assert np.array_equal(result, engine.run(pixels, make("blur")).pixels)
    assert len(times) == 4
    assert min(times) > 0
    assert min(engine.time_copy(1 << 20, repeats=4)) > 0
    engine.close()


@pytest.mark.gpu
@pytest.mark.parametrize("variant", BY_THEMSELVES)
@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_chunks_have_the_same_bits(
    variant: str, border: Border, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = CudaEngine(variant=variant)
    for channels, alpha, dtype in [(3, False, "uint8"), (4, True, "float32")]:
        if alpha and variant not in (AUTO, *GENERAL):
            continue
        pixels = random_pixels((400, 333, channels), dtype)
        for size in (8, 2):
            filter = fit_for(variant, size)
            monkeypatch.setattr(slots, "CHUNK_BYTES", 1 << 30)
            whole = engine.run(pixels, filter, border, alpha).pixels
            monkeypatch.setattr(slots, "CHUNK_BYTES", 1 << 16)
            for _ in range(3):
                assert np.array_equal(engine.run(pixels, filter, border, alpha).pixels, whole)
    engine.close()


@pytest.mark.gpu
def test_a_large_image_in_the_chunks_it_really_has() -> None:
    engine = CudaEngine()
    pixels = random_pixels((5000, 2100, 3), "uint8")
    assert pixels.nbytes > 2 * slots.DEPTH * slots.CHUNK_BYTES * 0.9
    resident, _ = engine.time_kernel(pixels, make("blur"), repeats=1)
    done = engine.run(pixels, make("blur"))
    assert np.array_equal(done.pixels, resident)
    told = done.seconds
    assert list(told) == ["upload", "kernel", "download"]
    assert told["upload"] > 0
    assert told["kernel"] > 0
    engine.close()


@pytest.mark.gpu
def test_threads_get_the_bits_of_one() -> None:
    # Two sets of weights for one specialisation, and sizes that make buffers grow meanwhile.
    engine = CudaEngine(slots=3)
    filters = [make("blur", sigma=s, radius=6) for s in (1, 2)] + [make("sobel")]
    cases = [
        (
            random_pixels((100 + 37 * i % 900, 200 + 53 * i % 700, 3), "uint8", seed=i),
            filters[i % 3],
        )
        for i in range(48)
    ]
    expected = [engine.run(pixels, filter).pixels for pixels, filter in cases]
    fresh = CudaEngine(slots=3)
    for each in (engine, fresh):
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda case: each.run(*case).pixels, cases))  # noqa: B023
        assert all(map(np.array_equal, got, expected))
        each.close()


@pytest.mark.gpu
def test_a_full_gpu_is_told_and_does_no_harm() -> None:
    engine = CudaEngine(slots=2)
    pixels = random_pixels((50, 60, 3), "uint8")
    expected = engine.run(pixels, make("blur")).pixels
    with pytest.raises(EngineError, match="out of GPU memory"):
        engine.time_copy(1 << 46, repeats=1)
    assert np.array_equal(engine.run(pixels, make("blur")).pixels, expected)
    engine.close()
