"""Kernels on rows without room behind: memory of others, next to which nothing may be touched."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from agreement import random_pixels
from cudafilter.engines.cuda.resident import ALIGNED, whole_of
from cudafilter.engines.cuda.variants import LADDER, ladder
from cudafilter.engines.cuda.variants.task import Launch, Pass
from cudafilter.engines.cuda.variants.together import Together
from cudafilter.errors import LimitError
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.operations.operation import Stage
from test_cuda import fit_for
from test_host import HostEngine, _aligned

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")

_libc = ctypes.CDLL(None, use_errno=True)


class Fenced:
    """*nbytes* that end where a page begins that nobody may touch; so does what lies before."""

    def __init__(self, nbytes: int, *, at_end: bool) -> None:
        pages = -(-nbytes // mmap.PAGESIZE)
        self._map = mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        first, behind = start + mmap.PAGESIZE, start + (pages + 1) * mmap.PAGESIZE
        for page in (start, behind):
            assert _libc.mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, 0) == 0
        self.address = behind - nbytes if at_end else first
        self.bytes = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(self.address))


def passes_of(
    ready: Launch, source: int, out: int, shape: tuple[int, ...]
) -> tuple[object, list[Pass]]:
    """The scratch memory, and the passes that use it."""
    height, width, channels = shape
    size = height, width
    pitches = width * channels * ready.itemsize, width * channels * ready.out_itemsize
    scratch = _aligned(1, ready.scratch_bytes(size, size, (0, 0), 8) + 128)
    scratch[:] = 0xFF
    addresses = source, out, scratch.ctypes.data
    return scratch, ready.place(addresses, size, size, (0, 0), 8, pitches)


BOTH = Together((Stage(make("sharpen"), Border()), Stage(make("sobel"), Border())))
LAYOUTS = [("uint8", 3, False), ("uint16", 2, True), ("float32", 1, False)]


@pytest.mark.parametrize(("dtype", "channels", "alpha"), LAYOUTS)
@pytest.mark.parametrize("variant", LADDER)
def test_whole_rows_need_no_room_around(
    variant: str, dtype: str, channels: int, alpha: bool, built: Path
) -> None:
    engine = HostEngine(variant, built)
    filter = BOTH if variant == "together" else fit_for(variant, 2 if variant == "rank" else 5)
    try:
        ready = ladder.prepare(filter, channels, dtype, Border(), alpha, variant)
    except LimitError as refused:
        pytest.skip(str(refused))
    library = engine.compiled(ready.variant, ready.defines)
    for times in (1, 9):
        width = times * whole_of(ready) // math.gcd(whole_of(ready), channels)
        pixels = random_pixels((21, width, channels), dtype)
        expected = engine._launch(library, ready, pixels, 21, width, (0, 0))
        for at_end in (True, False):
            source = Fenced(pixels.nbytes, at_end=at_end)
            out = Fenced(expected.nbytes, at_end=at_end)
            assert source.address % ALIGNED == out.address % ALIGNED == 0
            source.bytes[:] = pixels.reshape(-1).view(np.uint8)
            scratch, passes = passes_of(ready, source.address, out.address, pixels.shape)
            child = os.fork()  # a touch of the fence ends it
            if not child:
                right = False
                try:
                    for function, given, blocks, (x, y, _) in passes:
                        getattr(library, f"launch_{function}")(
                            given, ready.weights.ctypes.data_as(ctypes.c_void_p),
                            ctypes.c_size_t(ready.weights.size), blocks, x, y,
                        )  # fmt: skip
                    right = out.bytes.tobytes() == expected.tobytes()
                finally:
                    os._exit(0 if right else 1)
            assert os.waitpid(child, 0)[1] == 0, f"{width} pixels a row, {at_end=}"
            del scratch
