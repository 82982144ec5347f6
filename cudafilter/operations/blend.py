"""The blend of an image and what a filter made of it, and colours that are laid under alpha."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cudafilter.host.cores import each
from cudafilter.operations.area import FULL, Weights
from cudafilter.operations.pixels import Pixels, bands, full_scale

Numbers = npt.NDArray[Any]
"""uint32, uint64 or float64."""


def blend(source: Pixels, filtered: Pixels, weights: Weights, alpha: bool) -> Pixels:
    """``(source * (FULL - weight) + filtered * weight) / FULL`` at each sample, (N, W, C).

    Whole numbers are rounded half to even, from the exact quotient; floats from float64. Where the
    weight is 0 the sample is the source's and where it is FULL the filtered one, bit for bit. Alpha
    is blended so, and a colour counts as much as its alpha does: see parts().
    """
    out = np.empty(source.shape, source.dtype)
    channels = source.shape[2]
    # By whole numbers the formula gives both ends, too: to pick what lies between takes longer.
    exact = source.dtype.kind == "u" and not alpha

    def do(band: slice) -> None:
        weight = weights[band]
        whole = weight == FULL
        if whole.all():
            out[band] = filtered[band]
            return
        between = (weight > 0) & ~whole
        if exact and between.any():
            above, below = parts(
                source[band].reshape(-1, channels), filtered[band].reshape(-1, channels),
                weight.reshape(-1), alpha,
            )  # fmt: skip
            out[band] = quotient(above, below, source.dtype).reshape(out[band].shape)
            return
        out[band] = source[band]
        np.copyto(out[band], filtered[band], where=whole[..., None])
        if between.any():
            above, below = parts(
                source[band][between], filtered[band][between], weight[between], alpha
            )
            out[band][between] = quotient(above, below, source.dtype)

    each(do, bands(source))
    return out


def parts(
    source: Pixels, filtered: Pixels, weights: Weights, alpha: bool
) -> tuple[Numbers, Numbers]:
    """Numerator, (n, C), and denominator of the blend of n pixels.

    Of colours with alpha they are ``source * a + filtered * b`` and ``a + b``: a is the source's
    alpha times FULL - weight, b that of the filtered one times weight. Where both are 0, and
    without alpha, these are the weights only. Whole numbers are exact: without alpha they stay
    below 2^32, with it below 2^49.
    """
    wide = _wide(source, np.uint64 if alpha else np.uint32)
    own, other = source.astype(wide), filtered.astype(wide)
    # For each sample: NumPy is ten times as slow where it repeats a weight for three channels.
    more = np.repeat(weights.astype(wide), own.shape[1]).reshape(own.shape)
    less = np.asarray(FULL, wide) - more
    if not alpha:
        return own * less + other * more, np.asarray(FULL, wide)
    a, b = own[:, -1:] * less, other[:, -1:] * more
    colours = np.arange(own.shape[1]) < own.shape[1] - 1
    counts = (a + b != 0) & colours
    less, more = np.where(counts, a, less), np.where(counts, b, more)
    return own * less + other * more, less + more


def _wide(pixels: Pixels, whole: npt.DTypeLike) -> np.dtype[Any]:
    """The type to work in: *whole* for whole numbers."""
    return np.dtype(np.float64 if pixels.dtype.kind == "f" else whole)


def quotient(above: Numbers, below: Numbers, dtype: npt.DTypeLike) -> Pixels:
    """``above / below`` as *dtype*: whole numbers half to even from the exact quotient."""
    if above.dtype.kind == "f":
        with np.errstate(all="ignore"):  # NaN and infinity are results like others
            found: Pixels = (above / below).astype(dtype)
        return found
    whole = above // below
    rest = (above - whole * below) * 2
    whole += (rest > below) | ((rest == below) & (whole & 1 == 1))
    return whole.astype(dtype)


def flattened(pixels: Pixels, colour: Sequence[int]) -> Pixels:
    """*pixels* (H, W, C), of which the last channel is alpha, over *colour*, without it.

    *colour* has samples of 8 bits, one for each other channel. Each sample is
    ``(sample * alpha + colour * (white - alpha)) / white``, rounded as blend() does.
    """
    full = full_scale(pixels.dtype)
    wide = _wide(pixels, np.uint32)
    white = np.asarray(full, wide)
    under = np.array([sample * (full / 255) for sample in colour]).astype(wide)
    out = np.empty((*pixels.shape[:2], pixels.shape[2] - 1), pixels.dtype)

    def do(band: slice) -> None:
        own = pixels[band].astype(wide)
        above = own[..., :-1] * own[..., -1:] + under * (white - own[..., -1:])
        out[band] = quotient(above, white, pixels.dtype)

    each(do, bands(pixels))
    return out
