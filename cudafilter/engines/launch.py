"""Launches: which kernel runs a filter, its specialisation, geometry, weights and limits."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from cudafilter.borders import Border
from cudafilter.catalogue import BORDERS
from cudafilter.engines import stream
from cudafilter.errors import LimitError
from cudafilter.filter import Filter
from cudafilter.pixels import DTYPES, full_scale

CONSTANT_BYTES = 65536
"""Constant memory of a CUDA module, on every architecture."""

MAX_SIDE = 1 << 30
"""Longest image side in pixels: twice it must fit into an int (pixel.cuh, border_index)."""

MAX_BLOCKS = 2**31 - 1
"""Limit of gridDim.x."""


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
            "rows",
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
        if max(source_size) > MAX_SIDE:
            raise LimitError(
                f"the image is {width}x{height}; a side may have {MAX_SIDE:,} pixels on the GPU"
            )
        channels = self.defines["CHANNELS"]
        itemsize = np.dtype(DTYPES[self.defines["SAMPLE"]]).itemsize
        task.source, task.out = addresses
        task.source_height, task.source_width = source_size
        task.height, task.width = out_size
        task.y0, task.x0 = origin
        task.source_pitch = pitch(source_size[1], channels * itemsize) // itemsize
        task.out_pitch = pitch(width, channels * itemsize) // itemsize
        if self.variant == "stream":
            block = (32, 1, 1)
            task.blocks_x = -(-width * channels // (32 * self.defines["OUTPUTS"]))
            task.rows = stream.rows_a_block(self.defines["ROWS"], height, task.blocks_x, resident)
        else:
            block = SHAPES[self.variant].block
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
    of rank 1, or more weights than constant memory holds.
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
    factored = variant == "separable" or bool(streamed.get("RANK1"))
    return Launch(variant, defines | streamed, weights(filter, factored), task)


def choose(filter: Filter, sample: int, channels: int, mode: int) -> str:
    """The variant that ``auto`` runs *filter* with: the fastest that can."""
    if stream.specialise(filter, sample, channels, mode) is not None:
        return "stream"
    if filter.rank1 and fits(filter, "separable"):
        return "separable"
    return "tiled" if fits(filter, "tiled") else "vanilla"


def fits(filter: Filter, variant: str) -> bool:
    """Whether the weights *variant* wants fit where it keeps them."""
    if variant in ("vanilla", "stream"):  # stream's limit is registers, and stricter
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
    """Every set of macros that prepare() can ask *variant* for; of ``stream``, the common ones."""
    if variant == "stream":
        yield from stream.common()
        return
    for sample, channels, kernels in product(range(len(DTYPES)), (1, 2, 3, 4), (1, 2)):
        for alpha in ALPHAS.values() if channels in (2, 4) else (0,):
            yield {"SAMPLE": sample, "CHANNELS": channels, "ALPHA": alpha, "KERNELS": kernels}
