"""The ladder: a new kernel is one .cu, one .py and one name, and nothing else is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import GENERAL
from cudafilter.engines.cuda.variants import AUTO, LADDER
from cudafilter.engines.cuda.variants.ladder import prepare, variant
from cudafilter.engines.cuda.variants.task import Launch, Layout
from cudafilter.errors import LimitError
from cudafilter.operations.make import make
from cudafilter.operations.rank import erosion, median
from cudafilter.operations.window import square

ROOT = Path(__file__).parents[1]

TOY_KERNEL = """// Step 11, toy: one thread an output pixel, from the last tap to the first.
#include "pixel.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
filter(const Task task, const float* __restrict__ weights)
{
    const int x = blockIdx.x % task.blocks_x * TILE_WIDTH + threadIdx.x;
    const int y = blockIdx.x / task.blocks_x * TILE_HEIGHT + threadIdx.y;
    if (x >= task.width || y >= task.height) return;
    Pixel sum[KERNELS] = {};
    const int taps = task.kernel_width * task.kernel_height;
    for (int n = taps - 1; n >= 0; --n) {
        const int i = n / task.kernel_width, j = n % task.kernel_width;
        const Pixel pixel = load_pixel(
            task, x + task.x0 + j - task.anchor_x, y + task.y0 + i - task.anchor_y);
        for (int k = 0; k < KERNELS; ++k)
            for (int c = 0; c < CHANNELS; ++c)
                sum[k].v[c] = fmaf(weights[k * taps + n], pixel.v[c], sum[k].v[c]);
    }
    store_pixel(task, x, y, sum);
}
"""

TOY_MODULE = """
from functools import partial

from cudafilter.engines.cuda.variants.task import defines_of, flat, takes, task_of
from cudafilter.engines.cuda.variants.tiles import every_kind, tile_macros
from cudafilter.engines.cuda.variants.vanilla import Vanilla
from cudafilter.errors import LimitError
from cudafilter.operations.correlation import Correlation

hardest = every_kind


@takes(Correlation)
def plan(filter, layout):
    if max(filter.size) > 15:
        return LimitError("the toy kernel has at most 15 taps a side")
    threads, tile = (8, 8, 1), (8, 8)
    macros = defines_of(filter, layout) | tile_macros(threads, tile)
    weights = partial(flat, filter, factored=False)
    return Vanilla("toy", macros, weights, task_of(filter, layout), 1e-3, threads, tile)
"""

TRIED = """
import sys
from pathlib import Path

sys.path[:0] = ["tests", "tools", "docs"]
import kernels
import make_docs
from agreement import ALL_BORDERS, assert_agrees, random_pixels
from click.testing import CliRunner
from cudafilter.engines import bench
from cudafilter.cli import app
from cudafilter.engines.cuda import engine
from cudafilter.operations.make import make
from test_host import HostEngine
import conftest

toy = HostEngine("toy", Path("built"))
for border in ALL_BORDERS:
    assert_agrees(toy, random_pixels((11, 21, 3), "uint8"), make("blur", sigma=1), border)
assert HostEngine("auto", Path("built")).prepared(make("sobel"), 1, "uint8") == "toy"
assert "toy" in conftest.GENERAL
engine.CudaEngine = lambda gpu: None
assert "toy" in [one.variant for one in bench.open_contestants("cuda", "auto", None)[0]]
assert "toy" in {job[0] for job in kernels.work(False)}
assert "| `toy` |" in make_docs.ladder()
assert "toy" in CliRunner().invoke(app, ["blur", "--help"]).output
print("the toy is there")
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
def test_a_new_kernel_is_three_things(tmp_path: Path) -> None:
    for folder in ("cudafilter", "cuda_src", "tests", "tools", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=lambda _, names: {"__pycache__"})
    (tmp_path / "built").mkdir()
    variants = tmp_path / "cudafilter" / "engines" / "cuda" / "variants"
    (tmp_path / "cuda_src" / "toy.cu").write_text(TOY_KERNEL)
    (variants / "toy.py").write_text(TOY_MODULE)
    ladder = (variants / "__init__.py").read_text()
    (variants / "__init__.py").write_text(ladder.replace('"tensor",', '"tensor", "toy",'))
    done = subprocess.run(
        [sys.executable, "-c", TRIED], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout == "the toy is there\n", done.stderr


@pytest.mark.parametrize("name", LADDER)
def test_a_variant_gives_a_launch_or_the_reason_why_not(name: str) -> None:
    given = 0
    correlations = make("blur"), make("sobel"), make("laplacian"), make("box", radius=60)
    others = median(), median(radius=2), erosion(square(2)), *variant(name).hardest()[:1]
    for filter in (*correlations, *others):
        for layout in (Layout(1, "uint8"), Layout(3, "float32"), Layout(4, "float32", alpha=True)):
            planned = variant(name).plan(filter, layout)
            if isinstance(planned, Launch):
                assert planned.variant == name
                assert planned.cost > 0
                assert planned.weights.dtype == "float32"
                given += 1
            else:
                assert name in str(planned) or "constant memory" in str(planned)
                with pytest.raises(
                    LimitError, match=name if name in str(planned) else "constant"
                ) as refused:
                    prepare(filter, *layout[:2], layout.border, layout.alpha, name)
                assert str(refused.value) == str(planned)
    assert given


def test_the_first_step_takes_every_filter_and_auto_never_fails() -> None:
    huge = make("kernel", weights=[[1.0] * 8191, [2.0] * 8191])
    assert isinstance(variant(LADDER[0]).plan(huge, Layout(1, "uint8")), Launch)
    layout = Layout(4, "float32", alpha=True)
    assert prepare(huge, *layout[:2], layout.border, layout.alpha, AUTO).variant in GENERAL
