"""Chains on integers that float32 is too little for are worked on in double, and proven."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from agreement import ALL_BORDERS, random_pixels
from cudafilter.check import compare
from cudafilter.engines import Engine
from cudafilter.engines.cuda.chains import stretch_of
from cudafilter.errors import LimitError
from cudafilter.operations.borders import Border
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation, Stage
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.precision import between
from test_flow import differing, flowed
from test_together import HostChains

needs_gpp = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")

ON_A_GPU = pytest.param("cuda-auto", marks=pytest.mark.gpu)

WEIGHTS = np.random.default_rng(1).normal(size=(5, 7))

LINKS: dict[str, Operation] = {
    "blur": make("blur", sigma=2),
    "box": make("box", radius=3),
    "sobel": make("sobel"),
    "scharr": make("scharr"),
    "laplacian": make("laplacian"),
    "emboss": make("emboss"),
    "unsharp": make("unsharp", amount=10),
    "dense": make("kernel", weights=WEIGHTS),
    "erode": make("erode", radius=2),
    "median": make("median", radius=1),
    "tophat": make("tophat", radius=2),
    "gamma": make("levels", gamma=2.2),
    "levels": make("levels", black=0.1, white=0.6),
    "bilateral": make("bilateral"),
    "denoise": make("denoise", search=5),
}


def chain(names: str) -> Chain:
    """The links *names*."""
    return Chain(tuple(Link(LINKS[name]) for name in names.split()))


DOUBLE = [
    "blur sobel", "unsharp unsharp", "dense median", "unsharp gamma", "levels scharr gamma",
    "sobel tophat", "box erode unsharp emboss", "dense dense", "laplacian sobel levels",
]  # fmt: skip
"""Chains that 16 bits take in double."""


def kind(names: str, dtype: str, alpha: bool = False) -> str:
    """The type between the links."""
    return between(chain(names).unrolled(Border()), np.dtype(dtype), alpha).name


def bright(dtype: str, channels: int) -> Pixels:
    """Noise that is bright above, dark below, and transparent in a corner."""
    pixels = random_pixels((31, 37, channels), dtype)
    full = np.iinfo(dtype).max
    pixels[:20] = full - pixels[:20] // 8
    pixels[25:] //= full // 16
    if channels == 4:
        pixels[:9, :11, 3] = 0
    return pixels


@pytest.mark.parametrize("names", DOUBLE)
def test_the_rule_knows_the_chain_and_the_type_only(names: str) -> None:
    assert kind(names, "uint16") == "float64"


@pytest.mark.parametrize("names", ["blur box", "blur gamma", "box levels", "median blur"])
def test_what_float32_can_tell_stays_in_it(names: str) -> None:
    assert {kind(names, dtype) for dtype in ("uint8", "uint16")} == {"float32"}


def test_eight_bits_need_it_rarely() -> None:
    assert kind("unsharp sobel", "uint8") == "float32"
    assert kind("unsharp gamma", "uint8") == "float32"  # though a gamma is steep at black
    assert kind("unsharp unsharp unsharp", "uint8") == "float64"


@pytest.mark.parametrize("name", ["bilateral", "denoise"])
def test_no_engine_has_means_of_what_is_alike_in_double(name: str) -> None:
    assert kind(f"{name} unsharp", "uint16") == "float32"


@pytest.mark.parametrize("engine", ["cpu", ON_A_GPU], indirect=True)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    "name", sorted({*CATALOGUE} - {"kernel", "canny"})
)  # canny only begins one
def test_each_filter_goes_into_a_chain(engine: Engine, name: str, dtype: str) -> None:
    filter = Chain((Link(LINKS["unsharp"]), Link(make(name)), Link(LINKS["sobel"])))
    for channels, alpha in ((1, False), (4, True)):
        source = bright(dtype, channels)
        result = engine.run(source, filter, Border(), alpha).pixels
        found = compare(result, source, filter, Border(), alpha)
        unsure = name in ("bilateral", "denoise")  # no engine has these in double
        assert found.verdict == "proven" or (unsure and found.ok), str(found)


@pytest.mark.parametrize("engine", ["cpu", ON_A_GPU], indirect=True)
@pytest.mark.parametrize("above", [0, 1])
def test_a_threshold_in_double_is_no_float32(engine: Engine, above: int) -> None:
    # 0.2 of white, and a threshold that float32 has for the same number.
    source = np.full((20, 20, 1), 13107, np.uint16)
    cut = make("threshold", at=0.2 + (2e-9 if above else -2e-9))
    sharp = make("unsharp", amount=10)
    filter = Chain(tuple(map(Link, (make("blur", sigma=1), cut, sharp, sharp))))
    assert between(filter.unrolled(Border()), np.dtype(np.uint16), False) == np.float64
    found = compare(engine.run(source, filter, Border()).pixels, source, filter, Border())
    assert found.verdict == "proven", str(found)
    assert engine.run(source, filter, Border()).pixels[0, 0, 0] == (0 if above else 65535)


def assert_proven(engine: Engine, names: str, dtype: str, border: Border) -> None:
    """All samples of right results are proven, and one that is off is refused."""
    for channels, alpha in ((1, False), (3, False), (4, True)):
        source, filter = bright(dtype, channels), chain(names)
        result = engine.run(source, filter, border, alpha).pixels
        found = compare(result, source, filter, border, alpha)
        assert (found.verdict, found.samples) == ("proven", source.size), (channels, str(found))
        result[20, 19, 0] ^= 2 if dtype == "uint8" else 1  # of 8 bits float32 may miss a tie
        assert not compare(result, source, filter, border, alpha).ok


@pytest.mark.parametrize("engine", ["cpu", ON_A_GPU], indirect=True)
@pytest.mark.parametrize(
    ("names", "dtype"),
    [
        *((names, "uint16") for names in (*DOUBLE, "blur gamma")),
        *(
            (names, "uint8")
            for names in (*DOUBLE, "unsharp unsharp unsharp")
            if "gamma" not in names
        ),
    ],
)
def test_every_sample_is_proven(engine: Engine, names: str, dtype: str) -> None:
    for border in ALL_BORDERS:
        assert_proven(engine, names, dtype, border)


@needs_gpp
@pytest.mark.parametrize("names", DOUBLE)
def test_every_sample_is_proven_of_the_kernels(built: Path, names: str) -> None:
    for border in ALL_BORDERS:
        assert_proven(HostChains("auto", built), names, "uint16", border)


@needs_gpp
@pytest.mark.parametrize("alpha", [False, True])
def test_bands_of_it_have_the_same_bits(built: Path, cpu: Engine, alpha: bool) -> None:
    pixels, filter = bright("uint16", 4), chain("blur erode unsharp")
    for border in ALL_BORDERS:
        expected = cpu.run(pixels, filter, border, alpha).pixels
        assert not differing(flowed(cpu, pixels, filter, border, alpha), expected), border
        whole = HostChains("auto", built).run(pixels, filter, border, alpha).pixels
        cut = HostChains("auto", built, cut=5).run(pixels, filter, border, alpha).pixels
        assert not differing(cut, whole), border


@needs_gpp
@pytest.mark.parametrize("border", ["edge", "wrap"])
def test_rows_that_flow_past_the_kernels_have_the_same_bits(built: Path, border: str) -> None:
    engine, pixels = HostChains("auto", built), bright("uint16", 1)
    for names in ("blur sobel", "box unsharp tophat"):
        whole = engine.run(pixels, chain(names), Border(border)).pixels
        assert not differing(flowed(engine, pixels, chain(names), Border(border)), whole)
    stages = chain("blur").unrolled(Border())
    launches = stretch_of([s for s in stages if isinstance(s, Stage)], 3, "float64", False, "auto")
    assert [each.variant for each in launches.launches] == ["double", "double"]


def variants(names: str, variant: str = "auto", border: Border = Border()) -> list[str]:
    """The variants of all launches."""
    stages = [each for each in chain(names).unrolled(border) if isinstance(each, Stage)]
    launches = stretch_of(stages, 3, "uint16", False, variant).launches
    return [each.variant for each in launches]


def test_kernels_with_factors_go_down_and_across() -> None:
    assert variants("blur sobel") == ["point", "double", "double", "double", "point"]
    outside = Border("constant", 0.5)
    assert variants("blur sobel", border=outside) == ["point", "double", "double", "point"]
    assert variants("erode unsharp emboss median")[1:5] == ["rank", "double", "double", "rank"]


def test_other_variants_refuse_it_in_words() -> None:
    assert variants("blur sobel", "double") == variants("blur sobel")
    with pytest.raises(LimitError, match="the tiled kernel works in float32, which is too little"):
        variants("blur sobel", "tiled")
