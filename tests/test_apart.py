"""An engine in a process of its own: its results and errors cross, and it ends with this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agreement import ALL_BORDERS, random_pixels
from cudafilter.engines import Engine, Screening
from cudafilter.engines.apart import Apart
from cudafilter.engines.cpu import CpuEngine
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.errors import DeviceLost, EngineError, EngineUnavailable, LimitError
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.rank import median
from cudafilter.proof.screened import Screened
from stand_in_gpus import BLUR, PIXELS, StandIn, fail

CHAIN = Chain((Link(BLUR, Border()), Link(make("sobel"), Border("wrap"))))


class Failing(StandIn):
    """Fails as its number says."""

    errors = (
        LimitError("too large", hint="take less"),
        EngineError("a bad moment"),
        ValueError("a secret of the machine"),
        DeviceLost("it trapped"),
    )

    def __init__(self, number: int) -> None:
        super().__init__(number, does=fail(self.errors[number]))


class Refusing(StandIn):
    def __init__(self) -> None:
        raise EngineUnavailable("there is none", hint="buy one")


class Dying(StandIn):
    def __init__(self) -> None:
        super().__init__(does=partial(os.kill, os.getpid(), signal.SIGKILL))


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process finds the stand-ins of this folder."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("filter", [BLUR, make("unsharp"), median(2), CHAIN], ids=lambda f: f.name)
def test_its_results_are_those_of_the_engine(dtype: str, filter: Operation, cpu: Engine) -> None:
    apart = Apart(CpuEngine)
    assert apart.title == f"{cpu.title}, in a process of its own"
    for border in ALL_BORDERS:
        pixels = random_pixels((33, 21, 4), dtype)
        expected = cpu.run(pixels, filter, border, True).pixels
        assert np.array_equal(apart.run(pixels, filter, border, True).pixels, expected)
    apart.close()
    assert apart._process.returncode == 0


class Proving(StandIn):
    """Finds one sample of the result wrong."""

    def screen(self, source: Pixels, result: Pixels, *_: Any) -> Screening:
        places = np.flatnonzero(source != result)
        rows = ((0, 1),)
        return Screening(Screened(places, places / 3, result.ravel()[places], 0.5, 98, rows))


def test_what_it_proves_crosses() -> None:
    apart = Apart(Proving)
    wrong = PIXELS.copy()
    wrong[4, 5, 1] ^= 1
    told = apart.screen(PIXELS, wrong, BLUR).screened
    assert told is not None
    assert told.places.tolist() == [(4 * 11 + 5) * 3 + 1]
    assert told.got.tolist() == [wrong[4, 5, 1]]
    assert told[3:] == (0.5, 98, ((0, 1),), False)
    apart.close()


@pytest.mark.parametrize("number", [0, 1])
def test_errors_cross_and_the_next_image_is_done(number: int) -> None:
    apart = Apart(partial(Failing, number))
    for _ in range(2):
        with pytest.raises(type(Failing.errors[number])) as caught:
            apart.run(PIXELS, BLUR)
        assert str(caught.value) == str(Failing.errors[number])
        assert getattr(caught.value, "hint", None) == getattr(Failing.errors[number], "hint", None)
    apart.close()


def test_what_is_unexpected_is_an_error_of_the_engine() -> None:
    apart = Apart(partial(Failing, 2))
    with pytest.raises(EngineError, match="something unexpected happened"):
        apart.run(PIXELS, BLUR)
    apart.close()


@pytest.mark.parametrize("opener", [partial(Failing, 3), Dying])
def test_what_is_lost_there_is_lost_here(opener: partial[Engine]) -> None:
    apart = Apart(opener)
    with pytest.raises(DeviceLost) as caught:
        apart.run(PIXELS, BLUR)
    assert caught.value.begun
    assert apart._process.returncode is not None, "it has ended"
    with pytest.raises(DeviceLost) as caught:
        apart.run(PIXELS, BLUR)
    assert not caught.value.begun, "no image was at work on it"
    apart.close()


def test_one_that_does_not_open_says_why() -> None:
    with pytest.raises(EngineUnavailable, match="there is none") as caught:
        Apart(Refusing)
    assert caught.value.hint == "buy one"


def test_nothing_of_the_current_folder_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('planted')")
    monkeypatch.chdir(tmp_path)
    apart = Apart(CpuEngine)
    apart.run(PIXELS, BLUR)
    apart.close()


def test_it_ends_with_a_process_that_is_killed() -> None:
    code = (
        "import os, signal\n"
        "from cudafilter.engines.apart import Apart\n"
        "from cudafilter.engines.cpu import CpuEngine\n"
        "apart = Apart(CpuEngine)\n"
        "print(apart._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = os.pathsep.join(place for place in sys.path if place)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    process = Path(f"/proc/{int(done.stdout)}")
    ends = time.monotonic() + 10
    while process.exists() and " Z " not in (process / "stat").read_text():
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.gpu
def test_a_gpu_works_there_beside_this_process() -> None:
    here = CudaEngine()
    apart = Apart(partial(CudaEngine, 0, "auto", codec="auto"))
    assert (apart.jpeg is None) == (here.jpeg is None)
    pixels = random_pixels((300, 200, 3), "uint8")
    assert np.array_equal(apart.run(pixels, BLUR).pixels, here.run(pixels, BLUR).pixels)
    apart.close()
    here.close()
