"""The command line, as its users meet it: with click's runner and as real processes."""

from __future__ import annotations

import gc
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import cudafilter
from agreement import StandIn
from cudafilter import workload
from cudafilter.borders import Border
from cudafilter.catalogue import CATALOGUE
from cudafilter.cli import app, options
from cudafilter.cli.progress import Progress
from cudafilter.cli.report import JsonLines, Reporter
from cudafilter.engines import Engine
from cudafilter.engines import Result as Filtered
from cudafilter.engines import open as engines
from cudafilter.errors import EngineUnavailable
from cudafilter.filter import make
from cudafilter.formats import ifd
from cudafilter.pixels import Pixels
from cudafilter.record import DONE, Record

PROGRAM = [sys.executable, "-m", "cudafilter"]
COMMANDS = [*CATALOGUE, "filters", "info", "bench"]

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(cudafilter.__file__).parents[1]),
    "CUDAFILTER_CACHE": os.devnull,
}


def call(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the program as a process of its own."""
    return subprocess.run(
        [*PROGRAM, *arguments], input=stdin, capture_output=True, env=ENVIRONMENT, check=False,
        timeout=60,
    )  # fmt: skip


def python(code: str, without: tuple[str, ...] = ()) -> str:
    """What *code* prints, in a process whose environment lacks *without*."""
    environment = {k: v for k, v in ENVIRONMENT.items() if k not in without}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def cli(*arguments: str) -> Result:
    """Run the program in this process, on the CPU unless *arguments* choose."""
    if arguments[0] in CATALOGUE and "--engine" not in arguments:
        arguments = (*arguments, "--engine", "cpu")
    return CliRunner().invoke(app, list(arguments), prog_name="cudafilter")


def picture(path: str | Path, size: tuple[int, int] = (32, 24), mode: str = "RGB") -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)))
    shape = (size[1], size[0]) + ((3,) if mode == "RGB" else ())
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folder() -> Path:
    """Three images in a tree, one broken image, and what is no image."""
    for name in ("a.png", "b.jpg", "s/c.png"):
        picture(Path("in") / name)
    Path("in/broken.png").write_bytes(Path("in/a.png").read_bytes()[:300])
    Path("in/desktop.ini").write_text("[x]")
    return Path("in")


def snapshot(folder: str | Path = ".") -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


class TestHelp:
    @pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)])
    def test_fits_80_columns(self, arguments: Sequence[str]) -> None:
        result = cli(*arguments, "--help") if arguments else CliRunner().invoke(app, ["--help"])
        assert result.exit_code == 0
        assert max(map(len, result.stdout.splitlines())) <= 80

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_and_option_is_documented(self, name: str) -> None:
        with click.Context(app) as ctx:
            command = app.get_command(ctx, name)
            assert command is not None
            assert command.help
            shown = command.get_help(ctx)
            for param in command.params:
                if isinstance(param, click.Option):
                    assert param.help, param.name
                    assert param.opts[-1] in shown
        assert "Example:\n" in shown

    def test_the_first_page_has_all_commands_in_sections(self) -> None:
        shown = CliRunner().invoke(app, ["-h"]).stdout
        filters, others = shown.split("Filters:\n")[1].split("Other commands:\n")
        for spec in CATALOGUE.values():
            assert f"{spec.name} " in filters
            assert spec.summary in filters
        names = [line.split()[0] for line in others.splitlines()[:4]]
        assert names == ["filters", "info", "bench", "compile"]
        assert "..." not in others

    @pytest.mark.parametrize("spec", CATALOGUE.values(), ids=lambda spec: spec.name)
    def test_limits_and_defaults_are_shown(self, spec: Any) -> None:
        shown = " ".join(cli(spec.name, "--help").stdout.split())
        for parameter in spec.parameters:
            assert parameter.limits in shown
            if parameter.kind in (int, float) and parameter.default is not None:
                assert f"default: {parameter.default:g}" in shown

    def test_no_filter_parameter_hides_a_shared_option(self) -> None:
        shared = set(options.Shared._fields)
        assert {option.name for group in options.shared().values() for option in group} == shared
        for spec in CATALOGUE.values():
            assert not shared & {parameter.name for parameter in spec.parameters}

    @pytest.mark.parametrize("arguments", ["--help", "--version", "blur --help", "bench --help"])
    def test_starts_nothing_heavy(self, arguments: str) -> None:
        watch = (
            "import sys, cudafilter.cli as c\n"
            "try: c.app(sys.argv[1:])\n"
            "finally: assert not {'numpy', 'PIL', 'cv2', 'pycuda'} & set(sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", watch, *arguments.split()],
            env=ENVIRONMENT, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def test_version(self) -> None:
        assert call("--version").stdout.decode().strip() == f"cudafilter {cudafilter.__version__}"

    @pytest.mark.parametrize("spec", CATALOGUE.values(), ids=lambda spec: spec.name)
    def test_the_example_runs(self, spec: Any) -> None:
        program, *arguments = shlex.split(spec.example)
        assert program == "cudafilter"
        picture(arguments[-2])
        result = cli(*arguments)
        assert result.exit_code == 0, result.stderr
        Image.open(arguments[-1]).load()


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
        monkeypatch.setattr(workload, "GPU_START", 0)
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
        monkeypatch.setattr("cudafilter.toolkit.no_gpu", lambda: None)
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
        assert "check: agrees with the reference: largest difference" in result.stderr

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


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ("blur --sigma 0 in.png out.png", "'--sigma': must be > 0"),
            ("blur --sigma nan in.png out.png", "'--sigma': must be a finite number"),
            ("blur --sigma wide in.png out.png", "'--sigma': must be a number"),
            ("blur --radius -1 in.png out.png", "'--radius': must be >= 0"),
            ("blur --radius 1.5 in.png out.png", "'--radius': must be a whole number"),
            ("box --radius 99999 in.png out.png", "'--radius': must be"),
            ("kernel in.png out.png", "Missing option '-w' / '--weights'"),
            ("kernel -w '1 2; 3' in.png out.png", "--weights': row 2"),
            ("kernel -w '' in.png out.png", "--weights': "),
            ("kernel -w '-1 0 1' --normalize in.png out.png", "'--normalize': the weights sum"),
            ("blur --border mirror in.png out.png", "'--border': 'mirror'"),
            ("blur --border-value 0.5 in.png out.png", "'--border-value': has no meaning"),
            ("blur --border constant --border-value nan in.png out.png", "'--border-value'"),
            ("blur --gpu 0 in.png out.png", "'--gpu': is for the cuda engine"),
            ("blur --variant tiled in.png out.png", "'--variant': is for the cuda engine"),
            ("blur --jobs 0 in.png out.png", "'--jobs'"),
            ("blur --quality 101 in.png out.png", "'--quality'"),
            ("blur --format xyz in.png out.png", "'--format': must be one of png"),
            ("blur in.png", "only in.png is given"),
            ("blur", "Missing argument"),
            ("blur '' out.png", "empty"),
            ("blur none.png out.png", "none.png: no such file"),
            ("blur in.png in.png", "in.png would overwrite the input"),
            ("blur in.png out.xyz", "out.xyz"),
            ("blur in.png out.png --existing error", "'--existing': out.png exists"),
            ("blur in.png new.png --report in.png", "'--report': in.png is an image"),
            ("blur in.png new.png --report none/r.jsonl", "'--report': cannot write none/r.jsonl"),
            ("blur in.png - --format png --report -", "'--report': standard output is taken"),
            ("blurr in.png out.png", "No such command 'blurr'"),
            ("blur --sigam 2 in.png out.png", "No such option"),
            ("bench --sizes 0", "'--sizes'"),
            ("bench blurr", "blurr"),
        ],
    )
    def test_errors_exit_2_name_the_option_and_touch_nothing(
        self, arguments: str, told: str
    ) -> None:
        picture("in.png")
        picture("out.png")
        before = snapshot()
        result = cli(*shlex.split(arguments))
        assert result.exit_code == 2, result.stderr
        assert "error: " in result.stderr
        assert told in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr
        assert snapshot() == before

    def test_weights_may_begin_with_a_minus(self) -> None:
        picture("in.png")
        assert cli("kernel", "-w", "-1 0 1", "in.png", "out.png").exit_code == 0

    def test_bytes_are_not_written_to_a_terminal(self) -> None:
        picture("in.png")
        controller, terminal = pty.openpty()
        try:
            done = subprocess.run(
                [*PROGRAM, "blur", "in.png", "-"],
                stdout=terminal, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False,
            )  # fmt: skip
        finally:
            os.close(terminal)
            os.close(controller)
        assert done.returncode == 2
        assert b"terminal" in done.stderr
        assert b"hint: " in done.stderr


class TestErrors:
    def test_a_file_that_the_system_refuses_is_named(self) -> None:
        picture("in.png")
        result = cli("blur", "x" * 300 + ".png", "out.png")
        assert result.exit_code == 2
        assert result.stderr.endswith(f"error: {'x' * 300}.png: File name too long\n")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
    def test_a_report_on_a_full_disk_is_told(self) -> None:
        picture("in.png")
        result = cli("box", "in.png", "out.png", "--report", "/dev/full")
        assert result.exit_code == 1
        assert "error: cannot write the report /dev/full: No space left" in result.stderr

    def test_what_pillow_warns_of_is_not_shown(self) -> None:
        Image.new("L", (8, 8)).save("in.tif")
        order, tags, _ = ifd.parse(Path("in.tif").read_bytes())
        tags[284] = ifd.shorts(order, 1, 1)  # one planar configuration too many
        tags[273] = ifd.longs(order, 8)
        space = ifd.Space()
        space.add(bytes(64))
        at = ifd.write(tags, order, space)
        Path("in.tif").write_bytes(b"".join([struct.pack("<2sHI", b"II", 42, at), *space.pieces()]))
        done = call("box", "--engine", "cpu", "in.tif", "out.tif")
        assert done.returncode == 0
        assert len(done.stderr.decode().splitlines()) == 2, done.stderr

    @pytest.mark.parametrize(
        ("at", "wrong"),
        [(24, 9), (28, 5), (-30, 0)],
        ids=["depth", "interlacing", "pixels"],
    )
    def test_what_libpng_says_of_a_damaged_image_is_not_shown(self, at: int, wrong: int) -> None:
        data = bytearray(picture("good.png").read_bytes())
        data[at] = wrong
        # The checksums stay right, so that libpng itself meets the damage.
        view, start = bytes(data), 8
        while start < len(view):
            end = start + 8 + int.from_bytes(view[start : start + 4], "big")
            data[end : end + 4] = zlib.crc32(view[start + 4 : end]).to_bytes(4, "big")
            start = end + 4
        Path("in.png").write_bytes(data)
        done = call("blur", "--engine", "cpu", "in.png", "out.png")
        told = done.stderr.decode().splitlines()
        assert done.returncode == 1
        assert len(told) == 2, told
        assert told[1].startswith("error: in.png: ")

    def test_what_opencv_logs_of_a_damaged_image_is_not_shown(self) -> None:
        image = np.random.default_rng(0).integers(0, 65536, (99, 99, 3), dtype=np.uint16)
        data = bytearray(cv2.imencode(".tif", image)[1].tobytes())
        data[500:9000:37] = bytes(len(data[500:9000:37]))
        Path("in.tif").write_bytes(data)
        told = call("box", "--engine", "cpu", "in.tif", "out.tif").stderr.decode().splitlines()
        assert told[0].startswith("cpu: ")
        assert told[1].startswith("error: in.tif: it is damaged")
        assert len(told) == 2

    @pytest.fixture
    def fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any, **kwargs: Any) -> Engine:
            raise ZeroDivisionError("nobody expected this")

        monkeypatch.setattr(engines, "open_engine", fail)
        picture("in.png")

    def test_the_unexpected_is_one_line_and_a_hint(self, fault: None) -> None:
        result = cli("blur", "in.png", "out.png")
        assert result.exit_code == 1
        assert result.stderr.splitlines() == [
            "error: something unexpected happened",
            "hint: run again with --debug, and report what it shows",
        ]

    def test_debug_shows_the_traceback(self, fault: None) -> None:
        result = cli("blur", "in.png", "out.png", "--debug")
        assert result.exit_code == 1
        assert "Traceback" in result.stderr

    def test_debug_shows_that_of_a_failed_image(self) -> None:
        Path("in.png").write_bytes(b"no image")
        assert "Traceback" not in cli("blur", "in.png", "out.png").stderr
        result = cli("blur", "in.png", "out.png", "--debug")
        assert result.exit_code == 1
        assert "Traceback" in result.stderr


class TestFolder:
    def test_is_done_in_spite_of_a_broken_image(self, folder: Path) -> None:
        result = cli("sobel", "-r", "in/", "out/")
        assert result.exit_code == 1
        assert sorted(snapshot("out")) == ["out/a.png", "out/b.jpg", "out/s/c.png"]
        lines = result.stderr.splitlines()
        assert [line for line in lines if line.startswith("error: in/broken.png: ")]
        assert lines[-1].startswith("3 done, 0 skipped, 1 failed, 1 left alone; ")
        assert lines[-1].endswith("images/s")
        assert result.stdout == ""

    def test_check_is_summed_up_with_the_worst(self, folder: Path) -> None:
        result = cli("blur", "-r", "--check", "in", "out")
        assert "check: 3 of 3 images agree with the reference" in result.stderr
        assert "  worst in/" in result.stderr

    def test_verbose_tells_each_image_and_quiet_errors_only(self, folder: Path) -> None:
        assert "in/s/c.png -> out/s/c.png" in cli("box", "-rv", "in", "out").stderr
        quiet = cli("box", "-rq", "in", "out").stderr.splitlines()
        assert [line.split(":")[1].strip() for line in quiet] == ["in/broken.png"]

    def test_dry_run_lists_and_touches_nothing(self, folder: Path) -> None:
        before = snapshot()
        result = cli("sobel", "-r", "in", "out", "--format", "png", "--dry-run")
        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            "in/a.png -> out/a.png",
            "in/b.jpg -> out/b.png",
            "in/broken.png -> out/broken.png",
            "in/s/c.png -> out/s/c.png",
        ]
        assert "4 to do, 0 skipped, 1 left alone" in result.stderr
        assert snapshot() == before

    def test_skip_resumes(self, folder: Path) -> None:
        picture("out/a.png", (5, 5))
        before = Path("out/a.png").read_bytes()
        result = cli("sobel", "-r", "in", "out", "--existing", "skip", "--report", "r.jsonl")
        assert "2 done, 1 skipped, 1 failed" in result.stderr
        assert Path("out/a.png").read_bytes() == before
        lines = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
        assert sorted((line["source"], line["status"]) for line in lines) == [
            ("in/a.png", "skipped"),
            ("in/b.jpg", "done"),
            ("in/broken.png", "failed"),
            ("in/s/c.png", "done"),
        ]
        assert next(line for line in lines if line["status"] == "failed")["error"]

    def test_a_report_is_written_as_the_images_end(self) -> None:
        with JsonLines("r.jsonl") as report:
            report.write(Record("a.png", "b.png"))
            assert json.loads(Path("r.jsonl").read_text())["source"] == "a.png"

    def test_a_report_may_go_to_stdout(self, folder: Path) -> None:
        result = cli("sobel", "-r", "in", "out", "--report", "-")
        assert {json.loads(line)["source"] for line in result.stdout.splitlines()} == {
            "in/a.png", "in/b.jpg", "in/broken.png", "in/s/c.png",
        }  # fmt: skip

    def test_what_the_plan_refuses_is_reported_and_fails(self, folder: Path) -> None:
        Image.new("L", (4, 4)).save("in/z.gif")
        result = cli("box", "-r", "in", "out", "--report", "r.jsonl")
        assert result.exit_code == 1
        assert "error: in/z.gif: gif files are not written" in result.stderr
        assert "3 done, 0 skipped, 2 failed" in result.stderr
        assert len(Path("r.jsonl").read_text().splitlines()) == 5
        dry = cli("box", "-r", "in", "out", "--dry-run")
        assert dry.exit_code == 1
        assert "error: in/z.gif" in dry.stderr

    def test_equal_stems_stop_it(self, folder: Path) -> None:
        picture("in/a.jpg")
        result = cli("sobel", "-r", "in", "out", "--format", "png")
        assert result.exit_code == 2
        assert "in/a.jpg and in/a.png would both become out/a.png" in result.stderr
        assert not Path("out").exists()

    def test_in_place_replaces_each(self, folder: Path) -> None:
        before = snapshot("in")
        assert cli("blur", "-r", "in", "--in-place").exit_code == 1
        after = snapshot("in")
        assert after.keys() == before.keys()
        changed = {name for name in after if after[name] != before[name]}
        assert changed == {"in/a.png", "in/b.jpg", "in/s/c.png"}

    def test_nothing_to_do_is_no_error(self) -> None:
        Path("in").mkdir()
        Path("in/x.txt").touch()
        result = cli("blur", "-r", "in", "out")
        assert result.exit_code == 0
        assert "0 done, 0 skipped, 0 failed, 1 left alone" in result.stderr

    def test_lost_metadata_is_told_once_with_a_count(self) -> None:
        exif = Image.Exif()
        exif[0x010E] = "a picture"
        for n in range(3):
            Path("in").mkdir(exist_ok=True)
            Image.new("RGB", (8, 8)).save(f"in/{n}.jpg", exif=exif)
        told = cli("box", "-r", "in", "out", "--format", "bmp").stderr.splitlines()
        notes = [line for line in told if line.startswith("note: ")]
        assert notes
        assert all(line.endswith("(3 images)") for line in notes)
        each = cli("box", "-rv", "in", "out", "--format", "bmp").stderr
        assert "note: in/0.jpg: BMP does not hold" in each

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc alone")
    def test_memory_of_one_image_serves_the_next(self) -> None:
        code = """
import resource
import numpy as np
from cudafilter.cli.run import _keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(36 << 20, np.uint8)[::4096] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

_keep_freed_memory()
print(faults(), faults())
"""
        first, second = map(int, python(code).split())
        assert second < 5 < first

    def test_libraries_start_no_threads_beside_ours(self) -> None:
        code = (
            "import os, sys, cudafilter.cli as cli; cli._leave = lambda code: None;"
            " from cudafilter.__main__ import main;"
            " sys.argv[1:] = ['--version']; main(); import cv2; print(cv2.getNumThreads());"
            " print(len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 1)"
        )
        told = python(code, without=("OPENCV_FOR_THREADS_NUM", "OPENBLAS_NUM_THREADS"))
        assert told.split()[-2:] == ["1", "1"]

    def test_no_garbage_is_looked_for_until_the_engine_is_open(self) -> None:
        picture("in.png")
        code = """
import gc, sys, cudafilter.cli as cli
from cudafilter.engines import open as engines
open_engine, seen = engines.open_engine, []
def opened(*args, **options):
    seen.append(gc.isenabled())
    engine = open_engine(*args, **options)
    run = engine.run
    engine.run = lambda *a, **b: (seen.append(gc.isenabled()), run(*a, **b))[1]
    return engine
engines.open_engine = opened
cli._leave = lambda code: print(code, seen)
sys.argv[1:] = ["blur", "-q", "--engine", "cpu", "in.png", "out.png"]
cli.main()
"""
        assert python(code) == "0 [False, True]\n"
        gc.disable()
        try:
            cli("blur", "--dry-run", "in.png", "out.png")
            assert gc.isenabled()
        finally:
            gc.enable()


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


class TestWatch:
    def test_filters_what_is_there_and_what_arrives_until_interrupted(self) -> None:
        picture("in/a.png")
        process = subprocess.Popen(
            [*PROGRAM, "box", "--engine", "cpu", "--watch", "-r", "in", "out"],
            env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        told = [process.stderr.readline() for _ in range(2)]
        picture("b.png").rename("in/b.png")
        told.append(process.stderr.readline())
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        told += process.communicate(timeout=20)[1].splitlines()
        assert process.returncode == 0, "it ends as it should: nothing is left undone"
        assert told[0].startswith("cpu: ")
        assert told[1].startswith("in/a.png -> out/a.png 32x24 RGB uint8")
        assert told[2].startswith("in/b.png -> out/b.png 32x24 RGB uint8")
        assert told[3].startswith("2 done, 0 skipped, 0 failed, 0 left alone; ")
        assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png"]

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ("in --in-place", "'--watch': in place, each result would be filtered again"),
            ("- out.png", "'--watch': watches folders"),
            ("-r in out --dry-run", "--watch does not end"),
        ],
    )
    def test_what_cannot_be_watched_is_refused(self, arguments: str, told: str) -> None:
        picture("in/a.png")
        result = cli("box", "--watch", *arguments.split())
        assert result.exit_code == 2
        assert told in " ".join(result.stderr.split())
        assert not Path("out").exists()


class TestProgress:
    def test_a_terminal_has_a_bar_of_one_line(self, folder: Path) -> None:
        controller, terminal = pty.openpty()
        process = subprocess.Popen(
            [*PROGRAM, "sobel", "--engine", "cpu", "-r", "in", "out"],
            stdout=subprocess.DEVNULL, stderr=terminal, env=ENVIRONMENT,
        )  # fmt: skip
        os.close(terminal)
        shown = b""
        while True:
            try:
                chunk = os.read(controller, 4096)
            except OSError:  # EIO: the other end is closed
                break
            if not chunk:
                break
            shown += chunk
        os.close(controller)
        assert process.wait() == 1
        assert b"] 4/4  " in shown
        assert b"images/s" in shown

    def test_a_pipe_has_none(self, folder: Path) -> None:
        told = call("sobel", "--engine", "cpu", "-r", "in", "out").stderr
        assert b"\r" not in told
        assert b"\x1b" not in told

    @pytest.mark.parametrize("columns", [20, 40, 79])
    @pytest.mark.parametrize("done", [0, 1, 99999])
    def test_the_line_fits(self, columns: int, done: int) -> None:
        progress = Progress(100000, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        progress.done = progress._worked = done
        assert len(progress.line(12345.6, columns)) <= columns

    def test_time_left_is_by_the_images_that_took_work(self) -> None:
        progress = Progress(100, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        for n in range(50):
            progress.advance(worked=n >= 40)
        assert "50/100  2 images/s  0:25 left" in progress.line(5.0, 79)


class TestFilters:
    def test_lists_all_within_80_columns(self) -> None:
        shown = cli("filters").stdout
        assert max(map(len, shown.splitlines())) <= 80
        for spec in CATALOGUE.values():
            assert f"{spec.name}: {spec.summary}" in shown
            assert spec.example in shown

    def test_json_is_the_catalogue(self) -> None:
        listed = json.loads(cli("filters", "--json").stdout)
        assert [entry["name"] for entry in listed] == list(CATALOGUE)
        sigma = listed[0]["parameters"][0]
        assert (sigma["name"], sigma["kind"], sigma["above"]) == ("sigma", "float", 0)


class TestInfo:
    def test_tells_engines_versions_and_cache(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDAFILTER_CACHE", "/somewhere/else")
        result = cli("info")
        assert result.exit_code == 0, result.stderr
        for word in ("cuda ", "cpu ", "NumPy", "Pillow", "PyCUDA", "/somewhere/else"):
            assert word in result.stdout

    @pytest.mark.parametrize("library", [None, "/lib/libnvjpeg.so.13"])
    def test_tells_whether_the_gpu_codes_jpeg(
        self, library: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from cudafilter import nvjpeg
        from cudafilter.engines.cuda import device as cuda

        device = cuda.Gpu(0, "a GPU", (9, 0), 1 << 30, "13.0")
        monkeypatch.setattr(cuda, "gpus", lambda: [device])
        monkeypatch.setattr(nvjpeg, "find", lambda major: library if major == 13 else "wrong")
        assert (library or "the extra nvcodec") in cli("info").stdout
        assert json.loads(cli("info", "--json").stdout)["nvjpeg"] == library

    def test_names_what_is_missing_and_what_mends_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from cudafilter import toolkit
        from cudafilter.engines.cuda import device as cuda

        def none() -> list[Any]:
            raise EngineUnavailable("no driver answers")

        monkeypatch.setattr(cuda, "gpus", none)
        monkeypatch.setattr(toolkit, "missing", lambda: [toolkit.Missing("no GPU", "buy one")])
        shown = cli("info").stdout
        assert "not available: no driver answers" in shown
        assert "buy one" in shown
        found = json.loads(cli("info", "--json").stdout)
        assert found["engines"]["cuda"]["available"] is False
        assert found["engines"]["cuda"]["missing"] == [{"what": "no GPU", "mend": "buy one"}]
        assert found["engines"]["cpu"]["available"] is True
        assert found["devices"] == []

    def test_lists_devices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from cudafilter import toolkit
        from cudafilter.engines import nvcc
        from cudafilter.engines.cuda import device as cuda

        device = cuda.Gpu(0, "Some GPU", (9, 0), 80 << 30, "13.0")
        monkeypatch.setattr(cuda, "gpus", lambda: [device])
        monkeypatch.setattr(nvcc, "require_toolkit", lambda: None)
        monkeypatch.setattr(toolkit, "missing", list)
        shown = cli("info").stdout
        assert "Some GPU, compute capability 9.0, 80.0 GiB" in shown
        listed = json.loads(cli("info", "--json").stdout)["devices"]
        assert listed[0]["compute_capability"] == "9.0"
        assert listed[0]["memory_bytes"] == 80 << 30


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
