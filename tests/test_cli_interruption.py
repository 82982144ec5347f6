"""Ctrl-C at the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from command_line import ENVIRONMENT, PROGRAM, cli, picture
from cudafilter.engines import Engine
from cudafilter.engines import open as engines

pytestmark = pytest.mark.usefixtures("here")


class TestInterruption:
    @pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_ctrl_c_ends_cleanly_with_what_is_done(self, stop: signal.Signals) -> None:
        original = picture("in/0.png", (400, 400)).read_bytes()
        for n in range(1, 400):
            Path(f"in/{n}.png").write_bytes(original)
        process = subprocess.Popen(
            [*PROGRAM, "blur", "--engine", "cpu", "-r", "in", "out", "--report", "r.jsonl"],
            env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=partial(signal.signal, stop, signal.SIG_DFL),  # as nohup leaves it, ignored
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while not (Path("out").exists() and len(list(Path("out").glob("*.png"))) >= 3):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        sent = time.monotonic()
        process.send_signal(stop)
        _, told = process.communicate(timeout=20)
        assert process.returncode == 130
        assert time.monotonic() - sent < 5
        assert "Traceback" not in told
        written = sorted(Path("out").iterdir())
        for path in written:
            assert path.suffix == ".png"
            Image.open(path).load()
        assert f"interrupted: {len(written)} of 400 images done" in told
        records = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
        assert sorted(r["destination"] for r in records) == [str(path) for path in written]

    def test_ctrl_c_that_an_import_disguises_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def disguise(*args: Any, **kwargs: Any) -> Engine:
            raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()

        monkeypatch.setattr(engines, "open_engine", disguise)
        picture("in.png")
        result = cli("blur", "in.png", "out.png")
        assert (result.exit_code, result.stderr.strip()) == (130, "interrupted")

    def test_ctrl_c_while_waiting_for_standard_input(self) -> None:
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [*PROGRAM, "blur", "--engine", "cpu", "-", "out.png"],
            env=ENVIRONMENT, stdin=reading, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        assert process.stderr.readline().startswith("cpu: ")
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=10)
        os.close(reading)
        os.close(writing)
        assert process.returncode == 130
        assert told.startswith("interrupted")
