"""What pixels are: shapes, sample types, full scale and rounding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ParameterError

Pixels = npt.NDArray[Any]
"""C-contiguous ``(H, W, C)``, C in 1..4, uint8, uint16 or float32."""

Exact = npt.NDArray[np.float64]

DTYPES: tuple[str, ...] = ("uint8", "uint16", "float32")

KINDS = (*DTYPES, "float64")
"""What engines take: float64 only between the stages of a chain, see precision.between()."""


def full_scale(dtype: npt.DTypeLike) -> float:
    """The sample value that means white: 255, 65535, or 1.0 for float32."""
    dtype = np.dtype(dtype)
    return float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0


def require_pixels(
    pixels: Pixels, alpha: bool = False, kinds: tuple[str, ...] = DTYPES, name: str = "pixels"
) -> Pixels:
    """Return *pixels* C-contiguous, or raise ParameterError where they break the contract.

    *alpha* says that the last channel is alpha, so it needs 2 or 4 channels. *kinds* are the types
    that are taken, and *name* is the argument that they are.
    """
    if not isinstance(pixels, np.ndarray):
        kind = type(pixels).__name__
        raise ParameterError(name, f"{name} must be an array (H, W) or (H, W, C), not of {kind}")
    if pixels.ndim != 3:
        what = f"{name} must be an array (H, W) or (H, W, C), not of shape {pixels.shape}"
        raise ParameterError(name, what)
    if pixels.dtype.name not in kinds or not pixels.dtype.isnative:
        raise ParameterError(
            name,
            f"{name} must be {', '.join(DTYPES)} in native order, not {pixels.dtype}",
            hint="convert them first; white is 255 of uint8, 65535 of uint16 and 1.0 of float32",
        )
    height, width, channels = pixels.shape
    if height < 1 or width < 1 or not 1 <= channels <= 4:
        what = f"{name} must have H >= 1, W >= 1 and 1 to 4 channels, not {pixels.shape}"
        raise ParameterError(name, what)
    if alpha and channels not in (2, 4):
        raise ParameterError("alpha", f"alpha needs 2 or 4 channels, not {channels}")
    return np.ascontiguousarray(pixels)


def largest_finite(pixels: Pixels) -> float:
    """The largest absolute value of *pixels* but for NaN and infinity; 0 where there is no other.

    Takes memory only where there are such.
    """
    low, high = float(pixels.min()), float(pixels.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        finite = np.isfinite(pixels)
        low = float(np.min(pixels, where=finite, initial=0))
        high = float(np.max(pixels, where=finite, initial=0))
    return max(abs(low), abs(high))


def bands(pixels: Pixels, samples: int = 1 << 16) -> list[slice]:
    """Rows of *pixels*, (N, W, C), in bands of so many *samples*, which stay in the cache."""
    step = max(1, samples // max(1, pixels[:1].size))
    return [slice(y, y + step) for y in range(0, len(pixels), step)]


def quantise(exact: Exact, dtype: npt.DTypeLike) -> Pixels:
    """Float64 values in native units to *dtype*: integers round half to even, then clamp."""
    dtype = np.dtype(dtype)
    if dtype.kind == "u":
        return np.clip(np.rint(exact), 0, full_scale(dtype)).astype(dtype)
    return exact.astype(dtype)


def in_floats(samples: Pixels, to: npt.DTypeLike = np.float32) -> Pixels:
    """Integers as floats of the type *to* from 0 to 1."""
    return np.divide(samples, full_scale(samples.dtype), dtype=to)
