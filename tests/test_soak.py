"""The soak: it passes on an engine that is right, and tells of one that is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOAK = [sys.executable, str(ROOT / "tools" / "soak.py"), "--engine", "cpu", "--threads", "2"]

WRONG = """
import sys
sys.path.insert(0, {tools!r})
import soak
from cudafilter.engines.cpu import CpuEngine
run, one = CpuEngine.run, soak.Soak._one
def wrong(engine, pixels, *given, **named):
    done = run(engine, pixels, *given, **named)
    {breaks}
    return done
def blind(soaking, case):
    found = one(soaking, case)
    {misses}
    return found
CpuEngine.run, soak.Soak._one = wrong, blind
sys.exit(soak.main(["--engine", "cpu", "--count", "30", "--threads", "2"]))
"""


def test_a_short_one_passes_and_tells_its_figures(tmp_path: Path) -> None:
    figures = tmp_path / "soak.json"
    done = subprocess.run(
        [*SOAK, "--count", "60", "--json", str(figures)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(figures.read_text())
    assert (told["images"], told["wrong"], told["flipped"], told["caught"]) == (60, 0, 6, 6)
    assert "60 images" in done.stdout
    assert "memory, MiB" in done.stdout


def test_one_image_can_be_done_again() -> None:
    done = subprocess.run(
        [*SOAK, "--only", "1:17"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr


@pytest.mark.parametrize(
    ("breaks", "misses", "told"),
    [
        ("done.pixels.reshape(-1).view('u1')[-1] ^= 64", "pass", "WRONG: Case(number="),
        ("kept.append(bytearray(8 << 20))", "pass", "GREW: memory of the process"),
        ("pass", "found = found._replace(caught=found.caught and False)", "MISSED: Case(number="),
        (
            "pass",
            "kept.append(0); found = found._replace(judge_bytes=len(kept) << 24)",
            "GREW: memory of the judge",
        ),
    ],
)
def test_what_is_wrong_is_told(breaks: str, misses: str, told: str) -> None:
    code = WRONG.format(tools=str(ROOT / "tools"), breaks=breaks, misses=misses)
    done = subprocess.run(
        [sys.executable, "-c", f"kept = []\n{code}"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert told in done.stdout
