"""JPEG to JPEG on the GPU: what is taken, what is kept, and what falls to the CPU codec.

Most of it on stand-ins for the driver and for nvJPEG (which codes by Pillow here), so that it runs
without a GPU; those marked gpu take the real ones.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cudafilter import images
from cudafilter.engines.codecs import FileJob, NotTaken
from cudafilter.engines.cuda import deflate
from cudafilter.engines.cuda import jpeg as gpu_jpeg
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.engines.cuda.jpeg import parsed, require_taken
from cudafilter.engines.cuda.kernels import Kernel
from cudafilter.engines.cuda.variants.task import Launch
from cudafilter.errors import CudafilterError, ImageError
from cudafilter.formats.jpeg_head import segments_of, tables_of
from cudafilter.nvidia import install, nvjpeg
from cudafilter.operations.borders import Border
from cudafilter.start import gpus
from cudafilter.stores.buffers import Buffer
from fake_cuda import FakeCuda
from fake_nvjpeg import BLUR, Opener, StandIn, fake, frame, opened, through
from jpegs import CASES, jpeg, own_tables, patched, picture, rich

__all__ = ["fake", "opened"]

NOT_TAKEN = {
    "it is progressive": jpeg(progressive=True),
    "its coding is arithmetic": patched(jpeg(), 0xC0, 1, 0xC9),
    "its coding is not baseline": patched(jpeg(), 0xC0, 1, 0xC3),
    "it has 12 bits a sample": patched(jpeg(), 0xC0, 4, 12),
    "it is CMYK": jpeg(4, "CMYK"),
    "it is coded as RGB": jpeg(keep_rgb=True),
    "its chroma subsampling is unusual": patched(jpeg(), 0xC0, 11, 0x41),
    "it has several scans": patched(jpeg(), 0xDA, 4, 1),
    "its frame is unusual": patched(patched(jpeg(), 0xC0, 5, 0), 0xC0, 6, 0),
    "it is damaged": jpeg()[:300],
}


@pytest.mark.parametrize("reason", NOT_TAKEN)
def test_odd_files_are_left_to_the_cpu_codec_with_the_reason(reason: str) -> None:
    with pytest.raises(NotTaken, match=f"^{reason}$"):
        require_taken(parsed(NOT_TAKEN[reason]))


@pytest.mark.parametrize(
    "data",
    [b"\xff\xd8", b"\xff\xd8\xff\xdb\0\x43\0", b"\xff\xd8garbage", rich()[:50]],
    ids=["start only", "cut table", "garbage", "cut head"],
)
def test_no_damage_raises_anything_else(data: bytes) -> None:
    with pytest.raises(NotTaken, match="it is damaged"):
        require_taken(parsed(data))


@pytest.mark.parametrize(
    "data",
    [jpeg(), jpeg(1), rich(), own_tables(), jpeg(subsampling=0), jpeg(optimize=True),
     jpeg(restart_marker_rows=1), jpeg() + b"what some cameras append"],
    ids=["RGB", "gray", "metadata", "own tables", "4:4:4", "own codes", "restarts", "more"],
)  # fmt: skip
def test_usual_files_are_taken(data: bytes) -> None:
    require_taken(parsed(data))


def by_host(engine: CudaEngine, data: bytes, gray: bool, quality: int | None) -> bytes:
    """The same through the CPU codec."""
    image = images.load(data)
    image = images.to_gray(image) if gray else image
    result = engine.run(image.pixels, BLUR).pixels
    return bytes(images.encode(image.with_pixels(result), "jpeg", quality=quality))


def notes_of(data: Buffer) -> list[tuple[int, bytes]]:
    """The application segments and comments of a JPEG."""
    return [s for s in segments_of(data)[0] if 0xE0 <= s[0] <= 0xEF or s[0] == 0xFE]


def coded(data: Buffer) -> tuple[Any, ...]:
    """How a JPEG is coded."""
    return frame(data), tables_of(segments_of(data)[0])


def assert_as_by_host(engine: CudaEngine, data: bytes, gray: bool, quality: int | None) -> None:
    """The file is what the CPU codec makes of *data*, but for the codecs' own loss."""
    assert engine.jpeg is not None
    done = engine.jpeg.filter(FileJob(data, BLUR, Border(), gray=gray, quality=quality))
    host = by_host(engine, data, gray, quality)
    assert notes_of(done.data) == notes_of(host)
    assert coded(done.data) == coded(host)
    got, expected = (images.load(each) for each in (done.data, host))
    assert got.metadata == expected.metadata
    assert (done.height, done.width, done.channels) == got.pixels.shape
    assert done.colour == got.colour
    off = np.abs(got.pixels.astype(int) - expected.pixels)
    assert off.mean() < 1.5
    assert off.max() < 25


@pytest.mark.parametrize("quality", [None, 40])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("units", [False, True], ids=["host", "units"])
def test_the_file_is_the_cpu_codecs_but_for_the_loss(
    name: str, gray: bool, quality: int | None, units: bool, opened: Opener
) -> None:
    engine, _, library = opened(units)
    assert_as_by_host(engine, CASES[name], gray, quality)
    decoded = library.calls["DecodeJpegDevice"] + sum(library.batches)
    assert decoded == library.calls["EncodeRetrieveBitstream"] // 2 > 0
    assert bool(library.batches) == units


def test_a_gray_result_tells_that_the_colour_profile_is_gone(opened: Opener) -> None:
    path = opened()[1]
    assert path.filter(FileJob(rich(), BLUR, Border())).notes == ()
    (note,) = path.filter(FileJob(rich(), BLUR, Border(), gray=True)).notes
    assert "profile is not kept" in note


def test_the_time_of_each_stage_is_told(opened: Opener) -> None:
    done = opened()[1].filter(FileJob(jpeg(), BLUR, Border()))
    assert list(done.seconds) == ["decode", "kernel", "encode"]


def test_a_file_whose_tables_the_encoder_does_not_keep_is_not_taken(opened: Opener) -> None:
    _, path, library = opened()
    library.ignores_tables = True
    with pytest.raises(NotTaken, match="does not keep its quality"):
        path.filter(FileJob(own_tables(), BLUR, Border()))


@pytest.mark.parametrize(
    "call",
    [
        "JpegStreamParse",
        "DecodeJpegHost",
        "DecodeJpegTransferToDevice",
        "DecodeJpegDevice",
        "EncodeImage",
        "EncodeRetrieveBitstream",
    ],
)
def test_after_a_failure_the_next_file_goes_through(call: str, opened: Opener) -> None:
    engine, path, library = opened()
    library.failing[call] = 6
    with pytest.raises(NotTaken, match=f"refuses it: nvjpeg{call}: execution failed"):
        path.filter(FileJob(rich(), BLUR, Border()))
    library.failing.clear()
    assert_as_by_host(engine, rich(), False, None)


def test_a_codec_that_is_made_in_part_leaves_nothing(fake: FakeCuda, opened: Opener) -> None:
    engine, path, library = opened()
    kept = len(library.alive)
    library.failing["DecodeJpegDevice"] = 6  # so that the slot's codec goes
    with pytest.raises(NotTaken):
        path.filter(FileJob(jpeg(), BLUR, Border()))
    library.failing = {"EncoderStateCreate": 6}
    with pytest.raises(NotTaken, match="EncoderStateCreate"):
        path.filter(FileJob(jpeg(), BLUR, Border()))
    assert len(library.alive) == 1 < kept  # the handle
    library.failing.clear()
    assert_as_by_host(engine, jpeg(), False, None)


def test_a_picture_too_large_for_the_gpu_is_not_taken(fake: FakeCuda, opened: Opener) -> None:
    engine, path, _ = opened()
    engine._device.memory_limit = 5000
    with pytest.raises(NotTaken, match="memory limit"):
        path.filter(FileJob(jpeg(), BLUR, Border()))
    engine._device.memory_limit = None
    fake.memory = 20_000
    with pytest.raises(NotTaken, match="the GPU's memory is full"):
        path.filter(FileJob(jpeg(), BLUR, Border()))


def test_memory_that_others_hold_is_given_back_for_a_picture(
    fake: FakeCuda, opened: Opener
) -> None:
    engine, path, library = opened()
    engine.run(picture(300, 400), BLUR)
    fake.memory = fake.in_use + 1000
    assert_as_by_host(engine, jpeg(), False, None)
    assert fake.in_use < 300_000
    for call in ("DecodeJpegHost", "DecodeJpegDevice"):
        decoded = library.calls[call]
        library.failing[call] = 5
        with pytest.raises(NotTaken, match="the GPU's memory is full"):
            path.filter(FileJob(jpeg(), BLUR, Border()))
        assert library.calls[call] == decoded + 2
        library.failing.clear()
        assert_as_by_host(engine, jpeg(), False, None)


def test_memory_that_pngs_hold_is_given_back_for_a_picture(
    fake: FakeCuda, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which codec a JPEG gets must not depend on the PNGs in its folder."""
    engine, _, _ = opened()
    monkeypatch.setattr(deflate, "LEAST", 0)
    png = bytes(images.encode(images.Image(picture(300, 400)), "png"))
    assert engine.png is not None
    engine.png.filter(FileJob(png, BLUR, Border()))
    fake.memory = fake.in_use + 1000
    assert_as_by_host(engine, jpeg(), False, None)


def test_nvjpeg_that_was_woken_is_taken_before_any_image_is_at_work(
    fake: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: dict[int, StandIn] = {}

    def wait(gpu: int) -> tuple[StandIn, None]:
        fake.push()
        woken[gpu] = StandIn(fake)
        fake.pop()
        return woken[gpu], None

    fake.install(monkeypatch)
    monkeypatch.setattr(gpus, "nvjpeg_of", wait)
    monkeypatch.setattr(nvjpeg, "find", lambda major: "libnvjpeg")
    monkeypatch.setattr(gpu_jpeg, "NvJpeg", absent)
    engine = CudaEngine(variant="constant")
    assert [*woken] == [0]
    assert_as_by_host(engine, jpeg(), False, None)
    engine.close()
    assert [*woken] == [0]
    assert not woken[0].alive


def test_a_library_that_does_not_load_takes_nothing(
    fake: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.install(monkeypatch)
    monkeypatch.setattr(nvjpeg, "find", lambda major: "/nowhere/libnvjpeg.so")
    engine = CudaEngine(variant="constant")
    assert engine.jpeg is not None
    with pytest.raises(NotTaken, match="nvJPEG does not load: /nowhere"):
        engine.jpeg.filter(FileJob(jpeg(), BLUR, Border()))
    engine.close()


def test_without_the_library_or_by_request_there_is_no_such_path(
    fake: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.install(monkeypatch)
    monkeypatch.setattr(nvjpeg, "find", lambda major: None)
    assert CudaEngine().jpeg is None
    assert "extra nvcodec" in (CudaEngine().jpeg_reason or "")
    monkeypatch.setattr(nvjpeg, "find", lambda major: "libnvjpeg")
    assert CudaEngine().jpeg_reason is None
    assert CudaEngine(codec="cpu").jpeg is None
    assert "--codec cpu" in (CudaEngine(codec="cpu").jpeg_reason or "")


@pytest.mark.parametrize(("driver", "found"), [(11, None), (12, 12), (13, 13), (14, 13)])
def test_the_library_is_one_that_the_driver_runs(
    driver: int, found: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package, major in [("nvjpeg", 12), ("cu13", 13), ("cu14", 14)]:
        library = tmp_path / "nvidia" / package / "lib" / f"libnvjpeg.so.{major}"
        library.parent.mkdir(parents=True)
        library.touch()
    monkeypatch.setattr(ctypes, "CDLL", absent)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    path = nvjpeg.find(driver)
    assert path is None if found is None else path is not None and path.endswith(f".so.{found}")
    monkeypatch.setattr(sys, "path", [])
    assert nvjpeg.find(driver) is None


def absent(name: str) -> None:
    """ctypes.CDLL where there is no such library."""
    raise OSError(name)


@pytest.mark.parametrize(
    ("driver", "package"),
    [((12, 8), "nvidia-nvjpeg-cu12"), ((13, 0), "nvidia-nvjpeg>=")],
)
def test_the_installer_takes_the_library_of_the_driver_and_does_without_it(
    driver: tuple[int, int], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(install, "pip", lambda *line: started.append(line))
    assert "on the GPU too" in install.install_nvjpeg(driver)
    ((_, wanted),) = started
    assert wanted.startswith(package)

    def fail(*_: str) -> None:
        raise CudafilterError("no network")

    monkeypatch.setattr(install, "pip", fail)
    assert "so the CPU codes JPEGs: no network" in install.install_nvjpeg(driver)


def test_a_quality_out_of_range_is_an_error(opened: Opener) -> None:
    with pytest.raises(ImageError, match="quality must be 1 to 100"):
        opened()[1].filter(FileJob(jpeg(), BLUR, Border(), quality=101))


def test_threads_have_their_own_codecs(fake: FakeCuda, opened: Opener) -> None:
    _, path, library = opened()
    expected = {name: through(path, data).data for name, data in CASES.items()}
    jobs = [*CASES] * 8
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda name: through(path, CASES[name]).data, jobs))
    assert all(each == expected[name] for name, each in zip(jobs, got, strict=True))
    assert library.calls["EncoderStateCreate"] <= gpu_jpeg.JPEG_SLOTS
    assert library.calls["DecoderStateCreate"] <= path.parallel


def test_a_picture_takes_the_gpus_memory_only_once_the_host_has_done_its_part(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = gpu_jpeg.JPEG_SLOTS + 1
    monkeypatch.setattr(gpu_jpeg, "cores", lambda: count)
    _, path, library = opened()
    assert path.parallel == count
    together = threading.Barrier(count)
    original = library.DecodeJpegHost

    def wait(*arguments: Any) -> None:
        together.wait(timeout=10)
        original(*arguments)

    monkeypatch.setattr(library, "DecodeJpegHost", wait)
    with ThreadPoolExecutor(count) as pool:
        for done in pool.map(lambda _: through(path, jpeg()), range(count)):
            assert done.data


def test_the_host_does_its_part_while_the_kernel_loads(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, path, library = opened()
    decoded = library.calls["DecodeJpegHost"]
    kernels = engine._device._kernels
    original = kernels.get

    def load(ready: Launch) -> Kernel:
        assert library.calls["DecodeJpegHost"] > decoded
        return original(ready)

    monkeypatch.setattr(kernels, "get", load)
    assert through(path, jpeg()).data


@pytest.fixture(scope="module")
def gpu() -> Iterator[CudaEngine]:
    """The real engine; skips where it has no JPEG path."""
    engine = CudaEngine()
    if engine.jpeg is None:
        engine.close()
        pytest.skip(str(engine.jpeg_reason))
    yield engine
    engine.close()


@pytest.mark.gpu
@pytest.mark.parametrize("quality", [None, 40])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_on_the_gpu_too(name: str, gray: bool, quality: int | None, gpu: CudaEngine) -> None:
    assert_as_by_host(gpu, CASES[name], gray, quality)


@pytest.mark.gpu
def test_on_the_gpu_the_same_file_gives_the_same_bytes(gpu: CudaEngine) -> None:
    assert gpu.jpeg is not None
    path = gpu.jpeg
    expected = {name: through(path, data).data for name, data in CASES.items()}
    jobs = [*CASES] * 8
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda name: through(path, CASES[name]).data, jobs))
    assert all(each == expected[name] for name, each in zip(jobs, got, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("reason", NOT_TAKEN)
def test_on_the_gpu_odd_files_are_left_too(reason: str, gpu: CudaEngine) -> None:
    assert gpu.jpeg is not None
    with pytest.raises(NotTaken, match=reason):
        through(gpu.jpeg, NOT_TAKEN[reason])
