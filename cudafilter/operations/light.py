"""Linear light: from samples, by the curves that an image's profile tells, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ImageError
from cudafilter.host.cores import each
from cudafilter.operations.pixels import Exact, Pixels, bands, full_scale

MOST_STEPS = 16
"""Most bounds that are passed one after the other: past that a search by halves is faster."""


@dataclass(frozen=True)
class Power:
    """``(a x + b)^g + c``, and ``e x + f`` where x is less than *d*; both of 0 to 1."""

    g: float
    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0
    e: float = 0.0
    f: float = 0.0

    def __call__(self, samples: Exact) -> Exact:
        """The light of *samples*, both as fractions of full scale."""
        powers = np.maximum(self.a * samples + self.b, 0.0) ** self.g + self.c
        return np.where(samples >= self.d, powers, self.e * samples + self.f)


@dataclass(frozen=True)
class Table:
    """Lines between *values*, which are as far apart as each other and fractions of 65535."""

    values: tuple[int, ...]

    def __call__(self, samples: Exact) -> Exact:
        """As Power."""
        last = len(self.values) - 1
        found: Exact = np.interp(samples * last, np.arange(last + 1), self.values)
        return found / 65535


Curve = Power | Table

IDENTITY = Power(1.0)
SRGB = Power(2.4, 1 / 1.055, 0.055 / 1.055, 0.0, 0.04045, 1 / 12.92)
"""That of IEC 61966-2-1."""


class Light:
    """Samples of an integer *dtype* as linear light and back; one of *curves* for each colour.

    Raises ImageError where the curve gives two samples the same light, or one that is brighter
    less of it, so that there is no way back.
    """

    def __init__(self, curves: Sequence[Curve], dtype: npt.DTypeLike, alpha: bool) -> None:
        self.dtype = np.dtype(dtype)
        found = [_tables(curve, self.dtype.name) for curve in curves]
        if alpha:  # which is no light
            found.append(_tables(IDENTITY, self.dtype.name))
        self._bounds = [bounds for _, bounds, _ in found]
        self._groups = []
        """Channels side by side that have one curve, with its light and its way back."""
        for _, group in groupby(range(len(found)), lambda c: id(found[c][2])):
            channels = list(group)
            light, _, back = found[channels[0]]
            self._groups.append((slice(channels[0], channels[-1] + 1), light, back))

    def decoded(self, pixels: Pixels) -> Pixels:
        """The light of *pixels*, (N, W, C): the nearest float32 to the curve, 0 to 1."""
        out = np.empty(pixels.shape, np.float32)

        def do(band: slice) -> None:
            for channels, light, _ in self._groups:
                out[band, :, channels] = np.take(light, pixels[band, :, channels])

        each(do, bands(pixels))
        return out

    def encoded(self, light: Pixels) -> Pixels:
        """The samples of *light*, (N, W, C) float32: rounded half to even, and clamped.

        What is less than black, NaN too, becomes 0.
        """
        out = np.empty(light.shape, self.dtype)

        def do(band: slice) -> None:
            for channels, _, back in self._groups:
                out[band, :, channels] = back(light[band, :, channels])

        each(do, bands(light))
        return out

    def bounds(self, samples: Pixels) -> tuple[Exact, Exact]:
        """The least and the most light that rounds to *samples*, (N, W, C); a tie to even ones."""
        low, high = np.empty(samples.shape), np.empty(samples.shape)
        for c, bounds in enumerate(self._bounds):
            ends = np.concatenate([[-np.inf], bounds, [np.inf]])
            low[..., c], high[..., c] = ends[samples[..., c]], ends[samples[..., c] + np.intp(1)]
        return low, high


class _Back:
    """The way back by *bounds*: the light of the middle of each sample and the next one, rising.

    The first bits of a float tell how many bounds it has passed at least, which leaves few.
    """

    def __init__(self, bounds: Exact, white: np.float32) -> None:
        self._shift, self._white = 14 if len(bounds) < 256 else 10, white
        last = int(white.view(np.uint32)) >> self._shift
        edges = (np.arange(last + 2, dtype=np.uint32) << self._shift).view(np.float32)
        passed = np.searchsorted(bounds, edges)
        self._passed, self._most = passed[:-1].astype(np.int32), int(np.diff(passed).max())
        self._ends = np.append(bounds, np.nan)

    def __call__(self, light: Pixels) -> Pixels:
        """The nearest samples of *light*, float32; of a tie the even one. NaN becomes 0."""
        light = np.fmin(np.fmax(light, np.float32(0)), self._white) + np.float32(0)  # no -0
        if self._most > MOST_STEPS:
            levels = np.searchsorted(self._ends[:-1], light)
        else:
            levels = self._passed[light.view(np.uint32) >> self._shift]
            for _ in range(self._most):
                levels += self._ends[levels] < light
        levels += (self._ends[levels] == light) & (levels & 1 == 1)
        return levels


@lru_cache(16)
def _tables(curve: Curve, name: str) -> tuple[Pixels, Exact, _Back]:
    """The light of each sample of the type *name*, float32, the bounds between them, and the way
    back by these. Raises ImageError as Light does.
    """
    full = full_scale(name)
    with np.errstate(all="ignore"):  # what is no curve is refused below
        light = curve(np.arange(full + 1) / full).astype(np.float32)
        bounds = curve((np.arange(full) + 0.5) / full)
    falls = np.flatnonzero(~(light[:-1] < light[1:])).tolist()
    if not falls and np.isfinite(light).all() and (bounds[:-1] < bounds[1:]).all():
        back = _Back(bounds, light[-1])  # which may be a little more than 1, by its rounding
        falls = np.flatnonzero(back(light) != np.arange(len(light))).tolist()
        if not falls:
            return light, bounds, back
    at = falls[0] if falls else 0
    raise ImageError(
        f"the curve of its colour profile does not rise from sample {at} to {at + 1}:"
        " linear light has no way back"
    )
