"""How large a job is, by the headers of its files, and whether it is worth a GPU's start."""

from __future__ import annotations

import os
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import python
from cudafilter.host.cores import cores
from cudafilter.images import Image as Picture
from cudafilter.images import encode
from cudafilter.jobs import sizing
from cudafilter.jobs.plan import Job
from cudafilter.jobs.sizing import GPU_START, extent, small, taps
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.kernel import Kernel
from cudafilter.operations.make import make
from cudafilter.start.words import FEW

BLUR = make("blur", sigma=2)


def job(path: Path | None, skip: bool = False) -> Job:
    return Job(path, Path("out.png"), "png", skip)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (640, 480)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize(
    ("format", "shape", "dtype"),
    [
        ("png", (20, 30, 1), "uint8"),
        ("png", (20, 30, 4), "uint8"),
        ("png", (20, 30, 1), "uint16"),
        ("png", (20, 30, 3), "uint16"),
        ("jpeg", (20, 30, 3), "uint8"),
        ("jpeg", (20, 30, 1), "uint8"),
        ("tiff", (20, 30, 3), "uint8"),
        ("tiff", (20, 30, 1), "float32"),
        ("webp", (20, 30, 3), "uint8"),
        ("bmp", (20, 30, 3), "uint8"),
        ("ppm", (20, 30, 3), "uint8"),
    ],
)
def test_a_header_tells_the_size(format: str, shape: tuple[int, int, int], dtype: str) -> None:
    data = bytes(encode(Picture(np.zeros(shape, dtype), alpha=shape[2] in (2, 4)), format))
    expected = (shape[1], shape[0], shape[2], np.dtype(dtype).itemsize)
    assert extent(data) == expected
    assert extent(data[: len(data) // 2]) in (expected, None), "a cut file raises nothing"


def test_a_palette_counts_as_what_it_becomes(tmp_path: Path) -> None:
    Image.new("RGB", (8, 4)).convert("P").save(tmp_path / "x.png")
    assert extent((tmp_path / "x.png").read_bytes()) == (8, 4, 4, 1)


def test_metadata_before_the_size_of_a_jpeg_is_passed_over() -> None:
    file = BytesIO()
    Image.new("L", (9, 7)).save(file, "JPEG", icc_profile=b"x" * 100_000, progressive=True)
    assert extent(file.getvalue()) == (9, 7, 1, 1)


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_has_no_size(data: bytes) -> None:
    assert extent(data) is None


def test_taps_are_those_of_the_passes() -> None:
    assert taps(BLUR) == 13 + 13
    assert taps(make("sobel")) == 2 * (3 + 3)
    assert taps(make("sharpen")) == 9
    assert taps(make("bilateral", radius=2)) == 13
    assert taps(Correlation("mine", (Kernel(np.random.default_rng(0).normal(size=(5, 7))),))) == 35


class TestSmall:
    def test_one_photo_is(self, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cudafilter.nvidia.toolkit.no_gpu", lambda: None)
        assert small([job(photo)], BLUR) == "small job, done before a GPU would have started"

    def test_without_a_gpu_that_is_the_reason(
        self, photo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cudafilter.nvidia.toolkit.no_gpu", lambda: "PyCUDA is not installed")
        assert small([job(photo)], BLUR) == "no CUDA: PyCUDA is not installed"

    def test_twelve_megapixels_are_on_two_cores(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Image.new("RGB", (4032, 3024)).save(tmp_path / "x.bmp")
        monkeypatch.setattr(sizing, "cores", lambda: 2)
        assert small([job(tmp_path / "x.bmp")], BLUR)
        assert small([job(tmp_path / "x.bmp")] * 6, BLUR) is None
        assert small([job(tmp_path / "x.bmp")], make("blur", sigma=40)) is None

    @pytest.mark.parametrize("format", ["gif", "png", "webp", "tiff"])
    def test_frames_count(self, format: str, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (30, 20), (30 * n, 0, 0)) for n in range(7)]
        path = tmp_path / "a"
        frames[0].save(path, format, save_all=True, append_images=frames[1:])
        size = sizing.extent(path.read_bytes())
        assert size is not None
        assert sizing.cpu_seconds([Job(path, path, "png")], make("box")) == pytest.approx(
            7 * size.samples * (sizing.SAMPLE_SECONDS + 10 * sizing.TAP_SECONDS)
            / min(cores(), sizing.MOST_CORES)
        )  # fmt: skip

    def test_the_limit_is_the_time_a_gpu_takes_to_start(
        self, photo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seconds = sizing.cpu_seconds([job(photo)], BLUR)
        assert seconds is not None
        assert seconds < GPU_START
        monkeypatch.setattr(sizing, "GPU_START", seconds * 1.01)
        assert small([job(photo)], BLUR)
        monkeypatch.setattr(sizing, "GPU_START", seconds * 0.99)
        assert small([job(photo)], BLUR) is None

    def test_many_images_are_not_and_none_is_opened(self, photo: Path) -> None:
        assert small([job(photo)] * FEW, BLUR)
        assert small([job(photo.with_name("none"))] * (FEW + 1), BLUR) is None

    def test_images_that_are_skipped_do_not_count(self, photo: Path) -> None:
        assert small([job(photo), *[job(photo, skip=True)] * 100], BLUR)
        assert small([job(photo, skip=True)] * 100, BLUR)

    def test_what_comes_from_standard_input_is_not_known(self) -> None:
        assert small([job(None)], BLUR) is None

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    def test_what_comes_from_a_pipe_is_not_known_and_nothing_of_it_is_lost(
        self, photo: Path, tmp_path: Path
    ) -> None:
        pipe = tmp_path / "pipe.png"
        os.mkfifo(pipe)
        held = os.open(pipe, os.O_RDWR)  # on Linux nobody who opens it waits then
        os.write(held, photo.read_bytes())
        found: list[str | None] = []
        # Who reads from it, waits for more.
        thread = threading.Thread(
            target=lambda: found.append(small([job(pipe)], BLUR)), daemon=True
        )
        thread.start()
        thread.join(timeout=5)
        assert found == [None]
        assert os.read(held, 1 << 20) == photo.read_bytes()
        os.close(held)

    def test_without_a_header_the_bytes_on_disk_count(self, tmp_path: Path) -> None:
        (tmp_path / "x.tif").write_bytes(b"II*\0\xff\xff\xff\x7f" + bytes(1 << 20))
        seconds = sizing.cpu_seconds([job(tmp_path / "x.tif")], BLUR)
        assert seconds is not None
        assert seconds * cores() > (1 << 20) * sizing.SAMPLE_SECONDS

    def test_a_broken_file_takes_no_time(self, tmp_path: Path) -> None:
        (tmp_path / "x.png").write_bytes(b"no image")
        assert small([job(tmp_path / "x.png")], BLUR)


def test_a_limit_of_the_process_counts() -> None:
    code = (
        "import resource\n"
        "from cudafilter.host.cores import free_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "print(free_memory())"
    )
    assert 0 < int(python(code)) < 1 << 30
