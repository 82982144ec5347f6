"""What the command line refuses, and how it tells of failures."""

from __future__ import annotations

import os
import pty
import shlex
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from command_line import ENVIRONMENT, PROGRAM, call, cli, picture, snapshot
from cudafilter.engines import Engine
from cudafilter.engines import open as engines
from cudafilter.formats import ifd

pytestmark = pytest.mark.usefixtures("here")


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
            ("blur --codec units in.png out.png", "'--codec': is for the cuda engine"),
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
            ("completion", "Missing argument 'SHELL'. Choose from bash, zsh, fish."),
            ("-v blur in.png out.png", "hint: options follow the command: cudafilter FILTER"),
            ("--quality 9 blur in.png out.jpg", "hint: options follow the command"),
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

    def test_a_file_that_begins_with_a_dash_is_seen(self) -> None:
        picture("-dash.png")
        result = cli("blur", "-dash.png", "out.png")
        assert result.exit_code == 2
        assert "hint: for the file of that name: ./-dash.png\n" in result.stderr

    def test_weights_may_begin_with_a_minus(self) -> None:
        picture("in.png")
        assert cli("kernel", "-w", "-1 0 1", "in.png", "out.png").exit_code == 0

    def test_a_value_of_check_behind_a_space_is_not_taken_for_dest(self) -> None:
        for name in ("in.png", "out.png"):
            picture(name)
        result = cli("blur", "in.png", "out.png", "--check", "quick")
        assert result.exit_code == 2
        assert "--check takes its value after '=': --check=quick\n" in result.stderr
        assert "hint: for a file or folder of that name: ./quick" in result.stderr
        assert not Path("quick").exists()
        assert cli("blur", "in.png", "--check", "./quick", "--format", "png").exit_code == 0
        assert cli("blur", "--check", "quick", "out.png").exit_code == 0  # it is there now

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
        space = ifd.space_around(None)
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


@pytest.mark.parametrize("codec", ["cpu", "pillow"])
def test_codec_cpu_may_be_called_pillow_as_before(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture("in.jpg")
    asked: list[str] = []
    cpu = engines.open_engine("cpu")

    def open_engine(name: str, *, codec: str, **others: Any) -> Engine:
        asked.append(codec)
        return cpu

    monkeypatch.setattr(engines, "open_engine", open_engine)
    assert cli("blur", "--codec", codec, "in.jpg", "out.jpg").exit_code == 0
    assert asked == ["cpu"]


def test_former_words_are_neither_shown_nor_offered() -> None:
    assert "pillow" not in cli("blur", "--help").stdout
    refused = cli("blur", "--codec", "gpu", "in.jpg", "out.jpg")
    assert refused.exit_code == 2
    assert "'auto', 'units', 'cpu'." in refused.stderr


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["blur", "in.png", "out.png", "--report", ""], "'--report'"),
        (["blur", "in.png", "out.png", "--mask", ""], "'--mask'"),
        (["blur", "in.png", "out.png", "--retry-failed", ""], "'--retry-failed'"),
        (["preview", "in.png", "-o", ""], "'-o' / '--output'"),
        (["preview", ""], "'SRC'"),
        (["bench", "--folder", ""], "'--folder'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_empty_file_name_is_told(here: Path, words: list[str], name: str) -> None:
    picture("in.png")
    done = cli(*words)
    assert done.exit_code == 2
    assert f"error: Invalid value for {name}: a file name is empty" in done.stderr
