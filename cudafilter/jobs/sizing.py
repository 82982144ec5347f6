"""How large a job is: whether it is worth a GPU's start, and how much memory an image takes."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from cudafilter.errors import ParameterError
from cudafilter.formats import rows
from cudafilter.formats.limits import Extent, Limits
from cudafilter.formats.rows import Header
from cudafilter.formats.table import format_of_bytes
from cudafilter.host.cores import cores, free_memory
from cudafilter.jobs.job import Job
from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.operation import Operation, WholeImage, stages_of
from cudafilter.start.words import FEW
from cudafilter.stores import local
from cudafilter.stores.buffers import Source
from cudafilter.stores.url import Url

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

WEIGHED_TAP_SECONDS = 0.6e-9
"""The same for a pixel that is weighed: bilateral takes 0.66 ns of gray, 0.6 of RGB, denoise twice
that of gray and as much of RGB."""

MOST_CORES = 8
"""Most cores that speed up a single image."""

MEMORY = "CUDAFILTER_MEMORY"
"""The environment's word for bytes of memory that images in work may take."""

MOST_UNTOLD = 1 << 30
"""Bytes that an image by rows may take where the system does not tell what is free."""

HEAD = 1 << 18
"""Bytes of a file that are read for its header. Metadata may stand before the header."""

WAITING = 4
"""Images in work for each core where they come from a store or go there: most of them wait for the
network."""

MOST_THREADS = 1024
"""Most images in work at a time, where it is unknown how many will come."""

COPIES = 5
"""How many times its pixels an image takes in memory at the least while it is in work: decoded, the
decoder's own, the result, the encoder's filtered rows, the file to be written."""

FILTERED = 4
"""How many times its pixels the frame takes that is filtered, while the one before it is encoded
and the next one decoded."""

MEMORY_SHARE = 0.5
"""Share of the free memory that images in work may take. An image that takes more is done by
rows."""

LARGE = 1 << 26
"""Bytes of a file from which on its header is looked at before the rest is read."""

BAND_BYTES = 32 << 20
"""Pixels of a band: larger ones are no faster."""

BAND_COPIES = 12
"""How many times its pixels a band takes in memory: rows that are decoded, that wait, that a filter
taps, and their copy with the halo; the result, the one that waits, the encoder's own."""

STAGE_COPIES = 3
"""How many times its pixels in floats a band takes for each stage of a chain."""

FLOAT_BYTES = {"uint8": 4, "uint16": 8, "float32": 4}
"""Of a sample between the stages of a chain; of 8 bits nearly always."""

DECODED = {"avif": 3, "gif": 4, "png": 5, "qoi": 5, "j2k": 7, "jp2": 7, "webp": 8}
"""Format -> how many times its pixels an image takes that is decoded as a whole, itself included;
2 in other formats. This was taken, in 6 and 12 megapixels of RGB:

| jpeg | jxl | bmp | avif | gif | png | qoi | j2k | jp2 | webp |
| 1.7 | 2.0 | 2.0 | 2.5 | 4.5 | 4.5 | 4.6 | 5.9 | 6.3 | 7.5 |
"""

ENCODED = {"bmp": 5, "jp2": 10, "j2k": 10, "jxl": 11, "webp": 11, "avif": 11, "gif": 20}
"""The same of one that is encoded as a whole; 3 in other formats. The lower line has a quality; at
higher levels of compression JPEG XL takes as much without one.

| qoi | bmp | jp2 | j2k | jxl | webp | avif | gif |
| 2.0 | 4.3 | 8.9 | 8.9 | 1.9 | 10.3 | 10.6 | 19.0 |
| | | | | 9.1 | 4.7 | 10.1 | |
"""


def extent(head: Source) -> Extent | None:
    """The size of an image, from the header in the first bytes of its file.

    None where the bytes hold no whole header. Loading the image then says what is wrong.
    """
    try:
        return rows.extent(head)
    except Exception:  # noqa: BLE001 - a damaged head raises nearly every type there is
        return None


def require_size(data: Source, max_pixels: int | None, by_rows: bool = False) -> None:
    """Raise ImageError if the file *data* holds more pixels than are read; see Limits."""
    size = extent(data if isinstance(data, bytes) else data[:HEAD])
    if size is not None:
        pixel_bytes = size.channels * size.bytes_per_sample
        Limits(len(data), max_pixels, by_rows).require_size(size.width, size.height, pixel_bytes)


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
    from cudafilter.operations.rank import Rank  # not before: most runs do without

    if isinstance(operation, Rank) and operation.window.inside is None:
        return rows + columns if operation.is_least or operation.is_largest else rows * columns
    from cudafilter.operations.weighed import Weighed

    if isinstance(operation, Weighed):
        return operation.others + 1
    return rows + columns if isinstance(operation, WholeImage) else rows * columns


def cpu_seconds(jobs: Collection[Job], filter: Operation) -> float | None:
    """Seconds that the CPU engine takes for all of *jobs*, by their headers.

    None where that is unknown: for more than FEW images, whose headers would take too long to
    read, for what lies in a store, which would be fetched twice, and for standard input or a pipe,
    which can be read only once.
    """
    todo = [job for job in jobs if not job.skip]
    if len(todo) > FEW:
        return None
    sources = [job.source for job in todo if isinstance(job.source, Path)]
    if len(sources) < len(todo) or any(source.is_fifo() for source in sources):
        return None
    samples = sum(map(_samples, sources))
    stages = stages_of(filter.unrolled(Border()))
    of_taps = sum(_taps(each.operation) * _tap_seconds(each.operation) for each in stages)
    return samples * (SAMPLE_SECONDS + of_taps) / min(cores(), MOST_CORES)


def _tap_seconds(operation: Operation) -> float:
    if isinstance(operation, Correlation):
        return TAP_SECONDS
    from cudafilter.operations.weighed import Weighed

    return WEIGHED_TAP_SECONDS if isinstance(operation, Weighed) else TAP_SECONDS


def _samples(path: Path) -> int:
    """Samples of an image file by its header, else its bytes; 0 where it cannot be read."""
    try:
        with local.open(path) as file:
            size = extent(file[:HEAD])
            return size.samples * frames(file) if size else len(file)
    except OSError:
        return 0


def frames(file: Source) -> int:
    """How many pictures a file holds; 1 where that cannot be told."""
    try:
        return rows.frames(file)
    except Exception:  # noqa: BLE001 - as extent() has it
        return 1


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


def for_each_core(jobs: Iterable[Job]) -> int:
    """How many of *jobs* are worth to be in work for each core, by the first one."""
    first = jobs[0][:2] if isinstance(jobs, tuple) and jobs else ()
    return WAITING if any(isinstance(path, Url) for path in first) else 1


def memory_for_images(share: float = MEMORY_SHARE) -> int | None:
    """Bytes that images in work may take together; None where the system does not tell.

    That is a *share* of the free memory.

    $CUDAFILTER_MEMORY tells it instead, where that is set. Raises ParameterError where it is no
    number of bytes.
    """
    if told := os.environ.get(MEMORY):
        if not told.isdecimal() or not int(told):
            raise ParameterError(MEMORY, f"{MEMORY} must be a number of bytes, not {told!r}")
        return int(told)
    free = free_memory()
    return None if free is None else int(free * share)


def copies(source: str, target: str, frames: int) -> int:
    """How many times its pixels an image of format *source* takes in memory while it becomes one
    of *target*.

    Of several *frames* one is decoded, one filtered and one encoded at a time.
    """
    if frames > 1:
        return decoded(source) + FILTERED + encoded(target)
    return max(COPIES, decoded(source), 1 + encoded(target))


def decoded(format: str) -> int:
    """The same while it is decoded as a whole, itself included."""
    return DECODED.get(format, 2)


def encoded(format: str) -> int:
    """The same while it is encoded as a whole, itself included."""
    return ENCODED.get(format, 3)


def footprint(data: Source, target: str | None = None, extra: int = 0) -> int:
    """Bytes of memory that an image takes from decoding to writing, by its file's *data*.

    *target* is the format that it becomes, if not its own. *extra* is what each sample takes beside
    its own bytes. Of several frames it is what those in work take, and the file where it is in
    memory.
    """
    samples, sample_bytes = stored(data)
    if not samples:
        return 0
    format, count = format_of_bytes(data[:HEAD]), frames(data)
    each = copies(format, target or format, count) * sample_bytes
    file = len(data) if count > 1 and isinstance(data, bytes) else 0
    return samples * (each + extra) + file


def stored(data: Source) -> tuple[int, int]:
    """How many samples the first image of the file *data* has, and bytes of each; 0 if unknown."""
    head = data[:HEAD]
    size = extent(head)
    if size is None and isinstance(data, bytes):  # few headers are longer, and files are large
        size = extent(data)
    if size is not None:
        return size.samples, size.bytes_per_sample
    if isinstance(data, bytes):
        return 0, 0
    try:  # a TIFF's header stands anywhere
        told = None if rows.is_decoded_whole(head) else rows.open(data, by_rows=True).header
    except Exception:  # noqa: BLE001 - what is wrong is told when it is read
        told = None
    if told is None:
        return 0, 0
    samples = told.width * told.height * told.channels
    return samples, told.pixel_bytes // samples


class Bands(NamedTuple):
    """How an image goes through by rows."""

    rows: int
    """Of a band."""
    memory: int
    """Bytes that all of it takes."""


def bands(header: Header, step: int, filter: Operation, decoded: int, encoded: int) -> Bands:
    """Bands of the image *header*, whose reader decodes *step* rows at a time.

    *decoded* and *encoded* are how many times its pixels it takes because its file is decoded or
    encoded as a whole; 0 where it is not.
    """
    row = header.pixel_bytes // header.height
    stages = list(stages_of(filter.unrolled(Border())))
    floats = FLOAT_BYTES[header.dtype] * header.width * header.channels * STAGE_COPIES * len(stages)
    each = BAND_COPIES * row + (floats if len(stages) > 1 else 0)
    room = memory_for_images() or MOST_UNTOLD
    rows = min(header.height, max(1, min(BAND_BYTES // row, room // each)))
    if not decoded:
        rows = max(step, rows // step * step)
    whole = (decoded + encoded) * row * header.height
    return Bands(rows, whole + each * (rows + sum(filter.reach[:2])))
