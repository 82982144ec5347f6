"""JPEG to JPEG on the GPU: decoded, filtered and encoded there, with what else the file holds.

The coding goes through nvJPEG. What else there is goes through the CPU codec's own code: it reads
the head of the source, writes the head of the result, and encodes a small stand-in picture, whose
quantisation tables and subsampling the result gets. So both codecs keep the same by the same rules.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cudafilter.engines.codecs import FileJob, FileResult, NotTaken
from cudafilter.engines.cuda.device import Device
from cudafilter.engines.cuda.jpeg_pictures import (
    Coded,
    Full,
    JpegSlot,
    Passing,
    Picture,
    applied_to,
    close,
)
from cudafilter.engines.cuda.jpeg_units import THREADS, Units
from cudafilter.engines.cuda.slots import Pool
from cudafilter.engines.cuda.variants.ladder import prepare
from cudafilter.engines.cuda.variants.task import row_pitch
from cudafilter.errors import ImageError
from cudafilter.formats import jpeg, jpeg_head, jpeg_scan
from cudafilter.formats.jpeg_head import Frame, Segment
from cudafilter.formats.limits import Limits
from cudafilter.formats.metadata import JpegCoding, Metadata, split
from cudafilter.formats.rows import require_range
from cudafilter.formats.table import Ways
from cudafilter.host.cores import cores
from cudafilter.nvidia.nvjpeg import NvJpeg, NvJpegError, Reader
from cudafilter.operations.correlation import IDENTITY
from cudafilter.operations.operation import Stage, only_stage
from cudafilter.start import gpus
from cudafilter.stores.buffers import Buffer

if TYPE_CHECKING:
    from cudafilter.images import Image


READERS = 16
"""Pictures that the host decodes at a time for one GPU, if there are as many cores: each takes
20 ms of a core for 12 megapixels. With 20 of them on 16 cores, or 20 threads for 16, a folder took
a tenth longer."""

JPEG_SLOTS = 4
"""Pictures in the GPU's memory at a time. Each is there for 3 ms, and takes up to 350 MB, which
take time to get. Six of them were no faster."""


class Parsed(NamedTuple):
    """A JPEG in two: the segments of its head, and the rest."""

    segments: list[Segment]
    scan: memoryview
    """The scan and what follows it."""


def parsed(data: Buffer) -> Parsed:
    """Read the segments of *data*. Raises NotTaken where no scan follows them."""
    segments, scan = jpeg_head.segments_of(data)
    if len(scan) <= 4 or scan[:2] != bytes([0xFF, jpeg_head.SOS]):
        raise NotTaken("it is damaged")
    return Parsed(segments, scan)


def require_taken(head: Parsed) -> Frame:
    """The frame of a file that nvJPEG decodes as the CPU codec does, and fast.

    Raises NotTaken, with the reason, for any other.
    """
    frame = jpeg_head.frame_of(head.segments)
    if frame is None or not frame.components:
        raise NotTaken("it is damaged")
    count = len(frame.components)
    if frame.marker == jpeg_head.SOF2:
        reason = "it is progressive"
    elif frame.marker >= 0xC9:
        reason = "its coding is arithmetic"
    elif frame.marker not in (jpeg_head.SOF0, jpeg_head.SOF1):
        reason = "its coding is not baseline"
    elif frame.bits != 8:
        reason = f"it has {frame.bits} bits a sample"
    elif count == 4:
        reason = "it is CMYK"
    elif count not in (1, 3) or not frame.width or not frame.height:
        reason = "its frame is unusual"
    elif not jpeg_head.is_transformed(head.segments, frame):
        reason = "it is coded as RGB"
    elif count == 3 and not _is_common(frame):
        reason = "its chroma subsampling is unusual"
    elif head.scan[4] != count:
        reason = "it has several scans"
    else:
        return frame
    raise NotTaken(reason)


def _is_common(frame: Frame) -> bool:
    """Whether Pillow has its sampling too, with the factors in their common form."""
    known = jpeg_head.SAMPLINGS.get(frame.sampling or (0, 0))
    return known is not None and known.code is not None and frame.components[1][:2] == (1, 1)


def stand_in(head: Parsed, frame: Frame) -> Image:
    """A small picture with the metadata and the notes of a JPEG, not its pixels."""
    from cudafilter.images import Image

    metadata, notes = jpeg_head.head_of(head.segments, frame)
    pixels = np.zeros((16, 16, len(frame.components)), np.uint8)
    return Image(pixels, False, metadata, notes)


@functools.lru_cache
def template_of(coding: JpegCoding | None, channels: int, quality: int | None) -> bytes:
    """A small JPEG, coded as the CPU codec codes a picture whose source was coded like *coding*."""
    require_range("quality", quality, 1, 100)
    return jpeg.template(channels, Metadata(jpeg_coding=coding), Ways(quality=quality))


def finished(encoded: memoryview, template: bytes, metadata: Metadata) -> Buffer:
    """*encoded* with the segments of *metadata* in place of its own.

    Raises NotTaken unless it was coded as *template* is: the same tables and subsampling.
    """
    got = parsed(encoded)
    if _coding_of(template) != _coding(got.segments):
        raise NotTaken("the GPU's encoder does not keep its quality")
    return jpeg_head.with_head([jpeg_head.bare(got.segments), got.scan], metadata)


@functools.lru_cache
def _coding_of(template: bytes) -> tuple[object, ...]:
    return _coding(parsed(template).segments)


def _coding(segments: list[Segment]) -> tuple[object, ...]:
    """The part of the coding that decides on quality: subsampling, and the tables in use."""
    frame = jpeg_head.frame_of(segments)
    assert frame is not None  # an encoder wrote it
    numbers = [part.table for part in frame.components]
    return frame.marker, frame.components, jpeg_head.tables_of(segments)[: max(numbers) + 1]


class GpuJpeg:
    """Engine.jpeg of the CUDA engine; see JpegPath. The device's memory bounds the picture."""

    def __init__(self, device: Device, library: str, variant: str, units: bool) -> None:
        self._device = device
        self._variant = variant
        self._readers = Pool([_Place() for _ in range(max(JPEG_SLOTS, min(cores(), READERS)))])
        self._slots = Pool([JpegSlot(device.cuda) for _ in range(JPEG_SLOTS)])
        self._library = library
        self._lock = Lock()
        # Waits for it here, while no image is at work: nvJPEG's start wants a core for itself.
        self._nvjpeg, batches = gpus.nvjpeg_of(device.number)
        self._units = Units(device, self._loaded, self._make_room, batches)
        self.by_units = units and self._has_units()
        """Whether the GPU's JPEG units decode what they take."""
        no_units = units and not self.by_units
        self.note = "no JPEG units here, so cores undo the Huffman coding" if no_units else None
        """What the user should know."""
        self.parallel = THREADS if self.by_units else self._readers.count

    def filter(self, job: FileJob) -> FileResult:
        """See JpegPath.filter."""
        from cudafilter import images

        data = job.data
        stage = only_stage(job.filter.unrolled(job.border) or (Stage(IDENTITY, job.border),))
        if stage is None:
            raise NotTaken(f"{job.filter.name} is several passes over its pixels")
        operation, border = stage
        head = parsed(data)
        frame = require_taken(head)
        try:
            Limits(len(data)).require_size(frame.width, frame.height)
        except ImageError as large:  # the CPU codec knows what the user allows
            raise NotTaken("it is unusually large") from large
        judged = False
        told: tuple[str, ...] = ()
        if not jpeg_scan.is_simple(head.segments, head.scan, frame):
            scans = jpeg_scan.scans_of(head.segments, head.scan, frame)
            told = scans.notes
            judged = bool(scans.doubt) or jpeg_scan.is_suspect(head.segments, scans.scans[0], frame)
        if judged:
            jpeg.require_undamaged(data)
        small = stand_in(head, frame)
        if job.gray:
            small = images.to_gray(small)
        channels = small.pixels.shape[2]
        template = template_of(small.metadata.jpeg_coding, channels, job.quality)
        ready = prepare(operation, channels, np.uint8, border, False, self._variant)
        size = frame.height, frame.width
        taken = 2 * size[0] * row_pitch(size[1], channels)
        if (limit := self._device.memory_limit) is not None and taken > limit:
            raise NotTaken("it is larger than the memory limit")
        picture = Picture(
            data, template, size, channels, ready, job.keep, stage if job.screen else None
        )
        with self._device.current(), self._coded(picture) as coded:
            if not judged and jpeg_scan.is_flat(coded.end):
                jpeg.require_undamaged(data)
            done = finished(coded.data.data, template, split(small.metadata, "jpeg", channels)[0])
        return FileResult(
            done, frame.width, frame.height, channels, small.colour, small.notes + told,
            coded.seconds, coded.kept, coded.screened,
        )  # fmt: skip

    def free(self) -> None:
        """Wait for the images in flight and give back all that is held; with current()."""
        with self._units.alone(), self._readers.alone() as places, self._slots.alone() as slots:
            _free(places, slots)
            self._units.free()
            if self._nvjpeg is not None:
                close(self._nvjpeg)  # all work is done
                self._nvjpeg = None

    def _takes(self, data: bytes) -> bool:
        """Whether the GPU's JPEG units decode *data*. Its head tells, and nothing else."""
        with self._refusals():
            return self.by_units and self._units.takes(data)

    def _has_units(self) -> bool:
        try:
            with self._device.current():
                return self._loaded().units is not None
        except (NotTaken, NvJpegError):  # each file tells
            return False

    @contextmanager
    def _coded(self, picture: Picture) -> Iterator[Coded]:
        """What becomes of *picture*. Its bytes may be used again afterwards. Raises NotTaken."""
        try:
            if self._takes(picture.data):
                with self._refusals(), self._units.coded(picture) as coded:
                    yield coded
            else:
                yield self._by_host(picture)
        except Full as full:
            raise NotTaken("the GPU's memory is full") from full

    def _by_host(self, picture: Picture) -> Coded:
        """*picture* decoded by the host and the GPU's cores. Raises NotTaken."""
        try:
            with self._readers.one() as place:
                reading = self._read(place, picture)
                with self._slots.one() as slot:
                    coded = self._through(place, slot, picture, reading)
        except Full:
            # What others hold may have taken what this picture needs: which way it goes must
            # not depend on what is in work beside it.
            with self._units.alone():
                self._units.free()
                self._device.release()
                with self._readers.alone() as places, self._slots.alone() as slots:
                    _free(places, slots)
                    try:
                        reading = self._read(places[0], picture)
                        coded = self._through(places[0], slots[0], picture, reading)
                    except Full as full:
                        raise NotTaken("the GPU's memory is full") from full
        return coded

    def _make_room(self) -> None:
        """Give back what other ways than the units hold; with current()."""
        self._device.release()
        with self._readers.alone() as places, self._slots.alone() as slots:
            _free(places, slots)

    def _read(self, place: _Place, picture: Picture) -> float:
        """Do the host's part of decoding *picture*; returns its seconds. May raise Full."""
        started = perf_counter()
        with self._refusals():
            place.reader = place.reader or Reader(self._loaded())
            place.reader.read(picture.data, picture.channels)
        return perf_counter() - started

    def _through(self, place: _Place, slot: JpegSlot, picture: Picture, reading: float) -> Coded:
        """Decode, filter and encode what was read at *place* in *reading* seconds.

        Raises Full where memory lacks.
        """
        assert place.reader is not None
        with self._refusals():
            codec = slot.codec_of(self._loaded())
            applied = applied_to(self._device, slot, picture)
            with slot.timed("decode"):
                codec.decode(place.reader, applied.source, applied.source_pitch)
            return Passing(self._device, slot, codec, picture).coded(reading)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Make nvJPEG's errors and the lack of memory into NotTaken and Full."""
        try:
            yield
        except (NvJpegError, self._device.out_of_memory) as error:
            if not isinstance(error, NvJpegError) or error.full:
                raise Full from error
            self._device.cuda.Context.synchronize()  # raises where it is the device that failed
            raise NotTaken(f"the GPU's codec refuses it: {error}") from error

    def _loaded(self) -> NvJpeg:
        with self._lock:
            if self._nvjpeg is None:
                try:
                    self._nvjpeg = NvJpeg(self._library)
                except (OSError, AttributeError) as error:  # no library, or one that lacks a call
                    raise NotTaken(f"nvJPEG does not load: {error}") from error
            return self._nvjpeg


class _Place:
    """Where the host decodes one picture at a time."""

    def __init__(self) -> None:
        self.reader: Reader | None = None
        """Made when it is first needed."""

    def abandon(self) -> None:
        """See Lendable."""
        self.free()

    def free(self) -> None:
        """Give its memory back."""
        close(self.reader)
        self.reader = None


def _free(places: list[_Place], slots: list[JpegSlot]) -> None:
    for place in places:
        place.free()
    for slot in slots:
        slot.free()
