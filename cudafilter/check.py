"""An engine's result against the reference, by the contract that docs/check.md states."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cudafilter.errors import LimitError, ParameterError
from cudafilter.host.cores import cores, each, share
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation, whole_of
from cudafilter.operations.pixels import Pixels, require_pixels
from cudafilter.proof.agreement import AGREES as AGREES
from cudafilter.proof.agreement import CONFIDENCE as CONFIDENCE
from cudafilter.proof.agreement import QUICK as QUICK
from cudafilter.proof.agreement import Agreement as Agreement
from cudafilter.proof.planes import Index
from cudafilter.proof.proof import Proof
from cudafilter.proof.screened import Screened, Unsettled, settle
from cudafilter.proof.tolerance import Tolerance
from cudafilter.proof.verdict import Finding, examine, find, together, unproven_of
from cudafilter.proof.whole import begun

WINDOWS = 12
"""Samples in the windows of a quick check, for each sample of the image, from which on looking at
all is as quick."""

THREAD_TAPS = 1 << 22
"""Samples in the windows of a quick check that are worth a thread, 70 ms of one: with 16 threads
for one such part, it took 68 ms on 16 cores in place of 12 by one."""


def compare(
    result: Pixels,
    source: Pixels,
    filter: Operation,
    border: str | Border = Border(),
    alpha: bool = False,
    quick: bool = False,
    screen: Screened | None = None,
) -> Agreement:
    """Compare *result*, an engine's output for *source*, with the float64 reference.

    Both are (H, W) or (H, W, C), and *border* is one or its name, as apply() takes them.
    proof/tolerance.py says how far off a value may be before it rounds. NaN and infinity agree
    with the same, an infinity past float32's range with one of its sign; any other is a
    violation. Raises ParameterError if shape or type differ.

    *quick* looks at QUICK samples only, taken at random, other ones each time; at all where these
    are no more, or as quick.

    *screen* is what a device proved of *result*, see Engine.screen: the host recomputes its rows
    only. Where these contradict it, the host recomputes all and the note says so; a screen that is
    partial raises Unsettled then.
    """
    if screen is not None and not quick:
        try:
            return _screened(result, source, filter, border, alpha, screen)
        except Unsettled as why:
            if screen.partial:
                raise
            all = compare_all([result], source, filter, border, alpha)[0]
            return replace(all, note=f"checked on the CPU: {why}")
    return compare_all([result], source, filter, border, alpha, quick)[0]


def compare_all(
    results: Sequence[Pixels],
    source: Pixels,
    filter: Operation,
    border: str | Border = Border(),
    alpha: bool = False,
    quick: bool = False,
) -> list[Agreement]:
    """compare() for several results of one filter on one image: the reference runs but once."""
    started = time.perf_counter()
    border = Border.named(border)
    if not results:
        return []
    for result in results:
        _require_like(result, source)
    if source.ndim == 2:
        source, results = source[..., None], [result[..., None] for result in results]
    source = require_pixels(source, alpha)
    source, filter = begun(source, filter, border, alpha)
    tolerance = Tolerance(source, filter, border, alpha)
    proof = Proof(source, filter, border, alpha)
    windows = QUICK * proof.window
    if quick and source.size > QUICK and not (proof.fast and windows > WINDOWS * source.size):
        places = at_random(source.size)
        found = _at(results, places, source.shape, 0, proof, tolerance)
        samples = QUICK
    else:
        found = _in_rows(results, 0, proof, tolerance)
        samples = source.size
    seconds = time.perf_counter() - started
    return [_agreement(parts, samples, source.size, seconds) for parts in found]


def compare_rows(
    result: Pixels,
    first: int,
    source: Pixels,
    filter: Operation,
    border: Border,
    alpha: bool,
    places: Index | None = None,
) -> Agreement:
    """compare() for *result*, some rows of an image, all or the samples *places* in them.

    *source* is what they depend on, and in it they begin at row *first*. Raises LimitError for
    what needs the whole image.
    """
    started = time.perf_counter()
    if (name := whole_of(filter.unrolled(border))) is not None:
        raise LimitError(f"{name} is checked on the whole picture only")
    tolerance = Tolerance(source, filter, border, alpha)
    proof = Proof(source, filter, border, alpha)
    if places is None:
        (found,) = _in_rows([result], first, proof, tolerance)
        samples = result.size
    else:
        (found,) = _at([result], places, result.shape, first, proof, tolerance)
        samples = len(places)
    return _agreement(found, samples, result.size, time.perf_counter() - started)


def at_random(size: int) -> Index:
    """QUICK of so many samples, in order."""
    return np.sort(np.random.default_rng().choice(size, QUICK, replace=False))


def _in_rows(
    results: Sequence[Pixels], first: int, proof: Proof, tolerance: Tolerance
) -> list[Sequence[Finding]]:
    """What the samples of *results* show, which begin at row *first* of the source.

    By all cores, as a command checks one image at a time.
    """
    end = first + len(results[0])

    def look(y: int) -> list[Finding]:
        last = min(y + proof.step, end)
        with np.errstate(all="ignore"):  # NaN and infinity are found, not warned of
            values = proof.rows(y, last)
            parts = (result[y - first : last - first] for result in results)
            return [examine(part, values, y, tolerance, proof) for part in parts]

    bands = each(look, range(first, end, proof.step), cores())
    return list(zip(*bands, strict=True))


def _at(
    results: Sequence[Pixels],
    places: Index,
    shape: tuple[int, ...],
    first: int,
    proof: Proof,
    tolerance: Tolerance,
) -> list[Sequence[Finding]]:
    """What the samples *places* of *results* show, which begin at row *first* of the source."""
    top, x, c = np.unravel_index(places, shape)
    y = top + first
    threads = min(share(), max(1, len(places) * proof.window // THREAD_TAPS))
    parts = np.array_split(np.arange(len(places)), 8 * threads if threads > 1 else 1)
    with np.errstate(all="ignore"):
        exact = np.concatenate(each(lambda n: proof.at(y[n], x[n], c[n]), parts, threads))
        if tolerance.fixed is not None:
            limit = np.full(len(places), tolerance.fixed)
        else:
            limit = np.concatenate(each(lambda n: tolerance.at(y[n], x[n], c[n]), parts, threads))
        unproven = unproven_of(limit, results[0][top, x, c])
        found = [find(result[top, x, c], exact, limit) for result in results]
    return [
        [finding._replace(worst=(int(x[n]), int(y[n]), int(c[n])), unproven=unproven)]
        for finding, n in found
    ]


def _require_like(result: Pixels, source: Pixels) -> None:
    for name, given in {"result": result, "source": source}.items():
        if not isinstance(given, np.ndarray):
            raise ParameterError(name, f"must be an array, not of {type(given).__name__}")
    if result.shape != source.shape or result.dtype != source.dtype:
        raise ParameterError(
            "result",
            f"{result.dtype} {result.shape} is not of the source's {source.dtype} {source.shape}",
        )


def _screened(
    result: Pixels,
    source: Pixels,
    filter: Operation,
    border: str | Border,
    alpha: bool,
    screen: Screened,
) -> Agreement:
    """compare() by *screen*. Raises Unsettled."""
    started = time.perf_counter()
    border = Border.named(border)
    _require_like(result, source)
    source, filter = begun(require_pixels(source, alpha), filter, border, alpha)
    proof = Proof(source, filter, border, alpha)
    tolerance = Tolerance(source, filter, border, alpha)
    found = settle(result, source, proof, tolerance, screen)
    seconds = time.perf_counter() - started
    agreement = _agreement([found], source.size, source.size, seconds)
    rows = sum(last - first for first, last in screen.rows)
    return replace(agreement, recomputed=rows * source[0].size)


def _agreement(bands: Sequence[Finding], samples: int, of: int, seconds: float) -> Agreement:
    all = together(bands)
    return Agreement(
        samples=samples,
        differing=all.differing,
        violations=all.violations,
        largest=all.largest,
        worst=all.worst,
        got=all.got,
        expected=all.expected,
        seconds=seconds,
        of=of,
        unproven=all.unproven,
        recomputed=samples,
    )
