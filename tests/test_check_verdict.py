"""The check's verdict: the definition's at the edge of the contract, and what quick ones say."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from agreement import ALL_BORDERS, StandIn, random_pixels, tolerance
from command_line import cli, picture
from cudafilter.check import QUICK, Agreement, compare, compare_all
from cudafilter.engines import Result as Filtered
from cudafilter.engines import open as engines
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import DTYPES, Pixels
from cudafilter.proof.proof import Proof

pytestmark = pytest.mark.usefixtures("here")

WEIGHTS = np.random.default_rng(5).standard_normal((6, 7))

FILTERS: dict[str, dict[str, Any]] = {
    "blur": {}, "unsharp": {"sigma": 4}, "sobel": {}, "kernel": {"weights": WEIGHTS},
    "box": {"radius": 30}, "sharpen": {"amount": 0.3}, "median": {}, "open": {},
}  # fmt: skip


def by_definition(
    results: list[Pixels], source: Pixels, operation: Operation, border: Border, alpha: bool
) -> list[Agreement]:
    """compare() of each result without any fast route."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Proof, "_fast_route", lambda self: None)
        return compare_all(results, source, operation, border, alpha)


def told(agreement: Agreement) -> str:
    """What an agreement says, but for its time, and for the worst sample where none differs."""
    facts = asdict(agreement) | {"seconds": 0}
    if not agreement.differing:
        facts |= dict.fromkeys(("worst", "got", "expected"))
    return str(facts)  # where NaN is NaN


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "alpha"), [(3, False), (4, True)])
@pytest.mark.parametrize("name", FILTERS)
def test_wrong_results_get_the_definitions_verdict(
    name: str, channels: int, alpha: bool, dtype: str
) -> None:
    random = np.random.default_rng(8)
    filter, source = make(name, **FILTERS[name]), random_pixels((60, 41, channels), dtype)
    for border in ALL_BORDERS:
        right = reference.apply(source, filter, border, alpha)
        exact = reference.exact(source, filter, border, alpha)
        limit = tolerance(source, filter, border, alpha)
        wrongs = [right, np.roll(right, 1, axis=0), right[..., ::-1]]
        if dtype == "float32":
            # The last float that is accepted, or the first that is not; and NaN among them.
            edge = (exact + limit * random.choice([-1, 1], exact.shape)).astype(np.float32)
            wild = right.copy()
            wild[3, 4, 0], wild[50, 40, 1] = np.nan, np.inf
            wrongs += [edge, np.nextafter(edge, np.float32(9)), wild]
        else:
            one = random.integers(-1, 2, right.shape) * (random.random(right.shape) < 0.1)
            wrongs.append(np.clip(right.astype(int) + one, 0, np.iinfo(dtype).max).astype(dtype))
        expected = by_definition(wrongs, source, filter, border, alpha)
        for wrong, verdict in zip(wrongs, expected, strict=True):
            assert told(compare(wrong, source, filter, border, alpha)) == told(verdict)


@pytest.mark.parametrize("name", ["blur", "kernel", "unsharp"])
def test_the_definition_decides_at_the_edge(name: str) -> None:
    """A bias puts one value to just where a neighbour is accepted, and a hair to both sides."""
    source = random_pixels((50, 40, 1), "uint8")
    parameters = FILTERS[name] | ({"sigma": 5} if name == "blur" else {})
    plain = make(name, **parameters)
    exact = reference.exact(source, plain)[..., 0]
    y, x = np.unravel_index(np.argmin(np.abs(exact - 100)), exact.shape)  # far from the clamps
    value = float(exact[y, x])
    refused = []
    for hair in (0, 1e-15, 3e-15, 1e-14, 3e-14, 1e-13, 1e-12, 1e-11, 1e-9, 1e-6):
        for sign in (-1, 1):
            bias = 0.0
            for _ in range(4):  # the bias is a term too
                filter = replace(cast(Correlation, plain), bias=bias)
                limit = float(tolerance(source, filter)[0, 0, 0])
                bias = (np.floor(value) + 0.5 + limit + sign * hair - value) / 255
            wrong = reference.apply(source, filter)
            wrong[y, x, 0] = np.floor(value)
            ours = compare(wrong, source, filter)
            (expected,) = by_definition([wrong], source, filter, Border(), False)
            assert told(ours) == told(expected)
            refused.append(not ours.ok)
    assert any(refused)
    assert not all(refused)


SMALL = make("blur", sigma=0.6)


@pytest.mark.parametrize("filter", [SMALL, make("median"), make("open")])
@pytest.mark.parametrize(("channels", "alpha"), [(3, False), (4, True)])
def test_a_quick_check_tells_what_it_proves(filter: Operation, channels: int, alpha: bool) -> None:
    source = random_pixels((90, 80, channels), "uint8")
    right = reference.apply(source, filter, alpha=alpha)
    agreement = compare(right, source, filter, alpha=alpha, quick=True)
    assert agreement.ok
    assert (agreement.samples, agreement.of) == (QUICK, source.size)
    assert str(agreement).endswith(
        f"; 4,096 of {source.size:,} samples looked at: with 95 % confidence fewer than 0.08 % of"
        " samples are wrong"
    )


def test_a_quick_check_finds_what_is_often_wrong() -> None:
    source = random_pixels((90, 80, 3), "uint8")
    wrong = reference.apply(source, SMALL)
    wrong[:, ::4] ^= 64
    agreement = compare(wrong, source, SMALL, quick=True)
    assert not agreement.ok
    assert agreement.violations == pytest.approx(QUICK / 4, rel=0.2)
    x, y, c = agreement.worst
    assert (x % 4, agreement.got) == (0, wrong[y, x, c])
    assert str(agreement).endswith("; 4,096 of 21,600 samples looked at")


def test_the_confidence_is_what_chance_gives() -> None:
    """Of images with just that share of wrong samples, one in twenty passes."""
    source = random_pixels((90, 80, 3), "uint8")
    right, filter = reference.apply(source, make("median")), make("median")
    share = compare(right, source, filter, quick=True).wrong_below
    assert share is not None
    assert (1 - share) ** QUICK == pytest.approx(0.05)
    random, passed = np.random.default_rng(), 0
    for _ in range(200):
        wrong = right.copy().ravel()
        wrong[random.choice(wrong.size, round(share * wrong.size), replace=False)] ^= 64
        passed += compare(wrong.reshape(right.shape), source, filter, quick=True).ok
    assert passed <= 30  # 10 are expected; more than 30 in one of a million runs


def test_few_samples_are_all_looked_at() -> None:
    source = random_pixels((30, 40, 3), "uint8")
    agreement = compare(source, source, make("sharpen", amount=0), quick=True)
    assert (agreement.samples, agreement.of, agreement.wrong_below) == (3600, 3600, None)
    assert "looked at" not in str(agreement)


def test_quick_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    picture("in.png", (200, 100))
    result = cli("blur", "--check=quick", "in.png", "out.png", "--report", "r.jsonl")
    assert result.exit_code == 0, result.stderr
    assert "4,096 of 60,000 samples looked at: with 95 % confidence fewer than" in result.stderr
    agreement = json.loads(Path("r.jsonl").read_text())["agreement"]
    assert (agreement["samples"], agreement["of"]) == (4096, 60000)
    assert agreement["wrong_below"] == pytest.approx(0.000731, abs=1e-6)
    for word in ("--check", "--check=all"):
        result = cli("blur", word, "in.png", "all.png", "--report", "a.jsonl")
        assert result.exit_code == 0, result.stderr
        agreement = json.loads(Path("a.jsonl").read_text().splitlines()[-1])["agreement"]
        assert (agreement["samples"], agreement["wrong_below"]) == (60000, None)
    assert "'quik' is not one of" in cli("blur", "--check=quik", "in.png", "o.png").stderr

    class Liar(StandIn):
        def run(self, pixels: Pixels, *_: Any, **__: Any) -> Filtered:
            return Filtered(255 - pixels)

    monkeypatch.setattr(engines, "open_engine", lambda *a, **k: Liar())
    result = cli("blur", "--check=quick", "in.png", "lie.png")
    assert result.exit_code == 1
    assert "DISAGREES" in result.stderr
    assert not Path("lie.png").exists()
