"""DLPack's capsules, the streams of other libraries, and the driver's calls; no GPU is wanted."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from types import SimpleNamespace
from typing import Any
from weakref import ref

import numpy as np
import pytest

from cudafilter.engines.cuda import dlpack, views
from cudafilter.errors import EngineUnavailable
from cudafilter.nvidia import driver as nvidia
from cudafilter.nvidia.driver import LEGACY

PIXELS = np.arange(60, dtype=np.uint16).reshape(4, 5, 3)
STRIDES = (15, 3, 1)


class Owner:
    """What a capsule keeps alive."""


class Lent:
    """PIXELS, by a capsule of ours in the host's memory, as NumPy takes it."""

    def __init__(self, versioned: bool) -> None:
        owner = Owner()
        self.owner = ref(owner)
        told = dlpack.Array(PIXELS.ctypes.data, PIXELS.shape, STRIDES, "u2", (1, 0))
        self._capsule: Any = dlpack.capsule(told, owner, versioned)

    def __dlpack__(self, **_: object) -> Any:
        capsule, self._capsule = self._capsule, None
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


VERSIONED = pytest.mark.parametrize("versioned", [False, True], ids=["plain", "versioned"])


@VERSIONED
def test_others_take_a_capsule_without_a_copy(versioned: bool) -> None:
    lent = Lent(versioned)
    array: Any = np.from_dlpack(lent)
    assert array.ctypes.data == PIXELS.ctypes.data
    np.testing.assert_array_equal(array, PIXELS)
    assert lent.owner() is not None
    del array
    assert lent.owner() is None
    assert not dlpack._lent


@VERSIONED
def test_a_capsule_that_nobody_takes_keeps_nothing(versioned: bool) -> None:
    lent = Lent(versioned)
    assert lent.owner() is not None
    lent.__dlpack__()
    assert lent.owner() is None
    assert not dlpack._lent


@VERSIONED
def test_a_capsule_is_taken_once_and_given_back_once(versioned: bool) -> None:
    lent = Lent(versioned)
    capsule = lent.__dlpack__()
    array, give_back = dlpack.taken(capsule)
    assert array == dlpack.Array(PIXELS.ctypes.data, PIXELS.shape, STRIDES, "u2", (1, 0))
    with pytest.raises(ValueError, match="nobody has taken"):
        dlpack.taken(capsule)
    del capsule
    gc.collect()
    assert lent.owner() is not None  # it is ours now
    give_back()
    give_back()
    assert lent.owner() is None


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_capsules_of_others(version: Any) -> None:
    other = np.arange(12, dtype=np.float32).reshape(3, 4)
    read_only = other.view()
    read_only.flags.writeable = version is None
    held = sys.getrefcount(read_only)
    array, give_back = dlpack.taken(read_only.__dlpack__(max_version=version))
    assert (array.address, array.shape, array.kind) == (other.ctypes.data, (3, 4), "f4")
    assert array.strides in (None, (4, 1))
    assert array.read_only == (version is not None)
    assert sys.getrefcount(read_only) == held + 1
    give_back()
    assert sys.getrefcount(read_only) == held


def test_what_is_no_capsule_is_refused() -> None:
    with pytest.raises(ValueError, match="no capsule"):
        dlpack.taken(PIXELS)


def test_the_driver_s_struct_is_laid_out_as_the_driver_s() -> None:
    """CUDA_MEMCPY2D, by the offsets that a C compiler gives it."""
    offsets = {name: getattr(nvidia._Copy, name).offset for name, _ in nvidia._Copy._fields_}
    assert (offsets["source"], offsets["source_pitch"]) == (32, 48)
    assert (offsets["to_x"], offsets["to"], offsets["to_pitch"]) == (56, 88, 104)
    assert (offsets["width"], offsets["height"], ctypes.sizeof(nvidia._Copy)) == (112, 120, 128)


def test_streams_of_every_library_are_known() -> None:
    theirs = [
        SimpleNamespace(ptr=7), SimpleNamespace(cuda_stream=7), SimpleNamespace(handle=7),
        SimpleNamespace(handle=ctypes.c_void_p(7)), SimpleNamespace(__cuda_stream__=lambda: (0, 7)),
    ]  # fmt: skip
    for each in theirs:
        found = views.stream_of(each, PIXELS)
        assert (found.handle, found.stays) == (7, True)
    assert views.stream_of(7, PIXELS) == views.Stream(7)
    assert not views.stream_of(7, PIXELS).stays
    assert views.stream_of(0, PIXELS) == views.stream_of(None, PIXELS) == views.Stream(LEGACY)


@pytest.mark.parametrize(
    ("library", "asked"),
    [("cupy", "get_current_stream"), ("torch", "current_stream")],
)
def test_the_stream_is_the_one_on_which_the_library_works(
    library: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SimpleNamespace(ptr=9)
    cuda = SimpleNamespace(**{asked: lambda *_: now})
    monkeypatch.setitem(sys.modules, library, SimpleNamespace(cuda=cuda))
    array = type("ndarray", (), {"__module__": f"{library}._core"})()
    assert views.stream_of(None, array) == views.Stream(9, now)


def test_a_host_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "DRIVER", "libno-cuda.so.1")
    with pytest.raises(EngineUnavailable, match="the NVIDIA driver cannot be loaded"):
        nvidia.Driver()


LEAVING = """
import atexit

def late():
    array, give_back = dlpack.taken(capsule)
    give_back()  # as a library does when the interpreter is gone
    print(kept() is not None, array.address == told.address)

atexit.register(late)  # runs behind what is registered later
from weakref import ref
from cudafilter.engines.cuda import dlpack

class Owner: ...

owner = Owner()
kept = ref(owner)
told = dlpack.Array(4096, (6,), (1,), "u1", (2, 0))
capsule = dlpack.capsule(told, owner, VERSIONED)
del owner
"""


@VERSIONED
def test_what_others_hold_at_the_end_of_the_process_is_left_to_them(versioned: bool) -> None:
    code = LEAVING.replace("VERSIONED", str(versioned))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\n", "")
