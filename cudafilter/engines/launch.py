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
    """How a variant is launched."""

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
        *((name, ctypes.c_int32) for name in (
            "width", "height", "source_width", "source_height", "x0", "y0",
            "kernel_width", "kernel_height", "anchor_x", "anchor_y", "border", "blocks_x",
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
        source: int,
        out: int,
        source_size: tuple[int, int],
        out_size: tuple[int, int],
        x0: int,
        y0: int,
    ) -> None:
        """Set the task's addresses, (height, width) sizes and where in the source output starts."""
        self.task.source, self.task.out = source, out
        self.task.source_height, self.task.source_width = source_size
        self.task.height, self.task.width = out_size
        self.task.x0, self.task.y0 = x0, y0

    def geometry(self, width: int, height: int) -> tuple[int, int, tuple[int, int, int]]:
        """(blocks a row of tiles, blocks in all, CUDA block) for *width* x *height* pixels.

        The grid is one-dimensional, so tall images meet no limit of gridDim.y. Raises LimitError.
        """
        if max(width, height) > MAX_SIDE:
            raise LimitError(
                f"the image is {width}x{height}; a side may have {MAX_SIDE:,} pixels on the GPU"
            )
        tile_width, tile_height = SHAPES[self.variant].tile
        blocks_x = -(-width // tile_width)
        blocks = blocks_x * -(-height // tile_height)
        if blocks > MAX_BLOCKS:
            raise LimitError(
                f"a {width}x{height} image needs {blocks:,} blocks; a grid holds {MAX_BLOCKS:,}"
            )
        return blocks_x, blocks, SHAPES[self.variant].block


def prepare(
    filter: Filter, channels: int, dtype: npt.DTypeLike, border: Border, alpha: bool, variant: str
) -> Launch:
    """The launch of *filter*; ``auto`` picks the fastest kernel that can run it.

    Raises LimitError where *variant* cannot: a separable kernel asked for a filter that is not
    of rank 1, or more weights than constant memory holds.
    """
    if variant == "auto":
        variant = choose(filter)
    if variant == "separable" and not filter.rank1:
        raise LimitError(
            f"the separable kernel needs kernels of rank 1; {filter.name}'s are not",
            hint="use --variant tiled or auto",
        )
    if not fits(filter, variant):
        above, below, left, right = filter.reach
        raise LimitError(
            f"constant memory holds {CONSTANT_BYTES:,} bytes of weights; {filter.name}'s"
            f" {left + 1 + right}x{above + 1 + below} kernel needs"
            f" {4 * weight_count(filter, variant):,}",
            hint="use --variant vanilla, whose weights are in global memory, or auto",
        )
    above, below, left, right = filter.reach
    full = full_scale(dtype)
    task = Task(
        kernel_width=left + 1 + right, kernel_height=above + 1 + below,
        anchor_x=left, anchor_y=above,
        border=BORDERS.index(border.mode), border_value=border.sample(dtype),
        gain=filter.gain, source_gain=filter.source_gain,
        bias=filter.bias * full, threshold=filter.threshold * full,
        weight_sum=tuple(kernel.sum for kernel in filter.kernels),
    )  # fmt: skip
    defines = {
        "SAMPLE": DTYPES.index(np.dtype(dtype).name),
        "CHANNELS": channels,
        "ALPHA": ALPHAS[filter.alpha if alpha else None],
        "KERNELS": len(filter.kernels),
    }
    return Launch(variant, defines, weights(filter, variant), task)


def choose(filter: Filter) -> str:
    """The variant that ``auto`` runs *filter* with: the fastest that can."""
    if filter.rank1 and fits(filter, "separable"):
        return "separable"
    return "tiled" if fits(filter, "tiled") else "vanilla"


def fits(filter: Filter, variant: str) -> bool:
    """Whether the weights *variant* wants fit where it keeps them."""
    return variant == "vanilla" or 4 * weight_count(filter, variant) <= CONSTANT_BYTES


def weight_count(filter: Filter, variant: str) -> int:
    """How many float32 weights() gives."""
    above, below, left, right = filter.reach
    rows, columns = above + 1 + below, left + 1 + right
    return len(filter.kernels) * (rows + columns if variant == "separable" else rows * columns)


def weights(filter: Filter, variant: str) -> npt.NDArray[np.float32]:
    """The weights as *variant* reads them, flat.

    All kernels of a filter get one common size, its reach, with zeros where one is smaller.
    ``separable``: column, then row, of each kernel. Others: (kernels, rows, columns).
    """
    reach = np.array(filter.reach).reshape(2, 2)
    parts = []
    for kernel in filter.kernels:
        vertical, horizontal = reach - np.array(kernel.reach).reshape(2, 2)
        if variant == "separable":
            assert kernel.factors is not None
            column, row = kernel.factors
            parts += [np.pad(column, vertical), np.pad(row, horizontal)]
        else:
            parts.append(np.pad(kernel.weights, (vertical, horizontal)).ravel())
    return np.concatenate(parts).astype(np.float32)


def specialisations(variant: str) -> Iterator[dict[str, int]]:
    """Every set of macros that prepare() can ask *variant* for."""
    del variant  # the ladder's steps all have the same
    for sample, channels, kernels in product(range(len(DTYPES)), (1, 2, 3, 4), (1, 2)):
        for alpha in ALPHAS.values() if channels in (2, 4) else (0,):
            yield {"SAMPLE": sample, "CHANNELS": channels, "ALPHA": alpha, "KERNELS": kernels}
