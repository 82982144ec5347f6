"""Results that are wrong on purpose, of every kind: what the check must refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np

from cudafilter.check import Agreement, compare_all
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Exact, Pixels, full_scale, quantise

_RANDOM = np.random.default_rng(3)

_WEIGHTS = _RANDOM.standard_normal((5, 7)) / 6

FILTERS: dict[str, Operation] = {
    **{name: make(name) for name in CATALOGUE if name != "kernel"},
    "kernel": make("kernel", weights=_WEIGHTS, bias=0.4),
    "kernel, whole": make("kernel", weights="1 4 6 4 1", normalize=True),
    "sobel --scale 5": make("sobel", scale=5),
    "scharr --scale 20": make("scharr", scale=20),
    "unsharp --amount 50": make("unsharp", amount=50),
    "sharpen --amount 0.3": make("sharpen", amount=0.3),
    "bilateral, wide": make("bilateral", sigma=4, range=0.6, radius=9),
    "bilateral, narrow": make("bilateral", sigma=1, range=0.02),
    "levels, all": make("levels", black=0.1, white=0.8, gamma=2.2),
    "threshold --otsu": make("threshold", otsu=True),
    "denoise, strong": make("denoise", strength=0.3, patch=3, search=9),
    "median then bilateral": Chain((Link(make("median")), Link(make("bilateral", sigma=1)))),
    "blur then sobel": Chain((Link(make("blur", sigma=1)), Link(make("sobel", scale=0.2)))),
    "blur then sobel, bright": Chain((Link(make("blur", sigma=1)), Link(make("sobel")))),
    "median then sharpen": Chain((Link(make("median")), Link(make("sharpen")))),
}
"""The catalogue, with its hard cases, and chains."""

SHAPE = (72, 90)


class Wrong(NamedTuple):
    """A result that is wrong, of what image, and what would be right."""

    kind: str
    source: Pixels
    result: Pixels
    right: Pixels

    @property
    def differs(self) -> bool:
        """Whether it is wrong at all: on some images some filters show no difference."""
        if self.result.dtype != np.float32:
            return not np.array_equal(self.right, self.result)
        away = np.abs(self.right.astype(np.float64) - self.result)
        return bool((away > 1e-4 * np.abs(self.right)).any())


def image(dtype: str, channels: int) -> Pixels:
    """Noise on waves, so that all filters have something to show: gray, smooth and rough parts."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    waves = 0.5 + 0.25 * np.sin(x / 9) * np.cos(y / 7)
    noise = _RANDOM.uniform(-0.2, 0.2, (*SHAPE, channels)) * (x > 30)[..., None]
    unit = np.clip(waves[..., None] + noise, 0, 1)
    return quantise(unit * full_scale(dtype), dtype)


Run = Callable[[Pixels, Operation, Border, bool], Pixels]
"""Filters an image: an engine, or the reference."""


def wrong_results(
    filter: Operation,
    dtype: str,
    channels: int,
    border: Border,
    alpha: bool,
    run: Run = reference.apply,
) -> Iterator[Wrong]:
    """What *run* makes of images, made wrong in every way: all of one image, then of the next."""
    for wrong in _tried(filter, dtype, channels, border, alpha, run):
        if wrong.differs:
            yield wrong


def verdicts(
    wrongs: Iterable[Wrong], filter: Operation, border: Border, alpha: bool
) -> Iterator[tuple[str, Agreement]]:
    """The kind of each of *wrongs*, and what the check says of it. It defines each image once."""
    for _, of_it in groupby(wrongs, lambda wrong: id(wrong.source)):
        some = list(of_it)
        results, source = [wrong.result for wrong in some], some[0].source
        for wrong, verdict in zip(
            some, compare_all(results, source, filter, border, alpha), strict=True
        ):
            yield wrong.kind, verdict


def _tried(
    filter: Operation, dtype: str, channels: int, border: Border, alpha: bool, run: Run
) -> Iterator[Wrong]:
    source = image(dtype, channels)
    exact = reference.exact(source, filter, border, alpha)
    right = run(source, filter, border, alpha)
    for kind, result in _moved(filter, source, right, border, alpha, run):
        yield Wrong(kind, source, result, right)
    yield Wrong("gain 0.1 % off", source, quantise(1.001 * exact, dtype), right)
    if dtype == "float32":
        yield from _of_floats(filter, source, right, border, alpha, run)
    else:
        whole = isinstance(filter, Correlation) and filter.is_whole(dtype) and not alpha
        yield from _of_integers(source, exact, right, whole)


def _moved(
    filter: Operation, source: Pixels, right: Pixels, border: Border, alpha: bool, run: Run
) -> Iterator[tuple[str, Pixels]]:
    shifted = right.copy()
    shifted[16:32, 32:64] = right[16:32, 33:65]
    yield "a tile shifted by a pixel", shifted
    other = Border("wrap" if border.mode != "wrap" else "edge")
    corner = run(source, filter, other, alpha)
    above, below, left, right_of = filter.reach
    rows, columns = slice(0, max(1, above, below)), slice(0, max(1, left, right_of))
    yield "another border at a corner", np.where(_mask(right, rows, columns), corner, right)
    if right.shape[2] > 1:
        swapped = right.copy()
        swapped[..., :2] = right[..., 1::-1]
        yield "two channels swapped", swapped


def _mask(like: Pixels, rows: slice, columns: slice) -> Pixels:
    mask = np.zeros(like.shape, np.bool_)
    mask[rows, columns] = True
    return mask


def _of_integers(source: Pixels, exact: Exact, right: Pixels, whole: bool) -> Iterator[Wrong]:
    dtype = right.dtype
    full = full_scale(dtype)
    yield Wrong("cut, not rounded", source, quantise(np.floor(exact), dtype), right)
    inside = (exact > 0) & (exact < full)
    ties = inside & (exact - np.floor(exact) == 0.5)
    if whole and ties.any():
        up = right.copy()
        up[ties] = np.floor(exact[ties]) + 1
        yield Wrong("ties up", source, up, right)
        down = right.copy()
        down[ties] = np.floor(exact[ties])
        yield Wrong("ties down", source, down, right)
    # Of all samples, the one whose exact value lies nearest to a whole number.
    nearest = np.where(inside, np.abs(exact - np.rint(exact)), np.inf)
    place = np.unravel_index(int(np.argmin(nearest)), nearest.shape)
    for step in (-1, 1):
        one = right.copy()
        value = int(one[place]) + step
        if 0 <= value <= full:
            one[place] = value
            yield Wrong("one sample off by one", source, one, right)


def _of_floats(
    filter: Operation, source: Pixels, right: Pixels, border: Border, alpha: bool, run: Run
) -> Iterator[Wrong]:
    y, x = np.unravel_index(int(np.argmax(np.abs(right[..., 0]))), right.shape[:2])
    one = right.copy()
    one[y, x, 0] *= np.float32(1.001)
    yield Wrong("one sample 0.1 % off", source, one, right)
    bright = source.copy()
    bright[60, 80, 0] = 65504
    right = run(bright, filter, border, alpha)
    zeroed = right.copy()
    zeroed[4:30, 34:60] = 0
    yield Wrong("zeros beside one bright pixel", bright, zeroed, right)
    small = source * np.float32(1e-30)
    right = run(small, filter, border, alpha)
    halved = right.copy()
    halved[4:30, 34:60] *= np.float32(0.5)
    if np.abs(halved).max() < 1e-20:  # no bias
        yield Wrong("halves of an image of 1e-30", small, halved, right)
