"""Presets: what the user sets for good, in a file and in the environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import platformdirs
import pytest
from click.testing import Result

from command_line import ENVIRONMENT, HOME, cli, picture
from cudafilter.cli import app, presets

pytestmark = pytest.mark.usefixtures("here", "photo")

FILE = "set.toml"
BOTH = {"CUDAFILTER_BORDER": "reflect", "CUDAFILTER_BLUR_BORDER": "wrap"}


@pytest.fixture
def photo(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(presets.FILE, FILE)
    Path(FILE).touch()
    return picture("in.png")


def told(*arguments: str) -> dict[str, object]:
    """The parameters and the border that a run's report tells."""
    Path("report").unlink(missing_ok=True)
    done = cli(*arguments, "in.png", "out.png", "--report", "report")
    assert done.exit_code == 0, done.stderr
    line = json.loads(Path("report").read_text())
    return {**line["parameters"], "border": line["border"]}


def failed(*arguments: str) -> Result:
    done = cli(*arguments, "in.png", "out.png")
    assert done.exit_code == 2
    assert not Path("out.png").exists()
    return done


@pytest.mark.parametrize(
    ("text", "environment", "words", "sigma"),
    [
        ("", {}, [], 2),
        ("[blur]\nsigma = 3", {}, [], 3),
        ("[blur]\nsigma = 3", {"CUDAFILTER_BLUR_SIGMA": "4"}, [], 4),
        ("[blur]\nsigma = 3", {"CUDAFILTER_BLUR_SIGMA": "4"}, ["--sigma", "5"], 5),
        ("[blur]\nsigma = 3", {}, ["--sigma", "5"], 5),
        ("[blur]\nsigma = 3", {"CUDAFILTER_BLUR_SIGMA": ""}, [], 3),
        ("[unsharp]\nsigma = 3", {"CUDAFILTER_UNSHARP_SIGMA": "4"}, [], 2),
        ("blur = {sigma = 3}", {}, [], 3),
        ("blur.sigma = 3.5", {}, [], 3.5),
        ("[blur]\nsigma = '3'", {}, [], 3),
    ],
)
def test_the_command_line_goes_before_the_environment_and_that_before_the_file(
    text: str, environment: dict[str, str], words: list[str], sigma: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    Path(FILE).write_text(text)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert told("blur", *words)["sigma"] == sigma


@pytest.mark.parametrize(
    ("text", "environment", "command", "border"),
    [
        ("border = 'wrap'", {}, ["blur"], "wrap"),
        ("border = 'wrap'", {}, ["chain", "box | blur", "--engine", "cpu"], "wrap"),
        ("border = 'wrap'\n[blur]\nborder = 'reflect'", {}, ["blur"], "reflect"),
        ("border = 'wrap'\n[blur]\nborder = 'reflect'", {}, ["box"], "wrap"),
        ("[blur]\nborder = 'wrap'", {"CUDAFILTER_BORDER": "reflect"}, ["blur"], "reflect"),
        ("", BOTH, ["blur"], "wrap"),
        (
            "",
            BOTH,
            ["box"],
            "reflect",
        ),
    ],
)
def test_what_all_filters_share_is_set_for_all_or_for_one(
    text: str, environment: dict[str, str], command: list[str], border: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    Path(FILE).write_text(text)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert told(*command)["border"] == border


def test_steps_of_a_chain_have_no_presets_so_that_a_recipe_is_the_same_everywhere() -> None:
    Path(FILE).write_text("[blur]\nsigma = 3\n")
    assert told("chain", "blur", "--engine", "cpu") == {"steps": ["blur"], "border": "edge"}
    chained = Path("out.png").read_bytes()
    told("blur", "--sigma", "2")
    assert Path("out.png").read_bytes() == chained


def test_a_flag_that_is_set_is_switched_off_by_its_name_with_no() -> None:
    from PIL import Image

    def mode(*words: str) -> str:
        told("blur", *words)
        with Image.open("out.png") as image:
            return image.mode

    assert mode("--no-gray") == "RGB"
    Path(FILE).write_text("gray = true\ncheck = 'quick'")
    assert mode() == "L"
    assert mode("--no-gray") == "RGB"
    assert "check: " in cli("blur", "in.png", "out.png").stderr
    assert "check: " not in cli("blur", "in.png", "out.png", "--no-check").stderr


def test_a_check_that_is_true_in_the_file_is_one_without_a_value() -> None:
    Path(FILE).write_text("[blur]\ncheck = true")
    assert "check: agrees" in cli("blur", "in.png", "out.png").stderr
    assert "check: " not in cli("blur", "in.png", "out.png", "--no-check").stderr


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_a_flag_of_the_environment_is_a_word(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDAFILTER_KERNEL_NORMALIZE", value)
    assert told("kernel", "--weights", "1 2 1")["normalize"] is True


@pytest.mark.parametrize(
    ("text", "error", "hint"),
    [
        ("\nqualty = 90", "line 2: there is no option 'qualty'", "did you mean quality?"),
        (
            "[blur]\n\nsgima = 3",
            "line 3: there is no option 'sgima'",
            "did you mean sigma?",
        ),
        ("[blurr]", "set.toml, line 1: there is no filter 'blurr'", "did you mean blur?"),
        ("# x\nsigma = 3", "line 2: not all filters have an option 'sigma'", "[blur]"),
        (
            "[unsharp]\nq = 1\n[blur]\nsigma = 'x'",
            "a number, not 'x' (set.toml, line 4)",
            "",
        ),
        ("quality = 101", "whole number from 1 to 100, not '101' (set.toml, line 1)", ""),
        ("border = 'mirror'", "(set.toml, line 1)", "did you mean reflect?"),
        ("[blur]\nsigma = 0", "must be > 0 and <= 1365, not 0 (set.toml, line 2)", ""),
        ("gray = 'yes'", "set.toml, line 1: gray takes true or false", ""),
        ("quality = true", "set.toml, line 1: quality takes a value, not true or false", ""),
        ("quality = [1]", "set.toml, line 1: quality takes a text or a number", ""),
        ("in-place = true", "set.toml, line 1: in-place cannot be set here", "command line"),
        ("quality = \nx", "set.toml is no TOML: Invalid value (at line 1", ""),
        (b"\xff\xfe", "set.toml is no text in UTF-8", ""),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_its_line(
    text: str | bytes, error: str, hint: str
) -> None:
    Path(FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    done = failed("blur")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error in line
    assert hint in done.stderr
    assert cli("blur", "--help").exit_code == 0


def test_what_is_wrong_in_the_environment_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDAFILTER_BLUR_SIGMA", "wide")
    assert "must be a number, not 'wide' (CUDAFILTER_BLUR_SIGMA)" in failed("blur").stderr
    assert "CUDAFILTER" not in failed("blur", "--sigma", "wide").stderr
    monkeypatch.setenv(presets.FILE, "none.toml")
    assert "CUDAFILTER_CONFIG: there is no file none.toml" in failed("blur").stderr


def test_a_value_that_fails_later_is_placed_too() -> None:
    Path(FILE).write_text("[erode]\nshape = 'nowhere.txt'")
    assert "(set.toml, line 2)" in failed("erode").stderr


@pytest.mark.parametrize("named", ["", os.devnull])
def test_scripts_do_without_a_file(named: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = here / "config" / "cudafilter"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("[blur]\nsigma = 7")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "config"))
    monkeypatch.delenv(presets.FILE)
    assert told("blur")["sigma"] == 7
    monkeypatch.setenv(presets.FILE, named)
    assert told("blur")["sigma"] == 2


@pytest.mark.parametrize("base", [None, "", "/nowhere/else"])
def test_the_file_is_where_platformdirs_has_it(
    base: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(presets.FILE)
    monkeypatch.delenv("XDG_CONFIG_HOME")
    if base is not None:
        monkeypatch.setenv("XDG_CONFIG_HOME", base)
    expected = platformdirs.user_config_path("cudafilter") / "config.toml"
    assert presets.file_name() == str(expected)


def test_presets_in_force_are_told_with_verbose_only() -> None:
    Path(FILE).write_text("quality = 80\n[blur]\nsigma = 3")
    done = cli("blur", "in.png", "out.png", "-v", "--quality", "70")
    assert "preset: --sigma 3 (set.toml, line 2)" not in done.stderr
    assert "preset: --sigma 3 (set.toml, line 3)" in done.stderr
    assert "preset: --quality" not in done.stderr
    assert "preset" not in cli("blur", "in.png", "out.png").stderr


def test_the_file_of_the_documents_is_one() -> None:
    page = Path(HOME, "docs", "options.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    Path(FILE).write_text(text)
    assert told("unsharp") == {"sigma": 1.5, "amount": 0.8, "threshold": 0, "border": "edge"}
    assert "skipped" in cli("blur", "in.png", "out.png").stderr
    assert cli("info").exit_code == 0


def test_a_preset_that_a_format_has_no_use_for_is_no_news() -> None:
    assert "the quality is not used" in cli("blur", "in.png", "out.png", "--quality", "92").stderr
    Path(FILE).write_text("quality = 92\ncompress-level = 9\ndither = true")
    assert "note: " not in cli("blur", "in.png", "out.png").stderr
    assert "the quality is not used" in cli("blur", "in.png", "out.png", "--quality", "92").stderr
    assert cli("blur", "in.png", "out.webp").exit_code == 0


def test_info_shows_each_with_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(FILE).write_text("gray = true\n[blur]\nsigma = 3\nborder-value = 0.5")
    monkeypatch.setenv("CUDAFILTER_JOBS", "2")
    monkeypatch.setenv("CUDAFILTER_QUALTY", "2")
    shown = re.sub(" +", " ", cli("info").stdout.partition("Presets:")[2])
    for line in (
        "all --gray true (set.toml, line 1)", "blur --sigma 3 (set.toml, line 3)",
        "blur --border-value 0.5 (set.toml, line 4)", "all --jobs 2 (CUDAFILTER_JOBS)",
        "CUDAFILTER_QUALTY no option is called so",
    ):  # fmt: skip
        assert f"\n {line}\n" in shown
    found = json.loads(cli("info", "--json").stdout)["presets"]
    assert found["file"] == FILE
    assert found["strays"] == ["CUDAFILTER_QUALTY"]
    row = {"command": "blur", "option": "sigma", "value": "3", "place": "set.toml, line 3"}
    assert row in found["values"]


def test_info_looks_at_all_of_the_file() -> None:
    Path(FILE).write_text("[blur]\nsigma = 3\n[gabor]\nsigma = 'wide'\n")
    assert cli("blur", "in.png", "out.png").exit_code == 0
    done = cli("info")
    assert done.exit_code == 2
    assert "must be a number, not 'wide' (set.toml, line 4)" in done.stderr


def test_each_option_has_a_variable_of_its_own() -> None:
    taken: dict[str, tuple[str, str]] = {}
    with click.Context(app) as ctx:
        for name in presets.COMMANDS:
            command = app.get_command(ctx, name)
            assert command is not None
            names = {param.name for param in command.params}
            assert presets.OF_A_RUN - names <= {"recipe", "settings", "explain"}
            for option in filter(presets.is_preset, command.params):
                assert option.name is not None
                first, *shared = presets.variables(name, option.name)
                assert taken.setdefault(first, (name, option.name)) == (name, option.name)
                for variable in shared:
                    assert taken.setdefault(variable, ("", option.name)) == ("", option.name)
    assert not presets.OTHERS & taken.keys()


def test_variables_that_are_no_options_are_those_of_the_source() -> None:
    texts = (path.read_text(encoding="utf-8") for path in Path(HOME, "cudafilter").rglob("*.py"))
    named = {name for text in texts for name in re.findall(r"\bCUDAFILTER_[A-Z]+\b", text)}
    assert named | {presets.FILE} == presets.OTHERS


def test_without_any_nothing_more_is_imported() -> None:
    code = (
        "import sys, cudafilter.cli as c\n"
        "try: c.app(['blur', 'none.png', 'out.png', '--dry-run'])\n"
        "finally: print({'tomllib', 'platformdirs', 'difflib'} & set(sys.modules))"
    )
    environment = {k: v for k, v in ENVIRONMENT.items() if not k.startswith("CUDAFILTER_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["set()"]
