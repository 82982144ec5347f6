"""What readers and writers do to samples: alpha made straight, bits spread and drawn together."""

from __future__ import annotations

import numpy as np

from cudafilter.operations.pixels import Pixels, full_scale


def straight(pixels: Pixels) -> Pixels:
    """Straight alpha from premultiplied, rounded to nearest; transparent colour becomes 0."""
    full = full_scale(pixels.dtype)
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        exact = pixels.astype(np.float64)
    alphas = exact[..., -1:]
    visible = alphas > 0
    colour = np.where(visible, exact[..., :-1] * full / np.where(visible, alphas, 1), 0)
    if pixels.dtype.kind == "u":
        colour = np.minimum(np.rint(colour), full)
    with np.errstate(over="ignore"):
        return np.concatenate([colour.astype(pixels.dtype), pixels[..., -1:]], axis=2)


def spread(samples: Pixels, bits: int) -> Pixels:
    """Samples of 0 to 2**bits - 1 over the whole range of uint8, or of uint16 above 8 bits.

    Rounded to nearest, so that drawn() gives the same samples again. *bits* is 1 to 16. Example:
    of 10 bits, 1023 becomes 65535 and 512 becomes 32800.
    """
    wide = bits > 8
    full, most = (65535 if wide else 255), (1 << bits) - 1
    if most != full:
        samples = (samples.astype(np.uint32) * full + most // 2) // most
    return np.ascontiguousarray(samples, np.uint16 if wide else np.uint8)


def drawn(pixels: Pixels, bits: int) -> Pixels:
    """uint16 *pixels* as samples of *bits*, 9 to 16, in uint16, each the nearest one."""
    if bits == 16:
        return pixels
    most = (1 << bits) - 1
    return ((pixels.astype(np.uint32) * most + 32767) // 65535).astype(np.uint16)


def scaling_note(bits: int) -> list[str]:
    """What spread() does, for the user; nothing where it changes nothing."""
    if bits in (8, 16):
        return []
    return [f"{bits}-bit samples scaled to {16 if bits > 8 else 8} bits"]
