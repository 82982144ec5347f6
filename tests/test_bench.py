"""Timings: every engine verified first, a clear table, plain data."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from agreement import StandIn
from command_line import cli
from cudafilter.engines import Engine, Result, bench
from cudafilter.engines.open import open_engine
from cudafilter.errors import DisagreementError, LimitError
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.pixels import DTYPES, Pixels


class Spoilt(StandIn):
    """The CPU engine, with something done to each result."""

    name = "cpu"
    title = "spoilt"

    def __init__(self, spoil: Any) -> None:
        self._engine = open_engine("cpu")
        self._spoil = spoil

    def run(self, *arguments: Any, **options: Any) -> Result:
        return Result(self._spoil(self._engine.run(*arguments, **options).pixels))

    def close(self) -> None:
        self._engine.close()


def measure(engine: Engine, *names: str, **sizes: Any) -> list[bench.Case]:
    settings: dict[str, Any] = {"sizes": [24], "dtypes": ["uint8"], "channels": [3], "repeat": 3}
    return list(bench.measure(names, [bench.Contestant(engine)], **settings | sizes))


def test_each_case_is_verified_and_timed(cpu: Engine) -> None:
    cases = measure(cpu, *CATALOGUE, sizes=[16, 40], dtypes=DTYPES, channels=[1, 4])
    assert len(cases) == len(CATALOGUE) * 2 * len(DTYPES) * 2
    for case in cases:
        (row,) = case.rows
        assert row.total_ms is not None
        assert row.total_ms > 0
        assert row.times_cpu == 1
        assert row.exact_share is not None
        assert row.agreement is not None
        assert row.agreement["ok"]
        assert row.agreement["exact_share"] == row.exact_share
        assert row.exact_share > 0.5 or case.dtype == "float32"
        assert row.kernel_ms is None
        assert row.why_not is None


def test_a_wrong_result_is_not_timed() -> None:
    def spoil(out: Pixels) -> Pixels:
        out[5, 7, 1] ^= 0x40
        return out

    engine = Spoilt(spoil)
    with pytest.raises(DisagreementError, match=r"blur 24x24 uint8 x3, cpu.*x=7 y=5 channel=1"):
        measure(engine, "blur")
    engine.close()


def test_what_an_engine_cannot_do_is_said() -> None:
    def refuse(out: Pixels) -> Pixels:
        raise LimitError("too large for this device")

    engine = Spoilt(refuse)
    (case,) = measure(engine, "blur")
    assert case.rows[0].why_not == "too large for this device"
    assert case.rows[0].total_ms is None
    engine.close()


def test_random_images_use_the_full_scale() -> None:
    random = np.random.default_rng(0)
    for dtype, most in (("uint8", 255), ("uint16", 65535), ("float32", 1)):
        image = bench.random_image(random, 300, dtype, 2)
        assert image.shape == (300, 300, 2)
        assert image.dtype == dtype
        assert image.min() <= most / 1000
        assert image.max() >= most * 0.999


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cudafilter", "bench", "--engine", "cpu", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_table_fits_a_terminal() -> None:
    done = run("blur", "sobel", "--sizes", "32", "--channels", "1,3", "--repeat", "1")
    assert done.returncode == 0
    assert "blur 32x32 uint8 x1" in done.stdout
    assert "sobel 32x32 uint8 x3" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "cpu: OpenCV" in done.stderr


def test_json_holds_all_figures() -> None:
    done = run("blur", "--sizes", "32", "--dtypes", "float32", "--channels", "2", "--json")
    data = json.loads(done.stdout)
    (case,) = data["cases"]
    assert (case["filter"], case["size"], case["dtype"], case["channels"]) == (
        "blur", 32, "float32", 2,
    )  # fmt: skip
    assert case["rows"][0]["total_ms"] > 0
    assert data["engines"][0].startswith("cpu: OpenCV")


def test_no_filter_named_takes_the_usual_ones() -> None:
    done = run("--sizes", "16", "--channels", "1", "--repeat", "1", "--json")
    names = [case["filter"] for case in json.loads(done.stdout)["cases"]]
    assert names == list(bench.DEFAULT_FILTERS)


@pytest.mark.gpu
def test_the_ladder_is_timed_beside_the_copy() -> None:
    contestants, note = bench.open_contestants("auto", "auto", None)
    assert note is None
    settings = {"sizes": [256], "dtypes": ["uint8"], "channels": [3], "repeat": 3}
    (case,) = bench.measure(["blur"], contestants, **settings)  # type: ignore[arg-type]
    assert case.copy_ms is not None
    variants = {row.variant: row for row in case.rows}
    assert "auto (tensor)" in variants
    assert variants["vanilla"].times_vanilla == 1
    assert variants["tensor"].kernel_ms is not None
    assert variants["box"].why_not is not None
    for contestant in {id(c.engine): c for c in contestants}.values():
        contestant.engine.close()


@pytest.mark.parametrize("words", ["--variant tiled", "--gpu 0"])
def test_the_cpu_has_neither_variants_nor_gpus(words: str) -> None:
    result = cli("bench", "--engine", "cpu", "--sizes", "8", "--repeat", "1", *words.split())
    assert result.exit_code == 2
    assert f"{words.split()[0]}': is for the cuda engine" in result.stderr
