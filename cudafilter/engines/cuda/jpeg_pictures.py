"""One picture on the device between its decoder and its encoder, whichever decoder it was."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from cudafilter.engines.cuda.device import Applied, Device
from cudafilter.engines.cuda.slots import Slot
from cudafilter.formats import jpeg_scan
from cudafilter.nvidia.nvjpeg import Codec, NvJpeg, NvJpegError
from cudafilter.operations.operation import Stage
from cudafilter.operations.pixels import Pixels

if TYPE_CHECKING:
    from cudafilter.engines.cuda.variants.task import Launch
    from cudafilter.proof.screened import Screened


class Full(Exception):
    """The device's memory, or the pinned memory, does not hold the picture."""


class Picture(NamedTuple):
    """A file on its way."""

    data: bytes
    template: bytes
    """A small file that is coded as the result is to be."""
    size: tuple[int, int]
    """(height, width)."""
    channels: int
    ready: Launch
    """The filter."""
    keep: bool
    """Whether the pixels come to the host."""
    stage: Stage | None
    """What the device is to prove, if it can."""


Bytes = npt.NDArray[np.uint8]


def fresh(count: int) -> Bytes:
    """Memory for *count* bytes."""
    return np.empty(count, np.uint8)


class Coded(NamedTuple):
    """What became of a picture on the device."""

    data: Bytes
    end: Pixels
    """The last rows of what was decoded, as high as the last row of blocks at least."""
    seconds: dict[str, float]
    """Of ``decode``, ``kernel``, ``encode``, and of ``prove`` where the device did."""
    kept: tuple[Pixels, Pixels] | None
    screened: Screened | None


class Closed(Protocol):
    """Something of nvJPEG's."""

    def close(self) -> None:
        """Destroy it. Raises NvJpegError."""


def close(made: Closed | None) -> None:
    """Destroy *made*, after a failure of it too."""
    if made is not None:
        with suppress(NvJpegError):  # what led here is told
            made.close()


class JpegSlot(Slot):
    """A slot with a codec on its stream; *alone* is Codec's."""

    def __init__(self, cuda: ModuleType, alone: bool = False) -> None:
        super().__init__(cuda)
        self._alone = alone
        self._codec: Codec | None = None

    def codec_of(self, nvjpeg: NvJpeg) -> Codec:
        """The codec; made when it is first needed. Raises NvJpegError."""
        self._codec = self._codec or Codec(nvjpeg, self.stream.handle, self._alone)
        return self._codec

    def _wait(self) -> None:
        # To wait gives the interpreter's lock away.
        if not (self._alone and self.stream.is_done()):
            super()._wait()

    def abandon(self) -> None:
        """See Lendable."""
        super().abandon()
        if not self.lost:
            self.free()

    def free(self) -> None:
        """See Slot.free."""
        close(self._codec)
        self._codec = None
        super().free()


class Passing:
    """A picture that passes through *slot*, after its decoder: filter and encoder are queued.

    *codec* is the slot's, and *use* the name of the memory that it is decoded to.
    """

    def __init__(
        self, device: Device, slot: JpegSlot, codec: Codec, picture: Picture, use: str = "source"
    ) -> None:
        self._slot, self._codec = slot, codec
        applied = applied_to(device, slot, picture, use)
        (height, width), channels = picture.size, picture.channels
        last = (height - 1) % jpeg_scan.BLOCK + 1
        self._end = np.empty((last, width, channels), np.uint8)
        pitch = applied.source_pitch
        slot.download(self._end, applied.source + (height - last) * pitch, pitch)
        applied.queue()
        self._kept, self._screened = None, None
        if picture.keep:
            from cudafilter.engines.cuda.screen import kept  # only a check needs it

            places = (applied.source, applied.source_pitch), (applied.out, applied.out_pitch)
            shape = height, width, channels
            self._kept, self._screened = kept(
                device, slot, places, shape, "uint8", False, picture.stage, use
            )
        started = perf_counter()
        out = applied.out, applied.out_pitch
        codec.encode(picture.template, picture.size, channels, *out)
        self._queueing = perf_counter() - started

    def coded(self, decoding: float, room: Callable[[int], Bytes] = fresh) -> Coded:
        """The picture, encoded, in memory that *room* gives; waits for it.

        *decoding* are seconds that went before.
        """
        started = perf_counter()
        self._slot.finish()
        written = self._codec.written(room)
        spent = self._slot.seconds()
        seconds = {"decode": decoding + spent.pop("decode", 0.0)}
        seconds |= {stage: spent[stage] for stage in ("kernel", "prove") if stage in spent}
        seconds["encode"] = self._queueing + perf_counter() - started
        return Coded(written, self._end, seconds, self._kept, self._screened)


def applied_to(device: Device, slot: Slot, picture: Picture, use: str = "source") -> Applied:
    """The filter of *picture* in the memory of *slot*."""
    uses = (use, "out", "scratch")
    return device.apply(slot, picture.ready, picture.size, picture.size, uses=uses)
