"""A check by what a device proved: the verdict is the host's own, and lies are found.

The device is a stand-in that tells the truth, unless the test makes it lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agreement import random_pixels
from cudafilter import check
from cudafilter.check import Agreement, compare
from cudafilter.engines import Engine
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels, quantise
from cudafilter.proof import screened as module
from cudafilter.proof.proof import Proof
from cudafilter.proof.screened import Screened, Span, Unsettled, tapped, tenth
from cudafilter.proof.tolerance import Tolerance
from cudafilter.proof.values import Values
from mutations import FILTERS, image, wrong_results

ROWS: tuple[Span, ...] = ((5, 9),)

BLUR = make("blur", sigma=2)


def honest(
    result: Pixels,
    source: Pixels,
    filter: Operation,
    border: Border = Border(),
    alpha: bool = False,
    rows: tuple[Span, ...] | None = ROWS,
) -> Screened:
    """What a device finds that does the definition's work."""
    exact = reference.exact(source, filter, border, alpha)
    wrong = quantise(exact, source.dtype) != result
    return Screened(
        np.flatnonzero(wrong),
        exact[wrong],
        result[wrong],
        0.0,
        int((~wrong).all(axis=2).sum()),
        rows or tenth(len(source)),
    )


def figures(agreement: Agreement) -> dict[str, Any]:
    """What must be the host's; of samples that are as wrong, any may be named as the worst."""
    left = ("recomputed", "worst", "got", "expected")
    return {name: value for name, value in agreement.figures().items() if name not in left}


def distance(agreement: Agreement) -> float:
    """How far the worst sample is from the reference."""
    return abs(agreement.got - agreement.expected) if agreement.violations else 0.0


CASES = {
    name: filter
    for name, filter in FILTERS.items()
    if isinstance(filter, Correlation) and not filter.is_identity
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("name", CASES)
def test_the_verdict_on_wrong_results_is_the_hosts(name: str, dtype: str, cpu: Engine) -> None:
    filter, tried = CASES[name], 0

    def run(pixels: Pixels, filter: Operation, border: Border, alpha: bool) -> Pixels:
        return cpu.run(pixels, filter, border, alpha).pixels

    for channels, alpha in [(1, False), (3, False), (4, True)]:
        border = Border("constant", 0.3)
        if Tolerance(image(dtype, channels), filter, border, alpha).fixed is None:
            continue
        for wrong in wrong_results(filter, dtype, channels, border, alpha, run):
            what = wrong.result, wrong.source, filter, border, alpha
            by_host = compare(*what)
            by_device = compare(*what, screen=honest(*what, rows=None))
            assert not by_device.ok, wrong.kind
            assert not by_device.note
            assert figures(by_device) == figures(by_host)
            # As far outside the contract, but it may allow one of them another step.
            assert abs(distance(by_device) - distance(by_host)) <= 1
            tried += 1
        what = wrong.right, wrong.source, filter, border, alpha
        agreement = compare(*what, screen=honest(*what))
        assert agreement.ok
        assert figures(agreement) == figures(compare(*what))
        assert agreement.recomputed == 4 * wrong.right[0].size
    assert tried > 5


def test_the_host_recomputes_many_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of NumPy's calls is a wait for other threads."""
    source = random_pixels((300, 20, 3), "uint8")
    right, rows = reference.apply(source, BLUR), ((20, 90), (200, 240))
    asked: list[Span] = []
    find = Proof.rows

    def told(proof: Proof, first: int, last: int) -> Values:
        asked.append((first, last))
        return find(proof, first, last)

    monkeypatch.setattr(Proof, "rows", told)
    assert compare(right, source, BLUR, screen=honest(right, source, BLUR, rows=rows)).ok
    assert sorted(asked) == list(rows)


def test_the_line_and_the_report_say_who_proved_what() -> None:
    source = random_pixels((40, 30, 3), "uint8")
    right = reference.apply(source, BLUR)
    agreement = compare(right, source, BLUR, screen=honest(right, source, BLUR))
    assert "proven: 3,600 samples, 0 unproven" in str(agreement)
    assert str(agreement).endswith("; proven on the device, 360 samples recomputed on the host")
    assert agreement.figures()["recomputed"] == 360
    assert agreement.figures()["samples"] == 3600
    plain = compare(right, source, BLUR)
    assert "device" not in str(plain)
    assert plain.figures()["recomputed"] == 3600


def missing(screen: Screened) -> Screened:
    """It misses the first sample that differs."""
    return screen._replace(
        places=screen.places[1:], values=screen.values[1:], got=screen.got[1:],
        right=screen.right + 1,
    )  # fmt: skip


def off(screen: Screened) -> Screened:
    return screen._replace(values=screen.values + 1e-9)


def more(screen: Screened) -> Screened:
    """It lists a right sample too: the first one of row 5."""
    places = np.append(screen.places, 5 * 90)
    order = np.argsort(places)
    return screen._replace(
        places=places[order],
        values=np.append(screen.values, 7.3)[order],
        got=np.append(screen.got, RIGHT[5, 0, 0])[order],
        right=screen.right - 1,
    )


def idle(screen: Screened) -> Screened:
    return screen._replace(right=screen.right - 4)


def elsewhere(screen: Screened) -> Screened:
    return screen._replace(got=screen.got ^ 1)


LIES: dict[str, Callable[[Screened], Screened]] = {
    "missed 1 samples that differ": missing,
    "values are off by up to": off,
    "took 1 samples for wrong that are right": more,
    "looked at 1,196 of 1,200 pixels": idle,
    "looked at other samples": elsewhere,
}

SOURCE = random_pixels((40, 30, 3), "uint8")
RIGHT = reference.apply(SOURCE, BLUR)


@pytest.mark.parametrize("partial", [False, True], ids=["whole", "partial"])
@pytest.mark.parametrize("wrong", [False, True], ids=["within", "outside"])
@pytest.mark.parametrize("lie", LIES)
def test_a_device_that_lies_is_not_believed(lie: str, wrong: bool, partial: bool) -> None:
    # One sample is off by one, in the host's rows: by the contract or not.
    result = RIGHT.copy()
    exact = reference.exact(SOURCE, BLUR)
    row = exact[6, :, 0]
    x = int(np.argmax(np.abs(row - np.rint(row))))
    result[6, x, 0] ^= 1
    if not wrong:
        exact[6, x, 0] = 0
    screen = LIES[lie](honest(result, SOURCE, BLUR))._replace(partial=partial)
    if partial:
        if lie == "looked at other samples":
            return  # there is nothing to compare with
        with pytest.raises(Unsettled, match=lie):
            compare(result, SOURCE, BLUR, screen=screen)
        return
    agreement = compare(result, SOURCE, BLUR, screen=screen)
    assert agreement.note.startswith("checked on the CPU: the device")
    assert lie in agreement.note
    assert replace(agreement, note="", seconds=0.0) == replace(
        compare(result, SOURCE, BLUR), seconds=0.0
    )
    assert "device" not in str(agreement)


def test_no_result_is_refused_by_the_devices_word_only() -> None:
    screen = honest(RIGHT, SOURCE, BLUR)
    false = screen._replace(
        places=np.array([30 * 90]), values=np.array([RIGHT[30, 0, 0] + 3.0]),
        got=RIGHT[30, 0, :1], right=screen.right - 1,
    )  # fmt: skip
    agreement = compare(RIGHT, SOURCE, BLUR, screen=false)
    assert agreement.ok
    assert "values are off by up to" in agreement.note
    with pytest.raises(Unsettled, match="only the definition"):
        compare(RIGHT, SOURCE, BLUR, screen=false._replace(partial=True))


def test_a_bound_that_decides_nothing_asks_the_definition() -> None:
    filter = make("kernel", weights=[[0.5, 0.5]])
    right = reference.apply(SOURCE, filter)
    exact = reference.exact(SOURCE, filter)
    ties = exact % 1 == 0.5
    screen = Screened(
        np.flatnonzero(ties), exact[ties] * (1 + 1e-14), right[ties], 1e-11,
        int((~ties).all(axis=2).sum()), ROWS,
    )  # fmt: skip
    agreement = compare(right, SOURCE, filter, screen=screen)
    assert (agreement.ok, agreement.differing, agreement.note) == (True, 0, "")
    with pytest.raises(Unsettled, match="only the definition"):
        compare(right, SOURCE, filter, screen=screen._replace(partial=True))
    up = (np.floor(exact) + 1).astype(np.uint8)
    other = np.where(ties, up, right)
    screen = screen._replace(got=other[ties])
    by_device = compare(other, SOURCE, filter, screen=screen)
    assert not by_device.ok
    assert figures(by_device) == figures(compare(other, SOURCE, filter))


@pytest.mark.parametrize("border", ["edge", "reflect", "symmetric", "wrap", "constant"])
@pytest.mark.parametrize("rows", [((0, 4),), ((20, 24),), ((38, 40), (0, 2))], ids=str)
@pytest.mark.parametrize(
    "filter", [BLUR, make("sobel"), make("blur", sigma=30), FILTERS["kernel"]],
    ids=["blur", "sobel", "wide", "dense"],
)  # fmt: skip
def test_a_partial_one_needs_only_the_rows_that_are_tapped(
    filter: Operation, rows: tuple[Span, ...], border: str
) -> None:
    right = reference.apply(SOURCE, filter, Border(border))
    wrong = right.copy()
    wrong[rows[-1][0], 7, 1] ^= 1
    source, result = np.full_like(SOURCE, 77), np.full_like(SOURCE, 78)
    for first, last in tapped(rows, filter, Border(border), len(SOURCE)):
        source[first:last] = SOURCE[first:last]
    for whole in (right, wrong):
        for first, last in rows:
            result[first:last] = whole[first:last]
        screen = honest(whole, SOURCE, filter, Border(border), rows=rows)._replace(partial=True)
        agreement = compare(result, source, filter, border, screen=screen)
        assert figures(agreement) == figures(compare(whole, SOURCE, filter, border))


@pytest.mark.parametrize("height", [1, 9, 10, 11, 95])
def test_a_tenth_is_at_least_that_and_each_row_is_as_likely(height: int) -> None:
    met = np.zeros(height, int)
    tries = 400
    for _ in range(tries):
        rows = np.concatenate([np.arange(*span) for span in tenth(height)])
        assert len(rows) == len(np.unique(rows)) == -(-height // 10)
        met[rows] += 1
    assert met.min() > 0
    ends, middle = met[[0, -1]].mean(), met.mean()
    assert abs(ends - middle) < 6 * np.sqrt(middle)


def test_a_quick_check_does_without() -> None:
    screen = honest(RIGHT, SOURCE, BLUR)._replace(right=0)
    assert not compare(RIGHT, SOURCE, BLUR, quick=True, screen=screen).note
    assert SOURCE.size < check.QUICK
    assert module.SHARE == 10
