"""What files hold and are called reaches the terminal written out, not as it is."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from command_line import ENVIRONMENT, PROGRAM, cli
from cudafilter.cli.terminal import tell_error
from cudafilter.engines import Engine
from cudafilter.engines import open as engines
from cudafilter.errors import UNEXPECTED, CudafilterError, EngineError, in_words
from cudafilter.host.escape import escaped, escaped_lines, escaped_name

pytestmark = pytest.mark.usefixtures("here")

FORGED = "error: forged"
EVIL = f"\x1b]0;title\x07\x1b[2J\r\n{FORGED}"
STEERING = [
    *map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)),
    *"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029",
    "\ud800", "\udfff", "\udc80", "\udcff",
]  # fmt: skip


def is_clean(text: str) -> bool:
    """Whether *text* steers no terminal and has no forged line."""
    lines = text.split("\n")
    return all(line.isprintable() for line in lines) and not any(
        line.startswith(FORGED) for line in lines
    )


def picture(name: str, **extra: object) -> str:
    Path(name).parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(name, "PNG", **extra)
    return name


@pytest.mark.parametrize("character", STEERING)
def test_what_steers_a_terminal_is_written_out(character: str) -> None:
    shown = escaped(f"a{character}b")
    assert shown.isascii()
    assert shown.isprintable()
    assert shown.startswith("a\\")


@pytest.mark.parametrize("text", ["photo.jpg", "日本 café 👨‍👩‍👧.png", r"a\x1b.png"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert escaped(text) == text


def test_lines_of_a_text_are_set_in() -> None:
    assert escaped_lines(f"one\n{FORGED}\r\x1b") == f"  one\n  {FORGED}\\r\\x1b"


@pytest.mark.parametrize(
    "name", [b"plain.png", b"a\\b.png", b"a\\x1b.png", b"\x1b[2J\n\t\x7f.png", b"\xe9\xff.png"]
)
def test_a_name_can_be_had_back(name: bytes) -> None:
    shown = escaped_name(os.fsdecode(name))
    assert shown.isascii()
    assert subprocess.check_output(["bash", "-c", 'printf %b "$1"', "-", shown]) == name


def test_control_characters_in_a_name_reach_no_terminal() -> None:
    Path("in").mkdir()
    Path("in", f"a{EVIL}.png").write_bytes(b"broken")
    picture(f"in/b{EVIL}.png")
    picture("in/c\u202egpj.png")
    picture(os.fsdecode(b"in/d\xff.png"))
    for more in ([], ["-v"], ["--debug"], ["--dry-run"], ["--format", "webp"]):
        result = cli("box", "-r", "in", "out", *more)
        assert is_clean(result.stderr), result.stderr
        assert is_clean(result.stdout), result.stdout
    assert "in/a\\x1b]0;title\\x07\\x1b[2J\\r\\n" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["box", f"none{EVIL}.png", "out.png"],
        ["box", f"{EVIL}/a.png", f"{EVIL}/b.png"],
        ["box", "a.png", f"out{EVIL}"],
        ["box", "a.png", f"no{EVIL}/out.png"],
        ["box", "a.png", "out.png", "--format", EVIL],
        ["box", "a.png", "out.png", "--radius", EVIL],
        ["box", "a.png", "out.png", "--border", EVIL],
        ["box", "a.png", "out.png", "--gpu", EVIL],
        ["box", "a.png", "out.png", "--quality", EVIL],
        ["box", "a.png", "out.png", "--report", f"no{EVIL}/r"],
        ["box", "a.png", "out.png", f"--{EVIL}"],
        ["kernel", "-w", EVIL, "a.png", "out.png"],
        ["kernel", "-w", f"{EVIL}.csv", "a.png", "out.png"],
        [EVIL],
        ["bench", EVIL],
        ["bench", "--dtypes", EVIL],
    ],
)
def test_wrong_usage_is_told_without_them(arguments: list[str]) -> None:
    picture("a.png")
    result = cli(*arguments)
    assert result.exit_code in (1, 2)
    assert is_clean(result.output), result.output
    assert "error: " in result.stderr


def test_what_an_image_holds_is_told_without_them() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("key", "value")
    data = Path(picture("a.png", pnginfo=text)).read_bytes()
    key = EVIL.encode()
    body = b"tEXt" + key + b"\0value"
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    start = data.index(b"tEXt") - 4
    length = int.from_bytes(data[start : start + 4], "big") + 12
    Path("a.png").write_bytes(data[:start] + chunk + data[start + length :])
    result = cli("box", "a.png", "out.jpg")
    assert is_clean(result.output), result.output
    assert "\\x1b" in result.stderr


def test_a_report_holds_them_in_json() -> None:
    names = [f"in/b{EVIL}.png", os.fsdecode(b"in/d\xff.png")]
    for name in names:
        picture(name)
    assert cli("box", "-r", "in", "out", "--report", "r.jsonl").exit_code == 0
    data = Path("r.jsonl").read_bytes()
    assert data.isascii()
    assert sorted(json.loads(line)["source"] for line in data.splitlines()) == names


def test_a_name_that_the_encoding_lacks_is_told_all_the_same() -> None:
    picture("日本.png")
    done = subprocess.run(
        [*PROGRAM, "box", "日本.png", "out.png", "--dry-run"],
        env={**ENVIRONMENT, "PYTHONIOENCODING": "latin-1:strict"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "\\u65e5\\u672c.png -> out.png\n")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CudafilterError("ours"), "ours"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(13, "Permission denied", "a.png"), "a.png: Permission denied"),
        (OSError(13, "Permission denied", b"a\xff.png"), "a\udcff.png: Permission denied"),
        (OSError("cannot identify"), UNEXPECTED),
        (MemoryError(), "there is not enough memory"),
        (
            ImportError("libx.so: failed to map segment from shared object"),
            "there is not enough memory",
        ),
        (RuntimeError("can't start new thread"), "no more threads can be started here"),
        (AssertionError(), UNEXPECTED),
        (KeyError("x"), UNEXPECTED),
        (RecursionError("maximum recursion depth exceeded"), UNEXPECTED),
    ],
)
def test_errors_are_told_in_words(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> Engine:
        raise error

    assert in_words(error)[0] == told
    picture("in.png")
    monkeypatch.setattr(engines, "open_engine", fail)
    result = cli("box", "in.png", "out.png")
    lines = result.stderr.splitlines()
    assert (result.exit_code, lines[0]) == (1, f"error: {escaped(told)}")
    hint = in_words(error)[1]
    assert lines[1:] == ([f"hint: {hint}"] if hint else [])
    if told == UNEXPECTED:
        assert "--debug" in str(hint)


def test_a_compilers_lines_stay_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> Engine:
        raise EngineError(f"x.cu does not compile:\nx.cu(3): {FORGED}\n{FORGED}", hint="newer")

    picture("in.png")
    monkeypatch.setattr(engines, "open_engine", fail)
    assert cli("box", "in.png", "out.png").stderr.splitlines() == [
        "error: x.cu does not compile:", f"  x.cu(3): {FORGED}", f"  {FORGED}", "hint: newer",
    ]  # fmt: skip


def test_a_hint_is_escaped_too(capsys: pytest.CaptureFixture[str]) -> None:
    tell_error("a\nb", "c\x1bd")
    assert capsys.readouterr().err == "error: a\\nb\nhint: c\\x1bd\n"
