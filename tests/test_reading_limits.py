"""What is read at all: heads before bodies, streams up to a limit, pixels up to --max-pixels."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cudafilter import images
from cudafilter.cli import app
from cudafilter.engines import Engine
from cudafilter.errors import ImageError
from cudafilter.formats import png_chunks, rows
from cudafilter.formats.limits import MAX_PIXELS, SPARSE_BYTES, Limits
from cudafilter.images import Image, encode, load
from cudafilter.jobs import crew, sizing
from cudafilter.jobs.plan import Job
from cudafilter.jobs.record import Record
from cudafilter.jobs.worker import Settings
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.stores import reading

FORMATS = ["png", "jpeg", "webp", "tiff", "bmp", "ppm", "pgm"]


def good(format: str, side: int = 16) -> bytes:
    channels = 1 if format == "pgm" else 3
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, channels), np.uint8)
    return bytes(encode(Image(pixels), format))


class Endless(io.RawIOBase):
    """A stream of *head* and then zeros without end, or to the byte *stop*."""

    def __init__(self, head: bytes, stop: int = 1 << 40) -> None:
        self.head, self.stop, self.given = head, stop, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "an endless stream is read to its end"
        size = min(size, self.stop - self.given)
        piece = self.head[self.given : self.given + size].ljust(size, b"\0")
        self.given += len(piece)
        return piece


def test_a_stream_of_no_known_format_is_left_after_its_head() -> None:
    stream = Endless(b"\x7fELF")
    with pytest.raises(ImageError, match="-: it is no image of a known format"):
        images.read_stream(stream, "-")  # type: ignore[arg-type]
    assert stream.given <= 1 << 20


def test_a_stream_without_end_is_left_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_STREAM", 5_000_000)
    stream = Endless(png_chunks.SIGNATURE)
    with pytest.raises(ImageError, match="goes on past 5,000,000 bytes") as caught:
        images.read_stream(stream, "-")  # type: ignore[arg-type]
    assert stream.given < 7_000_000
    assert caught.value.hint == "save it as a file first"
    whole = Endless(png_chunks.SIGNATURE, stop=4_999_999)
    assert len(images.read_stream(whole, "-")) == 4_999_999  # type: ignore[arg-type]


def test_a_stream_may_come_in_small_pieces() -> None:
    data = good("webp")
    pieces = iter([data[at : at + 1] for at in range(40)] + [data[40:]])

    class Slow(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return next(pieces, b"")

    assert images.read_stream(Slow(), "-") == data  # type: ignore[arg-type]
    assert images.read_stream(io.BytesIO(b""), "-") == b""
    assert images.read_stream(io.BytesIO(b"P5"), "-") == b"P5"


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
def test_a_device_is_left_after_its_head(device: str) -> None:
    if not os.path.exists(device):
        pytest.skip(f"the system has no {device}")
    with pytest.raises(ImageError, match=rf"^{device}: it is no image of a known format"):
        load(Path(device))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_of_no_known_format_is_left_after_its_head(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    given = []

    def pour() -> None:
        with open(path, "wb", buffering=0) as pipe:
            try:
                while True:
                    given.append(pipe.write(bytes(65536)))
            except BrokenPipeError:
                pass

    writer = threading.Thread(target=pour, daemon=True)
    writer.start()
    with pytest.raises(ImageError, match="no image of a known format"):
        load(path)
    writer.join(10)
    assert not writer.is_alive()


def test_a_large_file_of_no_known_format_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "big.png"
    with open(path, "wb") as file:
        file.truncate(1 << 32)
    sizes: list[int] = []
    read = os.read

    def seen(file: int, most: int) -> bytes:
        sizes.append(most)
        return read(file, most)

    monkeypatch.setattr(os, "read", seen)
    with pytest.raises(ImageError, match=r"big\.png: it is no image of a known format"):
        load(path)
    assert sum(sizes) < 1 << 20


def test_a_file_larger_than_the_memory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "big.png"
    with open(path, "wb") as file:
        file.write(png_chunks.SIGNATURE)
        file.truncate(1 << 31)
    monkeypatch.setattr(reading, "free_memory", lambda: 1 << 30)
    with pytest.raises(ImageError, match="cannot be read: it does not fit in memory"):
        load(path)


def test_a_file_gives_few_pixels_where_it_has_few_bytes() -> None:
    def most(bytes_: int, pixel_bytes: int) -> int:
        """The most pixels of a row that pass."""
        least, past = 1, 1 << 40
        while past - least > 1:
            half = (least + past) // 2
            try:
                Limits(bytes_).require_size(half, 1, pixel_bytes)
                least = half
            except ImageError:
                past = half
        return least

    assert most(10, 1) == SPARSE_BYTES
    assert most(1_000_000, 4) * 4 <= 1_000_000_000 // 5
    assert most(10, 8) == SPARSE_BYTES // 8
    assert most(100_000_000, 4) == MAX_PIXELS
    Limits(10, 1 << 40).require_size(1 << 20, 1 << 20)
    with pytest.raises(ImageError, match="more than the 5 that are read") as caught:
        Limits(None, 5).require_size(3, 2)
    assert caught.value.hint == "if it is meant to be so large: --max-pixels 6"


@pytest.mark.parametrize("format", FORMATS)
def test_the_command_refuses_more_pixels_than_it_is_told(format: str, tmp_path: Path) -> None:
    source, target = tmp_path / f"in.{format}", tmp_path / f"out.{format}"
    source.write_bytes(good(format))
    words = ["box", str(source), str(target), "--engine", "cpu", "--max-pixels"]
    refused = CliRunner().invoke(app, [*words, "255"])
    assert refused.exit_code == 1
    assert "16 x 16 are 256 pixels, more than the 255 that are read" in refused.output
    assert "--max-pixels 256" in refused.output
    assert not target.exists()
    assert CliRunner().invoke(app, [*words, "256"]).exit_code == 0
    assert CliRunner().invoke(app, [*words, "0"]).exit_code == 2


def test_the_engines_own_codec_is_not_asked_for_more_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu: Engine
) -> None:
    class Codec:
        parallel = 1

        def filter(self, *_: object, **__: object) -> None:
            raise AssertionError("it was asked")

    (tmp_path / "in.jpg").write_bytes(good("jpeg"))
    monkeypatch.setattr(cpu, "jpeg", Codec(), raising=False)
    seen: list[Record] = []
    job = Job(tmp_path / "in.jpg", tmp_path / "out.jpg", "jpeg")
    settings = Settings(engine_codec=True, max_pixels=255)
    crew.run([job], lambda: cpu, make("box"), Border(), settings, seen.append)
    assert seen[0].error is not None
    assert "more than the 255 that are read" in seen[0].error


@pytest.mark.parametrize("format", [*FORMATS, "gif", "pbm"])
def test_the_head_tells_the_size(format: str) -> None:
    heads = {"gif": b"GIF89a\x10\0\x10\0\0\0\0", "pbm": b"P1 16 16 "}
    data = heads[format] if format in heads else good(format)
    size = sizing.extent(data)
    assert size is not None
    assert size[:2] == (16, 16)
    with pytest.raises(ImageError, match="more than the 255"):
        sizing.require_size(data, 255)


FOREIGN: list[Callable[[], Exception]] = [
    lambda: IndexError("list index out of range"), lambda: AssertionError(),
    lambda: ValueError("unpack requires a buffer"), lambda: OSError("broken data stream"),
    lambda: SyntaxError("not a GIF file"), lambda: RuntimeError("/src/opencv/grfmt.cpp:42"),
]  # fmt: skip


@pytest.mark.parametrize("foreign", FOREIGN)
def test_no_decoder_or_encoder_speaks_to_the_user(
    foreign: Callable[[], Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = foreign()

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(rows, "open", fail)
    monkeypatch.setattr(rows, "create", fail)
    with pytest.raises(ImageError) as caught:
        load(png_chunks.SIGNATURE, "pic")
    reason = "pic: cannot be decoded: it is damaged, or of a kind that is not supported"
    assert str(caught.value) == reason
    assert caught.value.__cause__ is error
    with pytest.raises(ImageError) as caught:
        encode(Image(np.zeros((1, 1, 1), np.uint8)), "png", name="out")
    assert str(caught.value) == "out: cannot be encoded: its encoder failed"
    assert caught.value.__cause__ is error
