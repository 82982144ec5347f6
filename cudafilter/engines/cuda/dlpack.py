"""DLPack's capsules by ctypes: arrays that libraries hand each other without a copy.

https://dmlc.github.io/dlpack: a capsule holds a struct of an array's memory, and a deleter that
whoever takes the capsule calls once the memory is of no more use to it.
"""

from __future__ import annotations

import atexit
import ctypes
from collections.abc import Callable
from ctypes import (
    CFUNCTYPE,
    POINTER,
    addressof,
    c_char_p,
    c_int32,
    c_int64,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
    cast,
    py_object,
    pythonapi,
)
from typing import Any, NamedTuple

CUDA = 2
"""kDLCUDA."""

VERSION = (1, 0)
READ_ONLY = 1
_KINDS = {"u": 1, "f": 2}
"""DLDataTypeCode of NumPy's kinds."""

_PLAIN, _VERSIONED = b"dltensor", b"dltensor_versioned"
_USED = {_PLAIN: b"used_dltensor", _VERSIONED: b"used_dltensor_versioned"}


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", c_void_p), ("device_type", c_int32), ("device", c_int32), ("ndim", c_int32),
        ("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16),
        ("shape", POINTER(c_int64)), ("strides", POINTER(c_int64)), ("offset", c_uint64),
    )  # fmt: skip


class _Managed(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = (("tensor", _Tensor), ("context", c_void_p), ("deleter", c_void_p))


class _ManagedVersioned(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_ = (
        ("major", c_uint32), ("minor", c_uint32), ("context", c_void_p), ("deleter", c_void_p),
        ("flags", c_uint64), ("tensor", _Tensor),
    )  # fmt: skip


_Deleter = CFUNCTYPE(None, c_void_p)
"""Takes the interpreter's lock: other libraries call it from any thread."""


def _signed(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(pythonapi, name)
    function.restype, function.argtypes = result, arguments
    return function


_new = _signed("PyCapsule_New", py_object, c_void_p, c_char_p, c_void_p)
_is_valid = _signed("PyCapsule_IsValid", ctypes.c_int, py_object, c_char_p)
_pointer = _signed("PyCapsule_GetPointer", c_void_p, py_object, c_char_p)
_rename = _signed("PyCapsule_SetName", ctypes.c_int, py_object, c_char_p)
# A capsule that is destroyed must not be made an object again.
_dying_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, c_void_p, c_char_p)(
    ("PyCapsule_IsValid", pythonapi)
)
_dying_pointer = ctypes.PYFUNCTYPE(c_void_p, c_void_p, c_char_p)(
    ("PyCapsule_GetPointer", pythonapi)
)
_keep = _signed("Py_IncRef", None, py_object)


class Array(NamedTuple):
    """An array as a capsule has it."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    """In items; None where it is C-contiguous."""
    kind: str
    """``u1``, ``f4``, as NumPy's without the byte order, or what else it is."""
    device: tuple[int, int]
    """DLPack's (type, number)."""
    read_only: bool = False


class _Lent:
    """What a capsule refers to, for as long as somebody has it."""

    def __init__(self, array: Array, owner: object, versioned: bool) -> None:
        count = len(array.shape)
        self.owner = owner
        self._shape = (c_int64 * count)(*array.shape)
        assert array.strides is not None
        self._strides = (c_int64 * count)(*array.strides)
        self.managed = _ManagedVersioned() if versioned else _Managed()
        tensor = self.managed.tensor
        tensor.data, tensor.ndim = array.address, count
        tensor.device_type, tensor.device = array.device
        tensor.code, tensor.bits, tensor.lanes = (
            _KINDS[array.kind[0]], 8 * int(array.kind[1:]), 1,
        )  # fmt: skip
        tensor.shape = cast(self._shape, POINTER(c_int64))
        tensor.strides = cast(self._strides, POINTER(c_int64))
        self.managed.deleter = cast(_delete, c_void_p)
        if isinstance(self.managed, _ManagedVersioned):
            self.managed.major, self.managed.minor = VERSION
            self.managed.flags = READ_ONLY if array.read_only else 0

    @property
    def address(self) -> int:
        return addressof(self.managed)


_lent: dict[int, _Lent] = {}
"""By the address of their struct."""


def _let_go(managed: int | None) -> None:
    _lent.pop(managed or 0, None)


def _untaken(capsule: int | None) -> None:
    """Delete what nobody has taken."""
    for name in _USED:
        if _dying_is_valid(capsule, name):
            _lent.pop(_dying_pointer(capsule, name), None)


_delete, _destroy = _Deleter(_let_go), _Deleter(_untaken)


@atexit.register
def _leave() -> None:
    """Keep what others still have as long as the process lives, and have them call no Python:
    they may only let go of it when the interpreter is gone."""
    nothing = cast(pythonapi.Py_IsInitialized, c_void_p)
    for lent in _lent.values():
        lent.managed.deleter = nothing
        _keep(lent)


def capsule(array: Array, owner: object, versioned: bool) -> Any:
    """A capsule of *array*, C-contiguous or with strides; it keeps *owner* until it is deleted."""
    lent = _Lent(array, owner, versioned)
    _lent[lent.address] = lent
    return _new(lent.address, _VERSIONED if versioned else _PLAIN, cast(_destroy, c_void_p))


def taken(capsule: Any) -> tuple[Array, Callable[[], None]]:
    """The array of *capsule*, which nobody else can take then, and what gives it back.

    Raises ValueError for what is no capsule of an array.
    """
    name = next((name for name in _USED if _is_valid(capsule, name)), None)
    if name is None:
        raise ValueError("no capsule of an array that nobody has taken")
    kind = _ManagedVersioned if name == _VERSIONED else _Managed
    managed = kind.from_address(_pointer(capsule, name))
    if isinstance(managed, _ManagedVersioned) and managed.major != VERSION[0]:
        raise ValueError(f"DLPack {managed.major}.{managed.minor} is not known here")
    _rename(capsule, _USED[name])
    tensor = managed.tensor
    count = tensor.ndim
    shape = tuple(tensor.shape[:count])
    letters = {code: letter for letter, code in _KINDS.items()}
    letter = letters.get(tensor.code, f"type {tensor.code} of ")
    lanes = f"x{tensor.lanes}" if tensor.lanes != 1 else ""
    array = Array(
        (tensor.data or 0) + tensor.offset, shape,
        tuple(tensor.strides[:count]) if tensor.strides else None,
        f"{letter}{tensor.bits // 8}{lanes}", (tensor.device_type, tensor.device),
        isinstance(managed, _ManagedVersioned) and bool(managed.flags & READ_ONLY),
    )  # fmt: skip
    address, given = addressof(managed), [managed.deleter]

    def give_back() -> None:
        if given and (deleter := given.pop()):
            _Deleter(deleter)(address)

    return array, give_back
