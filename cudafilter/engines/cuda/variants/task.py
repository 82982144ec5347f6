"""What every launch has: the task that a kernel is given, geometry, weights and limits."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from cudafilter.errors import LimitError
from cudafilter.operations.borders import Border
from cudafilter.operations.choices import BORDERS
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import KINDS, full_scale

CONSTANT_BYTES = 65536
"""Constant memory of a CUDA module, on every architecture."""

SHARED_BYTES = 48 << 10
"""Shared memory that a block may have without asking for more."""

MAX_SIDE = 1 << 30
"""Most rows, and most samples in a row: twice as many must fit into an int (pixel.cuh,
border_index; stream.cu counts samples in ints)."""

MAX_BLOCKS = 2**31 - 1
"""Limit of gridDim.x."""

LARGEST = float(np.finfo(np.float32).max)

NEARLY = 1.000004
"""A result up to so many times the largest float counts as that float: rounding made the rest."""

ALPHAS = {None: 0, "filter": 1, "keep": 2}
"""Correlation.alpha (None: no alpha channel) to the macro ALPHA."""

Weights = npt.NDArray[np.float32]
Size = tuple[int, int]
"""(height, width) in pixels."""


FIELDS: tuple[tuple[str, type[ctypes._SimpleCData[Any] | ctypes.Array[Any]], str], ...] = (
    ("source", ctypes.c_uint64, "(source_height, source_width, CHANNELS), rows source_pitch apart"),
    ("out", ctypes.c_uint64, "(height, width, CHANNELS), rows out_pitch apart"),
    ("scratch", ctypes.c_uint64, "of launches that need scratch_bytes"),
    ("source_pitch", ctypes.c_int64, "samples"),
    ("out_pitch", ctypes.c_int64, "samples"),
    ("width", ctypes.c_int32, "of the output, in pixels as all sizes"),
    ("height", ctypes.c_int32, ""),
    ("source_width", ctypes.c_int32, ""),
    ("source_height", ctypes.c_int32, ""),
    ("x0", ctypes.c_int32, "where output pixel (0, 0) lies in the source"),
    ("y0", ctypes.c_int32, ""),
    ("kernel_width", ctypes.c_int32, ""),
    ("kernel_height", ctypes.c_int32, ""),
    ("anchor_x", ctypes.c_int32, ""),
    ("anchor_y", ctypes.c_int32, ""),
    ("border", ctypes.c_int32, "of pixel.cuh's enum"),
    ("blocks_x", ctypes.c_int32, "blocks side by side; blockIdx.x counts on through all rows"),
    (
        "rows",
        ctypes.c_int32,
        "output pixels a block, down (stream, box, tensor), or a band (proof)",
    ),
    ("columns", ctypes.c_int32, "output pixels a block, across (box)"),
    ("edges_left", ctypes.c_int32, "strips below this one are at the border (box)"),
    ("edges_right", ctypes.c_int32, "strips from this one on are at the border (box)"),
    ("border_value", ctypes.c_float, "native units, as bias and threshold"),
    ("gain", ctypes.c_float, ""),
    ("source_gain", ctypes.c_float, ""),
    ("bias", ctypes.c_float, ""),
    ("threshold", ctypes.c_float, ""),
    ("unit", ctypes.c_float, "of float32: see settle()"),
    ("share", ctypes.c_float, "1 / unit"),
    ("most", ctypes.c_float, "before unit; what passes the largest float32 up to here becomes it"),
    ("weight_sum", ctypes.c_float * 2, "of each kernel"),
    ("gaps", ctypes.c_int32, "whether weights of 0 lie among the taps (wide)"),
    ("starts", ctypes.c_int32, "sums that a block begins with (box)"),
    (
        "piece",
        ctypes.c_int32,
        "rows of each of these sums (box); length of the list (proof)",
    ),
    ("rank", ctypes.c_int32, "of the sample in its window, from 0 on (ranks)"),
)
"""Name, type and meaning. `tools/make_task.py` writes them as a struct into cuda_src/task.cuh."""


class Task(ctypes.Structure):
    """What a CUDA function is given."""

    _fields_ = tuple((name, kind) for name, kind, _ in FIELDS)


class Layout(NamedTuple):
    """The kind of pixels that a filter is to run on, whatever their number."""

    channels: int
    dtype: str
    """One of pixels.KINDS."""
    border: Border = Border()
    alpha: bool = False
    """The last channel is alpha."""
    unit: float = 1.0
    """The factor for results, since the filter was scaled by its inverse; see floats.py."""

    @property
    def sample(self) -> int:
        """The macro SAMPLE."""
        return KINDS.index(self.dtype)

    @property
    def full(self) -> float:
        """The sample value that means white."""
        return full_scale(self.dtype)

    def mode(self, filter: Correlation) -> int:
        """The macro ALPHA for *filter*."""
        return ALPHAS[filter.alpha if self.alpha else None]


class Pass(NamedTuple):
    """One run of a CUDA function over the image.

    Most launches have a single pass. wide.cu has two for each band: down, then across. The passes
    of a launch run one after the other on one stream.
    """

    function: str
    task: bytes
    blocks: int
    """Blocks of a one-dimensional grid, so that tall images meet no limit of gridDim.y."""
    threads: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Launch:
    """A variant made ready for one filter on one kind of pixels of any size.

    Each variant has a class of its own, which says how blocks cover an image: see _passes().
    """

    variant: str
    defines: Mapping[str, int]
    """The specialisation's macros: those of pixel.cuh and the variant's own."""
    make_weights: Callable[[], npt.NDArray[np.floating]]
    """Makes the weights in one dimension, as the variant wants them. It is a function because most
    launches are compared by cost and never run, and weights may be many."""
    task: Task
    """All of the task but addresses and sizes."""
    cost: float
    """Cost of a sample, in multiply-adds of ``stream``. Each variant tells how it was measured."""

    functions: ClassVar[tuple[str, ...]] = ("filter",)
    """CUDA functions of the module. The first one decides how many blocks are resident."""
    alignment: ClassVar[int] = 1
    """Bands must start at a multiple of so many rows and columns. Else their bits may differ from
    those of the whole image."""
    weights_in_constant_memory: ClassVar[bool] = True
    """Whether the weights, if there are any, go to the module's ``weights``, not to a buffer."""

    @cached_property
    def weights(self) -> Weights:
        """The weights that the kernel reads, flat."""
        return self.make_weights().astype(np.float32)

    @cached_property
    def key(self) -> tuple[object, ...]:
        """Equal for launches that share one loaded kernel: the same code and the same weights."""
        return self.variant, *self.defines.values(), self.weights.tobytes()

    @property
    def block(self) -> tuple[int, int, int]:
        """Threads of a block."""
        return 32 * self.defines.get("WARPS", 1), 1, 1

    @property
    def warps(self) -> int:
        """Warps of a block."""
        x, y, z = self.block
        return x * y * z // 32

    @property
    def channels(self) -> int:
        """Channels of a pixel."""
        return self.defines["CHANNELS"]

    @property
    def itemsize(self) -> int:
        """Bytes of a sample."""
        return np.dtype(KINDS[self.defines["SAMPLE"]]).itemsize

    @property
    def out_dtype(self) -> np.dtype[Any]:
        """The type of the result's samples; of most launches, that of the source's."""
        return np.dtype(KINDS[self.defines["SAMPLE"]])

    @property
    def out_itemsize(self) -> int:
        """Bytes of a sample of the result."""
        return self.out_dtype.itemsize

    @property
    def task_format(self) -> str:
        """The task as struct.pack takes it."""
        return f"{ctypes.sizeof(Task)}s"

    def scratch_bytes(self, source_size: Size, out_size: Size, origin: Size, resident: int) -> int:
        """Bytes of device memory for what one pass leaves to the next; arguments as of place().

        An output of *out_size* needs at least as much as any part of its rows.
        """
        return 0

    def place(
        self,
        addresses: tuple[int, int, int],
        source_size: Size,
        out_size: Size,
        origin: tuple[int, int],
        resident: int,
        pitches: tuple[int, int] | None = None,
    ) -> list[Pass]:
        """The passes that filter one image.

        *addresses* are those of source, output and scratch (of scratch_bytes), sizes are (height,
        width) in pixels, and *origin* (y, x) is where in the source output starts. *resident*
        blocks run at a time. Rows of source and output start *pitches* bytes apart, by default
        row_pitch(). Raises LimitError.
        """
        (height, width), task = out_size, Task.from_buffer_copy(self.task)
        if max(source_size[0], source_size[1] * self.channels) > MAX_SIDE:
            raise LimitError(
                f"the image is {width}x{height}; on the GPU it may have {MAX_SIDE:,} rows, and"
                " samples in a row"
            )
        if pitches is None:
            pitches = (
                row_pitch(source_size[1], self.channels * self.itemsize),
                row_pitch(width, self.channels * self.out_itemsize),
            )
        task.source, task.out, task.scratch = addresses
        task.source_height, task.source_width = source_size
        task.height, task.width = out_size
        task.y0, task.x0 = origin
        task.source_pitch = pitches[0] // self.itemsize
        task.out_pitch = pitches[1] // self.out_itemsize
        return self._passes(task, resident)

    def _passes(self, task: Task, resident: int) -> list[Pass]:
        """The passes of *task*, to which each variant adds how its blocks cover the output."""
        raise NotImplementedError

    def _pass(
        self, task: Task, blocks: int, function: str = "filter", threads: int | None = None
    ) -> Pass:
        if blocks > MAX_BLOCKS:
            raise LimitError(
                f"a {task.width}x{task.height} image needs {blocks:,} blocks; a grid holds"
                f" {MAX_BLOCKS:,}"
            )
        return Pass(function, bytes(task), blocks, (threads, 1, 1) if threads else self.block)


Kind = TypeVar("Kind")


class Unfit(LimitError):
    """A kernel is for operations of another kind."""


def takes(
    kind: type[Kind],
) -> Callable[
    [Callable[[Kind, Layout], Launch | LimitError]],
    Callable[[Operation, Layout], Launch | LimitError],
]:
    """Decorates the plan() of a variant that runs operations of *kind*; others are refused."""

    def decorate(
        plan: Callable[[Kind, Layout], Launch | LimitError],
    ) -> Callable[[Operation, Layout], Launch | LimitError]:
        @functools.wraps(plan)
        def checked(operation: Operation, layout: Layout) -> Launch | LimitError:
            if isinstance(operation, kind):
                return plan(operation, layout)
            variant, wanted, given = (
                plan.__module__.rpartition(".")[2],
                kind.__name__.lower(),
                type(operation).__name__.lower(),
            )
            return Unfit(
                f"the {variant} kernel runs a {wanted}, and {operation.name} is a {given}",
                hint="use --variant auto",
            )

        return checked

    return decorate


def task_of(filter: Correlation, layout: Layout) -> Task:
    """The task of *filter* on pixels of *layout*, but for addresses and sizes."""
    above, _, left, _ = filter.reach
    return Task(
        kernel_width=filter.size[1], kernel_height=filter.size[0],
        anchor_x=left, anchor_y=above,
        border=BORDERS.index(layout.border.mode), border_value=layout.border.sample(layout.dtype),
        gain=filter.gain, source_gain=filter.source_gain,
        bias=filter.bias * layout.full, threshold=filter.threshold * layout.full,
        unit=layout.unit, share=1 / layout.unit, most=NEARLY * LARGEST / layout.unit,
        weight_sum=tuple(kernel.sum for kernel in filter.kernels),
    )  # fmt: skip


def defines_of(filter: Correlation, layout: Layout) -> dict[str, int]:
    """The macros of pixel.cuh."""
    return {
        "SAMPLE": layout.sample,
        "CHANNELS": layout.channels,
        "ALPHA": layout.mode(filter),
        "KERNELS": len(filter.kernels),
    }


def in_pairs(doubles: npt.NDArray[np.floating]) -> Weights:
    """*doubles*, each as two floats: weights go to the device as floats."""
    return doubles.astype(np.float64).view(np.float32)


def row_pitch(width: int, pixel_bytes: int) -> int:
    """Bytes from row to row on the device: rows start aligned, with slack for vector access."""
    return -(-(width * pixel_bytes + 64) // 128) * 128


def taps(filter: Correlation) -> int:
    """Multiply-adds for each sample of *filter*'s result.

    Kernels of rank 1 count as their two factors where these are fewer. Example: 10 for a 5x5 blur,
    25 for a 5x5 kernel without factors.
    """
    rows, columns = filter.size
    dense = rows * columns
    return len(filter.kernels) * (min(dense, rows + columns) if filter.rank1 else dense)


def flat(filter: Correlation, factored: bool, alignment: int = 1) -> npt.NDArray[np.float64]:
    """The weights in one dimension. Smaller kernels get zeros, so that all have the same size.

    With *factored*: the column, then the row, of each kernel. Else (kernels, rows, columns).
    Columns and rows end in zeros that make their lengths multiples of *alignment*.
    """
    reach = np.array(filter.reach).reshape(2, 2)
    rows, columns = ((0, -count % alignment) for count in filter.size)
    parts = []
    for kernel in filter.kernels:
        vertical, horizontal = reach - np.array(kernel.reach).reshape(2, 2)
        if factored:
            assert kernel.factors is not None
            column, row = kernel.factors
            parts += [np.pad(column, vertical + rows), np.pad(row, horizontal + columns)]
        else:
            parts.append(np.pad(kernel.weights, (vertical, horizontal + columns)).ravel())
    return np.concatenate(parts)


def no_room(filter: Correlation, weights: int) -> LimitError | None:
    """Why *weights* weights of *filter* do not fit into constant memory; None where they fit."""
    if 4 * weights <= CONSTANT_BYTES:
        return None
    rows, columns = filter.size
    return LimitError(
        f"constant memory holds {CONSTANT_BYTES:,} bytes of weights; {filter.name}'s"
        f" {columns}x{rows} kernel needs {4 * weights:,}",
        hint="use --variant vanilla, whose weights are in global memory, or auto",
    )


def not_rank1(variant: str, filter: Correlation, but: str = "") -> LimitError:
    """The error: *variant* needs factors, and *filter* has none. *but* names its exceptions."""
    return LimitError(
        f"the {variant} kernel needs kernels of rank 1{but}; {filter.name}'s are not",
        hint="use --variant tiled or auto",
    )


def several(variant: str, filter: Correlation) -> LimitError | None:
    """Why *variant*, which takes one kernel, refuses *filter*; None where that has one kernel."""
    if len(filter.kernels) == 1:
        return None
    return LimitError(
        f"the {variant} kernel takes one kernel, and {filter.name} has {len(filter.kernels)}",
        hint="use --variant tiled or auto",
    )
