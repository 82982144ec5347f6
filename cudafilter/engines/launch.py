"""Launches: which kernel runs a filter, its specialisation, geometry, weights and limits."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from cudafilter.borders import Border
from cudafilter.catalogue import BORDERS, CATALOGUE
from cudafilter.engines import box, stream
from cudafilter.errors import LimitError
from cudafilter.filter import Filter, make
from cudafilter.pixels import DTYPES, full_scale

CONSTANT_BYTES = 65536
"""Constant memory of a CUDA module, on every architecture."""

MAX_SIDE = 1 << 30
"""Most rows, and most samples in a row: twice as many must fit into an int (pixel.cuh,
border_index; stream.cu counts samples in ints)."""

MAX_BLOCKS = 2**31 - 1
"""Limit of gridDim.x."""

COMMON_SIGMAS = (1, 2, 3, 5)
"""Blurs that are worth compiling ahead, sigma in pixels."""


@dataclass(frozen=True)
class Shape:
    """How a step of the ladder is launched."""

    block: tuple[int, int, int]
    tile: tuple[int, int]
    """Output pixels a block, width and height."""


# The numbers stand in each kernel's header and must agree with it.
SHAPES: Mapping[str, Shape] = {
    "vanilla": Shape((32, 8, 1), (32, 8)),
    "constant": Shape((32, 8, 1), (32, 8)),
    "tiled": Shape((32, 16, 1), (32, 16)),
    "separable": Shape((32, 8, 1), (32, 32)),
}

ALPHAS = {None: 0, "filter": 1, "keep": 2}
"""Filter.alpha (None: no alpha channel) to the macro ALPHA."""


class Task(ctypes.Structure):
    """struct Task of pixel.cuh, field by field."""

    _fields_ = (
        ("source", ctypes.c_uint64),
        ("out", ctypes.c_uint64),
        ("source_pitch", ctypes.c_int64),
        ("out_pitch", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in (
            "width", "height", "source_width", "source_height", "x0", "y0",
            "kernel_width", "kernel_height", "anchor_x", "anchor_y", "border", "blocks_x",
            "rows", "columns",
        )),
        *((name, ctypes.c_float) for name in (
            "border_value", "gain", "source_gain", "bias", "threshold",
        )),
        ("weight_sum", ctypes.c_float * 2),
    )  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """All that a launch of one filter on one kind of pixels needs, but for the size."""

    variant: str
    defines: Mapping[str, int]
    """The specialisation's macros, see pixel.cuh."""
    weights: npt.NDArray[np.float32]
    """As the variant wants them, flat."""
    task: Task
    """Everything but the addresses and sizes."""

    @property
    def weights_in_constant_memory(self) -> bool:
        """Whether the weights go to the module's ``weights``, not to a buffer."""
        return self.variant != "vanilla"

    @property
    def block(self) -> tuple[int, int, int]:
        """Threads of a block."""
        if self.variant == "stream":
            return 32, 1, 1
        return (box.THREADS, 1, 1) if self.variant == "box" else SHAPES[self.variant].block

    @property
    def warps(self) -> int:
        """Warps of a block."""
        x, y, z = self.block
        return x * y * z // 32

    @property
    def task_format(self) -> str:
        """The task as struct.pack takes it."""
        return f"{ctypes.sizeof(Task)}s"

    def place(
        self,
        addresses: tuple[int, int],
        source_size: tuple[int, int],
        out_size: tuple[int, int],
        origin: tuple[int, int],
        resident: int,
    ) -> tuple[int, tuple[int, int, int]]:
        """Complete the task for one image; returns (blocks of the grid, threads of a block).

        *addresses* are those of source and output, sizes are (height, width) in pixels, and
        *origin* (y, x) is where in the source output starts. *resident* blocks run at a time. The
        grid is one-dimensional, so tall images meet no limit of gridDim.y. Raises LimitError.
        """
        (height, width), task = out_size, self.task
        channels = self.defines["CHANNELS"]
        if max(source_size[0], source_size[1] * channels) > MAX_SIDE:
            raise LimitError(
                f"the image is {width}x{height}; on the GPU it may have {MAX_SIDE:,} rows, and"
                " samples in a row"
            )
        itemsize = np.dtype(DTYPES[self.defines["SAMPLE"]]).itemsize
        task.source, task.out = addresses
        task.source_height, task.source_width = source_size
        task.height, task.width = out_size
        task.y0, task.x0 = origin
        task.source_pitch = pitch(source_size[1], channels * itemsize) // itemsize
        task.out_pitch = pitch(width, channels * itemsize) // itemsize
        block = self.block
        if self.variant == "stream":
            task.blocks_x = -(-width * channels // (32 * self.defines["OUTPUTS"]))
            task.rows = stream.rows_a_block(self.defines["ROWS"], height, task.blocks_x, resident)
        elif self.variant == "box":
            task.columns = box.columns_a_block(task.kernel_width, channels)
            task.blocks_x = -(-width // task.columns)
            # A block's first column sums cost about half of a row of output a row.
            task.rows = stream.rows_a_block(
                task.kernel_height // 2, height, task.blocks_x, resident
            )
        else:
            tile_width, task.rows = SHAPES[self.variant].tile
            task.blocks_x = -(-width // tile_width)
        blocks = task.blocks_x * -(-height // task.rows)
        if blocks > MAX_BLOCKS:
            raise LimitError(
                f"a {width}x{height} image needs {blocks:,} blocks; a grid holds {MAX_BLOCKS:,}"
            )
        return blocks, block


def pitch(width: int, pixel_bytes: int) -> int:
    """Bytes from row to row on the device: rows start aligned, with slack for vector access."""
    return -(-(width * pixel_bytes + 64) // 128) * 128


def prepare(
    filter: Filter, channels: int, dtype: npt.DTypeLike, border: Border, alpha: bool, variant: str
) -> Launch:
    """The launch of *filter*; ``auto`` picks the fastest kernel that can run it.

    Raises LimitError where *variant* cannot: a separable kernel asked for a filter that is not
    of rank 1, more weights than constant memory holds, more rows than stream.cu has registers
    for, or a filter that is no box for box.cu.
    """
    sample = DTYPES.index(np.dtype(dtype).name)
    mode = ALPHAS[filter.alpha if alpha else None]
    if variant == "auto":
        variant = choose(filter, sample, channels, mode)
    if variant == "separable" and not filter.rank1:
        raise LimitError(
            f"the separable kernel needs kernels of rank 1; {filter.name}'s are not",
            hint="use --variant tiled or auto",
        )
    if variant == "stream":
        filter = stream.folded(filter, mode)
    streamed = stream.specialise(filter, sample, channels, mode) if variant == "stream" else {}
    shared = box.weight(filter, sample, mode) if variant == "box" else None
    if variant == "box" and shared is None:
        raise LimitError(
            "the box kernel takes equal weights, integers without alpha and windows whose sum is"
            f" below 2^32; this is not so for {filter.name} on these pixels",
            hint="use --variant auto",
        )
    if streamed is None:
        raise LimitError(
            f"the stream kernel keeps unfinished rows in registers; {filter.name}'s kernel of"
            f" {filter.size[0]} rows and {filter.size[1]} columns is too large for them",
            hint="use --variant auto",
        )
    if not fits(filter, variant):
        rows, columns = filter.size
        raise LimitError(
            f"constant memory holds {CONSTANT_BYTES:,} bytes of weights; {filter.name}'s"
            f" {columns}x{rows} kernel needs {4 * weight_count(filter, variant):,}",
            hint="use --variant vanilla, whose weights are in global memory, or auto",
        )
    above, _, left, _ = filter.reach
    full = full_scale(dtype)
    task = Task(
        kernel_width=filter.size[1], kernel_height=filter.size[0],
        anchor_x=left, anchor_y=above,
        border=BORDERS.index(border.mode), border_value=border.sample(dtype),
        gain=filter.gain, source_gain=filter.source_gain,
        bias=filter.bias * full, threshold=filter.threshold * full,
        weight_sum=tuple(kernel.sum for kernel in filter.kernels),
    )  # fmt: skip
    defines = {
        "SAMPLE": sample,
        "CHANNELS": channels,
        "ALPHA": mode,
        "KERNELS": len(filter.kernels),
    }
    if shared is not None:
        kept = np.array([shared], np.float32)
    else:
        kept = weights(filter, variant == "separable" or bool(streamed.get("RANK1")))
    if variant == "stream":
        streamed |= stream.shortcuts(filter, kept)
    return Launch(variant, defines | streamed, kept, task)


def choose(filter: Filter, sample: int, channels: int, mode: int) -> str:
    """The variant that ``auto`` runs *filter* with: the fastest that can."""
    large = max(filter.size) >= box.WORTHWHILE
    if large and box.weight(filter, sample, mode) is not None:
        return "box"
    if stream.specialise(filter, sample, channels, mode) is not None:
        return "stream"
    if filter.rank1 and fits(filter, "separable"):
        return "separable"
    return "tiled" if fits(filter, "tiled") else "vanilla"


def fits(filter: Filter, variant: str) -> bool:
    """Whether the weights *variant* wants fit where it keeps them."""
    if variant in ("vanilla", "stream", "box"):  # stream's limit is registers, and stricter
        return True
    return 4 * weight_count(filter, variant) <= CONSTANT_BYTES


def weight_count(filter: Filter, variant: str) -> int:
    """How many weights *variant* keeps."""
    rows, columns = filter.size
    return len(filter.kernels) * (rows + columns if variant == "separable" else rows * columns)


def weights(filter: Filter, factored: bool) -> npt.NDArray[np.float32]:
    """The weights as kernels read them, flat.

    All kernels of a filter get one common size, with zeros where one is smaller. *factored*:
    column, then row, of each kernel. Else (kernels, rows, columns).
    """
    reach = np.array(filter.reach).reshape(2, 2)
    parts = []
    for kernel in filter.kernels:
        vertical, horizontal = reach - np.array(kernel.reach).reshape(2, 2)
        if factored:
            assert kernel.factors is not None
            column, row = kernel.factors
            parts += [np.pad(column, vertical), np.pad(row, horizontal)]
        else:
            parts.append(np.pad(kernel.weights, (vertical, horizontal)).ravel())
    return np.concatenate(parts).astype(np.float32)


def specialisations(variant: str) -> Iterator[dict[str, int]]:
    """Every set of macros that prepare() can ask *variant* for.

    A variant that is compiled for each kernel size has no end of them: the common ones then.
    """
    if variant not in SHAPES:
        yield from (defines for _, defines in common(variant))
        return
    for sample, channels, kernels in product(range(len(DTYPES)), (1, 2, 3, 4), (1, 2)):
        for alpha in ALPHAS.values() if channels in (2, 4) else (0,):
            yield {"SAMPLE": sample, "CHANNELS": channels, "ALPHA": alpha, "KERNELS": kernels}


def common(variant: str = "auto") -> list[tuple[str, dict[str, int]]]:
    """The kernels that most runs ask *variant* for, see kernels_for().

    Those of the catalogue's filters with their defaults and of blurs with COMMON_SIGMAS.
    """
    filters = [make("blur", sigma=sigma) for sigma in COMMON_SIGMAS]
    filters += [
        make(name)
        for name, spec in CATALOGUE.items()
        if not any(parameter.required for parameter in spec.parameters)
    ]
    return kernels_for(filters, variant)


def kernels_for(filters: Iterable[Filter], variant: str) -> list[tuple[str, dict[str, int]]]:
    """(variant, macros) of each kernel that *filters* run with, each once.

    On every sample type, gray and RGB, without alpha and with it; less what *variant* cannot run.
    """
    found = []
    for filter, dtype, channels in product(filters, DTYPES, (1, 2, 3, 4)):
        alpha = channels in (2, 4)
        with suppress(LimitError):
            ready = prepare(filter, channels, dtype, Border(), alpha, variant)
            kernel = ready.variant, dict(ready.defines)
            if kernel not in found:
                found.append(kernel)
    return found
