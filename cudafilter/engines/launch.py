"""Launches: which kernel runs a filter, its specialisation, geometry, weights and limits."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cudafilter.borders import Border
from cudafilter.catalogue import BORDERS, CATALOGUE
from cudafilter.engines import box, floats, stream, tensor, wide
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

BLOCKED_WORTHWHILE = 22 * 22
"""Taps of a dense kernel from which on ``auto`` takes blocked.cu and not stream.cu."""

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
    "blocked": Shape((256, 1, 1), (128, 32)),
}

SINGLE = ("box", "wide", "blocked", "tensor")
"""Variants that take one kernel, not two and their magnitude."""

FACTORED = ("separable", "wide")
"""Variants that keep a column and a row for weights; stream does so too where that is shorter."""

ALIGNMENT = {"wide": 4, "blocked": 8}
"""Multiple of weights that columns and rows are filled up to, for variants that want that."""

ALPHAS = {None: 0, "filter": 1, "keep": 2}
"""Filter.alpha (None: no alpha channel) to the macro ALPHA."""


class Task(ctypes.Structure):
    """struct Task of pixel.cuh, field by field."""

    _fields_ = (
        ("source", ctypes.c_uint64),
        ("out", ctypes.c_uint64),
        ("scratch", ctypes.c_uint64),
        ("source_pitch", ctypes.c_int64),
        ("out_pitch", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in (
            "width", "height", "source_width", "source_height", "x0", "y0",
            "kernel_width", "kernel_height", "anchor_x", "anchor_y", "border", "blocks_x",
            "rows", "columns", "edges_left", "edges_right",
        )),
        *((name, ctypes.c_float) for name in (
            "border_value", "gain", "source_gain", "bias", "threshold", "unit", "share", "most",
        )),
        ("weight_sum", ctypes.c_float * 2),
        ("gaps", ctypes.c_int32),
        ("starts", ctypes.c_int32),
        ("piece", ctypes.c_int32),
    )  # fmt: skip


class Step(NamedTuple):
    """One kernel launch of those that filter an image, one after the other on one stream."""

    function: str
    task: bytes
    blocks: int
    """Of the one-dimensional grid: tall images meet no limit of gridDim.y."""
    threads: tuple[int, int, int]


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
    def functions(self) -> tuple[str, ...]:
        """The kernels' names in the module; the first one is what geometry depends on."""
        return {"wide": wide.FUNCTIONS, "box": box.FUNCTIONS}.get(self.variant, ("filter",))

    @property
    def block(self) -> tuple[int, int, int]:
        """Threads of a block."""
        if self.variant in SHAPES:
            return SHAPES[self.variant].block
        warps = wide.WARPS if self.variant == "wide" else self.defines.get("WARPS", 1)
        return 32 * warps, 1, 1

    @property
    def warps(self) -> int:
        """Warps of a block."""
        x, y, z = self.block
        return x * y * z // 32

    @property
    def step(self) -> int:
        """Rows and columns that parts of an output start at multiples of, to have the same bits."""
        return tensor.STEP if self.variant == "tensor" else 1

    @property
    def task_format(self) -> str:
        """The task as struct.pack takes it."""
        return f"{ctypes.sizeof(Task)}s"

    def scratch_bytes(
        self,
        source_size: tuple[int, int],
        out_size: tuple[int, int],
        origin: tuple[int, int],
        resident: int,
    ) -> int:
        """Device memory that place() wants beside source and output; enough for fewer rows too."""
        channels, sample = self.defines["CHANNELS"], self.defines["SAMPLE"]
        if self.variant == "wide":
            terms = self.defines["TERMS"]
            return wide.scratch_bytes(self.task.kernel_width, channels, out_size[1], terms)
        if self.variant == "box":
            found = self._strips(source_size, out_size, origin)
            row = box.length(sample, self.defines["WARPS"]) * np.dtype(DTYPES[sample]).itemsize
            return found.edges * source_size[0] * row + box.start_bytes(
                self.task.kernel_height, out_size[0], found.strips, resident, self.defines
            )
        return 0

    def _strips(
        self, source_size: tuple[int, int], out_size: tuple[int, int], origin: tuple[int, int]
    ) -> box.Geometry:
        return box.geometry(
            self.task.kernel_width, self.task.anchor_x, self.defines["SAMPLE"],
            self.defines["CHANNELS"], self.defines["WARPS"],
            source_size[1], out_size[1], origin[1],
        )  # fmt: skip

    def place(
        self,
        addresses: tuple[int, int, int],
        source_size: tuple[int, int],
        out_size: tuple[int, int],
        origin: tuple[int, int],
        resident: int,
    ) -> list[Step]:
        """The kernel launches that filter one image.

        *addresses* are those of source, output and scratch (of scratch_bytes), sizes are (height,
        width) in pixels, and *origin* (y, x) is where in the source output starts. *resident*
        blocks run at a time. Raises LimitError.
        """
        (height, width), task = out_size, Task.from_buffer_copy(self.task)
        channels = self.defines["CHANNELS"]
        if max(source_size[0], source_size[1] * channels) > MAX_SIDE:
            raise LimitError(
                f"the image is {width}x{height}; on the GPU it may have {MAX_SIDE:,} rows, and"
                " samples in a row"
            )
        itemsize = np.dtype(DTYPES[self.defines["SAMPLE"]]).itemsize
        task.source, task.out, task.scratch = addresses
        task.source_height, task.source_width = source_size
        task.height, task.width = out_size
        task.y0, task.x0 = origin
        task.source_pitch = pitch(source_size[1], channels * itemsize) // itemsize
        task.out_pitch = pitch(width, channels * itemsize) // itemsize
        if self.variant == "wide":
            return self._bands(task, itemsize)
        if self.variant == "stream":
            task.blocks_x = -(-width * channels // (32 * self.defines["OUTPUTS"]))
            rows = self.defines["ROWS"]
            imbalance = stream.imbalance(rows, self.defines["SAMPLE"])
            task.rows = stream.rows_a_block(rows, height, task.blocks_x, resident, imbalance)
        elif self.variant == "tensor":
            columns = tensor.STEP * self.defines["BESIDE"] * self.defines["WARPS"]
            task.blocks_x = -(-width // columns)
            task.rows = tensor.rows(task.kernel_height, height, task.blocks_x, resident)
        elif self.variant == "box":
            strips = self._strips(source_size, out_size, origin)
            task.columns, task.blocks_x, task.edges_left, task.edges_right = strips
            task.rows, task.starts, task.piece = box.walk(
                task.kernel_height, height, task.blocks_x, resident, self.defines
            )
        else:
            tile_width, task.rows = SHAPES[self.variant].tile
            task.blocks_x = -(-width // tile_width)
        down = -(-height // task.rows)
        steps = [self._step("filter", task.blocks_x * down, task)]
        if task.starts:
            pieces = (down - 1) * (task.rows // task.piece) + task.starts
            blocks = task.blocks_x * pieces
            steps.insert(0, self._step("starts", blocks, task))
        if self.variant == "box" and strips.edges:
            edges = self._step("edges", strips.edges * source_size[0], task, box.EDGE_THREADS)
            steps.insert(0, edges)
        return steps

    def _bands(self, task: Task, itemsize: int) -> list[Step]:
        """Both passes of wide.cu over each band of rows."""
        height, out = task.height, task.out
        channels = self.defines["CHANNELS"]
        rows, steps = self.defines["BAND"], []
        for first in range(0, height, rows):
            band = Task.from_buffer_copy(task)
            band.height = min(rows, height - first)
            band.y0 = task.y0 + first
            band.out = out + first * task.out_pitch * itemsize
            size = band.height, band.width
            band.blocks_x, *blocks = wide.blocks(band.kernel_width, channels, size)
            steps += [self._step(*of, band) for of in zip(wide.FUNCTIONS, blocks, strict=True)]
        return steps

    def _step(self, function: str, blocks: int, task: Task, threads: int | None = None) -> Step:
        if blocks > MAX_BLOCKS:
            raise LimitError(
                f"a {task.width}x{task.height} image needs {blocks:,} blocks; a grid holds"
                f" {MAX_BLOCKS:,}"
            )
        return Step(function, bytes(task), blocks, (threads, 1, 1) if threads else self.block)


def pitch(width: int, pixel_bytes: int) -> int:
    """Bytes from row to row on the device: rows start aligned, with slack for vector access."""
    return -(-(width * pixel_bytes + 64) // 128) * 128


def prepare(
    filter: Filter, channels: int, dtype: npt.DTypeLike, border: Border, alpha: bool, variant: str
) -> Launch:
    """The launch of *filter*; ``auto`` picks the fastest kernel that can run it.

    Raises LimitError where *variant* cannot: see _require.
    """
    return _prepared(filter, channels, np.dtype(dtype).name, border, alpha, variant)


@functools.lru_cache(16)  # many images take one filter, and this takes 0.3 ms
def _prepared(
    filter: Filter, channels: int, dtype: str, border: Border, alpha: bool, variant: str
) -> Launch:
    sample = DTYPES.index(dtype)
    mode = ALPHAS[filter.alpha if alpha else None]
    if variant == "auto":
        variant = choose(filter, sample, channels, mode)
    if variant == "stream":
        filter = stream.folded(filter, mode)
    _require(filter, variant, sample, channels, mode)
    scale = floats.bounded(filter, mode) if dtype == "float32" else floats.Bounded(filter, 1.0)
    filter = scale.filter
    above, _, left, _ = filter.reach
    full = full_scale(dtype)
    task = Task(
        kernel_width=filter.size[1], kernel_height=filter.size[0],
        anchor_x=left, anchor_y=above,
        border=BORDERS.index(border.mode), border_value=border.sample(dtype),
        gain=filter.gain, source_gain=filter.source_gain,
        bias=filter.bias * full, threshold=filter.threshold * full,
        unit=scale.unit, share=1 / scale.unit, most=scale.most,
        weight_sum=tuple(kernel.sum for kernel in filter.kernels),
    )  # fmt: skip
    defines = {
        "SAMPLE": sample,
        "CHANNELS": channels,
        "ALPHA": mode,
        "KERNELS": len(filter.kernels),
    }
    if variant == "stream":
        defines |= stream.specialise(filter, sample, channels, mode) or {}
    if variant == "box":
        defines |= box.specialise(filter, sample, channels)
        kept = np.array([box.weight(filter, sample, channels, mode)], np.float32)
    elif variant == "tensor":
        defines |= tensor.specialise(filter, sample, channels, mode) or {}
        kept, task.gain, task.bias, task.weight_sum[0] = tensor.scaled(filter, full)
    elif variant == "wide":
        terms = wide.terms(filter.kernels[0], sample)
        defines |= {"TERMS": len(terms), "BAND": wide.band(channels, len(terms))}
        align = ALIGNMENT["wide"]
        parts = [np.pad(factor, (0, -len(factor) % align)) for term in terms for factor in term]
        kept = np.concatenate(parts).astype(np.float32)
        task.gaps = any(not factor.all() for term in terms for factor in term)
    else:
        factored = variant in FACTORED or bool(defines.get("RANK1"))
        kept = weights(filter, factored, ALIGNMENT.get(variant, 1))
    if variant == "stream":
        defines |= stream.shortcuts(filter, kept, sample)
    return Launch(variant, defines, kept, task)


def _require(filter: Filter, variant: str, sample: int, channels: int, mode: int) -> None:
    """Raise LimitError where *variant* cannot run *filter* on such pixels."""
    rows, columns = filter.size
    terms = _terms(filter, variant, sample)
    if variant in FACTORED and not terms:
        few = ", or on integers the sum of a few" if variant == "wide" else ""
        raise LimitError(
            f"the {variant} kernel needs kernels of rank 1{few}; {filter.name}'s are not",
            hint="use --variant tiled or auto",
        )
    if variant in SINGLE and len(filter.kernels) > 1:
        raise LimitError(
            f"the {variant} kernel takes one kernel, and {filter.name} has {len(filter.kernels)}",
            hint="use --variant tiled or auto",
        )
    if variant == "box" and box.weight(filter, sample, channels, mode) is None:
        raise LimitError(
            "the box kernel takes equal weights, integers without alpha and windows whose sum is"
            f" below 2^32; this is not so for {filter.name} on these pixels",
            hint="use --variant auto",
        )
    if variant == "tensor" and tensor.specialise(filter, sample, channels, mode) is None:
        raise LimitError(
            "the tensor kernel takes one kernel of rank 1 that is not too large, uint8 without"
            f" alpha, and no share of the source; this is not so for {filter.name} here",
            hint="use --variant auto",
        )
    if variant == "stream" and stream.specialise(filter, sample, channels, mode) is None:
        raise LimitError(
            f"the stream kernel keeps unfinished rows in registers; {filter.name}'s kernel of"
            f" {rows} rows and {columns} columns is too large for them",
            hint="use --variant auto",
        )
    if not fits(filter, variant, terms):
        raise LimitError(
            f"constant memory holds {CONSTANT_BYTES:,} bytes of weights; {filter.name}'s"
            f" {columns}x{rows} kernel needs {4 * weight_count(filter, variant, terms):,}",
            hint="use --variant vanilla, whose weights are in global memory, or auto",
        )


def choose(filter: Filter, sample: int, channels: int, mode: int) -> str:
    """The variant that ``auto`` runs *filter* with: the fastest that can."""
    single, taps = len(filter.kernels) == 1, max(filter.size)
    if taps >= box.WORTHWHILE and box.weight(filter, sample, channels, mode) is not None:
        return "box"
    products = tensor.specialise(filter, sample, channels, mode)
    if products is not None and sum(filter.size) >= tensor.WORTHWHILE:
        return "tensor"
    passes = single and filter.rank1 and fits(filter, "wide")
    if passes and taps >= wide.WORTHWHILE[channels]:
        return "wide"
    if single and not filter.rank1:
        terms = _terms(filter, "wide", sample)
        if terms and wide.pays(terms, filter.size) and fits(filter, "wide", terms):
            return "wide"
    dense = single and not filter.rank1 and fits(filter, "blocked")
    if dense and filter.size[0] * filter.size[1] >= BLOCKED_WORTHWHILE:
        return "blocked"
    if stream.specialise(filter, sample, channels, mode) is not None:
        return "stream"
    if passes:
        return "wide"
    if filter.rank1 and fits(filter, "separable"):
        return "separable"
    if dense:
        return "blocked"
    return "tiled" if fits(filter, "tiled") else "vanilla"


def _terms(filter: Filter, variant: str, sample: int) -> int:
    """Products of a column and a row that *variant* needs for each kernel; 0 where there are none
    but needed."""
    if variant == "wide":
        return len(wide.terms(filter.kernels[0], sample))
    return int(filter.rank1 or variant not in FACTORED)


def fits(filter: Filter, variant: str, terms: int = 1) -> bool:
    """Whether the weights *variant* wants fit where it keeps them."""
    if variant in ("vanilla", "stream", "box", "tensor"):  # other limits are stricter, if any
        return True
    return 4 * weight_count(filter, variant, terms) <= CONSTANT_BYTES


def weight_count(filter: Filter, variant: str, terms: int = 1) -> int:
    """How many weights *variant* keeps of *terms* products, zeros to align them included."""
    alignment = ALIGNMENT.get(variant, 1)
    rows, columns = (-(-taps // alignment) * alignment for taps in filter.size)
    count = terms * (rows + columns) if variant in FACTORED else filter.size[0] * columns
    return len(filter.kernels) * count


def weights(filter: Filter, factored: bool, alignment: int = 1) -> npt.NDArray[np.float32]:
    """The weights as kernels read them, flat.

    All kernels of a filter get one common size, with zeros where one is smaller. *factored*:
    column, then row, of each kernel. Else (kernels, rows, columns). Columns and rows are filled up
    with zeros to a multiple of *alignment* weights.
    """
    reach = np.array(filter.reach).reshape(2, 2)
    rows, columns = ((0, -taps % alignment) for taps in filter.size)
    parts = []
    for kernel in filter.kernels:
        vertical, horizontal = reach - np.array(kernel.reach).reshape(2, 2)
        if factored:
            assert kernel.factors is not None
            column, row = kernel.factors
            parts += [np.pad(column, vertical + rows), np.pad(row, horizontal + columns)]
        else:
            parts.append(np.pad(kernel.weights, (vertical, horizontal + columns)).ravel())
    return np.concatenate(parts).astype(np.float32)


def specialisations(variant: str) -> Iterator[dict[str, int]]:
    """Every set of macros that prepare() can ask *variant* for.

    A variant that is compiled for each kernel size has no end of them: the common ones then.
    """
    if variant not in SHAPES:
        yield from (defines for _, defines in common(variant))
        return
    numbers = (1,) if variant in SINGLE else (1, 2)
    for sample, channels, kernels in product(range(len(DTYPES)), (1, 2, 3, 4), numbers):
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
