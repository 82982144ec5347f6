"""The first moments of the command: before its words are read, and Ctrl-C meanwhile."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from command_line import ENVIRONMENT, PROGRAM
from cudafilter import __main__ as process
from cudafilter.cli import app
from cudafilter.nvidia import install, toolkit
from cudafilter.start import early, interrupt
from cudafilter.start import words as looks
from cudafilter.start.begun import QUEUES, begun

pytestmark = pytest.mark.usefixtures("here")

LINES = [
    "blur --sigma 3 --engine cpu photo.jpg soft.jpg --report=r.jsonl",
    "kernel -w '0 -1 0; -1 5 -1' --normalize -r photos/ out/ --gpu 0,1 -j 2",
    "bench blur --sizes 16 --json",
    "--version",
    "-- blur",
    "",
]
PREFIXES = sorted({line[:end] for line in LINES for end in range(len(line) + 1)})


def words(line: str) -> list[str]:
    """The words of *line*, whose last quotation may be open."""
    try:
        return shlex.split(line)
    except ValueError:
        return shlex.split(line + "'")


def call(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], env={**ENVIRONMENT, **more}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("line", ["", "--version", "--help", "blur", "blur --help", "blur --sigma"])
def test_a_command_line_that_is_not_finished_yet_is_answered_in_words(line: str) -> None:
    done = call(*line.split())
    assert done.returncode in (0, 2)
    assert "Traceback" not in done.stderr
    told = done.stdout or done.stderr
    assert told.startswith(("Usage: cudafilter", "cudafilter 0.", "error: "))


def test_without_a_word_it_shows_its_help() -> None:
    done = call()
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: cudafilter")
    assert "  blur " in done.stderr
    assert "error" not in done.stderr


def test_every_beginning_of_a_command_line_is_looked_at_without_an_error() -> None:
    for line in PREFIXES:
        looks.needs_gpu(words(line))
        looks.first_jpeg(words(line))


def test_every_beginning_of_a_command_line_is_a_usage_error_or_help() -> None:
    for line in PREFIXES[::3]:
        if line.startswith("bench"):
            line += " --repeat 0"  # else it would run
        result = CliRunner().invoke(app, words(line), prog_name="cudafilter")
        assert result.exit_code in (0, 2), (line, result.output)


def test_a_start_that_fails_does_not_fail_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def fail(words: object) -> bool:
        ran.append(words)
        raise RuntimeError("the guess is wrong")

    monkeypatch.setattr(early, "_decode_first", fail)
    monkeypatch.setattr(early, "_start_driver", fail)
    monkeypatch.setattr("cudafilter.cli.main", lambda: ran.append("command line"))
    monkeypatch.setattr("sys.argv", ["cudafilter", "blur"])
    process.main()
    assert ran == [["blur"], ["blur"], "command line"]


@pytest.mark.parametrize(
    ("line", "given", "left", "few"),
    [
        ("blur a.jpg b.jpg", None, "2", True),
        ("blur -r in out --codec units", None, None, False),
        ("blur -r in out --codec=units", None, None, False),
        ("blur a.jpg b.jpg", "32", "32", False),
        ("blur a.jpg b.jpg", "2", "2", False),
    ],
)
def test_hardware_queues_are_few_unless_jpeg_units_need_them_or_the_user_says_how_many(
    line: str, given: str | None, left: str | None, few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(begun, "few_queues", False)
    monkeypatch.setenv(QUEUES, given or "")
    if given is None:
        monkeypatch.delenv(QUEUES)
    monkeypatch.setattr(early, "_start_driver", lambda words: None)
    early.begin(line.split())
    assert os.environ.get(QUEUES) == left
    assert begun.few_queues is few


@pytest.mark.parametrize(
    ("line", "presets", "wanted"),
    [
        ("blur -r in out", {"CUDAFILTER_CODEC": "units"}, True),
        ("blur -r in out", {"CUDAFILTER_BLUR_CODEC": "units"}, True),
        ("chain blur -r in out", {"CUDAFILTER_CHAIN_CODEC": "units"}, True),
        ("median -r in out", {"CUDAFILTER_BLUR_CODEC": "units"}, False),
        ("blur -r in out", {"CUDAFILTER_CODEC": "units", "CUDAFILTER_BLUR_CODEC": "cpu"}, False),
        ("blur -r in out", {"CUDAFILTER_CODEC": "units", "CUDAFILTER_BLUR_CODEC": ""}, True),
        ("blur -r in out --codec auto", {"CUDAFILTER_CODEC": "units"}, False),
        ("blur -r in out --codec units", {"CUDAFILTER_BLUR_CODEC": "cpu"}, True),
        ("", {"CUDAFILTER_CODEC": "units"}, True),
    ],
)
def test_jpeg_units_may_be_asked_for_by_a_preset(
    line: str, presets: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in presets.items():
        monkeypatch.setenv(name, value)
    assert looks.wants_units(line.split()) is wanted


def test_a_tree_deeper_than_pythons_stack_is_looked_into() -> None:
    deep = "d"
    for _ in range(sys.getrecursionlimit() + 100):
        os.mkdir(deep)
        deep += "/d"
    Path(deep[:-2], "far.jpg").touch()
    Path("d/near.jpg").touch()
    try:
        assert sorted(looks.first_files(["d"])) == ["far.jpg", "near.jpg"]
    finally:  # Python's own removal of trees goes as deep as its stack
        subprocess.run(["rm", "-r", "d"], check=True)


def test_a_closed_stream_does_not_become_the_next_file() -> None:
    code = (
        "import os, sys; from cudafilter.__main__ import _hold_streams as h; h();"
        " sys.exit(os.open('file', os.O_CREAT | os.O_WRONLY) <= 2)"
    )
    line = f"{shlex.join([sys.executable, '-c', code])} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", line], env=ENVIRONMENT, check=False).returncode == 0


@pytest.mark.parametrize(
    "module", ["click", "cudafilter.errors", "cudafilter.operations.make", "numpy"]
)
def test_ctrl_c_while_a_module_is_imported_is_told_in_a_word(module: str) -> None:
    code = f"""
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv = ["cudafilter", "blur", "--engine", "cpu", "in.png", "out.png"]
from cudafilter.__main__ import main
main()
"""
    Path("in.png").write_bytes(b"no image")
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("wait", [0, 0.03, 0.1])
def test_ctrl_c_at_any_time_is_told_in_a_word(wait: float, stop: signal.Signals) -> None:
    # From when the package is there: before that, Python itself answers.
    code = (
        "from cudafilter.start import interrupt; interrupt.install(); print(flush=True);"
        " import sys; sys.argv[1:] = ['blur', '-', 'out.png', '--engine', 'cpu'];"
        " from cudafilter.__main__ import main; main()"
    )
    if stop == signal.SIGTERM:
        code = code.replace("print(", "interrupt.install_others(); print(")
    child = subprocess.Popen(
        [sys.executable, "-c", code], env=ENVIRONMENT, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(wait)
    child.send_signal(stop)
    child.wait(timeout=30)
    assert child.stderr is not None
    told = child.stderr.read()
    assert "Traceback" not in told
    assert child.returncode == 130
    assert told.splitlines()[-1].startswith("interrupted")


def test_ctrl_c_is_left_to_whoever_imports_the_program() -> None:
    assert "cudafilter.__main__" in sys.modules
    assert signal.getsignal(signal.SIGINT) is not interrupt.answer


def test_ctrl_c_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupt.install()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_of_an_import_ctrl_c_is_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begun, "caught", True)
    with pytest.raises(KeyboardInterrupt):
        interrupt.answer(signal.SIGINT, None)


@pytest.mark.parametrize("module", ["install_cuda", "toolkit"])
def test_the_other_programs_show_their_help_and_do_nothing(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "install", lambda: pytest.fail("it installed"))
    monkeypatch.setattr(toolkit, "find_toolkit", lambda: pytest.fail("it looked"))
    main = {"install_cuda": install.main, "toolkit": toolkit.main}[module]
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m cudafilter.{module} ")
    for wrong in (["now"], ["--hlep"], ["--drive"]):
        with pytest.raises(SystemExit) as end:
            main(wrong)
        assert end.value.code == 2
        assert wrong[0] in capsys.readouterr().err


def test_an_installation_is_interrupted_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(install, "install", stop)
    assert install.main([]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_bar_is_gone_after_ctrl_c() -> None:
    Path("in").mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    for n in range(300):
        Image.fromarray(picture).save(f"in/{n}.bmp")
    controller, terminal = pty.openpty()
    child = subprocess.Popen(
        [*PROGRAM, "blur", "--sigma", "9", "--engine", "cpu", "-j", "1", "-r", "in", "out"],
        env=ENVIRONMENT, stderr=terminal, stdout=subprocess.DEVNULL,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while b"images/s" not in shown:
        shown += os.read(controller, 4096)
    child.send_signal(signal.SIGINT)
    with suppress(OSError):  # EIO: the other end is closed
        while more := os.read(controller, 4096):
            shown += more
    os.close(controller)
    assert child.wait(timeout=30) == 130
    last = shown.decode().split("\r\x1b[K")[-1]
    assert last.strip().startswith("interrupted: ")
    assert "images/s" not in last


@pytest.mark.parametrize("line", ["--help", "blur --engine cpu in.bmp out.bmp"])
def test_what_others_need_is_not_imported(line: str) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("in.bmp")
    code = (
        "import sys; from click.testing import CliRunner; from cudafilter.cli import app;"
        f" done = CliRunner().invoke(app, {line.split()!r});"
        " assert done.exit_code == 0, done.output; print(*sorted(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    ).stdout.split()
    others = {"cli.steps", "operations.rank", "operations.chain", "operations.window", "check"}
    others |= {"stores.remote", "stores.access", "jobs.objects", "jobs.buckets"}
    assert "obstore" not in loaded
    assert not {f"cudafilter.{name}" for name in others} & set(loaded)
    workers = {f"cudafilter.{name}" for name in ("cli.processes", "cli.tasks", "jobs.workers")}
    assert not {"ray", "multiprocessing", "cudafilter.jobs.cluster", *workers} & set(loaded)
    assert ("numpy" in loaded) == (line != "--help")
