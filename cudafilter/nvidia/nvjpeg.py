"""nvJPEG, NVIDIA's JPEG library, as far as it is needed here: a thin ctypes layer.

nvImageCodec's Python module has the same decoder and encoder beneath, but takes only a quality:
it cannot write a picture with the quantisation tables that its source has.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np  # not before: the module is light
    import numpy.typing as npt

MAJORS = (13, 12)
"""CUDA versions whose nvJPEG has all that is called here, the newest first."""

BACKEND_GPU_HYBRID, BACKEND_HARDWARE = 2, 3
INTERPOLATE = 32
"""NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION: chroma as libjpeg brings it to full size."""
OUTPUT_Y, OUTPUT_RGBI, INPUT_RGBI = 2, 5, 5
_CSS_GRAY = 6
_BASELINE = 0xC0

_DESTROYED_BY = {"DecoderState": "JpegStateDestroy"}
"""Functions that destroy an object, where its name does not tell."""

_OUT_OF_MEMORY = 5
ARCHITECTURE_MISMATCH = 7
_STATUS = {
    1: "not initialised", 2: "invalid parameter", 3: "bad JPEG", 4: "JPEG not supported",
    5: "out of memory", 6: "execution failed", 7: "architecture mismatch", 8: "internal error",
    9: "not implemented", 10: "incomplete bitstream",
}  # fmt: skip


class NvJpegError(Exception):
    """A call to nvJPEG failed."""

    def __init__(self, name: str, status: int) -> None:
        super().__init__(f"nvjpeg{name}: {_STATUS.get(status, status)}")
        self.full = status == _OUT_OF_MEMORY
        """Whether it failed for lack of memory."""


class Image(ctypes.Structure):
    """nvjpegImage_t."""

    _fields_ = (("channel", c_void_p * 4), ("pitch", c_size_t * 4))


_HANDLE = POINTER(c_void_p)
_SIGNATURES: dict[str, list[Any]] = {
    "CreateEx": [c_int, c_void_p, c_void_p, ctypes.c_uint, _HANDLE],
    "Destroy": [c_void_p],
    "DecoderCreate": [c_void_p, c_int, _HANDLE],
    "DecoderDestroy": [c_void_p],
    "DecoderStateCreate": [c_void_p, c_void_p, _HANDLE],
    "JpegStateDestroy": [c_void_p],
    "BufferPinnedCreate": [c_void_p, c_void_p, _HANDLE],
    "BufferPinnedDestroy": [c_void_p],
    "StateAttachPinnedBuffer": [c_void_p, c_void_p],
    "BufferDeviceCreate": [c_void_p, c_void_p, _HANDLE],
    "BufferDeviceDestroy": [c_void_p],
    "StateAttachDeviceBuffer": [c_void_p, c_void_p],
    "DecodeParamsCreate": [c_void_p, _HANDLE],
    "DecodeParamsDestroy": [c_void_p],
    "DecodeParamsSetOutputFormat": [c_void_p, c_int],
    "JpegStreamCreate": [c_void_p, _HANDLE],
    "JpegStreamDestroy": [c_void_p],
    "JpegStreamParse": [c_void_p, c_char_p, c_size_t, c_int, c_int, c_void_p],
    "JpegStreamParseHeader": [c_void_p, c_char_p, c_size_t, c_void_p],
    "JpegStreamGetChromaSubsampling": [c_void_p, POINTER(c_int)],
    "JpegStateCreate": [c_void_p, _HANDLE],
    "DecodeBatchedSupported": [c_void_p, c_void_p, POINTER(c_int)],
    "DecodeBatchedInitialize": [c_void_p, c_void_p, c_int, c_int, c_int],
    "DecodeBatched": [
        c_void_p, c_void_p, _HANDLE, POINTER(c_size_t), POINTER(Image), c_void_p,
    ],
    "DecodeJpegHost": [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p],
    "DecodeJpegTransferToDevice": [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p],
    "DecodeJpegDevice": [c_void_p, c_void_p, c_void_p, POINTER(Image), c_void_p],
    "EncoderStateCreate": [c_void_p, _HANDLE, c_void_p],
    "EncoderStateDestroy": [c_void_p],
    "EncoderParamsCreate": [c_void_p, _HANDLE, c_void_p],
    "EncoderParamsDestroy": [c_void_p],
    "EncoderParamsSetEncoding": [c_void_p, c_int, c_void_p],
    "EncoderParamsSetOptimizedHuffman": [c_void_p, c_int, c_void_p],
    "EncoderParamsSetSamplingFactors": [c_void_p, c_int, c_void_p],
    "EncoderParamsCopyQuantizationTables": [c_void_p, c_void_p, c_void_p],
    "EncodeImage": [
        c_void_p, c_void_p, c_void_p, POINTER(Image), c_int, c_int, c_int, c_void_p,
    ],
    "EncodeYUV": [c_void_p, c_void_p, c_void_p, POINTER(Image), c_int, c_int, c_int, c_void_p],
    "EncodeRetrieveBitstream": [c_void_p, c_void_p, c_void_p, POINTER(c_size_t), c_void_p],
}  # fmt: skip


def find(driver_major: int) -> str | None:
    """The nvJPEG that a driver of CUDA *driver_major* runs: PyPI's, else the system's by name.

    None where there is none. Nothing is loaded from PyPI's packages yet.
    """
    for major in (major for major in MAJORS if major <= driver_major):
        name = f"libnvjpeg.so.{major}"
        for home in sys.path:
            for found in Path(home, "nvidia").glob(f"*/lib/{name}"):
                return str(found)
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return name
    return None


_starting = Lock()


@contextmanager
def on_one_core() -> Iterator[None]:
    """This thread, and those it starts, on one core; one thread of the process at a time.

    The first handle of a process asks the video driver for its JPEG units. That, twice, starts a
    thread and misses its word, for 0.25 s, unless the thread runs as soon as it is started: on an
    H100's host with driver 580 it takes 0.52 s where the thread gets another core, and 0.02 on one
    core that nothing else wants. So where start/gpus.py makes it, the engine waits for it while it
    opens, and where several GPUs start, they take turns: two at a time took 0.53 s each. What is
    made for the units, and destroyed, waits as long. Processes that start together take different
    cores.
    """
    cores: set[int] = set()
    with _starting:
        # No such call, or not allowed: it only takes longer.
        with suppress(AttributeError, OSError):
            allowed = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {sorted(allowed)[os.getpid() % len(allowed)]})
            cores = allowed
        try:
            yield
        finally:
            if cores:
                os.sched_setaffinity(0, cores)


class NvJpeg:
    """The loaded library and its handle; shared by all threads of one device.

    To be made, used and closed with the device's primary context current. Raises NvJpegError, or
    OSError where the file cannot be loaded.
    """

    def __init__(self, path: str) -> None:
        self._functions = _functions(ctypes.CDLL(path))
        self._brief = _functions(ctypes.PyDLL(path))
        """The same, with the interpreter's lock kept."""
        self._units: c_void_p | None = None
        self._asked = False
        with on_one_core():
            self.handle = self.create("CreateEx", BACKEND_GPU_HYBRID, None, None, INTERPOLATE)
            """For all but the units."""

    @property
    def units(self) -> c_void_p | None:
        """The handle of the GPU's JPEG units, made when it is first asked for, by one thread.

        None where it has none.
        """
        if not self._asked:
            with on_one_core(), suppress(NvJpegError):
                self._units = self.create("CreateEx", BACKEND_HARDWARE, None, None, INTERPOLATE)
            self._asked = True
        return self._units

    def call(self, name: str, *arguments: Any) -> None:
        """Call nvjpegNAME. Raises NvJpegError unless it succeeds; the GIL is released meanwhile."""
        status = self._functions[name](*arguments)
        if status:
            raise NvJpegError(name, status)

    def call_briefly(self, name: str, *arguments: Any) -> None:
        """call() that keeps the GIL: for what is done sooner than the GIL would come back."""
        status = self._brief[name](*arguments)
        if status:
            raise NvJpegError(name, status)

    def create(self, name: str, *arguments: Any) -> c_void_p:
        """The object that nvjpegNAME makes, which it returns through its last argument."""
        made = c_void_p()
        where = {"EncoderStateCreate": 1, "EncoderParamsCreate": 1}.get(name, len(arguments))
        self.call(name, *arguments[:where], byref(made), *arguments[where:])
        return made

    def close(self) -> None:
        """Destroy the handles; after all that was made with them."""
        if self._units is not None:
            self.call("Destroy", self._units)
        self.call("Destroy", self.handle)


def _functions(library: ctypes.CDLL) -> dict[str, Any]:
    found = {}
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, f"nvjpeg{name}")
        function.argtypes, function.restype = arguments, c_int
        found[name] = function
    return found


class Holder:
    """Makes nvJPEG's objects and destroys them together."""

    def __init__(self, nvjpeg: NvJpeg, handle: c_void_p | None = None) -> None:
        self._nvjpeg = nvjpeg
        self._handle = handle or nvjpeg.handle
        self._made: list[tuple[str, c_void_p]] = []
        try:
            self._make_all(self._handle)
        except NvJpegError:
            self.close()
            raise

    def _make_all(self, handle: c_void_p) -> None:
        raise NotImplementedError

    def _make(self, kind: str, *arguments: Any) -> c_void_p:
        made = self._nvjpeg.create(f"{kind}Create", *arguments)
        self._made.append((kind, made))
        return made

    def close(self) -> None:
        """Destroy what was made."""
        for kind, made in reversed(self._made):
            self._nvjpeg.call(_DESTROYED_BY.get(kind, f"{kind}Destroy"), made)
        self._made.clear()


class Reader(Holder):
    """The host's part of decoding, one image at a time; a Codec does the rest.

    It takes 20 ms of a core for 12 megapixels.
    """

    def _make_all(self, handle: c_void_p) -> None:
        self._form: int | None = None
        """The format of the output, as it was last set."""
        self._decoder = self._make("Decoder", handle, BACKEND_GPU_HYBRID)
        self._state = self._make("DecoderState", handle, self._decoder)
        pinned = self._make("BufferPinned", handle, None)
        self._nvjpeg.call("StateAttachPinnedBuffer", self._state, pinned)
        self._layout = self._make("DecodeParams", handle)
        self._parsed = self._make("JpegStream", handle)

    def read(self, data: bytes, channels: int) -> None:
        """Do the host's part of decoding *data* to luma or interleaved RGB.

        *data* must live until the image is decoded. Raises NvJpegError.
        """
        call, handle = self._nvjpeg.call, self._nvjpeg.handle
        call("JpegStreamParse", handle, data, len(data), 0, 0, self._parsed)
        form = OUTPUT_RGBI if channels == 3 else OUTPUT_Y
        if form != self._form:
            call("DecodeParamsSetOutputFormat", self._layout, form)
            self._form = form
        call("DecodeJpegHost", handle, self._decoder, self._state, self._layout, self._parsed)

    def queue(self, buffer: c_void_p, address: int, pitch: int, stream: int) -> None:
        """Queue the rest on *stream*, with nvJPEG's device *buffer*. Raises NvJpegError.

        The next image may be read once the stream is done.
        """
        call, state = self._nvjpeg.call, (self._nvjpeg.handle, self._decoder, self._state)
        call("StateAttachDeviceBuffer", self._state, buffer)
        call("DecodeJpegTransferToDevice", *state, self._parsed, stream)
        call("DecodeJpegDevice", *state, byref(image_at(address, pitch)), stream)


class Codec(Holder):
    """Decodes what a Reader has read, and encodes, on one CUDA stream (*stream*: its handle).

    *alone* says that its thread is the only one that encodes, so that it is not to wait for the GIL
    after each call.
    """

    def __init__(self, nvjpeg: NvJpeg, stream: int, alone: bool = False) -> None:
        self._stream = stream
        self._call = nvjpeg.call_briefly if alone else nvjpeg.call
        self._coded_as: bytes | None = None
        """The template that the encoder was last set by."""
        super().__init__(nvjpeg)

    def _make_all(self, handle: c_void_p) -> None:
        stream = self._stream
        self._buffer = self._make("BufferDevice", handle, None)
        self._template = self._make("JpegStream", handle)
        self._encoder = self._make("EncoderState", handle, stream)
        self._settings = self._make("EncoderParams", handle, stream)
        self._nvjpeg.call("EncoderParamsSetEncoding", self._settings, _BASELINE, stream)
        self._nvjpeg.call("EncoderParamsSetOptimizedHuffman", self._settings, 0, stream)

    def decode(self, reader: Reader, address: int, pitch: int) -> None:
        """Queue what *reader* has read to be decoded to *address*. Raises NvJpegError."""
        reader.queue(self._buffer, address, pitch, self._stream)

    def encode(
        self, template: bytes, size: tuple[int, int], channels: int, address: int, pitch: int
    ) -> None:
        """Queue the (height, width) pixels at *address* to be encoded, luma or interleaved RGB.

        Subsampling and quantisation tables are those of *template*, a whole JPEG. The file is
        read with written(). Raises NvJpegError.
        """
        if template != self._coded_as:
            self._code_as(template)
        height, width = size
        self._call(
            "EncodeImage" if channels == 3 else "EncodeYUV", self._nvjpeg.handle, self._encoder,
            self._settings, byref(image_at(address, pitch)),
            INPUT_RGBI if channels == 3 else _CSS_GRAY, width, height, self._stream,
        )  # fmt: skip

    def _code_as(self, template: bytes) -> None:
        """Set the encoder up by *template*, also for the next picture."""
        call, stream, settings = self._nvjpeg.call, self._stream, self._settings
        subsampling = c_int()
        self._coded_as = None
        call("JpegStreamParse", self._nvjpeg.handle, template, len(template), 0, 0, self._template)
        call("JpegStreamGetChromaSubsampling", self._template, byref(subsampling))
        call("EncoderParamsSetSamplingFactors", settings, subsampling, stream)
        call("EncoderParamsCopyQuantizationTables", settings, self._template, stream)
        self._coded_as = template

    def written(self, room: Callable[[int], npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
        """The file that encode() made, once the stream is done, in memory that *room* gives."""
        length = c_size_t()
        retrieve = "EncodeRetrieveBitstream", self._nvjpeg.handle, self._encoder
        self._call(*retrieve, None, byref(length), self._stream)
        data = room(length.value)
        self._call(*retrieve, data.ctypes.data, byref(length), self._stream)
        return data[: length.value]


def image_at(address: int, pitch: int) -> Image:
    """Interleaved or gray pixels on the device, with rows *pitch* bytes apart."""
    image = Image()
    image.channel[0], image.pitch[0] = address, pitch
    return image
