"""A filter in an area only, or in linear light: on every engine, by --check, and from files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil

import cudafilter
from agreement import needs_double, random_pixels, runs
from command_line import cli
from cudafilter import images
from cudafilter.check import compare, compare_rows
from cudafilter.engines import Engine, Result, ranks
from cudafilter.engines import cpu as cpu_engine
from cudafilter.engines import within as engines_within
from cudafilter.engines.cpu import CpuEngine
from cudafilter.engines.within import Parts, Within, filtered_within
from cudafilter.errors import ImageError, ParameterError
from cudafilter.formats import tiff_segments
from cudafilter.formats.metadata import Metadata
from cudafilter.images import Image
from cudafilter.jobs import banded, sizing
from cudafilter.jobs import within as jobs_within
from cudafilter.operations import blend as blending
from cudafilter.operations import reference
from cudafilter.operations.area import Area
from cudafilter.operations.borders import Border
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.light import SRGB, Light
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation, whole_of
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.region import Region
from cudafilter.proof.ends import wrong_blend, wrong_samples
from image_files import EXIF, ICC, encode, save
from test_host import HostEngine

REQUIRED = {"kernel": {"weights": "1,2,1;2,4,2;1,2,1"}}
FILTERS: dict[str, Operation] = {
    **{name: make(name, **REQUIRED.get(name, {})) for name in CATALOGUE},
    "chain": Chain((Link(make("median")), Link(make("blur"), Border("wrap")), Link(make("sobel")))),
}
WIDTH, HEIGHT = 61, 83


def within(
    *regions: str,
    pixels: Pixels,
    alpha: bool = False,
    feather: int = 0,
    linear: bool = False,
) -> Within:
    height, width, channels = pixels.shape
    area = Area(None, tuple(map(Region.parsed, regions)), feather).within(width, height)
    light = Light((SRGB,) * (channels - alpha), pixels.dtype, alpha) if linear else None
    return Within(alpha, area if regions else None, light)


def parts_of(
    engine: Engine, pixels: Pixels, filter: Operation, how: Within, border: Border = Border()
) -> Parts:
    before = pixels.copy()
    parts = filtered_within(engine, pixels, filter, border, how)
    assert before.tobytes() == pixels.tobytes()
    return parts


def skip_unless_run(engine: Engine, filter: Operation, dtype: str, alpha: bool = False) -> None:
    if not runs(engine, filter) or needs_double(engine, filter, dtype, alpha):
        pytest.skip("this variant refuses this filter")


@pytest.mark.parametrize("name", FILTERS)
class TestEveryFilter:
    def test_outside_are_the_sources_bits_and_inside_those_of_the_whole(
        self, engine: Engine, name: str
    ) -> None:
        filter, pixels = FILTERS[name], random_pixels((HEIGHT, WIDTH, 3), "uint8")
        skip_unless_run(engine, filter, "uint8")
        inside = (slice(30, 50), slice(20, 40))
        parts = parts_of(engine, pixels, filter, within("20,30,20,20", pixels=pixels))
        expected = pixels.copy()
        expected[inside] = engine.run(pixels, filter).pixels[inside]
        np.testing.assert_array_equal(parts.result, expected)

    @pytest.mark.parametrize("linear", [False, True])
    @pytest.mark.parametrize("alpha", [False, True])
    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_every_step_is_what_it_must_be(
        self, cpu: Engine, name: str, dtype: str, alpha: bool, linear: bool
    ) -> None:
        filter, pixels = FILTERS[name], random_pixels((HEIGHT, WIDTH, 3 + alpha), dtype)
        how = within("5,40,30,20", pixels=pixels, alpha=alpha, feather=6, linear=linear)
        parts = parts_of(cpu, pixels, filter, how)
        if len(parts.filtered) == HEIGHT:
            agreement = compare(parts.filtered, parts.source, filter, alpha=alpha)
        else:
            agreement = compare_rows(
                parts.filtered, parts.first, parts.source, filter, Border(), alpha
            )
        assert agreement.ok, agreement
        rows, columns = slice(40, 60), slice(5, 35)
        source = parts.source[rows, columns]
        filtered = parts.filtered[40 - parts.first : 60 - parts.first, columns]
        assert how.area is not None
        mask = how.area.weights(parts.box)
        assert wrong_blend(parts.blended, source, filtered, mask, alpha) is None
        if how.light is not None:
            got = parts.result[rows, columns]
            assert wrong_samples(got, parts.blended, how.light) is None
        outside = np.ones((HEIGHT, WIDTH), bool)
        outside[rows, columns] = False
        np.testing.assert_array_equal(parts.result[outside], pixels[outside])


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap", "constant"])
@pytest.mark.parametrize("region", ["0,0,9,9", "50,70,11,13", "10,0,3,1", "0,40,61,1"])
@pytest.mark.parametrize("name", ["blur", "median", "tophat", "chain", "box"])
def test_only_some_rows_are_filtered_and_have_the_bits_of_the_whole(
    cpu: Engine, name: str, region: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (cpu_engine, ranks):  # bands of few rows, where they would be megabytes
        monkeypatch.setattr(module, "BAND_BYTES", 1 << 10)
    pixels = random_pixels((HEIGHT, WIDTH, 3), "float32")
    border = Border(mode, 0.3 if mode == "constant" else 0.0)
    how = within(region, pixels=pixels)
    whole = cpu.run(pixels, FILTERS[name], border).pixels
    given: list[int] = []
    right = cpu_engine.CpuEngine.run

    def counted(self: CpuEngine, pixels: Pixels, *others: Any, **more: Any) -> Result:
        given.append(len(pixels))
        return right(self, pixels, *others, **more)

    monkeypatch.setattr(cpu_engine.CpuEngine, "run", counted)
    parts = parts_of(cpu, pixels, FILTERS[name], how, border)
    assert max(given) < HEIGHT
    np.testing.assert_array_equal(parts.filtered, whole[parts.box.top : parts.box.bottom])


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
@pytest.mark.parametrize("variant", ["separable", "stream", "network"])
@pytest.mark.parametrize("linear", [False, True])
def test_kernels_give_the_bits_of_the_whole(variant: str, linear: bool, built: Path) -> None:
    """On the CPU; the parameter *engine* of the tests above has the GPU's own."""
    engine = HostEngine(variant, built)
    filter = make("median") if variant == "network" else make("blur", sigma=2)
    for alpha in (False, True):
        pixels = random_pixels((90, 40, 3 + alpha), "uint8")
        how = within("3,50,20,9", pixels=pixels, alpha=alpha, feather=2, linear=linear)
        parts = filtered_within(engine, pixels, filter, Border(), how)
        whole = engine.run(how.begin(pixels), filter, alpha=alpha).pixels
        assert parts.filtered.tobytes() == whole[50:59].tobytes()
        np.testing.assert_array_equal(parts.result[:50], pixels[:50])


def test_what_needs_the_whole_image_gets_it(cpu: Engine) -> None:
    pixels = random_pixels((HEIGHT, WIDTH, 1), "uint8")
    pixels[:40] //= 2
    filter = make("threshold", otsu=True)
    assert whole_of(filter.unrolled(Border()))
    parts = parts_of(cpu, pixels, filter, within("0,60,20,20", pixels=pixels))
    whole = cpu.run(pixels, filter).pixels
    np.testing.assert_array_equal(parts.result[60:80, :20], whole[60:80, :20])


def test_a_blur_of_light_keeps_the_light_of_black_and_white(cpu: Engine) -> None:
    """Half black and half white have the mean light 0.5, which is sample 188 of sRGB."""
    pixels = np.zeros((4, 64, 1), np.uint8)
    pixels[:, ::2] = 255
    filter = make("box", radius=15)
    parts = parts_of(cpu, pixels, filter, within(pixels=pixels, linear=True))
    light = np.array([15, 16]) / 31
    expected = np.rint(255 * (1.055 * light ** (1 / 2.4) - 0.055))
    assert set(parts.result[:, 16:48].ravel().tolist()) == set(expected.tolist())


def test_linear_is_the_reference_between_decoding_and_encoding(cpu: Engine) -> None:
    """By the mathematics, in float64 throughout, no sample is off by more than its rounding."""
    pixels = random_pixels((40, 50, 3), "uint8")
    filter = make("blur", sigma=2.0)
    exact = reference.exact(SRGB(pixels / 255).astype(np.float32), filter)
    samples = np.where(exact <= 0.0031308, 12.92 * exact, 1.055 * exact ** (1 / 2.4) - 0.055) * 255
    got = parts_of(cpu, pixels, filter, within(pixels=pixels, linear=True)).result
    assert np.abs(got - samples).max() <= 0.5 + 1e-3


class TestApi:
    PIXELS = random_pixels((HEIGHT, WIDTH, 3), "uint8")

    def apply(self, **given: Any) -> Pixels:
        return cudafilter.apply(self.PIXELS, "blur", sigma=1.5, engine="cpu", **given)

    def test_a_region_and_a_mask_of_it_are_the_same(self) -> None:
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[10:30, 20:50] = 255
        by_region = self.apply(region="20,10,30,20")
        np.testing.assert_array_equal(by_region, self.apply(mask=mask))
        np.testing.assert_array_equal(by_region[10:30, 20:50], self.apply()[10:30, 20:50])
        np.testing.assert_array_equal(by_region[:10], self.PIXELS[:10])

    def test_several_regions_with_soft_sides(self) -> None:
        got = self.apply(region=["0,0,20,20", "30,30,20,20"], feather=5)
        np.testing.assert_array_equal(got[:10, :10], self.apply()[:10, :10])
        np.testing.assert_array_equal(got[60:], self.PIXELS[60:])

    def test_linear_and_gray(self) -> None:
        flat = self.PIXELS[..., 0]
        got = cudafilter.apply(flat, "blur", engine="cpu", linear=True)
        assert got.shape == flat.shape
        assert not np.array_equal(got, cudafilter.apply(flat, "blur", engine="cpu"))

    def test_what_makes_no_sense_is_an_error(self) -> None:
        with pytest.raises(ParameterError, match="for the sides of regions"):
            self.apply(feather=3)
        with pytest.raises(ImageError, match="the mask has 5x4 pixels, and the picture 61x83"):
            self.apply(mask=np.zeros((4, 5), np.uint8))
        with pytest.raises(ImageError, match="region 70,0,5,5 is outside"):
            self.apply(region="70,0,5,5")


@pytest.fixture
def little(here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The command line by rows, and in one piece: both give the same bytes; what it tells."""
    monkeypatch.delenv(sizing.MEMORY, raising=False)
    monkeypatch.setattr(tiff_segments, "STRIP_SIZE", 1000)

    def both(*words: str) -> str:
        whole = cli(*words, "whole.png")
        assert whole.exit_code == 0, whole.stderr
        monkeypatch.setenv(sizing.MEMORY, "20000")
        flowed = cli(*words, "rows.png")
        monkeypatch.delenv(sizing.MEMORY)
        assert flowed.exit_code == 0, flowed.stderr
        assert "done by rows" in flowed.stderr
        assert "done by rows" not in whole.stderr
        assert Path("rows.png").read_bytes() == Path("whole.png").read_bytes()
        return flowed.stderr

    return both


def mask_file(width: int = 60, height: int = 80) -> None:
    mask = np.linspace(0, 255, width).astype(np.uint8)[None].repeat(height, 0)
    mask[:20] = 0
    Pil.fromarray(mask).save("mask.png")


AREAS = [
    ("--region", "10,30,20,20"), ("--region", "0,0,100%,10%", "--region", "25%,50%,50%,50%"),
    ("--region", "10,30,20,20", "--feather", "7"), ("--mask", "mask.png"),
    ("--mask", "mask.png", "--region", "5,5,50,50", "--feather", "3"),
]  # fmt: skip


@pytest.mark.parametrize("more", [(), ("--linear",), ("--check",), ("--linear", "--check")])
@pytest.mark.parametrize("area", AREAS, ids=" ".join)
class TestFiles:
    @pytest.mark.parametrize("words", [("blur", "--sigma", "3"), ("median",)], ids=" ".join)
    def test_by_rows_they_are_the_same(
        self, little: Callable[..., str], area: tuple[str, ...], more: tuple[str, ...],
        words: tuple[str, ...],
    ) -> None:  # fmt: skip
        save(Image(random_pixels((80, 60, 4), "uint8"), alpha=True), Path("in.png"))
        mask_file()
        told = little(*words, *area, *more, "in.png")
        assert ("agrees with the reference" in told) == ("--check" in more)

    def test_outside_stays_and_inside_is_filtered(
        self, here: Path, area: tuple[str, ...], more: tuple[str, ...]
    ) -> None:
        pixels = random_pixels((80, 60, 3), "uint16")
        save(Image(pixels), Path("in.tif"))
        mask_file()
        done = cli("blur", *area, *more, "in.tif", "out.png")
        assert done.exit_code == 0, done.stderr
        got = images.load(Path("out.png")).pixels
        mask = "--mask" in area
        outside = (slice(0, 20), slice(0, 5)) if mask else (slice(9, 28), slice(0, 10))
        np.testing.assert_array_equal(got[outside], pixels[outside])
        inside = (slice(42, 46), slice(18, 24))  # of each area
        assert not np.array_equal(got[inside], pixels[inside])


@pytest.mark.parametrize("area", AREAS[:1], ids=" ".join)
def test_by_rows_no_row_is_read_twice_and_light_takes_its_memory(
    little: Callable[..., str], area: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(Image(random_pixels((80, 60, 3), "uint8")), Path("in.png"))
    monkeypatch.setattr(banded.Banded, "_reread", lambda *_: pytest.fail("read again"))

    def rows(*more: str) -> int:
        told = re.search(r"by rows, (\d+) at a time", little("blur", *area, *more, "in.png"))
        assert told is not None
        return int(told[1])

    assert rows("--linear", "--check") < rows("--check")


@pytest.fixture
def photo(here: Path) -> Pixels:
    pixels = random_pixels((80, 60, 3), "uint8")
    save(Image(pixels), Path("in.png"))
    mask_file()
    return pixels


def failed(*words: str, code: int) -> str:
    done = cli(*words)
    assert done.exit_code == code, done.stderr
    assert not list(Path().glob("out*"))
    return done.stderr


class TestRefused:
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ("--region 1,2,3", "must be four numbers, not '1,2,3'"),
            ("--region 1,2,3,x", "must be whole pixels or percent, not 'x'"),
            ("--feather 3", "is for the sides of regions (add --region X,Y,W,H)"),
            ("--feather 3 --mask mask.png", "(blur the mask for soft edges)"),
            ("--mask no.png", "no.png: cannot be read: No such file"),
            ("--mask colours.png", "colours.png: it has colours, and a mask is gray"),
            ("--mask cmyk.jpg", "cmyk.jpg: it is CMYK, and a mask is gray"),
            ("--mask two.gif", "two.gif: it holds 2 frames"),
        ],
    )
    def test_before_anything_is_done(self, photo: Pixels, words: str, told: str) -> None:
        Pil.fromarray(photo).save("colours.png")
        Pil.fromarray(photo).convert("CMYK").save("cmyk.jpg")
        frames = [Pil.fromarray(np.full((8, 8), n, np.uint8)) for n in (0, 9)]
        frames[0].save("two.gif", save_all=True, append_images=frames[1:])
        text = failed("blur", *words.split(), "in.png", "out.png", code=2)
        assert told in text.replace("\nhint: ", " (").replace("\n", ")")

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ("--mask small.png", "the mask has 30x20 pixels, and the picture 60x80"),
            ("--region 60,0,5,5", "region 60,0,5,5 is outside: it is 5x5 pixels from 60,0 on"),
            ("--gray --region 0,0,5,5", "--gray would change the picture outside"),
        ],
    )
    @pytest.mark.parametrize("memory", [None, "20000"])
    def test_of_an_image(
        self, photo: Pixels, words: str, told: str, memory: str | None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        Pil.fromarray(np.zeros((20, 30), np.uint8)).save("small.png")
        if memory:
            monkeypatch.setenv(sizing.MEMORY, memory)
        assert told in failed("blur", *words.split(), "in.png", "out.png", code=1)

    def test_a_mask_is_not_overwritten(self, photo: Pixels) -> None:
        before = Path("mask.png").read_bytes()
        done = cli("blur", "--mask", "mask.png", "in.png", "mask.png")
        assert done.exit_code == 2
        assert "mask.png would be overwritten" in done.stderr
        assert Path("mask.png").read_bytes() == before

    def test_cmyk_has_no_light(self, photo: Pixels) -> None:
        Pil.fromarray(photo).convert("CMYK").save("cmyk.jpg")
        assert "CMYK tells ink" in failed("blur", "--linear", "cmyk.jpg", "out.jpg", code=1)


class TestTold:
    def test_what_light_it_is(self, photo: Pixels) -> None:
        assert "its light is that of sRGB" in cli("blur", "--linear", "in.png", "out.png").stderr
        Pil.fromarray(photo).save("tagged.png", icc_profile=ICC)
        assert "sRGB" not in cli("blur", "--linear", "tagged.png", "out.png").stderr
        save(Image(photo.astype(np.float32) / 255), Path("float.tif"))
        told = cli("blur", "--linear", "float.tif", "light.tif")
        assert "float samples are linear light already" in told.stderr
        assert cli("blur", "float.tif", "plain.tif").exit_code == 0
        assert Path("light.tif").read_bytes() == Path("plain.tif").read_bytes()

    def test_a_turned_picture_and_a_region_that_is_cut(self, photo: Pixels) -> None:
        Path("turned.png").write_bytes(encode(turned(photo), "png"))
        told = cli("blur", "--region", "50,70,20,20", "turned.png", "out.png").stderr
        assert "count pixels as the file holds them, not as it is shown" in told
        assert "region 50,70,20,20 is cut at the edge of the picture, which has 60x80" in told

    def test_a_black_mask_filters_nothing_and_says_so(self, photo: Pixels) -> None:
        Pil.fromarray(np.zeros((80, 60), np.uint8)).save("black.png")
        done = cli("blur", "--mask", "black.png", "--check", "in.png", "out.png")
        assert done.exit_code == 0, done.stderr
        assert "the mask is black there: nothing is filtered" in done.stderr
        np.testing.assert_array_equal(images.load(Path("out.png")).pixels, photo)

    def test_the_report_has_it(self, photo: Pixels) -> None:
        words = ("--mask", "mask.png", "--region", "10%,0,50%,9", "--feather", "2", "--linear")
        assert cli("blur", *words, "in.png", "out.png", "--report", "r.jsonl").exit_code == 0
        line = json.loads(Path("r.jsonl").read_text())
        told = {name: line[name] for name in ("mask", "region", "feather", "linear", "background")}
        assert told == {
            "mask": "mask.png", "region": ["10%,0,50%,9"], "feather": 2, "linear": True,
            "background": None,
        }  # fmt: skip


def turned(pixels: Pixels) -> Image:
    return Image(pixels, metadata=Metadata(exif=EXIF))


@pytest.mark.parametrize("check", ["--check", "--check=quick"])
@pytest.mark.parametrize("memory", [None, "20000"])
class TestCheckFinds:
    def test_a_wrong_blend(
        self, photo: Pixels, memory: str | None, check: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def flipped(*given: Any) -> Pixels:
            out = blending.blend(*given)
            if out.shape[0] > 2 and out.any():
                out[2, 1, 0] ^= 1
            return out

        monkeypatch.setattr(engines_within, "blend", flipped)
        if memory:
            monkeypatch.setenv(sizing.MEMORY, memory)
        told = failed("blur", "--mask", "mask.png", check, "in.png", "out.png", code=1)
        assert "DISAGREES with the reference: the blend is wrong at x=" in told

    def test_a_wrong_sample_of_light(
        self, photo: Pixels, memory: str | None, check: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = Light.encoded

        def flipped(self: Light, light: Pixels) -> Pixels:
            out = right(self, light)
            out[-1, 1, 0] ^= 1
            return out

        monkeypatch.setattr(Light, "encoded", flipped)
        if memory:
            monkeypatch.setenv(sizing.MEMORY, memory)
        told = failed("blur", "--linear", check, "in.png", "out.png", code=1)
        assert "the way back from linear light is wrong at x=1" in told


@pytest.mark.parametrize("at", [(0, 0), (79, 59), (20, 0), (20, 59)])
def test_a_check_finds_a_sample_outside_that_changed(
    photo: Pixels, at: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*given: Any) -> Parts:
        parts = filtered_within(*given)
        parts.result[at] ^= 1
        return parts

    monkeypatch.setattr(jobs_within, "filtered_within", changed)
    words = ("blur", "--region", "10,10,20,20", "--check", "in.png", "out.png")
    assert "a sample outside the area changed" in failed(*words, code=1)


def test_frames_each_have_the_area(here: Path) -> None:
    pages = [random_pixels((40, 50, 1), "uint8", seed=n)[..., 0] for n in range(3)]
    frames = [Pil.fromarray(page) for page in pages]
    frames[0].save("in.tif", save_all=True, append_images=frames[1:])
    done = cli("median", "--region", "10,10,20,20", "--check", "in.tif", "out.tif")
    assert done.exit_code == 0, done.stderr
    with Pil.open("out.tif") as file:
        for n, page in enumerate(pages):
            file.seek(n)
            got = np.asarray(file)
            np.testing.assert_array_equal(got[:10], page[:10])
            assert not np.array_equal(got[10:30, 10:30], page[10:30, 10:30])


def test_in_place_another_area_is_another_job(photo: Pixels) -> None:
    Path("broken.png").write_bytes(Path("in.png").read_bytes()[:300])
    first = cli("blur", "--in-place", "--region", "0,0,9,9", "in.png", "broken.png")
    again = cli("blur", "--in-place", "--region", "0,0,9,9", "in.png", "broken.png")
    other = cli("blur", "--in-place", "--region", "0,0,9,8", "in.png", "broken.png")
    assert "1 done, 0 skipped, 1 failed" in first.stderr
    assert "0 done, 1 skipped, 1 failed" in again.stderr
    assert "1 done, 0 skipped, 1 failed" in other.stderr
