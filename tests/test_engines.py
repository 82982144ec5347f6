"""Every engine and variant equals the reference: borders x types x channels x shapes x filters."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from agreement import ALL_BORDERS, LAYOUTS, assert_agrees, random_pixels, runs
from cudafilter.engines import Engine
from cudafilter.engines.cuda.variants import tensor
from cudafilter.errors import LimitError, ParameterError
from cudafilter.operations.borders import Border
from cudafilter.operations.choices import BORDERS
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.make import make
from cudafilter.operations.pixels import DTYPES, Pixels

SHAPES = [(1, 1), (1, 17), (19, 1), (2, 3), (33, 65), (70, 131)]

_RANDOM = np.random.default_rng(1)

FILTERS = {
    "blur": make("blur", sigma=1.3),
    "blur wider than the image": make("blur", sigma=9),
    "blur radius 0": make("blur", radius=0),
    "box": make("box", radius=3),
    "box wider than the image": make("box", radius=20),
    "sharpen": make("sharpen", amount=0.7),
    "unsharp": make("unsharp", sigma=1, amount=2, threshold=0.02),
    "sobel": make("sobel"),
    "scharr scaled": make("scharr", scale=0.07),
    "prewitt": make("prewitt"),
    "laplacian": make("laplacian", scale=1.5),
    "emboss": make("emboss"),
    "motion": make("motion", length=7.5, angle=25),
    "upright motion": make("motion", length=11, angle=90),
    "disk": make("disk", radius=2.7),
    "disk wider than the image": make("disk", radius=11),
    "highpass": make("highpass", sigma=1.5, scale=2),
    "dog": make("dog", sigma=1),
    "log": make("log", sigma=1.2, scale=3),
    "log wider than the image": make("log", sigma=5),
    "gabor": make("gabor", sigma=1.5, wavelength=4, angle=35, phase=60, scale=2),
    "level gabor": make("gabor", sigma=2, aspect=1, bias=0.1),
    "one weight": make("kernel", weights=[[0.5]], bias=0.1),
    "even sides": make("kernel", weights=[[1, 2, 3, 4], [5, 6, 7, 9]], normalize=True),
    "even sides flipped": make(
        "kernel", weights=[[1, 2, 3, 4], [5, 6, 7, 9]], normalize=True, flip=True
    ),
    "row": make("kernel", weights=[[-1, 2, 5, -1, 0.5]]),
    "column": make("kernel", weights=[[1], [-2], [3]], bias=0.25),
    "zero": make("kernel", weights=[[0, 0], [0, 0]]),
    "dense 7x5": make("kernel", weights=_RANDOM.standard_normal((7, 5))),
    "dense 19x21": make("kernel", weights=_RANDOM.random((19, 21)), normalize=True),
    "two sizes": Correlation(
        "two sizes",
        (Kernel(_RANDOM.random((3, 5)), (0, 4)), Kernel(_RANDOM.random((4, 1)), (3, 0))),
        combine="magnitude", gain=0.1, source_gain=0.2, bias=-0.01,
    ),
}  # fmt: skip


@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize(("channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_the_reference(
    engine: Engine, dtype: str, channels: int, alpha: bool, border: Border
) -> None:
    # The largest has several tiles of a kernel. To the CPU it is as the one before it.
    for shape in SHAPES[: -1 if engine.name == "cpu" and border.mode != "reflect" else None]:
        pixels = random_pixels((*shape, channels), dtype)
        for filter in FILTERS.values():
            if runs(engine, filter):
                assert_agrees(engine, pixels, filter, border, alpha)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_kernels(engine: Engine, dtype: str) -> None:
    pixels = random_pixels((90, 150, 1), dtype)
    for filter in (make("blur", sigma=10), make("blur", sigma=20)):
        if runs(engine, filter):
            assert_agrees(engine, pixels, filter)
    weights = np.random.default_rng(2).random((127, 127))
    dense = make("kernel", weights=weights, normalize=True)
    if runs(engine, dense):
        assert_agrees(engine, pixels, dense, Border("reflect"))


@pytest.mark.parametrize(("height", "width"), [(70_001, 3), (3, 70_001)])
def test_long_sides(engine: Engine, height: int, width: int) -> None:
    assert_agrees(engine, random_pixels((height, width, 1), "uint8"), make("blur", sigma=1))


@pytest.mark.gpu
@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_box(dtype: str, channels: int, border: Border) -> None:
    from cudafilter.engines.cuda.engine import CudaEngine

    engine = CudaEngine(variant="box")
    for shape in [*SHAPES, (5, 4500), (300, 40), (131, 1100)]:
        pixels = random_pixels((*shape, channels), dtype)
        for radius in (0, 1, 7, 50, 127):
            assert_agrees(engine, pixels, make("box", radius=radius), border)
        even = make("kernel", weights=np.full((4, 6), 2.5), normalize=True, bias=0.1)
        assert_agrees(engine, pixels, even, border)
    engine.close()


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_boxes_taller_than_a_block(dtype: str, channels: int) -> None:
    from cudafilter.engines.cuda.engine import CudaEngine

    engine = CudaEngine()
    for shape, radius in [((700, 300), 60), ((2000, 500), 120)]:
        pixels = random_pixels((*shape, channels), dtype)
        filter = make("box", radius=radius)
        assert engine.prepare(pixels, filter).variant == "box"
        assert_agrees(engine, pixels, filter)
    engine.close()


PRODUCTS = {
    **{f"{2 * r + 1} taps": make("blur", sigma=r / 3, radius=r) for r in (3, 8, 9, 15, 22, 30, 40)},
    "box": make("box", radius=3),
    "row": make("kernel", weights=_RANDOM.random((1, 20)) - 0.3, bias=0.3),
    "off its centre": Correlation(
        "off its centre",
        (Kernel(np.outer(_RANDOM.random(31), _RANDOM.random(3)), (30, 0)),),
        gain=0.04,
    ),
    "tall": make("kernel", weights=np.outer(_RANDOM.random(97), _RANDOM.random(2)), normalize=True),
    "even, bright": Correlation("bright", (Kernel(np.ones((4, 18))),), gain=1 / 20, bias=-0.5),
    "differences": make("kernel", weights=np.outer(np.arange(-5, 6), np.hanning(21)), bias=0.5),
}


@pytest.mark.gpu
@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str, channels: int, border: Border) -> None:
    from cudafilter.engines.cuda.engine import CudaEngine

    filter = PRODUCTS[name]
    if max(filter.size) > 16 * max(tensor.PLANS[channels]) - 15:
        pytest.skip("too many taps for so many channels")
    engine = CudaEngine(variant="tensor")
    for shape in [*SHAPES, (5, 4500), (300, 40), (531, 1100)]:
        assert_agrees(engine, random_pixels((*shape, channels), "uint8"), filter, border)
    for level in (0, 1, 254, 255):
        flat = np.full((60, 90, channels), level, np.uint8)
        assert_agrees(engine, flat, filter, border)
    engine.close()


@pytest.mark.gpu
@pytest.mark.parametrize("border", ALL_BORDERS, ids=lambda border: border.mode)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_sums_of_few_products(dtype: str, channels: int, border: Border) -> None:
    from cudafilter.engines.cuda.engine import CudaEngine

    engine = CudaEngine()
    rng = np.random.default_rng(0)
    filter = make("kernel", weights=rng.random((31, 2)) @ rng.random((2, 31)), normalize=True)
    for shape in [*SHAPES, (1300, 70)]:
        pixels = random_pixels((*shape, channels), dtype)
        assert engine.prepare(pixels, filter, border, channels == 4).variant == "wide"
        assert_agrees(engine, pixels, filter, border, channels == 4)
    engine.close()


def test_real_gradients_and_plateaus(engine: Engine) -> None:
    ramp = np.linspace(0, 255, 300).astype(np.uint8)
    pixels = np.ascontiguousarray(np.broadcast_to(ramp, (200, 300)))[..., None]
    for filter in FILTERS.values():
        if runs(engine, filter):
            assert_agrees(engine, pixels, filter)


def test_same_input_same_bits(engine: Engine) -> None:
    pixels = random_pixels((211, 307, 3), "float32")
    first = engine.run(pixels, make("blur", sigma=3)).pixels
    for _ in range(5):
        assert np.array_equal(first, engine.run(pixels, make("blur", sigma=3)).pixels)


def test_threads_share_an_engine(engine: Engine) -> None:
    images = [random_pixels((50 + i, 60, 3), "uint8", seed=i) for i in range(8)]
    filters = [make("blur", sigma=1 + i / 4) for i in range(8)]
    results: list[Pixels | None] = [None] * 8

    def work(i: int) -> None:
        results[i] = engine.run(images[i], filters[i]).pixels

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for image, filter, result in zip(images, filters, results, strict=True):
        assert result is not None
        assert np.array_equal(result, engine.run(image, filter).pixels)


def test_transparent_pixels_do_not_bleed(engine: Engine) -> None:
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[10:30, 10:30] = (200, 120, 40, 255)  # all else is transparent black
    for name in ("blur", "box"):
        out = engine.run(pixels, make(name), alpha=True).pixels
        visible = out[..., 3] > 0
        assert visible.sum() > 20 * 20
        assert (np.abs(out[visible][:, :3].astype(int) - (200, 120, 40)) <= 1).all(), name
    for name in ("sharpen", "unsharp"):
        if runs(engine, make(name)):
            out = engine.run(pixels, make(name), alpha=True).pixels
            assert np.array_equal(out[10:30, 10:30], pixels[10:30, 10:30]), name
            assert np.array_equal(out[..., 3], pixels[..., 3]), name


def test_flat_alpha_equals_no_alpha(engine: Engine) -> None:
    colour = random_pixels((31, 29, 3), "uint8")
    opaque = np.dstack([colour, np.full((31, 29), 255, np.uint8)])
    for filter in FILTERS.values():
        if runs(engine, filter) and filter.bias == 0:
            plain = engine.run(colour, filter, Border("reflect")).pixels.astype(int)
            out = engine.run(opaque, filter, Border("reflect"), alpha=True).pixels
            # `filter` divides by the filtered alpha, which undoes a gain; compare unit gains.
            if filter.alpha == "keep" or abs(filter.kernels[0].sum * filter.gain - 1) < 1e-9:
                assert np.abs(out[..., :3] - plain).max() <= 1, filter.name


@pytest.mark.parametrize(
    ("pixels", "alpha"),
    [
        (np.zeros((4, 4), np.uint8), False),
        (np.zeros((4, 4, 5), np.uint8), False),
        (np.zeros((0, 4, 1), np.uint8), False),
        (np.zeros((4, 4, 1), np.int32), False),
        (np.zeros((4, 4, 1), ">u2"), False),
        (np.zeros((4, 4, 3), np.uint8), True),
    ],
)
def test_pixels_outside_the_contract_are_refused(
    engine: Engine, pixels: Pixels, alpha: bool
) -> None:
    with pytest.raises(ParameterError):
        engine.run(pixels, make("blur"), alpha=alpha)


def test_strided_pixels(engine: Engine) -> None:
    wide = random_pixels((60, 80, 4), "uint8")
    assert np.array_equal(
        engine.run(wide[::2, ::-3, :3], make("blur")).pixels,
        engine.run(np.ascontiguousarray(wide[::2, ::-3, :3]), make("blur")).pixels,
    )


def test_every_border_is_tested() -> None:
    assert [border.mode for border in ALL_BORDERS] == list(BORDERS)


@pytest.mark.gpu
def test_a_variant_that_cannot_says_why() -> None:
    from cudafilter.engines.cuda.engine import CudaEngine

    engine = CudaEngine(variant="separable")
    with pytest.raises(LimitError, match="rank 1"):
        engine.run(random_pixels((9, 9, 1), "uint8"), make("laplacian"))
    engine.close()
    weights = np.random.default_rng(3).random((129, 129))
    filter = make("kernel", weights=weights, normalize=True)
    pixels = random_pixels((40, 40, 1), "uint8")
    for variant in ("constant", "tiled"):
        engine = CudaEngine(variant=variant)
        with pytest.raises(LimitError, match="65,536 bytes"):
            engine.run(pixels, filter)
        engine.close()
    for variant in ("vanilla", "auto"):
        engine = CudaEngine(variant=variant)
        assert_agrees(engine, pixels, filter)
        engine.close()


@pytest.mark.parametrize(
    ("name", "other"),
    [("cpu", "cudafilter.engines.cuda.engine"), ("cuda", "cudafilter.engines.cpu")],
)
def test_what_an_engine_needs_is_imported_before_it_is_opened(name: str, other: str) -> None:
    code = f"""
import sys
from cudafilter.engines import open as engines
engines.preload({name!r})
assert {other!r} not in sys.modules
before = set(sys.modules)
try:
    engines.open_engine({name!r})
except engines.EngineUnavailable:
    pass
print(*(m for m in set(sys.modules) - before if m.startswith(("cudafilter", "cv2"))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
