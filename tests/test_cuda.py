"""The CUDA engine's own duties: the kernel cache, bands, contexts, errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agreement import ALL_BORDERS, random_pixels
from cudafilter.borders import Border
from cudafilter.catalogue import VARIANTS
from cudafilter.engines import launch, open_engine
from cudafilter.engines.cuda import CudaEngine, cut
from cudafilter.errors import EngineUnavailable, LimitError
from cudafilter.filter import make

LADDER = VARIANTS[1:]


def test_cut_covers_the_image_within_the_budget() -> None:
    filter = make("blur", sigma=1)  # halo of 3 on each side
    for shape in [(100, 80, 3), (1, 5000, 1), (5000, 1, 4)]:
        pixels = np.zeros(shape, np.uint16)
        for budget in (2 * pixels.nbytes, pixels.nbytes, 9000, 1000):
            covered = np.zeros(shape[:2], int)
            for (y0, y1), (x0, x1) in cut(pixels, filter, budget):
                covered[y0:y1, x0:x1] += 1
                block = (y1 - y0 + 6) * (x1 - x0 + 6) + (y1 - y0) * (x1 - x0)
                whole = (y1 - y0, x1 - x0) == shape[:2]
                assert whole or block * shape[2] * 2 <= budget
            assert (covered == 1).all()


def test_cut_names_what_does_not_fit() -> None:
    with pytest.raises(LimitError, match="50 bytes of GPU memory; 40 are free"):
        cut(np.zeros((9, 9, 1), np.uint8), make("blur", sigma=1), 40)


def test_launch_limits() -> None:
    def prepare(filter: object, variant: str) -> launch.Launch:
        return launch.prepare(filter, 1, np.uint8, Border(), False, variant)  # type: ignore[arg-type]

    small = prepare(make("blur"), "vanilla")
    assert small.geometry(33, 9) == (2, 4, (32, 8, 1))
    with pytest.raises(LimitError, match="1,073,741,824"):
        small.geometry(2**30 + 1, 1)
    with pytest.raises(LimitError, match="a grid holds 2,147,483,647"):
        small.geometry(2**30, 2**30)
    fits = make("kernel", weights=np.random.default_rng(0).random((127, 127)))
    assert prepare(fits, "tiled").weights.nbytes == 4 * 127 * 127
    large = make("kernel", weights=np.random.default_rng(0).random((129, 128)))
    assert prepare(large, "auto").variant == "vanilla"
    with pytest.raises(LimitError, match="128x129 kernel needs 66,048"):
        prepare(large, "constant")


def test_specialisations_are_what_launches_ask_for() -> None:
    for variant in LADDER:
        known = [tuple(d.items()) for d in launch.specialisations(variant)]
        assert len(known) == len(set(known)) == 48
    ready = launch.prepare(make("sobel"), 4, np.uint16, Border(), True, "tiled")
    assert tuple(ready.defines.items()) in known


def test_task_layout_is_that_of_the_struct() -> None:
    header = (Path(__file__).parents[1] / "cuda_src" / "pixel.cuh").read_text()
    struct = header[header.index("struct Task {") : header.index("struct Pixel")]
    names = re.findall(r"(\w+)(?:\[2\])?[,;]", re.sub("//.*", "", struct))
    assert names == [name for name, *_ in launch.Task._fields_]
    assert launch.Task.weight_sum.offset == 2 * 8 + 12 * 4 + 5 * 4


@pytest.mark.gpu
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
def test_bands_have_the_same_bits(variant: str, border: Border) -> None:
    whole = CudaEngine(variant=variant)
    for channels, alpha, dtype in [(3, False, "uint8"), (4, True, "float32")]:
        pixels = random_pixels((150, 90, channels), dtype)
        filter = make("blur", sigma=2)
        expected = whole.run(pixels, filter, border, alpha)
        for share in (0.9, 0.3, 0.01):
            banded = CudaEngine(variant=variant, memory_limit=int(2 * pixels.nbytes * share))
            assert len(cut(pixels, filter, banded._memory_limit or 0)) > 1
            assert np.array_equal(banded.run(pixels, filter, border, alpha), expected)
            banded.close()
    whole.close()


@pytest.mark.gpu
def test_a_second_run_starts_no_compiler(tmp_path: Path) -> None:
    script = (
        "import sys, numpy as np, cudafilter\n"
        "def audit(event, args):\n"
        "    if event == 'subprocess.Popen': print('started', args[0])\n"
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
    assert "nvcc" in first
    assert "started" not in second
    assert first.splitlines()[-1] == second.splitlines()[-1]
    kept.write_bytes(kept.read_bytes()[:-9])  # a damaged kernel is compiled anew, not loaded
    assert "nvcc" in run()


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
    assert np.array_equal(result, engine.run(pixels, make("blur")))
    assert len(times) == 4
    assert min(times) > 0
    assert min(engine.time_copy(1 << 20, repeats=4)) > 0
    engine.close()
