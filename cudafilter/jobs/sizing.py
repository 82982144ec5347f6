"""How large a job is: whether it is worth a GPU's start, and how much memory an image takes."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from cudafilter.formats.limits import Limits
from cudafilter.host.cores import cores, free_memory
from cudafilter.images import format_of_bytes
from cudafilter.jobs.plan import Job
from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.operation import Operation, stages_of
from cudafilter.operations.rank import Rank
from cudafilter.start.words import FEW

GPU_START = 0.25
"""Seconds until a GPU takes its first image, where its kernel is compiled: 0.05 for importing
PyCUDA, 0.1 for the driver's start, 0.1 for the context. This is the least that was measured, on an
H100's host; another host took 0.6."""

SAMPLE_SECONDS, TAP_SECONDS = 3e-9, 0.15e-9
"""Seconds that the CPU engine takes on one core for a sample, and for each of its taps.

Measured on 1000x1000 RGB, in ns a sample, beside what these figures predict:

| filter | taps | 8 bits | 16 bits | 8 bits with alpha | predicted |
| blur --sigma 2 | 26 | 3.2 | 8.6 | 9.2 | 6.9 |
| sharpen | 9 | 3.0 | 6.2 | 7.1 | 4.4 |
| blur --sigma 10 | 122 | 14 | 42 | 22 | 21 |
"""

MOST_CORES = 8
"""Most cores that speed up a single image."""

HEAD = 1 << 18
"""Bytes of a file that are read for its header. Metadata may stand before the header."""

MOST_THREADS = 1024
"""Most images in work at a time, where it is unknown how many will come."""

COPIES = 5
"""How many times its pixels an image takes in memory while it is in work: decoded, the decoder's
own, the result, the encoder's filtered rows, the file to be written."""

MEMORY_SHARE = 0.5
"""Share of the free memory that images in work may take."""


class Extent(NamedTuple):
    """An image's size, as its header tells."""

    width: int
    height: int
    channels: int
    bytes_per_sample: int

    @property
    def samples(self) -> int:
        """Width times height times channels."""
        return self.width * self.height * self.channels


def extent(head: bytes) -> Extent | None:
    """The size of an image, from the header in the first bytes of its file.

    None where the bytes hold no whole header. Loading the image then says what is wrong.
    """
    try:
        return _HEADERS[format_of_bytes(head)](head)
    except Exception:  # noqa: BLE001 - a damaged head raises nearly every type there is
        return None


def require_size(data: bytes, max_pixels: int | None) -> None:
    """Raise ImageError if the file *data* holds more pixels than are read; see Limits."""
    size = extent(data)
    if size is not None:
        pixel_bytes = size.channels * size.bytes_per_sample
        Limits(len(data), max_pixels).require_size(size.width, size.height, pixel_bytes)


def _png(head: bytes) -> Extent:
    width, height, bits, colour = struct.unpack_from(">IIBB", head, 16)
    channels = {0: 1, 2: 3, 3: 4, 4: 2, 6: 4}[colour]  # a palette becomes RGBA at most
    return Extent(width, height, channels, 2 if bits == 16 else 1)


def _jpeg(head: bytes) -> Extent:
    from cudafilter.formats.jpeg_head import frame_of, segments_of

    frame = frame_of(segments_of(head)[0])
    if frame is None:
        raise ValueError("no frame header")
    return Extent(frame.width, frame.height, len(frame.components), 1)


def _tiff(head: bytes) -> Extent:
    from cudafilter.formats import ifd

    order, offset, big = ifd.header(head)
    tags, _ = ifd.read(head, order, offset, big)
    width, height = ifd.number(tags, 256, order, 0), ifd.number(tags, 257, order, 0)
    palette = ifd.number(tags, 262, order, 1) == 3
    channels = 3 if palette else ifd.number(tags, 277, order, 1)
    bits = ifd.number(tags, 258, order, 1)
    floats = ifd.number(tags, 339, order, 1) == 3
    return Extent(width, height, channels, 4 if floats else 1 if bits <= 8 else 2)


def _webp(head: bytes) -> Extent:
    from cudafilter.formats.webp import size_of

    return Extent(*size_of(head), 1)


def _gif(head: bytes) -> Extent:
    width, height = struct.unpack_from("<HH", head, 6)
    return Extent(width, height, 4, 1)


def _bmp(head: bytes) -> Extent:
    from cudafilter.formats.bmp import header_of

    header = header_of(head)
    return Extent(header.width, header.height, 3 + bool(header.masks[3]), 1)


def _pnm(head: bytes) -> Extent:
    from cudafilter.formats.pnm import header_of

    header = header_of(head)
    return Extent(header.width, header.height, header.channels, header.sample_bytes)


_HEADERS = {
    "png": _png, "jpeg": _jpeg, "webp": _webp, "gif": _gif, "bmp": _bmp,
    "ppm": _pnm, "pgm": _pnm, "pbm": _pnm, "tiff": _tiff,
}  # fmt: skip


def taps(filter: Operation) -> int:
    """Samples that the CPU engine reads for each sample of the result, in all passes.

    A rank-1 kernel has two passes, one down and one across; so has the least or largest sample of
    a rectangle. Example: 26 for ``blur --sigma 2``, whose kernel is 13x13.
    """
    return sum(_taps(stage.operation) for stage in stages_of(filter.unrolled(Border())))


def _taps(operation: Operation) -> int:
    above, below, left, right = operation.reach
    rows, columns = above + 1 + below, left + 1 + right
    if isinstance(operation, Correlation):
        return sum(
            sum(kernel.shape) if kernel.factors is not None else kernel.shape[0] * kernel.shape[1]
            for kernel in operation.kernels
        )
    if isinstance(operation, Rank):
        extreme = operation.is_least or operation.is_largest
        return rows + columns if extreme and operation.window.inside is None else rows * columns
    return rows * columns


def cpu_seconds(jobs: Collection[Job], filter: Operation) -> float | None:
    """Seconds that the CPU engine takes for all of *jobs*, by their headers.

    None where that is unknown: for more than FEW images, whose headers would take too long to
    read, and for standard input or a pipe, which can be read only once.
    """
    todo = [job for job in jobs if not job.skip]
    if len(todo) > FEW:
        return None
    sources = [job.source for job in todo if job.source is not None]
    if len(sources) < len(todo) or any(source.is_fifo() for source in sources):
        return None
    samples = sum(map(_samples, sources))
    each = SAMPLE_SECONDS + TAP_SECONDS * taps(filter)
    return samples * each / min(cores(), MOST_CORES)


def _samples(path: Path) -> int:
    """Samples of an image file by its header, else its bytes; 0 where it cannot be read."""
    try:
        with open(path, "rb") as file:
            size = extent(file.read(HEAD))
            return size.samples if size else os.fstat(file.fileno()).st_size
    except OSError:
        return 0


def small(jobs: Collection[Job], filter: Operation) -> str | None:
    """Why *jobs* need no GPU: the CPU is done before one has started. None where it is not.

    On a machine without a GPU, that is the reason instead.
    """
    seconds = cpu_seconds(jobs, filter)
    if seconds is None or seconds >= GPU_START:
        return None
    from cudafilter.nvidia.toolkit import no_gpu

    if (lack := no_gpu()) is not None:
        return f"no CUDA: {lack}"
    return "small job, done before a GPU would have started"


def memory_for_images() -> int | None:
    """Bytes that images in work may take together; None where the system does not tell."""
    free = free_memory()
    return None if free is None else int(free * MEMORY_SHARE)


def footprint(data: bytes) -> int:
    """Bytes of memory that an image takes from decoding to writing, by its file's *data*."""
    size = extent(data[:HEAD]) or extent(data)  # few headers are longer, and files are large
    return 0 if size is None else size.samples * size.bytes_per_sample * COPIES
