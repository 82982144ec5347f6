"""The definition of every filter: NumPy, float64, as plain as it can be. Never optimised.

Engines are compared with this. The one liberty is that a rank-1 kernel runs as its two factors:
that changes float64's last bits only (tests hold the two forms together) and keeps ``--check``
usable.
"""

from __future__ import annotations

import numpy as np

from cudafilter.borders import Border
from cudafilter.filter import Filter, Kernel
from cudafilter.pixels import Exact, Pixels, full_scale, quantise


def apply(pixels: Pixels, filter: Filter, border: Border = Border(), alpha: bool = False) -> Pixels:
    """The filtered image, rounded and clamped to the type of *pixels*, (H, W, C)."""
    with np.errstate(over="ignore"):  # past float32's range lies infinity
        return quantise(exact(pixels, filter, border, alpha), pixels.dtype)


def exact(
    pixels: Pixels,
    filter: Filter,
    border: Border = Border(),
    alpha: bool = False,
    rows: tuple[int, int] | None = None,
) -> Exact:
    """The filter's result in native units before rounding and clamping, (H, W, C) float64.

    *alpha* says that the last channel is alpha. *rows* asks for rows ``rows[0]..rows[1]-1`` only.
    NaN and infinity count as IEEE 754 has it, in sums as in hypot.
    """
    with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, unsaid
        return _exact(pixels, filter, border, alpha, rows)


def _exact(
    pixels: Pixels,
    filter: Filter,
    border: Border,
    alpha: bool,
    rows: tuple[int, int] | None,
) -> Exact:
    first, last = rows if rows is not None else (0, pixels.shape[0])
    above, below, _, _ = filter.reach
    padded = pad(pixels, filter.reach, border)[first : last + above + below].astype(np.float64)
    source = pixels[first:last].astype(np.float64)
    if filter.is_identity:
        return source
    full = full_scale(pixels.dtype)
    if not alpha:
        combined = combine(filter, [_correlate_within(padded, filter, k) for k in filter.kernels])
        return finish(filter, combined, source, full)
    return _with_alpha(padded, source, filter, full)


def pad(pixels: Pixels, reach: tuple[int, int, int, int], border: Border) -> Pixels:
    """*pixels* with *reach* (above, below, left, right) pixels of border around."""
    above, below, left, right = reach
    widths = ((above, below), (left, right), (0, 0))
    if border.mode == "constant":
        return np.pad(pixels, widths, constant_values=border.sample(pixels.dtype))
    return np.pad(pixels, widths, mode=border.mode)  # type: ignore[call-overload, no-any-return]


def correlate(padded: Exact, kernel: Kernel) -> Exact:
    """Every sum of ``weights * window`` where the window fits into *padded*, (H', W', C).

    Returns (H' - rows + 1, W' - columns + 1, C).
    """
    if kernel.factors is not None:
        column, row = kernel.factors
        return _correlate(_correlate(padded, column[:, None]), row[None, :])
    return _correlate(padded, kernel.weights)


def _correlate(padded: Exact, weights: Exact) -> Exact:
    rows, columns = weights.shape
    height, width = padded.shape[0] - rows + 1, padded.shape[1] - columns + 1
    out = np.zeros((height, width, padded.shape[2]))
    for i, j in np.argwhere(weights):  # a weight of 0 is no tap: 0 * NaN would be one
        out += weights[i, j] * padded[i : i + height, j : j + width]
    return out


def _correlate_within(padded: Exact, filter: Filter, kernel: Kernel) -> Exact:
    """correlate() with one kernel of *filter*, where *padded* has the halo of all of them."""
    above, below, left, right = np.subtract(filter.reach, kernel.reach)
    height, width = padded.shape[:2]
    return correlate(padded[above : height - below, left : width - right], kernel)


def combine(filter: Filter, results: list[Exact]) -> Exact:
    """The kernels' results in one: itself, or the magnitude of two."""
    return np.hypot(*results) if filter.combine == "magnitude" else results[0]


def finish(filter: Filter, combined: Exact, source: Exact, full: float) -> Exact:
    """``gain * combined + source_gain * source + bias``, its change from *source* shrunk."""
    out = filter.gain * combined + _share(filter, source) + filter.bias * full
    if filter.threshold:
        change = out - source
        out = source + np.sign(change) * np.maximum(np.abs(change) - filter.threshold * full, 0)
    return out


def _share(filter: Filter, source: Exact) -> Exact | float:
    """The source's term, none where its gain is 0: 0 * NaN would be one."""
    return filter.source_gain * source if filter.source_gain else 0.0


def _with_alpha(padded: Exact, source: Exact, filter: Filter, full: float) -> Exact:
    """exact() where the last channel is alpha; see Filter for the two ways."""
    alphas = padded[..., -1:] / full
    premultiplied = padded[..., :-1] * alphas
    colour, alpha = source[..., :-1], source[..., -1:] / full
    sums = [_correlate_within(premultiplied, filter, k) for k in filter.kernels]
    coverage = [_correlate_within(alphas, filter, k) for k in filter.kernels]
    if filter.alpha == "keep":
        # The last term makes an infinite colour NaN: times an absence of 0 or nearly so, it is
        # anything.
        sums = [
            s + colour * (k.sum - a) + (colour - colour)
            for k, s, a in zip(filter.kernels, sums, coverage, strict=True)
        ]
        out = finish(filter, combine(filter, sums), colour, full)
        return np.concatenate([out, source[..., -1:]], axis=2)
    above = filter.gain * combine(filter, sums) + _share(filter, colour * alpha)
    below = filter.gain * combine(filter, coverage) + _share(filter, alpha)
    visible = below > 0
    out = np.where(visible, above / np.where(visible, below, 1.0) + filter.bias * full, 0.0)
    return np.concatenate([out, below * full], axis=2)
