"""PNG's row filters undone on the device: cuda_src/unfilter.cu, for the CPU and on a GPU."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from agreement import random_pixels
from cudafilter import images
from cudafilter.engines import Engine
from cudafilter.engines.cuda import deflate, png, unfilter
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.engines.fleet import Fleet
from cudafilter.engines.mended import Mended
from cudafilter.errors import ImageError
from cudafilter.formats import png_filters
from cudafilter.formats.png_path import Unfiltered
from cudafilter.jobs.plan import make_plan
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Buffer
from fake_cuda import FakeCuda, Fault
from fake_nvjpeg import fake
from image_files import chunk
from many_images import run
from png_engines import compiled, engine
from stand_in_gpus import StandIn

__all__ = ["compiled", "engine", "fake"]

PNG = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 50, 40, 8, 2, 0, 0, 0))

SHAPES = [(1, 1), (1, 70), (70, 1), (32, 31), (33, 32), (65, 100)]
"""A warp has 32 rows, and waits for 32 pixels."""


def rows_of(pixels: Pixels, ways: list[int]) -> bytes:
    """The rows of *pixels*, each filtered in its way of *ways*, which begin again at the end."""
    block = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(len(pixels), -1).view(np.uint8)
    above = np.concatenate([np.zeros_like(block[:1]), block[:-1]])
    made = dict(png_filters._ways(block, above, pixels.shape[2] * pixels.itemsize))
    chosen = [ways[y % len(ways)] for y in range(len(pixels))]
    return b"".join(bytes([way]) + made[way][y].tobytes() for y, way in enumerate(chosen))


def unfiltered(engine: Engine, raw: bytes, like: Pixels) -> Unfiltered:
    assert engine.png is not None
    height, width, channels = like.shape
    return engine.png.unfilter(raw, (height, width, channels), like.itemsize)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("ways", [[0], [1], [2], [3], [4], [4, 2, 3, 0, 1, 3, 4]])
def test_it_gives_the_pixels(
    ways: list[int], dtype: str, shape: tuple[int, int], engine: CudaEngine
) -> None:
    for channels in (1, 2, 3, 4):
        pixels = random_pixels((*shape, channels), dtype)
        done = unfiltered(engine, rows_of(pixels, ways), pixels)
        assert done.pixels is not None
        assert done.pixels.dtype == pixels.dtype
        assert np.array_equal(done.pixels, pixels), channels


@pytest.mark.gpu
def test_rows_wait_for_those_above_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU warps run side by side: large pictures, again and again."""
    monkeypatch.setattr(deflate, "LEAST", 0)
    pixels = random_pixels((3000, 1000, 3), "uint8")
    raw = rows_of(pixels, [4, 3])
    engine = CudaEngine()
    for _ in range(20):
        done = unfiltered(engine, raw, pixels).pixels
        assert done is not None
        assert np.array_equal(done, pixels)
    engine.close()


def read(engine: Engine, data: bytes) -> tuple[Pixels, tuple[str, ...]]:
    """The pixels and notes of a file, by *engine*'s path."""
    (image,) = images.Frames(data, "a.png", png=lambda: engine.png)
    return image.pixels, image.notes


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_files_are_read_by_it(dtype: str, compiled: CudaEngine, fake: FakeCuda) -> None:
    for channels in (1, 2, 3, 4):
        pixels = random_pixels((40, 50, channels), dtype)
        before = fake.calls["launch"]
        data = bytes(images.encode(images.Image(pixels, channels in (2, 4)), "png"))
        assert np.array_equal(read(compiled, data)[0], pixels)
        assert fake.calls["launch"] == before + 2


def test_a_palette_is_read_by_it(here: Path, compiled: CudaEngine, fake: FakeCuda) -> None:
    picture = PillowImage.fromarray(random_pixels((40, 50, 3), "uint8")).quantize(200)
    picture.save("palette.png")
    data = Path("palette.png").read_bytes()
    assert np.array_equal(read(compiled, data)[0], np.asarray(picture.convert("RGB")))
    assert fake.calls["launch"] == 2


def test_bits_that_share_a_byte_are_read_by_it(here: Path, compiled: CudaEngine) -> None:
    bits = random_pixels((40, 50, 1), "uint8")[..., 0] > 100
    PillowImage.fromarray(bits).save("bits.png")
    assert np.array_equal(read(compiled, Path("bits.png").read_bytes())[0][..., 0], bits * 255)


class TestWhatTheHostDoes:
    def test_small_and_large_and_narrow_pictures(
        self, compiled: CudaEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pixels = random_pixels((40, 50, 3), "uint8")
        raw = rows_of(pixels, [4])
        for module, name, value in (
            (deflate, "LEAST", len(raw) + 1), (unfilter, "MOST", pixels.nbytes - 1),
            (unfilter, "LONGEST", 3),
        ):  # fmt: skip
            with monkeypatch.context() as patch:
                patch.setattr(module, name, value)
                assert unfiltered(compiled, raw, pixels).pixels is None
            assert unfiltered(compiled, raw, pixels).pixels is not None

    def test_filters_that_are_none(self, compiled: CudaEngine, fake: FakeCuda) -> None:
        pixels = random_pixels((40, 50, 3), "uint8")
        raw = bytearray(rows_of(pixels, [4]))
        raw[151 * 7] = 5
        data = PNG + chunk(b"IDAT", zlib.compress(bytes(raw))) + chunk(b"IEND")
        with pytest.raises(ImageError, match="its rows cannot be read"):
            read(compiled, data)
        assert fake.calls["launch"] == 0

    def test_what_the_gpu_fails_on(self, compiled: CudaEngine, fake: FakeCuda) -> None:
        pixels = random_pixels((40, 50, 3), "uint8")
        data = bytes(images.encode(images.Image(pixels), "png"))
        fake.faults.append(Fault("launch"))
        found, (note,) = read(compiled, data)
        assert np.array_equal(found, pixels)
        assert note.startswith("row filters undone on the CPU: the GPU failed: ")

    def test_what_is_left_by_a_lost_gpu(self, compiled: CudaEngine, fake: FakeCuda) -> None:
        pixels = random_pixels((40, 50, 3), "uint8")
        data = bytes(images.encode(images.Image(pixels), "png"))
        mended = Mended(compiled, StandIn)
        assert read(mended, data)[1] == ()
        fake.faults.append(Fault("launch", lasting=True))
        found, (note,) = read(mended, data)
        assert np.array_equal(found, pixels)
        assert "failed" in note


def test_a_fleet_gives_it_to_a_member_that_can(compiled: CudaEngine) -> None:
    pixels = random_pixels((40, 50, 3), "uint8")
    done = unfiltered(Fleet([StandIn(), compiled]), rows_of(pixels, [4]), pixels)
    assert done.pixels is not None
    assert np.array_equal(done.pixels, pixels)


def test_a_run_reads_by_it_once_the_engine_is_open(here: Path, compiled: CudaEngine) -> None:
    names = [f"{number}.png" for number in range(12)]
    for name in names:
        PillowImage.fromarray(random_pixels((40, 50, 3), "uint8")).save(name)
    asked: list[int] = []

    class Told(png.GpuPng):
        def unfilter(self, raw: Buffer, shape: tuple[int, int, int], itemsize: int) -> Unfiltered:
            asked.append(len(raw))
            return super().unfilter(raw, shape, itemsize)

    compiled.png = Told(compiled._device, "auto")
    records = run(make_plan(names, "out").jobs, compiled)
    assert [record.status for record in records.values()] == ["done"] * 12
    assert 1 <= len(asked) <= 12
