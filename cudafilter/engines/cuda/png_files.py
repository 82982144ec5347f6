"""PNG to PNG on the GPU: the host inflates the rows, and their pixels stay on the device.

There their row filters are undone, the filter runs, and the result's rows are filtered and
compressed. The host gets the compressed bytes and writes the file around them. A picture of 12
megapixels RGB would pass through the host three times otherwise, 36 MB each.
"""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple

import numpy as np

from cudafilter.engines.codecs import FileJob, FileResult, NotTaken
from cudafilter.engines.cuda import deflate, unfilter
from cudafilter.engines.cuda.chains import Stretch, placed, scratch_bytes, stretch_for
from cudafilter.engines.cuda.device import Device
from cudafilter.engines.cuda.slots import Pool, Slot
from cudafilter.errors import ImageError, LimitError
from cudafilter.formats import png
from cudafilter.formats.limits import Limits
from cudafilter.formats.metadata import split
from cudafilter.formats.png_writer import PngWriter
from cudafilter.formats.rows import HEAD_OF_KIND, Header
from cudafilter.formats.table import Ways
from cudafilter.host.cores import cores
from cudafilter.images import decoding
from cudafilter.operations.operation import Stage, only_stage
from cudafilter.operations.pixels import Pixels
from cudafilter.proof.screened import Screened
from cudafilter.stores.buffers import Pieces

READERS = 16
"""Pictures that the host inflates at a time for one GPU, if there are as many cores."""

SLOTS = 4
"""Pictures on their way through the GPU at a time, beside those that are inflated."""


class Picture(NamedTuple):
    """A file on its way."""

    reader: png.PngReader
    header: Header
    """That of the result."""
    stretch: Stretch
    """The filter."""
    keep: bool
    """Whether the source stays as it is, for a check."""
    stage: Stage | None
    """What the device is to prove, if it can."""

    @property
    def second(self) -> str:
        """The buffer beside ``out`` in which launches hand images on; one launch needs none."""
        return "between" if self.keep and len(self.stretch.launches) > 1 else "source"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.header.height, self.header.width

    @property
    def itemsize(self) -> int:
        """Bytes of a sample."""
        return np.dtype(self.header.dtype).itemsize

    @property
    def row(self) -> int:
        """Bytes of a row."""
        return self.header.pixel_bytes // self.header.height


class _Made(NamedTuple):
    """What became of a picture on the device."""

    pieces: list[memoryview] | None
    """Its compressed rows; None where the host is to compress them."""
    pixels: Pixels | None
    """The result, in that case."""
    seconds: dict[str, float]
    kept: tuple[Pixels, Pixels] | None
    screened: Screened | None


class PngFiles:
    """What filter() of PngCodec needs on *device*."""

    def __init__(self, device: Device, variant: str) -> None:
        self._device, self._variant = device, variant
        readers = max(SLOTS, min(cores(), READERS))
        self._readers = Pool([Slot(device.cuda) for _ in range(readers)])
        self._slots = Pool([Slot(device.cuda) for _ in range(SLOTS)])

    def filter(self, job: FileJob) -> FileResult:
        """See PngCodec.filter."""
        try:
            picture = self._picture(job)
            made = self._made(picture)
        except (ImageError, LimitError) as error:  # the host tells of it
            raise NotTaken("it is damaged, or too large") from error
        header, file = picture.header, Pieces()
        writer = PngWriter(file, header, Ways())
        if made.pieces is not None:
            writer.write_deflated(made.pieces)
        else:
            assert made.pixels is not None
            writer.write(made.pixels)
        writer.close()
        return FileResult(
            file.joined(), header.width, header.height, header.channels, header.colour,
            picture.reader.notes, made.seconds, made.kept, made.screened, header.dtype,
            header.alpha,
        )  # fmt: skip

    def free(self) -> None:
        """Wait for the images in flight and give back all that is held; with current()."""
        with self._readers.alone() as places, self._slots.alone() as slots:
            for each in (*places, *slots):
                each.free()

    def _picture(self, job: FileJob) -> Picture:
        """The file of *job*. Raises ImageError, LimitError and NotTaken."""
        with decoding("it"):
            if png.is_decoded_whole(job.data[:HEAD_OF_KIND]):
                raise NotTaken("its pixels come all at once")
            reader = png.open(job.data, Limits(len(job.data)))
        if not isinstance(reader, png.PngReader) or not reader.is_plain:
            raise NotTaken("its samples are not those of its pixels")
        header = reader.header
        shape = header.height, header.width, header.channels
        if job.gray and header.channels > 2:
            raise NotTaken("it becomes gray first")
        if header.pixel_bytes < deflate.LEAST:
            raise NotTaken("it is small")
        if split(header.metadata, "png", header.channels)[1]:
            raise NotTaken("the host tells what is lost of it")
        if not unfilter.takes(self._device, shape, np.dtype(header.dtype).itemsize):
            raise NotTaken("the device does not undo its row filters")
        stretch = stretch_for(
            job.filter, job.border, header.channels, header.dtype, header.alpha, self._variant
        )
        if stretch is None:
            raise NotTaken(f"{job.filter.name} needs more than the device does at once")
        stage = only_stage(job.filter.unrolled(job.border)) if job.screen else None
        return Picture(reader, header, stretch, job.keep, stage)

    def _made(self, picture: Picture) -> _Made:
        """What becomes of *picture*. Raises ImageError where it is damaged, LimitError, and
        NotTaken where memory lacks."""
        device = self._device
        with device.current():
            limit = device.memory_limit
            if limit is not None and self._taken(picture) > limit:
                raise NotTaken("it is larger than the memory limit")
            try:
                with self._readers.one() as place:
                    rows, inflating = self._inflated(place, picture)
                    with self._slots.one() as slot:
                        made = self._through(slot, rows, picture)
            except device.out_of_memory as error:
                raise NotTaken("the GPU's memory is full") from error
        return made._replace(seconds={"inflate": inflating} | made.seconds)

    def _taken(self, picture: Picture) -> int:
        """Bytes of device memory that *picture* takes."""
        rows = picture.size[0] * (picture.row + 1)
        buffers = len({"source", "out", picture.second})
        images = buffers * picture.stretch.image_bytes(*picture.size)
        return rows + images + self._scratch(picture)

    def _scratch(self, picture: Picture) -> int:
        """Bytes of device memory for what is at work beside the images."""
        (height, _), row = picture.size, picture.row
        return max(
            scratch_bytes(self._device, picture.stretch, picture.size),
            deflate.scratch_bytes(height, row),
            unfilter.planned(1, 1).scratch_bytes((height, row + 1), (height, row), (0, 0), 1),
        )

    def _inflated(self, place: Slot, picture: Picture) -> tuple[int, float]:
        """Where the filtered rows of *picture* are on the device, and the seconds it took."""
        height, row = picture.size[0], picture.row + 1
        address = place.memory("rows", height * row)
        started = perf_counter()
        rows = np.frombuffer(picture.reader.filtered(height), np.uint8).reshape(height, row)
        for _ in place.upload(rows, address, row):
            pass
        place.finish()
        return address, perf_counter() - started

    def _through(self, slot: Slot, rows: int, picture: Picture) -> _Made:
        """What becomes of *picture*, whose filtered rows are at the address *rows*."""
        device, header, size, row = self._device, picture.header, picture.size, picture.row
        shape = header.height, header.width, header.channels
        slot.memory("scratch", self._scratch(picture))  # before any launch has its address
        applied = placed(device, slot, picture.stretch, size, picture.second)
        source = applied[0].source, applied[0].source_pitch
        undoing = device.apply(
            slot, unfilter.planned(row // header.width, picture.itemsize),
            (header.height, row + 1), (header.height, row), places=((rows, row + 1), source),
        )  # fmt: skip
        with slot.timed("unfilter"):
            undoing.run(undoing.passes())
        for each in applied:
            each.queue()
        address, pitch = result = applied[-1].out, applied[-1].out_pitch
        pair = screened = None
        if picture.keep:
            from cudafilter.engines.cuda.screen import kept  # only a check needs it

            pair, screened = kept(
                device, slot, (source, result), shape, header.dtype, header.alpha,
                picture.stage,
            )  # fmt: skip
        pieces = deflate.deflated_from(
            device, slot, lambda first, _: (address + first * pitch, pitch), shape,
            picture.itemsize,
        )  # fmt: skip
        pixels = None
        if pieces is None:
            pixels = np.empty(shape, header.dtype)
            slot.download(pixels, address, pitch)
            slot.finish()
        spent = slot.seconds()
        stages = [stage for stage in ("unfilter", "kernel", "prove", "deflate") if stage in spent]
        return _Made(pieces, pixels, {stage: spent[stage] for stage in stages}, pair, screened)
