"""A stand-in for nvJPEG that codes by Pillow, and the CUDA engine on it."""

from __future__ import annotations

import ctypes
import io
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from cudafilter.engines.codecs import FileJob, FileResult, JpegPath
from cudafilter.engines.cuda import jpeg as gpu_jpeg
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.formats.jpeg_head import Frame, frame_of, segments_of
from cudafilter.nvidia import nvjpeg
from cudafilter.nvidia.nvjpeg import NvJpegError
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.stores.buffers import Buffer
from fake_cuda import FakeCuda
from jpegs import jpeg

BLUR = make("blur", sigma=2)


def frame(data: Buffer) -> Frame:
    """The frame header of a whole file."""
    found = frame_of(segments_of(data)[0])
    assert found is not None
    return found


class StandIn:
    """NvJpeg by Pillow, on the memory and the streams of a FakeCuda."""

    def __init__(self, cuda: FakeCuda, units: bool = False) -> None:
        self.cuda = cuda
        self.calls: Counter[str] = Counter()
        self.failing: dict[str, int] = {}
        self.ignores_tables = False
        self._numbers = count(1)
        self._kept: dict[Any, Any] = {}
        self.alive: set[int] = set()
        self.handle = self.create("CreateEx")
        self.units = self.create("CreateEx") if units else None
        self.batches: list[int] = []
        """How many files each batch had."""

    def create(self, name: str, *_: Any) -> ctypes.c_void_p:
        self.called(name)
        made = next(self._numbers)
        self.alive.add(made)
        return ctypes.c_void_p(made)

    def called(self, name: str) -> None:
        self.cuda.called("nvjpeg")
        self.calls[name] += 1
        if name in self.failing:
            raise NvJpegError(name, self.failing[name])

    def call(self, name: str, *arguments: Any) -> None:
        self.called(name)
        if name.endswith("Destroy"):
            self.alive.remove(arguments[0].value)
        else:
            getattr(self, name, self.setting)(*arguments)

    call_briefly = call

    def close(self) -> None:
        for handle in (self.handle, self.units):
            if handle is not None:
                self.alive.remove(handle.value or 0)

    def setting(self, *arguments: Any) -> None:
        """Taken and of no consequence here."""

    def JpegStreamParse(self, _: Any, data: bytes, length: int, *rest: Any) -> None:
        assert len(data) == length
        self._kept[rest[-1].value] = data

    def JpegStreamParseHeader(self, _: Any, data: bytes, length: int, parsed: Any) -> None:
        self.JpegStreamParse(_, data, length, parsed)

    def DecodeBatchedSupported(self, _: Any, parsed: Any, out: Any) -> None:
        """They do not take 4:2:2."""
        out._obj.value = int(frame(self._kept[parsed.value]).sampling == (2, 1))

    def DecodeBatchedInitialize(
        self, handle: Any, state: Any, count: int, threads: int, form: int
    ) -> None:
        assert handle.value == (self.units and self.units.value)
        self._kept[state.value] = count, form

    def DecodeBatched(
        self, _: Any, state: Any, data: Any, lengths: Any, images: Any, stream: int
    ) -> None:
        count, form = self._kept[state.value]
        assert count == len(data) == len(lengths) == len(images)
        self.batches.append(count)
        addresses = ctypes.cast(data, ctypes.POINTER(ctypes.c_void_p))
        for number, (length, image) in enumerate(zip(lengths, images, strict=True)):
            opened = Pillow.open(io.BytesIO(ctypes.string_at(addresses[number], length)))
            opened.draft("L" if form == nvjpeg.OUTPUT_Y else "RGB", None)
            pixels = np.asarray(opened)

            def work(pixels: Any = pixels, image: Any = image) -> None:
                self.rows(image, pixels.shape[0], pixels[0].nbytes)[...] = pixels.reshape(
                    pixels.shape[0], -1
                )

            self.stream(stream).put(work)

    def JpegStreamGetChromaSubsampling(self, parsed: Any, out: Any) -> None:
        sampling = frame(self._kept[parsed.value]).sampling
        out._obj.value = {(1, 1): 0, (2, 1): 1, (2, 2): 2, None: 6}[sampling]

    def DecodeParamsSetOutputFormat(self, layout: Any, form: int) -> None:
        self._kept[layout.value] = form

    def DecodeJpegHost(self, _: Any, decoder: Any, state: Any, layout: Any, parsed: Any) -> None:
        opened = Pillow.open(io.BytesIO(self._kept[parsed.value]))
        opened.draft("L" if self._kept[layout.value] == nvjpeg.OUTPUT_Y else "RGB", None)
        self._kept[state.value] = np.asarray(opened)

    def StateAttachDeviceBuffer(self, state: Any, buffer: Any) -> None:
        self._kept[state.value, "buffer"] = buffer.value

    def DecodeJpegTransferToDevice(
        self, _: Any, decoder: Any, state: Any, parsed: Any, stream: int
    ) -> None:
        pixels, buffer = self._kept[state.value], self._kept[state.value, "buffer"]

        def work() -> None:
            self._kept[buffer] = pixels

        self.stream(stream).put(work)

    def DecodeJpegDevice(self, _: Any, decoder: Any, state: Any, image: Any, stream: int) -> None:
        image, buffer = image._obj, self._kept[state.value, "buffer"]

        def work() -> None:
            pixels = self._kept[buffer]
            self.rows(image, pixels.shape[0], pixels[0].nbytes)[...] = pixels.reshape(
                pixels.shape[0], -1
            )

        self.stream(stream).put(work)

    def EncoderParamsSetSamplingFactors(self, settings: Any, css: int | Any, _: int) -> None:
        self._kept[settings.value, "css"] = getattr(css, "value", css)

    def EncoderParamsCopyQuantizationTables(self, settings: Any, parsed: Any, _: int) -> None:
        self._kept[settings.value, "tables"] = self._kept[parsed.value]

    def EncodeImage(
        self, _: Any, state: Any, settings: Any, image: Any, form: int, width: int, height: int,
        stream: int,
    ) -> None:  # fmt: skip
        assert form == nvjpeg.INPUT_RGBI
        self.encode(state, settings, image._obj, (height, width, 3), stream)

    def EncodeYUV(
        self, _: Any, state: Any, settings: Any, image: Any, css: int, width: int, height: int,
        stream: int,
    ) -> None:  # fmt: skip
        assert css == 6
        self.encode(state, settings, image._obj, (height, width), stream)

    def encode(
        self, state: Any, settings: Any, image: Any, shape: tuple[int, ...], stream: int
    ) -> None:
        tables = Pillow.open(io.BytesIO(self._kept[settings.value, "tables"])).quantization  # type: ignore[attr-defined]
        css = self._kept[settings.value, "css"]

        def work() -> None:
            rows = self.rows(image, shape[0], shape[1] * (3 if len(shape) == 3 else 1))
            file = io.BytesIO()
            own = {"qtables": tables} if not self.ignores_tables else {"quality": 70}
            Pillow.fromarray(np.ascontiguousarray(rows).reshape(shape)).save(
                file, "JPEG", comment=b"its own", **own, **({"subsampling": css} if css < 6 else {})
            )
            self._kept[state.value] = file.getvalue()

        self.stream(stream).put(work)

    def EncodeRetrieveBitstream(
        self, _: Any, state: Any, data: Any, length: Any, stream: int
    ) -> None:
        done = self._kept[state.value]
        if data is None:
            length._obj.value = len(done)
        else:
            assert length._obj.value == len(done)
            ctypes.memmove(data, done, len(done))

    def stream(self, handle: int) -> Any:
        (found,) = (stream for stream in self.cuda.streams if stream.handle == handle)
        return found

    def rows(self, image: Any, height: int, row: int) -> np.ndarray[Any, Any]:
        address, pitch = image.channel[0], image.pitch[0]
        assert any(kept.holds(address, height * pitch) for kept in self.cuda.living())
        raw = (ctypes.c_uint8 * (height * pitch)).from_address(address)
        return np.frombuffer(raw, np.uint8).reshape(height, pitch)[:, :row]


def through(path: JpegPath, data: bytes) -> FileResult:
    """*data*, blurred."""
    return path.filter(FileJob(data, BLUR, Border()))


Opener = Callable[..., tuple[CudaEngine, JpegPath, StandIn]]


@pytest.fixture
def fake(built: Path) -> FakeCuda:
    if shutil.which("g++") is None:
        pytest.skip("no g++ here")
    return FakeCuda(built)


@pytest.fixture
def opened(fake: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Opens the engine with a JPEG path on the stand-ins; at the end nothing is left."""
    fake.install(monkeypatch)
    made: list[StandIn] = []
    engines: list[CudaEngine] = []

    def open(units: bool = False, **options: Any) -> tuple[CudaEngine, JpegPath, StandIn]:
        library = None

        def load(path: str) -> StandIn:
            assert path == "libnvjpeg"
            nonlocal library
            if library is None or not library.alive:
                library = StandIn(fake, units)
                made.append(library)
            return library

        monkeypatch.setattr(nvjpeg, "find", lambda major: "libnvjpeg")
        monkeypatch.setattr(gpu_jpeg, "NvJpeg", load)
        codec = "units" if units else "auto"
        engine = CudaEngine(variant="constant", codec=codec, **options)
        engines.append(engine)
        assert engine.jpeg is not None
        through(engine.jpeg, jpeg(1))
        return engine, engine.jpeg, made[-1]

    yield open
    for engine in engines:
        engine.close()
    assert fake.in_use == 0
    for library in made:
        assert not library.alive
