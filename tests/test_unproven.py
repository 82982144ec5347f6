"""What is told of results that the contract leaves open, in whole or in part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from command_line import cli
from cudafilter.check import compare
from cudafilter.engines.cpu import CpuEngine
from cudafilter.images import Image
from cudafilter.jobs import sizing
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make
from cudafilter.operations.pixels import Pixels
from cudafilter.proof.agreement import Agreement
from image_files import save

STEPS = "bilateral | unsharp --amount 10"
OPEN = Chain((Link(make("bilateral")), Link(make("unsharp", amount=10))))
"""No engine has the bilateral filter in double."""


def picture(white: int) -> Pixels:
    """16 bits, 80 rows, of which the last *white* are white and the others black."""
    pixels = np.zeros((80, 60, 3), np.uint16)
    pixels[80 - white :] = 65535
    return pixels


def of(unproven: int, violations: int = 0) -> Agreement:
    """What 100 samples show."""
    return Agreement(
        samples=100, differing=0, violations=violations, largest=0.0, worst=(0, 0, 0), got=0.0,
        expected=0.0, seconds=0.0, of=100, unproven=unproven, recomputed=100,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("agreement", "verdict", "begins"),
    [
        (of(0), "proven", "agrees with the reference: proven: 100 samples, 0 unproven; "),
        (of(30), "partly proven", "partly proven: 70 of 100 samples agree with the reference, 30 "),
        (of(100), "unproven", "unproven: none of 100 samples can be proven: "),
        (of(30, violations=1), "wrong", "DISAGREES with the reference: 1 samples outside"),
        (of(100, violations=1), "wrong", "DISAGREES with the reference: 1 samples outside"),
    ],
)
def test_the_line_begins_with_the_verdict(agreement: Agreement, verdict: str, begins: str) -> None:
    assert agreement.verdict == agreement.figures()["verdict"] == verdict
    assert str(agreement).startswith(begins)
    assert "agrees" not in str(agreement) or verdict == "proven"


@pytest.mark.parametrize(
    ("white", "verdict"), [(0, "proven"), (40, "partly proven"), (80, "unproven")]
)
def test_compare_tells_what_is_proven(white: int, verdict: str) -> None:
    source = picture(white)
    found = compare(CpuEngine().run(source, OPEN).pixels, source, OPEN)
    assert (found.ok, found.verdict, found.proves) == (True, verdict, verdict != "unproven")


def test_a_quick_check_claims_nothing_of_unproven_samples() -> None:
    assert "% of samples are wrong" in str(replace(of(0), of=1000))
    assert "% of samples are outside the contract" in str(replace(of(30), of=1000))


@pytest.fixture
def folder(here: Path) -> Path:
    """Three pictures: all, half and nothing of their results can be proven."""
    Path("in").mkdir()
    for name, white in (("all", 0), ("half", 40), ("none", 80)):
        save(Image(picture(white)), Path(f"in/{name}.png"))
    return Path("in")


@pytest.mark.parametrize(("name", "code"), [("all", 0), ("half", 0), ("none", 1)])
@pytest.mark.parametrize("by_rows", [False, True])
def test_a_file_of_which_nothing_is_proven_fails(
    folder: Path, name: str, code: int, by_rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_rows:
        monkeypatch.setenv(sizing.MEMORY, "20000")
    told = cli("chain", STEPS, f"in/{name}.png", "out.tif", "--engine", "cpu", "--check")
    assert ("done by rows" in told.stderr) == (by_rows and code == 0)
    assert told.exit_code == code, told.stderr
    assert Path("out.tif").exists() == (code == 0)
    words = {"all": "check: agrees with", "half": "check: partly proven: ", "none": ": unproven: "}
    assert words[name] in told.stderr
    assert ("agrees" in told.stderr) == (name == "all")
    assert "report this" not in told.stderr


def test_a_folder_tells_how_many_in_part(folder: Path) -> None:
    told = cli(
        "chain", STEPS, "-r", "in", "out", "--engine", "cpu", "--check", "--report", "r.jsonl"
    )
    assert told.exit_code == 1
    assert "check: 2 of 3 images agree with the reference, 1 of them in part, " in told.stderr
    assert "of 43,200 samples cannot be proven, " in told.stderr
    assert "worst in/none.png: unproven: none of 14,400 samples can be proven: " in told.stderr
    lines = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert {Path(line["source"]).stem: line["agreement"]["verdict"] for line in lines} == {
        "all": "proven", "half": "partly proven", "none": "unproven",
    }  # fmt: skip
