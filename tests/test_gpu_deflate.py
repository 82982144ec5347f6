"""PNG's rows compressed on the device: cuda_src/deflate.cu, compiled for the CPU and on a GPU."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image as PillowImage

from cudafilter import images
from cudafilter.engines import Engine
from cudafilter.engines.cuda import deflate
from cudafilter.engines.cuda import png as gpu_png
from cudafilter.engines.cuda.deflate import BAND, LOST, PART
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.engines.fleet import Fleet
from cudafilter.engines.mended import Mended
from cudafilter.errors import EngineError
from cudafilter.formats import png_filters
from cudafilter.formats.png_path import Deflated
from cudafilter.jobs.plan import make_plan
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Pieces
from fake_cuda import FakeCuda, Fault, MemoryError
from fake_nvjpeg import fake
from many_images import BLUR, run
from png_engines import compiled, engine
from stand_in_gpus import StandIn

__all__ = ["compiled", "engine", "fake"]

CHOSEN = 6
"""A level at which the host chooses a row filter as the device does."""


def noise(shape: tuple[int, ...], dtype: str) -> Pixels:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def flat(shape: tuple[int, ...], dtype: str) -> Pixels:
    return np.full(shape, 77, dtype)


def gradient(shape: tuple[int, ...], dtype: str) -> Pixels:
    y, x, c = np.indices(shape)
    sloping: Pixels = (x * 3 + y * 2 + c * 40).astype(dtype)
    return sloping


def photo(shape: tuple[int, ...], dtype: str) -> Pixels:
    """Grain over what is smooth, and an outline."""
    y, x, c = np.indices(shape)
    full = np.iinfo(dtype).max
    scene = 90 + 60 * np.sin(x / 31 + c) * np.cos(y / 23) + 40 * (x > y)
    scene += np.random.default_rng(2).standard_normal(shape) * 2
    taken: Pixels = np.clip(scene * (full / 255), 0, full).astype(dtype)
    return taken


def drawing(shape: tuple[int, ...], dtype: str) -> Pixels:
    """Flat areas with edges, some lines."""
    y, x, c = np.indices(shape)
    areas = np.where((x // 40 + y // 30) % 3 == 0, 200, 30) + 9 * c
    return np.where((x + 2 * y) % 61 == 0, 255, areas).astype(dtype)


PICTURES = [noise, flat, gradient, photo, drawing]

SHAPES = [(1, 1), (1, 300), (300, 1), (37, 41), (3, PART // 2)]
"""The last one's rows are longer than a part."""


def stream_of(engine: CudaEngine, pixels: Pixels) -> bytes:
    assert engine.png is not None
    done = engine.png.deflate(pixels)
    assert done.pieces is not None
    assert done.notes == ()
    return b"".join(map(bytes, done.pieces))


def rows_of(pixels: Pixels) -> bytes:
    """The stream's bytes before compression."""
    return png_filters.filtered(pixels, 0, len(pixels), CHOSEN).tobytes()


def png_of(engine: Engine, pixels: Pixels, level: int | None = None) -> bytes:
    file = Pieces()
    alpha = pixels.shape[2] in (2, 4)
    output = images.Output("png", file, compress_level=level, png=lambda: engine.png)
    output.add(images.Image(pixels, alpha))
    output.close()
    return bytes(file.joined())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("make", PICTURES)
def test_it_holds_the_rows_as_the_host_filters_them(
    make: Callable[..., Pixels], dtype: str, shape: tuple[int, int], engine: CudaEngine
) -> None:
    for channels in (1, 2, 3, 4):
        pixels = make((*shape, channels), dtype)
        assert zlib.decompress(stream_of(engine, pixels)) == rows_of(pixels), channels


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("make", PICTURES)
def test_all_readers_read_the_file(
    make: Callable[..., Pixels], dtype: str, engine: CudaEngine
) -> None:
    for channels in (1, 2, 3, 4):
        pixels = make((80, 90, channels), dtype)
        data = png_of(engine, pixels)
        ours = images.load(data).pixels
        theirs = np.asarray(imagecodecs.png_decode(data)).reshape(pixels.shape)
        assert np.array_equal(ours, pixels)
        assert np.array_equal(theirs, pixels)
        if channels != 2:  # OpenCV makes BGRA of gray with alpha
            read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            assert read is not None
            read = read.reshape(pixels.shape)
            order = [[0], [], [2, 1, 0], [2, 1, 0, 3]][channels - 1]
            assert np.array_equal(read[..., order], pixels)
        with PillowImage.open(io.BytesIO(data)) as picture:
            if dtype == "uint8":
                shown = np.asarray(picture).reshape(pixels.shape)
                assert np.array_equal(shown, pixels)
            else:
                picture.load()


def test_noise_takes_little_more_than_its_bytes(engine: CudaEngine) -> None:
    pixels = noise((200, 400, 3), "uint8")
    raw, parts = len(rows_of(pixels)), -(-len(rows_of(pixels)) // PART)
    assert len(stream_of(engine, pixels)) == 2 + raw + 5 * parts + 4


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_photographs_are_no_larger_than_the_hosts(dtype: str, engine: CudaEngine) -> None:
    for channels in (1, 3, 4):
        pixels = photo((300, 400, channels), dtype)
        host = images.encode(images.Image(pixels, channels == 4), "png")
        assert len(png_of(engine, pixels)) < len(host)


def ramp() -> Pixels:
    """Each pixel is as far from the one before as that one is; in each row by other steps."""
    y, x, c = np.indices((100, 200, 3))
    sloping: Pixels = (x * (c + 1 + y * 7 % 23) + y * 100).astype(np.uint8)
    return sloping


def shifted() -> Pixels:
    """Rows of the same noise, that jump: the differences within each are those of the one above."""
    within = np.random.default_rng(4).integers(-3, 4, (1, 200, 3)).cumsum(axis=1)
    jumping: Pixels = (within + 100 * np.arange(100)[:, None, None]).astype(np.uint8)
    return jumping


@pytest.mark.parametrize("make", [lambda: flat((100, 200, 3), "uint8"), ramp, shifted])
def test_repeats_of_the_byte_pixel_and_row_before_take_few_bits(
    make: Callable[[], Pixels], engine: CudaEngine
) -> None:
    pixels = make()
    assert len(stream_of(engine, pixels)) < pixels.nbytes / 25


def fibonacci() -> Pixels:
    """Bytes so unequally often that their best code has more than 15 bits."""
    often = [1, 1]
    while sum(often) < PART // 2:
        often.append(often[-1] + often[-2])
    row = np.repeat(np.arange(len(often), dtype=np.uint8) * 3, often)
    return np.random.default_rng(3).permutation(row).reshape(1, -1, 1)


def test_codes_are_no_longer_than_deflate_allows(engine: CudaEngine) -> None:
    pixels = fibonacci()
    stream = stream_of(engine, pixels)
    assert zlib.decompress(stream) == rows_of(pixels)
    assert len(stream) < 0.5 * pixels.size


def test_bands_make_one_stream(engine: CudaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = photo((120, 200, 3), "uint8")
    monkeypatch.setattr(deflate, "BAND", 7 * 600)
    assert zlib.decompress(stream_of(engine, pixels)) == rows_of(pixels)
    assert images.load(png_of(engine, pixels)).pixels.tolist() == pixels.tolist()


def test_a_run_writes_what_it_makes(here: Path, compiled: CudaEngine) -> None:
    """Of one picture, and not of the frames of an animation."""
    pixels = photo((60, 70, 3), "uint8")
    PillowImage.fromarray(pixels).save("one.png")
    frames = [PillowImage.fromarray(np.roll(pixels, step, 1)) for step in (0, 9)]
    frames[0].save("two.png", save_all=True, append_images=frames[1:])
    asked: list[tuple[int, ...]] = []

    class Told(gpu_png.GpuPng):
        def deflate(self, pixels: Pixels) -> Deflated:
            asked.append(pixels.shape)
            return super().deflate(pixels)

    compiled.png = Told(compiled._device, "auto")
    jobs = make_plan(["one.png", "two.png"], "out").jobs
    records = run(jobs, compiled)
    assert [record.status for record in records.values()] == ["done", "done"]
    assert [record.notes for record in records.values()] == [(), ()]
    assert asked == [(60, 70, 3)]
    filtered = compiled.run(pixels, BLUR).pixels
    assert np.array_equal(images.load(Path("out/one.png")).pixels, filtered)
    assert Path("out/one.png").read_bytes() == png_of(compiled, filtered)


class TestOtherEngines:
    def test_a_fleet_gives_it_to_a_member_that_can(self, compiled: CudaEngine) -> None:
        pixels = photo((60, 70, 3), "uint8")
        fleet = Fleet([StandIn(), compiled])
        assert png_of(fleet, pixels) == png_of(compiled, pixels)
        assert Fleet([StandIn()]).png is None

    def test_one_that_is_mended_leaves_it_to_the_host(
        self, compiled: CudaEngine, fake: FakeCuda
    ) -> None:
        pixels = photo((60, 70, 3), "uint8")
        host = images.encode(images.Image(pixels), "png")
        mended = Mended(compiled, StandIn)
        assert png_of(mended, pixels) == png_of(compiled, pixels) != host
        fake.faults.append(Fault("launch", lasting=True))
        file = Pieces()
        output = images.Output("png", file, png=lambda: mended.png)
        output.add(images.Image(pixels))
        (note,) = output.close()
        assert "failed" in note
        assert bytes(file.joined()) == host


def test_its_bytes_are_the_same_again(engine: CudaEngine) -> None:
    pixels = photo((120, 200, 3), "uint8")
    assert stream_of(engine, pixels) == stream_of(engine, pixels)


DIGESTS = {
    noise: "0d0b808b3efac22b",
    flat: "c9d644376c43b7e2",
    gradient: "d937c2059601b9ca",
    drawing: "d5800b6ebce4308d",
}
"""Of the bytes that pictures of whole numbers become, wherever."""


@pytest.mark.parametrize("make", DIGESTS)
def test_its_bytes_are_those_of_any_engine(make: Callable[..., Pixels], engine: CudaEngine) -> None:
    made = stream_of(engine, make((200, 300, 3), "uint8"))
    assert hashlib.sha256(made).hexdigest()[:16] == DIGESTS[make]


class TestWhatTheHostDoes:
    def test_small_pictures(self, compiled: CudaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        pixels = photo((60, 70, 3), "uint8")
        monkeypatch.setattr(deflate, "LEAST", pixels.nbytes)
        assert png_of(compiled, pixels) != images.encode(images.Image(pixels), "png")
        monkeypatch.setattr(deflate, "LEAST", pixels.nbytes + 1)
        assert png_of(compiled, pixels) == images.encode(images.Image(pixels), "png")

    def test_pictures_with_repeats(
        self, compiled: CudaEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(deflate, "LOST", LOST)
        assert compiled.png is not None
        tile = noise((40, 50, 3), "uint8")
        once, again = photo((200, 300, 3), "uint8"), np.tile(tile, (5, 6, 1))
        assert compiled.png.deflate(once).pieces is not None
        assert compiled.png.deflate(again).pieces is None
        once[:60] = again[:60]
        assert compiled.png.deflate(once).pieces is None

    @pytest.mark.parametrize("level", [0, 1, 6])
    def test_what_has_a_level(self, level: int, compiled: CudaEngine) -> None:
        pixels = photo((60, 70, 3), "uint8")
        host = images.encode(images.Image(pixels), "png", compress_level=level)
        assert png_of(compiled, pixels, level) == host

    def test_all_with_the_cpus_codecs(self, compiled: CudaEngine) -> None:
        assert CudaEngine(codec="cpu").png is None

    @pytest.mark.parametrize("call", ["mem_alloc", "launch", "upload", "Stream.synchronize"])
    def test_what_the_gpu_fails_on(self, call: str, compiled: CudaEngine, fake: FakeCuda) -> None:
        pixels = photo((60, 70, 3), "uint8")
        fake.faults.append(Fault(call))
        file = Pieces()
        output = images.Output("png", file, png=lambda: compiled.png)
        output.add(images.Image(pixels))
        (note,) = output.close()
        assert note.startswith("compressed on the CPU: the GPU failed: ")
        assert bytes(file.joined()) == images.encode(images.Image(pixels), "png")

    def test_what_finds_no_memory(self, compiled: CudaEngine, fake: FakeCuda) -> None:
        fake.faults.append(Fault("mem_alloc", MemoryError, times=99))
        assert compiled.png is not None
        with pytest.raises(EngineError, match="out of GPU memory"):
            compiled.png.deflate(photo((60, 70, 3), "uint8"))


def test_memory_that_others_hold_is_taken_from_them(compiled: CudaEngine, fake: FakeCuda) -> None:
    pixels = photo((60, 70, 3), "uint8")
    first = stream_of(compiled, pixels)
    fake.faults.append(Fault("mem_alloc", MemoryError))
    assert stream_of(compiled, np.concatenate([pixels] * 3))
    assert stream_of(compiled, pixels) == first


def test_a_band_bounds_the_memory(compiled: CudaEngine) -> None:
    """Whatever the picture: some times the rows of a band, which are at most BAND or one row."""
    ready = deflate.planned(3, 1, True)
    size = (BAND // 30_000, 30_000)
    assert ready.scratch_bytes(size, size, (0, 0), 1) < 2.1 * BAND
