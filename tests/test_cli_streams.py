"""The command line on standard input and output."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import ENVIRONMENT, PROGRAM, call, picture

pytestmark = pytest.mark.usefixtures("here")


class TestStreams:
    def test_standard_input_to_standard_output(self) -> None:
        data = picture("in.png").read_bytes()
        done = call("sharpen", "--engine", "cpu", "-", "-", "--format", "png", stdin=data)
        assert done.returncode == 0, done.stderr
        assert call("sharpen", "--engine", "cpu", "in.png", "out.png").returncode == 0
        assert done.stdout == Path("out.png").read_bytes()

    def test_rubbish_exits_1_and_writes_nothing(self) -> None:
        done = call("blur", "--engine", "cpu", "-", "-", "--format", "png", stdin=b"rubbish")
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"error: standard input: it is no image" in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "closed", "told"),
        [
            (["-", "out.png"], "<&-", "standard input is closed"),
            (["in.png", "-"], ">&-", "standard output is closed"),
        ],
    )
    def test_a_closed_stream_is_told(self, arguments: list[str], closed: str, told: str) -> None:
        picture("in.png")
        done = subprocess.run(
            ["bash", "-c", f"{shlex.join([*PROGRAM, 'box', *arguments])} {closed}"],
            env=ENVIRONMENT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert told in done.stderr

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
    def test_a_full_standard_output_is_told(self) -> None:
        picture("in.png")
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [*PROGRAM, "box", "--engine", "cpu", "in.png", "-"],
                env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
        assert done.returncode == 1
        assert "standard output: cannot be written: No space left on device" in done.stderr

    def test_a_reader_that_has_gone_is_met_quietly(self) -> None:
        picture("in.bmp", (2000, 2000))
        command = f"{shlex.join(PROGRAM)} box --engine cpu -q in.bmp - | head -c 4 > /dev/null"
        done = subprocess.run(
            ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
            env=ENVIRONMENT, capture_output=True, check=False,
        )  # fmt: skip
        assert done.stderr == b""
        assert done.returncode == 1

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_a_long_image_is_written_whole(self, unbuffered: str) -> None:
        picture("in.bmp", (1000, 1000))
        done = subprocess.run(
            [*PROGRAM, "box", "--engine", "cpu", "in.bmp", "-"],
            env={**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered}, capture_output=True, check=True,
        )  # fmt: skip
        assert len(done.stdout) == Path("in.bmp").stat().st_size


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "command",
    [
        [*PROGRAM, "filters"],
        [sys.executable, "-c", "import cudafilter.cli as c; print('late', end=''); c._leave(0)"],
    ],
)
def test_output_that_is_lost_is_a_failure(command: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr
