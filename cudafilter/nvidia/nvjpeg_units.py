"""The GPU's JPEG units, by nvJPEG: they decode several files in one call."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from ctypes import byref, c_int, c_size_t, c_void_p
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from cudafilter.nvidia.nvjpeg import (
    ARCHITECTURE_MISMATCH,
    OUTPUT_RGBI,
    OUTPUT_Y,
    Holder,
    Image,
    NvJpeg,
    NvJpegError,
    image_at,
    on_one_core,
)

if TYPE_CHECKING:  # a GPU that starts must not wait for it
    import numpy as np
    import numpy.typing as npt


class Coded(NamedTuple):
    """A file and where its pixels go on the device."""

    data: npt.NDArray[np.uint8]
    address: int
    pitch: int


class Batches(Holder):
    """Decodes on the GPU's JPEG units, several files in one call; for one thread at a time.

    One picture of 12 megapixels a call takes 7.7 ms, and 14 of them 1.1 ms each: the units are
    seven, and each call has a cost of its own.
    """

    def __init__(self, nvjpeg: NvJpeg) -> None:
        self._states: dict[int, tuple[c_void_p, int]] = {}
        """By form of output: the state, and the number of files that it was set for."""
        self._asking = Lock()
        units = nvjpeg.units
        if units is None:
            raise NvJpegError("CreateEx", ARCHITECTURE_MISMATCH)
        super().__init__(nvjpeg, units)

    def _make_all(self, handle: c_void_p) -> None:
        self._head = self._make("JpegStream", handle)
        with on_one_core():
            self._states[OUTPUT_RGBI] = self._make("JpegState", handle), 0  # takes 0.1 s

    def close(self) -> None:
        """See Holder.close."""
        with on_one_core():
            super().close()

    def takes(self, data: bytes) -> bool:
        """Whether the units decode files with the head of *data*; for any thread."""
        refused = c_int(1)
        with self._asking, suppress(NvJpegError):  # then another decoder tells what is wrong
            call = self._nvjpeg.call
            call("JpegStreamParseHeader", self._handle, data, len(data), self._head)
            call("DecodeBatchedSupported", self._handle, self._head, byref(refused))
        return refused.value == 0

    def decode(self, files: Sequence[Coded], channels: int, stream: int) -> None:
        """Queue *files* to be decoded to luma or interleaved RGB. Raises NvJpegError.

        They must live until the *stream* is done. Nothing else may use their addresses by now: the
        units do not wait for the stream.
        """
        form, count = OUTPUT_RGBI if channels == 3 else OUTPUT_Y, len(files)
        state, was = self._states.get(form, (None, 0))
        if state is None:
            state = self._make("JpegState", self._handle)
        if count != was:
            self._states[form] = state, 0
            self._nvjpeg.call("DecodeBatchedInitialize", self._handle, state, count, 1, form)
            self._states[form] = state, count
        self._nvjpeg.call(
            "DecodeBatched", self._handle, state,
            (c_void_p * count)(*(file.data.ctypes.data for file in files)),
            (c_size_t * count)(*(file.data.nbytes for file in files)),
            (Image * count)(*(image_at(file.address, file.pitch) for file in files)),
            stream,
        )  # fmt: skip
