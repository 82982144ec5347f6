"""One image through the command line."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agreement import StandIn
from command_line import call, cli, picture, snapshot
from cudafilter.cli import options
from cudafilter.cli.report import Reporter
from cudafilter.engines import Engine
from cudafilter.engines import Result as Filtered
from cudafilter.engines import open as engines
from cudafilter.errors import EngineUnavailable
from cudafilter.jobs import sizing
from cudafilter.jobs.record import DONE, Record
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.operations.pixels import Pixels

pytestmark = pytest.mark.usefixtures("here")


class TestOneImage:
    def test_is_filtered_and_told(self) -> None:
        picture("in.png")
        result = cli("blur", "--sigma", "1.5", "--border", "reflect", "in.png", "out.png")
        assert result.exit_code == 0
        assert result.stdout == ""
        told = result.stderr.splitlines()
        assert told[0].startswith("cpu: ")
        assert told[1].startswith("in.png -> out.png 32x24 RGB uint8, ")
        engine = engines.open_engine("cpu")
        expected = engine.run(
            np.asarray(Image.open("in.png")), make("blur", sigma=1.5), Border("reflect")
        ).pixels
        assert np.array_equal(np.asarray(Image.open("out.png")), expected)

    def test_quiet_says_nothing_verbose_says_more(self) -> None:
        picture("in.png")
        assert cli("box", "-q", "in.png", "out.png").stderr == ""
        assert "decode" in cli("box", "-v", "in.png", "out.png").stderr
        assert cli("box", "-q", "-v", "in.png", "out.png").exit_code == 2

    def test_auto_says_why_it_is_not_the_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        picture("in.png")

        def no_cuda(*args: Any, **kwargs: Any) -> Engine:
            raise EngineUnavailable("no driver")

        monkeypatch.setattr("cudafilter.engines.cuda.engine.CudaEngine", no_cuda)
        monkeypatch.setattr(sizing, "GPU_START", 0)
        result = cli("blur", "in.png", "out.png", "--engine", "auto")
        assert result.exit_code == 0
        assert "no CUDA: no driver" in result.stderr

    def test_auto_takes_the_cpu_for_a_small_job_and_says_so(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        picture("in.png")

        def not_wanted(*args: Any, **kwargs: Any) -> Engine:
            raise AssertionError("the GPU was asked for")

        monkeypatch.setattr("cudafilter.engines.cuda.engine.CudaEngine", not_wanted)
        monkeypatch.setattr("cudafilter.nvidia.toolkit.no_gpu", lambda: None)
        result = cli("blur", "in.png", "out.png", "--engine", "auto", "-v")
        assert result.exit_code == 0, result.stderr
        engine = result.stderr.splitlines()[0]
        assert engine.startswith("cpu: ")
        assert engine.endswith("; small job, done before a GPU would have started")

    @pytest.mark.parametrize(
        "choice", ["--engine cuda", "--engine auto --gpu 0", "--engine auto --variant tiled"]
    )
    def test_a_gpu_asked_for_is_waited_for(
        self, monkeypatch: pytest.MonkeyPatch, choice: str
    ) -> None:
        picture("in.png")

        def no_cuda(*args: Any, **kwargs: Any) -> Engine:
            raise EngineUnavailable("no driver")

        monkeypatch.setattr("cudafilter.engines.cuda.engine.CudaEngine", no_cuda)
        result = cli("blur", "in.png", "out.png", *choice.split())
        assert (result.exit_code, result.stderr) == (1, "error: no driver\n")

    def test_verbose_tells_where_the_time_went(self) -> None:
        picture("in.png")
        told = cli("box", "-v", "in.png", "out.png").stderr.splitlines()
        number = r"\d+\.\d{3}"
        assert re.fullmatch(rf"  import {number}, opening {number} s", told[1])
        stages = ("read", "decode", "run", "encode", "write")
        times = ", ".join(f"{stage} {number}" for stage in stages)
        assert re.fullmatch(rf"  {times} s; [\d,]+ -> [\d,]+ bytes", told[3])

    def test_verbose_tells_the_stages_of_the_engine(self, capsys: Any) -> None:
        record = Record("a.png", "b.png", DONE, 3, 2, 1, "gray", "uint8", 9, 9)
        record.seconds, record.engine_seconds = {"decode": 0.5, "run": 0.25}, {"kernel": 0.125}
        values = dict.fromkeys(options.Shared._fields) | {"verbose": True}
        Reporter(options.Shared(**values)).record(record)  # type: ignore[arg-type]
        assert "decode 0.500, run 0.250 (kernel 0.125) s;" in capsys.readouterr().err

    def test_cuda_asked_for_and_missing_is_an_error_with_a_hint(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        picture("in.png")

        def no_cuda(*args: Any, **kwargs: Any) -> Engine:
            raise EngineUnavailable("no driver", hint="install one")

        monkeypatch.setattr("cudafilter.engines.cuda.engine.CudaEngine", no_cuda)
        result = cli("blur", "in.png", "out.png", "--engine", "cuda")
        assert (result.exit_code, result.stderr) == (1, "error: no driver\nhint: install one\n")
        assert not Path("out.png").exists()

    def test_check_prints_the_agreement(self) -> None:
        picture("in.png")
        result = cli("blur", "--check", "in.png", "out.png")
        assert result.exit_code == 0
        assert "check: agrees with the reference: proven: " in result.stderr

    def test_check_catches_an_engine_that_lies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Liar(StandIn):
            def run(self, pixels: Pixels, *_: Any, **__: Any) -> Filtered:
                out = pixels.copy()
                out[3, 4, 1] ^= 128
                return Filtered(out)

        monkeypatch.setattr(engines, "open_engine", lambda *a, **k: Liar())
        picture("in.png")
        result = cli("sharpen", "--amount", "0", "--check", "in.png", "out.png")
        assert result.exit_code == 1
        assert "error: in.png: DISAGREES" in result.stderr
        assert "x=4 y=3 channel=1" in result.stderr
        assert not Path("out.png").exists()
        assert cli("sharpen", "--amount", "0", "in.png", "out.png").exit_code == 0

    def test_in_place_replaces_it(self) -> None:
        before = picture("x.png").read_bytes()
        result = cli("blur", "x.png", "x.png", "--in-place")
        assert result.exit_code == 0, result.stderr
        assert Path("x.png").read_bytes() != before
        assert [str(p) for p in Path().iterdir()] == ["x.png"]

    def test_a_failed_in_place_leaves_it(self) -> None:
        Path("x.png").write_bytes(b"\x89PNG\r\n\x1a\n1234")
        result = cli("blur", "x.png", "--in-place")
        assert result.exit_code == 1
        assert snapshot() == {"x.png": b"\x89PNG\r\n\x1a\n1234"}

    @pytest.mark.parametrize(
        ("mode", "told"), [("L", "gray"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("CMYK", "CMYK")]
    )
    def test_the_colours_are_told(self, mode: str, told: str) -> None:
        Image.new(mode, (8, 8)).save("in.tif")
        assert f"8x8 {told} uint8" in cli("box", "in.tif", "out.tif").stderr

    def test_metadata_that_is_lost_is_told(self) -> None:
        exif = Image.Exif()
        exif[0x010E] = "a picture"
        Image.new("RGB", (8, 8)).save("in.jpg", exif=exif)
        assert "note: in.jpg: BMP does not hold" in cli("box", "in.jpg", "out.bmp").stderr

    def test_a_name_that_is_not_text_is_no_hurdle(self) -> None:
        name = os.fsdecode(b"caf\xe9.png")
        os.rename(picture("in.png"), name)
        done = call("box", "--engine", "cpu", name, "out/", "--report", "-")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["source"] == name
        assert Path("out", name).exists()
